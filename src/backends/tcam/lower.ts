import { DROPPED, PASSED, type Row, type View } from '../../ir/residual.ts';
import type { Test } from '../../ir/ruleset.ts';
import { type Layout, protocolColumn } from './layout.ts';
import { appendRow, createStore, type RowStore } from './row-store.ts';
import { ANY_BOX, type Box, boxesOf, meetAll, writeBox } from './test-boxes.ts';

/** Actions of rows in a `RowStore`. */
export const CONTINUE = 0;
export const DROP = 1;
/** Only where the device forwards by itself, and CONTINUE lets pass: what it cannot decide. */
export const TRAP = 2;

/** An end of a walk beside `DROPPED` and `PASSED`: nothing here can say. */
export const TRAPPED = -4;

export interface Lowered {
  /** First match decides; the last row holds every key. Origins are entries, -1 for none. */
  readonly store: RowStore;
  /** The walk has more rows than the limit: what was not reached continues. */
  readonly isCut: boolean;
}

const END = Number.MAX_SAFE_INTEGER;

interface Lowerer {
  readonly layout: Layout;
  readonly byEntry: ReadonlyMap<number, Row>;
  /** Rows of the view at or behind an entry. */
  readonly behind: (entry: number) => number;
  readonly boxes: Map<Test, readonly Box[]>;
  readonly store: RowStore;
  readonly rowLimit: number;
  /** What becomes of frames that cannot be decided. */
  readonly undecided: typeof CONTINUE | typeof TRAP;
  /** Rows stop here, since there would be too many: the one behind them continues. */
  isCut: boolean;
}

function boxesFor(lowerer: Lowerer, test: Test): readonly Box[] {
  let boxes = lowerer.boxes.get(test);
  if (boxes === undefined) {
    const made = boxesOf(test, lowerer.layout);
    if (made === null)
      throw new Error('bug: a test that the key cannot say was not specialised away');
    boxes = made;
    lowerer.boxes.set(test, boxes);
  }
  return boxes;
}

const opposites = new WeakMap<Test, Test>();

function oppositeOf(test: Test): Test {
  if (test.kind === 'unknown') return test;
  let opposite = opposites.get(test);
  if (opposite === undefined) {
    opposite = { ...test, negated: !test.negated };
    opposites.set(test, opposite);
  }
  return opposite;
}

/** These boxes; none, and no rows from here on, where they are more than the table may have rows. */
function withinLimit(lowerer: Lowerer, boxes: readonly Box[]): readonly Box[] {
  if (boxes.length <= lowerer.rowLimit) return boxes;
  lowerer.isCut = true;
  return [];
}

/** Where all tests of the row hold, within a context; see `withinLimit`. */
function holding(lowerer: Lowerer, { tests }: Row, context: Box): readonly Box[] {
  let boxes: readonly Box[] = [context];
  for (const { test } of tests) {
    boxes = withinLimit(lowerer, meetAll(boxes, boxesFor(lowerer, test)));
  }
  return boxes;
}

/** Where some test of the row does not hold, within a context; see `withinLimit`. */
function failing(lowerer: Lowerer, { tests }: Row, context: Box): readonly Box[] {
  let boxes: readonly Box[] = [];
  let sofar: readonly Box[] = [context];
  for (const { test } of tests) {
    const others = meetAll(sofar, boxesFor(lowerer, oppositeOf(test)));
    boxes = withinLimit(lowerer, boxes.concat(others));
    sofar = withinLimit(lowerer, meetAll(sofar, boxesFor(lowerer, test)));
  }
  return boxes;
}

function emit(lowerer: Lowerer, box: Box, target: number, origin: number): void {
  const { store, layout } = lowerer;
  lowerer.isCut ||= store.count >= lowerer.rowLimit;
  if (lowerer.isCut) return;
  const action = target === DROPPED ? DROP : target === TRAPPED ? TRAP : CONTINUE;
  appendRow(store, writeBox(box, layout), 0, action, origin);
}

/**
 * Writes the rows for frames in `context` from a place of the walk on. Frames that no row decides go
 * on at `stop`; a way past `stop` is written out to its end, so that it decides them all.
 */
function walk(lowerer: Lowerer, from: number, context: Box, stop: number, cameFrom: number): void {
  let at = from;
  let origin = cameFrom;
  while (at !== stop && !lowerer.isCut) {
    if (at === DROPPED || at === PASSED || at === TRAPPED) {
      emit(lowerer, context, at, origin);
      return;
    }
    if (at > stop) {
      walk(lowerer, at, context, END, origin);
      return;
    }
    const row = lowerer.byEntry.get(at);
    if (row === undefined) throw new Error('bug: the walk goes to a row that was not reached');
    const handedOn = lowerer.undecided === TRAP ? TRAPPED : PASSED;
    const then = row.handOn ? handedOn : row.then.to;
    const otherwise = row.tests.length === 0 ? then : row.otherwise.to;
    origin = row.entry;
    if (then === otherwise) at = then;
    else if (then < 0) {
      for (const box of holding(lowerer, row, context)) emit(lowerer, box, then, origin);
      at = otherwise;
    } else if (otherwise < 0 || then < otherwise) {
      at = walkBody(lowerer, row, then, otherwise, context, stop);
    } else {
      at = walkAside(lowerer, row, then, otherwise, context);
    }
    if (at === DONE) return;
  }
}

/** The whole context has been decided. */
const DONE = -3;

