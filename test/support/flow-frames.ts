import { parsePacket } from '../../src/ir/packet.ts';
import { parseIp, parseIp6 } from './addresses.ts';
import {
  ah,
  ethernet,
  gre,
  icmp,
  icmpv6,
  ipv4,
  ipv6,
  type Layer4,
  sctp,
  tcp,
  udp,
} from './frames.ts';
import { LAB_ADDRESSES } from './lab-network.ts';
import type { Random } from './random.ts';

const OWN = [LAB_ADDRESSES.eth0, LAB_ADDRESSES.eth1] as const;
const PEERS = [
  { ip: '10.0.0.2', ip6: '2001:db8::2' },
  { ip: '10.0.0.3', ip6: '2001:db8::3' },
  { ip: '192.0.2.7', ip6: '2001:db8:7::7' },
  { ip: '198.51.100.9', ip6: '2001:db8:9::9' },
] as const;
const PORTS = [22, 53, 80, 123, 443, 8080, 40_000] as const;
const FLAGS = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04] as const;

/** A frame with this source MAC is sent by the lab's receiver itself. */
const FROM_INSIDE = new Uint8Array(6).fill(0xff);

/** Whether `pickFlowFrame` made it to be sent by the receiver. */
export function isSentInside(frame: Uint8Array): boolean {
  return FROM_INSIDE.every((byte, at) => frame[6 + at] === byte);
}

/** A message of a flow: from its first end with these ports, or back with the same exchanged. */
function pickLayer4(random: Random, six: boolean, sport: number, dport: number): Layer4 {
  const roll = random.below(20);
  if (roll < 9) return tcp({ sport, dport, flags: random.pick(FLAGS) });
  if (roll < 14) return udp({ sport, dport });
  if (roll < 17) {
    const reply = random.chance(0.5);
    return six ? icmpv6({ type: reply ? 129 : 128 }) : icmp({ type: reply ? 0 : 8 });
  }
  return roll < 18 ? gre() : sctp({ sport, dport });
}

/**
 * One packet of one of a few flows: in either direction, from outside or from the receiver; between
 * the receiver and others, or (`router`) past it.
 */
export function pickFlowFrame(random: Random, router: boolean): Uint8Array {
  const six = random.chance(0.4);
  const past = router && random.chance(0.5);
  const near = past ? random.pick(PEERS) : random.pick(OWN);
  const far = random.pick(PEERS);
  const back = random.chance(0.5);
  const ports = [random.pick(PORTS), random.chance(0.7) ? 40_000 : random.pick(PORTS)] as const;
  const [sport, dport] = back ? ports : [ports[1], ports[0]];
  const [from, to] = back ? [near, far] : [far, near];
  const inner = pickLayer4(random, six, sport, dport);
  const layer4 = six && random.chance(0.1) ? ah(inner) : inner;
  const layer3 = six
    ? ipv6({ saddr: parseIp6(from.ip6), daddr: parseIp6(to.ip6) }, layer4)
    : ipv4({ saddr: parseIp(from.ip), daddr: parseIp(to.ip) }, layer4);
  // Some with the receiver's own source come from outside all the same.
  const inside = back && !past && random.chance(0.8);
  return ethernet(inside ? { saddr: FROM_INSIDE } : {}, layer3);
}

/** The frame with addresses and ports exchanged, which leaves all checksums right. */
export function reverseFrame(frame: Uint8Array): Uint8Array {
  const { l3 } = parsePacket(frame);
  if (l3 === null || l3.transport === null) throw new Error('bug: no packet to answer');
  const reversed = frame.slice();
  const [from, size] = l3.nfproto === 10 ? [l3.network + 8, 16] : [l3.network + 12, 4];
  const exchange = (at: number, width: number): void => {
    reversed.set(frame.subarray(at + width, at + 2 * width), at);
    reversed.set(frame.subarray(at, at + width), at + width);
  };
  exchange(from, size);
  exchange(l3.transport, 2);
  return reversed;
}
