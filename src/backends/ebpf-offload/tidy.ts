import type { Insn } from './insn.ts';
import { endsFlow, indexLabels, labelIndex } from './layout.ts';

/** The first real instruction at or after a list index. */
function skipLabels(insns: readonly Insn[], from: number): number {
  let index = from;
  while (insns[index]?.kind === 'label') index += 1;
  return index;
}

/** The label a jump to `target` ends at, following plain jumps; a loop of them ends anywhere. */
function followJumps(
  insns: readonly Insn[],
  labels: ReadonlyMap<string, number>,
  known: Map<string, string>,
  target: string,
): string {
  const path: string[] = [];
  let at = target;
  while (!known.has(at)) {
    known.set(at, at); // also ends loops
    path.push(at);
    const insn = insns[skipLabels(insns, labelIndex(labels, at))];
    if (insn?.kind !== 'ja') break;
    at = insn.target;
  }
  const end = known.get(at) ?? at;
  for (const step of path) known.set(step, end);
  return end;
}

/**
 * Leads jumps to plain jumps straight to where those go, and drops plain jumps to the next
 * instruction. Keeps the meaning; may leave instructions without a way to them, which
 * `removeUnreachable` takes out. Linear time.
 */
export function threadJumps(insns: readonly Insn[]): readonly Insn[] {
  const labels = indexLabels(insns);
  const known = new Map<string, string>();
  const threaded = insns.map((insn) => {
    if (insn.kind !== 'jump' && insn.kind !== 'ja') return insn;
    const target = followJumps(insns, labels, known, insn.target);
    return target === insn.target ? insn : { ...insn, target };
  });
  return threaded.filter((insn, index) => {
    if (insn.kind !== 'ja') return true;
    const to = labelIndex(labels, insn.target);
    return to < index || skipLabels(threaded, index + 1) < to;
  });
}

/**
 * Drops instructions that control cannot get to, and labels that nothing jumps to: the kernel
 * refuses the former ("unreachable insn", check_cfg() in kernel/bpf/verifier.c). Every condition is
 * taken to go both ways, as there. Linear time.
 */
export function removeUnreachable(insns: readonly Insn[]): readonly Insn[] {
  const labels = indexLabels(insns);
  const reached = new Uint8Array(insns.length);
  const wanted = new Set<string>();
  const waiting = [0];
  for (let start = waiting.pop(); start !== undefined; start = waiting.pop()) {
    for (let index = start; index < insns.length && reached[index] === 0; index += 1) {
      const insn = insns[index];
      if (insn === undefined) break;
      reached[index] = 1;
      if (insn.kind === 'jump' || insn.kind === 'ja') {
        wanted.add(insn.target);
        waiting.push(labelIndex(labels, insn.target));
      }
      if (endsFlow(insn)) break;
    }
  }
  return insns.filter(
    (insn, index) => reached[index] === 1 && (insn.kind !== 'label' || wanted.has(insn.name)),
  );
}
