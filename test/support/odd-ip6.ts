import { SPECIAL_IP6 } from './frame-pool.ts';
import {
  type Extension,
  ethernet,
  extension,
  fragmentHeader,
  type Ipv6Fields,
  ipv6,
  type Layer3,
} from './frames.ts';
import type { Random } from './random.ts';
import {
  cutFrame,
  disguised,
  type MakeFrame,
  pickIpv6Fields,
  pickLayer4,
} from './random-packets.ts';

/** An IPv6 frame whose header fields are changed, given the packet they would have made. */
function changed6(change: (random: Random, plain: Layer3) => Ipv6Fields): MakeFrame {
  return (random, pool) => {
    const fields = pickIpv6Fields(random, pool);
    const layer4 = pickLayer4(random, pool, true);
    return ethernet({}, ipv6({ ...fields, ...change(random, ipv6(fields, layer4)) }, layer4));
  };
}

function pickExtension(random: Random): Extension {
  const kind = random.below(6);
  if (kind === 0) return extension(43, Uint8Array.of(random.below(5), random.below(2), 0, 0, 0, 0));
  if (kind === 1) return fragmentHeader(0, false, random.next());
  if (kind === 2) return extension(random.pick([135, 139, 140]), random.bytes(6));
  // PadN, Pad1s, an unknown option to be skipped (RFC 8200, 4.2).
  const content = random.pick([
    Uint8Array.of(1, 4),
    new Uint8Array(6),
    Uint8Array.of(0x1e, 4, 1, 2, 3, 4),
    Uint8Array.of(1, 12),
  ]);
  return extension(60, content);
}

function pickChain(random: Random): readonly Extension[] {
  const chain = Array.from({ length: 1 + random.below(4) }, () => pickExtension(random));
  return random.chance(0.3) ? [extension(0), ...chain] : chain;
}

function chained(
  pickExtensions: (random: Random) => readonly Extension[],
  more: (random: Random) => Ipv6Fields = () => ({}),
): MakeFrame {
  return (random, pool) => {
    const extensions = pickExtensions(random);
    const fields = { ...pickIpv6Fields(random, pool), extensions, ...more(random) };
    return ethernet({}, ipv6(fields, disguised(random, pool, true)));
  };
}

/** Odd IPv6 packets; the lengths and checksums not named are right. */
export const ODD_IP6 = {
  'ip6 cut': (random, pool) => {
    const layer4 = pickLayer4(random, pool, true);
    return cutFrame(random, ethernet({}, ipv6(pickIpv6Fields(random, pool), layer4)), 14, 80);
  },
  'ip6 version': changed6((random) => ({ version: random.pick([0, 4, 5, 7]) })),
  'ip6 length beyond frame': changed6((random, plain) => ({
    payloadLength: plain.data.length - 40 + random.between(1, 40),
  })),
  'ip6 length below frame': changed6((random, plain) => ({
    payloadLength: random.between(0, plain.data.length - 40),
  })),
  'ip6 hop limit': changed6((random) => ({ hopLimit: random.below(3) })),
  'ip6 source': changed6((random) => ({ saddr: random.pick(SPECIAL_IP6) })),
  'ip6 destination': changed6((random) => ({ daddr: random.pick(SPECIAL_IP6) })),
  'ip6 extensions': chained(pickChain),
  'ip6 nine extensions': chained(() => Array.from({ length: 9 }, () => extension(60))),
  'ip6 hop-by-hop': chained((random) => [
    extension(
      0,
      random.pick([
        Uint8Array.of(5, 2, 0, 0),
        Uint8Array.of(0xc2, 4, 0, 0, 0, 99),
        Uint8Array.of(0xde, 4, 0, 0, 0, 0),
        Uint8Array.of(1, 4),
      ]),
    ),
  ]),
  'ip6 no next header': chained(
    (random) => (random.chance(0.5) ? [] : [extension(60)]),
    () => ({ nextHeader: 59 }),
  ),
  'ip6 atomic fragment': chained((random) => [fragmentHeader(0, false, random.next())]),
  'ip6 first fragment': chained((random) => [fragmentHeader(0, true, random.next())]),
  'ip6 later fragment': chained(
    (random) => [
      ...(random.chance(0.3) ? [extension(random.pick([0, 60]))] : []),
      fragmentHeader(1 + random.below(0x1fff), random.chance(0.5), random.next()),
    ],
    (random) => (random.chance(0.3) ? { nextHeader: random.pick([0, 43, 44, 60]) } : {}),
  ),
  'ip6 extension cut': (random, pool) => {
    const fields = { ...pickIpv6Fields(random, pool), extensions: pickChain(random) };
    const whole = ipv6(fields, pickLayer4(random, pool, true)).data;
    const data = whole.slice(0, random.between(40, whole.length));
    if (random.chance(0.7)) {
      data[4] = (data.length - 40) >> 8;
      data[5] = (data.length - 40) & 0xff;
    }
    return ethernet({}, { etherType: 0x86dd, data });
  },
  'ip6 extension too long': chained((random) => {
    const broken = extension(random.pick([0, 43, 60]));
    const data = broken.data.slice();
    data[1] = random.between(1, 255);
    return [{ type: broken.type, data }];
  }),
} as const satisfies Record<string, MakeFrame>;
