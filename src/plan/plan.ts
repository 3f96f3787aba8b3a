import type { Classifier, Entry } from '../ir/classifier.ts';
import { CONCESSIONS, type Concession } from '../ir/concede.ts';
import type { Facts } from '../ir/facts.ts';
import { formatRuleId, type Rule, type Ruleset } from '../ir/ruleset.ts';
import type { Fate, Specialised } from '../ir/specialise.ts';
import type { Profile } from '../profile/schema.ts';
import { type Reason, type Result, succeed } from '../support/diagnostics.ts';
import { describeFacts } from './facts.ts';
import { findFindings } from './findings.ts';
import { findHandedOn, findIdle } from './idle.ts';
import { type PlacedTier, placeRuleset, type Situation } from './place.ts';
import {
  type ConcessionOffer,
  HOST,
  PLAN_FORMAT,
  type PlannedReason,
  type PlannedRule,
  type PlanReport,
  quoteEntry,
  type TierUsage,
} from './report.ts';

/** What became of one rule in one tier. */
export interface RuleView {
  readonly decides: boolean;
  readonly reasons: readonly PlannedReason[];
}

/** Indices of entries by rule. */
export function entriesByRule(entries: readonly Entry[]): ReadonlyMap<string, readonly number[]> {
  const groups = new Map<string, number[]>();
  for (const [index, { rule }] of entries.entries()) {
    if (rule === null) continue;
    const key = formatRuleId(rule);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [index]);
    else group.push(index);
  }
  return groups;
}

/** Each reason once; that a later part of a rule is not reached says nothing beside why that is. */
function uniqueReasons(reasons: readonly PlannedReason[]): PlannedReason[] {
  const telling = reasons.filter(({ code }) => code !== 'plan/not-reached');
  const shown = telling.length > 0 ? telling : reasons;
  return [...new Map(shown.map((reason) => [reason.code + reason.message, reason])).values()];
}

/** Why one entry does not decide in the tier, in words for the rule it belongs to. */
function reasonOf(
  fate: Fate,
  entries: readonly Entry[],
  fates: readonly Fate[],
): PlannedReason | null {
  switch (fate.kind) {
    case 'kept':
      return null;
    case 'handed-on':
    case 'passed-over':
      return fate.reason;
    case 'not-reached': {
      const by = fate.by === null ? undefined : entries[fate.by];
      if (by === undefined || fate.by === null) {
        return {
          code: 'plan/not-reached',
          message: 'no packet reaches it: rules before it decide all',
        };
      }
      const why = fates[fate.by];
      const because = why !== undefined && 'reason' in why ? why.reason.message : '';
      return {
        code: 'plan/behind-undecided',
        message: `${quoteEntry(by)} comes first and cannot be decided here${because && `: ${because}`}`,
        ...(by.rule === null ? {} : { by: { rule: by.rule, text: by.label, why: because } }),
      };
    }
  }
}

const NO_DROP: Reason = {
  code: 'plan/no-drop',
  message: 'it drops nothing: packets that match go on to nftables anyway',
};

const NOTHING_TO_DROP: Reason = {
  code: 'plan/nothing-behind',
  message:
    'no rule behind it drops anything that could be dropped here, so there is no need to look',
};

/** A classifier and what a tier makes of it. */
export interface SpecialisedWalk {
  readonly entries: readonly Entry[];
  readonly fates: readonly Fate[];
  /** Entries that the tier has and that packets may match. */
  readonly present: ReadonlySet<number>;
}

/** A tier with what is asked of it for every rule. */
interface PreparedTier {
  readonly tier: PlacedTier;
  readonly indices: ReadonlyMap<string, readonly number[]>;
  readonly walk: SpecialisedWalk;
}

/**
 * The walk of a classifier given to `specialise`, with its result. Entries whose packets have all been
 * handed on before are not reached, and those that no packet matches are not present.
 */
export function walkOf({ entries }: Classifier, specialised: Specialised): SpecialisedWalk {
  const { classifier, origins } = specialised;
  const handedOn = findHandedOn(classifier.entries);
  const idle = findIdle(entries);
  const present = new Set<number>();
  const fates = [...specialised.fates];
  for (const [index, origin] of origins.entries()) {
    const by = handedOn.get(index);
    if (by === undefined) present.add(origin);
    else fates[origin] = { kind: 'not-reached', by: origins[by] ?? null };
  }
  // An entry can be there twice; one that is reached is enough.
  for (const origin of present) fates[origin] = specialised.fates[origin] ?? { kind: 'kept' };
  for (const index of idle) present.delete(index);
  return { entries, fates, present };
}

function prepareTier(tier: PlacedTier): PreparedTier {
  const { classifier } = tier.flattened;
  return {
    tier,
    indices: entriesByRule(classifier.entries),
    walk: walkOf(classifier, tier.artifact.specialised),
  };
}

