import { createDecider } from './function-table.ts';
import type { Layout } from './layout.ts';
import { appendRow, createStore, type RowStore } from './row-store.ts';
import { type Holes, type PortPrefix, paintRange } from './signed-ranges.ts';

/** Steps one question about a hole may take. */
const HOLE_STEPS = 400;

const NO_HOLES: Holes = { low: false, high: false };
const HOLE_CHOICES: readonly Holes[] = [
  { low: true, high: true },
  { low: true, high: false },
  { low: false, high: true },
  NO_HOLES,
];

const painted = new Map<string, readonly PortPrefix[]>();

function paint(lo: number, hi: number, width: number, holes: Holes): readonly PortPrefix[] {
  const key = `${lo}-${hi}/${width}${holes.low ? 'l' : ''}${holes.high ? 'h' : ''}`;
  let rows = painted.get(key);
  if (rows === undefined) {
    rows = paintRange(lo, hi, width, holes);
    painted.set(key, rows);
  }
  return rows;
}

/** Greatest extent of the painted prefixes. */
function extentOf(rows: readonly PortPrefix[]): readonly [lo: number, hi: number] {
  let lo = Number.POSITIVE_INFINITY;
  let hi = -1;
  for (const { value, free } of rows) {
    lo = Math.min(lo, value);
    hi = Math.max(hi, value + 2 ** free - 1);
  }
  return [lo, hi];
}

/** The longest prefix that holds lo..hi. */
function enclosing(lo: number, hi: number): PortPrefix {
  let free = 0;
  while (Math.floor(lo / 2 ** free) !== Math.floor(hi / 2 ** free)) free += 1;
  return { value: Math.floor(lo / 2 ** free) * 2 ** free, free, isHole: false };
}

/** Rows of one range row: for every range column a prefix, and whether it is a hole. */
interface Block {
  readonly isHole: boolean;
  /** By range column. */
  readonly prefixes: readonly PortPrefix[];
}

/** A way to write a row: one list of prefixes for every range column, outermost column first. */
interface Choice {
  readonly order: readonly number[];
  readonly lists: readonly (readonly PortPrefix[])[];
  readonly cost: number;
}

function costOf(lists: readonly (readonly PortPrefix[])[], order: readonly number[]): number {
  let cost = 0;
  let outer = 1;
  for (const column of order) {
    const list = lists[column] ?? [];
    const holes = list.filter(({ isHole }) => isHole).length;
    cost += outer * holes;
    outer *= list.length - holes;
  }
  return cost + outer;
}

/** Every order of at most two columns and the given one of more. */
function ordersOf(columns: readonly number[]): readonly (readonly number[])[] {
  return columns.length === 2 ? [columns, [...columns].reverse()] : [columns];
}

/**
 * The same table with ranges as prefixes. A row whose ranges are wide is written as the prefix around
 * it, with what lies beside the range (a hole) as rows before it where all of that gets the other
 * action anyway: each row takes the cheapest way that is right. `target` is the layout without
 * ranges; columns keep their order.
 */
