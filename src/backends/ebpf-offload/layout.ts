import type { Insn, JaInsn, JumpInsn } from './insn.ts';
import { NEAR_MAX } from './opcodes.ts';

/**
 * How a jump gets further than 16 bits: `gotol` needs Linux 6.6 or later, `islands` are chains of
 * plain jumps and work everywhere.
 */
export type FarJumps = 'gotol' | 'islands';

/** Where everything stands: slot of each list element (and of the end), list index of each label. */
export interface Layout {
  readonly slots: Int32Array;
  readonly labels: ReadonlyMap<string, number>;
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

/** Numbers the slots; a label that is defined twice is a bug. */
export function layOut(insns: readonly Insn[]): Layout {
  const slots = new Int32Array(insns.length + 1);
  const labels = new Map<string, number>();
  let slot = 0;
  insns.forEach((insn, index) => {
    slots[index] = slot;
    if (insn.kind === 'label') {
      if (labels.has(insn.name)) throw new Error(`bug: label ${insn.name} is defined twice`);
      labels.set(insn.name, index);
    }
    slot += slotsOf(insn);
  });
  slots[insns.length] = slot;
  return { slots, labels };
}

/** List index of a label; one that is missing is a bug. */
export function labelIndex(labels: ReadonlyMap<string, number>, target: string): number {
  const index = labels.get(target);
  if (index === undefined) throw new Error(`bug: label ${target} is not defined`);
  return index;
}

/** What the jump at list index `from` adds to the slot after it, in slots. */
export function jumpDistance(layout: Layout, from: number, insn: JumpInsn | JaInsn): number {
  const to = layout.slots[labelIndex(layout.labels, insn.target)] ?? 0;
  return to - (layout.slots[from] ?? 0) - 1;
}

/** Whether a distance fits the 16-bit offset of struct bpf_insn. */
export function isNear(distance: number): boolean {
  return distance <= NEAR_MAX && distance >= -NEAR_MAX - 1;
}

/** Whether control never gets from this instruction to the next one. */
export function endsFlow(insn: Insn): boolean {
  return insn.kind === 'ja' || insn.kind === 'exit';
}
