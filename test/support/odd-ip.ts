import { pickNumber, SPECIAL_IP } from './frame-pool.ts';
import {
  ah,
  esp,
  ethernet,
  type Ipv4Fields,
  ipv4,
  ipv6,
  type Layer3,
  raw,
  tcp,
  udp,
} from './frames.ts';
import type { Random } from './random.ts';
import {
  cutFrame,
  disguised,
  type MakeFrame,
  pickIpv4Fields,
  pickIpv6Fields,
  pickLayer4,
} from './random-packets.ts';

/** An IPv4 frame whose header fields are changed, given the packet they would have made. */
function changed4(change: (random: Random, plain: Layer3) => Ipv4Fields): MakeFrame {
  return (random, pool) => {
    const fields = pickIpv4Fields(random, pool);
    const layer4 = pickLayer4(random, pool, false);
    return ethernet({}, ipv4({ ...fields, ...change(random, ipv4(fields, layer4)) }, layer4));
  };
}

// RFC 791, 3.1: NOP 1, EOL 0, record route 7, router alert 148, LSRR 131, SSRR 137, time stamp 68.
const IP_OPTIONS: readonly Uint8Array[] = [
  Uint8Array.of(1, 1, 1, 1),
  Uint8Array.of(0, 0, 0, 0),
  Uint8Array.of(148, 4, 0, 0),
  Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0),
  Uint8Array.of(131, 7, 4, 10, 0, 0, 9, 0),
  Uint8Array.of(137, 7, 4, 10, 0, 0, 9, 0),
  Uint8Array.of(68, 8, 5, 0, 0, 0, 0, 0),
  Uint8Array.of(68, 8, 4, 0, 0, 0, 0, 0),
  Uint8Array.of(7, 40, 4, 0),
  Uint8Array.of(130, 1, 0, 0),
  new Uint8Array(40).fill(1),
];

/** Odd IPv4 packets and odd transport headers; the lengths and checksums not named are right. */
export const ODD_IP = {
  'ip options': changed4((random) => ({ options: random.pick(IP_OPTIONS) })),
  'ip ihl too small': changed4((random) => ({ ihl: random.below(5) })),
  'ip ihl too big': changed4((random) => ({ ihl: random.between(6, 15) })),
  'ip version': changed4((random) => ({ version: random.pick([0, 5, 6, 15]) })),
  'ip length beyond frame': changed4((random, plain) => ({
    totalLength: plain.data.length + random.between(1, 40),
  })),
  'ip length below header': changed4((random) => ({ totalLength: random.below(20) })),
  'ip length below frame': changed4((random, plain) => ({
    totalLength: random.between(20, plain.data.length),
  })),
  'ip checksum': changed4((random) => ({ checksum: random.pick([0, 1, 0xffff]) })),
  'ip ttl': changed4((random) => ({ ttl: random.below(3) })),
  'ip reserved bit': changed4(() => ({ reservedBit: true })),
  'ip source': changed4((random) => ({ saddr: random.pick(SPECIAL_IP) })),
  'ip destination': changed4((random) => ({ daddr: random.pick(SPECIAL_IP) })),
  'ip first fragment': (random, pool) => {
    const fields = { ...pickIpv4Fields(random, pool), id: random.below(0x10000) };
    const whole = ipv4({ ...fields, moreFragments: true }, disguised(random, pool, false));
    return ethernet({}, whole);
  },
  'ip later fragment': (random, pool) => {
    const fragmentOffset = random.chance(0.5) ? 1 + random.below(8) : 1 + random.below(0x1fff);
    const fields = { ...pickIpv4Fields(random, pool), id: random.below(0x10000), fragmentOffset };
    const moreFragments = random.chance(0.5);
    return ethernet({}, ipv4({ ...fields, moreFragments }, disguised(random, pool, false)));
  },
  'ip cut': (random, pool) => {
    const layer4 = pickLayer4(random, pool, false);
    return cutFrame(random, ethernet({}, ipv4(pickIpv4Fields(random, pool), layer4)), 14, 60);
  },
  'l4 short': (random, pool) => {
    const six = random.chance(0.5);
    const layer4 = pickLayer4(random, pool, six);
    const short = raw(layer4.protocol, layer4.build(0).subarray(0, random.below(20)));
    const fields = { padTo: random.chance(0.3) ? 60 : 0 };
    return six
      ? ethernet(fields, ipv6(pickIpv6Fields(random, pool), short))
      : ethernet(fields, ipv4(pickIpv4Fields(random, pool), short));
  },
  'l4 checksum': (random, pool) => {
    const port = pickNumber(random, pool.ports, [80], 0x10000);
    const wrong = { dport: port, checksum: random.below(3) };
    const layer4 = random.chance(0.5) ? tcp(wrong) : udp(wrong);
    return random.chance(0.5)
      ? ethernet({}, ipv4(pickIpv4Fields(random, pool), layer4))
      : ethernet({}, ipv6(pickIpv6Fields(random, pool), layer4));
  },
  'tcp data offset': (random, pool) => {
    const dport = pickNumber(random, pool.ports, [80], 0x10000);
    const layer4 = tcp({ dport, dataOffset: random.pick([0, 1, 4, 15]) });
    return ethernet({}, ipv4(pickIpv4Fields(random, pool), layer4));
  },
  'udp length': (random, pool) => {
    const dport = pickNumber(random, pool.ports, [53], 0x10000);
    const layer4 = udp({ dport, length: random.pick([0, 7, 8, 9, 0xffff]) }, random.bytes(5));
    return ethernet({}, ipv4(pickIpv4Fields(random, pool), layer4));
  },
  'ah or esp': (random, pool) => {
    const six = random.chance(0.5);
    const layer4 = random.chance(0.7) ? ah(pickLayer4(random, pool, six)) : esp();
    return six
      ? ethernet({}, ipv6(pickIpv6Fields(random, pool), layer4))
      : ethernet({}, ipv4(pickIpv4Fields(random, pool), layer4));
  },
} as const satisfies Record<string, MakeFrame>;
