import { afterAll, expect, it } from 'vitest';
import { compareWithKernel, formatDifferences } from '../support/compare.ts';
import { probeKernelLab } from '../support/kernel-lab.ts';
import { makeFrames } from '../support/random-frames.ts';
import { makeRuleset } from '../support/rulesets.ts';
import { openVariantLabs } from '../support/variant-labs.ts';
import { optionsOf, PATH_VARIANTS } from '../support/variants.ts';

const obstacle = probeKernelLab();
const onKernel = it.skipIf(obstacle !== null);

const RULESETS = 1;
/** Some rulesets drop nothing that a program could. */
const MOST_RULESETS = 8;
const FRAMES = 1000;

const labs = openVariantLabs();

afterAll(() => labs.close());

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

onKernel.each(PATH_VARIANTS.map((variant, index) => [variant.name, variant, index] as const))(
  'agrees with the kernel: %s',
  async (_, variant, index) => {
    const lab = await labs.of(variant);
    let programDrops = 0;
    for (let number = 0; number < (programDrops > 0 ? RULESETS : MOST_RULESETS); number += 1) {
      const seed = 61_000 + 100 * index + number;
      const { text, pool } = makeRuleset(seed, variant);
      const frames = makeFrames(seed, FRAMES, pool, variant.mix);
      const comparison = await compareWithKernel(lab, text, optionsOf(variant, frames));
      expect(formatDifferences(comparison.differences), `seed ${seed}`).toBe('');
      programDrops += comparison.programDrops;
    }
    expect(programDrops).toBeGreaterThan(0);
  },
);