/** Whether a tier decides packets for a rule with these entries, and what stands in its way. */
export function viewRule(
  indices: readonly number[],
  { entries, fates, present }: SpecialisedWalk,
): RuleView {
  const drops = (index: number): boolean => entries[index]?.then.kind === 'drop';
  const counts = (index: number): boolean => (entries[index]?.counts.length ?? 0) > 0;
  const kept = indices.filter((index) => present.has(index) && fates[index]?.kind === 'kept');
  const decides = kept.some((index) => drops(index) || counts(index));
  const reasons = indices.flatMap((index) => {
    const fate = fates[index];
    const reason = fate === undefined ? null : reasonOf(fate, entries, fates);
    return reason ?? [];
  });
  if (reasons.length > 0 || decides) return { decides, reasons: uniqueReasons(reasons) };
  const reason = kept.length > 0 || indices.some(drops) ? NO_DROP : NOTHING_TO_DROP;
  return { decides, reasons: [reason] };
}

/** Every rule of the ruleset, in listing order. */
export function rulesOf(ruleset: Ruleset): readonly Rule[] {
  return ruleset.tables.flatMap(({ chains }) => chains.flatMap(({ rules }) => rules));
}

/** Every rule of the ruleset with its tier and its reasons, in listing order. */
export function planRules(ruleset: Ruleset, tiers: readonly PlacedTier[]): PlannedRule[] {
  const prepared = tiers.map(prepareTier);
  return rulesOf(ruleset).map((rule) => {
    const key = formatRuleId(rule.id);
    const reasons: PlannedReason[] = [];
    for (const own of prepared) {
      const { tier, walk } = own;
      const { leftOut } = tier.flattened;
      const indices = own.indices.get(key) ?? [];
      const out = leftOut.get(key);
      if (out !== undefined) {
        reasons.push(out);
        if (indices.length === 0) continue;
      }
      const view = viewRule(indices, walk);
      if (view.decides) {
        const cost = tier.artifact.costs.get(key) ?? { insns: 0 };
        return {
          rule: rule.id,
          text: rule.text,
          tier: tier.profile.name,
          reasons: view.reasons,
          cost,
        };
      }
      reasons.push(...view.reasons);
    }
    return {
      rule: rule.id,
      text: rule.text,
      tier: HOST,
      reasons: uniqueReasons(reasons),
      cost: {},
    };
  });
}

function usageOf(tiers: readonly PlacedTier[]): TierUsage[] {
  return tiers.flatMap(({ profile, artifact }) =>
    artifact.usage.map((usage) => ({ tier: profile.name, ...usage })),
  );
}

function onHost(rules: readonly PlannedRule[]): number {
  return rules.filter(({ tier }) => tier === HOST).length;
}

/** What granting each concession alone, and all of them, would move. */
function offerConcessions(
  situation: Situation,
  profiles: readonly Profile[],
  host: number,
): ConcessionOffer[] {
  const names = Object.keys(CONCESSIONS) as Concession[]; // the keys of a const object
  return names
    .filter((name) => !situation.concessions.includes(name))
    .flatMap((name) => {
      const granted = { ...situation, concessions: [...situation.concessions, name] };
      const placed = placeRuleset(granted, profiles);
      if (!placed.ok) return [];
      const unlocks = host - onHost(planRules(situation.ruleset, placed.value));
      return unlocks > 0 ? [{ name, unlocks }] : [];
    });
}

/** Whether any reason in the plan could be conceded away; saves planning again for nothing. */
function isConcedable(rules: readonly PlannedRule[], classifierEffects: boolean): boolean {
  return (
    classifierEffects ||
    rules.some(({ reasons }) => reasons.some(({ code }) => code.startsWith('counter/')))
  );
}

/** Says for every rule which tier decides it and why not an earlier one. */
export function planRuleset(
  situation: Situation,
  profiles: readonly Profile[],
  givenFacts: Facts = situation.facts,
): Result<PlanReport> {
  const placed = placeRuleset(situation, profiles);
  if (!placed.ok) return placed;
  const rules = planRules(situation.ruleset, placed.value);
  const effects = placed.value.some(({ flattened }) =>
    flattened.classifier.entries.some((entry) => entry.effects.some(({ external }) => external)),
  );
  const concessions = isConcedable(rules, effects)
    ? offerConcessions(situation, profiles, onHost(rules))
    : [];
  return succeed(
    {
      format: PLAN_FORMAT,
      device: situation.facts.device,
      profiles: profiles.map(({ name }) => name),
      rules,
      usage: usageOf(placed.value),
      concessions,
      facts: describeFacts(givenFacts),
      findings: findFindings(situation.ruleset, situation.facts),
    },
    placed.diagnostics,
  );
}
