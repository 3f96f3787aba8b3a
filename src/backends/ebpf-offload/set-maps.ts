import { type Emitter, END, NH, PROTO, TH } from './emitter.ts';
import type { Insn } from './insn.ts';
import type { Lookup } from './lookup-key.ts';
import { nfpCosts } from './nfp-cost.ts';
import { mapSet, type SetMap } from './set-map.ts';
import type { Known, Value } from './track.ts';

/** The set of a look-up as a hash map, the same one each time; null where it cannot be one. */
export function setMapOf(emitter: Emitter, question: Lookup): SetMap | null {
  const { elements } = question.set;
  const known = emitter.sets.get(elements) ?? new Map<string, SetMap | null>();
  emitter.sets.set(elements, known);
  // Bytes as in the frame or computed numbers: the same set may be asked in both ways.
  const shape = question.key
    .map(({ field, mask, xor, shift }) => [
      field.base,
      field.offset % 8,
      field.width,
      mask,
      xor,
      shift,
    ])
    .join(';');
  let map = known.get(shape);
  if (map === undefined) {
    const number = [...emitter.sets.values()].reduce((sum, { size }) => sum + size, 0);
    map = mapSet(question, emitter.dialect, `set${number}`);
    known.set(shape, map);
  }
  return map;
}

/** What is known of the registers between two questions. */
function betweenQuestions({ slots }: Emitter): Known {
  const packet = (base: string): Value => ({ kind: 'packet', base, offset: 0, most: 0 });
  const registers: Value[] = Array.from({ length: 11 }, () => ({ kind: 'nothing' }));
  registers[NH.reg] = packet('nh');
  registers[TH.reg] = packet('th');
  registers[END.reg] = { kind: 'packet-end' };
  registers[PROTO.reg] = { kind: 'number', min: 0, max: 0xff };
  registers[10] = { kind: 'stack', offset: 0 };
  const frame = slots.get('frame');
  return { registers, stack: new Map(frame === undefined ? [] : [[frame, packet('frame')]]) };
}

/** NFP instructions of one question's code. */
export function questionCost(emitter: Emitter, insns: readonly Insn[]): number {
  const inside = new Set(insns.flatMap((insn) => (insn.kind === 'label' ? [insn.name] : [])));
  const outside = insns
    .flatMap((insn) => (insn.kind === 'jump' || insn.kind === 'ja' ? [insn.target] : []))
    .filter((target) => !inside.has(target));
  const labels = [...new Set(outside)].map((name): Insn => ({ kind: 'label', name }));
  const costs = nfpCosts([...insns, ...labels], emitter.stack, betweenQuestions(emitter));
  return costs.reduce((sum, cost) => sum + cost, 0);
}
