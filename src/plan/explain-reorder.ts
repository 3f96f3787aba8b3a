import type { Entry } from '../ir/classifier.ts';
import type { Facts } from '../ir/facts.ts';
import { flattenChain } from '../ir/flatten.ts';
import { formatRuleId, type Rule, type Ruleset, type Table } from '../ir/ruleset.ts';
import type { Profile } from '../profile/schema.ts';
import { tryRule } from './explain-moves.ts';
import { isDisjoint, matchOf } from './match.ts';
import type { Situation } from './place.ts';

/** Moving a rule to before another one of its chain. */
export interface Reorder {
  readonly before: Rule;
  readonly tier: string;
  /** Some packets of the rule would still be left to the kernel. */
  readonly partly: boolean;
  /** Rules it would pass that may decide some of its packets otherwise; empty: nothing changes. */
  readonly conflicts: readonly Rule[];
}

/** Blockers passed one after the other at most. */
const MOST_BLOCKERS = 8;

/** The entries of each rule of a chain in the first base chain that runs it, as written. */
function entriesIn(table: Table, facts: Facts, chain: string): ReadonlyMap<string, Entry[]> {
  for (const candidate of table.chains) {
    if (candidate.base === null) continue;
    const { entries } = flattenChain({ table, chain: candidate, base: candidate.base }, facts);
    const own = entries.filter(({ rule }) => rule !== null && rule.chain === chain);
    if (own.length === 0) continue;
    const groups = new Map<string, Entry[]>();
    for (const entry of own) {
      if (entry.rule === null) continue;
      const key = formatRuleId(entry.rule);
      groups.set(key, [...(groups.get(key) ?? []), entry]);
    }
    return groups;
  }
  return new Map();
}

/** What a rule's only entry does with all that match, where that is all it does. */
function onlyVerdict(rule: Rule): string | null {
  const verdict = rule.steps.at(-1);
  const tests = rule.steps.slice(0, -1);
  if (verdict?.kind !== 'verdict' || !['drop', 'accept'].includes(verdict.verdict.kind))
    return null;
  const isPure = tests.every((step) => step.kind === 'test' && !isStateful(step.test));
  return isPure ? verdict.verdict.kind : null;
}

function isStateful(test: Extract<Rule['steps'][number], { kind: 'test' }>['test']): boolean {
  return test.kind === 'unknown' && test.stateful;
}

/** Whether the order of two rules of a chain certainly does not matter. */
function mayChangePlaces(a: Rule, b: Rule, entries: ReadonlyMap<string, Entry[]>): boolean {
  const verdict = onlyVerdict(a);
  if (verdict !== null && verdict === onlyVerdict(b)) return true;
  const [first] = entries.get(formatRuleId(a.id)) ?? [];
  const [other] = entries.get(formatRuleId(b.id)) ?? [];
  if (first === undefined || other === undefined) return false;
  return isDisjoint(matchOf(first), matchOf(other));
}

/** The ruleset with a rule moved to before another of its chain; ids stay. */
function moveRule(ruleset: Ruleset, rule: Rule, before: Rule): Ruleset {
  const key = formatRuleId(rule.id);
  const place = formatRuleId(before.id);
  const tables = ruleset.tables.map((table) => ({
    ...table,
    chains: table.chains.map((chain) => {
      if (!chain.rules.some(({ id }) => formatRuleId(id) === key)) return chain;
      const rules = chain.rules.flatMap((one) => {
        const name = formatRuleId(one.id);
        if (name === key) return [];
        return name === place ? [rule, one] : [one];
      });
      return { ...chain, rules };
    }),
  }));
  return { tables };
}

/**
 * Tries a rule in earlier places of its chain: before the rule it stands behind, and before the one
 * that it stands behind there, until a tier decides it.
 */
export function findReorder(situation: Situation, profile: Profile, rule: Rule): Reorder | null {
  const { ruleset, facts } = situation;
  const { family, table: tableName, chain } = rule.id;
  const table = ruleset.tables.find((one) => one.family === family && one.name === tableName);
  const rules = table?.chains.find(({ name }) => name === chain)?.rules ?? [];
  const at = rules.findIndex(({ id }) => formatRuleId(id) === formatRuleId(rule.id));
  if (table === undefined) return null;
  let trial = tryRule(situation, profile, rule.id);
  let place = at;
  for (let tries = 0; tries < MOST_BLOCKERS; tries += 1) {
    const blockers = (trial?.reasons ?? []).flatMap(({ by }) =>
      by === undefined ? [] : [formatRuleId(by.rule)],
    );
    const next = rules.findIndex(({ id }) => blockers.includes(formatRuleId(id)));
    const before = rules[next];
    if (before === undefined || next >= place) return null;
    place = next;
    trial = tryRule({ ...situation, ruleset: moveRule(ruleset, rule, before) }, profile, rule.id);
    if (trial?.decides !== true) continue;
    const passed = rules.slice(place, at);
    const entries = entriesIn(table, facts, chain);
    const conflicts = passed.filter((other) => !mayChangePlaces(other, rule, entries));
    return { before, tier: profile.name, partly: trial.reasons.length > 0, conflicts };
  }
  return null;
}
