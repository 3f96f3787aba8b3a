import { layOut } from './layout.ts';
import { createIndex } from './row-index.ts';
import type { RowStore } from './row-store.ts';
import { type Action, type TcamTable, writeStore } from './table.ts';

/** Rows, the first that matches decides. */
type Rows = Pick<TcamTable, 'columns' | 'rows'>;

/** Which overlapping rows must not share a priority: those of different actions, or all. */
export type Sharing = 'agreeing' | 'apart';

const ACTIONS: readonly Action[] = ['continue', 'drop', 'permit', 'trap'];

function storeOf({ columns, rows }: Rows): RowStore {
  const ranged = new Set(rows.flatMap(({ ranges }) => ranges.map(({ column }) => column)));
  const table = { columns, rows, default: 'continue' } as const;
  const layout = layOut(columns, (column) => ranged.has(columns.indexOf(column)), null);
  const plain = (): RowStore | null =>
    writeStore(
      table,
      layOut(columns, () => false, null),
      ACTIONS,
    );
  const store = writeStore(table, layout, ACTIONS) ?? plain();
  if (store === null) throw new Error('bug: a row without ranges became too many');
  return store;
}

/** Calls `visit` with every row and each earlier one that it overlaps and must not share with. */
function visitConflicts(
  table: Rows,
  sharing: Sharing,
  visit: (row: number, earlier: number) => void,
): void {
  const store = storeOf(table);
  const index = createIndex(store);
  const found = new Int32Array(store.count + 1);
  for (let box = 0; box < store.count - 1; box += 1) {
    const row = store.origins[box] ?? 0;
    const count = index.query(store.boxes, box * store.stride, found, box);
    for (let place = 0; place < count; place += 1) {
      const other = found[place] ?? 0;
      const earlier = store.origins[other] ?? 0;
      if (earlier === row) continue;
      if (sharing === 'apart' || store.actions[other] !== store.actions[box]) visit(row, earlier);
    }
  }
}

/**
 * For every row its layer, 0 the first to be asked: rows of one layer may be asked in any order. As few
 * layers as there can be: as many as the longest chain of rows of which each overlaps the one before and
 * must not share with it.
 */
export function layersOf(table: Rows, sharing: Sharing = 'agreeing'): readonly number[] {
  const layers = table.rows.map(() => 0);
  visitConflicts(table, sharing, (row, earlier) => {
    layers[row] = Math.max(layers[row] ?? 0, (layers[earlier] ?? 0) + 1);
  });
  return layers;
}

/** Rows that pass and have no other behind them that they keep frames from. */
export function idleRows(table: Rows): ReadonlySet<number> {
  const idle = new Set(table.rows.flatMap(({ action }, at) => (action === 'drop' ? [] : [at])));
  visitConflicts(table, 'agreeing', (_, earlier) => idle.delete(earlier));
  return idle;
}

/** How many layers the rows of a table take, its default among them when that is no `continue`. */
export function countLayers(table: TcamTable, sharing: Sharing = 'agreeing'): number {
  const { columns, rows, default: last } = table;
  const end = { value: 0n, mask: 0n, ranges: [], action: last, rules: [] };
  const all = last === 'continue' ? rows : [...rows, end];
  return layersOf({ columns, rows: all }, sharing).reduce(
    (most, layer) => Math.max(most, layer + 1),
    0,
  );
}

/** A priority that overlapping rows have which must not share one, or null; by row, equal ones together. */
export function mixedPriority(
  table: Rows,
  priorities: readonly number[],
  sharing: Sharing = 'agreeing',
): number | null {
  let mixed: number | null = null;
  visitConflicts(table, sharing, (row, earlier) => {
    if (priorities[row] === priorities[earlier]) mixed ??= priorities[row] ?? null;
  });
  return mixed;
}
