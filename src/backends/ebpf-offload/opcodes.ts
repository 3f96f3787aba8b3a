import type { AccessSize, AluOp, JumpOp } from './insn.ts';

/*
 * Opcode bytes: include/uapi/linux/bpf_common.h and bpf.h.
 *
 *    7   6   5   4   3   2   1   0
 *  +---------------+---+-----------+
 *  |   operation   | X |   class   |   ALU, ALU64, JMP, JMP32 (X: source is a register)
 *  +-----------+---+---+-----------+
 *  |   mode    |  size |   class   |   LD, LDX, ST, STX
 *  +-----------+-------+-----------+
 */

/** Low three bits of an opcode. */
export const CLASS = {
  ld: 0x00,
  ldx: 0x01,
  st: 0x02,
  stx: 0x03,
  alu: 0x04,
  jmp: 0x05,
  jmp32: 0x06,
  alu64: 0x07,
} as const;

/** BPF_X: the source is a register; for BPF_END: to big-endian. */
export const X = 0x08;

/** BPF_MEM: a plain load or store. */
export const MODE_MEM = 0x60;
/** BPF_ATOMIC; the operation stands in the constant, 0 (BPF_ADD) is add without fetch. */
export const MODE_ATOMIC = 0xc0;

/** BPF_LD | BPF_IMM | BPF_DW: the only instruction of two slots. */
export const LD_IMM64 = 0x18;
/** BPF_ALU | BPF_END, bits in the constant; with `X` to big-endian. */
export const END = 0xd4;
/** BPF_JMP | BPF_JA: distance in the 16-bit offset. */
export const JA = 0x05;
/** BPF_JMP32 | BPF_JA (`gotol`): distance in the 32-bit constant; Linux 6.6 and later. */
export const JA32 = 0x06;
export const CALL = 0x85;
export const EXIT = 0x95;

export const ALU_CODE: Readonly<Record<AluOp, number>> = {
  add: 0x00,
  sub: 0x10,
  mul: 0x20,
  div: 0x30,
  or: 0x40,
  and: 0x50,
  lsh: 0x60,
  rsh: 0x70,
  neg: 0x80,
  mod: 0x90,
  xor: 0xa0,
  mov: 0xb0,
  arsh: 0xc0,
};

export const JUMP_CODE: Readonly<Record<JumpOp, number>> = {
  eq: 0x10,
  gt: 0x20,
  ge: 0x30,
  set: 0x40,
  ne: 0x50,
  sgt: 0x60,
  sge: 0x70,
  lt: 0xa0,
  le: 0xb0,
  slt: 0xc0,
  sle: 0xd0,
};

export const SIZE_CODE: Readonly<Record<AccessSize, number>> = {
  4: 0x00,
  2: 0x08,
  1: 0x10,
  8: 0x18,
};

function invert<K extends string>(table: Readonly<Record<K, number>>): ReadonlyMap<number, K> {
  const entries = Object.entries(table) as [K, number][]; // Object.entries forgets the key type
  return new Map(entries.map(([name, code]) => [code, name]));
}

/** Operation by the upper four bits of the opcode. */
export const ALU_NAME: ReadonlyMap<number, AluOp> = invert(ALU_CODE);
export const JUMP_NAME: ReadonlyMap<number, JumpOp> = invert(JUMP_CODE);
export const SIZE_BYTES: ReadonlyMap<number, AccessSize> = new Map([
  [0x00, 4],
  [0x08, 2],
  [0x10, 1],
  [0x18, 8],
]);

/** Bytes of one slot: sizeof(struct bpf_insn). */
export const SLOT_BYTES = 8;

/** Furthest forward distance of a 16-bit jump; backward it is one more. */
export const NEAR_MAX = 0x7fff;
