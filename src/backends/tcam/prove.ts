import { type Covered, createCoverSearch } from './cover.ts';
import { createIndex, NO_ROW } from './row-index.ts';
import { contains, everything, intersect, type RowStore, someKey } from './row-store.ts';

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
  const withoutRanges = { ...shape, ranges: 0 };
  // Keys of a row that lies in one row of the other table never get to rows behind that one.
  const holdersOfA = Int32Array.from({ length: a.count }, (_, row) =>
    a.alive[row] === 1 ? indexB.firstHolder(a.boxes, row * stride) : 0,
  );

  // What one row holds is often followed by more of that.
  let lastA = 0;
  let lastB = 0;
  const isHeld = (rowA: number, rowB: number): boolean => {
    if (lastB < rowB && contains(shape, b.boxes, lastB * stride, part, 0)) return true;
    if (lastA < rowA && contains(shape, a.boxes, lastA * stride, part, 0)) return true;
    const holderB = indexB.holder(part, 0, rowB, -1);
    if (holderB >= 0) {
      lastB = holderB;
      return true;
    }
    const holderA = indexA.holder(part, 0, rowA, -1);
    if (holderA >= 0) lastA = holderA;
    return holderA >= 0;
  };

  /** Whether rows before these hold all of `part` together. */
  const isCovered = (beforeA: number, beforeB: number): Covered => {
    const coverers = [
      { store: a, rows: nearA, count: indexA.query(part, 0, nearA, beforeA) },
      { store: b, rows: nearB, count: indexB.query(part, 0, nearB, beforeB) },
    ];
    return search.covered(part, 0, coverers, steps);
  };

  const isConflict = (rowA: number, rowB: number): boolean =>
    rowB <= (holdersOfA[rowA] as number) && differ(a.actions[rowA] ?? 0, b.actions[rowB] ?? 0);

  /**
   * The last row of `a` that keys of a row of `b` get to, as far as that is found out easily: the rows
   * of a range lie in it but for what the holes before them hold.
   */
  const lastReached = (rowB: number, count: number): number => {
    const at = rowB * stride;
    let candidate = NO_ROW;
    for (let place = 0; place < count; place += 1) {
      const rowA = overlapping[place] as number;
      if (rowA >= candidate || differ(a.actions[rowA] ?? 0, b.actions[rowB] ?? 0)) continue;
      if (contains(withoutRanges, a.boxes, rowA * stride, b.boxes, at)) candidate = rowA;
    }
    if (candidate === NO_ROW) return NO_ROW;
    for (let place = 0; place < count; place += 1) {
      const rowA = overlapping[place] as number;
      if (rowA <= candidate || !isConflict(rowA, rowB)) continue;
      for (let word = 0; word < stride; word += 1) part[word] = b.boxes[at + word] as number;
      return isCovered(candidate + 1, rowB) === 'yes' ? candidate : NO_ROW;
    }
    return candidate;
  };

  for (let rowB = 0; rowB < b.count; rowB += 1) {
    if (b.alive[rowB] === 0) continue;
    const holder = indexA.firstHolder(b.boxes, rowB * stride);
    const count = indexA.query(b.boxes, rowB * stride, overlapping, holder + 1);
    const last = lastReached(rowB, count);
    for (let place = 0; place < count; place += 1) {
      const rowA = overlapping[place] as number;
      if (rowA > last || !isConflict(rowA, rowB)) continue;
      intersect(shape, a.boxes, rowA * stride, b.boxes, rowB * stride, part, 0);
      if (isHeld(rowA, rowB)) continue;
      const answer = isCovered(rowA, rowB);
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
