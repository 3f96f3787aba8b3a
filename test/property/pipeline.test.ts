import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import {
  capabilitiesOf,
  compileXdp,
  isXdpProfile,
} from '../../src/backends/ebpf-offload/compile.ts';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { type Outcome, prepare } from '../../src/ir/evaluate.ts';
import { fieldKey } from '../../src/ir/fields.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { type Capabilities, specialise } from '../../src/ir/specialise.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { toHex } from '../../src/support/bits.ts';
import { isLeftToKernel } from '../support/compare.ts';
import { compareProgramCounters } from '../support/compare-counters.ts';
import { labFacts, runPipeline, unwrap } from '../support/pipeline.ts';
import { createRandom } from '../support/random.ts';
import { makeFrames } from '../support/random-frames.ts';
import { ARBITRARY_POOL, rulesets } from '../support/ruleset-arbitrary.ts';

type XdpProfile = Parameters<typeof compileXdp>[1];

const profiles = new Map<string, XdpProfile>();

beforeAll(async () => {
  for (const name of ['xdp-native', 'netdevsim', 'agilio']) {
    const profile = unwrap(await loadProfile(name));
    if (!isXdpProfile(profile)) throw new Error(`bug: ${name} is no XDP profile`);
    profiles.set(name, profile);
  }
});

function profileOf(name: string): XdpProfile {
  const profile = profiles.get(name);
  if (profile === undefined) throw new Error(`bug: ${name} is not loaded`);
  return profile;
}

const FACTS = labFacts('host');
const FRAMES = makeFrames(11, 300, ARBITRARY_POOL).filter(({ length }) => length >= 14);
const NO_FRAME = new Uint8Array(0);
const PACKETS = FRAMES.map(parsePacket);
const classifiers = rulesets.map((ruleset) => flatten(ruleset, FACTS).classifier);

function hexOf(at: number): string {
  return toHex(FRAMES[at] ?? NO_FRAME);
}

function outcomes(classifier: Classifier, mode: 'tier' | 'kernel'): readonly Outcome[] {
  const evaluator = prepare(classifier, { mode, mac: FACTS.mac });
  return PACKETS.map(evaluator);
}

function compiled(
  classifier: Classifier,
  profile: string,
  leafRules = 8,
  tableRules: number | null = null,
) {
  const decision = { leafRules, copies: 4, tableRules };
  const result = compileXdp(classifier, profileOf(profile), { decision });
  const artifact = unwrap(result);
  const memory = createMemory(artifact.object.maps, artifact.object.data);
  const machine = loadProgram(artifact.assembly, memory);
  const drops = FRAMES.map((frame) => machine.run(frame).action === 1);
  const isCrowded = result.diagnostics.some(({ code }) => code === 'ebpf/pending-counters');
  return { drops, isCrowded };
}

it('runs and counts as the specialised classifier says', async () => {
  const tiers = fc.constantFrom(
    ...(['xdp-native', 'netdevsim', 'agilio'] as const).map((name) => [name, 'auto'] as const),
    ['xdp-native', 'tree'] as const,
  );
  await fc.assert(
    fc.asyncProperty(rulesets, tiers, async (ruleset, [name, structure]) => {
      const pipeline = await runPipeline(ruleset, FACTS, name, 1, { structure });
      const wanted = outcomes(pipeline.artifact.classifier, 'tier');
      const dropped: Outcome[] = [];
      for (const [at, outcome] of wanted.entries()) {
        const isDropped = pipeline.drops(FRAMES[at] ?? NO_FRAME);
        const packet = PACKETS[at];
        const isExcused =
          packet === undefined ||
          (!isDropped && (pipeline.isCrowded || isLeftToKernel(packet, pipeline.isScarce)));
        if (!isExcused) expect(isDropped, hexOf(at)).toBe(outcome.verdict === 'drop');
        if (isDropped) dropped.push(outcome);
      }
      expect(compareProgramCounters(pipeline, pipeline.counted(), dropped)).toEqual([]);
    }),
    { numRuns: 150 },
  );
});

it('drops the same however the decision is cut', () => {
  fc.assert(
    fc.property(classifiers, (classifier) => {
      const cuts = [1, 8, 1000].map((leafRules) => compiled(classifier, 'xdp-native', leafRules));
      const all = [...cuts, compiled(classifier, 'xdp-native', 8, 1)];
      fc.pre(all.every(({ isCrowded }) => !isCrowded));
      // What is cut by protocol may or may not see that a short header decides nothing.
      const [first, ...rest] = all;
      for (const other of rest) {
        const wrong = PACKETS.findIndex(
          (packet, at) => other.drops[at] !== first?.drops[at] && !isLeftToKernel(packet, false),
        );
        expect(wrong === -1 ? null : hexOf(wrong)).toBeNull();
      }
    }),
    { numRuns: 75 },
  );
});

it('drops the same in data as in code', () => {
  fc.assert(
    fc.property(classifiers, (classifier) => {
      const native = compiled(classifier, 'xdp-native');
      const simulated = compiled(classifier, 'netdevsim');
      expect(simulated.drops).toEqual(native.drops);
    }),
    { numRuns: 100 },
  );
});

/** A tier that lacks some fields and some tests, the same for the same seed. */
function poorTier(classifier: Classifier, seed: number): Capabilities {
  const random = createRandom(seed);
  const reason = { code: 'test/poor', message: 'made up' };
  const tests = classifier.entries.flatMap((entry) => entry.tests);
  const refused = new Set(tests.filter(() => random.chance(0.15)));
  const lacking = random.below(64);
  const all = capabilitiesOf(profileOf('xdp-native'));
  return {
    ...all,
    field: (field) => {
      const hash = [...fieldKey(field)].reduce((sum, char) => sum + (char.codePointAt(0) ?? 0), 0);
      return hash % 64 === lacking ? reason : all.field(field);
    },
    test: (test) => (refused.has(test) ? reason : all.test(test)),
  };
}

it('drops nothing that the whole classifier lets pass, and counts the same', () => {
  fc.assert(
    fc.property(classifiers, fc.nat(), (classifier, seed) => {
      const poor = specialise(classifier, poorTier(classifier, seed)).classifier;
      const whole = outcomes(classifier, 'kernel');
      const part = outcomes(poor, 'tier');
      for (const [at, { verdict, counts }] of part.entries()) {
        if (verdict !== 'drop') continue;
        const hex = hexOf(at);
        expect(['drop', 'lost'], hex).toContain(whole[at]?.verdict);
        expect([...counts].sort(byIndex), hex).toEqual(
          [...(whole[at]?.counts ?? [])].sort(byIndex),
        );
      }
    }),
    { numRuns: 300 },
  );
});

function byIndex([a]: readonly [number, unknown], [b]: readonly [number, unknown]): number {
  return a - b;
}
