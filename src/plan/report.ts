import type { RuleId } from '../ir/ruleset.ts';
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
}

/** Consecutive rules of one chain with the same tier and the same reasons; never empty. */
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

/** Whether two rules have the same tier for the same reasons. */
function isAlike(a: PlannedRule, b: PlannedRule): boolean {
  if (a.tier !== b.tier || a.reasons.length !== b.reasons.length) return false;
  return a.reasons.every(({ code, message, summary }, at) => {
    const other = b.reasons[at];
    return code === other?.code && (summary ?? message) === (other.summary ?? other.message);
  });
}

/** Reasons in words that hold for all rules of a group. */
function sharedReasons(rules: readonly PlannedRule[]): readonly PlannedReason[] {
  const reasons = rules[0]?.reasons ?? [];
  if (rules.length === 1) return reasons;
  return reasons.map((reason) =>
    reason.summary === undefined ? reason : { ...reason, message: reason.summary },
  );
}

/** Rules chain by chain, put together where neighbours have the same tier for the same reasons. */
export function groupRules(rules: readonly PlannedRule[]): readonly ChainGroups[] {
  const chains = new Map<string, { rules: PlannedRule[]; tier: string }[]>();
  for (const rule of rules) {
    const { family, table, chain } = rule.rule;
    const name = `${family} ${table} ${chain}`;
    const groups = chains.get(name) ?? [];
    const last = groups.at(-1)?.rules;
    const before = last?.at(-1);
    const isNext = before !== undefined && before.rule.index + 1 === rule.rule.index;
    if (last !== undefined && isNext && isAlike(before, rule)) last.push(rule);
    else groups.push({ tier: rule.tier, rules: [rule] });
    chains.set(name, groups);
  }
  return [...chains].map(([chain, groups]) => ({
    chain,
    groups: groups.map((group) => ({ ...group, reasons: sharedReasons(group.rules) })),
  }));
}

/** The rule's position as nft and people count: `12`, or `#3` when it has no handle. */
export function positionOf({ handle, index }: RuleId): string {
  return handle === null ? `#${index + 1}` : `${handle}`;
}

/** `12`, or `12-480` for several. */
export function spanOf({ rules }: RuleGroup): string {
  const [first, last] = [rules[0], rules.at(-1)];
  if (first === undefined || last === undefined) return '';
  const from = positionOf(first.rule);
  return first === last ? from : `${from}-${positionOf(last.rule)}`;
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
