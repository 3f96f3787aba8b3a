import type { Entry, Target } from '../ir/classifier.ts';

/** Where a walk may go on from an entry. */
export function nextTargets({ tests, then, otherwise }: Entry): readonly Target[] {
  return tests.length === 0 ? [then] : [then, otherwise];
}

/** Whether every walk that gets to `entry` has passed `by`; true also of an entry and itself. */
export type Dominates = (by: number, entry: number) => boolean;

/**
 * Finds which entries every walk to an entry passes. Walks only go forward, so one pass is enough:
 * the nearest common dominator of all predecessors, found by skipping upwards (Myers, "An
 * applicative random-access stack", 1983). Entries that no walk reaches are dominated by themselves
 * and entry 0 only.
 */
export function findDominators(entries: readonly Entry[]): Dominates {
  const count = entries.length;
  const parent = new Int32Array(count);
  const skip = new Int32Array(count);
  const depth = new Int32Array(count);
  const isReached = new Uint8Array(count);
  const at = (array: Int32Array, index: number): number => array[index] ?? 0;
  const climb = (from: number, to: number): number => {
    let index = from;
    while (at(depth, index) > to) {
      index = at(depth, at(skip, index)) >= to ? at(skip, index) : at(parent, index);
    }
    return index;
  };
  const meet = (one: number, other: number): number => {
    let a = climb(one, at(depth, other));
    let b = climb(other, at(depth, a));
    while (a !== b) {
      const isFar = at(skip, a) !== at(skip, b);
      a = isFar ? at(skip, a) : at(parent, a);
      b = isFar ? at(skip, b) : at(parent, b);
    }
    return a;
  };
  for (const [index, entry] of entries.entries()) {
    if (index > 0) {
      const up = at(parent, index);
      const far = at(skip, up);
      depth[index] = at(depth, up) + 1;
      const isEven = at(depth, up) - at(depth, far) === at(depth, far) - at(depth, at(skip, far));
      skip[index] = isEven ? at(skip, far) : up;
      if (isReached[index] === 0) continue;
    }
    for (const target of nextTargets(entry)) {
      if (target.kind !== 'entry') continue;
      const { index: to } = target;
      parent[to] = isReached[to] === 0 ? index : meet(at(parent, to), index);
      isReached[to] = 1;
    }
  }
  return (by, entry) => climb(entry, at(depth, by)) === by;
}
