import { createCoverSearch } from './cover.ts';
import { createIndex } from './row-index.ts';
import { everything, intersect, type RowStore, someKey } from './row-store.ts';

/** Whether two tables decide every key alike. */
export type Proof =
  | { readonly kind: 'equal' }
  /** `key` (words, then ranges) is first matched by row `a` of one and row `b` (and its origin) of the other. */
  | {
      readonly kind: 'differs';
      readonly key: Uint32Array;
      readonly a: number;
      readonly b: number;
      readonly origin: number;
    }
  /** The budget of steps ran out. */
  | { readonly kind: 'unknown' };

/** Steps for one pair of rows; far beyond what any table seen has needed. */
const PAIR_STEPS = 5_000_000;

/**
 * Proves two tables of one shape equal, exactly: they are when for every pair of overlapping rows
 * with different actions all common keys are held by rows before either. Both must end with a row
 * that holds every key. `differ` says which pairs of actions (of `a`, of `b`) matter.
 */
export function proveEqual(
  a: RowStore,
  b: RowStore,
  differ: (actionA: number, actionB: number) => boolean = (one, two) => one !== two,
  steps: number = PAIR_STEPS,
): Proof {
  const { shape, stride } = a;
  const indexA = createIndex(a);
  const indexB = createIndex(b);
  const search = createCoverSearch(shape);
  const overlapping = new Int32Array(a.count + 1);
  const nearA = new Int32Array(a.count + 1);
  const nearB = new Int32Array(b.count + 1);
  const part = everything(shape);
  // Keys of a row that lies in one row of the other table never get to rows behind that one.
  const holdersOfA = Int32Array.from({ length: a.count }, (_, row) =>
    a.alive[row] === 1 ? indexB.firstHolder(a.boxes, row * stride) : 0,
  );

  for (let rowB = 0; rowB < b.count; rowB += 1) {
    if (b.alive[rowB] === 0) continue;
    const holder = indexA.firstHolder(b.boxes, rowB * stride);
    const count = indexA.query(b.boxes, rowB * stride, overlapping, holder + 1);
    for (let place = 0; place < count; place += 1) {
      const rowA = overlapping[place] as number;
      if (rowB > (holdersOfA[rowA] as number)) continue;
      if (!differ(a.actions[rowA] ?? 0, b.actions[rowB] ?? 0)) continue;
      intersect(shape, a.boxes, rowA * stride, b.boxes, rowB * stride, part, 0);
      if (indexA.holds(part, 0, rowA, -1) || indexB.holds(part, 0, rowB, -1)) continue;
      const coverers = [
        { store: a, rows: nearA, count: indexA.query(part, 0, nearA, rowA) },
        { store: b, rows: nearB, count: indexB.query(part, 0, nearB, rowB) },
      ];
      const answer = search.covered(part, 0, coverers, steps);
      if (answer === 'unknown') return { kind: 'unknown' };
      if (answer === 'no') {
        return {
          kind: 'differs',
          key: someKey(shape, search.witness, 0),
          a: rowA,
          b: rowB,
          origin: b.origins[rowB] ?? -1,
        };
      }
    }
  }
  return { kind: 'equal' };
}
