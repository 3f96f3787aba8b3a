import type { Entry, ViewName } from '../ir/classifier.ts';
import { fieldKey, META } from '../ir/fields.ts';
import { testedFields } from '../ir/operand.ts';
import type { Test } from '../ir/ruleset.ts';
import { remember } from '../support/remember.ts';
import { findDominators, nextTargets } from './dominators.ts';
import { createCovers } from './findings-dead.ts';
import {
  comparedField,
  implies,
  intersect,
  type Match,
  matchOf,
  unite,
  type Values,
} from './match.ts';

/** What most of all tells packets apart; what is known of other fields is not followed. */
const FOLLOWED: ReadonlySet<string> = new Set([META.l4proto.name, META.protocol.name]);

type State = ReadonlyMap<string, Values>;

/** What is true of a packet that comes by either way. */
function join(a: State | null, b: State): State {
  if (a === null || a === b) return b;
  const joined = new Map<string, Values>();
  for (const [key, values] of a) {
    const other = b.get(key);
    if (other !== undefined) joined.set(key, unite(values, other));
  }
  return joined;
}

/** What is true of a packet that matches; null when there is none. */
function narrow(state: State, { tests, view }: Entry): State | null {
  let narrowed: State = state;
  for (const test of tests) {
    const asked = followedIn[view](test);
    if (asked === null) continue;
    const [key, values] = asked;
    const old = narrowed.get(key);
    const both = old === undefined ? values : intersect(old, values);
    if (both.lo.length === 0) return null;
    if (both !== old) narrowed = new Map(narrowed).set(key, both);
  }
  return narrowed;
}

/** What a test asks of a field that is followed, with its name in `State`. */
function readFollowed(test: Test, view: ViewName): readonly [string, Values] | null {
  if (!testedFields(test).some((of) => FOLLOWED.has(fieldKey(of)))) return null;
  const [asked] = matchOf({ tests: [test], view }).fields;
  return asked ?? null;
}

const followedIn: Readonly<Record<ViewName, (test: Test) => readonly [string, Values] | null>> = {
  ingress: remember((test) => readFollowed(test, 'ingress')),
  l3: remember((test) => readFollowed(test, 'l3')),
};

/**
 * Entries that no packet matches because of the protocols that the ways to them are for: rules on UDP
 * where only ICMP comes, as in the walk of one kind of flow.
 */
export function findIdle(entries: readonly Entry[]): ReadonlySet<number> {
  const states: (State | null)[] = entries.map(() => null);
  if (states.length > 0) states[0] = new Map();
  const idle = new Set<number>();
  for (const [index, entry] of entries.entries()) {
    const state = states[index] ?? null;
    const matched = state === null ? null : narrow(state, entry);
    if (matched === null) idle.add(index);
    if (state === null) continue;
    for (const target of nextTargets(entry)) {
      const next = target === entry.then ? matched : state;
      if (target.kind !== 'entry' || next === null) continue;
      states[target.index] = join(states[target.index] ?? null, next);
    }
  }
  return idle;
}

/** Up to so many entries are tried one by one; an index of them all would take longer. */
const FEW = 40;

/** Whether an entry asks of all the fields that a match does; quick, and false for almost all. */
function asksOf({ tests, view }: Entry, { fields }: Match): boolean {
  for (const key of fields.keys()) {
    if (!tests.some((test) => comparedField(test, view) === key)) return false;
  }
  return true;
}

/** `createCovers` for few entries that take everything. */
function coverByHand(
  entries: readonly Entry[],
  covering: readonly number[],
): (index: number) => number | null {
  const dominates = findDominators(entries);
  const others = covering.flatMap((by) => {
    const entry = entries[by];
    return entry === undefined ? [] : [{ by, match: matchOf(entry) }];
  });
  return (index) => {
    const entry = entries[index];
    if (entry === undefined) return null;
    const first = others.find(
      ({ by, match }) =>
        by < index &&
        match.fields.size + match.others.length <= entry.tests.length &&
        asksOf(entry, match) &&
        dominates(by, index) &&
        implies(matchOf(entry), match),
    );
    return first?.by ?? null;
  };
}

/**
 * Entries of a specialised classifier all of whose packets an earlier one hands on to the kernel, with
 * that one.
 */
export function findHandedOn(entries: readonly Entry[]): ReadonlyMap<number, number> {
  const handing = [...entries.keys()].filter((index) => entries[index]?.then.kind === 'unknown');
  if (handing.length === 0) return new Map();
  const covering = handing.filter((index) => {
    const entry = entries[index];
    return entry !== undefined && !matchOf(entry).isNarrower;
  });
  if (covering.length === 0) return new Map();
  const coverOf =
    covering.length > FEW
      ? createCovers(
          entries,
          entries.map(matchOf),
          covering,
          () => Number.POSITIVE_INFINITY,
          () => false,
        )
      : coverByHand(entries, covering);
  return new Map(
    [...entries.keys()].flatMap((index) => {
      const by = entries[index]?.rule === null ? null : coverOf(index);
      return by === null ? [] : [[index, by] as const];
    }),
  );
}
