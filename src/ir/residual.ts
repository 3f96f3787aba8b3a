import { remember } from '../support/remember.ts';
import type { Classifier, Target, ViewName } from './classifier.ts';
import { type Field, FRAME, fieldKey } from './fields.ts';
import { testedFields } from './operand.ts';
import {
  type FieldInterval,
  intervalOf,
  opposite,
  presenceKey,
  presenceOf,
  type Region,
  type Truth,
  truthOf,
  withinIn,
} from './region.ts';
import { formatRuleId, type Test } from './ruleset.ts';

/** Ends of a walk, beside rows. */
export const DROPPED = -1;
export const PASSED = -2;

/** Where a walk goes on: the counters counted on the way, then a row (by its entry) or the end. */
export interface Ref {
  readonly counts: readonly number[];
  /** An entry's index, `DROPPED` or `PASSED`. */
  readonly to: number;
}

const PASS: Ref = { counts: [], to: PASSED };

/** A test with what a region must know to decide it. */
export interface Asked {
  readonly test: Test;
  readonly fields: readonly Field[];
  /** What a plain comparison asks of its field, its negation left aside. */
  readonly interval: FieldInterval | null;
  readonly isNegated: boolean;
  /** Keys of a region that its truth, or its loads' success, depends on; see `keyBit`. */
  readonly keys: number;
}

/** An entry in a region: the tests that are still open there. */
export interface Row {
  readonly entry: number;
  readonly view: ViewName;
  readonly rule: string | null;
  readonly tests: readonly Asked[];
  /** Keys of all the tests. */
  readonly keys: number;
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

function truthIn({ test, interval, isNegated }: Asked, region: Region): Truth {
  if (interval === null) return truthOf(test, region);
  const truth = withinIn(interval, region);
  return isNegated ? opposite(truth) : truth;
}

/**
 * What is left of a row in a region, or whether it certainly matches or does not; only tests on the
 * `changed` keys are looked at again.
 */
function rowIn(row: Row, region: Region, changed: number): Row | 'match' | 'mismatch' {
  const { tests, view } = row;
  let { handOn } = row;
  /** The open ones so far; null as long as that is all of them. */
  let open: Asked[] | null = null;
  for (const [at, asked] of tests.entries()) {
    let isLeft = true;
    if ((asked.keys & changed) !== 0) {
      let isOpen = false;
      let isFragment = false;
      for (const field of asked.fields) {
        const presence = presenceOf(field, view, region);
        if (presence === 'absent') return 'mismatch';
        if (presence === 'fragment') isFragment = true;
        else if (presence === 'open') isOpen = true;
      }
      const truth = truthIn(asked, region);
      if (truth === 'false') return 'mismatch';
      if (isFragment) handOn = true;
      isLeft = !isFragment && (truth === 'open' || isOpen);
    }
    if (isLeft) open?.push(asked);
    else open ??= tests.slice(0, at);
  }
  if (open === null) return tests.length > 0 || handOn ? row : 'match';
  if (open.length === 0 && !handOn) return 'match';
  return { ...row, tests: open, keys: keysOf(open), handOn };
}

const keyBits = new Map<string, number>();

/** A bit for a region's key; from the 31st key on they share one. */
function keyBit(key: string): number {
  let bit = keyBits.get(key);
  if (bit === undefined) {
    bit = 1 << Math.min(keyBits.size, 30);
    keyBits.set(key, bit);
  }
  return bit;
}

function keysOf(tests: readonly Asked[]): number {
  return tests.reduce((keys, asked) => keys | asked.keys, 0);
}

/** Room for `enter` to work in, by entry, so that no call has to make its own. */
export interface Scratch {
  readonly reached: Int32Array;
  /** Where an entry that was decided leads; null where it is open. */
  readonly alias: (Ref | null)[];
  round: number;
}

export function createScratch(entries: number): Scratch {
  const alias = Array.from<Ref | null>({ length: entries }).fill(null);
  return { reached: new Int32Array(entries), alias, round: 0 };
}

/**
 * Walks the rows under a region and keeps what is reached and undecided. `changed` is the only key
 * in which the region differs from the one the rows were left by; null when that is not known.
 */
export function enter(
  scratch: Scratch,
  rows: readonly Row[],
  start: Ref,
  region: Region,
  changed: string | null,
): View {
  const { reached, alias } = scratch;
  scratch.round += 1;
  const { round } = scratch;
  const bit = changed === null ? -1 : keyBit(changed);
  const reach = ({ to }: Ref): void => {
    if (to >= 0) reached[to] = round;
  };
  reach(start);
  const passed: Row[] = [];
  const lefts: (Row | 'match' | 'mismatch')[] = [];
  for (const row of rows) {
    if (reached[row.entry] !== round) continue;
    const same = (row.keys & bit) === 0;
    const left = same ? row : rowIn(row, region, bit);
    passed.push(row);
    lefts.push(left);
    if (left !== 'mismatch') reach(row.then);
    if (left !== 'match') reach(row.otherwise);
  }
  const follow = (ref: Ref): Ref => {
    const known = ref.to < 0 ? null : (alias[ref.to] ?? null);
    if (known === null) return ref;
    return ref.counts.length === 0 ? known : { ...known, counts: [...ref.counts, ...known.counts] };
  };
  const kept: Row[] = [];
  for (let index = passed.length - 1; index >= 0; index -= 1) {
    const row = passed[index];
    const left = lefts[index];
    if (row === undefined || left === undefined) continue;
    const then = follow(row.then);
    const otherwise = follow(row.otherwise);
    if (left === 'match') alias[row.entry] = then;
    else if (left === 'mismatch') alias[row.entry] = otherwise;
    else {
      const moved = then !== row.then || otherwise !== row.otherwise;
      kept.push(moved ? { ...left, then, otherwise } : left);
      alias[row.entry] = null;
    }
  }
  return { region, rows: kept.reverse(), start: follow(start) };
}

function readAsked(test: Test, view: ViewName): Asked {
  const fields = testedFields(test);
  let keys = 0;
  for (const field of fields) {
    keys |= keyBit(fieldKey(field));
    if (field.base !== 'meta') keys |= keyBit(presenceKey(field.base, view));
    if (field.base === 'th') keys |= keyBit(FRAME.fragment.name);
  }
  const isNegated = test.kind !== 'unknown' && test.negated;
  return { test, fields, interval: intervalOf(test), isNegated, keys };
}

const askedIn: Readonly<Record<ViewName, (test: Test) => Asked>> = {
  ingress: remember((test) => readAsked(test, 'ingress')),
  l3: remember((test) => readAsked(test, 'l3')),
};

/** The classifier's entries as rows, before anything is known. */
export function rowsOf({ entries }: Classifier): Row[] {
  const ref = (target: Target, counts: readonly number[]): Ref => {
    if (target.kind === 'entry') return { counts, to: target.index };
    return target.kind === 'drop' ? { counts, to: DROPPED } : PASS;
  };
  return entries.map((entry, index) => {
    const tests = entry.tests.map(askedIn[entry.view]);
    return {
      entry: index,
      view: entry.view,
      rule: entry.rule === null ? null : formatRuleId(entry.rule),
      tests,
      keys: keysOf(tests),
      handOn: false,
      then: ref(entry.then, entry.counts),
      otherwise: ref(entry.otherwise, []),
    };
  });
}
