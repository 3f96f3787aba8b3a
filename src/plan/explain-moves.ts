import { formatRuleId, type RuleId } from '../ir/ruleset.ts';
import type { Profile } from '../profile/schema.ts';
import { type Change, listChanges } from './explain-changes.ts';
import { type Situation, specialiseFor } from './place.ts';
import { entriesByRule, rulesOf, viewRule } from './plan.ts';
import type { PlannedReason } from './report.ts';
import { walkOf } from './walk.ts';

/** What a tier would do for one rule. */
export interface Trial {
  readonly decides: boolean;
  readonly reasons: readonly PlannedReason[];
}

/** Specialises for one tier and looks at one rule; null for a tier without a backend. */
export function tryRule(situation: Situation, profile: Profile, rule: RuleId): Trial | null {
  const tried = specialiseFor(situation, profile);
  if (tried === null) return null;
  const { flattened, specialised } = tried;
  const key = formatRuleId(rule);
  const indices = entriesByRule(flattened.classifier.entries).get(key) ?? [];
  const out = flattened.leftOut.get(key);
  if (indices.length === 0) return { decides: false, reasons: out === undefined ? [] : [out] };
  return viewRule(indices, walkOf(flattened.classifier, specialised));
}

/** Facts and concessions that together move a rule, none of which is needless. */
export interface Grant {
  readonly changes: readonly Change[];
  readonly tier: string;
  /** Some packets of the rule would still be left to the kernel. */
  readonly partly: boolean;
}

/** What all that could be told and given up would do. */
export interface Grants {
  /** Those with fewest concessions first, then the smallest. */
  readonly found: readonly Grant[];
  /** Why the rule stays even if everything is told and given up; empty where it does not. */
  readonly left: readonly PlannedReason[];
}

/** Says nothing of a rule of a forward chain but that the machine is supposed to be a host. */
const NOT_FORWARDING = 'path/not-forwarding';

function nameChanges(changes: readonly Change[]): string {
  return changes.map(({ option }) => option).join(' ');
}

/** Longer walks are tried less often, so that an answer takes seconds. */
const LONG_WALK = 20_000;

function countConcessions(changes: readonly Change[]): number {
  return changes.filter(({ kind }) => kind === 'concession').length;
}

function pairsOf(changes: readonly Change[]): readonly (readonly Change[])[] {
  return changes.flatMap((one, at) => changes.slice(at + 1).map((other) => [one, other]));
}

/** Leaves out what is not needed, concessions first. */
function minimise(
  changes: readonly Change[],
  moves: (changes: readonly Change[]) => boolean,
): readonly Change[] {
  let left = changes;
  const order = [...changes].sort((a, b) => (a.kind === b.kind ? 0 : a.kind === 'fact' ? 1 : -1));
  for (const one of order) {
    const without = left.filter((other) => other !== one);
    if (moves(without)) left = without;
  }
  return left;
}

/**
 * Tries facts and concessions: each alone; where no fact alone is enough, the facts together; where
 * nothing alone is enough, pairs, then all together less what is needless.
 */
export function findGrants(situation: Situation, tiers: readonly Profile[], rule: RuleId): Grants {
  const isLong = rulesOf(situation.ruleset).length * tiers.length > LONG_WALK;
  const known = new Map<string, Grant | null>();
  const grant = (changes: readonly Change[]): Situation =>
    changes.reduce((now, { apply }) => apply(now), situation);
  const attempt = (changes: readonly Change[]): Grant | null => {
    const key = nameChanges(changes);
    const before = known.get(key);
    if (before !== undefined) return before;
    const granted = grant(changes);
    for (const profile of tiers) {
      const trial = tryRule(granted, profile, rule);
      if (trial?.decides !== true) continue;
      const found = { changes, tier: profile.name, partly: trial.reasons.length > 0 };
      known.set(key, found);
      return found;
    }
    known.set(key, null);
    return null;
  };
  const moves = (changes: readonly Change[]): boolean => attempt(changes) !== null;
  const found = new Map<string, Grant>();
  const keep = (changes: readonly Change[]): void => {
    const one = attempt(changes);
    if (one !== null) found.set(nameChanges(changes), one);
  };
  const keepLeast = (changes: readonly Change[]): void => {
    if (moves(changes)) keep(minimise(changes, moves));
  };
  const left: PlannedReason[][] = [];
  for (const changes of listChanges(situation)) {
    if (!moves(changes)) {
      const [first] = tiers;
      const trial = first === undefined ? null : tryRule(grant(changes), first, rule);
      left.push([...(trial?.reasons ?? [])]);
      continue;
    }
    const alone = changes.filter((change) => moves([change]));
    for (const change of alone) keep([change]);
    if (!alone.some(({ kind }) => kind === 'fact')) {
      keepLeast(changes.filter(({ kind }) => kind === 'fact'));
    }
    if (alone.length > 0) continue;
    keepLeast(changes);
    keepLeast(changes.filter(({ kind, isRole }) => kind === 'concession' || isRole));
    const smallest = Math.min(...[...found.values()].map((one) => one.changes.length));
    if (smallest > 2 && !isLong) for (const pair of pairsOf(changes)) keep(pair);
  }
  const grants = [...found.values()].sort(
    (a, b) =>
      countConcessions(a.changes) - countConcessions(b.changes) ||
      a.changes.length - b.changes.length,
  );
  const telling = left.find((reasons) => reasons.every(({ code }) => code !== NOT_FORWARDING));
  const reasons = telling ?? left[0] ?? [];
  // Its own reasons say more than what it stands behind for other kinds of flows.
  const own = reasons.filter(({ by }) => by === undefined);
  return { found: grants, left: grants.length > 0 ? [] : own.length > 0 ? own : reasons };
}
