import type { Layout } from './layout.ts';
import { appendRow, createStore, type RowStore } from './row-store.ts';
import { type PortPrefix, paintRange } from './signed-ranges.ts';

/** What a profile says of a device's range checkers. */
interface RangeUnits {
  readonly count: { readonly value: number };
  readonly scope: { readonly value: 'device' | 'row' };
  readonly bothInOneRow: { readonly value: boolean };
}

interface Range {
  readonly lo: number;
  readonly hi: number;
  readonly prefixes: readonly PortPrefix[];
}

/**
 * Gives a device's range checkers to the ranges that save most rows and writes all others as prefixes
 * (rows of the same layout whose ranges are prefixes). Null: as many as there are ranges.
 */
export function rangeUnits(store: RowStore, layout: Layout, units: RangeUnits | null): RowStore {
  const { words, ranges } = layout.shape;
  const rangeOf = (row: number, range: number): Range => {
    const at = row * store.stride + 2 * words + range;
    const lo = store.boxes[at] as number;
    const hi = store.boxes[at + ranges] as number;
    return { lo, hi, prefixes: paintRange(lo, hi, 'none', 'none') };
  };
  const columns = Array.from({ length: ranges }, (_, range) => range);
  const keyOf = (range: number, { lo, hi }: Range): string => `${range} ${lo}-${hi}`;
  const savings = new Map<string, number>();
  const all: (readonly Range[])[] = [];
  for (let row = 0; row < store.count; row += 1) {
    const own = columns.map((range) => rangeOf(row, range));
    all.push(own);
    for (const [range, one] of own.entries()) {
      if (one.prefixes.length < 2) continue;
      const key = keyOf(range, one);
      savings.set(key, (savings.get(key) ?? 0) + one.prefixes.length - 1);
    }
  }
  const ranked = [...savings].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const limited = units !== null && units.scope.value === 'device';
  const given = new Set(
    (limited ? ranked.slice(0, units.count.value) : ranked).map(([key]) => key),
  );
  const perRow = units === null ? ranges : units.scope.value === 'row' ? units.count.value : ranges;
  const most = units === null || units.bothInOneRow.value ? perRow : 1;
  const result = createStore(layout.shape, store.count);
  const box = new Uint32Array(store.stride);
  for (const [row, own] of all.entries()) {
    const kept = own
      .map((one, range) => ({
        range,
        rows: one.prefixes.length,
        has: given.has(keyOf(range, one)),
      }))
      .filter(({ rows, has }) => rows > 1 && has)
      .sort((a, b) => b.rows - a.rows)
      .slice(0, most)
      .map(({ range }) => range);
    const lists = own.map(({ lo, hi, prefixes }, range) =>
      kept.includes(range)
        ? [[lo, hi] as const]
        : prefixes.map(({ value, free }) => [value, value + 2 ** free - 1] as const),
    );
    for (let word = 0; word < store.stride; word += 1) {
      box[word] = store.boxes[row * store.stride + word] as number;
    }
    const descend = (range: number): void => {
      const list = lists[range];
      if (list === undefined) {
        appendRow(result, box, 0, store.actions[row] ?? 0, store.origins[row] ?? 0);
        return;
      }
      for (const [lo, hi] of list) {
        box[2 * words + range] = lo;
        box[2 * words + ranges + range] = hi;
        descend(range + 1);
      }
    };
    descend(0);
  }
  return result;
}
