import type { Reason } from '../support/diagnostics.ts';
import type { Effect } from './classifier.ts';
import { META } from './fields.ts';
import { counterOf } from './flatten-rules.ts';
import { equals } from './operand.ts';
import type { PathChain } from './path.ts';
import { resolveTest, type Site } from './resolve-test.ts';
import type { CounterRef, Rule, Table, Test } from './ruleset.ts';
import { type Builder, push } from './walk-builder.ts';

const FIRST_PACKET: Test = {
  kind: 'unknown',
  reason: {
    code: 'path/nat-counts',
    message: 'a nat chain may count or tell of it, which only the first packet of a flow meets',
  },
  stateful: false,
  text: 'first packet of a flow',
};

/** What a rule leaves behind besides its verdict, and the tests in front of it. */
interface Traces {
  readonly tests: readonly Test[];
  readonly counters: readonly CounterRef[];
  readonly effects: readonly Effect[];
}

function findTraces({ steps }: Rule, site: Site): Traces {
  const tests: Test[] = [];
  const counters: CounterRef[] = [];
  const effects: Effect[] = [];
  const tell = (name: string, reason: Reason): void =>
    void effects.push({ name, reason, external: true });
  for (const step of steps) {
    if (step.kind === 'count') counters.push(step.counter);
    else if (step.kind === 'effect' && step.external) tell(step.name, step.reason);
    if (step.kind !== 'test') continue;
    const test = resolveTest(step.test, site);
    if (test === false) break;
    if (test === true) continue;
    if (test.kind === 'unknown' && test.stateful) tell(test.text, test.reason);
    // Tests behind the first trace do not undo it.
    if (test.kind !== 'unknown' && counters.length + effects.length === 0) tests.push(test);
  }
  return { tests, counters, effects };
}

/** The base chain's rules and those that any rule of the table may call. */
function rulesOf(table: Table, chain: PathChain['chain']): readonly Rule[] {
  return table.chains.filter((one) => one === chain || one.base === null).flatMap((c) => c.rules);
}

/**
 * Nat chains run for the first packet of a flow alone, which nobody can tell from the frame: packets
 * that a rule there may count, or tell of, are left to the kernel from there on.
 */
export function pushNatTraces(builder: Builder, { table, chain, base }: PathChain): void {
  const { facts, link, changed, states } = builder;
  const view = 'l3';
  const site: Site = { facts, link, view, hook: base.hook, changed, states };
  const version = table.family === 'ip' ? 2n : table.family === 'ip6' ? 10n : null;
  const family = version === null ? [] : [equals(META.nfproto, version)];
  for (const rule of rulesOf(table, chain)) {
    const { tests, counters, effects } = findTraces(rule, site);
    if (counters.length + effects.length === 0) continue;
    const counts = counters.map((counter) => {
      const name = counter.kind === 'named' ? counter.name : null;
      return counterOf(
        builder,
        { rule: name === null ? rule.id : null, name, view },
        { table, view },
      );
    });
    push(builder, {
      label: `nat chain ${chain.name}: ${rule.text}`,
      view,
      tests: [...family, ...tests, FIRST_PACKET],
      counts,
      effects,
    });
  }
}
