import fc from 'fast-check';
import { expect, it } from 'vitest';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { formatRuleId, type RuleId, type Ruleset } from '../../src/ir/ruleset.ts';
import { findFindings } from '../../src/plan/findings.ts';
import type { Finding } from '../../src/plan/report.ts';
import { toHex } from '../../src/support/bits.ts';
import { labFacts } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { ARBITRARY_POOL, rulesets } from '../support/ruleset-arbitrary.ts';

const FACTS = labFacts('host');
const FRAMES = makeFrames(23, 300, ARBITRARY_POOL);
const PACKETS = FRAMES.map(parsePacket);
const DEAD = ['finding/shadowed', 'finding/duplicate', 'finding/never-matches'];
const REMOVABLE = [...DEAD, 'finding/redundant'];

function hexOf(at: number): string {
  return toHex(FRAMES[at] ?? new Uint8Array(0));
}

function rulesWith(findings: readonly Finding[], codes: readonly string[]): ReadonlySet<string> {
  const found = findings.filter(({ code }) => codes.includes(code));
  return new Set(found.flatMap(({ rule }) => (rule === null ? [] : [formatRuleId(rule)])));
}

function outcomesOf(ruleset: Ruleset) {
  const { classifier } = flatten(ruleset, FACTS);
  const evaluate = prepare(classifier, { mode: 'kernel', mac: FACTS.mac });
  return { classifier, outcomes: PACKETS.map(evaluate) };
}

/** The ruleset without these rules; the others keep their places in its ids. */
function without(ruleset: Ruleset, gone: ReadonlySet<string>): Ruleset {
  const tables = ruleset.tables.map((table) => ({
    ...table,
    chains: table.chains.map((chain) => ({
      ...chain,
      rules: chain.rules.filter(({ id }) => !gone.has(formatRuleId(id))),
    })),
  }));
  return { tables };
}

/** What was counted, by counters' owners: the classifiers number them differently. */
function countsOf({ classifier, outcomes }: ReturnType<typeof outcomesOf>, at: number) {
  const named = [...(outcomes[at]?.counts ?? [])].map(([index, { packets, bytes }]) => {
    const counter = classifier.counters[index];
    const owner = counter?.rule == null ? counter?.name : formatRuleId(counter.rule);
    return `${counter?.table} ${owner} ${counter?.view} ${packets} ${bytes}`;
  });
  return named.sort();
}

it('never sees a packet match a rule that is said to match none', () => {
  let checked = 0;
  fc.assert(
    fc.property(rulesets, (ruleset) => {
      const dead = rulesWith(findFindings(ruleset, FACTS), DEAD);
      if (dead.size === 0) return;
      checked += 1;
      const { classifier, outcomes } = outcomesOf(ruleset);
      for (const [at, { trail }] of outcomes.entries()) {
        const passed = trail.flatMap((index) => classifier.entries[index]?.rule ?? []);
        const wrong = passed
          .map((rule: RuleId) => formatRuleId(rule))
          .filter((rule) => dead.has(rule));
        expect(wrong, hexOf(at)).toEqual([]);
      }
    }),
    { numRuns: 300 },
  );
  expect(checked).toBeGreaterThan(20);
}, 120_000);

it('sees no difference when rules with findings are taken away, all or some', () => {
  let checked = 0;
  fc.assert(
    fc.property(rulesets, fc.nat(), (ruleset, seed) => {
      const removable = [...rulesWith(findFindings(ruleset, FACTS), REMOVABLE)];
      const gone = new Set(removable.filter((_, at) => seed % 3 === 0 || (seed >> (at % 20)) & 1));
      if (gone.size === 0) return;
      checked += 1;
      const before = outcomesOf(ruleset);
      const after = outcomesOf(without(ruleset, gone));
      for (const [at, { verdict }] of before.outcomes.entries()) {
        const now = after.outcomes[at]?.verdict;
        if (verdict === 'unknown' || now === 'unknown') continue;
        expect(now, hexOf(at)).toBe(verdict);
        expect(countsOf(after, at), hexOf(at)).toEqual(countsOf(before, at));
      }
    }),
    { numRuns: 300 },
  );
  expect(checked).toBeGreaterThan(40);
}, 120_000);
