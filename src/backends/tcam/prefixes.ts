import { ones } from '../../support/bits.ts';

/** Values that agree with `value` in the bits of `mask`. */
export interface Prefix {
  readonly value: bigint;
  readonly mask: bigint;
}

/** The fewest prefixes that hold exactly lo..hi of `width` bits, in ascending order. */
export function prefixesOf(lo: bigint, hi: bigint, width: number): Prefix[] {
  const prefixes: Prefix[] = [];
  const all = ones(width);
  let at = lo;
  while (at <= hi) {
    let size = at === 0n ? all + 1n : at & -at;
    while (at + size - 1n > hi) size >>= 1n;
    prefixes.push({ value: at, mask: all ^ (size - 1n) });
    at += size;
  }
  return prefixes;
}

/** lo..hi pairs, sorted, touching ones joined. */
export type Intervals = readonly (readonly [lo: bigint, hi: bigint])[];

export function joinIntervals(intervals: Intervals): Intervals {
  const sorted = [...intervals].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const joined: [bigint, bigint][] = [];
  for (const [lo, hi] of sorted) {
    const last = joined.at(-1);
    if (last === undefined || lo > last[1] + 1n) joined.push([lo, hi]);
    else if (hi > last[1]) last[1] = hi;
  }
  return joined;
}

/** What the joined intervals leave of 0..top. */
export function complementIntervals(joined: Intervals, top: bigint): Intervals {
  const gaps: [bigint, bigint][] = [];
  let at = 0n;
  for (const [lo, hi] of joined) {
    if (lo > at) gaps.push([at, lo - 1n]);
    at = hi + 1n;
  }
  if (at <= top) gaps.push([at, top]);
  return gaps;
}
