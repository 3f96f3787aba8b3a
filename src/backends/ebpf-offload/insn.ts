/*
 * Symbolic eBPF instructions. Jumps name labels and map loads name maps until `assemble` encodes
 * them, and every instruction says which rule it comes from.
 */

/** A register's number: r0 returns, r1-r5 are arguments, r6-r9 survive calls, r10 is the frame. */
export type RegNumber = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;

/** A register as an operand. */
export interface Reg {
  readonly kind: 'reg';
  readonly reg: RegNumber;
}

/** A constant operand: 32 bits signed, sign-extended by 64-bit instructions. */
export interface Imm {
  readonly kind: 'imm';
  readonly value: number;
}

export type Source = Reg | Imm;

/** Operations on a register; `neg` has no source (it is encoded as the constant 0). */
export type AluOp =
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'or'
  | 'and'
  | 'lsh'
  | 'rsh'
  | 'neg'
  | 'mod'
  | 'xor'
  | 'mov'
  | 'arsh';

/** Conditions; `gt ge lt le` are unsigned, `sgt sge slt sle` signed, `set` is `dst & src`. */
export type JumpOp =
  | 'eq'
  | 'ne'
  | 'gt'
  | 'ge'
  | 'lt'
  | 'le'
  | 'set'
  | 'sgt'
  | 'sge'
  | 'slt'
  | 'sle';

/** Width of an operation; 32-bit ones zero the upper half of the destination. */
export type Width = 32 | 64;

/** Bytes a load or store moves. */
export type AccessSize = 1 | 2 | 4 | 8;

/** Where an instruction comes from: a formatted rule identity, and a remark for listings. */
export interface Provenance {
  readonly rule: string | null;
  readonly note: string | null;
}

export interface AluInsn extends Provenance {
  readonly kind: 'alu';
  readonly op: AluOp;
  readonly width: Width;
  readonly dst: RegNumber;
  readonly src: Source;
}

/** Converts between host order (little-endian) and `order`, cutting to `bits`. */
export interface EndianInsn extends Provenance {
  readonly kind: 'endian';
  readonly order: 'be' | 'le';
  readonly bits: 16 | 32 | 64;
  readonly dst: RegNumber;
}

/** A 64-bit constant, 0 <= value < 2^64; two slots. */
export interface LdImm64Insn extends Provenance {
  readonly kind: 'ld_imm64';
  readonly dst: RegNumber;
  readonly value: bigint;
}

/** The address of a map, for helpers; two slots. */
export interface LdMapInsn extends Provenance {
  readonly kind: 'ld_map';
  readonly dst: RegNumber;
  readonly map: string;
}

/** The address of byte `offset` of a data section (`.rodata`, `.data`); two slots. */
export interface LdMapValueInsn extends Provenance {
  readonly kind: 'ld_map_value';
  readonly dst: RegNumber;
  readonly map: string;
  readonly offset: number;
}

/** `dst = *(size *)(src + offset)`, zero-extended. */
export interface LdxInsn extends Provenance {
  readonly kind: 'ldx';
  readonly size: AccessSize;
  readonly dst: RegNumber;
  readonly src: RegNumber;
  readonly offset: number;
}

/** `*(size *)(dst + offset) = src`. */
export interface StxInsn extends Provenance {
  readonly kind: 'stx';
  readonly size: AccessSize;
  readonly dst: RegNumber;
  readonly offset: number;
  readonly src: RegNumber;
}

/** `*(size *)(dst + offset) = value`. */
export interface StInsn extends Provenance {
  readonly kind: 'st';
  readonly size: AccessSize;
  readonly dst: RegNumber;
  readonly offset: number;
  readonly value: number;
}

/** `lock *(size *)(dst + offset) += src`. */
export interface AtomicAddInsn extends Provenance {
  readonly kind: 'atomic_add';
  readonly size: 4 | 8;
  readonly dst: RegNumber;
  readonly offset: number;
  readonly src: RegNumber;
}

/** `if dst op src goto target`. */
export interface JumpInsn extends Provenance {
  readonly kind: 'jump';
  readonly op: JumpOp;
  readonly width: Width;
  readonly dst: RegNumber;
  readonly src: Source;
  readonly target: string;
}

export interface JaInsn extends Provenance {
  readonly kind: 'ja';
  readonly target: string;
}

export interface CallInsn extends Provenance {
  readonly kind: 'call';
  readonly helper: number;
}

export interface ExitInsn extends Provenance {
  readonly kind: 'exit';
}

/** One slot as it is encoded, for what this union has no name for; never produced by selection. */
export interface RawInsn extends Provenance {
  readonly kind: 'raw';
  readonly code: number;
  readonly dst: number;
  readonly src: number;
  readonly offset: number;
  readonly imm: number;
}

