import type { Entry } from '../ir/classifier.ts';
import type { Test } from '../ir/ruleset.ts';
import { createContaining, type Span } from './containing.ts';
import { findDominators, nextTargets } from './dominators.ts';
import { implies, isSameMatch, type Match } from './match.ts';

/** Why no packet ever matches an entry. */
export type Dead =
  /** These tests never hold together. */
  | { readonly kind: 'contradiction'; readonly tests: readonly Test[] }
  /** Every packet that would match has matched `by` and gone elsewhere. */
  | { readonly kind: 'covered'; readonly by: number; readonly isSame: boolean }
  /** No walk gets there; `by` takes every packet elsewhere, or only dead entries lead there. */
  | { readonly kind: 'unreached'; readonly by: number | null };

/** Rules compared one by one, in all: keeps the time near enough linear. */
const MOST_PAIRS = 3_000_000;

/** Up to which entry packets that match this one are seen by no other; 0 when they go on. */
function untilOf(index: number, { then }: Entry): number {
  if (then.kind === 'unknown') return 0;
  if (then.kind !== 'entry') return Number.POSITIVE_INFINITY;
  return then.index > index + 1 ? then.index : 0;
}

/** One thing that entries ask for: a field with values from `lo` to `hi`, or another test. */
interface Constraint extends Span {
  readonly field: string;
  /** How many entries ask for it. */
  uses: number;
  /** Entries that stand under it. */
  readonly members: number[];
}

/** The constraints of every entry; equal ones are one object. */
function listConstraints(matches: readonly Match[]): readonly (readonly Constraint[])[] {
  const known = new Map<string, Map<string, Constraint>>();
  const constraint = (field: string, id: string, lo: bigint, hi: bigint): Constraint => {
    let ids = known.get(field);
    if (ids === undefined) {
      ids = new Map();
      known.set(field, ids);
    }
    let found = ids.get(id);
    if (found === undefined) {
      found = { field, lo, hi, uses: 0, members: [] };
      ids.set(id, found);
    }
    found.uses += 1;
    return found;
  };
  return matches.map(({ fields, others }) => {
    const own: Constraint[] = others.map((other) => constraint(other, '', 0n, 0n));
    for (const [field, { lo, hi, id }] of fields) {
      const [least, most] = [lo[0], hi.at(-1)];
      if (least !== undefined && most !== undefined) own.push(constraint(field, id, least, most));
    }
    return own;
  });
}

/**
 * Makes a function that lists groups of entries which may match all that another does. Each entry
 * stands under the rarest of its constraints, so that a question looks at few.
 */
function indexCovers(
  matches: readonly Match[],
  covering: readonly number[],
): (index: number) => readonly (readonly number[])[] {
  const constraints = listConstraints(matches);
  const fields = new Map<string, Constraint[]>();
  for (const index of covering) {
    const own = constraints[index] ?? [];
    const [first] = own;
    if (first === undefined) continue;
    const rarest = own.reduce((a, b) => (b.uses < a.uses ? b : a), first);
    rarest.members.push(index);
    if (rarest.members.length > 1) continue;
    const used = fields.get(rarest.field);
    if (used === undefined) fields.set(rarest.field, [rarest]);
    else used.push(rarest);
  }
  const trees = new Map([...fields].map(([field, own]) => [field, createContaining(own)]));
  const answers = new Map<Constraint, readonly (readonly number[])[]>();
  return (index) =>
    (constraints[index] ?? []).flatMap((constraint) => {
      let groups = answers.get(constraint);
      if (groups === undefined) {
        groups = (trees.get(constraint.field)?.(constraint) ?? []).map(({ members }) => members);
        answers.set(constraint, groups);
      }
      return groups;
    });
}

/**
 * Makes a function that finds the first entry out of `covering` (ascending) that takes everything that
 * another one would match; `takes` says up to which entry it is taken past, `isGone` which are out.
 */
export function createCovers(
  entries: readonly Entry[],
  matches: readonly Match[],
  covering: readonly number[],
  takes: (by: number) => number,
  isGone: (by: number) => boolean,
): (index: number) => number | null {
  const dominates = findDominators(entries);
  const candidates = indexCovers(matches, covering);
  let pairs = 0;
  return (index) => {
    const match = matches[index];
    if (match === undefined || pairs > MOST_PAIRS) return null;
    let first: number | null = null;
    for (const group of candidates(index)) {
      for (const by of group) {
        pairs += 1;
        // Ascending: the rest of the group comes later still.
        if (by >= (first ?? index)) break;
        const other = matches[by];
        if (other === undefined || isGone(by) || takes(by) <= index) continue;
        if (implies(match, other) && dominates(by, index)) first = by;
      }
    }
    return first;
  };
}

/** Finds entries that no packet ever matches, with the reason; null for the others. */
export function findDead(
  entries: readonly Entry[],
  matches: readonly Match[],
): readonly (Dead | null)[] {
  const until = entries.map((entry, index) => untilOf(index, entry));
  const covering = [...entries.keys()].filter((index) => {
    const match = matches[index];
    if (match === undefined || match.isNarrower || match.contradiction !== null) return false;
    return (until[index] ?? 0) > 0;
  });
  const dead: (Dead | null)[] = [];
  const takes = (by: number): number => until[by] ?? 0;
  const coverOf = createCovers(entries, matches, covering, takes, (by) => dead[by] !== null);
  const isReached = new Uint8Array(entries.length);
  if (entries.length > 0) isReached[0] = 1;
  const explain = (index: number): Dead | null => {
    const match = matches[index];
    const contradiction = match?.contradiction ?? null;
    if (contradiction !== null) return { kind: 'contradiction', tests: contradiction };
    if (isReached[index] === 0) return { kind: 'unreached', by: taker };
    const by = coverOf(index);
    const other = by === null ? undefined : matches[by];
    if (by === null || match === undefined || other === undefined) return null;
    return { kind: 'covered', by, isSame: isSameMatch(match, other) };
  };
  let taker: number | null = null;
  for (const [index, entry] of entries.entries()) {
    dead[index] = explain(index);
    if (isReached[index] === 0) continue;
    const targets = dead[index] === null ? nextTargets(entry) : [entry.otherwise];
    for (const target of targets) if (target.kind === 'entry') isReached[target.index] = 1;
    if (dead[index] !== null || entry.tests.length > 0) continue;
    if (takes(index) > index + 1) taker = index;
  }
  return dead;
}