export function expandRanges(store: RowStore, layout: Layout, target: Layout, signed: boolean): RowStore {
  const decider = createDecider(store);
  const { words, ranges } = layout.shape;
  const widths = layout.shape.tops.map((top) => Math.round(Math.log2(top + 1)));
  const result = createStore(target.shape, store.count * 2);
  const trial = new Uint32Array(store.stride);
  const written = new Uint32Array(result.stride);
  const lo = (row: number, range: number): number =>
    store.boxes[row * store.stride + 2 * words + range] as number;
  const hi = (row: number, range: number): number =>
    store.boxes[row * store.stride + 2 * words + ranges + range] as number;

  function isFree(row: number, bounds: readonly (readonly [number, number])[]): boolean {
    const start = row * store.stride;
    for (let word = 0; word < 2 * words; word += 1) trial[word] = store.boxes[start + word] as number;
    for (const [range, [from, to]] of bounds.entries()) {
      trial[2 * words + range] = from;
      trial[2 * words + ranges + range] = to;
    }
    return decider.decides(trial, 0, row, 1 - (store.actions[row] ?? 0), -1, HOLE_STEPS);
  }

  /** Whether all keys that the choice paints as holes get the other action anyway. */
  function isRight(row: number, { order, lists }: Choice): boolean {
    const bounds = lists.map((_, range): readonly [number, number] => {
      const around = enclosing(...extentOf(lists[range] ?? []));
      return [around.value, around.value + 2 ** around.free - 1];
    });
    for (const range of order) {
      const list = lists[range] ?? [];
      if (list.some(({ isHole }) => isHole)) {
        const [from, to] = extentOf(list);
        const sides: (readonly [number, number])[] = [];
        if (from < lo(row, range)) sides.push([from, lo(row, range) - 1]);
        if (to > hi(row, range)) sides.push([hi(row, range) + 1, to]);
        for (const side of sides) {
          if (!isFree(row, bounds.map((bound, at) => (at === range ? side : bound)))) return false;
        }
      }
      // Further in, what lies beside this range has been decided by the holes.
      bounds[range] = [lo(row, range), hi(row, range)];
    }
    return true;
  }

  function choose(row: number): Choice {
    const columns = Array.from({ length: ranges }, (_, range) => range);
    const options = columns.map((range) => {
      const seen = new Set<number>();
      const ways = signed ? HOLE_CHOICES : [NO_HOLES];
      return ways
        .map((holes) => paint(lo(row, range), hi(row, range), widths[range] ?? 0, holes))
        .filter((list, index) => {
          const isNew = index === ways.length - 1 || !seen.has(list.length);
          seen.add(list.length);
          return isNew;
        });
    });
    let combinations: (readonly (readonly PortPrefix[])[])[] = [[]];
    for (const own of options) {
      combinations = combinations.flatMap((lists) => own.map((list) => [...lists, list]));
    }
    const choices = combinations.flatMap((lists) =>
      ordersOf(columns).map((order) => ({ order, lists, cost: costOf(lists, order) })),
    );
    choices.sort((a, b) => a.cost - b.cost);
    const right = choices.find((choice) => isRight(row, choice));
    if (right === undefined) throw new Error('bug: a range that cannot be written as prefixes');
    return right;
  }

  function blocksOf({ order, lists }: Choice): Block[] {
    const around = lists.map((list) => enclosing(...extentOf(list)));
    const blocks: Block[] = [];
    const descend = (depth: number, chosen: readonly PortPrefix[]): void => {
      const range = order[depth];
      if (range === undefined) {
        blocks.push({ isHole: false, prefixes: chosen });
        return;
      }
      for (const prefix of lists[range] ?? []) {
        const next = chosen.map((old, at) => (at === range ? prefix : old));
        if (prefix.isHole) blocks.push({ isHole: true, prefixes: next });
        else descend(depth + 1, next);
      }
    };
    descend(0, around);
    return blocks;
  }

  const places = layout.columns.map((column, index) => ({
    bits: column.bits,
    from: layout.bitAt[index] ?? null,
    range: layout.rangeAt[index] ?? null,
    to: target.bitAt[index] ?? 0,
  }));

  function writeRow(row: number, { isHole, prefixes }: Block): void {
    const start = row * store.stride;
    const own = target.shape.words;
    written.fill(0);
    for (const { bits, from, range, to } of places) {
      for (let bit = 0; bit < bits; bit += 1) {
        let value = false;
        let cared = false;
        if (from !== null) {
          const word = start + ((from + bit) >>> 5);
          const mask = (1 << (31 - ((from + bit) & 31))) >>> 0;
          value = ((store.boxes[word] as number) & mask) !== 0;
          cared = ((store.boxes[word + words] as number) & mask) !== 0;
        } else if (range !== null) {
          const prefix = prefixes[range];
          if (prefix === undefined) throw new Error('bug: a range without prefixes');
          cared = bits - 1 - bit >= prefix.free;
          value = cared && Math.floor(prefix.value / 2 ** (bits - 1 - bit)) % 2 === 1;
        }
        if (!cared) continue;
        const word = (to + bit) >>> 5;
        const mask = (1 << (31 - ((to + bit) & 31))) >>> 0;
        written[own + word] = (written[own + word] as number) | mask;
        if (value) written[word] = (written[word] as number) | mask;
      }
    }
    const action = store.actions[row] ?? 0;
    appendRow(result, written, 0, isHole ? 1 - action : action, store.origins[row] ?? 0);
  }

  for (let row = 0; row < store.count; row += 1) {
    if (store.alive[row] === 0) continue;
    for (const block of blocksOf(choose(row))) writeRow(row, block);
  }
  return result;
}
