import fc from 'fast-check';
import { type FramePool, pickMac } from './frame-pool.ts';
import { ethernet, joinBytes } from './frames.ts';
import { ODD_KINDS, type OddKind, oddFrameOf } from './odd-frames.ts';
import { createRandom, type Random } from './random.ts';
import { pickLayer3 } from './random-packets.ts';

/** A frame that any host may send: valid IPv4 or IPv6, sometimes padded as short frames are. */
export function wellFormedFrame(random: Random, pool: FramePool): Uint8Array {
  const content = pickLayer3(random, pool);
  const daddr = pickMac(random, pool);
  return ethernet(random.chance(0.2) ? { daddr, padTo: 60 } : { daddr }, content);
}

/**
 * A frame that is fragmented, tagged, wrong, cut or not IP at all; all kinds equally often, and some
 * with a VLAN tag put before whatever else is odd.
 */
export function oddFrame(random: Random, pool: FramePool): Uint8Array {
  const frame = oddFrameOf(random.pick(ODD_KINDS), random, pool);
  if (random.chance(0.92)) return frame;
  const tag = Uint8Array.of(0x81, 0, 0, random.chance(0.6) ? 0 : 5);
  return joinBytes(frame.subarray(0, 12), tag, frame.subarray(12));
}

/** How often a generated frame is odd, 0 to 1. */
export interface FrameMix {
  readonly odd: number;
  /** How often a well-formed one has a tag; never when left out. */
  readonly tagged?: number;
}

const TAGS: readonly Uint8Array[] = [
  ...[Uint8Array.of(0x81, 0, 0, 5), Uint8Array.of(0x81, 0, 0, 5), Uint8Array.of(0x81, 0, 0x60, 5)],
  ...[Uint8Array.of(0x88, 0xa8, 0, 7), Uint8Array.of(0x88, 0xa8, 0, 7)],
  ...[Uint8Array.of(0x81, 0, 0, 0), Uint8Array.of(0x88, 0xa8, 0x20, 0)],
  ...[Uint8Array.of(0x81, 0, 0, 7), Uint8Array.of(0x88, 0xa8, 0, 5), Uint8Array.of(0x81, 0, 0, 9)],
];

/** A well-formed frame with a tag in front of its type. */
function taggedFrame(random: Random, pool: FramePool): Uint8Array {
  const frame = wellFormedFrame(random, pool);
  return joinBytes(frame.subarray(0, 12), random.pick(TAGS), frame.subarray(12));
}

/** `count` frames, the same for the same seed; about 8 µs each. */
export function makeFrames(
  seed: number,
  count: number,
  pool: FramePool,
  mix: FrameMix = { odd: 0.3 },
): readonly Uint8Array[] {
  const random = createRandom(seed);
  const { odd, tagged = 0 } = mix;
  return Array.from({ length: count }, () => {
    if (random.chance(odd)) return oddFrame(random, pool);
    const isTagged = tagged > 0 && random.chance(tagged);
    return isTagged ? taggedFrame(random, pool) : wellFormedFrame(random, pool);
  });
}

// A smaller seed is no simpler a frame.
const SEED = fc.noShrink(fc.nat({ max: 0xffffffff }));

/** `wellFormedFrame` for fast-check. */
export function wellFormedFrames(pool: FramePool): fc.Arbitrary<Uint8Array> {
  return SEED.map((seed) => wellFormedFrame(createRandom(seed), pool));
}

/** `oddFrame` for fast-check; shrinks towards the first kinds of `ODD_KINDS`. */
export function oddFrames(
  pool: FramePool,
  kinds: readonly OddKind[] = ODD_KINDS,
): fc.Arbitrary<Uint8Array> {
  return fc
    .tuple(fc.constantFrom(...kinds), SEED)
    .map(([kind, seed]) => oddFrameOf(kind, createRandom(seed), pool));
}
