import type { Classifier } from '../../ir/classifier.ts';
import { prepare } from '../../ir/evaluate.ts';
import { type Field, fieldEnd, META } from '../../ir/fields.ts';
import { testedFields } from '../../ir/operand.ts';
import { parsePacket } from '../../ir/packet.ts';
import { columnsFor } from './columns.ts';
import { lowerPlan, proveTable } from './compile.ts';
import { columnValues, frameOfKey } from './frame-of-key.ts';
import type { Layout } from './layout.ts';
import { findMisread } from './misread.ts';
import {
  canonicalField,
  planGenericTables,
  planGivenTables,
  type TablePlan,
} from './plan-tables.ts';
import { type Proof, proveEqual } from './prove.ts';
import type { RowStore } from './row-store.ts';
import {
  type Action,
  type Cell,
  cellsOf,
  joinCells,
  type TableRow,
  type TableSet,
  type TcamTable,
} from './table.ts';

/** What was found about one table. */
export interface Finding {
  readonly table: string;
  /**
   * equal: proven. less: it continues frames that the ruleset drops, which is allowed in front of
   * nftables. wrong: it drops or permits what the ruleset does not. unknown: no proof in the
   * budget, or only with fields that the key does not have.
   */
  readonly kind: 'equal' | 'less' | 'wrong' | 'unknown';
  /** A frame that shows the difference. */
  readonly frame: Uint8Array | null;
  /** What the table (or the second ruleset) does with it, by row number; null: its default. */
  readonly row: number | null;
  readonly action: Action | null;
}

export interface VerifyOptions {
  readonly final: boolean;
  readonly mayMiscount: boolean;
  /** The device reads what is cut off a header as 0. */
  readonly readsCutAsZero?: boolean;
}

const ACTIONS: readonly Action[] = ['continue', 'drop', 'permit', 'trap'];

/** The EtherType that all rows of a table ask for, or null. */
function protocolOfRows({ columns, rows }: TcamTable, index: number): number | null {
  const values = new Set(
    rows.map((row) => {
      const cell = cellsOf(columns, row)[index];
      return cell?.mask === 0xffffn ? Number(cell.value) : -1;
    }),
  );
  const [only] = values;
  return values.size === 1 && only !== undefined && only >= 0 ? only : null;
}

interface Served {
  readonly table: TcamTable;
  /** For every row its place in the table that was given. */
  readonly places: readonly number[];
}

/**
 * A table whose frames, or all of whose rows, have one EtherType serves no others, and needs no column
 * for it.
 */
function serveByRows(table: TcamTable): Served {
  const index = table.columns.findIndex(({ field }) => field.name === META.protocol.name);
  if (index < 0) return { table, places: [...table.rows.keys()] };
  const said = table.served.fixed.find(({ field }) => field.name === META.protocol.name)?.values;
  const asked = table.default === 'continue' ? protocolOfRows(table, index) : null;
  const only = said?.length === 1 ? (said[0] ?? null) : asked;
  if (only === null) return { table, places: [...table.rows.keys()] };
  const others = table.served.fixed.filter(({ field }) => field.name !== META.protocol.name);
  const fixed = [...others, { field: META.protocol, values: [only] }];
  const isServed = (row: TableRow): boolean => {
    const cell = cellsOf(table.columns, row)[index];
    return cell === undefined || ((cell.value ^ BigInt(only)) & cell.mask) === 0n;
  };
  const columns = table.columns.filter((_, at) => at !== index);
  const places = table.rows.flatMap((row, place) => (isServed(row) ? place : []));
  const rows = table.rows.filter(isServed).map((row) => {
    const cells = cellsOf(table.columns, row).flatMap((cell, at): Cell[] => {
      if (at === index) return [];
      const { range } = cell;
      if (range === null) return [cell];
      const column = range.column - (range.column > index ? 1 : 0);
      return [{ ...cell, range: { ...range, column } }];
    });
    return { ...row, ...joinCells(columns, cells) };
  });
  return { table: { ...table, columns, rows, served: { ...table.served, fixed } }, places };
}

/** Bytes of network header that a packet has which is not odd. */
const HEADER_BYTES: ReadonlyMap<number | undefined, number> = new Map([
  [0x0800, 20], // ETH_P_IP
  [0x86dd, 40], // ETH_P_IPV6
]);

/**
 * The table with columns for what rules ask of the network header and its rows do not: all frames have
 * that, so whatever is there the table decides alike, and it is compared for each value.
 */
function withAskedColumns(table: TcamTable, asked: readonly Field[]): TcamTable {
  const { fixed } = table.served;
  const [protocol] = fixed.find(({ field }) => field.name === META.protocol.name)?.values ?? [];
  const end = HEADER_BYTES.get(protocol);
  if (end === undefined) return table;
  const fields = asked.filter(
    (field) =>
      field.base === 'nh' &&
      fieldEnd(field) <= end &&
      !table.columns.some((column) => haveCommonBits(column.field, field)),
  );
  const added = columnsFor(fields, protocol === 0x0800 ? 'ip' : 'ip6', 'th');
  const columns = [...table.columns, ...added];
  const none = added.map((): Cell => ({ value: 0n, mask: 0n, range: null }));
  const rows = table.rows.map((row) => ({
    ...row,
    ...joinCells(columns, [...cellsOf(table.columns, row), ...none]),
  }));
  return { ...table, columns, rows };
}

function haveCommonBits(a: Field, b: Field): boolean {
  if (a.base !== b.base) {
    // IPv4's protocol is a column of its own name.
    return (
      a.name === META.l4proto.name && b.base === 'nh' && canonicalField(b, 'ip') === META.l4proto
    );
  }
  return a.offset < b.offset + b.width && b.offset < a.offset + a.width;
}

