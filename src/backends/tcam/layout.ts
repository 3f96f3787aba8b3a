import { type Field, fieldKey, META } from '../../ir/fields.ts';
import { isPlain } from '../../ir/operand.ts';
import type { Operand, Test } from '../../ir/ruleset.ts';
import type { Shape } from './row-store.ts';

/** How a device compares a field: `exact` may also be left out of a row as a whole. */
export type Match = 'exact' | 'prefix' | 'ternary' | 'range';

/** One field of a table's key. */
export interface Column {
  readonly field: Field;
  /** Its lowest bits that the key has, at most the field's width. */
  readonly bits: number;
  readonly match: Match;
  /**
   * Transport protocols whose header has the field. Frames of others have anything there, so a row
   * that looks at it must ask for one of these. Null: it is read whatever the protocol is.
   */
  readonly protocols: ReadonlySet<number> | null;
}

/** A table's key, and where its columns lie in the boxes of a `RowStore`. */
export interface Layout {
  readonly columns: readonly Column[];
  /** For a column compared bit by bit its first bit in the box, else null. */
  readonly bitAt: readonly (number | null)[];
  /** For a column compared as range its place among them, else null. */
  readonly rangeAt: readonly (number | null)[];
  readonly shape: Shape;
  /** Values of `meta l4proto` that the table's frames all have; null when any. */
  readonly fixedProtocols: ReadonlySet<number> | null;
}

const PORT_BITS = 16;

/** Lays the columns out; `asRange` says which are compared as ranges in the boxes. */
export function layOut(
  columns: readonly Column[],
  asRange: (column: Column) => boolean,
  fixedProtocols: ReadonlySet<number> | null,
): Layout {
  let bit = 0;
  const tops: number[] = [];
  const bitAt: (number | null)[] = [];
  const rangeAt: (number | null)[] = [];
  for (const column of columns) {
    if (asRange(column)) {
      bitAt.push(null);
      rangeAt.push(tops.length);
      tops.push(2 ** column.bits - 1);
    } else {
      bitAt.push(bit);
      rangeAt.push(null);
      bit += column.bits;
    }
  }
  const shape = { words: Math.ceil(bit / 32), ranges: tops.length, tops };
  return { columns, bitAt, rangeAt, shape, fixedProtocols };
}

/** Part of a field that one column holds: `length` bits, counted from the most significant. */
interface Piece {
  readonly column: number;
  readonly columnBit: number;
  readonly fieldBit: number;
  readonly length: number;
}

function isSameMeta(a: Field, b: Field): boolean {
  return a.base === 'meta' && b.base === 'meta' && fieldKey(a) === fieldKey(b);
}

/** Bits of a field that the key holds; null when not all of `mask` are there. */
export function locate(
  { columns }: Pick<Layout, 'columns'>,
  field: Field,
  mask: bigint,
): readonly Piece[] | null {
  const pieces: Piece[] = [];
  let missing = mask;
  for (const [column, { field: held, bits }] of columns.entries()) {
    const cut = held.width - bits;
    if (isSameMeta(held, field)) {
      pieces.push({ column, columnBit: 0, fieldBit: cut, length: bits });
    } else if (held.base === field.base && held.base !== 'meta') {
      const from = Math.max(held.offset + cut, field.offset);
      const to = Math.min(held.offset + held.width, field.offset + field.width);
      if (from >= to) continue;
      const columnBit = from - held.offset - cut;
      pieces.push({ column, columnBit, fieldBit: from - field.offset, length: to - from });
    } else continue;
    const piece = pieces.at(-1);
    if (piece === undefined) continue;
    const below = BigInt(field.width - piece.fieldBit - piece.length);
    missing &= ~(((1n << BigInt(piece.length)) - 1n) << below);
  }
  return missing === 0n ? pieces : null;
}

/** The column that holds exactly this field, or -1. */
export function columnOf({ columns }: Pick<Layout, 'columns'>, field: Field): number {
  const key = fieldKey(field);
  return columns.findIndex(
    (column) => fieldKey(column.field) === key && column.bits === field.width,
  );
}

/** The column of `meta l4proto`, or -1. */
export function protocolColumn(layout: Pick<Layout, 'columns'>): number {
  return layout.columns.findIndex(({ field }) => fieldKey(field) === META.l4proto.name);
}

function operandsOf(test: Test): readonly Operand[] {
  switch (test.kind) {
    case 'compare':
      return [test.operand];
    case 'lookup':
      return test.key;
    case 'unknown':
      return [];
  }
}

/**
 * Whether a column is best kept as a range: ports always, others when nothing looks at single bits
 * of them. A wide field or one the device compares exactly stays bits.
 */
export function isRangeColumn(column: Column, tests: readonly Test[]): boolean {
  if (column.bits > PORT_BITS || column.match === 'exact') return false;
  if (column.bits !== column.field.width) return false;
  const { field } = column;
  let ranged = field.base === 'th' && field.width === PORT_BITS && field.offset < 2 * PORT_BITS;
  for (const test of tests) {
    for (const operand of operandsOf(test)) {
      const touches =
        isSameMeta(operand.field, field) ||
        (operand.field.base === field.base &&
          field.base !== 'meta' &&
          operand.field.offset < field.offset + field.width &&
          field.offset < operand.field.offset + operand.field.width);
      if (!touches) continue;
      if (fieldKey(operand.field) !== fieldKey(field) || !isPlain(operand)) return false;
      if (test.kind === 'compare' && test.lo !== test.hi) ranged = true;
      if (test.kind === 'lookup') {
        const { lo, hi, parts } = test.set.elements;
        if (parts.length > 1 || lo.some((low, index) => low !== hi[index])) ranged = true;
      }
    }
  }
  return ranged;
}
