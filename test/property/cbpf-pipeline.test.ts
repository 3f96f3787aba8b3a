import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import { capabilitiesOf } from '../../src/backends/cbpf/capabilities.ts';
import { CBPF_DEFAULTS, type CbpfOptions } from '../../src/backends/cbpf/compile.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { type Packet, parsePacket } from '../../src/ir/packet.ts';
import { specialise } from '../../src/ir/specialise.ts';
import type { CbpfProfile } from '../../src/profile/schema.ts';
import { toHex } from '../../src/support/bits.ts';
import { compileDropper, loadCbpfProfile } from '../support/cbpf-run.ts';
import { isLeftToKernel } from '../support/compare.ts';
import { labFacts } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { ARBITRARY_POOL, rulesets } from '../support/ruleset-arbitrary.ts';
import { surelyDropped } from '../support/surely-dropped.ts';

/** Instructions: what random rules come to is not always a program that the kernel takes. */
const ROOM = 65_536;

let profile: CbpfProfile;

beforeAll(async () => {
  const { limits, ...rest } = await loadCbpfProfile();
  profile = { ...rest, limits: { ...limits, insns: { ...limits.insns, value: ROOM } } };
});

const FACTS = labFacts('host');
const FRAMES = makeFrames(12, 400, ARBITRARY_POOL).filter(({ length }) => length >= 14);
const PACKETS = FRAMES.map(parsePacket);
const classifiers = rulesets.map((ruleset) => flatten(ruleset, FACTS).classifier);

/** Bytes behind the IP header that any rule here may ask for. */
const TRANSPORT_BYTES = 20;

/** Without checksum: IEEE 802.3. */
const SHORTEST_ETHERNET = 60;

function hasTransport({ ingress, l3 }: Packet): boolean {
  return [ingress, l3].every(
    (view) =>
      view === null || view.transport === null || view.end - view.transport >= TRANSPORT_BYTES,
  );
}

/** Frames that are headed as they should be and have nothing that well-formed ones have not. */
function isWellFormed(packet: Packet): boolean {
  return (
    packet.odd === null &&
    packet.frame.length >= SHORTEST_ETHERNET &&
    hasTransport(packet) &&
    packet.tags === 0 &&
    !isLeftToKernel(packet, true)
  );
}

/** Checks every frame; gives how many were dropped. */
function check(classifier: Classifier, part: Partial<CbpfOptions>): number {
  const options = { ...CBPF_DEFAULTS, mayMiscount: true, ...part };
  const drops = compileDropper(classifier, profile, options);
  const capabilities = capabilitiesOf(options, options.mayMiscount);
  const special = specialise(classifier, capabilities).classifier;
  const tier = prepare(special, { mode: 'tier', mac: FACTS.mac });
  let dropped = 0;
  for (const [at, packet] of PACKETS.entries()) {
    const frame = FRAMES[at] ?? new Uint8Array(0);
    if (options.frames === 'well-formed' && !isWellFormed(packet)) continue;
    const answer = drops(frame);
    if (answer === null) continue;
    const hex = toHex(frame);
    if (answer) {
      dropped += 1;
      expect(surelyDropped(classifier, packet, FACTS.mac), `${packet.odd} ${hex}`).toBe(true);
    }
    const wanted = tier(packet).verdict === 'drop';
    // What is not in a raw IP packet may have stood behind it at ingress.
    const isCut =
      options.linkType === 'RAW' &&
      (packet.frame.length < SHORTEST_ETHERNET ||
        !hasTransport(packet) ||
        packet.l3?.length !== packet.ingress.length);
    const isExcused = isLeftToKernel(packet, true) || isCut;
    if (packet.odd === null && !isExcused) expect(answer, hex).toBe(wanted);
  }
  return dropped;
}

const MEANINGS: readonly (readonly [string, Partial<CbpfOptions>])[] = [
  ['as on the wire', {}],
  ['with tags beside the packet', { dialect: 'linux' }],
  ['for captures', { returns: { drop: 262_144, continue: 0 } }],
  ['for captures, linux', { dialect: 'linux', returns: { drop: 1, continue: 0 } }],
  ['cooked', { linkType: 'LINUX_SLL2' }],
  ['raw IP', { linkType: 'RAW' }],
  ['raw IP, for captures', { linkType: 'RAW', returns: { drop: 1, continue: 0 } }],
  ['neither verdict 0', { returns: { drop: 1, continue: 2 } }],
  ['a piece for each rule', { perRule: true }],
  [
    'pieces for captures, linux',
    { perRule: true, dialect: 'linux', returns: { drop: 1, continue: 0 } },
  ],
  ['well-formed frames', { frames: 'well-formed' }],
  [
    'well-formed frames, for captures',
    { frames: 'well-formed', returns: { drop: 9, continue: 0 } },
  ],
];

it.each(MEANINGS)('drops what the classifier drops: %s', (_, options) => {
  let dropped = 0;
  fc.assert(
    fc.property(classifiers, (classifier) => {
      dropped += check(classifier, options);
    }),
    { numRuns: 25 },
  );
  expect(dropped).toBeGreaterThan(0);
});

it('hands on what would be counted unless counters are conceded', () => {
  fc.assert(
    fc.property(classifiers, (classifier) => {
      check(classifier, { mayMiscount: false });
    }),
    { numRuns: 15 },
  );
});
