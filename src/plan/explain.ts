import type { Entry, Stage, Target } from '../ir/classifier.ts';
import {
  formatRuleId,
  type Rule,
  type RuleId,
  type Step,
  type Table,
  type Test,
} from '../ir/ruleset.ts';
import type { Profile } from '../profile/schema.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
import { findDominators } from './dominators.ts';
import { findGrants, tryRule } from './explain-moves.ts';
import { findReorder } from './explain-reorder.ts';
import { findFindings } from './findings.ts';
import { implies, isDisjoint, matchOf } from './match.ts';
import { type PlacedTier, placeRuleset, placeTier, type Situation } from './place.ts';
import { entriesByRule, planRules } from './plan.ts';
import { type Finding, HOST, type PlannedReason, quoteRule, type TierUsage } from './report.ts';

/** The tag of `explain --json`. */
export const EXPLAIN_FORMAT = 'nft-offload/explain@1';

/** A rule as it is quoted. */
export interface QuotedRule {
  readonly rule: RuleId;
  readonly text: string;
}

/** A base chain on the way of a packet. */
export interface PathStep {
  readonly chain: string;
  readonly hook: string;
  readonly priority: number;
  /** Rules in the base chain itself. */
  readonly rules: number;
}

/** How packets get to the rule. */
export interface RulePath {
  /** Base chains in the order in which they run, the one that the rule runs in last. */
  readonly chains: readonly PathStep[];
  /** Rules that lead from that base chain to the rule's own, outermost first. */
  readonly calls: readonly QuotedRule[];
}

/** What one tier does with the rule's packets. */
export interface TierView {
  readonly tier: string;
  readonly decides: boolean;
  readonly reasons: readonly PlannedReason[];
  readonly cost: Readonly<Record<string, number>>;
}

/** Something that was tried and moves the rule. */
export interface Move {
  readonly kind: 'facts' | 'concessions' | 'reorder' | 'profile';
  /** For the command line, or in words. */
  readonly change: string;
  readonly tier: string;
  /** Some packets of the rule would still be left to nftables. */
  readonly partly: boolean;
  /** Verdicts stay as they are; null where that is up to the operator (concessions). */
  readonly equivalent: boolean | null;
  /** Rules that would no longer come first, where that matters. */
  readonly conflicts: readonly QuotedRule[];
}

/** What `explain` found out about one rule; `explain --json` prints exactly this. */
export interface Explanation {
  readonly format: typeof EXPLAIN_FORMAT;
  readonly device: string;
  readonly profiles: readonly string[];
  readonly rule: RuleId;
  readonly text: string;
  readonly comment: string | null;
  readonly tier: string;
  readonly tiers: readonly TierView[];
  /** Null when no frame received on the device gets to the rule. */
  readonly path: RulePath | null;
  /** Rules before it on the path that take some of its packets, or all; nearest first. */
  readonly takenBy: readonly (QuotedRule & { readonly all: boolean })[];
  readonly usage: readonly TierUsage[];
  readonly moves: readonly Move[];
  /** Why nothing moves it; null when something does or it is in the first tier. */
  readonly stays: readonly PlannedReason[] | null;
  readonly findings: readonly Finding[];
}

function calledChains(step: Step): readonly string[] {
  const verdicts =
    step.kind === 'verdict'
      ? [step.verdict]
      : step.kind === 'vmap'
        ? (step.map.elements.verdicts ?? [])
        : [];
  return verdicts.flatMap((verdict) => ('chain' in verdict ? [verdict.chain] : []));
}

/** The shortest way of calls from a base chain to another chain of its table. */
function findCalls({ chains }: Table, from: string, to: string): readonly QuotedRule[] {
  const ways = new Map<string, readonly QuotedRule[]>([[from, []]]);
  for (const [name, way] of ways) {
    if (name === to) return way;
    const rules = chains.find((chain) => chain.name === name)?.rules ?? [];
    for (const rule of rules) {
      for (const called of rule.steps.flatMap(calledChains)) {
        if (ways.has(called)) continue;
        ways.set(called, [...way, { rule: rule.id, text: rule.text }]);
      }
    }
  }
  return [];
}

