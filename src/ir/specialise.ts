import type { Reason } from '../support/diagnostics.ts';
import { remember } from '../support/remember.ts';
import type { Classifier, Entry, Target } from './classifier.ts';
import type { Field } from './fields.ts';
import type { Test } from './ruleset.ts';

/** What one tier can evaluate; everything it cannot makes the packet continue. */
export interface Capabilities {
  /** Null when the tier can load the field, else why not. */
  readonly field: (field: Field) => Reason | null;
  /** Null when the tier can do this look-up. */
  readonly test: (test: Test) => Reason | null;
  /** Null when the tier can look at all that an entry tests at once; absent: wherever it can at each. */
  readonly together?: (entry: Entry) => Reason | null;
  /** Null when the tier counts packets and bytes. */
  readonly counters: Reason | null;
  /**
   * What the tier cannot decide must be told from what it lets pass, since it forwards by itself: nothing
   * is passed over, and what hands on stays even where nothing behind it drops.
   */
  readonly exact?: boolean;
  /** Counters may miss what is dropped early: the operator gives exact ones up. */
  readonly mayMiscount: boolean;
}

/** A tier that can load every field, look up every set and count. */
export const EVERYTHING: Capabilities = {
  field: () => null,
  test: () => null,
  counters: null,
  mayMiscount: false,
};

/** What became of one entry of the classifier in the tier. */
export type Fate =
  /** Frames that match it are decided, or sent on along the walk, in the tier. */
  | { readonly kind: 'kept' }
  /** Frames that may match it are handed on. */
  | { readonly kind: 'handed-on'; readonly reason: Reason }
  /** It may drop, which is left to the kernel; the walk goes on behind it. */
  | { readonly kind: 'passed-over'; readonly reason: Reason }
  /** No frame gets here in the tier: an earlier entry (`by`, if one alone) hands all of them on. */
  | { readonly kind: 'not-reached'; readonly by: number | null };

export interface Specialised {
  /** Only tests the tier can evaluate; `unknown` targets and `accept` both mean `continue`. */
  readonly classifier: Classifier;
  /** Per entry of the classifier given; the most telling one where it was reached in two ways. */
  readonly fates: readonly Fate[];
  /** For every entry of the result, the entry of the classifier given that it comes from. */
  readonly origins: readonly number[];
  /** Entries of the result from here on only ask, before a drop, whether the kernel loses the frame. */
  readonly tail: number;
}

const NOT_COUNTED: Reason = {
  code: 'counter/may-not-reach',
  message:
    'its counter must not count packets that the kernel may discard before it ' +
    '(give the facts that settle it: mac, local-address, rp-filter, routed)',
};

/** Null when a tier can evaluate a test. */
export function unknownTest(test: Test, tier: Capabilities): Reason | null {
  if (test.kind === 'unknown') return test.reason;
  if (test.kind === 'compare') return tier.field(test.operand.field) ?? tier.test(test);
  for (const { field } of test.key) {
    const reason = tier.field(field);
    if (reason !== null) return reason;
  }
  return tier.test(test);
}

/** An entry, and whether the packet may be gone already when it gets there; see `keyOf`. */
type Key = number;

type Next = Key | Exclude<Target, { readonly kind: 'entry' }>;

interface Step {
  readonly tests: readonly Test[];
  readonly counts: readonly number[];
  readonly then: Next;
  readonly otherwise: Next;
  readonly fate: Fate;
  /** The kernel discards what matches: checked only where something was counted. */
  readonly gate: boolean;
}

function follow(target: Target, uncertain: boolean): Next {
  return target.kind === 'entry' ? keyOf(target.index, uncertain || target.uncertain) : target;
}

function sameTarget(a: Target, b: Target): boolean {
  if (a.kind !== b.kind) return false;
  return (
    a.kind !== 'entry' || b.kind !== 'entry' || (a.index === b.index && a.uncertain === b.uncertain)
  );
}

/** `unknownTest` of one tier. */
type UnknownOf = (test: Test) => Reason | null;

function firstMissing(tests: readonly Test[], unknownOf: UnknownOf): Reason | null {
  for (const test of tests) {
    const reason = unknownOf(test);
    if (reason !== null) return reason;
  }
  return null;
}

const KEPT: Fate = { kind: 'kept' };

