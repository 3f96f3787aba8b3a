import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import {
  type AluOp,
  ANCILLARY_LOADS,
  type AncillaryName,
  ancillary,
  type Insn,
  type JumpOp,
  type Size,
  type Source,
} from './insn.ts';

/** An instruction whose jumps still name their labels. */
type Unlinked =
  | Exclude<Insn, { kind: 'ja' | 'jump' }>
  | { readonly kind: 'ja'; readonly to: string }
  | {
      readonly kind: 'jump';
      readonly op: JumpOp;
      readonly src: Source;
      readonly yes: string;
      readonly no: string | null;
    };

const SIZES: Readonly<Record<string, Size>> = { ld: 4, ldh: 2, ldb: 1 };
const ALU: Readonly<Record<string, AluOp>> = {
  ...{ add: 'add', sub: 'sub', mul: 'mul', div: 'div', mod: 'mod' },
  ...{ or: 'or', and: 'and', xor: 'xor', lsh: 'lsh', rsh: 'rsh' },
};
const JUMPS: Readonly<Record<string, JumpOp>> = {
  jeq: 'jeq',
  jgt: 'jgt',
  jge: 'jge',
  jset: 'jset',
};
const MOST = 0xffff_ffff;

function isAncillary(name: string): name is AncillaryName {
  return Object.hasOwn(ANCILLARY_LOADS, name);
}

/** A u32 as bpf_asm writes one, or null. */
function number(text: string | undefined): number | null {
  if (text === undefined || !/^(0x[0-9a-f]+|\d+)$/i.test(text)) return null;
  const value = Number(text);
  return value <= MOST ? value : null;
}

function sourceOf(text: string): Source | null {
  return text === 'x' ? 'x' : number(text.replace(/^#/, ''));
}

function parseLoad(word: string, operand: string): Unlinked | null {
  const size = SIZES[word];
  if (size === undefined) return null;
  const absolute = number(/^\[(\w+)\]$/.exec(operand)?.[1]);
  if (absolute !== null) return { kind: 'ld_abs', size, k: absolute };
  const indexed = number(/^\[x ?\+ ?(\w+)\]$/.exec(operand)?.[1]);
  if (indexed !== null) return { kind: 'ld_ind', size, k: indexed };
  if (size !== 4) return null;
  const name = operand.replace(/^#/, '');
  if (name === 'len') return { kind: 'ld_len' };
  if (isAncillary(name)) return ancillary(name);
  const memory = number(/^M\[(\d+)\]$/i.exec(operand)?.[1]);
  if (memory !== null) return { kind: 'ld_mem', k: memory };
  const immediate = operand.startsWith('#') ? number(operand.slice(1)) : null;
  return immediate === null ? null : { kind: 'ld_imm', k: immediate };
}

function parseIndexLoad(operand: string): Unlinked | null {
  if (/^#?len$/.test(operand)) return { kind: 'ldx_len' };
  const header = number(/^4 ?\* ?\(\[(\w+)\] ?& ?0xf\)$/.exec(operand)?.[1]);
  if (header !== null) return { kind: 'ldx_msh', k: header };
  const memory = number(/^M\[(\d+)\]$/i.exec(operand)?.[1]);
  if (memory !== null) return { kind: 'ldx_mem', k: memory };
  const immediate = operand.startsWith('#') ? number(operand.slice(1)) : null;
  return immediate === null ? null : { kind: 'ldx_imm', k: immediate };
}

function parseRaw(operand: string): Unlinked | null {
  const [code, jt, jf, k] = operand.split(' ').map((part) => number(part));
  if (code == null || jt == null || jf == null || k == null) return null;
  return { kind: 'raw', code, jt, jf, k };
}

function parseJump(op: JumpOp, operand: string): Unlinked | null {
  const [value = '', yes, no] = operand.split(/, ?/);
  const src = sourceOf(value);
  if (src === null || yes === undefined || yes === '') return null;
  return { kind: 'jump', op, src, yes, no: no ?? null };
}

/** One line without its label. */
function parseInsn(text: string): Unlinked | null {
  const [word = '', ...rest] = text.split(' ');
  const operand = rest.join(' ');
  const jump = JUMPS[word];
  if (jump !== undefined) return parseJump(jump, operand);
  const op = ALU[word];
  if (op !== undefined) {
    const src = sourceOf(operand);
    return src === null ? null : { kind: 'alu', op, src };
  }
  switch (word) {
    case 'tax':
    case 'txa':
    case 'neg':
      return { kind: word };
    case 'ja':
    case 'jmp':
      return operand === '' ? null : { kind: 'ja', to: operand };
    case 'ret': {
      const value = operand === 'a' ? 'a' : number(operand.replace(/^#/, ''));
      return value === null ? null : { kind: 'ret', value };
    }
    case 'st':
    case 'stx': {
      const k = number(/^M\[(\d+)\]$/i.exec(operand)?.[1]);
      return k === null ? null : { kind: word, k };
    }
    case 'ldx':
    case 'ldxb':
      return parseIndexLoad(operand);
    case '.code':
      return parseRaw(operand);
    default:
      return parseLoad(word, operand);
  }
}

/** Jumps that go to a label which is not below them, or too far, have no encoding. */
function link(insn: Unlinked, at: number, labels: ReadonlyMap<string, number>): Insn | string {
  const skip = (label: string): number => (labels.get(label) ?? -1) - at - 1;
  if (insn.kind === 'ja') {
    const k = skip(insn.to);
    return k < 0 ? `no label ${insn.to} below` : { kind: 'ja', k };
  }
  if (insn.kind !== 'jump') return insn;
  const { op, src, yes, no } = insn;
  const jt = skip(yes);
  const jf = no === null ? 0 : skip(no);
  if (jt < 0) return `no label ${yes} below`;
  if (jf < 0) return `no label ${no} below`;
  return jt > 255 || jf > 255
    ? 'the label is more than 255 insns away'
    : { kind: 'jump', op, src, jt, jf };
}

function refuse(line: number, message: string): Result<never> {
  const place = { kind: 'file', file: 'assembly', line, column: null } as const;
  return fail(errorAt('cbpf/assembly', message, { place }));
}

/**
 * Reads what `formatAssembly` writes and bpf_asm takes (labels, `;` and `/* ... *\/` comments on one
 * line, `jmp`, `ldxb`, one-target jumps). Errors name the line.
 */
export function parseAssembly(text: string): Result<readonly Insn[]> {
  const labels = new Map<string, number>();
  const unlinked: { readonly insn: Unlinked; readonly line: number }[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const plain = line.replace(/\/\*.*?\*\/|;.*$/g, '');
    const [, label, rest = ''] = /^\s*(?:(\w+):)?(.*)$/.exec(plain) ?? [];
    if (label !== undefined) {
      if (labels.has(label)) return refuse(index + 1, `label ${label} is there twice`);
      labels.set(label, unlinked.length);
    }
    const body = rest.trim().replace(/\s+/g, ' ');
    if (body === '') continue;
    const insn = parseInsn(body);
    if (insn === null) return refuse(index + 1, `\`${body}\` is no instruction`);
    unlinked.push({ insn, line: index + 1 });
  }
  const insns: Insn[] = [];
  for (const [at, { insn, line }] of unlinked.entries()) {
    const linked = link(insn, at, labels);
    if (typeof linked === 'string') return refuse(line, linked);
    insns.push(linked);
  }
  return succeed(insns);
}
