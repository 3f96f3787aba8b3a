import type { Entry } from '../ir/classifier.ts';
import { formatRuleId, type RuleId } from '../ir/ruleset.ts';
import type { Reason } from '../support/diagnostics.ts';

/** The tag of `plan --json`. */
export const PLAN_FORMAT = 'nft-offload/plan@1';

/** Where rules that no tier decides are decided. */
export const HOST = 'host';

/** Why a rule is not decided earlier. */
export interface PlannedReason extends Reason {
  /** The rule it stands behind, where that is the reason. */
  readonly by?: { readonly rule: RuleId; readonly text: string; readonly why: string };
  /** Where the tier has no room: what the rule would take. */
  readonly room?: RoomNeeded;
  /** The message without what is the rule's own, for several rules together. */
  readonly summary?: string;
}

/** What a rule would take of a tier that has not room for it, about, in its scarcest resource. */
export interface RoomNeeded {
  readonly resource: string;
  /** Itself. */
  readonly own: number;
  /** The guard rows it depends on and that are not there yet: how many, and what they take. */
  readonly guardRows: number;
  readonly guards: number;
  readonly left: number;
  /** The rules worth most that are there instead, at most three. */
  readonly instead: readonly RuleId[];
}

/** Where one rule is decided, and why not earlier. */
export interface PlannedRule {
  readonly rule: RuleId;
  /** As nft lists it. */
  readonly text: string;
  /** The first tier that decides packets for the rule, or `host`. */
  readonly tier: string;
  /** Never empty for a rule on `host`. */
  readonly reasons: readonly PlannedReason[];
  /** What the rule takes of the tier, by resource. */
  readonly cost: Readonly<Record<string, number>>;
}

/** What the placement takes of one resource of one tier; `limit` is null where there is none. */
export interface TierUsage {
  readonly tier: string;
  readonly resource: string;
  readonly used: number;
  readonly limit: number | null;
}

/** How many rules would leave `host` if this concession were granted; tiers that are full take none. */
export interface ConcessionOffer {
  readonly name: string;
  readonly unlocks: number;
  /** A usual value, where the concession has one; what it would move is an estimate then. */
  readonly value?: string;
  /** Facts that it needs and that are not known. */
  readonly needs?: readonly string[];
}

/** Concessions that together move more than one alone; none of them is needless. */
export interface JointOffer {
  readonly names: readonly string[];
  readonly unlocks: number;
}

/** What `plan` found out; `plan --json` prints exactly this. */
export interface PlanReport {
  readonly format: typeof PLAN_FORMAT;
  readonly device: string;
  readonly profiles: readonly string[];
  readonly rules: readonly PlannedRule[];
  readonly usage: readonly TierUsage[];
  /** Each by itself. */
  readonly concessions: readonly ConcessionOffer[];
  /** All that help, at once; null where that is not more than one. */
  readonly together: JointOffer | null;
  /** Facts the plan relied on, by name, as `--fact` takes them. */
  readonly facts: Readonly<Record<string, string | readonly string[]>>;
  /** About the ruleset itself, whatever the hardware is. */
  readonly findings: readonly Finding[];
}

/** Something about a rule or a set that is proven for every packet, whatever device it comes from. */
export interface Finding {
  /** `finding/what`. */
  readonly code: string;
  /** The rule it is about; null when it is about a named set. */
  readonly rule: RuleId | null;
  /** Rules that are the cause. */
  readonly by: readonly RuleId[];
  readonly message: string;
}

/** Rules of one chain with the same tier and the same reasons, in listing order; never empty. */
export interface RuleGroup {
  readonly tier: string;
  readonly reasons: readonly PlannedReason[];
  readonly rules: readonly PlannedRule[];
}

export interface ChainGroups {
  /** `inet filter input`. */
  readonly chain: string;
  readonly groups: readonly RuleGroup[];
}

/** A chain with more groups of neighbours than this is summed up by tier and reason. */
export const MANY_GROUPS = 60;

/** Equal for rules with the same tier for the same reasons. */
function kindOf({ tier, reasons }: Pick<RuleGroup, 'tier' | 'reasons'>): string {
  const said = reasons.map(({ code, message, summary }) => [code, summary ?? message]);
  return JSON.stringify([tier, ...said]);
}

/** Reasons in words that hold for all rules of a group of one kind. */
function sharedReasons([first, ...others]: readonly PlannedRule[]): readonly PlannedReason[] {
  const reasons = first?.reasons ?? [];
  if (others.length === 0) return reasons;
  return reasons.map((reason) => ({ ...reason, message: reason.summary ?? reason.message }));
}