/** `then` comes next and `otherwise` is a decision or lies behind it. Gives where the walk goes on. */
function walkBody(
  lowerer: Lowerer,
  row: Row,
  then: number,
  otherwise: number,
  context: Box,
  stop: number,
): number {
  const boxes = holding(lowerer, row, context);
  const { entry } = row;
  if (otherwise < 0) {
    if (boxes.length <= 1 && stop === END) {
      for (const box of boxes) walk(lowerer, then, box, END, entry);
      emit(lowerer, context, otherwise, entry);
      return DONE;
    }
    for (const box of failing(lowerer, row, context)) emit(lowerer, box, otherwise, entry);
    return then;
  }
  const body = boxes.length * (lowerer.behind(then) - lowerer.behind(otherwise));
  const rest = lowerer.behind(otherwise);
  if (boxes.length > 1 && body > rest) {
    const others = failing(lowerer, row, context);
    if (others.length * rest < body) {
      for (const box of others) walk(lowerer, otherwise, box, END, entry);
      return then;
    }
  }
  for (const box of boxes) walk(lowerer, then, box, otherwise, entry);
  return otherwise;
}

/** `otherwise` comes next and `then` lies behind it: accepting, returning, going to a later chain. */
function walkAside(
  lowerer: Lowerer,
  row: Row,
  then: number,
  otherwise: number,
  context: Box,
): number {
  const { entry } = row;
  const boxes = holding(lowerer, row, context);
  const rest = lowerer.behind(then);
  const between = lowerer.behind(otherwise) - rest;
  if (boxes.length * rest > between) {
    const others = failing(lowerer, row, context);
    if (others.length * between < boxes.length * rest) {
      for (const box of others) walk(lowerer, otherwise, box, then, entry);
      return then;
    }
  }
  for (const box of boxes) walk(lowerer, then, box, END, entry);
  return otherwise;
}

/**
 * Rows that look at a transport field of some protocols must ask for one of these: where they do
 * not, what they would decide is not decided.
 */
function guardProtocols(store: RowStore, layout: Layout, undecided: number): void {
  const column = protocolColumn(layout);
  const { words, ranges, tops } = layout.shape;
  const at = column < 0 ? null : (layout.bitAt[column] ?? null);
  const guards = layout.columns.flatMap(({ protocols, bits }, index) =>
    protocols === null
      ? []
      : [{ protocols, bits, bit: layout.bitAt[index], range: layout.rangeAt[index] }],
  );
  if (guards.length === 0) return;
  for (let row = 0; row < store.count; row += 1) {
    const start = row * store.stride;
    const asked = protocolOf(store, start, at, layout);
    for (const { protocols, bits, bit, range } of guards) {
      const allowed =
        asked !== null
          ? protocols.has(asked)
          : layout.fixedProtocols !== null &&
            [...layout.fixedProtocols].every((p) => protocols.has(p));
      if (allowed) continue;
      if (typeof range === 'number') {
        const lo = start + 2 * words + range;
        const hi = lo + ranges;
        if (store.boxes[lo] === 0 && store.boxes[hi] === tops[range]) continue;
        store.boxes[lo] = 0;
        store.boxes[hi] = tops[range] ?? 0;
      } else if (typeof bit === 'number') {
        let cared = 0;
        for (let index = bit; index < bit + bits; index += 1) {
          const word = start + words + (index >>> 5);
          const mask = (1 << (31 - (index & 31))) >>> 0;
          cared |= (store.boxes[word] as number) & mask;
          store.boxes[word] = (store.boxes[word] as number) & ~mask;
          store.boxes[word - words] = (store.boxes[word - words] as number) & ~mask;
        }
        if (cared === 0) continue;
      }
      store.actions[row] = undecided;
    }
  }
}

/** The one value of `meta l4proto` that a row asks for, or null. */
export function protocolOf(
  store: RowStore,
  start: number,
  at: number | null,
  layout: Layout,
): number | null {
  if (at === null) {
    const [only] = layout.fixedProtocols ?? [];
    return layout.fixedProtocols?.size === 1 && only !== undefined ? only : null;
  }
  let value = 0;
  for (let index = at; index < at + 8; index += 1) {
    const word = start + (index >>> 5);
    const mask = (1 << (31 - (index & 31))) >>> 0;
    if (((store.boxes[word + layout.shape.words] as number) & mask) === 0) return null;
    value = value * 2 + (((store.boxes[word] as number) & mask) === 0 ? 0 : 1);
  }
  return value;
}

/**
 * Lowers what is left of a walk for one kind of frame to ordered rows of value and mask (and ranges).
 * Needs tests whose fields the key has; gives for every key that such a frame can have the walk's
 * verdict, taking every load to succeed; from the `rowLimit`th row on it gives `undecided`.
 */
export function lowerView(
  view: View,
  layout: Layout,
  rowLimit: number,
  undecided: Lowerer['undecided'],
): Lowered {
  const entries = view.rows.map(({ entry }) => entry);
  const lowerer: Lowerer = {
    layout,
    byEntry: new Map(view.rows.map((row) => [row.entry, row])),
    behind: (entry) => entries.length - lowerBound(entries, entry),
    boxes: new Map(),
    store: createStore(layout.shape, Math.max(64, view.rows.length)),
    rowLimit,
    undecided,
    isCut: false,
  };
  walk(lowerer, view.start.to, ANY_BOX, END, -1);
  const { store, isCut } = lowerer;
  if (isCut) appendRow(store, writeBox(ANY_BOX, layout), 0, undecided, -1);
  guardProtocols(store, layout, undecided);
  return { store, isCut };
}

function lowerBound(sorted: readonly number[], value: number): number {
  let from = 0;
  let to = sorted.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((sorted[middle] ?? 0) < value) from = middle + 1;
    else to = middle;
  }
  return from;
}