function findPath(situation: Situation, tier: PlacedTier, rule: Rule): RulePath | null {
  const { classifier } = tier.flattened;
  const indices = entriesByRule(classifier.entries).get(formatRuleId(rule.id));
  const [first] = indices ?? [];
  if (first === undefined) return null;
  const at = classifier.stages.findIndex(({ from, to }) => first >= from && first < to);
  const own = classifier.stages[at];
  if (own === undefined) return null;
  const { tables } = situation.ruleset;
  const tableOf = ({ family, table }: Stage) =>
    tables.find((one) => one.family === family && one.name === table);
  const isInput = own.hook === 'input';
  const chains = classifier.stages.slice(0, at + 1).flatMap((stage): readonly PathStep[] => {
    // A packet takes input or forward, never both.
    if (isInput && stage.hook === 'forward') return [];
    const { family, table, chain, hook, priority } = stage;
    const rules = tableOf(stage)?.chains.find(({ name }) => name === chain)?.rules.length ?? 0;
    return [{ chain: `${family} ${table} ${chain}`, hook, priority, rules }];
  });
  const table = tableOf(own);
  const calls = table === undefined ? [] : findCalls(table, own.chain, rule.id.chain);
  return { chains: uniqueSteps(chains), calls };
}

/** The walk has the layer-3 hooks once for every kind of flow. */
function uniqueSteps(steps: readonly PathStep[]): readonly PathStep[] {
  return [...new Map(steps.map((step) => [`${step.chain} ${step.hook}`, step])).values()];
}

/** What has to hold for each entry to match, with what its rule asked for in entries before it. */
function ruleTests(entries: readonly Entry[]): readonly (readonly Test[])[] {
  const before: (readonly Test[])[] = [];
  return entries.map(({ rule, tests, then, otherwise }, index) => {
    const all = [...(before[index] ?? []), ...tests];
    const next = entries[index + 1];
    const isSameRule =
      rule !== null && next?.rule != null && formatRuleId(next.rule) === formatRuleId(rule);
    const leads = (target: Target): boolean =>
      target.kind === 'entry' && target.index === index + 1;
    if (isSameRule && leads(then)) before[index + 1] = all;
    else if (isSameRule && leads(otherwise)) before[index + 1] = before[index] ?? [];
    return all;
  });
}

/** Rules before it that end the way of packets it would match. */
function findTakers({ flattened }: PlacedTier, rule: Rule): Explanation['takenBy'] {
  const { entries } = flattened.classifier;
  const own = formatRuleId(rule.id);
  const [first] = entriesByRule(entries).get(own) ?? [];
  const entry = first === undefined ? undefined : entries[first];
  if (first === undefined || entry === undefined) return [];
  const tests = ruleTests(entries.slice(0, first + 1));
  const dominates = findDominators(entries);
  // Packets are the same ones at ingress, so both views are compared as one; not to prove anything.
  const match = matchOf({ tests: tests[first] ?? [], view: 'l3' });
  const takers = new Map<string, QuotedRule & { all: boolean }>();
  for (let at = first - 1; at >= 0; at -= 1) {
    const { rule: taker, label, then, view } = entries[at] ?? entry;
    if (taker === null || formatRuleId(taker) === own || takers.has(formatRuleId(taker))) continue;
    if (then.kind === 'entry' && then.index <= first) continue;
    const other = matchOf({ tests: tests[at] ?? [], view: 'l3' });
    if (isDisjoint(match, other)) continue;
    const all = view === entry.view && dominates(at, first) && implies(match, other);
    takers.set(formatRuleId(taker), { rule: taker, text: label, all });
  }
  return [...takers.values()];
}

/** What each tier does with the rule, by its own. */
function viewTiers(situation: Situation, tiers: readonly PlacedTier[], rule: Rule): TierView[] {
  return tiers.map((tier) => {
    const [planned] = planRules(situation.ruleset, [tier], [rule]);
    if (planned === undefined) throw new Error(`bug: ${formatRuleId(rule.id)} is not planned`);
    const decides = planned.tier !== HOST;
    return { tier: tier.profile.name, decides, reasons: planned.reasons, cost: planned.cost };
  });
}

function quote({ id, text }: Rule): QuotedRule {
  return { rule: id, text };
}

