import type { Reason } from '../support/diagnostics.ts';
import { remember } from '../support/remember.ts';
import type { Classifier, Entry, Target } from './classifier.ts';
import { createOverlaps } from './overlap.ts';
import type { Specialised } from './specialise.ts';

/** Ends of ways through the walk: somewhere else, or the packet is gone. */
const ELSEWHERE = -1;
const GONE = -2;

/** The entries of a specialised classifier that drop, and what each drop depends on. */
export interface Slices {
  /** Those of `dropsOf` that a frame may get to. */
  readonly drops: readonly number[];
  /**
   * The entries that must be there for a drop to be right, itself among them, ascending: with all
   * others left out, a frame that gets to this drop is one that the whole walk drops, with the same
   * counters.
   */
  readonly needs: (drop: number) => readonly number[];
}

/** The walk's ways as numbers: an entry, `ELSEWHERE` or `GONE`. */
interface Ways {
  readonly then: Int32Array;
  readonly otherwise: Int32Array;
  readonly counts: Uint8Array;
}

/** Whether a target drops, perhaps after asking whether the kernel loses the frame anyway. */
function isDrop(target: Target, tail: number): boolean {
  return target.kind === 'drop' || (target.kind === 'entry' && target.index >= tail);
}

function readWays(entries: readonly Entry[], tail: number): Ways {
  const wayOf = (target: Target): number => {
    if (isDrop(target, tail) || target.kind === 'lost') return GONE;
    return target.kind === 'entry' ? target.index : ELSEWHERE;
  };
  return {
    then: Int32Array.from(entries, (entry) => wayOf(entry.then)),
    otherwise: Int32Array.from(entries, ({ tests, then, otherwise }) =>
      wayOf(tests.length > 0 ? otherwise : then),
    ),
    counts: Uint8Array.from(entries, ({ counts }) => (counts.length > 0 ? 1 : 0)),
  };
}

/** The entries of a specialised classifier that drop what matches them or, rarely, what does not. */
export const dropsOf = remember(
  ({ classifier, tail }: Pick<Specialised, 'classifier' | 'tail'>): readonly number[] => {
    const drops: number[] = [];
    for (const [at, { then, otherwise, tests }] of classifier.entries.entries()) {
      if (at === tail) break;
      if (isDrop(then, tail) || (tests.length > 0 && isDrop(otherwise, tail))) drops.push(at);
    }
    return drops;
  },
);

/**
 * Entries that make packets vanish without counting, and let others go on to the entry behind: what a
 * drop needs that counts nothing either never depends on them. Most rules are such.
 */
interface Runs {
  /** The entries that are none, ascending. */
  readonly others: Int32Array;
  /** For every entry the first one from it on that is none, perhaps the end. */
  readonly end: Int32Array;
}

function findRuns({ then, otherwise, counts }: Ways): Runs {
  const isPlain = (at: number): boolean =>
    then[at] === GONE && otherwise[at] === at + 1 && counts[at] === 0;
  const end = new Int32Array(then.length);
  const others: number[] = [];
  for (let at = then.length - 1; at >= 0; at -= 1) {
    end[at] = isPlain(at) ? (end[at + 1] ?? at + 1) : at;
    if (end[at] === at) others.push(at);
  }
  return { others: Int32Array.from(others.reverse()), end };
}

/** How many of the ascending numbers are below `limit`. */
function countBelow(numbers: Int32Array, limit: number): number {
  let from = 0;
  let to = numbers.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((numbers[middle] ?? 0) < limit) from = middle + 1;
    else to = middle;
  }
  return from;
}

/**
 * Finds out what drops depend on. Going back from a drop, `next` holds for every entry the needed
 * entry that frames come to next, whichever way they take; where the two ways of an entry lead to
 * different ones, a frame that could be dropped decides there, so the entry is needed itself. Not
 * so where no frame that matches it can be one that the drop drops, nor where it only makes packets
 * vanish that the drop makes vanish too, as long as nothing is counted on the way.
 */
