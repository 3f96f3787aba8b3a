import { createDecider } from './function-table.ts';
import type { Layout } from './layout.ts';
import { appendRow, compact, createStore, freeBits, type RowStore } from './row-store.ts';

/** Fewer rows than this next to each other are not worth a look. */
const LEAST = 4;

/** Colours a prefix can inherit: not painted yet, the rows' own action, the other one. */
const CLEAR = 0;
const OWN = 1;
const HOLE = 2;

interface PaintNode {
  readonly kind: 'full' | 'empty' | 'mixed';
  readonly low: PaintNode | null;
  readonly high: PaintNode | null;
  /** Rows needed below, by inherited colour. */
  readonly costs: readonly [number, number, number];
}

const NEVER = Number.POSITIVE_INFINITY;
const FULL: PaintNode = { kind: 'full', low: null, high: null, costs: [1, 0, 1] };

/** A painted prefix: the bits from the most significant one on, and its colour. */
interface Painted {
  readonly bits: readonly boolean[];
  readonly isHole: boolean;
}

/** Bits of one row's prefix in a column; null when its mask is no prefix. */
function prefixBits(
  store: RowStore,
  row: number,
  from: number,
  width: number,
): readonly boolean[] | null {
  const { words } = store.shape;
  const start = row * store.stride;
  const bits: boolean[] = [];
  let isOver = false;
  for (let bit = from; bit < from + width; bit += 1) {
    const mask = (1 << (31 - (bit & 31))) >>> 0;
    const cared = ((store.boxes[start + words + (bit >>> 5)] as number) & mask) !== 0;
    if (!cared) isOver = true;
    else if (isOver) return null;
    else bits.push(((store.boxes[start + (bit >>> 5)] as number) & mask) !== 0);
  }
  return bits;
}

function paintTree(
  prefixes: readonly (readonly boolean[])[],
  depth: number,
  empty: PaintNode,
): PaintNode {
  if (prefixes.length === 0) return empty;
  if (prefixes.some((bits) => bits.length === depth)) return FULL;
  const low = paintTree(
    prefixes.filter((bits) => !bits[depth]),
    depth + 1,
    empty,
  );
  const high = paintTree(
    prefixes.filter((bits) => bits[depth]),
    depth + 1,
    empty,
  );
  if (low.kind === 'full' && high.kind === 'full') return FULL;
  const sum = (colour: 0 | 1 | 2): number => low.costs[colour] + high.costs[colour];
  const repainted = 1 + Math.min(sum(OWN), sum(HOLE));
  const costs = [CLEAR, OWN, HOLE].map((colour) => Math.min(sum(colour as 0 | 1 | 2), repainted));
  return {
    kind: 'mixed',
    low,
    high,
    costs: [costs[0] ?? NEVER, costs[1] ?? NEVER, costs[2] ?? NEVER],
  };
}

/** Writes the painted prefixes below a node, longer ones first. */
function collectPaint(
  node: PaintNode,
  colour: 0 | 1 | 2,
  bits: readonly boolean[],
  out: Painted[],
): void {
  if (node.kind === 'full') {
    if (colour !== OWN) out.push({ bits, isHole: false });
    return;
  }
  if (node.kind === 'empty') {
    if (colour === OWN) out.push({ bits, isHole: true });
    return;
  }
  const { low, high, costs } = node;
  if (low === null || high === null) throw new Error('bug: a mixed node without children');
  const sum = (next: 0 | 1 | 2): number => low.costs[next] + high.costs[next];
  const next = ([colour, OWN, HOLE] as const).find(
    (one) => sum(one) + (one === colour ? 0 : 1) === costs[colour],
  );
  if (next === undefined) throw new Error('bug: no colour has the cost that was found');
  collectPaint(low, next, [...bits, false], out);
  collectPaint(high, next, [...bits, true], out);
  if (next !== colour) out.push({ bits, isHole: next === HOLE });
}

/** Rows `from..to` (the last not included) that differ in one column only. */
interface Run {
  readonly from: number;
  readonly to: number;
  readonly bit: number;
  readonly width: number;
}