/** A place to jump to; takes no slot. */
export interface LabelInsn {
  readonly kind: 'label';
  readonly name: string;
}

/** Everything that is encoded. */
export type RealInsn =
  | AluInsn
  | EndianInsn
  | LdImm64Insn
  | LdMapInsn
  | LdMapValueInsn
  | LdxInsn
  | StxInsn
  | StInsn
  | AtomicAddInsn
  | JumpInsn
  | JaInsn
  | CallInsn
  | ExitInsn
  | RawInsn;

export type Insn = RealInsn | LabelInsn;

/** Helper functions: enum bpf_func_id, include/uapi/linux/bpf.h. */
export const HELPER = {
  mapLookupElem: 1,
  mapUpdateElem: 2,
  mapDeleteElem: 3,
  ktimeGetNs: 5,
  getPrandomU32: 7,
  getSmpProcessorId: 8,
  perfEventOutput: 25,
  xdpAdjustHead: 44,
  xdpAdjustTail: 65,
} as const;

/** What an XDP program returns: enum xdp_action, include/uapi/linux/bpf.h. */
export const XDP = { aborted: 0, drop: 1, pass: 2, tx: 3, redirect: 4 } as const;

/** Byte offsets of the context's 32-bit words: struct xdp_md, include/uapi/linux/bpf.h. */
export const XDP_MD = {
  data: 0,
  dataEnd: 4,
  dataMeta: 8,
  ingressIfindex: 12,
  rxQueueIndex: 16,
} as const;

/** What a cls_bpf program with direct action returns: include/uapi/linux/pkt_cls.h. */
export const TC_ACT = { unspec: -1, shot: 2 } as const;

/** Byte offsets of the 32-bit words used of struct __sk_buff, include/uapi/linux/bpf.h. */
export const SKB = { data: 76, dataEnd: 80 } as const;

const bare: Provenance = { rule: null, note: null };

function register(number: RegNumber): Reg {
  return { kind: 'reg', reg: number };
}

export const r0 = register(0);
export const r1 = register(1);
export const r2 = register(2);
export const r3 = register(3);
export const r4 = register(4);
export const r5 = register(5);
export const r6 = register(6);
export const r7 = register(7);
export const r8 = register(8);
export const r9 = register(9);
export const r10 = register(10);

/** A constant operand; plain numbers are taken for constants everywhere, so this is for emphasis. */
export function imm(value: number): Imm {
  return { kind: 'imm', value };
}

/**
 * The operand as it is encoded. 32-bit instructions take -2^31..2^32-1, 64-bit ones only what sign
 * extension yields: -2^31..2^31-1 (use `ldImm64` beyond).
 */
function source(width: Width, operand: Source | number): Source {
  if (typeof operand !== 'number' && operand.kind === 'reg') return operand;
  const value = typeof operand === 'number' ? operand : operand.value;
  const highest = width === 32 ? 0xffffffff : 0x7fffffff;
  if (!Number.isInteger(value) || value < -0x80000000 || value > highest) {
    throw new Error(`bug: ${value} is no constant of a ${width}-bit instruction`);
  }
  return { kind: 'imm', value: value | 0 };
}

function alu(op: AluOp, width: Width): (dst: Reg, src: Source | number) => AluInsn {
  return (dst, src) => ({
    kind: 'alu',
    op,
    width,
    dst: dst.reg,
    src: source(width, src),
    rule: null,
    note: null,
  });
}

export const add = alu('add', 64);
export const sub = alu('sub', 64);
export const mul = alu('mul', 64);
export const div = alu('div', 64);
export const or = alu('or', 64);
export const and = alu('and', 64);
export const lsh = alu('lsh', 64);
export const rsh = alu('rsh', 64);
export const mod = alu('mod', 64);
export const xor = alu('xor', 64);
export const mov = alu('mov', 64);
export const arsh = alu('arsh', 64);
export const add32 = alu('add', 32);
export const sub32 = alu('sub', 32);
export const mul32 = alu('mul', 32);
export const div32 = alu('div', 32);
export const or32 = alu('or', 32);
export const and32 = alu('and', 32);
export const lsh32 = alu('lsh', 32);
export const rsh32 = alu('rsh', 32);
export const mod32 = alu('mod', 32);
export const xor32 = alu('xor', 32);
export const mov32 = alu('mov', 32);
export const arsh32 = alu('arsh', 32);

/** `dst = -dst`. */
export function neg(dst: Reg): AluInsn {
  return alu('neg', 64)(dst, 0);
}

/** `dst = -dst` in the lower half, upper half zero. */
export function neg32(dst: Reg): AluInsn {
  return alu('neg', 32)(dst, 0);
}

