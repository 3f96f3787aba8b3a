import type { Classifier, Entry } from '../ir/classifier.ts';
import { formatRuleId } from '../ir/ruleset.ts';
import { dropsOf } from '../ir/slice.ts';
import type { Fate, Specialised } from '../ir/specialise.ts';
import { remember } from '../support/remember.ts';
import type { Choice } from './choose.ts';
import { findHandedOn, findIdle } from './idle.ts';
import type { PlacedTier, SeenTier } from './place.ts';

/** A classifier and what a tier makes of it. */
export interface SpecialisedWalk {
  readonly entries: readonly Entry[];
  readonly fates: readonly Fate[];
  /** Entries that the tier has and that packets may match. */
  readonly present: ReadonlySet<number>;
  /** Those of them that drop, or count what is dropped behind them. */
  readonly deciding: ReadonlySet<number>;
}

const handedOnIn = remember(findHandedOn);
const idleIn = remember(findIdle);

/**
 * The walk of a classifier given to `specialise`, with its result and what was chosen of it. Entries
 * whose packets have all been handed on before are not reached, and those that no packet matches are
 * not present.
 */
export function walkOf(
  { entries }: Classifier,
  specialised: Specialised,
  choice: Choice | null = null,
): SpecialisedWalk {
  const { origins, classifier, tail } = specialised;
  const dropping = choice?.dropping ?? new Set(dropsOf(specialised));
  const handedOn = handedOnIn(classifier.entries);
  const fates = [...specialised.fates];
  const present = new Set<number>();
  const deciding = new Set<number>();
  for (const [at, origin] of origins.entries()) {
    const by = handedOn.get(at);
    if (by !== undefined) fates[origin] = { kind: 'not-reached', by: origins[by] ?? null };
    if (by !== undefined || (choice !== null && at < tail && !choice.kept.has(at))) continue;
    present.add(origin);
    const { counts, then } = classifier.entries[at] ?? { counts: [], then: null };
    const counting = counts.length > 0 && then?.kind === 'entry';
    if (at < tail && (dropping.has(at) || counting)) deciding.add(origin);
  }
  // An entry can be there twice; one that is reached is enough.
  for (const origin of present) fates[origin] = specialised.fates[origin] ?? { kind: 'kept' };
  for (const index of idleIn(entries)) {
    present.delete(index);
    deciding.delete(index);
  }
  return { entries, fates, present, deciding };
}

/** The rules, by `formatRuleId`, that a tier decides packets for. */
export function decidedRules(tier: SeenTier & Partial<PlacedTier>): ReadonlySet<string> {
  const { classifier } = tier.flattened;
  const { fates, deciding } = walkOf(classifier, tier.specialised, tier.choice ?? null);
  const keys = new Set<string>();
  for (const at of deciding) {
    const rule = classifier.entries[at]?.rule ?? null;
    if (rule !== null && fates[at]?.kind === 'kept') keys.add(formatRuleId(rule));
  }
  return keys;
}
