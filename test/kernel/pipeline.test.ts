import { afterAll, expect, it } from 'vitest';
import { compareAttached, compareWithKernel, formatDifferences } from '../support/compare.ts';
import { probeKernelLab } from '../support/kernel-lab.ts';
import type { LabHook } from '../support/lab-oracle.ts';
import { labFacts } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { makeRuleset } from '../support/rulesets.ts';
import { openVariantLabs } from '../support/variant-labs.ts';
import { optionsOf, VARIANTS } from '../support/variants.ts';

const obstacle = probeKernelLab();
const onKernel = it.skipIf(obstacle !== null);

const RULESETS = 3;
const FRAMES = 3000;

const HOOKS: Readonly<Record<'host' | 'router', readonly LabHook[]>> = {
  host: ['ingress', 'prerouting', 'input'],
  router: ['input', 'forward'],
};

/** EtherTypes of IEEE 802.1Q and 802.1ad. */
function isTagged(frame: Uint8Array): boolean {
  const type = ((frame[12] ?? 0) << 8) | (frame[13] ?? 0);
  return type === 0x8100 || type === 0x88a8;
}

const labs = openVariantLabs();

afterAll(() => labs.close());

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

onKernel.each(VARIANTS.map((variant, index) => [variant.name, variant, index] as const))(
  'agrees with the kernel: %s',
  async (_, variant, index) => {
    let programDrops = 0;
    for (let number = 0; number < RULESETS; number += 1) {
      const seed = 20_000 + 100 * index + number;
      const { text, pool } = makeRuleset(seed, variant);
      const frames = makeFrames(seed, FRAMES, pool);
      const lab = await labs.of(variant);
      const comparison = await compareWithKernel(lab, text, optionsOf(variant, frames));
      expect(formatDifferences(comparison.differences), `seed ${seed}`).toBe('');
      expect(comparison.pipeline.isCut).toBe(variant.share < 1);
      programDrops += comparison.programDrops;
    }
    expect(programDrops).toBeGreaterThan(0);
  },
);

/** Those whose rulesets have runs of rules that a tier decides. */
const IN_TREES = ['ingress', 'host, input', 'router, input and forward', 'unknowns, no role'];

onKernel.each(
  VARIANTS.filter(({ name }) => IN_TREES.includes(name)).map(
    (variant, index) => [variant.name, variant, index] as const,
  ),
)('agrees with the kernel in trees: %s', async (_, variant, index) => {
  const seed = 40_000 + index;
  const { text, pool } = makeRuleset(seed, variant);
  const lab = await labs.of(variant);
  const options = optionsOf(variant, makeFrames(seed, FRAMES, pool));
  const comparison = await compareWithKernel(lab, text, { ...options, structure: 'tree' });
  expect(formatDifferences(comparison.differences), `seed ${seed}`).toBe('');
  const { artifact } = comparison.pipeline;
  expect(artifact.usage.find(({ resource }) => resource === 'trees')?.used).toBeGreaterThan(0);
});

onKernel.each([
  ['native', 'host', 1, 'xdp-native'],
  ['generic', 'host', 2, 'xdp-generic'],
  ['native', 'router', 3, 'agilio'],
  ['generic', 'router', 4, 'xdp-generic'],
  ['clsact', 'host', 5, 'agilio'],
] as const)('changes no verdict when attached: %s, %s', async (mode, role, seed, profile) => {
  const hooks = HOOKS[role];
  const { text, pool } = makeRuleset(seed, { hooks });
  const hook = mode === 'clsact' ? 'tc' : 'xdp';
  const all = makeFrames(seed, FRAMES, pool);
  // The stack takes tags off before its filters; a NIC does not.
  const frames = hook === 'tc' ? all.filter((frame) => !isTagged(frame)) : all;
  const lab = await labs.of({ router: role === 'router', topology: 'plain' });
  const options = { facts: labFacts(role), frames, mode, profile, hook } as const;
  const comparison = await compareAttached(lab, text, options);
  expect(formatDifferences(comparison.differences)).toBe('');
  expect(comparison.programDrops).toBeGreaterThan(0);
});
