import { type FramePool, pickIp, pickIp6, pickNumber, SPECIAL_MAC } from './frame-pool.ts';
import { arp, ethernet, joinBytes, type Tag } from './frames.ts';
import type { Random } from './random.ts';
import { cutFrame, type MakeFrame, pickLayer3 } from './random-packets.ts';

function tagged(pickTags: (random: Random, pool: FramePool) => readonly Tag[]): MakeFrame {
  return (random, pool) => ethernet({ tags: pickTags(random, pool) }, pickLayer3(random, pool));
}

/** Odd Ethernet: tags, other protocols, other addresses, padding, noise. */
export const ODD_LINK = {
  vlan: tagged((random, pool) => [
    { vid: pickNumber(random, pool.vlans, [5], 4096), pcp: random.below(8) },
  ]),
  'vlan priority': tagged((random) => [{ vid: 0, pcp: random.below(8) }]),
  'vlan 88a8': tagged((random, pool) => [
    { protocol: 0x88a8, vid: pickNumber(random, pool.vlans, [0, 5, 7], 4096) },
  ]),
  'vlan in vlan': tagged((random, pool) => [
    { protocol: random.pick([0x8100, 0x88a8]), vid: pickNumber(random, pool.vlans, [0, 5], 4096) },
    { protocol: random.pick([0x8100, 0x88a8]), vid: pickNumber(random, pool.vlans, [0, 5], 4096) },
  ]),
  'vlan priority twice': tagged(() => [{ vid: 0 }, { vid: 0 }]),
  'vlan three times': tagged(() => [{ vid: 0 }, { vid: 5 }, { vid: 0 }]),
  'vlan cut': (random, pool) =>
    cutFrame(
      random,
      ethernet({ tags: [{ vid: random.pick([0, 5]) }] }, pickLayer3(random, pool)),
      14,
      30,
    ),
  arp: (random, pool) =>
    ethernet({ daddr: random.pick(SPECIAL_MAC), padTo: 60 }, arp(pickIp(random, pool))),
  lldp: (random) =>
    ethernet({ daddr: '01:80:c2:00:00:0e' }, { etherType: 0x88cc, data: random.bytes(40) }),
  'other ether type': (random, pool) => {
    const type = pickNumber(random, pool.etherTypes, [0x8847, 0x8863, 0x8864, 0x9000], 0x10000);
    return ethernet({ type }, pickLayer3(random, pool));
  },
  '802.3 length': (random, pool) => {
    const content = pickLayer3(random, pool);
    // LLC header of a spanning-tree frame, or Novell's raw format (ffff).
    const start = random.pick([Uint8Array.of(0x42, 0x42, 3), Uint8Array.of(0xff, 0xff)]);
    const data = joinBytes(start, content.data);
    return ethernet({ type: Math.min(data.length, 0x5ff) }, { etherType: 0, data });
  },
  'wrong ether type': (random, pool) => {
    const content = pickLayer3(random, pool);
    return ethernet({ type: content.etherType === 0x0800 ? 0x86dd : 0x0800 }, content);
  },
  padded: (random, pool) => ethernet({ padTo: random.between(60, 100) }, pickLayer3(random, pool)),
  mac: (random, pool) => ethernet({ daddr: random.pick(SPECIAL_MAC) }, pickLayer3(random, pool)),
  'byte changed': (random, pool) => {
    const frame = ethernet({}, pickLayer3(random, pool));
    frame[random.between(12, frame.length - 1)] = random.below(256);
    return frame;
  },
  'random ip': (random, pool) => {
    const frame = ethernet(
      { type: random.pick([0x0800, 0x86dd]) },
      { etherType: 0, data: random.bytes(random.below(100)) },
    );
    if (frame.length > 14) frame[14] = random.pick([0x45, 0x46, 0x60, 0x40]);
    if (frame.length > 34 && random.chance(0.5))
      frame.set(
        random.chance(0.5) ? pickIp(random, pool) : pickIp6(random, pool).subarray(0, 4),
        26,
      );
    return frame;
  },
  'random bytes': (random) =>
    joinBytes(
      ethernet({}, { etherType: 0, data: new Uint8Array(0) }).subarray(0, 12),
      random.bytes(random.between(2, 80)),
    ),
} as const satisfies Record<string, MakeFrame>;
