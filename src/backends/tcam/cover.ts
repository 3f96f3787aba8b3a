import { contains, overlaps, type RowStore, type Shape, strideOf } from './row-store.ts';

/** Whether boxes cover another; `unknown` when the budget of steps ran out first. */
export type Covered = 'yes' | 'no' | 'unknown';

/** Pieces within pieces at most: what is deeper stays unknown rather than fill the stack. */
const DEPTH_LIMIT = 1_500;

/** Rows of one store that may cover. */
export interface Coverers {
  readonly store: RowStore;
  readonly rows: Int32Array;
  readonly count: number;
}

export interface CoverSearch {
  /** Is every key of the box at `at` held by one of the rows? `steps` bounds the work. */
  readonly covered: (
    box: Uint32Array,
    at: number,
    coverers: readonly Coverers[],
    steps: number,
  ) => Covered;
  /** After `no`: a box none of the rows overlaps. */
  readonly witness: Uint32Array;
  /** Steps of all searches so far. */
  readonly spent: () => number;
}

/**
 * Exact: the box is split by the row that leaves the fewest pieces beside it, and every piece is
 * asked again. Rows of several stores of one shape can cover together.
 */
export function createCoverSearch(shape: Shape): CoverSearch {
  const { words, ranges } = shape;
  const stride = strideOf(shape);
  const lo = 2 * words;
  const hi = lo + ranges;
  const witness = new Uint32Array(stride);
  let arena = new Uint32Array(64 * stride);
  const lists: Int32Array[] = [];
  let stores: readonly RowStore[] = [];
  let budget = 0;

  // A row is named by its place, with the store's place in the bits above.
  const STORE_SHIFT = 26;
  const ROW_MASK = (1 << STORE_SHIFT) - 1;

  function bitsOf(mask: number): number {
    let rest = mask - ((mask >>> 1) & 0x55555555);
    rest = (rest & 0x33333333) + ((rest >>> 2) & 0x33333333);
    return Math.imul((rest + (rest >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
  }

  /** Pieces of the box beside the row; 0 when the row holds all of it. */
  function piecesBeside(at: number, row: Uint32Array, ri: number): number {
    let pieces = 0;
    for (let word = 0; word < words; word += 1) {
      const free = (row[ri + words + word] as number) & ~(arena[at + words + word] as number);
      if (free !== 0) pieces += bitsOf(free);
    }
    for (let range = 0; range < ranges; range += 1) {
      if ((row[ri + lo + range] as number) > (arena[at + lo + range] as number)) pieces += 1;
      if ((row[ri + hi + range] as number) < (arena[at + hi + range] as number)) pieces += 1;
    }
    return pieces;
  }

  function copyLevel(level: number): number {
    const from = level * stride;
    const to = from + stride;
    if (to + stride > arena.length) {
      const larger = new Uint32Array(arena.length * 2);
      larger.set(arena);
      arena = larger;
    }
    arena.copyWithin(to, from, to);
    return to;
  }

  function search(level: number, names: Int32Array, count: number): Covered {
    budget -= 1;
    if (budget < 0 || level > DEPTH_LIMIT) return 'unknown';
    const at = level * stride;
    let list = lists[level];
    if (list === undefined || list.length < count) {
      list = new Int32Array(Math.max(16, count * 2));
      lists[level] = list;
    }
    let kept = 0;
    let best = -1;
    let least = Number.POSITIVE_INFINITY;
    for (let index = 0; index < count; index += 1) {
      const name = names[index] as number;
      const store = stores[name >>> STORE_SHIFT] as RowStore;
      const ri = (name & ROW_MASK) * stride;
      if (!overlaps(shape, store.boxes, ri, arena, at)) continue;
      const pieces = piecesBeside(at, store.boxes, ri);
      if (pieces === 0) return 'yes';
      if (pieces < least) {
        least = pieces;
        best = name;
      }
      list[kept] = name;
      kept += 1;
    }
    if (kept === 0) {
      witness.set(arena.subarray(at, at + stride));
      return 'no';
    }
    budget -= kept >>> 4;
    return searchBeside(level, list, kept, best);
  }

  function searchBeside(level: number, list: Int32Array, kept: number, best: number): Covered {
    const at = level * stride;
    const { boxes } = stores[best >>> STORE_SHIFT] as RowStore;
    const ri = (best & ROW_MASK) * stride;
    for (let word = 0; word < words; word += 1) {
      let free = (boxes[ri + words + word] as number) & ~(arena[at + words + word] as number);
      while (free !== 0) {
        const bit = (1 << (31 - Math.clz32(free))) >>> 0;
        free = (free & ~bit) >>> 0;
        const own = ((boxes[ri + word] as number) & bit) >>> 0;
        const piece = copyLevel(level);
        arena[piece + words + word] = (arena[piece + words + word] as number) | bit;
        arena[piece + word] = (arena[piece + word] as number) | (own ^ bit);
        const answer = search(level + 1, list, kept);
        if (answer !== 'yes') return answer;
        arena[at + words + word] = (arena[at + words + word] as number) | bit;
        arena[at + word] = (arena[at + word] as number) | own;
      }
    }
    for (let range = 0; range < ranges; range += 1) {
      const from = boxes[ri + lo + range] as number;
      const to = boxes[ri + hi + range] as number;
      if (from > (arena[at + lo + range] as number)) {
        const piece = copyLevel(level);
        arena[piece + hi + range] = from - 1;
        const answer = search(level + 1, list, kept);
        if (answer !== 'yes') return answer;
        arena[at + lo + range] = from;
      }
      if (to < (arena[at + hi + range] as number)) {
        const piece = copyLevel(level);
        arena[piece + lo + range] = to + 1;
        const answer = search(level + 1, list, kept);
        if (answer !== 'yes') return answer;
        arena[at + hi + range] = to;
      }
    }
    return 'yes';
  }

  let names = new Int32Array(1024);
  let spent = 0;
  return {
    witness,
    spent: () => spent,
    covered: (box, at, coverers, steps) => {
      stores = coverers.map(({ store }) => store);
      budget = steps;
      for (let word = 0; word < stride; word += 1) arena[word] = box[at + word] as number;
      const total = coverers.reduce((sum, { count }) => sum + count, 0);
      if (names.length < total) names = new Int32Array(total * 2);
      let count = 0;
      for (const [index, { store, rows, count: own }] of coverers.entries()) {
        for (let place = 0; place < own; place += 1) {
          const row = rows[place] as number;
          if (contains(shape, store.boxes, row * stride, arena, 0)) return 'yes';
          names[count] = (index << STORE_SHIFT) | row;
          count += 1;
        }
      }
      const answer = search(0, names, count);
      spent += steps - budget;
      return answer;
    },
  };
}