export function sliceDrops({ classifier, tail }: Specialised): Slices {
  const entries = classifier.entries.slice(0, tail);
  const ways = readWays(entries, tail);
  const { overlaps, isEmpty } = createOverlaps({ ...classifier, entries });
  const next = new Int32Array(tail);
  const runs = findRuns(ways);
  const everyEntry = Int32Array.from(entries.keys());

  /** Null when something turns out to be counted on the way though `counting` is false. */
  const needsOf = (drop: number, counting: boolean): number[] | null => {
    const entry = entries[drop];
    if (entry === undefined) throw new Error('bug: no such drop');
    const part = isDrop(entry.then, tail) ? 'match' : 'reach';
    const needed = [drop];
    next[drop] = drop;
    const follow = (way: number): number => {
      if (way < 0) return way;
      if (way > drop) return ELSEWHERE;
      const at = counting ? way : (runs.end[way] ?? way);
      return at >= drop ? drop : (next[at] ?? ELSEWHERE);
    };
    const looked = counting ? everyEntry : runs.others;
    for (let rank = countBelow(looked, drop) - 1; rank >= 0; rank -= 1) {
      const at = looked[rank] ?? 0;
      const isCounted = ways.counts[at] === 1;
      const otherwise = withoutGone(follow(ways.otherwise[at] ?? ELSEWHERE));
      let then = follow(ways.then[at] ?? ELSEWHERE);
      if (then === GONE) then = counting || isCounted ? ELSEWHERE : otherwise;
      if (then === otherwise && (!isCounted || then === ELSEWHERE)) next[at] = then;
      else if (!overlaps(at, drop, part)) next[at] = otherwise;
      else {
        next[at] = at;
        needed.push(at);
        if (isCounted && then !== ELSEWHERE && !counting) return null;
      }
    }
    return needed.reverse();
  };

  return {
    drops: dropsOf({ classifier, tail }).filter((at) => {
      const entry = entries[at];
      return entry !== undefined && !isEmpty(at, isDrop(entry.then, tail) ? 'match' : 'reach');
    }),
    needs: (drop) =>
      (ways.counts[drop] === 0 ? needsOf(drop, false) : null) ?? needsOf(drop, true) ?? [],
  };
}

function withoutGone(way: number): number {
  return way === GONE ? ELSEWHERE : way;
}

/**
 * A specialised classifier of some of its entries only: frames pass the others as if they did not
 * match. Drops that are not in `chosen` hand the frame on. Sound when `kept` holds all that the
 * chosen drops need.
 */
export function keepEntries(
  { classifier, tail }: Specialised,
  kept: ReadonlySet<number>,
  chosen: ReadonlySet<number>,
  reason: Reason,
): Classifier {
  const { entries } = classifier;
  const handOn: Target = { kind: 'unknown', reason };
  const isLeft = (at: number): boolean => at >= tail || kept.has(at);
  /** Where a frame that comes to an entry goes on, by the entry's old place. */
  const behind: Target[] = [];
  const targetOf = (target: Target, at: number): Target => {
    if (isDrop(target, tail) && at < tail && !chosen.has(at)) return handOn;
    if (target.kind !== 'entry') return target;
    const onward = behind[target.index];
    if (onward === undefined) throw new Error('bug: the walk goes back');
    if (onward.kind !== 'entry' || !target.uncertain) return onward;
    return { ...onward, uncertain: true };
  };
  // From the last to the first; `index` counts from the end until all are there.
  const reversed: Entry[] = [];
  for (let at = entries.length - 1; at >= 0; at -= 1) {
    const entry = entries[at];
    if (entry === undefined) continue;
    if (isLeft(at)) {
      const then = targetOf(entry.then, at);
      const otherwise = entry.tests.length > 0 ? targetOf(entry.otherwise, at) : then;
      reversed.push({ ...entry, then, otherwise });
      behind[at] = { kind: 'entry', index: reversed.length, uncertain: false };
    } else behind[at] = targetOf(entry.tests.length > 0 ? entry.otherwise : entry.then, at);
  }
  const start = behind[0];
  if (start?.kind !== 'entry') return { ...classifier, entries: [] };
  const count = start.index;
  const place = (target: Target): Target =>
    target.kind === 'entry' ? { ...target, index: count - target.index } : target;
  const left = reversed.slice(0, count).reverse();
  return {
    ...classifier,
    entries: left.map((entry) => ({
      ...entry,
      then: place(entry.then),
      otherwise: place(entry.otherwise),
    })),
  };
}
