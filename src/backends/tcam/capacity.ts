import type { TcamProfile } from '../../profile/schema.ts';
import type { Usage } from '../backend.ts';
import { countLayers, type Sharing } from './layers.ts';
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

/** Rows of a device that rows of one kind share. */
interface DeviceLimit {
  readonly resource: string;
  readonly limit: number;
  /** What a row of this table takes of it. */
  readonly shareOf: (table: string) => number;
}

/** A device that keeps old and new rows together while they change has room for half of them. */
function shareOfRows({ limits }: TcamProfile): 1 | 2 {
  return limits.atomicUpdate?.value === 'doubles-rows' ? 2 : 1;
}

/** Rows of the device that one row of a table takes. */
function takenBy({ keySets }: TcamProfile, table: string): number {
  return keySets.find(({ name }) => name === table)?.takes?.value ?? 1;
}

/** What a device limits rows by: all of them together, and those of one key set. */
export function deviceLimits(profile: TcamProfile): readonly DeviceLimit[] {
  const { keySets, limits } = profile;
  const half = shareOfRows(profile);
  const found: DeviceLimit[] = [];
  if (limits.rows !== undefined) {
    const limit = Math.floor((limits.rows.value - (limits.defaultRows?.value ?? 0)) / half);
    found.push({ resource: 'device rows', limit, shareOf: (table) => takenBy(profile, table) });
  }
  for (const { name, rows } of keySets) {
    if (rows === undefined) continue;
    const shareOf = (table: string): number => (table === name ? 1 : 0);
    found.push({ resource: `rows of ${name}`, limit: Math.floor(rows.value / half), shareOf });
  }
  return found;
}

/** Priorities that rows take which are ordered within each table by itself. */
export function countPriorities({ tables }: TableSet, sharing?: Sharing): number {
  return tables.reduce((most, table) => Math.max(most, countLayers(table, sharing)), 0);
}

/** What tables take of a device and what it has; `priorities` says how many of these. */
export function capacityOf(
  set: TableSet,
  profile: TcamProfile | null,
  priorities: (set: TableSet) => number,
): readonly Usage[] {
  const { tables } = set;
  const total = tables.reduce((sum, table) => sum + rowsNeeded(table), 0);
  if (profile === null) return [{ resource: 'rows', used: total, limit: null }];
  const { limits } = profile;
  const half = shareOfRows(profile);
  const usage: Usage[] = deviceLimits(profile).map(({ resource, limit, shareOf }) => ({
    resource,
    used: tables.reduce((sum, table) => sum + rowsNeeded(table) * shareOf(table.name), 0),
    limit,
  }));
  if (limits.rows === undefined)
    usage.unshift({ resource: 'device rows', used: total, limit: null });
  if (limits.groups?.oneKeySetEach.value === true) {
    const size = limits.groups.rows.value;
    const used = tables.reduce((sum, table) => {
      return sum + Math.ceil((rowsNeeded(table) * takenBy(profile, table.name) * half) / size);
    }, 0);
    usage.push({ resource: 'groups', used, limit: limits.groups.count.value });
  }
  if (limits.rangeUnits?.scope.value === 'device') {
    usage.push({ resource: 'ranges', used: rangesOf(set), limit: limits.rangeUnits.count.value });
  }
  if (limits.priorities !== undefined) {
    const limit = limits.priorities.value;
    usage.push({ resource: 'priorities', used: priorities(set), limit });
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
