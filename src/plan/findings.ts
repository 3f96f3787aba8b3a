import type { Entry } from '../ir/classifier.ts';
import type { Facts } from '../ir/facts.ts';
import { flattenChain } from '../ir/flatten.ts';
import { formatTest } from '../ir/print.ts';
import { type Chain, formatRuleId, type Rule, type RuleId, type Ruleset } from '../ir/ruleset.ts';
import { type Dead, findDead } from './findings-dead.ts';
import { createRedundancy, type Redundancy } from './findings-redundant.ts';
import { explainSets } from './findings-sets.ts';
import { matchOf } from './match.ts';
import { type Finding, quoteEntry } from './report.ts';

/** One base chain with all it calls, as a walk, and what was found out about it. */
interface Walk {
  readonly entries: readonly Entry[];
  /** The rules' names, by entry. */
  readonly names: readonly (string | null)[];
  readonly dead: readonly (Dead | null)[];
  readonly redundancy: Redundancy;
}

/** One of the places where a rule runs. */
interface Place {
  readonly walk: Walk;
  readonly index: number;
}

function analyseChains(ruleset: Ruleset, facts: Facts): readonly Walk[] {
  return ruleset.tables.flatMap((table) =>
    table.chains.flatMap((chain) => {
      if (chain.base === null) return [];
      const { entries } = flattenChain({ table, chain, base: chain.base }, facts);
      const matches = entries.map(matchOf);
      const redundancy = createRedundancy(entries, matches);
      const names = entries.map(({ rule }) => (rule === null ? null : formatRuleId(rule)));
      return [{ entries, names, dead: findDead(entries, matches), redundancy }];
    }),
  );
}

function placesByRule(walks: readonly Walk[]): ReadonlyMap<string, readonly Place[]> {
  const places = new Map<string, Place[]>();
  for (const walk of walks) {
    for (const [index, key] of walk.names.entries()) {
      if (key === null) continue;
      const known = places.get(key);
      if (known === undefined) places.set(key, [{ walk, index }]);
      else known.push({ walk, index });
    }
  }
  return places;
}

function ruleOf(entry: Entry | undefined): readonly RuleId[] {
  return entry === undefined || entry.rule === null ? [] : [entry.rule];
}

/** No place of the rule is one where a packet ever matches it. */
function explainDead(rule: RuleId, places: readonly Place[]): Finding | null {
  const causes = places.map(({ walk, index }) => ({ walk, dead: walk.dead[index] ?? null }));
  const [first] = causes;
  if (first === undefined || causes.some(({ dead }) => dead === null)) return null;
  const { walk, dead } = first;
  if (dead === null) return null;
  if (dead.kind === 'contradiction') {
    const tests = dead.tests.map(formatTest).join(' and ');
    const message = `no packet can match it: ${tests} never hold${dead.tests.length > 1 ? ' together' : 's'}`;
    return { code: 'finding/never-matches', rule, by: [], message };
  }
  const by = dead.by === null ? undefined : walk.entries[dead.by];
  if (by === undefined) {
    const message = 'no packet gets to it: the rules that lead here never match';
    return { code: 'finding/shadowed', rule, by: [], message };
  }
  const isSame = dead.kind === 'covered' && dead.isSame && by.rule !== null;
  const message = isSame
    ? `${quoteEntry(by)} asks for the same and comes first`
    : `no packet is left for it: ${quoteEntry(by)} comes first and decides all that it matches`;
  const code = isSame ? 'finding/duplicate' : 'finding/shadowed';
  return { code, rule, by: ruleOf(by), message };
}

/** Whether the rule does nothing but give a verdict, so that the verdict is all that can be missed. */
function isOnlyVerdict({ steps, tracks, nat }: Rule): boolean {
  const isPure = steps.every((step) => {
    if (step.kind === 'test') return step.test.kind !== 'unknown' || !step.test.stateful;
    return step.kind === 'verdict' || step.kind === 'vmap';
  });
  return isPure && !tracks && !nat;
}

function explainRedundant(
  rule: Rule,
  places: readonly Place[],
  gone: ReadonlySet<string | null>,
): Finding | null {
  if (!isOnlyVerdict(rule)) return null;
  const key = formatRuleId(rule.id);
  const does = places.map(({ walk, index }) => {
    const { entries, names, redundancy } = walk;
    const found = redundancy(index, (at) => names[at] === key || gone.has(names[at] ?? null));
    if (found === null) return null;
    return { instead: found.by === null ? undefined : entries[found.by] };
  });
  const [first] = does;
  if (first == null || does.some((one) => one === null)) return null;
  const { instead } = first;
  const what = instead === undefined ? 'what stands behind it' : quoteEntry(instead);
  const message = `nothing changes without it: ${what} decides the same`;
  return { code: 'finding/redundant', rule: rule.id, by: ruleOf(instead), message };
}

/** Chains that no base chain calls, each by its first rule. */
function explainUncalled({ name, base, rules }: Chain, isRun: (rule: Rule) => boolean): Finding[] {
  const [first] = rules;
  if (base !== null || first === undefined || isRun(first)) return [];
  const count = rules.length === 1 ? 'its rule never runs' : `its ${rules.length} rules never run`;
  const message = `nothing calls chain ${name}: ${count}`;
  return [{ code: 'finding/never-called', rule: first.id, by: [], message }];
}

/**
 * What can be said of the rules and sets of a ruleset, in listing order, each base chain by itself.
 * Some findings may be missing, none is wrong, and all rules found out here can be taken away
 * together. Takes time near enough proportional to the rules. (`facts` are not looked at but for the
 * device that diagnostics name.)
 */
export function findFindings(ruleset: Ruleset, facts: Facts): readonly Finding[] {
  const places = placesByRule(analyseChains(ruleset, facts));
  const placesOf = (rule: Rule): readonly Place[] => places.get(formatRuleId(rule.id)) ?? [];
  const chains = ruleset.tables.flatMap((table) => table.chains);
  const rules = chains.flatMap((chain) => chain.rules);
  const dead = new Map<string, Finding>();
  for (const { id } of rules) {
    const key = formatRuleId(id);
    const finding = explainDead(id, places.get(key) ?? []);
    if (finding !== null) dead.set(key, finding);
  }
  // Each is redundant whether those found before it are still there or not.
  const gone = new Set<string | null>(dead.keys());
  const findings: Finding[] = [];
  for (const table of ruleset.tables) {
    for (const chain of table.chains) {
      findings.push(...explainUncalled(chain, (rule) => placesOf(rule).length > 0));
      for (const rule of chain.rules) {
        const key = formatRuleId(rule.id);
        const found = dead.get(key) ?? explainRedundant(rule, placesOf(rule), gone);
        if (found === null) continue;
        gone.add(key);
        findings.push(found);
      }
    }
    findings.push(...explainSets(table));
  }
  return findings;
}
