import type { RuleId } from '../ir/ruleset.ts';
import type { Reason } from '../support/diagnostics.ts';

/** The tag of `plan --json`. */
export const PLAN_FORMAT = 'nft-offload/plan@1';

/** Where one rule is decided, and why not earlier. */
export interface PlannedRule {
  readonly rule: RuleId;
  /** As nft lists it. */
  readonly text: string;
  /** The first tier that decides packets for the rule, or `host`. */
  readonly tier: string;
  /** Never empty for a rule on `host`. */
  readonly reasons: readonly Reason[];
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

/** How many rules would leave `host` if this concession were granted. */
export interface ConcessionOffer {
  readonly name: string;
  readonly unlocks: number;
}

/** What `plan` found out; `plan --json` prints exactly this. */
export interface PlanReport {
  readonly format: typeof PLAN_FORMAT;
  readonly device: string;
  readonly profiles: readonly string[];
  readonly rules: readonly PlannedRule[];
  readonly usage: readonly TierUsage[];
  readonly concessions: readonly ConcessionOffer[];
  /** Facts the plan relied on, by name, as `--fact` takes them. */
  readonly facts: Readonly<Record<string, string | readonly string[]>>;
}
