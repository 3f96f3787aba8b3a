import type { Insn } from './insn.ts';
import { endsFlow, layOut } from './layout.ts';

/** List index of the first real instruction at or after each list index. */
function findNext(insns: readonly Insn[]): Int32Array {
  const next = new Int32Array(insns.length + 1).fill(insns.length);
  for (let index = insns.length - 1; index >= 0; index -= 1) {
    next[index] = insns[index]?.kind === 'label' ? (next[index + 1] ?? 0) : index;
  }
  return next;
}

/** The label (by list index) that a jump to `label` ends at; a loop of plain jumps ends anywhere. */
function followJumps(
  insns: readonly Insn[],
  next: Int32Array,
  targets: Int32Array,
  ends: Int32Array,
  label: number,
): number {
  const path: number[] = [];
  let at = label;
  while (ends[at] === -1) {
    ends[at] = at; // also ends loops
    path.push(at);
    const index = next[at] ?? 0;
    if (insns[index]?.kind !== 'ja') break;
    at = targets[index] ?? at;
  }
  const end = ends[at] ?? at;
  for (const step of path) ends[step] = end;
  return end;
}

/**
 * Leads jumps to plain jumps straight to where those go, and drops plain jumps to the next
 * instruction. Keeps the meaning; may leave instructions without a way to them, which
 * `removeUnreachable` takes out. Linear time.
 */
export function threadJumps(insns: readonly Insn[]): readonly Insn[] {
  const { targets } = layOut(insns);
  const next = findNext(insns);
  const ends = new Int32Array(insns.length).fill(-1);
  const threaded: Insn[] = [];
  insns.forEach((insn, index) => {
    if (insn.kind !== 'jump' && insn.kind !== 'ja') {
      threaded.push(insn);
      return;
    }
    const target = targets[index] ?? 0;
    const end = followJumps(insns, next, targets, ends, target);
    if (insn.kind === 'ja' && end > index && next[index + 1] === next[end]) return;
    const label = insns[end];
    threaded.push(
      label?.kind === 'label' && end !== target ? { ...insn, target: label.name } : insn,
    );
  });
  return threaded;
}

/**
 * Drops instructions that control cannot get to, and labels that nothing jumps to: the kernel
 * refuses the former ("unreachable insn", check_cfg() in kernel/bpf/verifier.c). Every condition is
 * taken to go both ways, as there. Linear time.
 */
export function removeUnreachable(insns: readonly Insn[]): readonly Insn[] {
  const { targets } = layOut(insns);
  const isReached = new Uint8Array(insns.length);
  const isWanted = new Uint8Array(insns.length);
  const waiting = [0];
  for (let start = waiting.pop(); start !== undefined; start = waiting.pop()) {
    for (let index = start; index < insns.length && isReached[index] === 0; index += 1) {
      isReached[index] = 1;
      const target = targets[index] ?? -1;
      if (target !== -1) {
        isWanted[target] = 1;
        waiting.push(target);
      }
      const insn = insns[index];
      if (insn !== undefined && endsFlow(insn)) break;
    }
  }
  return insns.filter(
    (insn, index) => isReached[index] === 1 && (insn.kind !== 'label' || isWanted[index] === 1),
  );
}
