import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import type { Artifact, Tier } from '../../src/backends/backend.ts';
import { type Outcome, prepare } from '../../src/ir/evaluate.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { EVERYTHING, specialise } from '../../src/ir/specialise.ts';
import { type Choice, type Demand, fitTier, listCandidates } from '../../src/plan/choose.ts';
import { placeRuleset, placeTier } from '../../src/plan/place.ts';
import { planRules } from '../../src/plan/plan.ts';
import { NOTHING_SETTLED } from '../../src/plan/settle.ts';
import { weighRules } from '../../src/plan/weights.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { XdpProfile } from '../../src/profile/schema.ts';
import { toHex } from '../../src/support/bits.ts';
import { errorAt, fail, succeed } from '../../src/support/diagnostics.ts';
import { isLeftToKernel } from '../support/compare.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { ARBITRARY_POOL, rulesets } from '../support/ruleset-arbitrary.ts';

const FACTS = labFacts('host');
const FRAMES = makeFrames(13, 200, ARBITRARY_POOL).filter(({ length }) => length >= 14);
const PACKETS = FRAMES.map(parsePacket);

/** Rules with counters that have counted: weights that differ. */
const weighted: fc.Arbitrary<Ruleset> = fc
  .tuple(rulesets, fc.array(fc.nat(1000), { minLength: 1, maxLength: 8 }))
  .map(([ruleset, packets]) => ({
    tables: ruleset.tables.map((table) => ({
      ...table,
      chains: table.chains.map((chain, c) => ({
        ...chain,
        rules: chain.rules.map((rule, r) => ({
          ...rule,
          steps: rule.steps.map((step) =>
            step.kind === 'count' && step.counter.kind === 'anonymous'
              ? {
                  ...step,
                  counter: { ...step.counter, packets: packets[(c + r) % packets.length] ?? 0 },
                }
              : step,
          ),
        })),
      })),
    })),
  }));

let native: XdpProfile;
let generic: XdpProfile;

beforeAll(async () => {
  const other = unwrap(await loadProfile('xdp-generic'));
  if (other.kind !== 'xdp-generic') throw new Error('bug: xdp-generic is of another kind');
  generic = other;
  const profile = unwrap(await loadProfile('xdp-native'));
  if (profile.kind !== 'xdp-native') throw new Error('bug: xdp-native is of another kind');
  native = profile;
});

function limitedTo(insns: number): XdpProfile {
  const limit = { ...native.limits.insns, value: insns };
  return { ...native, name: 'small', limits: { ...native.limits, insns: limit } };
}

function place(ruleset: Ruleset, insns: number) {
  const situation = { ruleset, facts: FACTS, concessions: [], replyPorts: null };
  return placeTier(situation, limitedTo(insns));
}

function countsOf({ counts }: Outcome): readonly unknown[] {
  return [...counts].sort(([a], [b]) => a - b);
}

/** More than any choice weighs: the tier took all. */
const ALL = Number.POSITIVE_INFINITY;

it('drops on a small tier only what the whole drops, within its limit, never less with more', {
  timeout: 120_000,
}, () => {
  let choices = 0;
  fc.assert(
    fc.property(weighted, fc.integer({ min: 5, max: 99 }), (ruleset, percent) => {
      const whole = unwrap(place(ruleset, 1_000_000));
      const used = whole.artifact.usage[0]?.used ?? 0;
      const limit = Math.round((percent * used) / 100);
      const results = [limit, limit + 1, limit + 10, used].map((insns) => place(ruleset, insns));
      const weights = results.map((result) => {
        if (!result.ok) return -1;
        return result.value.choice?.weight ?? ALL;
      });
      expect(weights).toEqual([...weights].sort((a, b) => a - b));
      expect(weights.at(-1)).toBe(ALL);
      const [placed] = results;
      if (placed === undefined || !placed.ok || placed.value.choice === null) return;
      const { artifact, compiled, flattened, choice } = placed.value;
      choices += 1;
      expect(artifact.usage[0]?.used).toBeLessThanOrEqual(limit);
      const again = unwrap(place(ruleset, limit));
      expect(again.artifact.listing()).toBe(artifact.listing());
      const reference = prepare(flattened.classifier, { mode: 'kernel', mac: FACTS.mac });
      const tier = prepare(choice.classifier, { mode: 'tier', mac: FACTS.mac });
      const run = compiled.interpret();
      for (const [at, packet] of PACKETS.entries()) {
        const frame = FRAMES[at] ?? new Uint8Array(0);
        if (run(frame) !== 'drop') continue;
        const truth = reference(packet);
        if (truth.reason?.code === 'packet/later-fragment') continue;
        expect(['drop', 'lost'], toHex(frame)).toContain(truth.verdict);
        expect(countsOf(tier(packet)), toHex(frame)).toEqual(countsOf(truth));
      }
      // Every rule that is left says why.
      for (const rule of planRules(ruleset, [placed.value])) {
        expect(rule.tier === 'host' && rule.reasons.length === 0).toBe(false);
      }
    }),
    { numRuns: 50 },
  );
  expect(choices).toBeGreaterThan(10);
});

