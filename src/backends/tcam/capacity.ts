import type { TcamProfile } from '../../profile/schema.ts';
import type { Usage } from '../backend.ts';
import type { TableSet, TcamTable } from './table.ts';

/** Rows of the device that a table takes: its own and its default, when that is no `continue`. */
function rowsNeeded(table: TcamTable): number {
  return table.rows.length + (table.default === 'continue' ? 0 : 1);
}

function masksOf({ rows }: TcamTable): number {
  return new Set(rows.map(({ mask }) => mask)).size;
}

/** Different ranges of the ports, source and destination apart. */
function rangesOf({ tables }: TableSet): number {
  const keys = tables.flatMap(({ rows, columns }) =>
    rows.flatMap(({ ranges }) =>
      ranges.map(({ column, lo, hi }) => `${columns[column]?.field.name} ${lo}-${hi}`),
    ),
  );
  return new Set(keys).size;
}

/**
 * What tables take of a device and what it has. A device that keeps old and new rows together while
 * they change has room for half of them.
 */
export function capacityOf(set: TableSet, profile: TcamProfile | null): readonly Usage[] {
  const { tables } = set;
  const total = tables.reduce((sum, table) => sum + rowsNeeded(table), 0);
  if (profile === null) return [{ resource: 'rows', used: total, limit: null }];
  const { keySets, limits } = profile;
  const half = limits.atomicUpdate?.value === 'doubles-rows' ? 2 : 1;
  const takes = (table: TcamTable): number =>
    keySets.find(({ name }) => name === table.name)?.takes?.value ?? 1;
  const deviceRows = tables.reduce((sum, table) => sum + rowsNeeded(table) * takes(table), 0);
  const free =
    limits.rows === undefined
      ? null
      : Math.floor((limits.rows.value - (limits.defaultRows?.value ?? 0)) / half);
  const usage: Usage[] = [{ resource: 'device rows', used: deviceRows, limit: free }];
  for (const table of tables) {
    const own = keySets.find(({ name }) => name === table.name)?.rows?.value;
    if (own === undefined) continue;
    const used = rowsNeeded(table);
    usage.push({ resource: `rows of ${table.name}`, used, limit: Math.floor(own / half) });
  }
  if (limits.groups?.oneKeySetEach.value === true) {
    const size = limits.groups.rows.value;
    const used = tables.reduce((sum, table) => {
      return sum + Math.ceil((rowsNeeded(table) * takes(table) * half) / size);
    }, 0);
    usage.push({ resource: 'groups', used, limit: limits.groups.count.value });
  }
  if (limits.rangeUnits?.scope.value === 'device') {
    usage.push({ resource: 'ranges', used: rangesOf(set), limit: limits.rangeUnits.count.value });
  }
  const masks = Math.max(0, ...tables.map(masksOf));
  // Rows with more masks go to slower memory; they still fit.
  if (limits.masks !== undefined)
    usage.push({ resource: 'masks of one table', used: masks, limit: null });
  return usage;
}

/** What there is not enough of. */
export function overfull(usage: readonly Usage[]): readonly Usage[] {
  return usage.filter(({ used, limit }) => limit !== null && used > limit);
}
