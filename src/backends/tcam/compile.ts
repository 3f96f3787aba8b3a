import type { Classifier, Entry, Target } from '../../ir/classifier.ts';
import { fieldKey } from '../../ir/fields.ts';
import { testedFields } from '../../ir/operand.ts';
import { createScratch, enter, type Row, rowsOf } from '../../ir/residual.ts';
import { formatRuleId, type Test } from '../../ir/ruleset.ts';
import { type Specialised, specialise } from '../../ir/specialise.ts';
import type { Profile, TcamProfile } from '../../profile/schema.ts';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import { capabilitiesOf, mayMatch, prepare } from './capabilities.ts';
import { columnsFor } from './columns.ts';
import { countExpanded } from './expand-ranges.ts';
import { isRangeColumn, type Layout, layOut } from './layout.ts';
import { CONTINUE, DROP, lowerView, TRAP, TRAPPED } from './lower.ts';
import {
  type Effort,
  expandPlainly,
  minimiseRanges,
  minimiseTernary,
  withoutRanges,
} from './minimise.ts';
import { planGenericTables, planProfileTables, type TablePlan } from './plan-tables.ts';
import { type Proof, proveEqual } from './prove.ts';
import { rangeUnits } from './range-units.ts';
import { appendRow, createStore, type RowStore } from './row-store.ts';
import { type Action, readStore, type TableSet, type TcamTable, writeStore } from './table.ts';

/** Profiles of TCAM tiers; others are not for this backend. */
export function isTcamProfile(profile: Profile): profile is TcamProfile {
  return profile.kind === 'tcam';
}

/** What a format can carry: rows of value and mask, or prefixes and ranges as they are. */
export type Stage = 'ternary' | 'ranges';

export interface TcamOptions {
  readonly profile: TcamProfile | null;
  readonly effort: Effort;
  readonly stage: Stage;
  /** False: the format's driver takes no ranges on this device. */
  readonly ranges?: boolean;
  /** The device forwards by itself: everything must be decided, and what is not dropped is permitted. */
  readonly final: boolean;
  /** Rows of a table before minimisation at most; the rest of the walk is left to the kernel. */
  readonly rowLimit?: number;
  /** The concession `counters`. */
  readonly mayMiscount: boolean;
}

/** What one table was made from: the rows before anything was left out, and their layout. */
export interface Origin {
  readonly plan: TablePlan;
  readonly layout: Layout;
  readonly store: RowStore;
  readonly table: TcamTable;
  /** What the table's key can evaluate of the classifier. */
  readonly specialised: Specialised;
}

export interface Compiled {
  readonly tables: TableSet;
  readonly origins: readonly Origin[];
  /** Rows before minimisation, all ranges expanded. */
  readonly directRows: number;
  /** Per table plan, what became of the classifier's entries. */
  readonly specialised: readonly Specialised[];
}

/**
 * Rows for values that tables before this one decide, in front of all others: of these, only frames whose
 * header is cut get here.
 */
function addGuards(store: RowStore, plan: TablePlan, layout: Layout, action: number): RowStore {
  if (plan.guards === null) return store;
  const { field, values } = plan.guards;
  const rows = values.map((value) => {
    const cells = layout.columns.map((column) => {
      const isIt = fieldKey(column.field) === fieldKey(field);
      const top = (1n << BigInt(column.bits)) - 1n;
      return isIt
        ? { value: BigInt(value), mask: top, range: null }
        : { value: 0n, mask: 0n, range: null };
    });
    return cells;
  });
  const result = createStore(layout.shape, store.count + rows.length);
  for (const cells of rows) {
    let value = 0n;
    let mask = 0n;
    for (const [index, { bits }] of layout.columns.entries()) {
      value = (value << BigInt(bits)) | (cells[index]?.value ?? 0n);
      mask = (mask << BigInt(bits)) | (cells[index]?.mask ?? 0n);
    }
    const row = { value, mask, ranges: [], action: 'continue' as const, rules: [] };
    const one = writeStore({ columns: layout.columns, rows: [row], default: 'continue' }, layout, [
      'continue',
      'drop',
    ]);
    if (one !== null) appendRow(result, one.boxes, 0, action, -1);
  }
  for (let row = 0; row < store.count; row += 1) {
    appendRow(
      result,
      store.boxes,
      row * store.stride,
      store.actions[row] ?? 0,
      store.origins[row] ?? -1,
    );
  }
  return result;
}

/** More rows than any device has, by an order of magnitude. */
const ROW_LIMIT = 250_000;

