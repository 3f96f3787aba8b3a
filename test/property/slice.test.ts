import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Classifier, Target } from '../../src/ir/classifier.ts';
import { evaluateTest, type Outcome, prepare } from '../../src/ir/evaluate.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { createOverlaps } from '../../src/ir/overlap.ts';
import { type Packet, parsePacket } from '../../src/ir/packet.ts';
import { keepEntries, sliceDrops } from '../../src/ir/slice.ts';
import { EVERYTHING, specialise } from '../../src/ir/specialise.ts';
import { toHex } from '../../src/support/bits.ts';
import { labFacts } from '../support/pipeline.ts';
import { createRandom } from '../support/random.ts';
import { makeFrames } from '../support/random-frames.ts';
import { ARBITRARY_POOL, rulesets } from '../support/ruleset-arbitrary.ts';

const FACTS = labFacts('host');
const FRAMES = makeFrames(12, 250, ARBITRARY_POOL).filter(({ length }) => length >= 14);
const PACKETS = FRAMES.map(parsePacket);
const NO_ROOM = { code: 'plan/capacity', message: 'no room' };

function hexOf(at: number): string {
  return toHex(FRAMES[at] ?? new Uint8Array(0));
}

function countsOf({ counts }: Outcome): readonly unknown[] {
  return [...counts].sort(([a], [b]) => a - b);
}

/** Where a packet can end, and counted by which counters, when unknown tests may be true or false. */
function endsOf({ entries }: Classifier, packet: Packet): ReadonlySet<string> {
  const ends = new Set<string>();
  const walk = (target: Target, counts: readonly number[]): void => {
    const entry = target.kind === 'entry' ? entries[target.index] : undefined;
    if (entry === undefined) {
      const kind = target.kind === 'lost' && counts.length === 0 ? 'drop' : target.kind;
      ends.add(`${kind} ${[...counts].sort((a, b) => a - b).join()}`);
      return;
    }
    const view = entry.view === 'ingress' ? packet.ingress : (packet.l3 ?? packet.ingress);
    const truths = entry.tests.map((test) => evaluateTest(test, view, packet, FACTS.mac));
    const isUncertain = truths.includes('unknown');
    if (!truths.includes(false)) walk(entry.then, [...counts, ...entry.counts]);
    if (truths.includes(false) || isUncertain) walk(entry.otherwise, counts);
  };
  walk({ kind: 'entry', index: 0, uncertain: false }, []);
  return ends;
}

const specialised = fc
  .tuple(rulesets, fc.constantFrom('host', null))
  .map(([ruleset, role]) => flatten(ruleset, { ...FACTS, role }).classifier)
  .map((classifier) => ({ classifier, tier: specialise(classifier, EVERYTHING) }));

it('drops with any choice only what the whole drops, counters included', () => {
  let dropped = 0;
  fc.assert(
    fc.property(specialised, fc.nat(), fc.double({ min: 0.1, max: 1 }), (made, seed, share) => {
      const { classifier, tier } = made;
      const random = createRandom(seed);
      const slices = sliceDrops(tier);
      const chosen = new Set(slices.drops.filter(() => random.chance(share)));
      const kept = new Set([...chosen].flatMap(slices.needs));
      const reduced = keepEntries(tier, kept, chosen, NO_ROOM);
      const again = specialise(reduced, EVERYTHING).classifier;
      const whole = prepare(classifier, { mode: 'kernel', mac: FACTS.mac });
      const tiers = [reduced, again].map((one) => prepare(one, { mode: 'tier', mac: FACTS.mac }));
      const before = prepare(tier.classifier, { mode: 'tier', mac: FACTS.mac });
      for (const [at, packet] of PACKETS.entries()) {
        const [first, second] = tiers.map((run) => run(packet));
        if (first === undefined || second === undefined) continue;
        // Where nothing is counted any more, nobody asks whether the kernel loses the frame.
        if (first.verdict === 'lost' && second.verdict === 'drop') {
          expect(['drop', 'lost'], hexOf(at)).toContain(whole(packet).verdict);
          expect([...second.counts, ...whole(packet).counts], hexOf(at)).toEqual([]);
          continue;
        }
        expect(second.verdict === 'drop', hexOf(at)).toBe(first.verdict === 'drop');
        const { verdict, decidedBy } = before(packet);
        // What a chosen drop dropped in the whole, it drops still; unless an unchosen one, which it
        // could pass over before, cannot be decided for a later fragment.
        const isFragment = first.reason?.code === 'packet/later-fragment';
        if (verdict === 'drop' && chosen.has(decidedBy ?? -1) && !isFragment) {
          expect(first.verdict, hexOf(at)).toBe('drop');
        }
        if (first.verdict !== 'drop') continue;
        dropped += 1;
        const truth = whole(packet);
        expect(countsOf(second), hexOf(at)).toEqual(countsOf(first));
        if (truth.reason?.code === 'packet/later-fragment') {
          // The reference gives up where either way may be taken; here both must lead to the drop.
          const times = [...first.counts].flatMap(([counter, { packets }]) =>
            Array.from({ length: packets }, () => counter),
          );
          const counted = times.sort((a, b) => a - b).join();
          expect([...endsOf(classifier, packet)], hexOf(at)).toEqual([`drop ${counted}`]);
          continue;
        }
        expect(['drop', 'lost'], hexOf(at)).toContain(truth.verdict);
        expect(countsOf(first), hexOf(at)).toEqual(countsOf(truth));
      }
    }),
    { numRuns: 300 },
  );
  expect(dropped).toBeGreaterThan(1000);
});

it('rules out only what no frame is in', () => {
  let ruledOut = 0;
  fc.assert(
    fc.property(specialised, ({ tier: { classifier } }) => {
      const { overlaps, isEmpty } = createOverlaps(classifier);
      const run = prepare(classifier, { mode: 'tier', mac: FACTS.mac });
      for (const packet of PACKETS) {
        const { trail } = run(packet);
        for (const a of trail) for (const b of trail) expect(overlaps(a, b, 'match')).toBe(true);
        for (const a of trail) expect(isEmpty(a, 'match') || isEmpty(a, 'reach')).toBe(false);
      }
      for (const a of classifier.entries.keys()) {
        for (const b of classifier.entries.keys()) {
          if (!overlaps(a, b, 'match')) ruledOut += 1;
        }
      }
    }),
    { numRuns: 60 },
  );
  expect(ruledOut).toBeGreaterThan(60);
});
