import type { Classifier, Target, ViewName } from './classifier.ts';
import { type Field, FRAME, fieldKey } from './fields.ts';
import { testedFields } from './operand.ts';
import { presenceKey, presenceOf, type Region, truthOf } from './region.ts';
import { formatRuleId, type Test } from './ruleset.ts';

/** Where a walk goes on: the counters counted on the way, then a row (by its entry) or the end. */
export interface Ref {
  readonly counts: readonly number[];
  readonly to: number | 'drop' | 'pass';
}

const PASS: Ref = { counts: [], to: 'pass' };

/** A test with what a region must know to decide it. */
export interface Asked {
  readonly test: Test;
  readonly fields: readonly Field[];
  /** Keys of a region that its truth, or its loads' success, depends on. */
  readonly keys: readonly string[];
}

/** An entry in a region: the tests that are still open there. */
export interface Row {
  readonly entry: number;
  readonly view: ViewName;
  readonly rule: string | null;
  readonly tests: readonly Asked[];
  /** All other tests hold, but one depends on a later fragment's layout: matching hands on. */
  readonly handOn: boolean;
  readonly then: Ref;
  readonly otherwise: Ref;
}

/** The walk as seen from a region: only rows that are reached and undecided. */
export interface View {
  readonly region: Region;
  readonly rows: readonly Row[];
  readonly start: Ref;
}

/** What is left of a row in a region, or whether it certainly matches or does not. */
function rowIn(row: Row, region: Region): Row | 'match' | 'mismatch' {
  const open: Asked[] = [];
  let { handOn } = row;
  for (const asked of row.tests) {
    let isOpen = false;
    let isFragment = false;
    for (const field of asked.fields) {
      const presence = presenceOf(field, row.view, region);
      if (presence === 'absent') return 'mismatch';
      if (presence === 'fragment') isFragment = true;
      else if (presence === 'open') isOpen = true;
    }
    const truth = truthOf(asked.test, region);
    if (truth === 'false') return 'mismatch';
    if (isFragment) handOn = true;
    else if (truth === 'open' || isOpen) open.push(asked);
  }
  if (open.length === 0 && !handOn) return 'match';
  return open.length === row.tests.length && handOn === row.handOn
    ? row
    : { ...row, tests: open, handOn };
}

function dependsOn(row: Row, key: string): boolean {
  return row.tests.some(({ keys }) => keys.includes(key));
}

/**
 * Walks the rows under a region and keeps what is reached and undecided. `changed` is the only key
 * in which the region differs from the one the rows were left by; null when that is not known.
 */
export function enter(
  rows: readonly Row[],
  start: Ref,
  region: Region,
  changed: string | null,
): View {
  const reached = new Set<Ref['to']>([start.to]);
  const passed: { readonly row: Row; readonly left: Row | 'match' | 'mismatch' }[] = [];
  for (const row of rows) {
    if (!reached.has(row.entry)) continue;
    const same = changed !== null && !dependsOn(row, changed);
    const left = same ? row : rowIn(row, region);
    passed.push({ row, left });
    if (left !== 'mismatch') reached.add(row.then.to);
    if (left !== 'match') reached.add(row.otherwise.to);
  }
  const alias = new Map<Ref['to'], Ref>();
  const follow = (ref: Ref): Ref => {
    const known = alias.get(ref.to);
    if (known === undefined) return ref;
    return ref.counts.length === 0 ? known : { ...known, counts: [...ref.counts, ...known.counts] };
  };
  const kept: Row[] = [];
  for (const { row, left } of passed.reverse()) {
    if (left === 'match') alias.set(row.entry, follow(row.then));
    else if (left === 'mismatch') alias.set(row.entry, follow(row.otherwise));
    else {
      const then = follow(row.then);
      const otherwise = follow(row.otherwise);
      const moved = then !== row.then || otherwise !== row.otherwise;
      kept.push(moved ? { ...left, then, otherwise } : left);
    }
  }
  return { region, rows: kept.reverse(), start: follow(start) };
}

function askedOf(test: Test, view: ViewName): Asked {
  const fields = testedFields(test);
  const keys = new Set<string>();
  for (const field of fields) {
    keys.add(fieldKey(field));
    if (field.base !== 'meta') keys.add(presenceKey(field.base, view));
    if (field.base === 'th') keys.add(FRAME.fragment.name);
  }
  return { test, fields, keys: [...keys] };
}

/** The classifier's entries as rows, before anything is known. */
export function rowsOf({ entries }: Classifier): Row[] {
  const ref = (target: Target, counts: readonly number[]): Ref => {
    if (target.kind === 'entry') return { counts, to: target.index };
    return target.kind === 'drop' ? { counts, to: 'drop' } : PASS;
  };
  return entries.map((entry, index) => ({
    entry: index,
    view: entry.view,
    rule: entry.rule === null ? null : formatRuleId(entry.rule),
    tests: entry.tests.map((test) => askedOf(test, entry.view)),
    handOn: false,
    then: ref(entry.then, entry.counts),
    otherwise: ref(entry.otherwise, []),
  }));
}
