import { ancillaryName, type Insn, type Size, type Source } from './insn.ts';

/* As tools/bpf/bpf_asm of the kernel reads it, and tcpdump -d nearly so. */

const LOAD: Readonly<Record<Size, string>> = { 1: 'ldb', 2: 'ldh', 4: 'ld' };

function source(src: Source): string {
  return src === 'x' ? 'x' : constant(src);
}

function constant(value: number): string {
  return value < 10 ? `#${value}` : `#0x${value.toString(16)}`;
}

/** One instruction; jumps name their targets by `labelOf` the number of instructions skipped. */
export function formatInsn(
  insn: Insn,
  labelOf: (skipped: number) => string = (skipped) => `+${skipped}`,
): string {
  switch (insn.kind) {
    case 'ld_abs': {
      const name = insn.size === 4 ? ancillaryName(insn.k) : null;
      // bpf_asm has no word for the exclusive or, which `xor x` does as well.
      return name !== null && name !== 'xor_x' ? `ld ${name}` : `${LOAD[insn.size]} [${insn.k}]`;
    }
    case 'ld_ind':
      return `${LOAD[insn.size]} [x + ${insn.k}]`;
    case 'ld_imm':
      return `ld ${constant(insn.k)}`;
    case 'ldx_imm':
      return `ldx ${constant(insn.k)}`;
    case 'ld_len':
      return 'ld len';
    case 'ldx_len':
      return 'ldx len';
    case 'ld_mem':
      return `ld M[${insn.k}]`;
    case 'ldx_mem':
      return `ldx M[${insn.k}]`;
    case 'ldx_msh':
      return `ldx 4*([${insn.k}]&0xf)`;
    case 'st':
      return `st M[${insn.k}]`;
    case 'stx':
      return `stx M[${insn.k}]`;
    case 'alu':
      return `${insn.op} ${source(insn.src)}`;
    case 'neg':
    case 'tax':
    case 'txa':
      return insn.kind;
    case 'ja':
      return `ja ${labelOf(insn.k)}`;
    case 'jump':
      return `${insn.op} ${source(insn.src)}, ${labelOf(insn.jt)}, ${labelOf(insn.jf)}`;
    case 'ret':
      return insn.value === 'a' ? 'ret a' : `ret ${constant(insn.value)}`;
    case 'raw':
      return `.code ${insn.code} ${insn.jt} ${insn.jf} ${insn.k}`;
  }
}

/** Targets of jumps, as indices of instructions. */
export function jumpTargets(insns: readonly Insn[]): ReadonlySet<number> {
  const targets = new Set<number>();
  for (const [at, insn] of insns.entries()) {
    if (insn.kind === 'ja') targets.add(at + 1 + insn.k);
    if (insn.kind === 'jump') targets.add(at + 1 + insn.jt).add(at + 1 + insn.jf);
  }
  return targets;
}

/** A program for bpf_asm: one instruction a line, targets labelled by their index. */
export function formatAssembly(insns: readonly Insn[]): string {
  const targets = jumpTargets(insns);
  const lines = insns.map((insn, at) => {
    const text = formatInsn(insn, (skipped) => `l${at + 1 + skipped}`);
    return `${targets.has(at) ? `l${at}:` : ''}\t${text}\n`;
  });
  return lines.join('');
}
