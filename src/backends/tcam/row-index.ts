import { contains, overlaps, type RowStore } from './row-store.ts';

/** Rows of a leaf before it is split. */
const LEAF = 12;
/** Rows looked at to choose a split; more say nothing more. */
const SAMPLE = 256;

/**
 * A search tree over the alive rows of a store. Each inner node asks one bit, or compares one range
 * column with a bound; a row goes to the side it lies on, or between when it lies on both.
 */
export interface RowIndex {
  /** Writes to `out` the alive rows before `before` that overlap a box, in no order; gives how many. */
  readonly query: (box: Uint32Array, at: number, out: Int32Array, before?: number) => number;
  /** An alive row before `before`, other than `skip`, that holds all of the box; -1 when none does. */
  readonly holder: (box: Uint32Array, at: number, before: number, skip: number) => number;
  /** The first alive row that holds all of the box; `NO_ROW` when none does. */
  readonly firstHolder: (box: Uint32Array, at: number) => number;
  /** Takes in a row of the store that is new or has changed (removed before). */
  readonly insert: (row: number) => void;
  /** Forgets a row; its box must still be the one that was inserted. */
  readonly remove: (row: number) => void;
}

interface Leaf {
  split: null;
  /** No row below comes before this one. */
  first: number;
  rows: number[];
  /** Splitting this many rows did not help; try again when there are twice as many. */
  stuck: number;
}

interface Inner {
  /** A bit's word and mask, or a range column and the first value of the high side. */
  split: { readonly kind: 'bit' | 'range'; readonly at: number; readonly with: number };
  first: number;
  low: TreeNode;
  high: TreeNode;
  both: TreeNode;
}

type TreeNode = Leaf | Inner;

/** Behind every row. */
export const NO_ROW = 0x7fffffff;
const LOW = 0;
const HIGH = 1;
const BOTH = 2;

