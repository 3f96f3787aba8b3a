import type { Artifact, Compiled, Tier, TierOptions } from '../backends/backend.ts';
import type { Classifier, Entry } from '../ir/classifier.ts';
import { formatRuleId, type RuleId } from '../ir/ruleset.ts';
import { dropsOf, keepEntries, sliceDrops } from '../ir/slice.ts';
import type { Specialised } from '../ir/specialise.ts';
import type { Reason, Result } from '../support/diagnostics.ts';
import { remember } from '../support/remember.ts';
import { type Choices, capacityGrid, createSelector } from './select.ts';
import type { Settled } from './settle.ts';
import type { Weights } from './weights.ts';

/** What can be chosen or left: a rule that drops, or a policy. */
export interface Candidate {
  /** `formatRuleId`, or a policy with its chain. */
  readonly key: string;
  readonly rule: RuleId | null;
  readonly label: string;
  readonly weight: number;
  /** Entries of the specialised classifier that drop for it. */
  readonly drops: readonly number[];
  /** Entries it needs, its own among them; ascending. */
  readonly needs: readonly number[];
}

/** Why a candidate was left to the kernel, in what the tier is short of. */
export interface LeftOver {
  readonly resource: string;
  /** About what it would take itself, what its guard rows would take beside what is there, and what is left. */
  readonly own: number;
  readonly guards: number;
  readonly left: number;
  /** How many guard rows those are. */
  readonly guardRows: number;
  readonly weight: number;
}

/** What a tier that is too small takes, and what it leaves. */
export interface Choice {
  /** The walk it does. */
  readonly classifier: Classifier;
  /** By key. */
  readonly chosen: ReadonlyMap<string, Candidate>;
  readonly leftOver: ReadonlyMap<string, LeftOver>;
  /** What drops on earlier tiers already, by key. */
  readonly settled: ReadonlySet<string>;
  /** Entries of the specialised classifier that are there. */
  readonly kept: ReadonlySet<number>;
  /** Of those, the ones that drop. */
  readonly dropping: ReadonlySet<number>;
  /** The sum of the chosen weights. */
  readonly weight: number;
}

/** A tier's program with what had to be chosen for it; null when all fitted. */
export interface Fitted<A extends Artifact> {
  readonly compiled: Compiled<A>;
  readonly choice: Choice | null;
}

/** What there is to be compiled and chosen from. */
export interface Demand {
  /** The whole walk. */
  readonly classifier: Classifier;
  readonly specialised: Specialised;
  readonly weights: Weights;
  readonly settled: Settled;
  readonly options: TierOptions;
}

/** The rule or policy that an entry of the whole walk stands for. */
export function keyOf({ stages }: Classifier, entry: Entry, index: number): string {
  if (entry.rule !== null) return formatRuleId(entry.rule);
  const stage = stages.find(({ from, to }) => index >= from && index < to);
  if (stage === undefined) return entry.label;
  return `${entry.label}: ${stage.family} ${stage.table} ${stage.chain}`;
}

/**
 * Every entry's place, named alike in all walks of one situation that have as many entries for its
 * rule or policy: tiers that receive frames in different ways walk in different ways.
 */
export const placesOf = remember((classifier: Classifier): readonly string[] => {
  const keys = classifier.entries.map((entry, index) => keyOf(classifier, entry, index));
  const totals = new Map<string, number>();
  for (const key of keys) totals.set(key, (totals.get(key) ?? 0) + 1);
  const seen = new Map<string, number>();
  return keys.map((key) => {
    const ordinal = seen.get(key) ?? 0;
    seen.set(key, ordinal + 1);
    return `${key} ${ordinal}/${totals.get(key)}`;
  });
});

interface Listed {
  readonly entry: Entry;
  readonly drops: number[];
  /** Earlier tiers drop all of it. */
  isSettled: boolean;
  /** Earlier tiers drop at every place where this one would. */
  isPartly: boolean;
}

