import type { Entry } from '../ir/classifier.ts';
import type { Facts } from '../ir/facts.ts';
import { formatRuleId, type Rule, type Ruleset } from '../ir/ruleset.ts';
import type { Fate } from '../ir/specialise.ts';
import type { Profile } from '../profile/schema.ts';
import { type Reason, type Result, succeed } from '../support/diagnostics.ts';
import { remember } from '../support/remember.ts';
import { explainRoom, guardReason } from './capacity.ts';
import { offerConcessions } from './concessions.ts';
import { describeFacts } from './facts.ts';
import { findFindings } from './findings.ts';
import { type PlacedTier, placeRuleset, type Situation } from './place.ts';
import {
  HOST,
  PLAN_FORMAT,
  type PlannedReason,
  type PlannedRule,
  type PlanReport,
  quoteEntry,
  type TierUsage,
} from './report.ts';
import { type SpecialisedWalk, walkOf } from './walk.ts';

/** What became of one rule in one tier. */
export interface RuleView {
  readonly decides: boolean;
  readonly reasons: readonly PlannedReason[];
}

/** Indices of entries by rule. */
export const entriesByRule = remember(
  (entries: readonly Entry[]): ReadonlyMap<string, readonly number[]> => {
    const groups = new Map<string, number[]>();
    for (const [index, { rule }] of entries.entries()) {
      if (rule === null) continue;
      const key = formatRuleId(rule);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [index]);
      else group.push(index);
    }
    return groups;
  },
);

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

/** A tier with what is asked of it for every rule. */
interface PreparedTier {
  readonly tier: PlacedTier;
  readonly indices: ReadonlyMap<string, readonly number[]>;
  readonly walk: SpecialisedWalk;
}

function prepareTier(tier: PlacedTier): PreparedTier {
  const { classifier } = tier.flattened;
  const walk = walkOf(classifier, tier.specialised, tier.choice);
  return { tier, indices: entriesByRule(classifier.entries), walk };
}

/** Whether a tier decides packets for a rule with these entries, and what stands in its way. */
export function viewRule(
  indices: readonly number[],
  { entries, fates, present, deciding }: SpecialisedWalk,
): RuleView {
  const decides = indices.some((index) => deciding.has(index) && fates[index]?.kind === 'kept');
  const reasons = indices.flatMap((index) => {
    const fate = fates[index];
    const reason = fate === undefined ? null : reasonOf(fate, entries, fates);
    return reason ?? [];
  });
  if (reasons.length > 0 || decides) return { decides, reasons: uniqueReasons(reasons) };
  const isThere = indices.some((index) => present.has(index));
  const drops = indices.some((index) => entries[index]?.then.kind === 'drop');
  return { decides, reasons: [isThere || drops ? NO_DROP : NOTHING_TO_DROP] };
}

/** What the tier says about one rule; size is a reason of its own. */
function viewInTier(
  key: string,
  indices: readonly number[],
  { tier, walk }: PreparedTier,
): RuleView {
  const view = viewRule(indices, walk);
  const { choice, profile } = tier;
  if (choice === null) return view;
  if (choice.settled.has(key)) return { decides: false, reasons: [SETTLED] };
  const own = view.reasons.filter(({ code }) => !SIZE_ASIDE.has(code));
  const room = explainRoom(profile.name, choice, key);
  const isGuard = !view.decides && indices.some((index) => walk.present.has(index));
  const reasons = [...own, ...room, ...(isGuard ? [guardReason(profile.name)] : [])];
  return { ...view, reasons: reasons.length > 0 || view.decides ? reasons : view.reasons };
}

const SETTLED: Reason = {
  code: 'plan/settled',
  message: 'a tier before this one drops its packets, none are left to drop here',
};

/** Reasons that are about rules that need nothing; a choice gives better ones. */
const SIZE_ASIDE: ReadonlySet<string> = new Set([NO_DROP.code]);

/** Every rule of the ruleset, in listing order. */
export function rulesOf(ruleset: Ruleset): readonly Rule[] {
  return ruleset.tables.flatMap(({ chains }) => chains.flatMap(({ rules }) => rules));
}

/** Rules of the ruleset, all unless told which, with tier and reasons, in the order given. */
export function planRules(
  ruleset: Ruleset,
  tiers: readonly PlacedTier[],
  rules: readonly Rule[] = rulesOf(ruleset),
): PlannedRule[] {
  const prepared = tiers.map(prepareTier);
  return rules.map((rule) => {
    const key = formatRuleId(rule.id);
    const reasons: PlannedReason[] = [];
    for (const own of prepared) {
      const { tier } = own;
      const indices = own.indices.get(key) ?? [];
      const out = tier.flattened.leftOut.get(key);
      if (out !== undefined) {
        reasons.push(out);
        if (indices.length === 0) continue;
      }
      const view = viewInTier(key, indices, own);
      if (view.decides) {
        const cost = tier.artifact.costs.get(key) ?? {};
        const { name } = tier.profile;
        return { rule: rule.id, text: rule.text, tier: name, reasons: view.reasons, cost };
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

/** Says for every rule which tier decides it and why not an earlier one. */
export function planRuleset(
  situation: Situation,
  profiles: readonly Profile[],
  givenFacts: Facts = situation.facts,
): Result<PlanReport> {
  const placed = placeRuleset(situation, profiles);
  if (!placed.ok) return placed;
  const rules = planRules(situation.ruleset, placed.value);
  const { offers, together } = offerConcessions(situation, placed.value);
  return succeed(
    {
      format: PLAN_FORMAT,
      device: situation.facts.device,
      profiles: profiles.map(({ name }) => name),
      rules,
      usage: usageOf(placed.value),
      concessions: offers,
      together,
      facts: describeFacts(givenFacts),
      findings: findFindings(situation.ruleset, situation.facts),
    },
    placed.diagnostics,
  );
}
