import type { Question } from '../../ir/decision-nodes.ts';
import { type Emitter, emit } from './emitter.ts';
import { ldx, lsh, or, r0, r1, r10, stx } from './insn.ts';
import { loadField, loadOperand } from './loads.ts';
import { shapeOf } from './set-key.ts';

/** A look-up in a set. */
export type Lookup = Extract<Question, { kind: 'lookup' }>;

/** Puts the packed key on the stack, word 0 lowest; returns the offset of word 0. */
export function stackKey(emitter: Emitter, question: Lookup): number {
  const shape = shapeOf(question.set.elements.parts);
  const base = keyArea(emitter);
  const started = new Set<number>();
  for (const [index, operand] of question.key.entries()) {
    const place = shape.places[index];
    if (place === undefined) throw new Error('bug: more key parts than the set has');
    const at = base + 8 * place.word;
    if (operand.field.width > 64) {
      for (const half of [0, 1]) {
        loadField(emitter, r1, operand.field, question.view, 64 * half, 64);
        emit(emitter, stx(8, r10, at + 8 * half, r1));
      }
      continue;
    }
    loadOperand(emitter, r1, operand, question.view);
    if (place.shift > 0) emit(emitter, lsh(r1, place.shift));
    if (started.has(place.word)) emit(emitter, ldx(8, r0, r10, at), or(r1, r0));
    emit(emitter, stx(8, r10, at, r1));
    started.add(place.word);
  }
  return base;
}

/** Where keys of at most as many words as were reserved start. */
export function keyArea(emitter: Emitter): number {
  if (emitter.key === null) throw new Error('bug: no place for a key was reserved');
  return emitter.key;
}

/** Words of 8 bytes that the keys of a look-up take at most, however it is done. */
export function keyWords({ key, set }: Lookup): number {
  const { parts } = set.elements;
  const boxes = shapeOf(parts.map((width) => (width > 64 ? 128 : 64))).words;
  const mapBytes = key.reduce((sum, { field }) => sum + Math.ceil(field.width / 32) * 4, 4);
  return Math.max(boxes, Math.ceil(mapBytes / 8));
}
