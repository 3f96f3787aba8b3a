import type { Classifier, Entry, Target } from './classifier.ts';
import { fieldKey } from './fields.ts';
import { isPlain } from './operand.ts';
import { exclude, intervalOf, type Region, restrict, sortedElements, truthOf } from './region.ts';
import type { Test } from './ruleset.ts';

/** Which frames of an entry: all that get there, or those that also match it. */
export type Part = 'reach' | 'match';

/** What is known of the frames of entries. */
export interface Overlaps {
  /**
   * Whether a frame can match `entry` and be in that part of `other`. `false` is certain; `true`
   * only says that nothing here rules it out.
   */
  readonly overlaps: (entry: number, other: number, part: Part) => boolean;
  /** No frame is in that part of the entry; only `true` is certain. */
  readonly isEmpty: (entry: number, part: Part) => boolean;
}

/** Bounds of one field, as hooks of one view see it, by entry; rounded outwards. */
interface Column {
  readonly reachLo: Float64Array;
  readonly reachHi: Float64Array;
  readonly matchLo: Float64Array;
  readonly matchHi: Float64Array;
}

interface Bound {
  readonly key: string;
  readonly lo: number;
  readonly hi: number;
}

/** More than half a unit in the last place of a double, which is 2^-53 of its value. */
const ROUNDING = 2 ** -52;

function boundOf(key: string, lo: bigint, hi: bigint): Bound {
  return { key, lo: Number(lo) * (1 - ROUNDING), hi: Number(hi) * (1 + ROUNDING) };
}

/** What a test that holds says about one field; null where that is nothing. */
function readBound(test: Test): Bound | null {
  if (test.kind === 'unknown' || test.negated) return null;
  if (test.kind === 'compare') {
    const interval = intervalOf(test);
    return interval === null ? null : boundOf(interval.key, interval.lo, interval.hi);
  }
  const [operand] = test.key;
  const sorted = sortedElements(test.set.elements);
  const lo = sorted?.lo[0];
  const hi = sorted?.hi.at(-1);
  if (operand === undefined || lo === undefined || hi === undefined) return null;
  return isPlain(operand) ? boundOf(fieldKey(operand.field), lo, hi) : null;
}

/** Fields looked at; those beyond only make the answer less sharp. */
const MOST_COLUMNS = 16;

/** Which fields the entries bound, those asked most often first. */
function chooseKeys(bounds: readonly (readonly Bound[])[]): ReadonlyMap<string, number> {
  const asked = new Map<string, number>();
  for (const { key } of bounds.flat()) asked.set(key, (asked.get(key) ?? 0) + 1);
  const keys = [...asked].sort((a, b) => b[1] - a[1]).slice(0, MOST_COLUMNS);
  return new Map(keys.map(([key], index) => [key, index]));
}

/** No entry but the first is reached before a way to it was found. */
function createColumn(entries: number): Column {
  const filled = (value: number) => new Float64Array(entries).fill(value);
  const [reachLo, reachHi] = [filled(Number.POSITIVE_INFINITY), filled(Number.NEGATIVE_INFINITY)];
  if (entries > 0) [reachLo[0], reachHi[0]] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  return { reachLo, reachHi, matchLo: filled(0), matchHi: filled(0) };
}

/** Follows every way through the walk, and keeps what holds on all ways to an entry. */
function fillColumns(
  entries: readonly Entry[],
  bounds: readonly (readonly Bound[])[],
  keys: ReadonlyMap<string, number>,
): readonly Column[] {
  const columns = Array.from({ length: keys.size }, () => createColumn(entries.length));
  for (const [at, entry] of entries.entries()) {
    for (const { reachLo, reachHi, matchLo, matchHi } of columns) {
      matchLo[at] = reachLo[at] ?? 0;
      matchHi[at] = reachHi[at] ?? 0;
    }
    for (const { key, lo, hi } of bounds[at] ?? []) {
      const column = columns[keys.get(key) ?? -1];
      if (column === undefined) continue;
      column.matchLo[at] = Math.max(column.matchLo[at] ?? 0, lo);
      column.matchHi[at] = Math.min(column.matchHi[at] ?? 0, hi);
    }
    widen(columns, entry.then, at, 'match');
    if (entry.tests.length > 0) widen(columns, entry.otherwise, at, 'reach');
  }
  return columns;
}

