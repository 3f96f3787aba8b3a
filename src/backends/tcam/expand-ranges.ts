import { createDecider } from './function-table.ts';
import type { Layout } from './layout.ts';
import { appendRow, createStore, type RowStore } from './row-store.ts';
import { enclosing, type PortPrefix, paintRange, type Side } from './signed-ranges.ts';

/** Steps one question about a side of a range may take. */
const SIDE_STEPS = 400;
/** Ranges of a row that are painted with holes: ways to do so multiply. */
const PAINTED = 2;

type Bounds = readonly [lo: number, hi: number];

/** One way to paint a range of a row. */
interface Painting {
  readonly low: Side;
  readonly high: Side;
  readonly prefixes: readonly PortPrefix[];
  readonly holes: number;
  /** What is painted in the row's own action. */
  readonly own: Bounds;
  /** The prefix around all of it. */
  readonly around: Bounds;
}

const paintings = new Map<string, Painting>();

function boundsOf({ value, free }: PortPrefix): Bounds {
  return [value, value + 2 ** free - 1];
}

function paint(lo: number, hi: number, low: Side, high: Side): Painting {
  const key = `${lo}-${hi} ${low} ${high}`;
  let painting = paintings.get(key);
  if (painting === undefined) {
    const prefixes = paintRange(lo, hi, low, high);
    const around = boundsOf(enclosing(lo, hi));
    const own: Bounds = [low === 'own' ? around[0] : lo, high === 'own' ? around[1] : hi];
    const holes = prefixes.filter(({ isHole }) => isHole).length;
    painting = { low, high, prefixes, holes, own, around };
    paintings.set(key, painting);
  }
  return painting;
}

/** Rows of one range row: for every range column a prefix. */
interface Block {
  readonly isHole: boolean;
  readonly prefixes: readonly PortPrefix[];
}

/** A way to write a row: a painting of every range column, outermost column first. */
interface Choice {
  readonly order: readonly number[];
  readonly paintings: readonly Painting[];
  readonly cost: number;
}

function costOf(chosen: readonly Painting[], order: readonly number[]): number {
  let cost = 0;
  let outer = 1;
  for (const column of order) {
    const { holes, prefixes } = chosen[column] as Painting;
    cost += outer * holes;
    outer *= prefixes.length - holes;
  }
  return cost + outer;
}

/** Both orders of two columns, the given one of others. */
function ordersOf(columns: readonly number[]): readonly (readonly number[])[] {
  return columns.length === 2 ? [columns, [...columns].reverse()] : [columns];
}

function choicesOf(options: readonly (readonly Painting[])[]): Choice[] {
  let combinations: (readonly Painting[])[] = [[]];
  for (const own of options) {
    combinations = combinations.flatMap((chosen) => own.map((painting) => [...chosen, painting]));
  }
  const columns = options.map((_, range) => range);
  const choices = combinations.flatMap((chosen) =>
    ordersOf(columns).map((order) => ({ order, paintings: chosen, cost: costOf(chosen, order) })),
  );
  return choices.sort((a, b) => a.cost - b.cost);
}

function blocksOf({ order, paintings: chosen }: Choice): Block[] {
  const blocks: Block[] = [];
  const descend = (depth: number, prefixes: readonly PortPrefix[]): void => {
    const range = order[depth];
    if (range === undefined) {
      blocks.push({ isHole: false, prefixes });
      return;
    }
    for (const prefix of chosen[range]?.prefixes ?? []) {
      const next = prefixes.map((old, at) => (at === range ? prefix : old));
      if (prefix.isHole) blocks.push({ isHole: true, prefixes: next });
      else descend(depth + 1, next);
    }
  };
  descend(
    0,
    chosen.map(({ around: [lo, hi] }) => enclosing(lo, hi)),
  );
  return blocks;
}

