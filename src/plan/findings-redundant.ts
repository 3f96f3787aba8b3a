import type { Entry, Target } from '../ir/classifier.ts';
import { implies, isDisjoint, type Match } from './match.ts';

/** Steps taken in all, and for one entry. */
const MOST_STEPS = 300_000;
const MOST_STEPS_EACH = 200;

/** Equal for two targets only if packets fare the same; null for what nobody can say. */
function nameTarget(target: Target): string | null {
  if (target.kind === 'unknown') return null;
  if (target.kind !== 'entry') return target.kind;
  return target.uncertain ? null : `entry ${target.index}`;
}

/** Whether a packet that matches, or may match, leaves no trace. */
function isQuiet({ counts, effects, tests }: Entry): boolean {
  const isStateful = tests.some((test) => test.kind === 'unknown' && test.stateful);
  return counts.length === 0 && effects.length === 0 && !isStateful;
}

/** Says of one entry what does the same in its place; see `createRedundancy`. */
export type Redundancy = (
  index: number,
  isGone: (entry: number) => boolean,
) => { readonly by: number | null } | null;

/**
 * Makes a function that says whether taking an entry away certainly changes no verdict and nothing
 * that is counted or told: what it matches fares the same behind it, whether entries that may be
 * `isGone` are still there or not. Null when that is not known, else the entry that does it (null
 * when that is the end of the walk).
 */
export function createRedundancy(entries: readonly Entry[], matches: readonly Match[]): Redundancy {
  const names = entries.map(({ then }) => nameTarget(then));
  /** From each entry on, the first that has another target or is not simply followed by the next. */
  const runEnds = new Int32Array(entries.length + 1);
  for (let index = entries.length - 1; index >= 0; index -= 1) {
    const entry = entries[index];
    const next = entry?.otherwise;
    const goesOn = next?.kind === 'entry' && next.index === index + 1 && !next.uncertain;
    const isPlain = entry !== undefined && goesOn && isQuiet(entry) && names[index] !== null;
    const isSame = names[index] === names[index + 1];
    runEnds[index] = isPlain ? (isSame ? (runEnds[index + 1] ?? 0) : index + 1) : index;
  }
  let steps = 0;
  return (start, isGone) => {
    const name = names[start] ?? null;
    const match = matches[start];
    const first = entries[start];
    if (name === null || match === undefined || first === undefined || !isQuiet(first)) return null;
    let target = first.otherwise;
    for (let own = 0; own < MOST_STEPS_EACH && steps < MOST_STEPS; own += 1) {
      steps += 1;
      const reached = nameTarget(target);
      if (reached === name) return { by: target.kind === 'entry' ? target.index : null };
      if (target.kind !== 'entry' || reached === null) return null;
      const at = target.index;
      const entry = entries[at];
      const other = matches[at];
      if (entry === undefined || other === undefined) return null;
      if (isDisjoint(match, other)) target = entry.otherwise;
      else if (!isQuiet(entry)) return null;
      else if (implies(match, other) && !isGone(at)) {
        if (names[at] === name) return { by: at };
        target = entry.then;
      } else if (names[at] === name) {
        const end = runEnds[at] ?? at;
        target = end > at + 1 ? { kind: 'entry', index: end, uncertain: false } : entry.otherwise;
      } else return null;
    }
    return null;
  };
}