function widen(columns: readonly Column[], target: Target, from: number, part: Part): void {
  if (target.kind !== 'entry') return;
  const to = target.index;
  for (const { reachLo, reachHi, matchLo, matchHi } of columns) {
    const [lo, hi] = part === 'match' ? [matchLo, matchHi] : [reachLo, reachHi];
    reachLo[to] = Math.min(reachLo[to] ?? 0, lo[from] ?? 0);
    reachHi[to] = Math.max(reachHi[to] ?? 0, hi[from] ?? 0);
  }
}

/** Pairs of entries compared to find out which columns tell most of them apart. */
const SAMPLED_PAIRS = 256;

/** The columns, those first that rule out most pairs. */
function sharpestFirst(columns: readonly Column[], entries: number): readonly Column[] {
  const step = Math.max(1, Math.floor(entries / SAMPLED_PAIRS));
  const ruledOut = ({ matchLo, matchHi }: Column): number => {
    let count = 0;
    for (let a = 0; a < entries; a += step) {
      const b = entries - 1 - a;
      const [aLo = 0, aHi = 0, bLo = 0, bHi = 0] = [matchLo[a], matchHi[a], matchLo[b], matchHi[b]];
      if (aHi < bLo || aLo > bHi) count += 1;
    }
    return count;
  };
  const scored = columns.map((column) => ({ column, score: ruledOut(column) }));
  return scored.sort((a, b) => b.score - a.score).map(({ column }) => column);
}

/** What an entry's own tests say, exactly. */
function regionOf({ tests }: Entry): Region {
  let region: Region = new Map();
  for (const test of tests) {
    const interval = intervalOf(test);
    if (interval === null || test.kind !== 'compare') continue;
    if (!test.negated) region = restrict(region, interval.key, interval.lo, interval.hi);
    else if (interval.lo === interval.hi) region = exclude(region, interval.key, interval.lo);
  }
  return region;
}

function isRuledOut({ tests }: Entry, region: Region): boolean {
  return region.size > 0 && tests.some((test) => truthOf(test, region) === 'false');
}

/**
 * Prepares the question for a classifier with certain tests only. Looks at intervals of fields on
 * all ways to the entries first, then at the tests themselves.
 */
export function createOverlaps({ entries }: Classifier): Overlaps {
  const bounds = entries.map(({ tests, view }) =>
    tests.flatMap((test) => {
      const own = readBound(test);
      return own === null ? [] : { ...own, key: `${view} ${own.key}` };
    }),
  );
  const columns = sharpestFirst(fillColumns(entries, bounds, chooseKeys(bounds)), entries.length);
  const regions: (Region | undefined)[] = [];
  const regionAt = (at: number, entry: Entry): Region => (regions[at] ??= regionOf(entry));
  const overlaps: Overlaps['overlaps'] = (at, other, part) => {
    for (const { reachLo, reachHi, matchLo, matchHi } of columns) {
      const [lo, hi] = part === 'match' ? [matchLo, matchHi] : [reachLo, reachHi];
      if ((matchHi[at] ?? 0) < (lo[other] ?? 0) || (matchLo[at] ?? 0) > (hi[other] ?? 0)) {
        return false;
      }
    }
    const [a, b] = [entries[at], entries[other]];
    if (part !== 'match' || a === undefined || b === undefined || a.view !== b.view) return true;
    return !isRuledOut(a, regionAt(other, b)) && !isRuledOut(b, regionAt(at, a));
  };
  const isEmpty: Overlaps['isEmpty'] = (at, part) =>
    columns.some(({ reachLo, reachHi, matchLo, matchHi }) =>
      part === 'match'
        ? (matchLo[at] ?? 0) > (matchHi[at] ?? 0)
        : (reachLo[at] ?? 0) > (reachHi[at] ?? 0),
    );
  return { overlaps, isEmpty };
}
