import { type Chain, formatRuleId, type Rule, type Ruleset, type Step } from './ruleset.ts';

type Unknown = Extract<Extract<Step, { kind: 'test' }>['test'], { kind: 'unknown' }>;

/** The rule's own `limit` statements. */
function limitsOf({ steps }: Rule): readonly Unknown[] {
  return steps.flatMap((step) =>
    step.kind === 'test' && step.test.kind === 'unknown' && step.test.reason.code === 'match/limit'
      ? [step.test]
      : [],
  );
}

/** Whether the ruleset has a `limit` at all, named ones aside. */
export function hasLimit(ruleset: Ruleset): boolean {
  return ruleset.tables.some(({ chains }) =>
    chains.some(({ rules }) => rules.some((rule) => limitsOf(rule).length > 0)),
  );
}

/** How a rule ends: its verdict, `next` when it has none, `other` when that is none of these. */
function endOf({ steps }: Rule): 'accept' | 'drop' | 'next' | 'other' {
  const last = steps.at(-1);
  if (last?.kind === 'verdict') {
    const { kind } = last.verdict;
    return kind === 'accept' || kind === 'drop' ? kind : 'other';
  }
  if (last?.kind === 'effect' && last.outcome !== 'unknown') return last.outcome;
  return last?.kind === 'vmap' ? 'other' : 'next';
}

function changesPackets({ steps, nat }: Rule): boolean {
  return nat || steps.some((step) => step.kind === 'effect' && step.changes.length > 0);
}

/**
 * Whether a packet is never worse off for being within the rule's limit rather than over it. Only
 * packets may be counted: where bytes are, one that passes now can use up what several had before.
 */
function isFair(rule: Rule, limits: readonly Unknown[], chain: Chain): boolean {
  const end = endOf(rule);
  return limits.every(({ text }) => {
    if (!/^limit rate (over )?\d+\//.test(text)) return false;
    if (end === 'next') return !changesPackets(rule);
    if (text.startsWith('limit rate over ')) return end === 'drop';
    // Who is accepted misses the rest of the chain: no loss unless that changes packets.
    return end === 'accept' && !chain.rules.some(changesPackets);
  });
}

/**
 * Rules, by `formatRuleId`, whose limits may see fewer packets without harm to the others: those
 * within the limit are let through (or what is over it is dropped), or merely logged.
 */
export function fairLimits(ruleset: Ruleset): ReadonlySet<string> {
  const fair = ruleset.tables.flatMap(({ chains }) =>
    chains.flatMap((chain) =>
      chain.rules.filter((rule) => {
        const limits = limitsOf(rule);
        return limits.length > 0 && isFair(rule, limits, chain);
      }),
    ),
  );
  return new Set(fair.map(({ id }) => formatRuleId(id)));
}
