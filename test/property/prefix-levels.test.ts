import fc from 'fast-check';
import { expect, it } from 'vitest';
import { chooseLengths } from '../../src/backends/ebpf-offload/choose-lengths.ts';
import {
  expandedLength,
  expandPrefix,
  lengthChoices,
  type Prefix,
  splitRange,
} from '../../src/backends/ebpf-offload/prefix-levels.ts';

const WIDTH = 10;

/** Keys that are not in exactly one prefix, or in one although they are outside lo..hi. */
function wrongKeys(prefixes: readonly Prefix[], lo: bigint, hi: bigint): number[] {
  const times = new Uint8Array(1024);
  for (const { length, value } of prefixes) {
    for (let i = 0; i < 2 ** (WIDTH - length); i += 1) {
      const key = Number(value) + i;
      times[key] = (times[key] ?? 0) + 1;
    }
  }
  return [...times.keys()].filter((key) => times[key] !== (key >= lo && key <= hi ? 1 : 0));
}

const range = fc
  .tuple(fc.integer({ min: 0, max: 1023 }), fc.integer({ min: 0, max: 1023 }))
  .map(([a, b]) => [BigInt(Math.min(a, b)), BigInt(Math.max(a, b))] as const);

it('splits a range into prefixes that hold exactly it', () => {
  fc.assert(
    fc.property(range, ([lo, hi]) => {
      const prefixes = splitRange(WIDTH, lo, hi);
      expect(wrongKeys(prefixes, lo, hi)).toEqual([]);
    }),
  );
  expect(splitRange(128, 0n, 2n ** 128n - 1n)).toEqual([{ length: 0, value: 0n }]);
});

const counts = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 1, max: 9 })), {
    minLength: 1,
    maxLength: 6,
  })
  .map((pairs) => new Map(pairs));

function sizeOf(all: ReadonlyMap<number, number>, lengths: readonly number[]): number {
  return [...all].reduce((sum, [length, count]) => {
    const to = lengths.find((other) => other >= length);
    return sum + (to === undefined ? Number.POSITIVE_INFINITY : count * 2 ** (to - length));
  }, 0);
}

function subsets(lengths: readonly number[]): number[][] {
  const masks = Array.from({ length: 2 ** lengths.length }, (_, mask) => mask);
  return masks.map((mask) => lengths.filter((_, bit) => ((mask >> bit) & 1) === 1));
}

it('chooses, for every number of lengths, those that take the fewest prefixes', () => {
  fc.assert(
    fc.property(counts, (all) => {
      const present = [...all.keys()].sort((a, b) => a - b);
      const wanted = present.map((_, index) => {
        const sets = subsets(present).filter(({ length }) => length === index + 1);
        return Math.min(...sets.map((lengths) => sizeOf(all, lengths)));
      });
      const choices = lengthChoices(all, 99);
      expect(choices.map(({ prefixes }) => prefixes)).toEqual(wanted);
      expect(choices.map(({ lengths }) => sizeOf(all, lengths))).toEqual(wanted);
      expect(lengthChoices(all, 2)).toEqual(choices.slice(0, 2));
    }),
  );
});

it('expands without changing what is held', () => {
  const lengths = fc.uniqueArray(fc.integer({ min: 0, max: 9 }), { maxLength: 3 });
  fc.assert(
    fc.property(range, lengths, ([lo, hi], some) => {
      const to = [...some.sort((a, b) => a - b), WIDTH];
      const expanded = splitRange(WIDTH, lo, hi).flatMap((prefix) =>
        expandPrefix(WIDTH, prefix, expandedLength(to, prefix.length)),
      );
      expect(wrongKeys(expanded, lo, hi)).toEqual([]);
      expect(expanded.every(({ length }) => to.includes(length))).toBe(true);
    }),
  );
});

const groups = fc.uniqueArray(
  fc.record({
    lengths: fc.tuple(fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 8 })),
    keys: fc.integer({ min: 1, max: 20 }),
  }),
  { minLength: 1, maxLength: 30, selector: ({ lengths }) => lengths.join() },
);

it('expands several parts to longer lengths only, within the budget', () => {
  fc.assert(
    fc.property(groups, fc.integer({ min: 0, max: 4000 }), (all, usual) => {
      const targets = chooseLengths(all, all.length, { usual, most: usual });
      if (targets === null) throw new Error('as many look-ups as there are groups always do');
      const grown = all.map(({ lengths, keys }, group) =>
        lengths.reduce((count, length, part) => {
          const to = targets[group]?.[part] ?? 0;
          expect(to).toBeGreaterThanOrEqual(length);
          return count * 2 ** (to - length);
        }, keys),
      );
      const sum = (list: readonly number[]): number => list.reduce((total, n) => total + n, 0);
      expect(sum(grown)).toBeLessThanOrEqual(Math.max(usual, sum(all.map(({ keys }) => keys))));
      // Whatever is joined, with all the room there is nothing is left apart.
      const free = { usual: Number.MAX_SAFE_INTEGER, most: Number.MAX_SAFE_INTEGER };
      expect(new Set(chooseLengths(all, 1, free)?.map((to) => to.join())).size).toBe(1);
    }),
  );
});

it('takes more memory rather than too many look-ups', () => {
  const ladder = [0, 1, 2, 3, 4].map((n) => ({ lengths: [8 - n, n], keys: 10 }));
  const count = (most: number, budget: { usual: number; most: number }): number | undefined => {
    const targets = chooseLengths(ladder, most, budget);
    return targets === null ? undefined : new Set(targets.map((to) => to.join())).size;
  };
  expect(count(5, { usual: 50, most: 9999 })).toBe(5);
  expect(count(3, { usual: 50, most: 9999 })).toBe(3);
  expect(count(3, { usual: 50, most: 60 })).toBeUndefined();
});
