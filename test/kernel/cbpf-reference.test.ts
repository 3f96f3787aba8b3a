import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { CBPF_DEFAULTS, type CbpfOptions, compileCbpf } from '../../src/backends/cbpf/compile.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { toHex } from '../../src/support/bits.ts';
import { hasExtensions, loadCbpfProfile } from '../support/cbpf-run.ts';
import { isLeftToKernel } from '../support/compare.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { ARBITRARY_POOL, rulesets } from '../support/ruleset-arbitrary.ts';
import { runSocketFilter } from '../support/socket-filter.ts';
import { surelyDropped } from '../support/surely-dropped.ts';

const obstacle =
  process.platform === 'linux' && spawnSync('cc', ['--version']).status === 0
    ? null
    : 'needs Linux and cc';

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

const RULESETS = 200;
const FRAMES = 5300;
/** Rulesets that are asked about the same frames. */
const TOGETHER = 20;

const WAYS: readonly Partial<CbpfOptions>[] = [
  {},
  { returns: { drop: 0xffff, continue: 0 } },
  { returns: { drop: 0xffff, continue: 7 } },
  { perRule: true },
];

it.skipIf(obstacle !== null)(
  'agrees with the kernel and the reference on a million frames',
  async () => {
    const profile = await loadCbpfProfile();
    const facts = labFacts('host');
    let frames: readonly Uint8Array[] = [];
    let packets = frames.map(parsePacket);
    let asked = 0;
    let dropped = 0;
    for (const [index, ruleset] of fc.sample(rulesets, { numRuns: RULESETS, seed: 4 }).entries()) {
      if (index % TOGETHER === 0) {
        frames = makeFrames(index, FRAMES, ARBITRARY_POOL).filter(({ length }) => length >= 14);
        packets = frames.map(parsePacket);
      }
      const { classifier } = flatten(ruleset, facts);
      const options = { ...CBPF_DEFAULTS, mayMiscount: true, ...WAYS[index % WAYS.length] };
      const {
        insns,
        classifier: special,
        returns,
      } = unwrap(compileCbpf(classifier, profile, options));
      const tier = prepare(special, { mode: 'tier', mac: facts.mac });
      const machine = loadProgram(insns);
      const kept = await runSocketFilter(insns, frames);
      const wrong = packets.filter((packet, at) => {
        const { value } = machine(packet.frame);
        if (kept[at] !== Math.min(value, packet.frame.length)) return true;
        const drops = value === returns.drop;
        if (drops) dropped += 1;
        if (drops && !surelyDropped(classifier, packet, facts.mac)) return true;
        const isOpen = packet.odd !== null || isLeftToKernel(packet) || hasExtensions(packet);
        return !isOpen && drops !== (tier(packet).verdict === 'drop');
      });
      expect(
        wrong.map(({ frame }) => toHex(frame)),
        `ruleset ${index}`,
      ).toEqual([]);
      asked += frames.length;
    }
    expect(asked).toBeGreaterThan(1_000_000);
    expect(dropped).toBeGreaterThan(0);
  },
  300_000,
);