/** Three-valued specialisation of one entry: certain, may match, or handed on. */
function stepOf(entry: Entry, uncertain: boolean, tier: Capabilities, unknownOf: UnknownOf): Step {
  const missing = firstMissing(entry.tests, unknownOf) ?? tier.together?.(entry) ?? null;
  const otherwise = follow(entry.otherwise, uncertain);
  const tests =
    missing === null ? entry.tests : entry.tests.filter((test) => unknownOf(test) === null);
  const base = { tests, counts: [], otherwise, gate: false };
  const handOn = (reason: Reason): Step => ({
    ...base,
    then: { kind: 'unknown', reason },
    fate: { kind: 'handed-on', reason },
  });
  const external =
    entry.effects.length === 0 ? undefined : entry.effects.find((effect) => effect.external);
  const silent = (entry.counts.length === 0 || tier.mayMiscount) && external === undefined;
  if (missing !== null) {
    if (silent && sameTarget(entry.then, entry.otherwise)) {
      return { ...base, tests: [], then: otherwise, fate: KEPT };
    }
    const isDrop = entry.then.kind === 'drop' || entry.then.kind === 'lost';
    if (silent && isDrop && tier.exact !== true) {
      const then = follow(entry.otherwise, true);
      return { ...base, then, fate: { kind: 'passed-over', reason: missing } };
    }
    return handOn(missing);
  }
  if (external !== undefined) {
    if (entry.then.kind !== 'accept' || tier.exact === true) return handOn(external.reason);
    return { ...base, then: entry.then, fate: KEPT };
  }
  const obstacle = uncertain ? NOT_COUNTED : tier.counters;
  if (entry.counts.length > 0 && obstacle !== null && !tier.mayMiscount) return handOn(obstacle);
  const counts = obstacle === null ? entry.counts : [];
  if (entry.then.kind === 'unknown') return handOn(entry.then.reason);
  const gate = entry.then.kind === 'lost' && counts.length === 0 && tests.length > 0;
  return { tests, counts, then: follow(entry.then, uncertain), otherwise, fate: KEPT, gate };
}

function keyOf(entry: number, uncertain: boolean): Key {
  return entry * 2 + (uncertain ? 1 : 0);
}

function isUncertain(key: Key): boolean {
  return key % 2 === 1;
}

/** Steps by `keyOf`, in walking order; null where no frame gets to. */
type Steps = readonly (Step | null)[];

/** All steps that a frame can get to. */
function reachSteps(classifier: Classifier, tier: Capabilities): Steps {
  const count = classifier.entries.length * 2;
  const pending = new Uint8Array(count);
  const steps = Array.from<Step | null>({ length: count }).fill(null);
  const unknownOf = remember((test: Test) => unknownTest(test, tier));
  if (count > 0) pending[0] = 1;
  const reach = (next: Next): void => {
    if (typeof next === 'number') pending[next] = 1;
  };
  for (const [index, entry] of classifier.entries.entries()) {
    for (const uncertain of [false, true]) {
      const key = keyOf(index, uncertain);
      if (pending[key] !== 1) continue;
      const step = stepOf(entry, uncertain, tier, unknownOf);
      steps[key] = step;
      reach(step.then);
      if (step.tests.length > 0 || step.gate) reach(step.otherwise);
    }
  }
  return steps;
}

/** For every step, whether a drop can follow (or, exact, what hands on); steps without one need not be there. */
function droppingSteps(steps: Steps, { exact = false }: Capabilities): Uint8Array {
  const dropping = new Uint8Array(steps.length);
  const drops = (next: Next): boolean =>
    typeof next === 'number'
      ? dropping[next] === 1
      : next.kind === 'drop' || (exact && next.kind === 'unknown');
  for (let key = steps.length - 1; key >= 0; key -= 1) {
    const step = steps[key] ?? null;
    if (step === null) continue;
    const otherwise = step.tests.length > 0 && drops(step.otherwise);
    if (step.gate ? drops(step.otherwise) : drops(step.then) || otherwise) dropping[key] = 1;
  }
  return dropping;
}

/** What is true of every way to a step: the gates passed, and whether something was counted. */
interface Passed {
  readonly gates: bigint;
  readonly counted: boolean;
}

function counting(passed: Passed, { counts }: Step): Passed {
  return passed.counted || counts.length === 0 ? passed : { ...passed, counted: true };
}

const NONE_PASSED: Passed = { gates: 0n, counted: false };

function passedOn(steps: Steps, gates: ReadonlyMap<number, number>): readonly Passed[] {
  const passed = Array.from<Passed>({ length: steps.length }).fill(NONE_PASSED);
  const merge = (next: Next, from: Passed): void => {
    if (typeof next !== 'number') return;
    const old = passed[next] ?? NONE_PASSED;
    // Most steps pass the same on.
    if (old === NONE_PASSED || old === from) passed[next] = from;
    else passed[next] = { gates: old.gates | from.gates, counted: old.counted || from.counted };
  };
  for (const [key, step] of steps.entries()) {
    if (step === null) continue;
    const here = passed[key] ?? NONE_PASSED;
    const gate = gates.get(key);
    if (gate !== undefined) {
      merge(step.otherwise, { ...here, gates: here.gates | (1n << BigInt(gate)) });
      continue;
    }
    merge(step.then, counting(here, step));
    if (step.tests.length > 0) merge(step.otherwise, here);
  }
  return passed;
}

