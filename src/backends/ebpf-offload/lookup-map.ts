import type { ViewName } from '../../ir/classifier.ts';
import { ones } from '../../support/bits.ts';
import { type Emitter, emit } from './emitter.ts';
import {
  add,
  and32,
  call,
  HELPER,
  ja,
  jeq,
  jne,
  ldMap,
  ldx,
  mov,
  mov32,
  r0,
  r1,
  r2,
  r10,
  rsh,
  stx,
} from './insn.ts';
import { baseRegister, loadOperand, pieces } from './loads.ts';
import { keyArea, type Lookup } from './lookup-key.ts';
import { encodePart, type KeyPart, type SetMap } from './set-map.ts';

/** A word of the key's mask as the machine reads it. */
function maskWord(mask: Uint8Array, at: number): number {
  return new DataView(mask.buffer, mask.byteOffset).getUint32(at, true);
}

/** Loads one word of a part that is as in the frame, masked, and stores it. */
function storeRaw(
  emitter: Emitter,
  part: KeyPart,
  base: number,
  at: number,
  mask: Uint8Array,
): void {
  const { field } = part.operand;
  if (field.base === 'meta') throw new Error('bug: metadata has no bytes');
  const register = baseRegister(emitter, field.base);
  const bytes = Math.min(4, field.width / 8 - at);
  for (const piece of pieces(at, bytes, 4)) {
    const word = maskWord(mask, at) >>> (8 * (piece.offset - at));
    const all = 2 ** (8 * piece.size) - 1;
    emit(emitter, ldx(piece.size, r1, register, field.offset / 8 + piece.offset));
    if ((word & all) >>> 0 !== all) emit(emitter, and32(r1, (word & all) >>> 0));
    // The last piece fills the word up: what it was loaded into is zero beyond it.
    const isLast = piece.offset + piece.size === at + bytes;
    const size = isLast ? at + 4 - piece.offset : piece.size;
    emit(emitter, stx(size === 4 ? 4 : size === 2 ? 2 : 1, r10, base + part.at + piece.offset, r1));
  }
}

function storeNumber(
  emitter: Emitter,
  part: KeyPart,
  view: ViewName,
  base: number,
  mask: Uint8Array,
): void {
  loadOperand(emitter, r1, part.operand, view);
  for (let at = 0; at < part.bytes; at += 4) {
    if (at > 0) emit(emitter, rsh(r1, 32));
    const word = maskWord(mask, at);
    const into = base + part.at + at;
    if (word === 0xffffffff || (part.operand.field.width <= 32 && isWholeMask(part, mask))) {
      emit(emitter, stx(4, r10, into, r1));
    } else if (word === 0) storeZero(emitter, into);
    else {
      if (at + 4 < part.bytes) emit(emitter, mov32(r2, r1), and32(r2, word), stx(4, r10, into, r2));
      else emit(emitter, and32(r1, word), stx(4, r10, into, r1));
    }
  }
}

function isWholeMask(part: KeyPart, mask: Uint8Array): boolean {
  const all = encodePart(part, ones(part.operand.field.width));
  return all.every((byte, index) => mask[index] === byte);
}

function storeZero(emitter: Emitter, into: number): void {
  emit(emitter, mov32(r1, 0), stx(4, r10, into, r1));
}

/** Stores the words of a part whose mask is not what the key area holds already. */
function storePart(
  emitter: Emitter,
  part: KeyPart,
  view: ViewName,
  base: number,
  mask: Uint8Array,
  before: Uint8Array | null,
): void {
  const changed = (at: number): boolean =>
    before === null || maskWord(before, at) !== maskWord(mask, at);
  if (!part.raw) {
    if (mask.some((_, index) => before?.[index] !== mask[index])) {
      storeNumber(emitter, part, view, base, mask);
    }
    return;
  }
  for (let at = 0; at < part.bytes; at += 4) {
    if (!changed(at)) continue;
    if (maskWord(mask, at) === 0) storeZero(emitter, base + part.at + at);
    else storeRaw(emitter, part, base, at, mask);
  }
}

/** r0 = address of the value in a map for the key at `base`, or 0. */
export function emitMapLookup(emitter: Emitter, map: string, base: number): void {
  emit(emitter, ldMap(r1, map), mov(r2, r10), add(r2, base), call(HELPER.mapLookupElem));
}

/** Looks a set up in its hash map, level by level. */
export function askInMap(
  emitter: Emitter,
  question: Lookup,
  { definition, parts, levels }: SetMap,
  yes: string,
  no: string,
): void {
  const base = keyArea(emitter);
  let before: readonly Uint8Array[] | null = null;
  for (const [number, { masks }] of levels.entries()) {
    const encoded: Uint8Array[] = parts.map((part, index) => encodePart(part, masks[index] ?? 0n));
    for (const [index, part] of parts.entries()) {
      const mask = encoded[index];
      if (mask === undefined) continue;
      storePart(emitter, part, question.view, base, mask, before?.[index] ?? null);
    }
    before = encoded;
    if (levels.length > 1) {
      if (number === 0) storeZero(emitter, base + definition.keySize - 4);
      else emit(emitter, mov32(r1, number), stx(4, r10, base + definition.keySize - 4, r1));
    }
    emitMapLookup(emitter, definition.name, base);
    if (number < levels.length - 1) emit(emitter, jne(r0, 0, yes));
    else emit(emitter, jeq(r0, 0, no), ja(yes));
  }
}