export function createIndex(store: RowStore): RowIndex {
  const { shape, stride } = store;
  const { words, ranges } = shape;
  const lo = 2 * words;
  const hi = lo + ranges;

  function sideOf(split: Inner['split'], box: Uint32Array, at: number): number {
    if (split.kind === 'bit') {
      if (((box[at + words + split.at] as number) & split.with) === 0) return BOTH;
      return ((box[at + split.at] as number) & split.with) === 0 ? LOW : HIGH;
    }
    if ((box[at + hi + split.at] as number) < split.with) return LOW;
    return (box[at + lo + split.at] as number) >= split.with ? HIGH : BOTH;
  }

  function candidates(rows: readonly number[]): Inner['split'][] {
    const splits: Inner['split'][] = [];
    for (let word = 0; word < words; word += 1) {
      let cared = 0;
      for (const row of rows) cared |= store.boxes[row * stride + words + word] as number;
      for (let bit = 31; bit >= 0; bit -= 1) {
        const mask = (1 << bit) >>> 0;
        if ((cared & mask) !== 0) splits.push({ kind: 'bit', at: word, with: mask });
      }
    }
    for (let range = 0; range < ranges; range += 1) {
      const bounds = new Set<number>();
      for (const row of rows.slice(0, 16)) {
        bounds.add(store.boxes[row * stride + lo + range] as number);
        bounds.add((store.boxes[row * stride + hi + range] as number) + 1);
      }
      for (const bound of bounds) {
        if (bound > 0 && bound <= (shape.tops[range] ?? 0)) {
          splits.push({ kind: 'range', at: range, with: bound });
        }
      }
    }
    return splits;
  }

  /** The split whose larger side, with what lies on both, is smallest. */
  function chooseSplit(rows: readonly number[]): Inner['split'] | null {
    const step = Math.max(1, Math.floor(rows.length / SAMPLE));
    const sample = step === 1 ? rows : rows.filter((_, index) => index % step === 0);
    let best: Inner['split'] | null = null;
    let least = sample.length * 0.9;
    for (const split of candidates(sample)) {
      const counts = [0, 0, 0];
      for (const row of sample) {
        const side = sideOf(split, store.boxes, row * stride);
        counts[side] = (counts[side] as number) + 1;
      }
      const cost =
        Math.max(counts[LOW] as number, counts[HIGH] as number) + (counts[BOTH] as number);
      if (cost < least) {
        least = cost;
        best = split;
      }
    }
    return best;
  }

  function build(rows: number[]): TreeNode {
    const first = rows.reduce((least, row) => Math.min(least, row), NO_ROW);
    if (rows.length <= LEAF) return { split: null, first, rows, stuck: 0 };
    const split = chooseSplit(rows);
    if (split === null) return { split: null, first, rows, stuck: rows.length };
    const sides: [number[], number[], number[]] = [[], [], []];
    for (const row of rows) {
      const side = sideOf(split, store.boxes, row * stride);
      (sides[side] as number[]).push(row);
    }
    const [low, high, both] = [build(sides[LOW]), build(sides[HIGH]), build(sides[BOTH])];
    return { split, first, low, high, both };
  }

  const all: number[] = [];
  for (let row = 0; row < store.count; row += 1) if (store.alive[row] === 1) all.push(row);
  let root = build(all);

  let bound = NO_ROW;

  function collect(
    node: TreeNode,
    box: Uint32Array,
    at: number,
    out: Int32Array,
    count: number,
  ): number {
    let found = count;
    let here = node;
    while (here.split !== null) {
      if (here.first >= bound) return found;
      const side = sideOf(here.split, box, at);
      if (side !== HIGH) found = collect(here.low, box, at, out, found);
      if (side !== LOW) found = collect(here.high, box, at, out, found);
      here = here.both;
    }
    if (here.first >= bound) return found;
    const { rows } = here;
    for (let place = 0; place < rows.length; place += 1) {
      const row = rows[place] as number;
      if (row < bound && overlaps(shape, store.boxes, row * stride, box, at)) {
        out[found] = row;
        found += 1;
      }
    }
    return found;
  }

  function findHolder(
    node: TreeNode,
    box: Uint32Array,
    at: number,
    before: number,
    skip: number,
  ): number {
    let here = node;
    while (here.split !== null) {
      if (here.first >= before) return -1;
      const side = sideOf(here.split, box, at);
      if (side !== BOTH) {
        const found = findHolder(side === LOW ? here.low : here.high, box, at, before, skip);
        if (found >= 0) return found;
      }
      here = here.both;
    }
    if (here.first >= before) return -1;
    const { rows } = here;
    for (let place = 0; place < rows.length; place += 1) {
      const row = rows[place] as number;
      if (row >= before || row === skip) continue;
      if (contains(shape, store.boxes, row * stride, box, at)) return row;
    }
    return -1;
  }

  function findFirst(node: TreeNode, box: Uint32Array, at: number, sofar: number): number {
    let least = sofar;
    let here = node;
    while (here.split !== null) {
      if (here.first >= least) return least;
      const side = sideOf(here.split, box, at);
      if (side === LOW) least = findFirst(here.low, box, at, least);
      if (side === HIGH) least = findFirst(here.high, box, at, least);
      here = here.both;
    }
    if (here.first >= least) return least;
    const { rows } = here;
    for (let place = 0; place < rows.length; place += 1) {
      const row = rows[place] as number;
      if (row < least && contains(shape, store.boxes, row * stride, box, at)) least = row;
    }
    return least;
  }

  function leafOf(row: number): { leaf: Leaf; replace: (node: TreeNode) => void } {
    let replace = (node: TreeNode): void => {
      root = node;
    };
    let here = root;
    while (here.split !== null) {
      const inner: Inner = here;
      inner.first = Math.min(inner.first, row);
      const side = sideOf(inner.split, store.boxes, row * stride);
      if (side === LOW) {
        replace = (node) => {
          inner.low = node;
        };
        here = inner.low;
      } else if (side === HIGH) {
        replace = (node) => {
          inner.high = node;
        };
        here = inner.high;
      } else {
        replace = (node) => {
          inner.both = node;
        };
        here = inner.both;
      }
    }
    return { leaf: here, replace };
  }

  return {
    query: (box, at, out, before = NO_ROW) => {
      bound = before;
      return collect(root, box, at, out, 0);
    },
    holder: (box, at, before, skip) => findHolder(root, box, at, before, skip),
    firstHolder: (box, at) => findFirst(root, box, at, NO_ROW),
    insert: (row) => {
      const { leaf, replace } = leafOf(row);
      leaf.rows.push(row);
      leaf.first = Math.min(leaf.first, row);
      if (leaf.rows.length > Math.max(2 * LEAF, 2 * leaf.stuck)) replace(build(leaf.rows));
    },
    remove: (row) => {
      const { rows } = leafOf(row).leaf;
      const place = rows.indexOf(row);
      if (place < 0) throw new Error('bug: a row is not where the index has put it');
      rows[place] = rows.at(-1) as number;
      rows.pop();
    },
  };
}
