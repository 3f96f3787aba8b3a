import {
  type FramePool,
  pickIp,
  pickIp6,
  pickIp6Destination,
  pickIpDestination,
  pickNumber,
} from './frame-pool.ts';
import {
  gre,
  type Ipv4Fields,
  type Ipv6Fields,
  icmp,
  icmpv6,
  ipv4,
  ipv6,
  type Layer3,
  type Layer4,
  raw,
  sctp,
  tcp,
  udp,
} from './frames.ts';
import type { Random } from './random.ts';

const PORTS = [0, 22, 53, 80, 443, 1024, 65535];
const FLAGS = [0x02, 0x12, 0x10, 0x18, 0x04, 0x14, 0x11, 0x01, 0x00, 0x3f, 0x29, 0xff];
const TYPES = [0, 3, 5, 8, 11, 13, 128, 129, 133, 134, 135, 136, 143];
const PROTOCOLS = [2, 4, 41, 47, 50, 51, 59, 89, 103, 112, 132, 136, 253];
const BYTES = [0, 1, 2, 63, 64, 65, 128, 254, 255];
const WORDS = [0, 1, 20, 40, 46, 60, 0x7fff, 0xffff];

function pickPayload(random: Random): Uint8Array {
  return random.bytes(random.chance(0.4) ? 0 : random.below(64));
}

/** A transport header with values from the pool; all lengths and checksums right. */
export function pickLayer4(random: Random, pool: FramePool, six: boolean): Layer4 {
  const roll = random.below(100);
  const port = () => pickNumber(random, pool.ports, PORTS, 0x10000);
  const payload = pickPayload(random);
  if (roll < 45) {
    const fields = {
      sport: port(),
      dport: port(),
      flags: pickNumber(random, pool.tcpFlags, FLAGS, 0x100),
      window: pickNumber(random, pool.words, WORDS, 0x10000),
      sequence: random.next(),
    };
    return tcp(random.chance(0.2) ? { ...fields, options: random.bytes(8) } : fields, payload);
  }
  if (roll < 72) return udp({ sport: port(), dport: port() }, payload);
  if (roll < 86) {
    const fields = {
      type: pickNumber(random, pool.icmpTypes, TYPES, 0x100),
      code: random.chance(0.7) ? 0 : pickNumber(random, pool.icmpTypes, [], 0x100),
      id: pickNumber(random, pool.words, WORDS, 0x10000),
    };
    // Now and then the other version's, which is not the same protocol.
    return six !== random.chance(0.1) ? icmpv6(fields, payload) : icmp(fields, payload);
  }
  if (roll < 89) return sctp({ sport: port(), dport: port() }, payload);
  if (roll < 91) return udp({ sport: port(), dport: port() }, payload, 136);
  if (roll < 93) return gre(random.chance(0.5) ? 0x0800 : 0x86dd, payload);
  return raw(pickNumber(random, pool.protocols, PROTOCOLS, 0x100), payload);
}

/** IPv4 header fields without oddities. */
export function pickIpv4Fields(random: Random, pool: FramePool): Ipv4Fields {
  return {
    saddr: pickIp(random, pool),
    daddr: pickIpDestination(random, pool),
    ttl: random.chance(0.6) ? 64 : pickNumber(random, pool.bytes, BYTES, 0x100),
    tos: random.chance(0.5) ? 0 : pickNumber(random, pool.bytes, BYTES, 0x100),
    id: pickNumber(random, pool.words, [], 0x10000),
    dontFragment: random.chance(0.5),
  };
}

/** IPv6 header fields without oddities or extension headers. */
export function pickIpv6Fields(random: Random, pool: FramePool): Ipv6Fields {
  return {
    saddr: pickIp6(random, pool),
    daddr: pickIp6Destination(random, pool),
    hopLimit: random.chance(0.6) ? 64 : pickNumber(random, pool.bytes, BYTES, 0x100),
    trafficClass: random.chance(0.5) ? 0 : pickNumber(random, pool.bytes, BYTES, 0x100),
    flowLabel: random.chance(0.5) ? 0 : pickNumber(random, pool.flowLabels, [1], 0x100000),
  };
}

/** A whole, valid packet of either version. */
export function pickLayer3(random: Random, pool: FramePool): Layer3 {
  const six = random.chance(0.4);
  const layer4 = pickLayer4(random, pool, six);
  return six
    ? ipv6(pickIpv6Fields(random, pool), layer4)
    : ipv4(pickIpv4Fields(random, pool), layer4);
}

/** A generator of one kind of frame. */
export type MakeFrame = (random: Random, pool: FramePool) => Uint8Array;

/**
 * What fills a fragment: bytes that look like a transport header, so that a careless load matches;
 * sometimes too few of them.
 */
export function disguised(random: Random, pool: FramePool, six: boolean): Layer4 {
  const layer4 = pickLayer4(random, pool, six);
  return random.chance(0.3)
    ? raw(layer4.protocol, layer4.build(0).subarray(0, random.below(12)))
    : layer4;
}

/** The first `from` to `to` bytes of a frame. */
export function cutFrame(random: Random, frame: Uint8Array, from: number, to: number): Uint8Array {
  return frame.slice(0, Math.min(frame.length, random.between(from, to)));
}
