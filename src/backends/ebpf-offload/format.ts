import type { Assembly } from './assemble.ts';
import { disassemble } from './disassemble.ts';
import type { AluOp, Insn, JumpOp, LdxInsn, RealInsn, RegNumber, Source, Width } from './insn.ts';
import { HELPER } from './insn.ts';
import { slotsOf } from './layout.ts';

/* As bpftool and llvm-objdump write it: kernel/bpf/disasm.c. */

const ALU_SIGN: Readonly<Record<AluOp, string>> = {
  add: '+=',
  sub: '-=',
  mul: '*=',
  div: '/=',
  or: '|=',
  and: '&=',
  lsh: '<<=',
  rsh: '>>=',
  neg: '= -',
  mod: '%=',
  xor: '^=',
  mov: '=',
  arsh: 's>>=',
};

const JUMP_SIGN: Readonly<Record<JumpOp, string>> = {
  eq: '==',
  ne: '!=',
  gt: '>',
  ge: '>=',
  lt: '<',
  le: '<=',
  set: '&',
  sgt: 's>',
  sge: 's>=',
  slt: 's<',
  sle: 's<=',
};

const HELPER_NAME: ReadonlyMap<number, string> = new Map(
  Object.entries(HELPER).map(([name, number]) => [
    number,
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
  ]),
);

function register(width: Width, reg: RegNumber): string {
  return `${width === 64 ? 'r' : 'w'}${reg}`;
}

function constant(value: number): string {
  return value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}

/** Small numbers read better in decimal, as kernel/bpf/disasm.c prints constants of ALU insns. */
function operand(width: Width, source: Source): string {
  return source.kind === 'reg' ? register(width, source.reg) : String(source.value);
}

function compared(width: Width, source: Source): string {
  return source.kind === 'reg' ? register(width, source.reg) : constant(source.value);
}

function memory(size: LdxInsn['size'], reg: RegNumber, offset: number): string {
  const sign = offset < 0 ? '-' : '+';
  return `*(u${size * 8} *)(r${reg} ${sign} ${Math.abs(offset)})`;
}

/** One instruction without its origin: `if w0 != 0x50 goto L12`. */
export function formatInsn(insn: Insn): string {
  switch (insn.kind) {
    case 'alu': {
      const dst = register(insn.width, insn.dst);
      if (insn.op === 'neg') return `${dst} = -${dst}`;
      return `${dst} ${ALU_SIGN[insn.op]} ${operand(insn.width, insn.src)}`;
    }
    case 'endian':
      return `r${insn.dst} = ${insn.order}${insn.bits} r${insn.dst}`;
    case 'ld_imm64':
      return `r${insn.dst} = 0x${insn.value.toString(16)} ll`;
    case 'ld_map':
      return `r${insn.dst} = map[${insn.map}]`;
    case 'ld_map_value':
      return `r${insn.dst} = map[${insn.map}] + ${insn.offset}`;
    case 'ldx':
      return `r${insn.dst} = ${memory(insn.size, insn.src, insn.offset)}`;
    case 'stx':
      return `${memory(insn.size, insn.dst, insn.offset)} = r${insn.src}`;
    case 'st':
      return `${memory(insn.size, insn.dst, insn.offset)} = ${insn.value}`;
    case 'atomic_add':
      return `lock ${memory(insn.size, insn.dst, insn.offset)} += r${insn.src}`;
    case 'jump': {
      const dst = register(insn.width, insn.dst);
      return `if ${dst} ${JUMP_SIGN[insn.op]} ${compared(insn.width, insn.src)} goto ${insn.target}`;
    }
    case 'ja':
      return `goto ${insn.target}`;
    case 'call':
      return `call ${HELPER_NAME.get(insn.helper) ?? insn.helper}`;
    case 'exit':
      return 'exit';
    case 'raw':
      return `raw code=0x${insn.code.toString(16)} dst=${insn.dst} src=${insn.src} offset=${insn.offset} imm=${insn.imm}`;
    case 'label':
      return `${insn.name}:`;
  }
}

/** Column where origins start, so that most listings line up. */
const ORIGIN_COLUMN = 48;

function formatOrigin({ rule, note }: RealInsn): string {
  return [rule, note].filter((part) => part !== null).join(': ');
}

/** Instructions line by line: slot number, text, `; rule: note`; labels on lines of their own. */
export function formatInsns(insns: readonly Insn[]): string {
  const total = insns.reduce((sum, insn) => sum + slotsOf(insn), 0);
  const digits = String(Math.max(total - 1, 0)).length;
  const lines: string[] = [];
  let slot = 0;
  for (const insn of insns) {
    if (insn.kind === 'label') {
      lines.push(formatInsn(insn));
      continue;
    }
    const origin = formatOrigin(insn);
    const text = `${String(slot).padStart(digits)}: ${formatInsn(insn)}`;
    lines.push(origin === '' ? text : `${text.padEnd(ORIGIN_COLUMN)} ; ${origin}`);
    slot += slotsOf(insn);
  }
  return `${lines.join('\n')}\n`;
}

/** The listing of what was really encoded, with the islands that far jumps got. */
export function formatListing(assembly: Assembly): string {
  return formatInsns(disassemble(assembly.code, assembly));
}
