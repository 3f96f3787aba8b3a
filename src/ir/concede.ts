import type { Classifier } from './classifier.ts';

/**
 * Behaviour that an operator can give up so that more moves, with what it means for the traffic.
 * Effects of these names stop binding a tier; `counters` is told to `specialise`.
 */
export const CONCESSIONS = {
  log: 'packets dropped early are not logged',
  'reject-as-drop': 'packets that are rejected get no answer when dropped early',
  counters: 'a counter may miss packets that are dropped early',
} as const satisfies Record<string, string>;

export type Concession = keyof typeof CONCESSIONS;

const EFFECT_OF: Readonly<Record<Concession, string | null>> = {
  log: 'log',
  'reject-as-drop': 'reject',
  counters: null,
};

/** The classifier with the effects that are given up no longer binding a tier. */
export function concede(classifier: Classifier, granted: ReadonlySet<Concession>): Classifier {
  const freed = new Set([...granted].map((name) => EFFECT_OF[name]));
  const entries = classifier.entries.map((entry) =>
    entry.effects.some(({ name }) => freed.has(name))
      ? {
          ...entry,
          effects: entry.effects.map((effect) =>
            freed.has(effect.name) ? { ...effect, external: false } : effect,
          ),
        }
      : entry,
  );
  return { ...classifier, entries };
}
