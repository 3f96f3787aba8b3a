import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Choices, capacityGrid, createSelector } from '../../src/plan/select.ts';

/** Up to `most` items over up to 12 parts. */
function choicesOf(most: number, resources: number): fc.Arbitrary<Choices> {
  return fc.integer({ min: 1, max: 12 }).chain((parts) =>
    fc.record({
      items: fc.array(
        fc.record({
          weight: fc.integer({ min: 0, max: 30 }),
          needs: fc.uniqueArray(fc.nat(parts - 1), { maxLength: 5 }),
        }),
        { maxLength: most },
      ),
      costs: fc.array(
        fc.array(fc.integer({ min: 0, max: 9 }), { minLength: resources, maxLength: resources }),
        { minLength: parts, maxLength: parts },
      ),
    }),
  );
}

function usedBy({ items, costs }: Choices, chosen: readonly number[]): readonly number[] {
  const parts = new Set(chosen.flatMap((index) => Array.from(items[index]?.needs ?? [])));
  return (costs[0] ?? []).map((_, r) =>
    [...parts].reduce((sum, part) => sum + (costs[part]?.[r] ?? 0), 0),
  );
}

function isWithin(used: readonly number[], capacity: readonly number[]): boolean {
  return used.every((cost, r) => cost <= (capacity[r] ?? 0));
}

/** The most that any choice is worth: all of them are looked at. */
function bestWeight(choices: Choices, capacity: readonly number[]): number {
  const { items } = choices;
  let best = 0;
  for (let bits = 0; bits < 2 ** items.length; bits += 1) {
    const chosen = items.flatMap((_, index) => ((bits >> index) & 1 ? [index] : []));
    if (!isWithin(usedBy(choices, chosen), capacity)) continue;
    best = Math.max(
      best,
      chosen.reduce((sum, index) => sum + (items[index]?.weight ?? 0), 0),
    );
  }
  return best;
}

const capacities = fc.array(fc.integer({ min: 0, max: 60 }), { minLength: 2, maxLength: 2 });

it('is the best choice where there are few items', () => {
  fc.assert(
    fc.property(choicesOf(9, 2), capacities, (choices, capacity) => {
      const { chosen, weight, isBest } = createSelector(choices)(capacity);
      expect(isBest).toBe(true);
      expect(isWithin(usedBy(choices, chosen), capacity)).toBe(true);
      expect(weight).toBe(bestWeight(choices, capacity));
    }),
    { numRuns: 400 },
  );
});

/** More items than the best choice is searched for. */
const many = fc
  .tuple(choicesOf(60, 1), choicesOf(60, 1))
  .map(([a, b]) => ({
    costs: [...a.costs, ...b.costs],
    items: [...a.items, ...a.items, ...b.items, ...b.items, ...b.items].map(
      ({ needs, weight }, at) => ({
        needs: at % 2 === 0 ? needs : Array.from(needs, (part) => part % a.costs.length),
        weight: weight + (at % 7),
      }),
    ),
  }))
  .map(({ items, costs }) => ({
    costs,
    items: items.map((item) => ({ ...item, needs: [...new Set(Array.from(item.needs))] })),
  }))
  .filter(({ items }) => items.length > 24);

it('keeps within the capacity, and never chooses less where there is more', () => {
  fc.assert(
    fc.property(many, (choices) => {
      const select = createSelector(choices);
      const total = choices.costs.reduce((sum, [cost = 0]) => sum + cost, 0);
      let before = 0;
      for (let capacity = 0; capacity <= total; capacity += 1) {
        const { chosen, weight } = select([capacity]);
        expect(isWithin(usedBy(choices, chosen), [capacity])).toBe(true);
        expect(weight).toBeGreaterThanOrEqual(before);
        before = weight;
      }
      expect(before).toBe(choices.items.reduce((sum, { weight }) => sum + weight, 0));
      expect(createSelector(choices)([total / 2])).toEqual(select([total / 2]));
    }),
    { numRuns: 100 },
  );
});

it('takes what is worth most for its price, guards shared', () => {
  // 30 items that share a guard of 10, and 30 without one that are worth less.
  const items = Array.from({ length: 60 }, (_, at) =>
    at < 30 ? { weight: 5, needs: [0, at + 1] } : { weight: 2, needs: [at + 1] },
  );
  const costs = Array.from({ length: 61 }, (_, at) => [at === 0 ? 10 : 1]);
  const { chosen } = createSelector({ items, costs })([40]);
  expect(chosen).toEqual(Array.from({ length: 30 }, (_, at) => at));
});

it('makes a grid from the least part to all of them', () => {
  const grid = capacityGrid({ items: [], costs: [[3], [40], [57]] });
  expect(grid.at(-1)).toBe(100);
  expect(grid.at(0)).toBe(3);
  expect(grid.every((at, index) => index === 0 || at > (grid[index - 1] ?? 0))).toBe(true);
});
