import { afterAll, beforeAll, expect, it } from 'vitest';
import { CBPF_DEFAULTS, type CbpfOptions } from '../../src/backends/cbpf/compile.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import type { Concession } from '../../src/ir/concede.ts';
import { placeCbpf } from '../../src/plan/place-cbpf.ts';
import type { CbpfProfile } from '../../src/profile/schema.ts';
import { toHex } from '../../src/support/bits.ts';
import { loadCbpfProfile, sightOf } from '../support/cbpf-run.ts';
import { stampFrames } from '../support/compare.ts';
import { hookVerdict, probeKernelLab } from '../support/kernel-lab.ts';
import { type LabNamespaces, openLabNamespaces } from '../support/lab-network.ts';
import { LAB_HOOKS } from '../support/lab-oracle.ts';
import { readLabRuleset, unwrap } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { makeRuleset } from '../support/rulesets.ts';
import { runPacketFilter, runSocketFilter } from '../support/socket-filter.ts';
import { openVariantLabs } from '../support/variant-labs.ts';
import { VARIANTS } from '../support/variants.ts';

const obstacle = probeKernelLab();
const onKernel = it.skipIf(obstacle !== null);

const FRAMES = 400;

const labs = openVariantLabs();
let wire: LabNamespaces;
let profile: CbpfProfile;

/**
 * What a socket takes is also bounded by net.core.optmem_max, which the program counts against as it
 * is after the kernel has rewritten it: longer ones are refused with ENOMEM (sk_filter_charge()).
 */
const TAKEN = 2000;

function shortened(profile: CbpfProfile): CbpfProfile {
  const { limits } = profile;
  return { ...profile, limits: { ...limits, insns: { ...limits.insns, value: TAKEN } } };
}

beforeAll(async () => {
  if (obstacle !== null) return;
  wire = await openLabNamespaces(false);
  profile = shortened(await loadCbpfProfile());
});

afterAll(async () => {
  await labs.close();
  await wire?.close();
});

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

const CAPTURE: Partial<CbpfOptions> = { returns: { drop: 262_144, continue: 0 } };
const WAYS: readonly (readonly [Partial<CbpfOptions>, readonly Concession[]])[] = [
  [{}, ['counters']],
  [CAPTURE, ['counters']],
  [{ dialect: 'linux' }, ['counters']],
  [{ dialect: 'linux', ...CAPTURE }, []],
  [{ perRule: true }, ['counters']],
];

onKernel.each(VARIANTS.map((variant, index) => [variant.name, variant, index] as const))(
  'runs as the kernel runs it, and drops nothing that nftables delivers: %s',
  async (_, variant, index) => {
    const lab = await labs.of(variant);
    const seed = 70_000 + index;
    const { text, pool } = makeRuleset(seed, variant);
    const frames = stampFrames(makeFrames(seed, FRAMES, pool)).filter(({ length }) => length >= 14);
    await lab.loadRuleset(text);
    const ruleset = await readLabRuleset(lab);
    const observation = await lab.observe(frames);
    const delivered = frames.map((__, at) => {
      const verdicts = LAB_HOOKS.map((hook) => hookVerdict(observation, at, hook));
      return verdicts[2] === 'accepted' || verdicts[3] === 'accepted';
    });
    const [way, concessions] = WAYS[index % WAYS.length] ?? [{}, []];
    const options = { ...CBPF_DEFAULTS, ...way, rule: null };
    const situation = { ruleset, facts: variant.facts, concessions, replyPorts: null };
    const { insns, returns } = unwrap(placeCbpf(situation, profile, options)).artifact;
    const machine = loadProgram(insns);
    const values = frames.map((frame) => {
      const sight = sightOf(frame, options.linkType, options.dialect);
      return sight === null ? null : machine(sight.packet, sight.beside).value;
    });
    const wrong = frames.filter((__, at) => delivered[at] === true && values[at] === returns.drop);
    expect(wrong.map(toHex), JSON.stringify(way)).toEqual([]);
    if (options.dialect === 'linux') {
      const seen = await runPacketFilter(insns, frames, wire);
      const different = frames.filter(
        (__, at) => seen[at] !== null && seen[at] !== (values[at] ?? 0) > 0,
      );
      expect(different.map(toHex), JSON.stringify(way)).toEqual([]);
      expect(seen.filter((one) => one !== null).length).toBeGreaterThan(frames.length * 0.9);
    } else {
      const kept = await runSocketFilter(insns, frames);
      const wanted = frames.map((frame, at) => Math.min(values[at] ?? 0, frame.length));
      expect([...kept], JSON.stringify(way)).toEqual(wanted);
    }
  },
);