it('drops in a row of tiers all that any of them could drop alone', () => {
  let settled = 0;
  let dropped = 0;
  // Loads nothing behind the first 40 bytes, and receives frames in another way.
  const near = { ...native.limits.packetDepth, value: 40 };
  const shallow = { ...native, name: 'shallow', limits: { ...native.limits, packetDepth: near } };
  const rows = [
    [native, generic],
    [generic, native],
    [shallow, native],
    [native, shallow],
    [shallow, generic, native],
  ];
  fc.assert(
    fc.property(weighted, fc.constantFrom(...rows), fc.boolean(), (ruleset, row, groOff) => {
      const facts = { ...FACTS, groOff };
      const situation = { ruleset, facts, concessions: [], replyPorts: null };
      const together = unwrap(placeRuleset(situation, row));
      const alone = row.map((profile) => unwrap(placeTier(situation, profile)));
      if (together.some(({ choice }) => choice !== null)) settled += 1;
      const [all, each] = [together, alone].map((tiers) =>
        tiers.map(({ compiled }) => compiled.interpret()),
      );
      const reference = prepare(flatten(ruleset, facts).classifier, {
        mode: 'kernel',
        mac: FACTS.mac,
      });
      for (const [at, packet] of PACKETS.entries()) {
        const frame = FRAMES[at] ?? new Uint8Array(0);
        // What the kernel discards by itself a tier need not drop, and may.
        if (reference(packet).verdict === 'lost') continue;
        // A tier that cannot load what is odd about a frame does not mind that it is; one that does
        // not reach as far walks no extension headers.
        if (packet.odd !== null || isLeftToKernel(packet, row.includes(shallow))) continue;
        const isDropped = each?.some((run) => run(frame) === 'drop') === true;
        if (isDropped) dropped += 1;
        expect(
          all?.some((run) => run(frame) === 'drop'),
          toHex(frame),
        ).toBe(isDropped);
      }
    }),
    { numRuns: 60 },
  );
  expect(settled).toBeGreaterThan(4);
  expect(dropped).toBeGreaterThan(100);
});

/** A tier whose rows are the entries that are there, each one row: what an exact solver can check. */
function rowTier(limit: number): Tier<Artifact> {
  return {
    profile: native,
    receivePath: { loopedCopies: false, switchesGroOff: false },
    decidesAlike: true,
    capabilities: EVERYTHING,
    estimates: {
      room: [{ resource: 'rows', limit }],
      costOf: ({ tests, counts }) => [tests.length + counts.length],
      isExact: true,
    },
    isTooBig: () => true,
    compile: (classifier) => {
      const { entries } = specialise(classifier, EVERYTHING).classifier;
      const used = entries.reduce(
        (sum, { tests, counts, then }) =>
          sum + (then.kind === 'lost' ? 0 : tests.length + counts.length),
        0,
      );
      if (used > limit) return fail(errorAt('rows/too-many', `${used} rows, there are ${limit}`));
      const usage = [{ resource: 'rows', used, limit }];
      const artifact = { files: [], usage, costs: new Map(), listing: () => '', classifier };
      return succeed({ artifact, interpret: () => () => 'continue' as const });
    },
  };
}

function demandOf(ruleset: Ruleset): Demand {
  const { classifier } = flatten(ruleset, FACTS);
  const specialised = specialise(classifier, EVERYTHING);
  const weights = weighRules(ruleset);
  const options = { mayMiscount: false };
  return { classifier, specialised, weights, settled: NOTHING_SETTLED, options };
}

/** The most that any set of candidates weighs, by trying all of them. */
function bestByHand(demand: Demand, limit: number): number {
  const { candidates } = listCandidates(demand);
  const { entries } = demand.specialised.classifier;
  const priceOf = (at: number) =>
    (entries[at]?.tests.length ?? 0) + (entries[at]?.counts.length ?? 0);
  let best = 0;
  for (let bits = 0; bits < 2 ** candidates.length; bits += 1) {
    const chosen = candidates.filter((_, at) => (bits >> at) & 1);
    const parts = [...new Set(chosen.flatMap(({ needs }) => needs))];
    const price = parts.reduce((sum, at) => sum + priceOf(at), 0);
    if (price <= limit)
      best = Math.max(
        best,
        chosen.reduce((sum, { weight }) => sum + weight, 0),
      );
  }
  return best;
}

it('takes the best there is where rows are counted', () => {
  let compared = 0;
  fc.assert(
    fc.property(weighted, fc.integer({ min: 0, max: 20 }), (ruleset, limit) => {
      const demand = demandOf(ruleset);
      if (listCandidates(demand).candidates.length > 10) return;
      const fitted = fitTier(rowTier(limit), demand);
      const choice: Choice | null = fitted.ok ? fitted.value.choice : null;
      if (choice === null) return;
      compared += 1;
      expect(choice.weight).toBe(bestByHand(demand, limit));
    }),
    { numRuns: 200 },
  );
  expect(compared).toBeGreaterThan(30);
});