/** Everything that drops in a specialised classifier with what it needs, and what drops earlier. */
export function listCandidates({ classifier, specialised, weights, settled }: Demand): {
  readonly candidates: readonly Candidate[];
  readonly settledKeys: readonly string[];
} {
  const isSettled = (place: string | undefined): boolean => settled.surely.has(place ?? '');
  const places = settled.surely.size + settled.partly.size > 0 ? placesOf(classifier) : [];
  const possible = dropsOf(specialised).map((at) => specialised.origins[at] ?? 0);
  // Often nothing is left to choose, and what drops depend on takes a while to find out.
  if (possible.every((origin) => isSettled(places[origin]))) {
    const keyAt = (at: number, entry: Entry | undefined): readonly string[] =>
      entry === undefined ? [] : [keyOf(classifier, entry, at)];
    const keys = possible.flatMap((origin) => keyAt(origin, classifier.entries[origin]));
    return { candidates: [], settledKeys: [...new Set(keys)] };
  }
  const { drops, needs } = sliceDrops(specialised);
  const byKey = new Map<string, Listed>();
  for (const drop of drops) {
    const origin = specialised.origins[drop] ?? 0;
    const entry = classifier.entries[origin];
    if (entry === undefined) throw new Error('bug: a drop without an origin');
    const key = keyOf(classifier, entry, origin);
    const place = places[origin];
    const isSure = isSettled(place);
    const isPartly = isSure || settled.partly.has(place ?? '');
    const known = byKey.get(key);
    if (known === undefined) byKey.set(key, { entry, drops: [drop], isSettled: isSure, isPartly });
    else {
      known.drops.push(drop);
      known.isSettled &&= isSure;
      known.isPartly &&= isPartly;
    }
  }
  const all = [...byKey];
  const candidates = all.flatMap(([key, { entry, drops: own, ...found }]) => {
    if (found.isSettled) return [];
    const [only] = own;
    const needed = only !== undefined && own.length === 1 ? needs(only) : unite(own.map(needs));
    const weight = found.isPartly ? 0 : (weights.rules.get(key) ?? weights.usual);
    return [{ key, rule: entry.rule, label: entry.label, weight, drops: own, needs: needed }];
  });
  const settledKeys = all.filter(([, found]) => found.isSettled).map(([key]) => key);
  return { candidates, settledKeys };
}

function unite(lists: readonly (readonly number[])[]): number[] {
  return [...new Set(lists.flat())].sort((a, b) => a - b);
}

const NO_ROOM: Reason = { code: 'plan/capacity', message: 'the tier has no room for it' };

/** A choice of candidates, by index, with the walk that is left of it. */
interface Attempt {
  readonly chosen: readonly number[];
  readonly weight: number;
}

interface Tried<A extends Artifact> {
  readonly kept: ReadonlySet<number>;
  readonly dropping: ReadonlySet<number>;
  readonly classifier: Classifier;
  readonly compiled: Compiled<A>;
}

/** About what was taken, in estimated units, and how much of what there is that was: up to 1. */
interface Look {
  readonly size: number;
  readonly full: number;
}

/** The size at which a tier should be full, going on as from the look before to the last one. */
function extrapolate(before: Look, last: Look): number {
  const rise = last.full - before.full;
  if (rise <= 0) return Number.POSITIVE_INFINITY;
  return last.size + ((1 - last.full) * (last.size - before.size)) / rise;
}

/**
 * The greatest number below `sizes.length` that passes, if greater ones never pass where smaller do
 * not; -1 when none does. Each look is costly: the first goes to the size where the tier should be
 * full, as do those behind a look that passed; all others halve what is left. `fullness` is null where
 * a number does not pass. Also gives the last look that passed, and how much more should fill the tier.
 */
function findLast(
  sizes: readonly number[],
  expected: number,
  start: Look,
  fullness: (index: number) => number | null,
): { readonly index: number; readonly last: Look; readonly slack: number } {
  let good = -1;
  let bad = sizes.length;
  let wanted = expected;
  let last = start;
  let slack = Number.POSITIVE_INFINITY;
  while (bad - good > 1) {
    const guess = sizes.findLastIndex((size) => size <= wanted);
    const at = guess > good && guess < bad ? guess : (good + bad) >> 1;
    const full = fullness(at);
    if (full === null) {
      bad = at;
      wanted = Number.NEGATIVE_INFINITY;
      continue;
    }
    good = at;
    const look = { size: sizes[at] ?? 0, full };
    wanted = extrapolate(last, look);
    slack = wanted - look.size;
    last = look;
  }
  return { index: good, last, slack };
}

/** Steps of the ladder for several resources, each a little below the one before. */
const LADDER_STEPS = 120;
const LADDER_RATIO = 1.04;

/** Capacities to try, rising; independent of what the tier has where there is one resource. */
function ladderOf<A extends Artifact>({ estimates }: Tier<A>, choices: Choices) {
  if (estimates.room.length === 1) return capacityGrid(choices).map((capacity) => [capacity]);
  const room = estimates.room.map(({ limit }) => limit);
  return Array.from({ length: LADDER_STEPS }, (_, step) =>
    room.map((limit) => Math.floor(limit / LADDER_RATIO ** (LADDER_STEPS - 1 - step))),
  );
}

/** Where the estimates say that all needs so many times what there is, all is not even tried... */
const HOPELESS = 4;
/** ...unless it is so little that trying costs nothing, and estimates say nothing either. */
const LITTLE = 1000;