/** Big-endian to host order (or back), cut to `bits`. */
export function be(bits: 16 | 32 | 64, dst: Reg): EndianInsn {
  return { kind: 'endian', order: 'be', bits, dst: dst.reg, ...bare };
}

/** Little-endian to host order: only cuts to `bits`. */
export function le(bits: 16 | 32 | 64, dst: Reg): EndianInsn {
  return { kind: 'endian', order: 'le', bits, dst: dst.reg, ...bare };
}

/** A 64-bit constant; negative values are taken modulo 2^64. */
export function ldImm64(dst: Reg, value: bigint): LdImm64Insn {
  return { kind: 'ld_imm64', dst: dst.reg, value: BigInt.asUintN(64, value), ...bare };
}

/** The address of the map called `map`. */
export function ldMap(dst: Reg, map: string): LdMapInsn {
  return { kind: 'ld_map', dst: dst.reg, map, ...bare };
}

/** The address of byte `offset` (0..2^31-1) of the data section called `map`. */
export function ldMapValue(dst: Reg, map: string, offset: number): LdMapValueInsn {
  return { kind: 'ld_map_value', dst: dst.reg, map, offset, ...bare };
}

/** `dst = *(size *)(src + offset)`; offset is s16. */
export function ldx(size: AccessSize, dst: Reg, src: Reg, offset: number): LdxInsn {
  return { kind: 'ldx', size, dst: dst.reg, src: src.reg, offset, ...bare };
}

/** `*(size *)(dst + offset) = src`; offset is s16. */
export function stx(size: AccessSize, dst: Reg, offset: number, src: Reg): StxInsn {
  return { kind: 'stx', size, dst: dst.reg, offset, src: src.reg, ...bare };
}

/** `*(size *)(dst + offset) = value`, sign-extended; the NFP JIT has no such instruction. */
export function st(size: AccessSize, dst: Reg, offset: number, value: number): StInsn {
  return { kind: 'st', size, dst: dst.reg, offset, value: value | 0, ...bare };
}

/** `lock *(size *)(dst + offset) += src`. */
export function atomicAdd(size: 4 | 8, dst: Reg, offset: number, src: Reg): AtomicAddInsn {
  return { kind: 'atomic_add', size, dst: dst.reg, offset, src: src.reg, ...bare };
}

/** `if dst op src goto target`, for when operation or width are data. */
export function jump(
  op: JumpOp,
  width: Width,
  dst: Reg,
  src: Source | number,
  target: string,
): JumpInsn {
  return { kind: 'jump', op, width, dst: dst.reg, src: source(width, src), target, ...bare };
}

function conditional(op: JumpOp, width: Width) {
  return (dst: Reg, src: Source | number, target: string): JumpInsn =>
    jump(op, width, dst, src, target);
}

export const jeq = conditional('eq', 64);
export const jne = conditional('ne', 64);
export const jgt = conditional('gt', 64);
export const jge = conditional('ge', 64);
export const jlt = conditional('lt', 64);
export const jle = conditional('le', 64);
export const jset = conditional('set', 64);
export const jsgt = conditional('sgt', 64);
export const jsge = conditional('sge', 64);
export const jslt = conditional('slt', 64);
export const jsle = conditional('sle', 64);
export const jeq32 = conditional('eq', 32);
export const jne32 = conditional('ne', 32);
export const jgt32 = conditional('gt', 32);
export const jge32 = conditional('ge', 32);
export const jlt32 = conditional('lt', 32);
export const jle32 = conditional('le', 32);
export const jset32 = conditional('set', 32);
export const jsgt32 = conditional('sgt', 32);
export const jsge32 = conditional('sge', 32);
export const jslt32 = conditional('slt', 32);
export const jsle32 = conditional('sle', 32);

/** `goto target`. */
export function ja(target: string): JaInsn {
  return { kind: 'ja', target, ...bare };
}

/** Calls a kernel helper (see `HELPER`): arguments in r1-r5, result in r0, r1-r5 are lost. */
export function call(helper: number): CallInsn {
  return { kind: 'call', helper, ...bare };
}

/** Returns r0. */
export function exit(): ExitInsn {
  return { kind: 'exit', ...bare };
}

/** A place to jump to. */
export function label(name: string): LabelInsn {
  return { kind: 'label', name };
}

/** The instructions with `rule` as their origin, where they have none yet. */
export function forRule(rule: string, insns: readonly Insn[]): readonly Insn[] {
  return insns.map((insn) =>
    insn.kind === 'label' || insn.rule !== null ? insn : { ...insn, rule },
  );
}

/** The instruction with a remark for listings. */
export function withNote<I extends RealInsn>(insn: I, note: string): I {
  return { ...insn, note };
}
