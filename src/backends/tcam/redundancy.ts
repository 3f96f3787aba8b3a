import { createDecider, type Decider } from './function-table.ts';
import { compact, type RowStore } from './row-store.ts';

/**
 * Removes, from the last row to the first, every row without which all keys are decided the same.
 * Keeps the order of the others. `steps` bounds the work of one question, `budget` of all.
 */
export function removeRedundant(store: RowStore, steps: number, budget: number): RowStore {
  const decider = createDecider(compact(store));
  dropRedundant(decider, steps, budget);
  return compact(decider.store);
}

/** As `removeRedundant`, in the decider's own store; gives how many rows went. */
export function dropRedundant(decider: Decider, steps: number, budget: number): number {
  const { store, index, decides, spent } = decider;
  const limit = spent() + budget;
  let gone = 0;
  // The last row holds every key; it alone decides what no other row holds.
  for (let row = store.count - 2; row >= 0 && spent() < limit; row -= 1) {
    if (store.alive[row] === 0) continue;
    const at = row * store.stride;
    const isFree =
      index.holder(store.boxes, at, row, row) >= 0 ||
      decides(store.boxes, at, row, store.actions[row] ?? 0, row, steps);
    if (!isFree) continue;
    store.alive[row] = 0;
    index.remove(row);
    gone += 1;
  }
  return gone;
}