const ACCEPT: Target = { kind: 'accept' };

/**
 * The part of a classifier that one tier can decide. For every frame the result drops, the
 * classifier drops it or the kernel loses it, and exactly the same counters count; every other
 * frame continues. Conditions under which the kernel loses a frame before a hook are moved behind
 * the rules and asked only where something was counted: without a counter, dropping what would be
 * lost anyway changes nothing.
 */
export function specialise(classifier: Classifier, tier: Capabilities): Specialised {
  const steps = reachSteps(classifier, tier);
  const dropping = droppingSteps(steps, tier);
  const gateKeys = [...steps.keys()].filter((key) => steps[key]?.gate === true);
  const gates = new Map(gateKeys.map((key, index) => [key, index]));
  const passed = passedOn(steps, gates);

  const kept = [...steps.keys()].filter((key) => dropping[key] === 1 && steps[key]?.gate === false);
  const position = new Int32Array(steps.length).fill(-1);
  for (const [index, key] of kept.entries()) position[key] = index;
  const entries: Entry[] = [];
  const origins: number[] = [];
  const tails = new Map<bigint, number>();
  const tailEntries: Entry[] = [];

  /** Checks the gates, then drops; one list for every set of gates, shared from its end. */
  const tailOf = (wanted: bigint): Target => {
    if (wanted === 0n) return { kind: 'drop' };
    const known = tails.get(wanted);
    if (known !== undefined) return { kind: 'entry', index: known, uncertain: false };
    const index = kept.length + tailEntries.length;
    tails.set(wanted, index);
    const chosen = gateKeys.filter((_, gate) => (wanted >> BigInt(gate)) & 1n);
    for (const [i, key] of chosen.entries()) {
      const entry = classifier.entries[key >> 1];
      if (entry === undefined) throw new Error('bug: gate without an entry');
      const last = i === chosen.length - 1;
      const otherwise: Target = last
        ? { kind: 'drop' }
        : { kind: 'entry', index: index + i + 1, uncertain: false };
      tailEntries.push({ ...entry, otherwise });
      origins[index + i] = key >> 1;
    }
    return { kind: 'entry', index, uncertain: false };
  };

  const resolve = (next: Next, from: Passed): Target => {
    if (typeof next !== 'number') {
      return next.kind === 'drop' && from.counted ? tailOf(from.gates) : next;
    }
    if (dropping[next] !== 1) return ACCEPT;
    const step = steps[next];
    if (step?.gate === true) {
      const here = passed[next] ?? from;
      const own = 1n << BigInt(gates.get(next) ?? 0);
      return resolve(step.otherwise, { ...here, gates: here.gates | own });
    }
    const index = position[next] ?? -1;
    if (index < 0) throw new Error('bug: a reached step has no place');
    return { kind: 'entry', index, uncertain: isUncertain(next) };
  };

  for (const key of kept) {
    const step = steps[key] ?? null;
    const entry = classifier.entries[key >> 1];
    if (step === null || entry === undefined) throw new Error('bug: step without an entry');
    const here = passed[key] ?? NONE_PASSED;
    const counted = counting(here, step);
    origins[entries.length] = key >> 1;
    entries.push({
      ...entry,
      tests: step.tests,
      counts: step.counts,
      effects: [],
      then: resolve(step.then, counted),
      otherwise: resolve(step.otherwise, here),
    });
  }
  return {
    classifier: { ...classifier, stages: [], entries: [...entries, ...tailEntries] },
    fates: fatesOf(classifier, steps),
    origins,
    tail: kept.length,
  };
}

function fatesOf(classifier: Classifier, steps: Steps): Fate[] {
  const rank: Record<Fate['kind'], number> = {
    'not-reached': 0,
    'handed-on': 1,
    'passed-over': 2,
    kept: 3,
  };
  let blocker: number | null = null;
  const alwaysHandsOn = (step: Step | null): boolean => {
    if (step === null) return true;
    const { tests, then } = step;
    return tests.length === 0 && typeof then !== 'number' && then.kind === 'unknown';
  };
  return classifier.entries.map((_, index) => {
    const certain = steps[keyOf(index, false)] ?? null;
    const uncertain = steps[keyOf(index, true)] ?? null;
    const [a, b] = [certain?.fate ?? null, uncertain?.fate ?? null];
    const best = a === null || (b !== null && rank[b.kind] > rank[a.kind]) ? b : a;
    if (best === null) return { kind: 'not-reached', by: blocker };
    if (alwaysHandsOn(certain) && alwaysHandsOn(uncertain)) blocker = index;
    return best;
  });
}
