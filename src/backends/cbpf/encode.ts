import type { AluOp, Insn, JumpOp, RawInsn, Size } from './insn.ts';

/*
 * A code is eight bits (include/uapi/linux/bpf_common.h and filter.h):
 *
 *    7   6   5   4   3   2   1   0
 *   |   mode    | size  |  class    |    LD, LDX
 *   |      op       |src|  class    |    ALU, JMP
 *   |   -   |value  | - |  class    |    RET (value), MISC (TAX, TXA)
 */
const CLASS = { ld: 0, ldx: 1, st: 2, stx: 3, alu: 4, jmp: 5, ret: 6, misc: 7 } as const;
const SIZE: Readonly<Record<Size, number>> = { 4: 0x00, 2: 0x08, 1: 0x10 };
const MODE = { imm: 0x00, abs: 0x20, ind: 0x40, mem: 0x60, len: 0x80, msh: 0xa0 } as const;
const ALU: Readonly<Record<AluOp | 'neg', number>> = {
  ...{ add: 0x00, sub: 0x10, mul: 0x20, div: 0x30, or: 0x40, and: 0x50 },
  ...{ lsh: 0x60, rsh: 0x70, neg: 0x80, mod: 0x90, xor: 0xa0 },
};
const JUMP: Readonly<Record<JumpOp, number>> = { jeq: 0x10, jgt: 0x20, jge: 0x30, jset: 0x40 };
const SOURCE_X = 0x08;
const VALUE_A = 0x10;
const TAX = 0x00;
const TXA = 0x80;

function raw(code: number, k = 0, jt = 0, jf = 0): RawInsn {
  return { kind: 'raw', code, jt, jf, k };
}

/** An instruction as the kernel takes it. */
export function encodeInsn(insn: Insn): RawInsn {
  switch (insn.kind) {
    case 'ld_abs':
      return raw(CLASS.ld | MODE.abs | SIZE[insn.size], insn.k);
    case 'ld_ind':
      return raw(CLASS.ld | MODE.ind | SIZE[insn.size], insn.k);
    case 'ld_imm':
      return raw(CLASS.ld | MODE.imm, insn.k);
    case 'ldx_imm':
      return raw(CLASS.ldx | MODE.imm, insn.k);
    case 'ld_len':
      return raw(CLASS.ld | MODE.len);
    case 'ldx_len':
      return raw(CLASS.ldx | MODE.len);
    case 'ld_mem':
      return raw(CLASS.ld | MODE.mem, insn.k);
    case 'ldx_mem':
      return raw(CLASS.ldx | MODE.mem, insn.k);
    case 'ldx_msh':
      return raw(CLASS.ldx | MODE.msh | SIZE[1], insn.k);
    case 'st':
      return raw(CLASS.st, insn.k);
    case 'stx':
      return raw(CLASS.stx, insn.k);
    case 'alu':
      return insn.src === 'x'
        ? raw(CLASS.alu | ALU[insn.op] | SOURCE_X)
        : raw(CLASS.alu | ALU[insn.op], insn.src);
    case 'neg':
      return raw(CLASS.alu | ALU.neg);
    case 'tax':
      return raw(CLASS.misc | TAX);
    case 'txa':
      return raw(CLASS.misc | TXA);
    case 'ja':
      return raw(CLASS.jmp, insn.k);
    case 'jump':
      return insn.src === 'x'
        ? raw(CLASS.jmp | JUMP[insn.op] | SOURCE_X, 0, insn.jt, insn.jf)
        : raw(CLASS.jmp | JUMP[insn.op], insn.src, insn.jt, insn.jf);
    case 'ret':
      return insn.value === 'a' ? raw(CLASS.ret | VALUE_A) : raw(CLASS.ret, insn.value);
    case 'raw':
      return insn;
  }
}

const SIZES: readonly Size[] = [1, 2, 4];

/** Every instruction without its constants, by code. */
const TEMPLATES: ReadonlyMap<number, Insn> = new Map(
  [
    ...SIZES.flatMap((size): Insn[] => [
      { kind: 'ld_abs', size, k: 0 },
      { kind: 'ld_ind', size, k: 0 },
    ]),
    ...(['ld_imm', 'ldx_imm', 'ld_mem', 'ldx_mem', 'ldx_msh', 'st', 'stx'] as const).map(
      (kind): Insn => ({ kind, k: 0 }),
    ),
    ...(['ld_len', 'ldx_len', 'neg', 'tax', 'txa'] as const).map((kind): Insn => ({ kind })),
    ...(['add', 'sub', 'mul', 'div', 'mod', 'or', 'and', 'xor', 'lsh', 'rsh'] as const).flatMap(
      (op): Insn[] => [
        { kind: 'alu', op, src: 0 },
        { kind: 'alu', op, src: 'x' },
      ],
    ),
    ...(['jeq', 'jgt', 'jge', 'jset'] as const).flatMap((op): Insn[] => [
      { kind: 'jump', op, src: 0, jt: 0, jf: 0 },
      { kind: 'jump', op, src: 'x', jt: 0, jf: 0 },
    ]),
    { kind: 'ja', k: 0 } satisfies Insn,
    { kind: 'ret', value: 0 } satisfies Insn,
    { kind: 'ret', value: 'a' } satisfies Insn,
  ].map((insn) => [encodeInsn(insn).code, insn]),
);

/** The template with the constants of an encoded instruction. */
function fill(template: Insn, { k, jt, jf }: RawInsn): Insn {
  switch (template.kind) {
    case 'alu':
      return template.src === 'x' ? template : { ...template, src: k };
    case 'jump':
      return { ...template, src: template.src === 'x' ? 'x' : k, jt, jf };
    case 'ret':
      return template.value === 'a' ? template : { ...template, value: k };
    case 'ld_len':
    case 'ldx_len':
    case 'neg':
    case 'tax':
    case 'txa':
    case 'raw':
      return template;
    case 'ld_abs':
    case 'ld_ind':
    case 'ld_imm':
    case 'ldx_imm':
    case 'ld_mem':
    case 'ldx_mem':
    case 'ldx_msh':
    case 'st':
    case 'stx':
    case 'ja':
      return { ...template, k };
  }
}

/**
 * The inverse of `encodeInsn`. What an instruction does not use (libpcap leaves numbers there) is as
 * little looked at as the kernel does; a code that no instruction has stays raw.
 */
export function decodeInsn(insn: RawInsn): Insn {
  const template = TEMPLATES.get(insn.code);
  return template === undefined ? insn : fill(template, insn);
}
