import { createCoverSearch } from './cover.ts';
import { createIndex, type RowIndex } from './row-index.ts';
import { contains, everything, intersect, type RowStore } from './row-store.ts';

/** Questions about what a table decides; see `createDecider`. */
export interface Decider {
  readonly store: RowStore;
  readonly index: RowIndex;
  /**
   * Does every key of the box that no row before `from` holds get `action`? `skip` is left out of
   * the table. No is also the answer when the budget of steps runs out.
   */
  readonly decides: (
    box: Uint32Array,
    at: number,
    from: number,
    action: number,
    skip: number,
    steps: number,
  ) => boolean;
  /** Steps taken so far by all questions. */
  readonly spent: () => number;
}

/** More rows than this are looked up again for every conflict rather than walked. */
const WALKED = 64;

function sortRows(rows: Int32Array, count: number): void {
  rows.subarray(0, count).sort();
}

/**
 * Answers questions about an ordered table, exactly. Rows behind `from` with another action are
 * conflicts: each must lie, inside the box, under rows before it.
 */
export function createDecider(store: RowStore): Decider {
  const { shape, stride } = store;
  const index = createIndex(store);
  const search = createCoverSearch(shape);
  let found = new Int32Array(store.actions.length + 1);
  let nested = new Int32Array(store.actions.length + 1);
  const part = everything(shape);
  let spent = 0;
  // What lies under one row is often followed by more of that.
  let lastHolder = -1;

  function fits(): void {
    if (found.length > store.count) return;
    found = new Int32Array(store.actions.length + 1);
    nested = new Int32Array(store.actions.length + 1);
  }

  /** The first `many` of these rows, without `skip`, in `nested`; how many they are. */
  function keepOthers(rows: Int32Array, many: number, skip: number): number {
    let count = 0;
    for (let place = 0; place < many; place += 1) {
      const other = rows[place] as number;
      if (other === skip) continue;
      nested[count] = other;
      count += 1;
    }
    return count;
  }

  function underEarlier(row: number, position: number, skip: number, steps: number): boolean {
    spent += 1;
    let rows = found;
    let count = position;
    if (position > WALKED) {
      if (
        lastHolder >= 0 &&
        lastHolder < row &&
        lastHolder !== skip &&
        store.alive[lastHolder] === 1 &&
        contains(shape, store.boxes, lastHolder * stride, part, 0)
      )
        return true;
      const holder = index.holder(part, 0, row, skip);
      if (holder >= 0) {
        lastHolder = holder;
        return true;
      }
      rows = nested;
      count = keepOthers(nested, index.query(part, 0, nested, row), skip);
    } else if (skip >= 0) {
      rows = nested;
      count = keepOthers(found, position, skip);
    }
    spent += count >>> 3;
    return search.covered(part, 0, [{ store, rows, count }], steps) === 'yes';
  }

  return {
    store,
    index,
    spent: () => spent + search.spent(),
    decides: (box, at, from, action, skip, steps) => {
      fits();
      const count = index.query(box, at, found);
      spent += 1 + (count >>> 3);
      sortRows(found, count);
      for (let place = count - 1; place >= 0; place -= 1) {
        const row = found[place] as number;
        if (row < from) break;
        if (row === skip || store.actions[row] === action) continue;
        intersect(shape, box, at, store.boxes, row * stride, part, 0);
        if (!underEarlier(row, place, skip, steps)) return false;
      }
      return true;
    },
  };
}
