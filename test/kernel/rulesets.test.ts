import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  hookVerdict,
  type KernelLab,
  openKernelLab,
  probeKernelLab,
} from '../support/kernel-lab.ts';
import { PLAIN_HOOKS } from '../support/lab-oracle.ts';
import { makeFrames } from '../support/random-frames.ts';
import { makeRuleset } from '../support/rulesets.ts';

const obstacle = probeKernelLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: KernelLab;

beforeAll(async () => {
  if (obstacle === null) lab = await openKernelLab({ router: true });
});

afterAll(async () => {
  await lab?.close();
});

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

it('makes the same ruleset from the same seed', () => {
  expect(makeRuleset(3)).toEqual(makeRuleset(3));
  expect(makeRuleset(3).text).not.toBe(makeRuleset(4).text);
});

onKernel.each([
  ['matches only', { hooks: PLAIN_HOOKS, inetIngress: true }],
  ['state and effects too', { hooks: PLAIN_HOOKS, inetIngress: true, unknowns: true }],
])('makes rulesets that nft loads: %s', { timeout: 60_000 }, async (_, options) => {
  for (let seed = 10_000; seed < 10_050; seed += 1) {
    const { text } = makeRuleset(seed, options);
    await expect(lab.loadRuleset(text), `seed ${seed}`).resolves.toBeUndefined();
  }
});

onKernel(
  'makes frames that most rules see and both verdicts meet',
  { timeout: 60_000 },
  async () => {
    let counters = 0;
    let counted = 0;
    let accepted = 0;
    let dropped = 0;
    for (let seed = 1; seed <= 10; seed += 1) {
      const { text, pool } = makeRuleset(seed, { hooks: PLAIN_HOOKS });
      await lab.loadRuleset(text);
      const observation = await lab.observe(makeFrames(seed, 10_000, pool));
      for (const hook of PLAIN_HOOKS.filter((name) => text.includes(`hook ${name} `))) {
        for (let index = 0; index < observation.length; index += 1) {
          const verdict = hookVerdict(observation, index, hook);
          if (verdict === 'accepted') accepted += 1;
          if (verdict === 'dropped') dropped += 1;
        }
      }
      const readings = (await lab.counters()).filter((reading) => reading.name === null);
      counters += readings.length;
      counted += readings.filter((reading) => reading.packets > 0).length;
    }
    expect(counted / counters).toBeGreaterThan(0.6);
    expect(accepted / (accepted + dropped)).toBeGreaterThan(0.5);
    expect(dropped / (accepted + dropped)).toBeGreaterThan(0.1);
  },
);