function tooManyRows({ name }: TablePlan, { rowLimit = ROW_LIMIT }: LowerOptions): Diagnostic {
  return errorAt('tcam/too-many-rows', `table ${name} would have more than ${rowLimit} rows`, {
    help: 'negated concatenations, and chains called from many rules, multiply: write them apart',
  });
}

/** What of the options matters to the rows before any are left out. */
export type LowerOptions = Pick<TcamOptions, 'profile' | 'final' | 'mayMiscount' | 'rowLimit'>;

/** Whether the device can hand a frame to its CPU. */
function canTrap({ profile }: LowerOptions): boolean {
  return profile?.verdicts.includes('trap') === true;
}

export interface Lowering {
  readonly layout: Layout;
  readonly store: RowStore;
  readonly specialised: Specialised;
  /** What the rows ask; rows of two walks compare when they are laid out for the tests of both. */
  readonly tests: readonly Test[];
  readonly isCut: boolean;
}

/** A row whose ways to what nothing here can decide end apart from those that pass. */
function tellUnknown(row: Row, entry: Entry | undefined): Row {
  const end = (ref: Row['then'], target: Target | undefined): Row['then'] =>
    target?.kind === 'unknown' ? { ...ref, to: TRAPPED } : ref;
  return {
    ...row,
    then: end(row.then, entry?.then),
    otherwise: end(row.otherwise, entry?.otherwise),
  };
}

/** The walk for one table's frames as rows. */
export function lowerPlan(
  classifier: Classifier,
  plan: TablePlan,
  options: LowerOptions,
  alike: readonly Test[] = [],
): Lowering {
  const specialised = specialise(prepare(classifier, plan), capabilitiesOf(plan, options));
  const { entries } = specialised.classifier;
  const rows = options.final
    ? rowsOf(specialised.classifier).map((row) => tellUnknown(row, entries[row.entry]))
    : rowsOf(specialised.classifier);
  const start = { counts: [], to: rows[0]?.entry ?? -2 };
  const view = enter(createScratch(rows.length), rows, start, plan.region, null);
  const own = view.rows.flatMap((row) => row.tests.map(({ test }) => test));
  const tests = [...own, ...alike];
  const [transport = 'th'] = plan.name.split('-').slice(1);
  const fields = tests.flatMap(testedFields);
  if (plan.guards !== null) fields.push(plan.guards.field);
  const columns = plan.columns ?? columnsFor(fields, plan.version, transport);
  const layout = layOut(columns, (column) => isRangeColumn(column, tests), plan.fixedProtocols);
  const { store, isCut } = lowerView(
    view,
    layout,
    options.rowLimit ?? ROW_LIMIT,
    options.final ? TRAP : CONTINUE,
  );
  const guard = options.final && canTrap(options) ? TRAP : CONTINUE;
  return { layout, store: addGuards(store, plan, layout, guard), specialised, tests: own, isCut };
}

function has(action: number, store: RowStore): boolean {
  for (let row = 0; row < store.count; row += 1) if (store.actions[row] === action) return true;
  return false;
}

interface Shrunk {
  /** Fewer rows in the layout they came in. */
  readonly smaller: RowStore;
  /** These in the form that the format carries. */
  readonly store: RowStore;
  readonly layout: Layout;
}

/** The rows in the form that the format carries, as few as the effort finds. */
function shrink({ store, layout }: Lowering, options: TcamOptions): Shrunk {
  const smaller = minimiseRanges(store, layout, options.effort);
  if (layout.shape.ranges === 0) return { smaller, store: smaller, layout };
  if (options.stage === 'ranges') {
    const units = options.profile?.limits.rangeUnits;
    const hasRanges = options.profile === null || (units !== undefined && options.ranges !== false);
    return !hasRanges
      ? { smaller, store: expandPlainly(smaller, layout), layout: withoutRanges(layout) }
      : { smaller, store: rangeUnits(smaller, layout, units ?? null), layout };
  }
  const ternary = minimiseTernary(smaller, layout, options.effort);
  return { smaller, store: ternary, layout: withoutRanges(layout) };
}

function labelOf(classifier: Classifier, origin: number): readonly string[] {
  const entry = classifier.entries[origin];
  if (entry === undefined) return [];
  return [entry.rule === null ? entry.label : formatRuleId(entry.rule)];
}

