import type { Insn } from './insn.ts';
import { NEAR_MAX } from './opcodes.ts';

/**
 * How a jump gets further than 16 bits: `gotol` needs Linux 6.6 or later, `islands` are chains of
 * plain jumps and work everywhere.
 */
export type FarJumps = 'gotol' | 'islands';

/** Where everything stands. */
export interface Layout {
  /** Slot of each list element, and of the end. */
  readonly slots: Int32Array;
  /** List index of the label that each jump goes to; -1 for the rest. */
  readonly targets: Int32Array;
}

/** Slots an instruction takes. */
export function slotsOf(insn: Insn): 0 | 1 | 2 {
  switch (insn.kind) {
    case 'label':
      return 0;
    case 'ld_imm64':
    case 'ld_map':
    case 'ld_map_value':
      return 2;
    case 'alu':
    case 'endian':
    case 'ldx':
    case 'stx':
    case 'st':
    case 'atomic_add':
    case 'jump':
    case 'ja':
    case 'call':
    case 'exit':
    case 'raw':
      return 1;
  }
}

/** List index of each label. */
export function indexLabels(insns: readonly Insn[]): ReadonlyMap<string, number> {
  const labels = new Map<string, number>();
  insns.forEach((insn, index) => {
    if (insn.kind !== 'label') return;
    if (labels.has(insn.name)) throw new Error(`bug: label ${insn.name} is defined twice`);
    labels.set(insn.name, index);
  });
  return labels;
}

/** List index of a label; one that is missing is a bug. */
export function labelIndex(labels: ReadonlyMap<string, number>, target: string): number {
  const index = labels.get(target);
  if (index === undefined) throw new Error(`bug: label ${target} is not defined`);
  return index;
}

/** Slot of each list element, and of the end. */
export function numberSlots(insns: readonly Insn[]): Int32Array {
  const slots = new Int32Array(insns.length + 1);
  let slot = 0;
  insns.forEach((insn, index) => {
    slots[index] = slot;
    slot += slotsOf(insn);
  });
  slots[insns.length] = slot;
  return slots;
}

/** Numbers the slots and resolves the jumps; labels that are undefined or defined twice are bugs. */
export function layOut(insns: readonly Insn[]): Layout {
  const labels = indexLabels(insns);
  const targets = new Int32Array(insns.length).fill(-1);
  insns.forEach((insn, index) => {
    if (insn.kind !== 'jump' && insn.kind !== 'ja') return;
    targets[index] = labelIndex(labels, insn.target);
  });
  return { slots: numberSlots(insns), targets };
}

/** What the jump at list index `from` adds to the slot after it, in slots; 0 for the rest. */
export function jumpDistance(layout: Layout, from: number): number {
  const target = layout.targets[from] ?? -1;
  return target === -1 ? 0 : (layout.slots[target] ?? 0) - (layout.slots[from] ?? 0) - 1;
}

/** Whether a distance fits the 16-bit offset of struct bpf_insn. */
export function isNear(distance: number): boolean {
  return distance <= NEAR_MAX && distance >= -NEAR_MAX - 1;
}

/** Whether control never gets from this instruction to the next one. */
export function endsFlow(insn: Insn): boolean {
  return insn.kind === 'ja' || insn.kind === 'exit';
}