/** Shipped profiles that decide the rule as things are. */
function findProfiles(
  situation: Situation,
  others: readonly Profile[],
  rule: Rule,
): readonly Move[] {
  return others.flatMap((profile): readonly Move[] => {
    if (tryRule(situation, profile, rule.id)?.decides !== true) return [];
    const placed = placeTier(situation, profile);
    if (!placed.ok) return [];
    const [planned] = planRules(situation.ruleset, [placed.value], [rule]);
    const change = `--profile ${profile.name}`;
    if (planned === undefined || planned.tier === HOST) return [];
    const tier = profile.name;
    const partly = planned.reasons.length > 0;
    return [{ kind: 'profile', change, tier, partly, equivalent: true, conflicts: [] }];
  });
}

function describeReorder({ id, text }: Rule): string {
  return `put it before rule ${formatRuleId(id)} (${text})`;
}

interface Moves {
  readonly moves: readonly Move[];
  readonly stays: readonly PlannedReason[] | null;
}

function findMoves(
  situation: Situation,
  tiers: readonly Profile[],
  others: readonly Profile[],
  rule: Rule,
): Moves {
  const { found, left } = findGrants(situation, tiers, rule.id);
  const grants = found.map(({ changes, tier, partly }): Move => {
    const isFact = changes.every(({ kind }) => kind === 'fact');
    const kind = isFact ? 'facts' : 'concessions';
    const change = changes.map(({ option }) => option).join(' ');
    return { kind, change, tier, partly, equivalent: isFact ? true : null, conflicts: [] };
  });
  const reorders = tiers.flatMap((profile): readonly Move[] => {
    const reorder = findReorder(situation, profile, rule);
    if (reorder === null) return [];
    const { before, tier, partly } = reorder;
    const change = describeReorder(before);
    const conflicts = reorder.conflicts.map(quote);
    const equivalent = conflicts.length === 0;
    return [{ kind: 'reorder', change, tier, partly, equivalent, conflicts }];
  });
  const moves = [...grants, ...reorders.slice(0, 1), ...findProfiles(situation, others, rule)];
  return { moves, stays: moves.length > 0 ? null : left };
}

function findingsAbout({ ruleset, facts }: Situation, rule: Rule): readonly Finding[] {
  const key = formatRuleId(rule.id);
  return findFindings(ruleset, facts).filter(
    (finding) => finding.rule !== null && formatRuleId(finding.rule) === key,
  );
}

const DEAD = ['finding/shadowed', 'finding/duplicate', 'finding/never-matches'];

/** Where no packet is left for the rule, so that there is nothing to move. */
function whyGone(
  findings: readonly Finding[],
  takenBy: Explanation['takenBy'],
): readonly PlannedReason[] | null {
  const dead = findings.filter(({ code }) => DEAD.includes(code));
  if (dead.length > 0) return dead.map(({ code, message }) => ({ code, message }));
  const all = takenBy.find((one) => one.all);
  if (all === undefined) return null;
  const message = `${quoteRule(all.rule, all.text)} takes all its packets`;
  return [{ code: 'plan/nothing-left', message }];
}

/**
 * Says of one rule where it is decided and why, and tries what could move it: every fact and
 * concession, a place earlier in its chain, and the profiles `others`.
 */
export function explainRule(
  situation: Situation,
  profiles: readonly Profile[],
  others: readonly Profile[],
  rule: Rule,
): Result<Explanation> {
  const placed = placeRuleset(situation, profiles);
  if (!placed.ok) return placed;
  const [first] = placed.value;
  const tiers = viewTiers(situation, placed.value, rule);
  const at = tiers.findIndex(({ decides }) => decides);
  const nearer = at < 0 ? profiles : profiles.slice(0, at);
  const findings = findingsAbout(situation, rule);
  const takenBy = first === undefined ? [] : findTakers(first, rule);
  const gone = whyGone(findings, takenBy);
  const { moves, stays } =
    at === 0 || gone !== null
      ? { moves: [], stays: gone }
      : findMoves(situation, nearer, at < 0 ? others : [], rule);
  return succeed(
    {
      format: EXPLAIN_FORMAT,
      device: situation.facts.device,
      profiles: profiles.map(({ name }) => name),
      rule: rule.id,
      text: rule.text,
      comment: rule.comment,
      tier: tiers[at]?.tier ?? HOST,
      tiers,
      path: first === undefined ? null : findPath(situation, first, rule),
      takenBy,
      usage: placed.value.flatMap(({ profile, artifact }) =>
        artifact.usage.map((usage) => ({ tier: profile.name, ...usage })),
      ),
      moves,
      stays: at < 0 ? stays : null,
      findings,
    },
    placed.diagnostics,
  );
}
