import type { TableNode } from '../../ir/decision-nodes.ts';
import type { Forest } from '../../ir/match-forest.ts';
import { type MatchTable, NO_ORDER } from '../../ir/match-table.ts';
import { type Column, layOutTable, type TreeLayout } from './tree-layout.ts';

/*
 * A table as data, little-endian: cells, then nodes, then rows, each from a multiple of 64 bytes.
 *
 *   cell, 8 bytes a tree:
 *     root: a descriptor     | first: no rule in the tree has a lower number
 *
 *   descriptor of an inner node (its children are the words `base * 4 + value` of the nodes):
 *    31               12 11        6 5      3 2    0
 *   +-------------------+-----------+--------+------+
 *   |       base        |   shift   |  word  | n>0  |   window: 2 n bits from `shift` up of the
 *   +-------------------+-----------+--------+------+   key's 8-byte word `word`
 *
 *   descriptor of a leaf (`count` rows from byte `base * 8` of the rows):
 *    31                     9 8     3 2    0
 *   +------------------------+-------+------+
 *   |          base          | count |  0   |
 *   +------------------------+-------+------+
 *
 * Nothing in it depends on where it stands, and only descriptors point at anything; see tree-patch.ts.
 */

/** Where a table's parts start, in bytes from its own start, and what indices are below. */
export interface TreePlaces {
  readonly nodes: number;
  readonly rows: number;
  /** Words of nodes. */
  readonly nodeWords: number;
  /** Multiples of 8 bytes at which a leaf's rows may start. */
  readonly rowUnits: number;
}

export interface TreeData extends TreePlaces {
  readonly layout: TreeLayout;
  readonly bytes: Uint8Array;
  /** By owner of the table's boxes; see `actionWord`. */
  readonly actions: Uint32Array;
}

/** What is written. */
export interface TreeSource extends TreePlaces {
  readonly table: MatchTable;
  readonly forest: Forest;
  readonly layout: TreeLayout;
  readonly actions: Uint32Array;
}

export const CELL_BYTES = 8;
const CACHE_LINE = 64;
/** Bytes of the unit that a leaf's base counts in. */
const ROW_UNIT = 8;
/** Bits of an action in front of the counter's slot plus 1. */
export const TARGET_BITS = 8;

function align(bytes: number): number {
  return Math.ceil(bytes / CACHE_LINE) * CACHE_LINE;
}

/** Bit of the key's word at which a lane starts. */
function laneBit(place: number): number {
  return (place % 8) * 8;
}

/** The descriptor of a node. */
export function descriptor({ forest, layout }: TreeSource, index: number): number {
  const bits = forest.bits[index] ?? 0;
  const base = forest.base[index] ?? 0;
  if (bits === 0) {
    const count = forest.count[index] ?? 0;
    const unit = (base * layout.rowBytes) / ROW_UNIT;
    return count === 0 ? 0 : ((unit << 9) | (count << 3)) >>> 0;
  }
  const place = layout.places[forest.lane[index] ?? 0] ?? 0;
  const shift = laneBit(place) + (forest.shift[index] ?? 0);
  return (((base / 4) << 12) | (shift << 6) | ((place >> 3) << 3) | (bits / 2)) >>> 0;
}

function writeNumber(view: DataView, at: number, bytes: number, value: number): void {
  if (bytes === 1) view.setUint8(at, value);
  else if (bytes === 2) view.setUint16(at, value, true);
  else view.setUint32(at, value, true);
}

function writeColumn(
  view: DataView,
  { table }: TreeSource,
  column: Column,
  box: number,
  row: number,
): void {
  const { kind, lane, lanes, bytes } = column;
  const at = row + column.at;
  if (lanes === 2) {
    // Little-endian words: the second lane is the lower half.
    for (const [own, offset] of [
      [lane + 1, 0],
      [lane, 4],
    ] as const) {
      const low = table.lo[own]?.[box] ?? 0;
      const mask = ~((table.hi[own]?.[box] ?? 0) - low) >>> 0;
      view.setUint32(at + offset, low, true);
      view.setUint32(at + 8 + offset, mask, true);
    }
    return;
  }
  const low = table.lo[lane]?.[box] ?? 0;
  const [value, size] =
    kind === 'range'
      ? [low, (table.hi[lane]?.[box] ?? 0) - low]
      : [table.value[lane]?.[box] ?? 0, table.mask[lane]?.[box] ?? 0];
  writeNumber(view, at, bytes, value);
  writeNumber(view, at + bytes, bytes, size);
}

/** The action of a rule as a word: its target, and its counter's slot plus 1. */
export function actionWord(target: number, slot: number | null): number {
  return (target | ((slot === null ? 0 : slot + 1) << TARGET_BITS)) >>> 0;
}

/** The slot of the counter that an action counts in, or null. */
export function slotOfAction(word: number): number | null {
  const slot = word >>> TARGET_BITS;
  return slot === 0 ? null : slot - 1;
}

/** Places for a table's parts with as much room as its trees have. */
function placesOf({ trees, room }: Forest, layout: TreeLayout): TreePlaces {
  const nodes = align(trees.length * CELL_BYTES);
  const nodeWords = Math.max(4, room.children);
  const rows = align(nodes + nodeWords * 4);
  const rowUnits = Math.max(1, (room.boxes * layout.rowBytes) / ROW_UNIT);
  return { nodes, rows, nodeWords, rowUnits };
}

