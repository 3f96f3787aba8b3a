import fc from 'fast-check';
import { expect, it } from 'vitest';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten, PLAIN } from '../../src/ir/flatten.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { printRuleset } from '../../src/ir/print.ts';
import { toHex } from '../../src/support/bits.ts';
import { isSentInside, pickFlowFrame } from '../support/flow-frames.ts';
import { createFlowModel } from '../support/flow-model.ts';
import { pickFlowRuleset } from '../support/flow-rulesets.ts';
import { labFacts } from '../support/pipeline.ts';
import { createRandom } from '../support/random.ts';

/** What a run of one history of packets came to. */
interface History {
  /** Packets that the tier drops and the machine lets pass. */
  readonly wrong: readonly string[];
  /** Packets that the tier drops because of the proof alone. */
  readonly proven: number;
  /** Packets that belonged to a known flow. */
  readonly known: number;
}

function runHistory(seed: number, role: 'host' | 'router', soleDevice: boolean): History {
  const random = createRandom(seed);
  const ruleset = pickFlowRuleset(random);
  const facts = { ...labFacts(role), conntrackFresh: true, soleDevice };
  const [tier, plainly] = [facts, { ...facts, conntrackFresh: false }].map((some) =>
    prepare(flatten(ruleset, some, PLAIN).classifier, { mode: 'tier', mac: facts.mac }),
  );
  const own = (facts.localAddresses ?? []).map(({ version, value }) =>
    value.toString(16).padStart(version === 4 ? 8 : 32, '0'),
  );
  const forwards = role === 'router';
  const model = createFlowModel(ruleset, new Set(own), forwards, () => random.chance(0.5));
  const wrong: string[] = [];
  let proven = 0;
  for (let count = 0; count < 300; count += 1) {
    const frame = pickFlowFrame(random, forwards);
    const inside = isSentInside(frame);
    const device = soleDevice ? 'eth0' : random.pick(['eth0', 'eth1']);
    const passed = model.pass(frame, inside ? 'inside' : 'outside', device);
    if (inside || device !== 'eth0') continue;
    const packet = parsePacket(frame);
    if (tier?.(packet).verdict !== 'drop') continue;
    if (plainly?.(packet).verdict !== 'drop') proven += 1;
    if (passed) wrong.push(`${toHex(frame)}\n${printRuleset(ruleset)}`);
  }
  return { wrong, proven, known: model.known() };
}

it.each([
  ['host', true],
  ['host', false],
  ['router', true],
  ['router', false],
] as const)('never drops a packet of a flow that began: %s, sole device %s', (role, soleDevice) => {
  let proven = 0;
  let known = 0;
  const seeds = fc.noShrink(fc.nat({ max: 0xffffffff }));
  fc.assert(
    fc.property(seeds, (seed) => {
      const history = runHistory(seed, role, soleDevice);
      proven += history.proven;
      known += history.known;
      expect(history.wrong).toEqual([]);
    }),
    { numRuns: 40, seed: 7 },
  );
  expect(proven).toBeGreaterThan(100);
  expect(known).toBeGreaterThan(100);
});