function isHopeless<A extends Artifact>({ estimates }: Tier<A>, costs: Choices['costs']): boolean {
  const most = (limit: number): number =>
    estimates.isExact ? limit : Math.max(HOPELESS * limit, LITTLE);
  return estimates.room.some(
    ({ limit }, r) => costs.reduce((sum, cost) => sum + (cost[r] ?? 0), 0) > most(limit),
  );
}

/**
 * Compiles a walk for a tier: all of it but what earlier tiers drop or, where that is too big, the
 * candidates that are worth most together with what they need. What fits is found out by compiling, never by estimates alone;
 * the same demand gives the same choice, and a tier with more room never less weight.
 */
export function fitTier<A extends Artifact>(tier: Tier<A>, demand: Demand): Result<Fitted<A>> {
  const { classifier, specialised, options } = demand;
  const costs = specialised.classifier.entries.map((entry, at) =>
    at < specialised.tail ? tier.estimates.costOf(entry) : tier.estimates.room.map(() => 0),
  );
  const listed = demand.settled.surely.size > 0 ? listCandidates(demand) : null;
  const isWhole = listed === null || listed.settledKeys.length === 0;
  if (isWhole && !isHopeless(tier, costs)) {
    const whole = tier.compile(classifier, { ...options, specialised });
    if (whole.ok) return { ...whole, value: { compiled: whole.value, choice: null } };
    if (!tier.isTooBig(whole.diagnostics)) return whole;
  }
  return chooseForTier(tier, demand, costs, listed ?? listCandidates(demand));
}

function chooseForTier<A extends Artifact>(
  tier: Tier<A>,
  demand: Demand,
  costs: Choices['costs'],
  { candidates, settledKeys }: ReturnType<typeof listCandidates>,
): Result<Fitted<A>> {
  const { specialised, options } = demand;
  const choices = { items: candidates, costs };
  const tryAttempt = ({ chosen }: Attempt): Result<Tried<A>> => {
    const picked = chosen.flatMap((index) => candidates[index] ?? []);
    const kept = new Set(picked.flatMap(({ needs }) => needs));
    const dropping = new Set(picked.flatMap(({ drops }) => drops));
    const classifier = keepEntries(specialised, kept, dropping, NO_ROOM);
    const compiled = tier.compile(classifier, options);
    if (!compiled.ok) return compiled;
    return { ...compiled, value: { kept, dropping, classifier, compiled: compiled.value } };
  };
  const nothing: Attempt = { chosen: [], weight: 0 };
  const empty = tryAttempt(nothing);
  if (!empty.ok) return empty;
  let best: { readonly attempt: Attempt; readonly tried: typeof empty } = {
    attempt: nothing,
    tried: empty,
  };
  const fullnessOf = (attempt: Attempt): number | null => {
    const tried = tryAttempt(attempt);
    if (!tried.ok) return null;
    if (attempt.weight >= best.attempt.weight) best = { attempt, tried };
    return fullnessIn(tried.value);
  };
  const fits = (attempt: Attempt): boolean => fullnessOf(attempt) !== null;
  const exact = tier.estimates.room.map(({ limit }) => limit);
  const isAll = settledKeys.length > 0 && !isHopelessFor(tier, choices) && fits(everyOne(choices));
  const select = isAll ? null : createSelector(choices);
  if (select !== null && (!tier.estimates.isExact || !fits(select(exact)))) {
    const ladder = ladderOf(tier, choices);
    const isFar = (capacity: readonly number[]): boolean =>
      exact.some((limit, r) => (capacity[r] ?? 0) > HOPELESS * limit);
    const capacities = ladder.map(([capacity = 0]) => capacity);
    const none = { size: 0, full: fullnessIn(empty.value) };
    const { index, last, slack } = findLast(capacities, exact[0] ?? 0, none, (at) => {
      const capacity = ladder[at] ?? [];
      return isFar(capacity) ? null : fullnessOf(select(capacity));
    });
    const above = ladder[index + 1];
    if (above !== undefined) {
      const more = select(above).weight;
      const { size, sizes, attemptOf } = fillUp(choices, best.attempt, more);
      const start = { size, full: last.full };
      findLast(sizes, size + slack, start, (at) => fullnessOf(attemptOf(at)));
    }
  }
  const { attempt, tried } = best;
  if (attempt.chosen.length === candidates.length && settledKeys.length === 0) {
    const whole = tier.compile(demand.classifier, options);
    if (whole.ok) return { ...whole, value: { compiled: whole.value, choice: null } };
  }
  const { compiled } = tried.value;
  const choice = describeChoice(choices, candidates, attempt, tried.value, empty.value);
  const settled = new Set(settledKeys);
  return { ...tried, value: { compiled, choice: { ...choice, settled } } };
}