/** Writes a tree's cell. */
export function writeCell(view: DataView, source: TreeSource, tree: number): void {
  const { root = 0, first = NO_ORDER } = source.forest.trees[tree] ?? {};
  view.setUint32(tree * CELL_BYTES, descriptor(source, root), true);
  view.setUint32(tree * CELL_BYTES + 4, first, true);
}

/** Writes the row for a box in a leaf, by its place. */
export function writeRow(view: DataView, source: TreeSource, place: number): void {
  const { forest, table, layout, rows, actions } = source;
  const box = forest.boxes[place] ?? 0;
  const action = actions[table.owner[box] ?? 0];
  // A box that nobody can meet any more.
  if (action === undefined) return;
  const row = rows + place * layout.rowBytes;
  for (const column of layout.columns) writeColumn(view, source, column, box, row);
  view.setUint32(row + layout.orderAt, table.order[box] ?? 0, true);
  view.setUint32(row + layout.actionAt, action, true);
}

/** Writes a table; `slotOf` gives the slot of a classifier's counter. */
export function writeTree(
  { table, forest, actions }: TableNode,
  slotOf: (counter: number) => number | null,
): TreeData {
  const layout = layOutTable(table);
  const places = placesOf(forest, layout);
  const words = Uint32Array.from(actions, ({ target, counter }) =>
    actionWord(target, counter === null ? null : slotOf(counter)),
  );
  const source: TreeSource = { ...places, table, forest, layout, actions: words };
  // A verifier follows a leaf's rows as far as any leaf may go.
  const end = places.rows + places.rowUnits * ROW_UNIT + (forest.room.leaf + 1) * layout.rowBytes;
  const bytes = new Uint8Array(align(end));
  const view = new DataView(bytes.buffer);
  for (const tree of forest.trees.keys()) writeCell(view, source, tree);
  const known = Array.from(forest.bits, (_, index) => descriptor(source, index));
  for (const [index, child] of forest.children.entries()) {
    view.setUint32(places.nodes + index * 4, known[child] ?? 0, true);
  }
  for (const place of forest.boxes.keys()) writeRow(view, source, place);
  return { ...places, layout, bytes, actions: words };
}

/** A row as it was written. */
export interface TreeRow {
  /** The number of its rule. */
  readonly order: number;
  readonly target: number;
  /** Null where nothing is counted. */
  readonly slot: number | null;
  readonly tests: readonly {
    readonly column: Column;
    readonly value: bigint;
    readonly size: bigint;
  }[];
}

function readNumber(view: DataView, at: number, bytes: number): bigint {
  if (bytes === 8) return view.getBigUint64(at, true);
  if (bytes === 4) return BigInt(view.getUint32(at, true));
  return BigInt(bytes === 2 ? view.getUint16(at, true) : view.getUint8(at));
}

/** Reads one row back. */
export function readRow({ layout, bytes, rows }: TreeData, index: number): TreeRow {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const at = rows + index * layout.rowBytes;
  const action = view.getUint32(at + layout.actionAt, true);
  return {
    order: view.getUint32(at + layout.orderAt, true),
    target: action & (2 ** TARGET_BITS - 1),
    slot: slotOfAction(action),
    tests: layout.columns.map((column) => ({
      column,
      value: readNumber(view, at + column.at, column.bytes),
      size: readNumber(view, at + column.at + column.bytes, column.bytes),
    })),
  };
}

/** The key as the program lays it out: its lanes in words of 64 bits. */
function wordsOf({ places, words }: TreeLayout, key: readonly number[]): BigUint64Array {
  const laid = new BigUint64Array(words);
  for (const [lane, value] of key.entries()) {
    const place = places[lane] ?? 0;
    laid[place >> 3] = (laid[place >> 3] ?? 0n) | (BigInt(value) << BigInt(laneBit(place)));
  }
  return laid;
}

function rowHolds({ tests }: TreeRow, { places }: TreeLayout, words: BigUint64Array): boolean {
  return tests.every(({ column, value, size }) => {
    const { kind, lane, lanes, bytes } = column;
    const place = places[lanes === 2 ? lane + 1 : lane] ?? 0;
    const word = (words[place >> 3] ?? 0n) >> BigInt(laneBit(place));
    const own = BigInt.asUintN(8 * bytes, word);
    return kind === 'mask' ? (own & size) === value : own >= value && own - value <= size;
  });
}

/** Decodes the data for one key, its generation last: the row of the first rule that matches, or null. */
export function lookUpTree(data: TreeData, key: readonly number[]): TreeRow | null {
  const { layout, bytes, nodes, rows } = data;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const words = wordsOf(layout, key);
  let best: TreeRow | null = null;
  for (let cell = 0; cell < nodes; cell += CELL_BYTES) {
    let word = view.getUint32(cell, true);
    if (best !== null && view.getUint32(cell + 4, true) >= best.order) continue;
    while ((word & 7) !== 0) {
      const bits = 2 * (word & 7);
      const value = (words[(word >> 3) & 7] ?? 0n) >> BigInt((word >> 6) & 63);
      const index = (word >>> 12) * 4 + Number(BigInt.asUintN(bits, value));
      word = view.getUint32(nodes + index * 4, true);
    }
    const from = ((word >>> 9) * ROW_UNIT) / layout.rowBytes;
    for (let index = from; index < from + ((word >> 3) & 63); index += 1) {
      const row = readRow({ ...data, rows }, index);
      if (best !== null && row.order >= best.order) break;
      if (!rowHolds(row, layout, words)) continue;
      best = row;
      break;
    }
  }
  return best;
}
