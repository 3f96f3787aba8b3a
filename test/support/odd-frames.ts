import type { FramePool } from './frame-pool.ts';
import { ODD_IP } from './odd-ip.ts';
import { ODD_IP6 } from './odd-ip6.ts';
import { ODD_LINK } from './odd-link.ts';
import type { Random } from './random.ts';

const KINDS = { ...ODD_IP, ...ODD_IP6, ...ODD_LINK };

/** A kind of odd frame, named after what is odd about it. */
export type OddKind = keyof typeof KINDS;

/** All kinds. */
export const ODD_KINDS: readonly OddKind[] = [
  ...(Object.keys(ODD_IP) as readonly (keyof typeof ODD_IP)[]),
  ...(Object.keys(ODD_IP6) as readonly (keyof typeof ODD_IP6)[]),
  ...(Object.keys(ODD_LINK) as readonly (keyof typeof ODD_LINK)[]),
];

/** A frame of one kind. */
export function oddFrameOf(kind: OddKind, random: Random, pool: FramePool): Uint8Array {
  return KINDS[kind](random, pool);
}
