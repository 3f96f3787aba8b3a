/**
 * Compares random rulesets with the kernel for as long as asked, over every variant in turn:
 * `npx tsx scripts/soak.ts --rulesets 300 --frames 4000 [--seed N] [--variant WORDS]
 * [--structure code|tree]`.
 * Needs root. Exits 1 on any difference, with the ruleset and a frame for every broken law.
 */
import { parseArgs } from 'node:util';
import { STRUCTURES } from '../src/backends/backend.ts';
import {
  type Comparison,
  compareWithKernel,
  formatDifferences,
  LAWS,
} from '../test/support/compare.ts';
import { probeKernelLab } from '../test/support/kernel-lab.ts';
import { makeFrames } from '../test/support/random-frames.ts';
import { makeRuleset } from '../test/support/rulesets.ts';
import { openVariantLabs } from '../test/support/variant-labs.ts';
import { optionsOf, PATH_VARIANTS, VARIANTS, type Variant } from '../test/support/variants.ts';

const { values } = parseArgs({
  options: {
    rulesets: { type: 'string', default: '300' },
    frames: { type: 'string', default: '4000' },
    seed: { type: 'string', default: '1' },
    variant: { type: 'string', default: '' },
    structure: { type: 'string', default: 'auto' },
  },
});

const structure = STRUCTURES.find((name) => name === values.structure) ?? 'auto';

/** Rulesets that one pair of namespaces serves: programs stay loaded until it closes. */
const RULESETS_PER_LAB = 40;
/** Differing rulesets that are shown as text; the others can be made again from their seed. */
const MOST_SHOWN = 5;

interface Totals {
  rulesets: number;
  frames: number;
  kernelDrops: number;
  programDrops: number;
  exact: number;
  insns: number;
}

function emptyTotals(): Totals {
  return { rulesets: 0, frames: 0, kernelDrops: 0, programDrops: 0, exact: 0, insns: 0 };
}

function addTo(totals: Totals, comparison: Comparison): void {
  totals.rulesets += 1;
  totals.frames += comparison.frames;
  totals.kernelDrops += comparison.kernelDrops;
  totals.programDrops += comparison.programDrops;
  totals.exact += comparison.exact;
  totals.insns += comparison.pipeline.artifact.assembly.lines.length;
}

function describeTotals(name: string, totals: Totals): string {
  const share = Math.round((100 * totals.programDrops) / Math.max(1, totals.kernelDrops));
  return [
    `${name}: ${totals.rulesets} rulesets, ${totals.frames} frames,`,
    `${totals.kernelDrops} dropped by the kernel, ${totals.programDrops} by the program (${share} %),`,
    `${totals.exact} compared exactly, ${totals.insns} insns`,
  ].join(' ');
}

async function soak(
  chosen: readonly Variant[],
  rulesets: number,
  frames: number,
  seed: number,
): Promise<number> {
  const started = performance.now();
  const perVariant = new Map(chosen.map(({ name }) => [name, emptyTotals()]));
  const all = emptyTotals();
  const broken = new Map(LAWS.map((law) => [law, 0]));
  let failures = 0;
  let refused = 0;
  let labs = openVariantLabs();
  const report = (where: string, what: string, text: string): void => {
    failures += 1;
    console.log(`${where}\n${what}`);
    if (failures <= MOST_SHOWN) console.log(text);
  };
  try {
    for (let number = 0; number < rulesets; number += 1) {
      const variant = chosen[number % chosen.length];
      if (variant === undefined) break;
      if (number > 0 && number % RULESETS_PER_LAB === 0) {
        await labs.close();
        labs = openVariantLabs();
      }
      const own = seed + number;
      const { text, pool } = makeRuleset(own, variant);
      const where = `--seed ${own} --rulesets 1 --variant '${variant.name}'`;
      const lab = await labs.of(variant);
      const options = optionsOf(variant, makeFrames(own * 7919, frames, pool, variant.mix));
      try {
        const comparison = await compareWithKernel(lab, text, {
          ...options,
          structure: variant.profile === 'xdp-native' ? structure : 'auto',
        });
        addTo(all, comparison);
        addTo(perVariant.get(variant.name) ?? emptyTotals(), comparison);
        if (comparison.differences.length === 0) continue;
        for (const { law } of comparison.differences) broken.set(law, (broken.get(law) ?? 0) + 1);
        report(where, formatDifferences(comparison.differences), text);
      } catch (error) {
        if (String(error).includes('ebpf/too-big')) {
          refused += 1;
          continue;
        }
        report(
          where,
          error instanceof Error ? (error.stack ?? error.message) : String(error),
          text,
        );
      }
    }
  } finally {
    await labs.close();
  }
  for (const [name, totals] of perVariant) console.log(describeTotals(name, totals));
  console.log(describeTotals('all', all));
  console.log([...broken].map(([law, count]) => `${law} ${count}`).join(', '));
  const seconds = Math.round((performance.now() - started) / 1000);
  console.log(`${failures} rulesets with differences, ${refused} too big, ${seconds} s`);
  return failures;
}

const obstacle = probeKernelLab();
const all = [...VARIANTS, ...PATH_VARIANTS];
const named = all.filter(({ name }) => name === values.variant);
const chosen = named.length > 0 ? named : all.filter(({ name }) => name.includes(values.variant));
if (obstacle !== null || chosen.length === 0) {
  console.error(obstacle ?? `no variant has "${values.variant}" in its name`);
  process.exitCode = 2;
} else {
  const numbers = [values.rulesets, values.frames, values.seed].map(Number);
  const [rulesets = 0, frames = 0, seed = 0] = numbers;
  process.exitCode = (await soak(chosen, rulesets, frames, seed)) === 0 ? 0 : 1;
}
