/** A prefix: `length` leading bits of a value of the field's width, the others zero. */
export interface Prefix {
  readonly length: number;
  readonly value: bigint;
}

/** The fewest prefixes that together hold exactly lo..hi, in ascending order. */
export function splitRange(width: number, lo: bigint, hi: bigint): Prefix[] {
  const prefixes: Prefix[] = [];
  for (let at = lo; at <= hi; ) {
    let free = 0;
    while (
      free < width &&
      ((at >> BigInt(free)) & 1n) === 0n &&
      at + (1n << BigInt(free + 1)) - 1n <= hi
    ) {
      free += 1;
    }
    prefixes.push({ length: width - free, value: at });
    at += 1n << BigInt(free);
  }
  return prefixes;
}

/** The prefix as prefixes of another, greater length. */
function expand(width: number, { length, value }: Prefix, to: number): Prefix[] {
  const step = 1n << BigInt(width - to);
  const count = 2 ** (to - length);
  return Array.from({ length: count }, (_, i) => ({ length: to, value: value + BigInt(i) * step }));
}

/**
 * The fewest lengths that prefixes can be expanded to (each to the next one that is not shorter)
 * with at most `most` prefixes in all; of equally many, those that take the fewest prefixes. Every
 * length costs a program one look-up, every prefix only memory. Null: not even unexpanded.
 */
export function chooseLengths(
  counts: ReadonlyMap<number, number>,
  most: number,
): readonly number[] | null {
  const lengths = [...counts.keys()].sort((a, b) => a - b);
  /** Prefixes when lengths `from`..`to` (positions) all become the last of them. */
  const cost = (from: number, to: number): number => {
    let sum = 0;
    for (let i = from; i <= to; i += 1) {
      const length = lengths[i] ?? 0;
      sum += (counts.get(length) ?? 0) * 2 ** ((lengths[to] ?? 0) - length);
    }
    return sum;
  };
  const last = lengths.length - 1;
  // fewest[j]: prefixes for lengths up to position j with as many levels as rounds so far.
  let fewest = lengths.map((_, to) => ({ prefixes: cost(0, to), chosen: [to] }));
  for (let levels = 1; levels <= lengths.length; levels += 1) {
    const best = fewest[last];
    if (best !== undefined && best.prefixes <= most) {
      return best.chosen.map((position) => lengths[position] ?? 0);
    }
    fewest = lengths.map((_, to) => {
      let found = { prefixes: Number.POSITIVE_INFINITY, chosen: [to] };
      for (let from = 1; from <= to; from += 1) {
        const before = fewest[from - 1];
        if (before === undefined) continue;
        const prefixes = before.prefixes + cost(from, to);
        if (prefixes < found.prefixes) found = { prefixes, chosen: [...before.chosen, to] };
      }
      return found;
    });
  }
  return null;
}

/** Intervals of one field as prefixes of few lengths; null where that takes more than `most`. */
export function levelRanges(
  width: number,
  ranges: readonly (readonly [lo: bigint, hi: bigint])[],
  most: number,
): readonly (readonly Prefix[])[] | null {
  const split = ranges.map(([lo, hi]) => splitRange(width, lo, hi));
  const counts = new Map<number, number>();
  for (const { length } of split.flat()) counts.set(length, (counts.get(length) ?? 0) + 1);
  const lengths = chooseLengths(counts, most);
  if (lengths === null) return null;
  return split.map((prefixes) =>
    prefixes.flatMap((prefix) => {
      const to = lengths.find((length) => length >= prefix.length) ?? prefix.length;
      return expand(width, prefix, to);
    }),
  );
}