/** Chooses for every row how to write its ranges. */
function createChooser(store: RowStore, layout: Layout, signed: boolean) {
  const decider = createDecider(store);
  const { words, ranges } = layout.shape;
  const trial = new Uint32Array(store.stride);
  const columns = Array.from({ length: ranges }, (_, range) => range);

  /** Whether all keys of the row's bits in these ranges get `action` behind what comes before it. */
  function get(row: number, bounds: readonly Bounds[], action: number): boolean {
    const start = row * store.stride;
    for (let word = 0; word < 2 * words; word += 1)
      trial[word] = store.boxes[start + word] as number;
    for (const [range, [from, to]] of bounds.entries()) {
      trial[2 * words + range] = from;
      trial[2 * words + ranges + range] = to;
    }
    return decider.decides(trial, 0, row, action, -1, SIDE_STEPS);
  }

  function rangesOf(row: number): readonly Bounds[] {
    const at = row * store.stride + 2 * words;
    return columns.map(
      (range): Bounds => [
        store.boxes[at + range] as number,
        store.boxes[at + ranges + range] as number,
      ],
    );
  }

  /** The sides of a painting that hold something, with what is painted there. */
  function sidesOf(painting: Painting, [lo, hi]: Bounds): { side: Side; bounds: Bounds }[] {
    const { around, low, high } = painting;
    const sides: { side: Side; bounds: Bounds }[] = [];
    if (low !== 'none' && around[0] < lo) sides.push({ side: low, bounds: [around[0], lo - 1] });
    if (high !== 'none' && around[1] > hi) sides.push({ side: high, bounds: [hi + 1, around[1]] });
    return sides;
  }

  function replace(bounds: readonly Bounds[], range: number, by: Bounds): readonly Bounds[] {
    return bounds.map((old, at) => (at === range ? by : old));
  }

  /** What is possible for each side of one range as long as the others are as they are. */
  function optionsOf(row: number, range: number, exact: readonly Bounds[]): readonly Painting[] {
    const [lo, hi] = exact[range] as Bounds;
    const plain = paint(lo, hi, 'none', 'none');
    if (!signed || plain.prefixes.length === 1) return [plain];
    const action = store.actions[row] ?? 0;
    const [from, to] = plain.around;
    const sides = (bounds: Bounds): Side[] => {
      if (bounds[0] > bounds[1]) return ['none'];
      const box = replace(exact, range, bounds);
      const list: Side[] = ['none'];
      // What is trapped has no one other action.
      if (action <= 1 && get(row, box, 1 - action)) list.push('hole');
      if (get(row, box, action)) list.push('own');
      return list;
    };
    const lows = sides([from, lo - 1]);
    const highs = sides([hi + 1, to]);
    return lows.flatMap((low) => highs.map((high) => paint(lo, hi, low, high)));
  }

  /** Whether all that the choice paints beside the row's ranges is painted right. */
  function isRight(
    row: number,
    exact: readonly Bounds[],
    { order, paintings: chosen }: Choice,
  ): boolean {
    const action = store.actions[row] ?? 0;
    const own = chosen.map((painting) => painting.own);
    // A hole reaches over all of the ranges further in; those further out have been settled.
    let reach: readonly Bounds[] = chosen.map(({ around }) => around);
    for (const range of order) {
      const painting = chosen[range] as Painting;
      for (const { side, bounds } of sidesOf(painting, exact[range] as Bounds)) {
        const isOwn = side === 'own';
        const box = replace(isOwn ? own : reach, range, bounds);
        if (!get(row, box, isOwn ? action : 1 - action)) return false;
      }
      reach = replace(reach, range, painting.own);
    }
    return true;
  }

  return (row: number): Choice => {
    const exact = rangesOf(row);
    const plain = exact.map(([lo, hi]) => paint(lo, hi, 'none', 'none'));
    const widest = [...columns]
      .sort((a, b) => (plain[b]?.prefixes.length ?? 0) - (plain[a]?.prefixes.length ?? 0))
      .slice(0, PAINTED);
    const choices = choicesOf(
      plain.map((own, range) => (widest.includes(range) ? optionsOf(row, range, exact) : [own])),
    );
    const right = choices.find((choice) => isRight(row, exact, choice));
    if (right === undefined) throw new Error('bug: a range that cannot be written as prefixes');
    return right;
  };
}

/** Rows that the store has once all ranges are written as prefixes. */
export function countExpanded({ count, stride, boxes }: RowStore, { shape }: Layout): number {
  let total = 0;
  for (let row = 0; row < count; row += 1) {
    let product = 1;
    for (let range = 0; range < shape.ranges; range += 1) {
      const at = row * stride + 2 * shape.words + range;
      const lo = boxes[at] as number;
      product *= paint(lo, boxes[at + shape.ranges] as number, 'none', 'none').prefixes.length;
    }
    total += product;
  }
  return total;
}

/** Writes rows of a layout with ranges as rows of the same columns without. */
function createWriter(store: RowStore, layout: Layout, target: Layout, result: RowStore) {
  const { words } = layout.shape;
  const own = target.shape.words;
  const written = new Uint32Array(result.stride);
  const places = layout.columns.map((column, index) => ({
    bits: column.bits,
    from: layout.bitAt[index] ?? null,
    range: layout.rangeAt[index] ?? null,
    to: target.bitAt[index] ?? 0,
  }));

  function setBit(bit: number, value: boolean): void {
    const word = bit >>> 5;
    const mask = (1 << (31 - (bit & 31))) >>> 0;
    written[own + word] = (written[own + word] as number) | mask;
    if (value) written[word] = (written[word] as number) | mask;
  }

  return (row: number, { isHole, prefixes }: Block): void => {
    const start = row * store.stride;
    written.fill(0);
    for (const { bits, from, range, to } of places) {
      const prefix = range === null ? undefined : prefixes[range];
      for (let bit = 0; bit < bits; bit += 1) {
        const below = bits - 1 - bit;
        if (prefix !== undefined) {
          if (below >= prefix.free)
            setBit(to + bit, Math.floor(prefix.value / 2 ** below) % 2 === 1);
          continue;
        }
        const at = (from ?? 0) + bit;
        const word = start + (at >>> 5);
        const mask = (1 << (31 - (at & 31))) >>> 0;
        if (((store.boxes[word + words] as number) & mask) === 0) continue;
        setBit(to + bit, ((store.boxes[word] as number) & mask) !== 0);
      }
    }
    const action = store.actions[row] ?? 0;
    appendRow(result, written, 0, isHole ? 1 - action : action, store.origins[row] ?? 0);
  };
}

/**
 * The same table with ranges as prefixes. Signed: a row whose range is wide is written as the prefix
 * around it; what lies beside the range becomes rows before it (holes) where all of it gets the other
 * action anyway, and nothing where all of it gets the same. Each row takes the cheapest way that is
 * right. `target` is the layout without ranges; columns keep their order.
 */
export function expandRanges(
  store: RowStore,
  layout: Layout,
  target: Layout,
  signed: boolean,
): RowStore {
  const result = createStore(target.shape, store.count * 2);
  const choose = createChooser(store, layout, signed);
  const write = createWriter(store, layout, target, result);
  for (let row = 0; row < store.count; row += 1) {
    if (store.alive[row] === 0) continue;
    for (const block of blocksOf(choose(row))) write(row, block);
  }
  return result;
}