/** Puts groups together, near or far, that have the same name. */
function mergeGroups(
  groups: readonly RuleGroup[],
  nameOf: (group: RuleGroup) => string,
): readonly RuleGroup[] {
  const merged = new Map<string, { first: RuleGroup; rules: PlannedRule[]; isSame: boolean }>();
  for (const group of groups) {
    const name = nameOf(group);
    const known = merged.get(name);
    if (known === undefined) {
      merged.set(name, { first: group, rules: [...group.rules], isSame: true });
      continue;
    }
    known.rules.push(...group.rules);
    known.isSame &&= kindOf(known.first) === kindOf(group);
  }
  return [...merged.values()].map(({ first, rules, isSame }) => {
    const example = ({ code, message }: PlannedReason) => ({ code, message: `e.g. ${message}` });
    return { ...first, rules, reasons: isSame ? sharedReasons(rules) : first.reasons.map(example) };
  });
}

/** At most about `most` groups: alike ones together, then those whose reasons are of one kind. */
function sumUpGroups(groups: readonly RuleGroup[], most: number): readonly RuleGroup[] {
  if (groups.length <= most) return groups;
  const alike = mergeGroups(groups, kindOf);
  if (alike.length <= most) return alike;
  return mergeGroups(alike, ({ tier, reasons }) =>
    [tier, ...reasons.map(({ code }) => code)].join(' '),
  );
}

/**
 * Rules chain by chain, put together where neighbours have the same tier for the same reasons; a
 * chain with more than `most` such groups is summed up further.
 */
export function groupRules(
  rules: readonly PlannedRule[],
  most = Number.POSITIVE_INFINITY,
): readonly ChainGroups[] {
  const chains = new Map<string, { tier: string; kind: string; rules: PlannedRule[] }[]>();
  for (const rule of rules) {
    const { family, table, chain } = rule.rule;
    const name = `${family} ${table} ${chain}`;
    const groups = chains.get(name) ?? [];
    const last = groups.at(-1);
    const isNext = last?.rules.at(-1)?.rule.index === rule.rule.index - 1;
    const kind = kindOf(rule);
    if (last !== undefined && isNext && last.kind === kind) last.rules.push(rule);
    else groups.push({ tier: rule.tier, kind, rules: [rule] });
    chains.set(name, groups);
  }
  return [...chains].map(([chain, groups]) => {
    const whole = groups.map(({ tier, rules: own }) => {
      return { tier, reasons: sharedReasons(own), rules: own };
    });
    return { chain, groups: sumUpGroups(whole, most) };
  });
}

/** A rule's text without what its counters have counted so far. */
export function withoutCounts(text: string): string {
  return text.replace(/ packets \d+ bytes \d+/g, '');
}

/** A rule as messages name it: where it is, and what it says. */
export function quoteRule(rule: RuleId, text: string): string {
  return `rule ${formatRuleId(rule)} (${withoutCounts(text)})`;
}

/** What stands at an entry, as messages name it: its rule, or what the kernel or a policy does. */
export function quoteEntry({ rule, label }: Pick<Entry, 'rule' | 'label'>): string {
  return rule === null ? label : quoteRule(rule, label);
}

/** The rule's position as nft and people count: `12`, or `#3` when it has no handle. */
export function positionOf({ handle, index }: RuleId): string {
  return handle === null ? `#${index + 1}` : `${handle}`;
}

/** `12`, `12-480` for several, or `12..480` where others stand between them. */
export function spanOf({ rules }: RuleGroup): string {
  const [first, last] = [rules[0], rules.at(-1)];
  if (first === undefined || last === undefined) return '';
  const from = positionOf(first.rule);
  if (first === last) return from;
  const isWhole = last.rule.index - first.rule.index === rules.length - 1;
  return `${from}${isWhole ? '-' : '..'}${positionOf(last.rule)}`;
}

/** Long reasons that several rules share, numbered from 1, each said once at the end of a report. */
export interface Footnotes {
  /** The reason in a few words with its footnote's number, or the whole of it. */
  readonly shorten: (reason: PlannedReason, of: RuleId) => string;
  /** What was shortened so far. */
  readonly lines: () => readonly string[];
}

/** Collects footnotes while a report is written. */
export function createFootnotes(): Footnotes {
  const numbers = new Map<string, number>();
  return {
    shorten({ message, by }, of) {
      if (by === undefined) return message;
      const { family, table, chain } = by.rule;
      const known = numbers.get(message) ?? numbers.size + 1;
      numbers.set(message, known);
      const same = family === of.family && table === of.table && chain === of.chain;
      const where = `${same ? '' : `${family} ${table} ${chain} `}${positionOf(by.rule)}`;
      return `behind rule ${where}, which cannot be decided here [${known}]`;
    },
    lines: () => [...numbers].map(([message, number]) => `[${number}] ${message}`),
  };
}

/** Rules a tier, in the order of tiers; tiers without rules are there too. */
export function countTiers({ profiles, rules }: PlanReport): ReadonlyMap<string, number> {
  const counts = new Map<string, number>(profiles.map((name) => [name, 0]));
  for (const { tier } of rules) counts.set(tier, (counts.get(tier) ?? 0) + 1);
  return counts;
}
