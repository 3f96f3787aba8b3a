import type { Classifier, Effect, Entry } from './classifier.ts';
import { fairLimits } from './fair-limits.ts';
import { formatRuleId, type Ruleset, type Test } from './ruleset.ts';

/**
 * Behaviour that an operator can give up so that more moves, with what it means for the traffic;
 * docs/concessions/ has a page on each.
 */
export const CONCESSIONS = {
  log: 'packets dropped early are not logged',
  'reject-as-drop': 'packets that are rejected get no answer when dropped early',
  counters: 'a counter may miss packets that are dropped early',
  'limit-as-accept': 'packets dropped early are not counted against a limit',
  'syn-is-new': 'a TCP SYN without ACK never belongs to a known connection',
  'reply-ports': 'this machine opens connections from these local ports only',
} as const satisfies Record<string, string>;

export type Concession = keyof typeof CONCESSIONS;

/** Whether skipping this effect is given up; `isFair`: see `fairLimits`. */
function isGivenUp(
  { name, reason }: Effect,
  granted: ReadonlySet<Concession>,
  isFair: boolean,
): boolean {
  if (name === 'log') return granted.has('log');
  if (name === 'reject') return granted.has('reject-as-drop');
  return reason.code === 'match/limit' && isFair;
}

function concedeTest(test: Test, isFair: boolean): Test {
  if (!isFair || test.kind !== 'unknown' || test.reason.code !== 'match/limit') return test;
  return { ...test, stateful: false };
}

function concedeEntry(entry: Entry, granted: ReadonlySet<Concession>, isFair: boolean): Entry {
  return {
    ...entry,
    tests: entry.tests.map((test) => concedeTest(test, isFair)),
    effects: entry.effects.map((effect) =>
      isGivenUp(effect, granted, isFair) ? { ...effect, external: false } : effect,
    ),
  };
}

/**
 * The classifier with the effects that are given up no longer binding a tier. (`counters` is told to
 * `specialise`, `syn-is-new` and `reply-ports` to `flatten`.)
 */
export function concede(
  classifier: Classifier,
  granted: ReadonlySet<Concession>,
  ruleset: Ruleset,
): Classifier {
  const fair = granted.has('limit-as-accept') ? fairLimits(ruleset) : NONE;
  if (fair.size === 0 && !granted.has('log') && !granted.has('reject-as-drop')) return classifier;
  const entries = classifier.entries.map((entry) =>
    entry.tests.length === 0 && entry.effects.length === 0
      ? entry
      : concedeEntry(entry, granted, entry.rule !== null && fair.has(formatRuleId(entry.rule))),
  );
  return { ...classifier, entries };
}

const NONE: ReadonlySet<string> = new Set();