function findingOf(
  table: string,
  kind: 'less' | 'wrong',
  proof: Extract<Proof, { kind: 'differs' }>,
  layout: Layout,
  plan: TablePlan,
): Pick<Finding, 'table' | 'kind' | 'frame'> {
  const values = columnValues(proof.key, layout);
  return { table, kind, frame: frameOfKey(layout.columns, values, plan.served) };
}

function verifyTable(
  classifier: Classifier,
  table: TcamTable,
  plan: TablePlan,
  options: VerifyOptions,
): Finding {
  const { store, layout } = lowerPlan(classifier, plan, { ...options, profile: null });
  // By `CONTINUE`, `DROP` and `TRAP`: where the device forwards by itself, what is not dropped passes.
  const meanings = options.final ? [2, 1, 3] : [0, 1, 0];
  const actions = ACTIONS;
  const reference: RowStore = { ...store, actions: store.actions.map((one) => meanings[one] ?? 0) };
  const handsOn = (one: number): boolean => one === 0 || one === 3;
  const nothing = { table: table.name, frame: null, row: null, action: null };
  const wrong = proveTable(
    table,
    reference,
    layout,
    actions,
    (one, two) => !handsOn(two) && one !== two,
  );
  if (wrong.kind === 'unknown') return { ...nothing, kind: 'unknown' };
  const less =
    wrong.kind === 'differs'
      ? wrong
      : proveTable(
          table,
          reference,
          layout,
          actions,
          (one, two) => (one === 1 && handsOn(two)) || (one === 2 && two === 3),
        );
  if (less.kind === 'unknown') return { ...nothing, kind: 'unknown' };
  if (less.kind === 'equal') return { ...nothing, kind: 'equal' };
  const found = findingOf(
    table.name,
    wrong.kind === 'differs' ? 'wrong' : 'less',
    less,
    less.layout,
    plan,
  );
  const at = less.origin < table.rows.length ? less.origin : null;
  const action = at === null ? table.default : (table.rows[at]?.action ?? null);
  const isRight =
    found.kind === 'wrong' && action === 'drop' && isDropped(classifier, found.frame, options);
  return { ...found, kind: isRight ? 'unknown' : found.kind, row: at, action };
}

/** What a table does wrong with frames whose headers are not read as they are, or null. */
function verifyMisread(
  classifier: Classifier,
  table: TcamTable,
  plan: TablePlan,
  options: VerifyOptions,
): Finding | null {
  const [found] = findMisread(classifier, table, plan, { ...options, profile: null });
  if (found === undefined) return null;
  const { frames, row } = found;
  const action = row === null ? table.default : (table.rows[row]?.action ?? null);
  const frame =
    frames.find((one) => isDropped(classifier, one, options) !== (action === 'drop')) ?? null;
  if (frame === null) return { table: table.name, kind: 'unknown', frame, row: null, action: null };
  return { table: table.name, kind: 'wrong', frame, row, action };
}

/**
 * Whether a frame is one that may be dropped. What the table's key lacks was taken to be anything, so
 * a frame that is found need not show a difference.
 */
function isDropped(
  classifier: Classifier,
  frame: Uint8Array | null,
  { mayMiscount }: VerifyOptions,
): boolean {
  if (frame === null) return false;
  const { verdict, counts } = prepare(classifier, { mode: 'kernel' })(parsePacket(frame));
  return (verdict === 'drop' || verdict === 'lost') && (mayMiscount || counts.size === 0);
}

/** Proves tables against a classifier, or finds a frame for each that is not equal to it. */
export function verifyTables(
  classifier: Classifier,
  { tables }: TableSet,
  options: VerifyOptions,
): readonly Finding[] {
  const asked = classifier.entries.flatMap(({ tests }) => tests.flatMap(testedFields));
  const served = tables.map((given) => {
    const { table, places } = serveByRows(given);
    return { table: withAskedColumns(table, asked), places };
  });
  const plans = planGivenTables(served.map(({ table }) => table));
  return served.map(({ table, places }, index) => {
    const plan = plans[index];
    if (plan === undefined) throw new Error('bug: a table without a plan');
    const finding = verifyTable(classifier, table, plan, options);
    const found =
      options.readsCutAsZero === true && (finding.kind === 'equal' || finding.kind === 'less')
        ? (verifyMisread(classifier, table, plan, options) ?? finding)
        : finding;
    return { ...found, row: found.row === null ? null : (places[found.row] ?? null) };
  });
}

/** Compares what two classifiers decide by themselves, for all frames. */
export function verifyClassifiers(
  a: Classifier,
  b: Classifier,
  options: VerifyOptions,
): readonly Finding[] {
  const fields = [a, b].flatMap(({ entries }) =>
    entries.flatMap(({ tests }) => tests.flatMap(testedFields)),
  );
  return planGenericTables(fields).map((plan): Finding => {
    const common = { ...options, profile: null };
    const first = lowerPlan(a, plan, common);
    const second = lowerPlan(b, plan, common);
    const tests = [...first.tests, ...second.tests];
    const [transport = 'th'] = plan.name.split('-').slice(1);
    const used = tests.flatMap(testedFields);
    if (plan.guards !== null) used.push(plan.guards.field);
    const shared = { ...plan, columns: columnsFor(used, plan.version, transport) };
    const one = lowerPlan(a, shared, common, tests);
    const two = lowerPlan(b, shared, common, tests);
    const nothing = { table: plan.name, frame: null, row: null, action: null };
    const proof = proveEqual(one.store, two.store);
    if (proof.kind !== 'differs') return { ...nothing, kind: proof.kind };
    return { ...nothing, ...findingOf(plan.name, 'wrong', proof, one.layout, plan) };
  });
}
