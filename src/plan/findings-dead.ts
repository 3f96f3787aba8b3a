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

/** Entries that take what they match past later entries, by one constraint they all have. */
interface Bucket extends Span {
  readonly members: number[];
}

/** Up to which entry packets that match this one are seen by no other; 0 when they go on. */
function untilOf(index: number, { then }: Entry): number {
  if (then.kind === 'unknown') return 0;
  if (then.kind !== 'entry') return Number.POSITIVE_INFINITY;
  return then.index > index + 1 ? then.index : 0;
}

function spanOf(match: Match, field: string): Span | null {
  const values = match.fields.get(field);
  const lo = values?.lo[0];
  const hi = values?.hi.at(-1);
  return lo === undefined || hi === undefined ? null : { lo, hi };
}

/** The constraints of a match, each as a field with its span, or as the text of another test. */
function constraintsOf(match: Match): readonly { field: string; span: Span }[] {
  const spans = [...match.fields.keys()].flatMap((field) => {
    const span = spanOf(match, field);
    return span === null ? [] : [{ field, span }];
  });
  return [...spans, ...match.others.map((field) => ({ field, span: { lo: 0n, hi: 0n } }))];
}

/**
 * Makes a function that lists entries which may match all that another does. Each entry stands under
 * the rarest of its constraints, so that a question looks at few.
 */
function indexCovers(
  matches: readonly Match[],
  covering: readonly number[],
): (match: Match) => readonly number[] {
  const uses = new Map<string, number>();
  const nameOf = (field: string, { lo, hi }: Span): string => `${field}|${lo}|${hi}`;
  const constraints = matches.map(constraintsOf);
  for (const index of covering) {
    for (const { field, span } of constraints[index] ?? []) {
      const name = nameOf(field, span);
      uses.set(name, (uses.get(name) ?? 0) + 1);
    }
  }
  const fields = new Map<string, Map<string, Bucket>>();
  for (const index of covering) {
    const own = constraints[index] ?? [];
    const names = own.map(({ field, span }) => uses.get(nameOf(field, span)) ?? 0);
    const rarest = own[names.indexOf(Math.min(...names))];
    if (rarest === undefined) continue;
    const { field, span } = rarest;
    const buckets = fields.get(field) ?? new Map<string, Bucket>();
    fields.set(field, buckets);
    const bucket = buckets.get(nameOf(field, span)) ?? { ...span, members: [] };
    buckets.set(nameOf(field, span), bucket);
    bucket.members.push(index);
  }
  const trees = new Map(
    [...fields].map(([name, own]) => [name, createContaining([...own.values()])]),
  );
  return (match) =>
    constraintsOf(match).flatMap(({ field, span }) =>
      (trees.get(field)?.(span) ?? []).flatMap(({ members }) => members),
    );
}

/** Finds entries that no packet ever matches, with the reason; null for the others. */
export function findDead(
  entries: readonly Entry[],
  matches: readonly Match[],
): readonly (Dead | null)[] {
  const dominates = findDominators(entries);
  const covering = [...entries.keys()].filter((index) => {
    const [entry, match] = [entries[index], matches[index]];
    if (entry === undefined || match === undefined) return false;
    return untilOf(index, entry) > 0 && !match.isNarrower && match.contradiction === null;
  });
  const candidates = indexCovers(matches, covering);
  const isReached = new Uint8Array(entries.length);
  if (entries.length > 0) isReached[0] = 1;
  const dead: (Dead | null)[] = [];
  let pairs = 0;
  const coverOf = (index: number, match: Match): Dead | null => {
    if (pairs > MOST_PAIRS) return null;
    let first: number | null = null;
    for (const by of candidates(match)) {
      pairs += 1;
      const [entry, other] = [entries[by], matches[by]];
      if (by >= index || (first !== null && by >= first) || dead[by] !== null) continue;
      if (entry === undefined || other === undefined || untilOf(by, entry) <= index) continue;
      if (implies(match, other) && dominates(by, index)) first = by;
    }
    const other = first === null ? undefined : matches[first];
    if (first === null || other === undefined) return null;
    return { kind: 'covered', by: first, isSame: isSameMatch(match, other) };
  };
  let taker: number | null = null;
  for (const [index, entry] of entries.entries()) {
    const match = matches[index];
    const contradiction = match?.contradiction ?? null;
    if (contradiction !== null) dead[index] = { kind: 'contradiction', tests: contradiction };
    else if (isReached[index] === 0) dead[index] = { kind: 'unreached', by: taker };
    else dead[index] = match === undefined ? null : coverOf(index, match);
    if (isReached[index] === 0) continue;
    const targets = dead[index] === null ? nextTargets(entry) : [entry.otherwise];
    for (const target of targets) if (target.kind === 'entry') isReached[target.index] = 1;
    if (dead[index] !== null || entry.tests.length > 0) continue;
    if (untilOf(index, entry) > index + 1) taker = index;
  }
  return dead;
}
