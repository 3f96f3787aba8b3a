import type { Field } from '../../ir/fields.ts';
import { ones } from '../../support/bits.ts';
import type { Column, Layout } from './layout.ts';
import { prefixesOf } from './prefixes.ts';
import { appendRow, createStore, type RowStore, strideOf } from './row-store.ts';

/** `trap`: the device hands the frame to its own CPU, which runs the ruleset. */
export type Action = 'drop' | 'permit' | 'continue' | 'trap';

/** A range of one column; its bits in value and mask are 0. */
export interface RowRange {
  readonly column: number;
  readonly lo: number;
  readonly hi: number;
}

/** Value and mask are the key's columns side by side, the first one most significant. */
export interface TableRow {
  readonly value: bigint;
  readonly mask: bigint;
  readonly ranges: readonly RowRange[];
  readonly action: Action;
  /** The rules it comes from, as `formatRuleId` spells them. */
  readonly rules: readonly string[];
}

/** All frames of a table have one of these values in a field; the key need not ask for it. */
export interface FixedField {
  readonly field: Field;
  readonly values: readonly number[];
}

/** Frames that a table serves besides what its fields say. */
export interface Served {
  readonly fixed: readonly FixedField[];
  /** Only frames without VLAN tag. */
  readonly untagged: boolean;
  /** Only packets that are no fragments. */
  readonly whole: boolean;
}

/** Rows in priority order, first match wins. */
export interface TcamTable {
  readonly name: string;
  readonly columns: readonly Column[];
  readonly served: Served;
  readonly rows: readonly TableRow[];
  /** For frames that no row matches. */
  readonly default: Action;
}

/** Tables in order: the first `drop` or `permit` decides. */
export interface TableSet {
  /** The profile they are made for; null: no device's in particular. */
  readonly profile: string | null;
  readonly tables: readonly TcamTable[];
}

export function keyBits(columns: readonly Column[]): number {
  return columns.reduce((sum, { bits }) => sum + bits, 0);
}

/** Bits behind each column, in the order of the columns. */
export function bitsBehind(columns: readonly Column[]): readonly number[] {
  let behind = keyBits(columns);
  return columns.map(({ bits }) => {
    behind -= bits;
    return behind;
  });
}

/** One column of a row. */
export interface Cell {
  readonly value: bigint;
  readonly mask: bigint;
  readonly range: RowRange | null;
}

/** What a row asks of each column. */
export function cellsOf(columns: readonly Column[], row: TableRow): readonly Cell[] {
  const behind = bitsBehind(columns);
  return columns.map(({ bits }, column) => {
    const below = BigInt(behind[column] ?? 0);
    const part = ones(bits);
    const range = row.ranges.find((one) => one.column === column) ?? null;
    return { value: (row.value >> below) & part, mask: (row.mask >> below) & part, range };
  });
}

/** The inverse of `cellsOf`. */
export function joinCells(
  columns: readonly Column[],
  cells: readonly Cell[],
): Pick<TableRow, 'value' | 'mask' | 'ranges'> {
  let value = 0n;
  let mask = 0n;
  for (const [index, { bits }] of columns.entries()) {
    value = (value << BigInt(bits)) | (cells[index]?.value ?? 0n);
    mask = (mask << BigInt(bits)) | (cells[index]?.mask ?? 0n);
  }
  return { value, mask, ranges: cells.flatMap(({ range }) => range ?? []) };
}

/** Masked value of a whole range that is one prefix, or null. */
function asPrefix(lo: number, hi: number, bits: number): Cell | null {
  const size = hi - lo + 1;
  if (!Number.isInteger(Math.log2(size)) || lo % size !== 0) return null;
  return { value: BigInt(lo), mask: ones(bits) ^ BigInt(size - 1), range: null };
}

function cellOf(store: RowStore, row: number, layout: Layout, column: number): Cell {
  const { words, ranges } = layout.shape;
  const start = row * store.stride;
  const bits = layout.columns[column]?.bits ?? 0;
  const range = layout.rangeAt[column] ?? null;
  if (range !== null) {
    const lo = store.boxes[start + 2 * words + range] as number;
    const hi = store.boxes[start + 2 * words + ranges + range] as number;
    return asPrefix(lo, hi, bits) ?? { value: 0n, mask: 0n, range: { column, lo, hi } };
  }
  const from = layout.bitAt[column] ?? 0;
  let value = 0n;
  let mask = 0n;
  let left = bits;
  let at = from;
  while (left > 0) {
    const length = Math.min(left, 32 - (at & 31));
    const shift = 32 - (at & 31) - length;
    const part = length === 32 ? 0xffffffff : 2 ** length - 1;
    const word = start + (at >>> 5);
    const take = (bitsOf: number): bigint => BigInt(((bitsOf >>> shift) & part) >>> 0);
    value = (value << BigInt(length)) | take(store.boxes[word] as number);
    mask = (mask << BigInt(length)) | take(store.boxes[word + words] as number);
    at += length;
    left -= length;
  }
  return { value, mask, range: null };
}

