import type { Classifier, Effect, Entry } from './classifier.ts';
import type { Test } from './ruleset.ts';

/**
 * Behaviour that an operator can give up so that more moves, with what it means for the traffic;
 * docs/concessions.md has a section on each.
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

/** Whether skipping this effect is given up. */
function isGivenUp({ name, reason }: Effect, granted: ReadonlySet<Concession>): boolean {
  if (name === 'log') return granted.has('log');
  if (name === 'reject') return granted.has('reject-as-drop');
  return reason.code === 'match/limit' && granted.has('limit-as-accept');
}

function concedeTest(test: Test, granted: ReadonlySet<Concession>): Test {
  if (test.kind !== 'unknown' || !test.stateful || test.reason.code !== 'match/limit') return test;
  return granted.has('limit-as-accept') ? { ...test, stateful: false } : test;
}

function concedeEntry(entry: Entry, granted: ReadonlySet<Concession>): Entry {
  return {
    ...entry,
    tests: entry.tests.map((test) => concedeTest(test, granted)),
    effects: entry.effects.map((effect) =>
      isGivenUp(effect, granted) ? { ...effect, external: false } : effect,
    ),
  };
}

/**
 * The classifier with the effects that are given up no longer binding a tier. (`counters` is told to
 * `specialise`, `syn-is-new` and `reply-ports` to `flatten`.)
 */
export function concede(classifier: Classifier, granted: ReadonlySet<Concession>): Classifier {
  if (granted.size === 0) return classifier;
  const entries = classifier.entries.map((entry) => concedeEntry(entry, granted));
  return { ...classifier, entries };
}
