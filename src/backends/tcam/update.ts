import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import { describeRow, withProtocol } from './formats/json.ts';
import type { TableRow, TableSet, TcamTable } from './table.ts';

/** One change of a table; `at` counts the rows as they are before the step, first row 0. */
export type UpdateStep =
  | { readonly op: 'insert'; readonly at: number; readonly row: TableRow }
  | { readonly op: 'delete'; readonly at: number };

/** How one table becomes another. */
export interface TableUpdate {
  readonly table: TcamTable;
  readonly steps: readonly UpdateStep[];
  readonly kept: number;
  /** Rows that are deleted in one place and inserted in another. */
  readonly moved: number;
  /** Rows in the table at its fullest. */
  readonly most: number;
}

function keyOf({ value, mask, ranges, action }: TableRow): string {
  const spelled = ranges.map(({ column, lo, hi }) => `${column}:${lo}-${hi}`);
  return `${value}/${mask} ${spelled.join(' ')} ${action}`;
}

/** Places in `numbers` of a longest ascending run, by patience sorting. */
function longestAscent(numbers: readonly number[]): ReadonlySet<number> {
  const ends: number[] = [];
  const before: number[] = [];
  for (const [place, number] of numbers.entries()) {
    let from = 0;
    let to = ends.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      if ((numbers[ends[middle] ?? 0] ?? 0) < number) from = middle + 1;
      else to = middle;
    }
    before[place] = ends[from - 1] ?? -1;
    ends[from] = place;
  }
  const run = new Set<number>();
  for (let place = ends.at(-1) ?? -1; place >= 0; place = before[place] ?? -1) run.add(place);
  return run;
}

/** Both tables' rows in one list that has either in its order; what both have stands there once. */
interface Merged {
  readonly row: TableRow;
  readonly isOld: boolean;
  readonly isNew: boolean;
}

/**
 * Steps in an order in which no key ever gets a verdict that is neither the old nor the new one. New
 * rows go in first to last while all old ones are there: a new row that decides is the first new row
 * that matches. Old rows go out last to first while all new ones are there: one that still decides is
 * the first old row that matches. In either case a row's place in the merged list is its place then.
 */
function updateTable(old: readonly TableRow[], table: TcamTable): TableUpdate {
  const places = new Map(old.map((row, place) => [keyOf(row), place]));
  const common = table.rows.flatMap((row) => places.get(keyOf(row)) ?? []);
  const ascent = longestAscent(common);
  const kept = new Set(common.filter((_, index) => ascent.has(index)));
  const merged: Merged[] = [];
  let next = 0;
  const takeOld = (end: number): void => {
    for (; next < end; next += 1) {
      const row = old[next];
      if (row !== undefined) merged.push({ row, isOld: true, isNew: kept.has(next) });
    }
  };
  for (const row of table.rows) {
    const was = places.get(keyOf(row)) ?? -1;
    if (!kept.has(was)) merged.push({ row, isOld: false, isNew: true });
    else takeOld(was + 1);
  }
  takeOld(old.length);
  const inserts = merged.flatMap(({ row, isOld }, at): UpdateStep[] =>
    isOld ? [] : [{ op: 'insert', at, row }],
  );
  const deletes = merged.flatMap(({ isNew }, at): UpdateStep[] =>
    isNew ? [] : [{ op: 'delete', at }],
  );
  const steps = [...inserts, ...deletes.reverse()];
  const moved = common.length - kept.size;
  return { table, steps, kept: kept.size, moved, most: merged.length };
}

function columnsOf({ columns, served, default: last }: TcamTable): string {
  const key = columns.map(({ field, bits }) => `${field.name}/${bits}`);
  const fixed = served.fixed.map(({ field, values }) => `${field.name}=${values.join('|')}`);
  return [...key, ...fixed, served.untagged, served.whole, last].join(' ');
}

/**
 * What turns one set of tables (as `readJson` reads it) into another, row by row. Tables whose key, frames or default differ
 * are refused: they have to be loaded beside the old ones.
 */
export function updateTables(old: TableSet, now: TableSet): Result<readonly TableUpdate[]> {
  const before = new Map(old.tables.map((table) => [table.name, table]));
  const names = (set: TableSet): string => set.tables.map(({ name }) => name).join(', ');
  const help =
    'load the new tables as a whole (compile without --since), or compile for a --profile';
  if (names(old) !== names(now)) {
    const message = `the tables are others: ${names(old) || 'none'} before, ${names(now) || 'none'} now`;
    return fail(errorAt('tcam/since', message, { help }));
  }
  const updates: TableUpdate[] = [];
  for (const table of now.tables.map(withProtocol)) {
    const was = before.get(table.name);
    if (was === undefined || columnsOf(was) !== columnsOf(table)) {
      const message = `table ${table.name} has another key or default than before`;
      return fail(errorAt('tcam/since', message, { help }));
    }
    updates.push(updateTable(was.rows, table));
  }
  return succeed(updates);
}

/** The steps as JSON, one a line; value and mask of inserted rows as in the generic tables. */
export function writeUpdate(updates: readonly TableUpdate[]): string {
  const body = updates.map(({ table, steps, kept, moved, most }) => {
    const head = JSON.stringify({ name: table.name, kept, moved, most }).slice(0, -1);
    const lines = steps.map((step) => {
      if (step.op === 'delete') return `      ${JSON.stringify(step)}`;
      const { op, at, row } = step;
      return `      ${JSON.stringify({ op, at, row: describeRow(table, row) })}`;
    });
    const list = lines.length === 0 ? '[]' : `[\n${lines.join(',\n')}\n    ]`;
    return `\n    ${head},\n    "steps": ${list}}`;
  });
  return `{ "format": "nft-offload/tcam-update@1",\n  "tables": [${body.join(',')}\n  ] }\n`;
}