/** Words of a row with a column's bits taken out, as text. */
function withoutColumn(store: RowStore, row: number, from: number, width: number): string {
  const box = store.boxes.slice(row * store.stride, (row + 1) * store.stride);
  freeBits(store.shape, box, from, width);
  return `${store.actions[row]} ${box.join(' ')}`;
}

function findRuns(store: RowStore, layout: Layout): readonly Run[] {
  const runs: Run[] = [];
  const last = store.count - 1;
  for (let row = 0; row < last; ) {
    let best: Run = { from: row, to: row + 1, bit: 0, width: 0 };
    for (const [index, { bits }] of layout.columns.entries()) {
      const bit = layout.bitAt[index];
      if (bit === null || bit === undefined) continue;
      const key = withoutColumn(store, row, bit, bits);
      let to = row;
      while (
        to < last &&
        withoutColumn(store, to, bit, bits) === key &&
        prefixBits(store, to, bit, bits) !== null
      )
        to += 1;
      if (to > best.to) best = { from: row, to, bit, width: bits };
    }
    if (best.to - best.from >= LEAST) runs.push(best);
    row = best.to;
  }
  return runs;
}

/** Whether all keys with the run's other columns get the other action once its rows are gone. */
function isFramed(store: RowStore, { from, to, bit, width }: Run, steps: number): boolean {
  // What is trapped has no one other action.
  if ((store.actions[from] ?? 0) > 1) return false;
  const rest = compact(store);
  rest.alive.fill(0, from, to);
  const decider = createDecider(rest);
  const box = store.boxes.slice(from * store.stride, (from + 1) * store.stride);
  freeBits(store.shape, box, bit, width);
  return decider.decides(box, 0, from, 1 - (store.actions[from] ?? 0), -1, steps);
}

function writePainted(
  store: RowStore,
  run: Run,
  { bits, isHole }: Painted,
  result: RowStore,
): void {
  const { words } = store.shape;
  const box = store.boxes.slice(run.from * store.stride, (run.from + 1) * store.stride);
  for (let offset = 0; offset < run.width; offset += 1) {
    const bit = run.bit + offset;
    const mask = (1 << (31 - (bit & 31))) >>> 0;
    const word = bit >>> 5;
    box[word] = (box[word] as number) & ~mask;
    box[words + word] = (box[words + word] as number) & ~mask;
    if (offset >= bits.length) continue;
    box[words + word] = (box[words + word] as number) | mask;
    if (bits[offset] === true) box[word] = (box[word] as number) | mask;
  }
  const action = store.actions[run.from] ?? 0;
  appendRow(result, box, 0, isHole ? 1 - action : action, store.origins[run.from] ?? 0);
}

/**
 * Writes rows that stand together and differ in the prefix of one column only (the elements of a
 * set) with the fewest prefixes: both actions are painted over each other where everything around
 * the rows gets the other action, else only their own. The union stays the same.
 */
export function optimisePrefixes(store: RowStore, layout: Layout, steps: number): RowStore {
  const runs = findRuns(store, layout);
  if (runs.length === 0) return store;
  const result = createStore(store.shape, store.count);
  let row = 0;
  const copyTo = (end: number): void => {
    for (; row < end; row += 1) {
      appendRow(
        result,
        store.boxes,
        row * store.stride,
        store.actions[row] ?? 0,
        store.origins[row] ?? 0,
      );
    }
  };
  for (const run of runs) {
    copyTo(run.from);
    const prefixes: (readonly boolean[])[] = [];
    for (let at = run.from; at < run.to; at += 1) {
      const bits = prefixBits(store, at, run.bit, run.width);
      if (bits !== null) prefixes.push(bits);
    }
    const mayHole = isFramed(store, run, steps);
    const costs = mayHole ? ([0, 1, 0] as const) : ([0, NEVER, NEVER] as const);
    const empty: PaintNode = { kind: 'empty', low: null, high: null, costs };
    const painted: Painted[] = [];
    collectPaint(paintTree(prefixes, 0, empty), CLEAR, [], painted);
    for (const one of painted) writePainted(store, run, one, result);
    row = run.to;
  }
  copyTo(store.count);
  return result;
}