/** How much of what there is of the scarcest resource is taken: 1 for all of it. */
function fullnessIn<A extends Artifact>({ compiled: { artifact } }: Tried<A>): number {
  return artifact.usage.reduce(
    (most, { used, limit }) => (limit === null ? most : Math.max(most, used / limit)),
    0,
  );
}

function everyOne({ items }: Choices): Attempt {
  const weight = items.reduce((sum, item) => sum + item.weight, 0);
  return { chosen: [...items.keys()], weight };
}

/** Whether all candidates together are not even tried. */
function isHopelessFor<A extends Artifact>(tier: Tier<A>, { items, costs }: Choices): boolean {
  const needed = new Set(items.flatMap(({ needs }) => Array.from(needs)));
  return isHopeless(
    tier,
    [...needed].map((part) => costs[part] ?? []),
  );
}

/**
 * The candidates to add to a choice, one after the other, those first that are worth most for what
 * they still need, with about what is taken in all from each on. Together with it none is worth more than the next choice up, which did not fit: so
 * a tier that is a little bigger and takes that one has never less.
 */
function fillUp({ items, costs }: Choices, start: Attempt, most: number) {
  const there = new Set(start.chosen.flatMap((index) => Array.from(items[index]?.needs ?? [])));
  const isChosen = new Set(start.chosen);
  const waiting = items
    .flatMap(({ needs, weight }, index) => {
      if (isChosen.has(index) || weight === 0) return [];
      const missing = Array.from(needs).filter((part) => !there.has(part));
      const price = missing.reduce((sum, part) => sum + (costs[part]?.[0] ?? 0), 0);
      return [{ index, weight, price }];
    })
    .sort((a, b) => b.weight * a.price - a.weight * b.price || a.index - b.index);
  const order: number[] = [];
  let sum = start.weight;
  const size = [...there].reduce((total, part) => total + (costs[part]?.[0] ?? 0), 0);
  const sizes: number[] = [];
  for (const { index, weight, price } of waiting) {
    if (sum + weight > most) continue;
    sum += weight;
    order.push(index);
    sizes.push((sizes.at(-1) ?? size) + price);
  }
  const attemptOf = (last: number): Attempt => {
    const added = order.slice(0, last + 1);
    const weight = added.reduce((total, index) => total + (items[index]?.weight ?? 0), 0);
    const chosen = [...start.chosen, ...added].sort((a, b) => a - b);
    return { chosen, weight: start.weight + weight };
  };
  return { size, sizes, attemptOf };
}

/** The resource that is closest to its end, and what an estimated unit takes of it. */
function scarcest<A extends Artifact>(
  { compiled: { artifact }, kept }: Tried<A>,
  empty: Tried<A>,
  costs: Choices['costs'],
) {
  const limited = artifact.usage.flatMap(({ resource, used, limit }) => {
    const usage = empty.compiled.artifact.usage.find((other) => other.resource === resource);
    return limit === null ? [] : [{ resource, used, limit, base: usage?.used ?? 0 }];
  });
  const [first] = limited.sort((a, b) => b.used / b.limit - a.used / a.limit);
  if (first === undefined) return { resource: 'room', left: 0, factor: 1 };
  const { resource, used, limit, base } = first;
  const estimated = [...kept].reduce((sum, at) => sum + (costs[at]?.[0] ?? 0), 0);
  const factor = estimated > 0 && used > base ? (used - base) / estimated : 1;
  return { resource, left: limit - used, factor };
}

function describeChoice<A extends Artifact>(
  { costs }: Choices,
  candidates: readonly Candidate[],
  { chosen, weight }: Attempt,
  tried: Tried<A>,
  empty: Tried<A>,
): Omit<Choice, 'settled'> {
  const { resource, left, factor } = scarcest(tried, empty, costs);
  const { kept, dropping, classifier } = tried;
  const priceOf = (entries: readonly number[]): number =>
    Math.ceil(entries.reduce((sum, at) => sum + (costs[at]?.[0] ?? 0), 0) * factor);
  const picked = new Set(chosen);
  const leftOver = new Map<string, LeftOver>();
  for (const [index, { key, drops, needs, weight: worth }] of candidates.entries()) {
    if (picked.has(index)) continue;
    const own = new Set(drops);
    const guards = needs.filter((at) => !own.has(at) && !kept.has(at));
    leftOver.set(key, {
      resource,
      own: priceOf(drops),
      guards: priceOf(guards),
      guardRows: guards.length,
      left,
      weight: worth,
    });
  }
  const chosenByKey = chosen.flatMap((index) => {
    const candidate = candidates[index];
    return candidate === undefined ? [] : [[candidate.key, candidate] as const];
  });
  return { classifier, chosen: new Map(chosenByKey), leftOver, kept, dropping, weight };
}
