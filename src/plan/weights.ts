import { formatRuleId, type Rule, type Ruleset, type Step } from '../ir/ruleset.ts';

/** What a rule is worth where there is not room for all, and what it is worth without a counter. */
export interface Weights {
  /** By `formatRuleId`; packets as the ruleset's counters have them, and one. */
  readonly rules: ReadonlyMap<string, number>;
  /** Of everything else: as much as rules that count have on average. */
  readonly usual: number;
  /** Some counter has counted something. */
  readonly isCounted: boolean;
}

type Count = Extract<Step, { kind: 'count' }>['counter'];

/** The counter behind all that a rule tests: it counts what the rule itself decides. */
function finalCounter({ steps }: Rule): Count | null {
  let last: Count | null = null;
  for (const step of steps) {
    if (step.kind === 'count') last = step.counter;
    else if (step.kind === 'test' || step.kind === 'vmap') last = null;
  }
  return last;
}

/**
 * Weighs rules by the packets that their own counters have counted; rules that share a named
 * counter share its packets. One more than counted, so that what has seen no packet yet still is
 * worth something. Rules without a counter are taken to be like the average of those that have one.
 */
export function weighRules(ruleset: Ruleset): Weights {
  const counted = new Map<string, number>();
  const uncounted: string[] = [];
  for (const { chains, counters } of ruleset.tables) {
    const named = new Map(counters.map(({ name, packets }) => [name, { packets, users: 0 }]));
    const own: (readonly [key: string, counter: Count])[] = [];
    for (const rule of chains.flatMap(({ rules }) => rules)) {
      const key = formatRuleId(rule.id);
      const counter = finalCounter(rule);
      if (counter === null) uncounted.push(key);
      else own.push([key, counter]);
      const shared = counter?.kind === 'named' ? named.get(counter.name) : undefined;
      if (shared !== undefined) shared.users += 1;
    }
    for (const [key, counter] of own) {
      const shared = counter.kind === 'named' ? named.get(counter.name) : undefined;
      const anonymous = counter.kind === 'anonymous' ? counter.packets : 0;
      counted.set(key, shared === undefined ? anonymous : shared.packets / shared.users);
    }
  }
  const total = [...counted.values()].reduce((sum, packets) => sum + packets, 0);
  const usual = 1 + Math.round(total / Math.max(1, counted.size));
  const rules = new Map([...counted].map(([key, packets]) => [key, 1 + Math.round(packets)]));
  for (const key of uncounted) rules.set(key, usual);
  return { rules, usual, isCounted: total > 0 };
}
