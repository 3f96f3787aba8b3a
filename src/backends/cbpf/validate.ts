import { encodeInsn } from './encode.ts';
import { formatInsn } from './format.ts';
import { ANCILLARY, ancillaryName, type Insn } from './insn.ts';

/** BPF_MAXINSNS, include/uapi/linux/bpf_common.h. */
export const MAX_INSNS = 4096;
/** BPF_MEMWORDS, include/uapi/linux/filter.h. */
export const MEMORY_WORDS = 16;

/** An instruction that the kernel refuses, and why. */
export interface Problem {
  /** Index of the instruction; null when it is the whole program. */
  readonly at: number | null;
  readonly message: string;
}

/** What is wrong with one instruction whatever stands around it, or null. */
function problemOf(insn: Insn, at: number, length: number): string | null {
  switch (insn.kind) {
    case 'ld_abs':
      return insn.k >= ANCILLARY && ancillaryName(insn.k) === null
        ? 'unknown ancillary load'
        : null;
    case 'ld_mem':
    case 'ldx_mem':
    case 'st':
    case 'stx':
      return insn.k < MEMORY_WORDS ? null : `M has ${MEMORY_WORDS} words`;
    case 'alu': {
      const isShift = insn.op === 'lsh' || insn.op === 'rsh';
      if (isShift && insn.src !== 'x' && insn.src >= 32) return 'shift by 32 bits or more';
      const divides = insn.op === 'div' || insn.op === 'mod';
      return divides && insn.src === 0 ? 'division by 0' : null;
    }
    case 'ja':
      return at + 1 + insn.k < length ? null : 'jump behind the end';
    case 'jump':
      return at + 1 + Math.max(insn.jt, insn.jf) < length ? null : 'jump behind the end';
    case 'raw':
      return 'unknown code';
    case 'ld_ind':
    case 'ld_imm':
    case 'ldx_imm':
    case 'ld_len':
    case 'ldx_len':
    case 'ldx_msh':
    case 'neg':
    case 'tax':
    case 'txa':
    case 'ret':
      return null;
  }
}

/** Words of M, as bits, that are written on every way to each instruction. */
function findUnwritten(insns: readonly Insn[]): Problem | null {
  const written = new Uint16Array(insns.length + 1).fill(0xffff);
  written[0] = 0;
  for (const [at, insn] of insns.entries()) {
    let here = written[at] ?? 0;
    if (insn.kind === 'st' || insn.kind === 'stx') here |= 1 << insn.k;
    if ((insn.kind === 'ld_mem' || insn.kind === 'ldx_mem') && ((here >> insn.k) & 1) === 0) {
      return { at, message: `M[${insn.k}] may not have been written` };
    }
    const reach = (target: number): void => {
      written[target] = (written[target] ?? 0) & here;
    };
    if (insn.kind === 'jump') {
      reach(at + 1 + insn.jt);
      reach(at + 1 + insn.jf);
    } else if (insn.kind === 'ja') reach(at + 1 + insn.k);
    // Also behind a return, where nothing gets to: so the kernel has it.
    else reach(at + 1);
  }
  return null;
}

/**
 * The kernel's own rules, bpf_check_classic() and check_load_and_stores() in net/core/filter.c: the
 * first instruction it refuses, or null when it takes the program. `most` is 4,096 in the kernel and
 * less in some places.
 */
export function validate(insns: readonly Insn[], most: number = MAX_INSNS): Problem | null {
  if (insns.length === 0) return { at: null, message: 'a program has at least one insn' };
  if (insns.length > most) return { at: null, message: `${insns.length} insns, at most ${most}` };
  for (const [at, insn] of insns.entries()) {
    const message = problemOf(insn, at, insns.length);
    if (message !== null) return { at, message };
  }
  if (insns.at(-1)?.kind !== 'ret') {
    return { at: insns.length - 1, message: 'the last insn does not return' };
  }
  return findUnwritten(insns);
}

/** A problem with the text of its instruction. */
export function describeProblem(problem: Problem, insns: readonly Insn[]): string {
  const insn = problem.at === null ? undefined : insns[problem.at];
  if (insn === undefined) return problem.message;
  const { code } = encodeInsn(insn);
  const text = insn.kind === 'raw' ? `code 0x${code.toString(16)}` : formatInsn(insn);
  return `insn ${problem.at} (${text}): ${problem.message}`;
}