/** In final mode every rule must be decided; those that are not, with the reason. */
function undecidedRules(
  classifier: Classifier,
  plan: TablePlan,
  { fates }: Specialised,
): Diagnostic[] {
  const errors = new Map<string, Diagnostic>();
  for (const [index, fate] of fates.entries()) {
    if (fate.kind !== 'handed-on' && fate.kind !== 'passed-over') continue;
    const entry = classifier.entries[index];
    if (entry === undefined || !mayMatch(entry, plan.region)) continue;
    const path = entry.rule === null ? entry.label : formatRuleId(entry.rule);
    const message = `the device cannot decide it: ${fate.reason.message}`;
    const help = 'leave the rule out, or compile without --final for a table in front of nftables';
    errors.set(
      path,
      errorAt('tcam/undecided', message, { help, place: { kind: 'ruleset', path } }),
    );
  }
  return [...errors.values()];
}

function unnamedProtocol({ name }: TablePlan): Diagnostic {
  const message = `table ${name} would look at fields of transport protocols that no rule names`;
  return errorAt('tcam/undecided', message, {
    help: 'name the protocols: tcp dport, not th dport',
  });
}

/** Compares a table with rows of the same columns: with ranges, or where it has bit masks without. */
export function proveTable(
  table: Pick<TcamTable, 'columns' | 'rows' | 'default'>,
  store: RowStore,
  layout: Layout,
  actions: readonly Action[],
  differ?: (actionStore: number, actionTable: number) => boolean,
): Proof & { readonly layout: Layout } {
  const written = writeStore(table, layout, actions);
  if (written !== null) return { ...proveEqual(store, written, differ), layout };
  const plain = writeStore(table, withoutRanges(layout), actions);
  if (plain === null) throw new Error('bug: a row without ranges became too many');
  return {
    ...proveEqual(expandPlainly(store, layout), plain, differ),
    layout: withoutRanges(layout),
  };
}

/** Proves the rows made on the way equal to the first ones, and the table equal to them. */
function proofOf(
  { layout, store, table }: Origin,
  smaller: RowStore,
  actions: readonly Action[],
): Diagnostic | null {
  const first = proveEqual(store, smaller);
  const proof = first.kind === 'equal' ? proveTable(table, smaller, layout, actions) : first;
  if (proof.kind === 'equal') return null;
  if (proof.kind === 'differs')
    throw new Error(`bug: table ${table.name} differs from its classifier`);
  return errorAt('tcam/unproven', `table ${table.name} could not be proven equal to the ruleset`, {
    help: 'try --effort low',
  });
}

/** Compiles a classifier to tables and proves each of them equal to it. */
export function compileTables(classifier: Classifier, options: TcamOptions): Result<Compiled> {
  const fields = classifier.entries.flatMap(({ tests }) => tests.flatMap(testedFields));
  const plans =
    options.profile === null ? planGenericTables(fields) : planProfileTables(options.profile);
  const actions: readonly Action[] = options.final
    ? ['permit', 'drop', 'trap']
    : ['continue', 'drop'];
  const mayTrap = canTrap(options);
  const origins: Origin[] = [];
  const specialised: Specialised[] = [];
  const noticed: Diagnostic[] = [];
  let directRows = 0;
  for (const plan of plans) {
    const lowering = lowerPlan(classifier, plan, options);
    const { store, layout } = lowering;
    specialised.push(lowering.specialised);
    if (lowering.isCut) {
      const cut = tooManyRows(plan, options);
      if (options.final) return fail(cut);
      noticed.push({ ...cut, severity: 'warning' });
    }
    if (options.final && !mayTrap) {
      const errors = undecidedRules(classifier, plan, lowering.specialised);
      if (errors.length > 0) return fail(...errors);
      if (has(TRAP, store)) return fail(unnamedProtocol(plan));
    } else if (!options.final && !has(DROP, store)) continue;
    directRows += countExpanded(store, layout) - 1;
    const small = shrink(lowering, options);
    const rules = (origin: number): readonly string[] =>
      labelOf(lowering.specialised.classifier, origin);
    const { rows, default: last } = readStore(small.store, small.layout, actions, rules);
    const table: TcamTable = {
      name: plan.name,
      columns: layout.columns,
      served: plan.served,
      rows,
      default: last,
    };
    const origin = { plan, layout, store, table, specialised: lowering.specialised };
    const unproven = proofOf(origin, small.smaller, actions);
    if (unproven !== null) return fail(unproven);
    origins.push(origin);
  }
  const tables = {
    profile: options.profile?.name ?? null,
    tables: origins.map(({ table }) => table),
  };
  return succeed({ tables, origins, directRows, specialised }, noticed);
}
