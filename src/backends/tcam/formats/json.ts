import { z } from 'zod';
import { META } from '../../../ir/fields.ts';
import {
  type Diagnostic,
  errorAt,
  fail,
  type Result,
  succeed,
} from '../../../support/diagnostics.ts';
import { parseField } from '../field-names.ts';
import type { Column } from '../layout.ts';
import {
  cellsOf,
  joinCells,
  keyBits,
  type TableRow,
  type TableSet,
  type TcamTable,
} from '../table.ts';
import { listOnly, servedOf } from './served.ts';
import { parseJsonAs } from './text.ts';

/** The tag every generic table file starts with. */
export const TABLE_FORMAT = 'nft-offload/tcam@1';

/** `value` of `bits` bits as hex of whole bytes, padded on the left. */
function toHexOf(value: bigint, bits: number): string {
  return value.toString(16).padStart(Math.ceil(bits / 8) * 2, '0');
}

/** `meta protocol` in front of the key, so that rows say by themselves which frames they are for. */
export function withProtocol(table: TcamTable): TcamTable {
  const fixed = table.served.fixed.find(({ field }) => field.name === META.protocol.name);
  const [value] = fixed?.values ?? [];
  const hasIt = table.columns.some(({ field }) => field.name === META.protocol.name);
  if (hasIt || value === undefined || fixed?.values.length !== 1) return table;
  const column: Column = { field: META.protocol, bits: 16, match: 'exact', protocols: null };
  const columns = [column, ...table.columns];
  const cell = { value: BigInt(value), mask: 0xffffn, range: null };
  const rows = table.rows.map((row): TableRow => {
    const cells = cellsOf(table.columns, row).map((own) =>
      own.range === null ? own : { ...own, range: { ...own.range, column: own.range.column + 1 } },
    );
    return { ...row, ...joinCells(columns, [cell, ...cells]) };
  });
  return { ...table, columns, rows };
}

/** A row as the generic JSON has it. */
export function describeRow({ columns }: TcamTable, row: TableRow): object {
  const bits = keyBits(columns);
  const ranges = row.ranges.map(({ column, lo, hi }) => ({
    field: columns[column]?.field.name ?? '',
    lo,
    hi,
  }));
  return {
    value: toHexOf(row.value, bits),
    mask: toHexOf(row.mask, bits),
    ...(ranges.length === 0 ? {} : { ranges }),
    action: row.action,
    rules: row.rules,
  };
}

/** The generic tables as JSON; see DESIGN and docs/tcam.md. */
export function writeJson({ profile, tables }: TableSet): string {
  const written = tables.map(withProtocol).map((table) => {
    const only = listOnly(table.served);
    return {
      name: table.name,
      key: table.columns.map(({ field, bits: width }) => ({ field: field.name, bits: width })),
      ...(only.length === 0 ? {} : { only }),
      rows: table.rows.map((row) => describeRow(table, row)),
      default: table.default,
    };
  });
  // One row a line: tables are compared line by line.
  const head = `{ "format": "${TABLE_FORMAT}", "profile": ${JSON.stringify(profile)},\n  "tables": [`;
  const body = written.map(({ rows, ...rest }) => {
    const { default: last, ...first } = rest;
    const opening = JSON.stringify(first).slice(0, -1);
    const lines = rows.map((row) => `      ${JSON.stringify(row)}`).join(',\n');
    const list = rows.length === 0 ? '[]' : `[\n${lines}\n    ]`;
    return `\n    ${opening},\n    "rows": ${list},\n    "default": ${JSON.stringify(last)}}`;
  });
  return `${head}${body.join(',')}\n  ] }\n`;
}

const hex = z.string().regex(/^([0-9a-f]{2})*$/i, 'hex of whole bytes');
const action = z.enum(['drop', 'permit', 'continue', 'trap']);
const range = z.strictObject({ field: z.string(), lo: z.int().min(0), hi: z.int().min(0) });
const fileSchema = z.object({
  format: z.literal(TABLE_FORMAT),
  profile: z.string().nullable().optional(),
  tables: z.array(
    z.object({
      name: z.string(),
      key: z.array(z.object({ field: z.string(), bits: z.int().min(1).max(128) })),
      only: z
        .array(z.object({ field: z.string(), values: z.array(z.int().min(0)).min(1) }))
        .optional(),
      rows: z.array(
        z.object({
          value: hex,
          mask: hex,
          ranges: z.array(range).optional(),
          action,
          rules: z.array(z.string()).default([]),
        }),
      ),
      default: action,
    }),
  ),
});

type FileTable = z.infer<typeof fileSchema>['tables'][number];

function faultOf(file: string, message: string): Diagnostic {
  const place = { kind: 'file' as const, file, line: null, column: null };
  return errorAt('tcam/table-file', message, { place });
}

function problem(file: string, message: string): Result<never> {
  return fail(faultOf(file, message));
}

function readRow(table: FileTable, columns: readonly Column[], index: number): TableRow | string {
  const row = table.rows[index];
  if (row === undefined) throw new Error('bug: no such row');
  const bits = keyBits(columns);
  const size = Math.ceil(bits / 8) * 2;
  const where = `table ${table.name}, row ${index + 1}`;
  if (row.value.length !== size || row.mask.length !== size) {
    return `${where}: value and mask must have ${size} hex digits (the key is ${bits} bits)`;
  }
  const value = BigInt(`0x${row.value || '0'}`);
  const mask = BigInt(`0x${row.mask || '0'}`);
  if (mask >> BigInt(bits) !== 0n) return `${where}: the mask has bits beyond the key`;
  if ((value & ~mask) !== 0n) return `${where}: the value has bits that the mask leaves out`;
  const ranges = (row.ranges ?? []).map(({ field, lo, hi }) => ({
    column: columns.findIndex((column) => column.field.name === field),
    lo,
    hi,
  }));
  for (const { column, lo, hi } of ranges) {
    const width = columns[column]?.bits;
    if (width === undefined) return `${where}: a range of a field that the key does not have`;
    if (width > 32 || lo > hi || hi >= 2 ** width)
      return `${where}: ${lo}-${hi} is no range of ${width} bits`;
  }
  return { value, mask, ranges, action: row.action, rules: row.rules };
}

function readTable(table: FileTable, file: string): Result<TcamTable> {
  const columns: Column[] = [];
  for (const { field: name, bits } of table.key) {
    const field = parseField(name);
    if (field === null) return problem(file, `table ${table.name}: nft has no field ${name}`);
    if (bits > field.width)
      return problem(file, `table ${table.name}: ${name} has ${field.width} bits`);
    columns.push({ field, bits, match: 'ternary', protocols: null });
  }
  const served = servedOf(table.only ?? []);
  const rows: TableRow[] = [];
  for (const index of table.rows.keys()) {
    const row = readRow(table, columns, index);
    if (typeof row === 'string') return problem(file, row);
    rows.push(row);
  }
  return succeed({ name: table.name, columns, served, rows, default: table.default });
}

/** The inverse of `writeJson`, but for `meta protocol`, which stays a column. */
export function readJson(text: string, file: string): Result<TableSet> {
  const parsed = parseJsonAs(fileSchema, text, (message) => faultOf(file, message));
  if (!parsed.ok) return parsed;
  const tables: TcamTable[] = [];
  for (const table of parsed.value.tables) {
    const read = readTable(table, file);
    if (!read.ok) return read;
    tables.push(read.value);
  }
  return succeed({ profile: parsed.value.profile ?? null, tables });
}
