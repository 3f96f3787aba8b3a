import { ones } from '../../../support/bits.ts';
import { fail, type Result, succeed } from '../../../support/diagnostics.ts';
import { parseField } from '../field-names.ts';
import type { Column } from '../layout.ts';
import {
  type Action,
  type Cell,
  cellsOf,
  joinCells,
  type TableRow,
  type TableSet,
  type TcamTable,
} from '../table.ts';
import { refuseText } from './acl-text.ts';
import { withProtocol } from './json.ts';
import { parseOnly, spellOnly } from './served.ts';

function quote(text: string): string {
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function formatCell({ value, mask, range }: Cell, bits: number): string {
  if (range !== null) return `${range.lo}-${range.hi}`;
  if (mask === 0n) return '';
  const digits = Math.ceil(bits / 4);
  const hex = (number: bigint): string => `0x${number.toString(16).padStart(digits, '0')}`;
  return mask === ones(bits) ? hex(value) : `${hex(value)}/${hex(mask)}`;
}

/** A column's head: its field, with the bits that the key has of it where these are not all. */
function spellColumn({ field, bits }: Column): string {
  return bits === field.width ? field.name : `${field.name} [${bits}]`;
}

function writeTable(table: TcamTable): string {
  const { columns, rows, name } = table;
  const head = ['table', 'row', 'action', ...columns.map(spellColumn), 'rules'];
  const empty = columns.map(() => '');
  const only = spellOnly(table.served);
  const lines = [
    head,
    ...(only === '' ? [] : [[name, 'only', '', ...empty, only]]),
    ...rows.map((row, index) => [
      name,
      String(index + 1),
      row.action,
      ...cellsOf(columns, row).map((cell, at) => formatCell(cell, columns[at]?.bits ?? 0)),
      row.rules.join('; '),
    ]),
    [name, 'default', table.default, ...empty, ''],
  ];
  return lines.map((cells) => cells.map(quote).join(',')).join('\n');
}

/**
 * One line a row, for people and spreadsheets: number, action, one cell a field, the rules. Before
 * them, which frames the table is for; behind them, its default.
 */
export function writeCsv({ tables }: TableSet): string {
  return `${tables.map((table) => writeTable(withProtocol(table))).join('\n\n')}\n`;
}

/** Cells of one line, or null when quotes are not closed. */
function splitLine(line: string): readonly string[] | null {
  const cells: string[] = [];
  let at = 0;
  for (;;) {
    const isQuoted = line[at] === '"';
    const match = isQuoted
      ? /^"((?:[^"]|"")*)"(,|$)/.exec(line.slice(at))
      : /^([^,"]*)(,|$)/.exec(line.slice(at));
    if (match === null) return null;
    const [whole, cell = '', end] = match;
    cells.push(isQuoted ? cell.replaceAll('""', '"') : cell);
    at += whole.length;
    if (end === '') return cells;
  }
}

function readColumn(text: string): Column | null {
  const [, partly, digits] = /^(.+) \[(\d{1,3})\]$/.exec(text) ?? [];
  const field = parseField(partly ?? text);
  if (field === null) return null;
  const bits = digits === undefined ? field.width : Number(digits);
  if (bits < 1 || bits > field.width) return null;
  return { field, bits, match: 'ternary', protocols: null };
}

function readCell(text: string, bits: number, column: number): Cell | null {
  if (text === '') return { value: 0n, mask: 0n, range: null };
  const [, from, to] = /^(\d{1,10})-(\d{1,10})$/.exec(text) ?? [];
  if (from !== undefined && to !== undefined) {
    const [lo, hi] = [Number(from), Number(to)];
    const isRange = bits <= 32 && lo <= hi && hi < 2 ** bits;
    return isRange ? { value: 0n, mask: 0n, range: { column, lo, hi } } : null;
  }
  const [, value, mask] = /^(0x[0-9a-f]{1,32})(?:\/(0x[0-9a-f]{1,32}))?$/i.exec(text) ?? [];
  if (value === undefined) return null;
  const cell = { value: BigInt(value), mask: mask === undefined ? ones(bits) : BigInt(mask) };
  return cell.mask <= ones(bits) && (cell.value & ~cell.mask) === 0n
    ? { ...cell, range: null }
    : null;
}

function isAction(text: string): text is Action {
  return text === 'drop' || text === 'permit' || text === 'continue' || text === 'trap';
}

/** A table under construction; its default comes last. */
interface Draft {
  readonly columns: readonly Column[];
  name: string | null;
  served: TcamTable['served'];
  readonly rows: TableRow[];
  default: Action | null;
}

/** Takes in one line; what is wrong with it, or null. */
function readLine(draft: Draft, cells: readonly string[]): string | null {
  const { columns } = draft;
  if (cells.length !== columns.length + 4) return `${columns.length + 4} cells expected`;
  const [name = '', kind = '', action = ''] = cells;
  const rules = cells.at(-1) ?? '';
  draft.name ??= name;
  if (name !== draft.name) return `table ${draft.name} goes on as ${name}`;
  if (draft.default !== null) return 'a row behind the default';
  if (kind === 'only') {
    const served = parseOnly(rules);
    if (served === null) return `frames ${rules} are not understood`;
    draft.served = served;
    return null;
  }
  if (!isAction(action)) return `no action is called ${action}`;
  if (kind === 'default') {
    draft.default = action;
    return null;
  }
  const read = columns.map(({ bits }, at) => readCell(cells[at + 3] ?? '', bits, at));
  const bad = read.indexOf(null);
  if (bad >= 0) return `${columns[bad]?.field.name} cannot be ${cells[bad + 3]}`;
  const row = joinCells(
    columns,
    read.flatMap((cell) => cell ?? []),
  );
  draft.rows.push({ ...row, action, rules: rules === '' ? [] : rules.split('; ') });
  return null;
}

function startTable(cells: readonly string[]): Draft | null {
  const columns = cells.slice(3, -1).map(readColumn);
  const isHead = cells[0] === 'table' && cells[1] === 'row' && cells[2] === 'action';
  if (!isHead || cells.at(-1) !== 'rules' || columns.includes(null)) return null;
  const served = { fixed: [], untagged: false, whole: false };
  return {
    columns: columns.flatMap((column) => column ?? []),
    name: null,
    served,
    rows: [],
    default: null,
  };
}

/** The inverse of `writeCsv`, but for `meta protocol`, which stays a column. */
export function readCsv(text: string, file: string): Result<TableSet> {
  const tables: TcamTable[] = [];
  let draft: Draft | null = null;
  for (const [index, line] of `${text.trimEnd()}\n`.split('\n').entries()) {
    const refuse = (what: string) => fail(refuseText(`line ${index + 1}: ${what}`, file));
    if (line.trim() === '') {
      if (draft === null) continue;
      const { columns, name, served, rows, default: last } = draft;
      if (name === null || last === null) return refuse('a table ends without its default');
      tables.push({ name, columns, served, rows, default: last });
      draft = null;
      continue;
    }
    const cells = splitLine(line.replace(/\r$/, ''));
    if (cells === null) return refuse('quotes are not closed');
    if (draft === null) {
      draft = startTable(cells);
      if (draft === null) return refuse('this is no head of a table');
      continue;
    }
    const problem = readLine(draft, cells);
    if (problem !== null) return refuse(problem);
  }
  return succeed({ profile: null, tables });
}
