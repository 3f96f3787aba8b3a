import fc from 'fast-check';
import { CBPF_DEFAULTS, type CbpfOptions, compileCbpf } from '../../src/backends/cbpf/compile.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { type Packet, parsePacket } from '../../src/ir/packet.ts';
import { toHex } from '../../src/support/bits.ts';
import { loadCbpfProfile } from './cbpf-run.ts';
import { isLeftToKernel } from './compare.ts';
import { labFacts, unwrap } from './pipeline.ts';
import { makeFrames } from './random-frames.ts';
import { ARBITRARY_POOL, rulesets } from './ruleset-arbitrary.ts';
import { runSocketFilter } from './socket-filter.ts';
import { surelyDropped } from './surely-dropped.ts';

/** Rulesets that are asked about the same frames. */
const TOGETHER = 20;

const WAYS: readonly Partial<CbpfOptions>[] = [
  {},
  { returns: { drop: 0xffff, continue: 0 } },
  { returns: { drop: 0xffff, continue: 7 } },
  { perRule: true },
];

export interface Agreement {
  readonly frames: number;
  readonly dropped: number;
  /** `ruleset N: FRAME` for each frame that somebody disagrees about. */
  readonly exceptions: readonly string[];
}

/** Frames with at least an Ethernet header. */
function makeWhole(seed: number, count: number): readonly Packet[] {
  const frames = makeFrames(seed, count + (count >> 3), ARBITRARY_POOL);
  return frames
    .filter(({ length }) => length >= 14)
    .slice(0, count)
    .map(parsePacket);
}

/**
 * Shows frames to the kernel's run of a program (SO_ATTACH_FILTER), to our interpreter and to the
 * reference: the first two must keep as many bytes of each frame, and the program must drop what the
 * tier's meaning drops, and nothing that the whole ruleset may let through.
 */
export async function compareReference(
  howMany: { readonly rulesets: number; readonly frames: number; readonly seed: number },
  onRuleset: (done: number) => void = () => {},
): Promise<Agreement> {
  const profile = await loadCbpfProfile();
  const facts = labFacts('host');
  const exceptions: string[] = [];
  let packets: readonly Packet[] = [];
  let [frames, dropped] = [0, 0];
  const sample = fc.sample(rulesets, { numRuns: howMany.rulesets, seed: howMany.seed });
  for (const [index, ruleset] of sample.entries()) {
    if (index % TOGETHER === 0) packets = makeWhole(howMany.seed + index, howMany.frames);
    const { classifier } = flatten(ruleset, facts);
    const options = { ...CBPF_DEFAULTS, mayMiscount: true, ...WAYS[index % WAYS.length] };
    const compiled = unwrap(compileCbpf(classifier, profile, options));
    const tier = prepare(compiled.classifier, { mode: 'tier', mac: facts.mac });
    const machine = loadProgram(compiled.insns);
    const shown = packets.map(({ frame }) => frame);
    const kept = await runSocketFilter(compiled.insns, shown);
    for (const [at, packet] of packets.entries()) {
      const { value } = machine(packet.frame);
      const drops = value === compiled.returns.drop;
      if (drops) dropped += 1;
      const isOpen = packet.odd !== null || isLeftToKernel(packet, true);
      const isWrong =
        kept[at] !== Math.min(value, packet.frame.length) ||
        (drops && !surelyDropped(classifier, packet, facts.mac)) ||
        (!isOpen && drops !== (tier(packet).verdict === 'drop'));
      if (isWrong) exceptions.push(`ruleset ${index}: ${toHex(packet.frame)}`);
    }
    frames += packets.length;
    onRuleset(index + 1);
  }
  return { frames, dropped, exceptions };
}
