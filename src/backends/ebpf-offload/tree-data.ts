import type { TableNode } from '../../ir/decision-nodes.ts';
import { MOST_IN_LEAF } from '../../ir/match-forest.ts';
import { type Column, layOutTable, type TreeLayout } from './tree-layout.ts';

/*
 * A table as data, little-endian: cells, then nodes, then rows, each from a multiple of 64 bytes.
 *
 *   cell, 8 bytes a tree, those with the lowest rules first:
 *     root: a descriptor     | first: the lowest rule number in the tree
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
 * Nothing in it depends on where it stands, and only descriptors point at anything: a changed tree is
 * written into free nodes and rows first, then one descriptor is stored over the old one.
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
}

const CELL_BYTES = 8;
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

interface Writer {
  readonly node: TableNode;
  readonly layout: TreeLayout;
  readonly view: DataView;
  readonly places: TreePlaces;
}

function descriptor({ node, layout }: Writer, index: number): number {
  const { forest } = node;
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

function writeColumn({ node, view }: Writer, column: Column, box: number, row: number): void {
  const { table } = node;
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

/** Bytes of a table as data, without making it. */
function placesOf({ forest }: TableNode, layout: TreeLayout): TreePlaces {
  const nodes = align(forest.trees.length * CELL_BYTES);
  const nodeWords = Math.max(4, forest.children.length);
  const rows = align(nodes + nodeWords * 4);
  const rowUnits = Math.max(1, (forest.boxes.length * layout.rowBytes) / ROW_UNIT);
  return { nodes, rows, nodeWords, rowUnits };
}

/** Writes a table; `slotOf` gives the slot of a classifier's counter. */
export function writeTree(node: TableNode, slotOf: (counter: number) => number | null): TreeData {
  const layout = layOutTable(node.table);
  const places = placesOf(node, layout);
  const { forest, table, actions } = node;
  // A verifier follows a leaf's rows as far as any leaf goes.
  const bytes = new Uint8Array(
    align(places.rows + places.rowUnits * ROW_UNIT + (MOST_IN_LEAF + 1) * layout.rowBytes),
  );
  const view = new DataView(bytes.buffer);
  const writer = { node, layout, view, places };
  for (const [index, { root, first }] of forest.trees.entries()) {
    view.setUint32(index * CELL_BYTES, descriptor(writer, root), true);
    view.setUint32(index * CELL_BYTES + 4, first, true);
  }
  const known = Array.from({ length: forest.nodes }, (_, index) => descriptor(writer, index));
  for (const [index, child] of forest.children.entries()) {
    view.setUint32(places.nodes + index * 4, known[child] ?? 0, true);
  }
  for (const [index, box] of forest.boxes.entries()) {
    const row = places.rows + index * layout.rowBytes;
    for (const column of layout.columns) writeColumn(writer, column, box, row);
    const owner = table.owner[box] ?? 0;
    const action = actions[owner];
    if (action === undefined) throw new Error('bug: a box without an action');
    const slot = action.counter === null ? null : slotOf(action.counter);
    view.setUint32(row + layout.orderAt, owner, true);
    view.setUint32(row + layout.actionAt, actionWord(action.target, slot), true);
  }
  return { ...places, layout, bytes };
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
  const slot = action >>> TARGET_BITS;
  return {
    order: view.getUint32(at + layout.orderAt, true),
    target: action & (2 ** TARGET_BITS - 1),
    slot: slot === 0 ? null : slot - 1,
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

/** Decodes the data for one key: the row of the first rule that matches, or null. */
export function lookUpTree(data: TreeData, key: readonly number[]): TreeRow | null {
  const { layout, bytes, nodes, rows } = data;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const words = wordsOf(layout, key);
  let best: TreeRow | null = null;
  for (let cell = 0; cell < nodes; cell += CELL_BYTES) {
    let word = view.getUint32(cell, true);
    if (best !== null && view.getUint32(cell + 4, true) >= best.order) break;
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
