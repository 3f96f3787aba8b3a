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
export function expandPrefix(width: number, { length, value }: Prefix, to: number): Prefix[] {
  const step = 1n << BigInt(width - to);
  const count = 2 ** (to - length);
  return Array.from({ length: count }, (_, i) => ({ length: to, value: value + BigInt(i) * step }));
}

/** Lengths, ascending, that prefixes are expanded to: each to the next one that is not shorter. */
export interface LengthChoice {
  readonly lengths: readonly number[];
  /** How many prefixes there are then. */
  readonly prefixes: number;
}

/** What a prefix of this length is expanded to; the last length is never shorter than any prefix. */
export function expandedLength(lengths: readonly number[], length: number): number {
  return lengths.find((other) => other >= length) ?? length;
}

/**
 * For one length, two, three... up to `most`: those that take the fewest prefixes in all, given how
 * many there are of each length. Every length costs a program one look-up, every prefix only memory.
 */
export function lengthChoices(
  counts: ReadonlyMap<number, number>,
  most: number,
): readonly LengthChoice[] {
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
  const choices: LengthChoice[] = [];
  // fewest[j]: the best for lengths up to position j with as many levels as rounds so far.
  let fewest = lengths.map(
    (length, to): LengthChoice => ({ prefixes: cost(0, to), lengths: [length] }),
  );
  while (choices.length < Math.min(most, lengths.length)) {
    const best = fewest.at(-1);
    if (best === undefined) break;
    choices.push(best);
    const before = fewest;
    fewest = lengths.map((length, to) => {
      let found: LengthChoice = { prefixes: Number.POSITIVE_INFINITY, lengths: [length] };
      for (let from = 1; from <= to; from += 1) {
        const shorter = before[from - 1];
        if (shorter === undefined) continue;
        const prefixes = shorter.prefixes + cost(from, to);
        if (prefixes < found.prefixes) found = { prefixes, lengths: [...shorter.lengths, length] };
      }
      return found;
    });
  }
  return choices;
}