/** The rows of a store; its last row, which holds every key, becomes the default. */
export function readStore(
  store: RowStore,
  layout: Layout,
  actions: readonly Action[],
  rulesOf: (origin: number) => readonly string[],
): { readonly rows: readonly TableRow[]; readonly default: Action } {
  const actionOf = (row: number): Action => actions[store.actions[row] ?? 0] ?? 'continue';
  const rows = Array.from({ length: store.count - 1 }, (_, row): TableRow => {
    const cells = layout.columns.map((_column, index) => cellOf(store, row, layout, index));
    return {
      ...joinCells(layout.columns, cells),
      action: actionOf(row),
      rules: rulesOf(store.origins[row] ?? -1),
    };
  });
  return { rows, default: actionOf(store.count - 1) };
}

/** Boxes that one row of a table may become; a row with more scattered bits is refused. */
const SPLIT_LIMIT = 4_096;
/** Boxes that all rows may become, as a multiple of them. */
const SPLIT_SHARE = 4;

/** Values that agree with `value` in the bits of `mask`, as ranges in ascending order. */
function scattered(value: number, mask: number, top: number): (readonly [number, number])[] {
  const free = top & ~mask;
  let run = 0;
  while ((free & (1 << run)) !== 0) run += 1;
  const end = 2 ** run - 1;
  const inner = free & ~end;
  const ranges: (readonly [number, number])[] = [];
  for (let part = 0; ranges.length <= SPLIT_LIMIT; part = (part - inner) & inner) {
    ranges.push([value | part, (value | part) + end]);
    if (part === inner) break;
  }
  return ranges;
}

/** One cell as alternatives for a column of the layout. */
function piecesOf({ value, mask, range }: Cell, bits: number, asRange: boolean) {
  if (asRange) {
    if (range !== null) return [[range.lo, range.hi] as const];
    return scattered(Number(value), Number(mask), 2 ** bits - 1);
  }
  if (range === null) return [{ value, mask }];
  return prefixesOf(BigInt(range.lo), BigInt(range.hi), bits);
}

/**
 * A table as a store of some layout with the same columns; the default becomes the last row. Origins
 * are row numbers, the default's is the number of rows. Null when rows would become too many because
 * their masks leave bits of a range column free that are no prefix.
 */
export function writeStore(
  table: Pick<TcamTable, 'columns' | 'rows' | 'default'>,
  layout: Layout,
  actions: readonly Action[],
): RowStore | null {
  const { words, ranges, tops } = layout.shape;
  const store = createStore(layout.shape, table.rows.length + 1);
  const box = new Uint32Array(strideOf(layout.shape));
  const clear = (): void => {
    box.fill(0);
    for (const [range, top] of tops.entries()) box[2 * words + ranges + range] = top;
  };
  const put = (column: number, piece: ReturnType<typeof piecesOf>[number]): void => {
    if (!('mask' in piece)) {
      const range = layout.rangeAt[column] ?? 0;
      box[2 * words + range] = piece[0];
      box[2 * words + ranges + range] = piece[1];
      return;
    }
    const bits = layout.columns[column]?.bits ?? 0;
    writeBits(box, layout.bitAt[column] ?? 0, bits, piece.value & piece.mask);
    writeBits(box, words * 32 + (layout.bitAt[column] ?? 0), bits, piece.mask);
  };
  for (const [index, row] of table.rows.entries()) {
    const lists = cellsOf(table.columns, row).map((cell, column) =>
      piecesOf(cell, table.columns[column]?.bits ?? 0, layout.rangeAt[column] !== null),
    );
    if (lists.reduce((product, list) => product * list.length, 1) > SPLIT_LIMIT) return null;
    const action = actions.indexOf(row.action);
    const descend = (column: number): void => {
      const list = lists[column];
      if (list === undefined) {
        appendRow(store, box, 0, action, index);
        return;
      }
      for (const piece of list) {
        put(column, piece);
        descend(column + 1);
      }
    };
    clear();
    descend(0);
    if (store.count > SPLIT_SHARE * (index + 1) + SPLIT_LIMIT) return null;
  }
  clear();
  appendRow(store, box, 0, actions.indexOf(table.default), table.rows.length);
  return store;
}

function writeBits(box: Uint32Array, from: number, bits: number, value: bigint): void {
  let left = bits;
  let at = from;
  while (left > 0) {
    const length = Math.min(left, 32 - (at & 31));
    const shift = 32 - (at & 31) - length;
    const part = Number((value >> BigInt(left - length)) & ones(length));
    const keep = ~((length === 32 ? 0xffffffff : (2 ** length - 1) << shift) >>> 0);
    box[at >>> 5] = ((box[at >>> 5] as number) & keep) | (part << shift);
    at += length;
    left -= length;
  }
}
