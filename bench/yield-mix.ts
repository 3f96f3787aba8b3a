/**
 * The traffic that the yield is measured on: what an address on the Internet gets without asking, and
 * a little that it did ask for. The shares are stated, not measured anywhere; change them here.
 */
import {
  arp,
  esp,
  ethernet,
  fragmentHeader,
  gre,
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
} from '../test/support/frames.ts';
import { createRandom, type Random } from '../test/support/random.ts';
import { type FlowState, type Machine, OWN } from './yield-machine.ts';

/** A frame with what connection tracking says of it (kernel behaviour as in docs/stateful.md). */
export interface Sample {
  readonly kind: string;
  readonly frame: Uint8Array;
  readonly state: FlowState;
  /** The frame that began the flow, where one from outside did: only if it is let in there is a flow. */
  readonly opener?: Uint8Array;
}

interface Maker {
  readonly random: Random;
  readonly machine: Machine;
  /** IPv6, 15 of 100: about what servers see of it. */
  readonly is6: boolean;
}

export interface TrafficClass {
  readonly name: string;
  /** Of 100 frames. */
  readonly share: number;
  readonly why: string;
  readonly make: (maker: Maker) => Omit<Sample, 'kind'>;
}

const SYN = 0x02;
const IPV6_SHARE = 0.15;
const TCP_SCANNED = [
  ...[22, 23, 25, 80, 81, 110, 135, 139, 443, 445, 993, 1433, 1723, 2222, 2323, 2375, 3306, 3389],
  ...[5060, 5432, 5555, 5900, 6379, 7547, 8000, 8080, 8081, 8443, 8888, 9000, 9200, 11211, 27017],
];
const UDP_SCANNED = [
  ...[
    53, 69, 111, 123, 137, 161, 389, 427, 443, 500, 623, 1194, 1434, 1900, 3478, 4500, 5060, 5353,
  ],
  ...[5683, 10001, 11211, 27015, 51820],
];
const AMPLIFIERS = [19, 53, 123, 161, 389, 1900, 11211];
const EPHEMERAL = [32_768, 60_999] as const; // net.ipv4.ip_local_port_range

function publicAddress(random: Random): Uint8Array {
  for (;;) {
    const bytes = random.bytes(4);
    const [a = 0, b = 0] = bytes;
    const reserved =
      a === 0 ||
      a === 10 ||
      a === 127 ||
      a >= 224 ||
      (a === 172 && b >> 4 === 1) ||
      (a === 192 && (b === 168 || b === 0)) ||
      (a === 169 && b === 254) ||
      (a === 100 && b >> 6 === 1) ||
      (a === 198 && (b >> 1 === 9 || b === 51)) ||
      (a === 203 && b === 0);
    if (!reserved) return bytes;
  }
}

function publicAddress6(random: Random): Uint8Array {
  return Uint8Array.of(0x2a, random.below(16), ...random.bytes(14));
}

const BOGONS = [
  [10],
  [100, 64],
  [127],
  [169, 254],
  [172, 16],
  [192, 168],
  [198, 18],
  [224],
  [240],
  [0],
];
const BOGONS6 = [[0xfc], [0xfd], [0x20, 0x01, 0x0d, 0xb8], [0xff, 0x02], [0, 0], [0xfe, 0x80]];

function within(random: Random, prefix: readonly number[], length: number): Uint8Array {
  return Uint8Array.of(...prefix, ...random.bytes(length - prefix.length));
}

/** An IP packet from `source` (a stranger) to the machine, or to what is behind it half of the time. */
function packet(maker: Maker, payload: Layer4, source?: Uint8Array, ttl = 52): Layer3 {
  const { random, machine, is6 } = maker;
  const target = machine.behind !== null && random.chance(0.5) ? machine.behind : OWN;
  if (is6) {
    const saddr = source ?? publicAddress6(random);
    return ipv6({ saddr, daddr: target.ip6, hopLimit: ttl }, payload);
  }
  return ipv4({ saddr: source ?? publicAddress(random), daddr: target.ip, ttl }, payload);
}

function framed(content: Layer3): Uint8Array {
  return ethernet({ padTo: 60 }, content);
}

function portOf(random: Random, list: readonly number[]): number {
  return random.chance(0.6) ? random.pick(list) : random.between(1, 65_535);
}

function servicePort({ random, machine }: Maker): number {
  const { ports } = machine.values;
  return random.pick(ports.length > 0 ? ports : [80, 443]);
}

function ephemeral(random: Random): number {
  return random.between(...EPHEMERAL);
}

function syn(maker: Maker, dport: number, source?: Uint8Array): Omit<Sample, 'kind'> {
  const { random } = maker;
  const fields = {
    sport: random.between(1024, 65_535),
    dport,
    flags: SYN,
    sequence: random.next(),
  };
  return { frame: framed(packet(maker, tcp(fields), source)), state: 'new' };
}

function datagram(
  maker: Maker,
  sport: number,
  dport: number,
  size: number,
  source?: Uint8Array,
): Omit<Sample, 'kind'> {
  const payload = udp({ sport, dport }, maker.random.bytes(size));
  return { frame: framed(packet(maker, payload, source)), state: 'new' };
}

/** A segment of no flow; `new` by loose pick-up for an ACK, else `invalid`. */
function stray(maker: Maker, flags: number, sport: number, dport: number): Omit<Sample, 'kind'> {
  const { random } = maker;
  const fields = { sport, dport, flags, sequence: random.next(), acknowledgment: random.next() };
  const isAck = (flags & 0x17) === 0x10;
  return { frame: framed(packet(maker, tcp(fields))), state: isAck ? 'new' : 'invalid' };
}

function ping(maker: Maker): Omit<Sample, 'kind'> {
  const { random, is6 } = maker;
  const id = random.below(65_536);
  // Types that begin a flow, and those that only answer (get_conntrack's valid_new tables).
  const [type, state] = random.chance(0.7)
    ? ([is6 ? 128 : 8, 'new'] as const)
    : ([random.pick(is6 ? [1, 3, 129] : [0, 3, 5, 11]), 'invalid'] as const);
  const message = (is6 ? icmpv6 : icmp)({ type, id }, random.bytes(32));
  return { frame: framed(packet(maker, message)), state };
}

function bogon(maker: Maker): Omit<Sample, 'kind'> {
  const { random, is6 } = maker;
  const source = within(random, random.pick(is6 ? BOGONS6 : BOGONS), is6 ? 16 : 4);
  return random.chance(0.6)
    ? syn(maker, portOf(random, TCP_SCANNED), source)
    : datagram(maker, 1024 + random.below(60_000), portOf(random, UDP_SCANNED), 64, source);
}

function listed(maker: Maker): Omit<Sample, 'kind'> {
  const { random, machine, is6 } = maker;
  const named = is6 ? machine.values.sources6 : machine.values.sources;
  const source = named.length > 0 ? random.pick(named) : undefined;
  return random.chance(0.7)
    ? syn(maker, portOf(random, [...machine.values.ports, ...TCP_SCANNED]), source)
    : datagram(
        maker,
        40_000,
        portOf(random, [...machine.values.ports, ...UDP_SCANNED]),
        64,
        source,
      );
}

function fragment(maker: Maker): Omit<Sample, 'kind'> {
  const { random, is6 } = maker;
  const first = random.chance(0.5);
  const offset = first ? 0 : 185;
  const body = first
    ? udp({ sport: 53, dport: ephemeral(random) }, random.bytes(1472))
    : raw(17, random.bytes(600));
  const content = is6
    ? ipv6(
        {
          saddr: publicAddress6(random),
          daddr: OWN.ip6,
          extensions: [fragmentHeader(offset, first)],
        },
        body,
      )
    : ipv4(
        {
          saddr: publicAddress(random),
          daddr: OWN.ip,
          moreFragments: first,
          fragmentOffset: offset,
        },
        body,
      );
  return { frame: framed(content), state: 'new' };
}

function tunnel(maker: Maker): Omit<Sample, 'kind'> {
  const { random } = maker;
  const inner = random.pick([gre(), esp(), raw(4, random.bytes(40)), sctp()]);
  return { frame: framed(packet(maker, inner)), state: 'new' };
}

/** What neighbours on the segment send to everybody. */
function noise(maker: Maker): Omit<Sample, 'kind'> {
  const { random, is6 } = maker;
  const saddr = within(random, [203, 0, 113], 4);
  if (is6) {
    const type = random.pick([134, 135, 143]); // router advertisement, neighbour solicitation, MLD
    const fields = { saddr: within(random, [0xfe, 0x80, 0, 0, 0, 0, 0, 0], 16), daddr: 'ff02::1' };
    const content = ipv6({ ...fields, hopLimit: 255 }, icmpv6({ type }, random.bytes(16)));
    return { frame: ethernet({ daddr: '33:33:00:00:00:01' }, content), state: 'untracked' };
  }
  const [port, to, mac] = random.pick([
    [5353, '224.0.0.251', '01:00:5e:00:00:fb'],
    [1900, '239.255.255.250', '01:00:5e:7f:ff:fa'],
    [137, '203.0.113.255', 'ff:ff:ff:ff:ff:ff'],
    [67, '255.255.255.255', 'ff:ff:ff:ff:ff:ff'],
    [0, '', 'ff:ff:ff:ff:ff:ff'],
  ] as const);
  if (port === 0)
    return { frame: ethernet({ daddr: mac, padTo: 60 }, arp(saddr, OWN.ip)), state: 'new' };
  const content = ipv4(
    { saddr, daddr: to, ttl: 1 },
    udp({ sport: port, dport: port }, random.bytes(90)),
  );
  return { frame: ethernet({ daddr: mac }, content), state: 'new' };
}

/** Packets of flows that exist: the ruleset is to keep them, and so is the tier. */
function wanted(maker: Maker): Omit<Sample, 'kind'> {
  const { random } = maker;
  const payload = random.bytes(random.below(1400));
  const fields = { flags: 0x18, sequence: random.next(), acknowledgment: random.next() };
  if (random.chance(0.4)) {
    const ports = { sport: ephemeral(random), dport: servicePort(maker) };
    const source = maker.is6 ? publicAddress6(random) : publicAddress(random);
    // The same way for both.
    const there: Maker = { ...maker, machine: { ...maker.machine, behind: null } };
    return {
      frame: framed(packet(there, tcp({ ...fields, ...ports }, payload), source)),
      opener: framed(packet(there, tcp({ ...ports, flags: SYN }), source)),
      state: 'established',
    };
  }
  const content = random.pick([
    tcp({ ...fields, sport: 443, dport: ephemeral(random) }, payload),
    udp({ sport: random.pick([53, 123, 443]), dport: ephemeral(random) }, payload),
  ]);
  return { frame: framed(packet(maker, content)), state: 'established' };
}

export const MIX: readonly TrafficClass[] = [
  {
    name: 'SYN scan',
    share: 26,
    why: 'worms and scanners try ports one after another',
    make: (maker) => syn(maker, portOf(maker.random, TCP_SCANNED)),
  },
  {
    name: 'SYN flood',
    share: 12,
    why: 'spoofed SYNs to ports that the rules name (80, 443 where they name none)',
    make: (maker) => syn(maker, servicePort(maker)),
  },
  {
    name: 'UDP scan',
    share: 8,
    why: 'searches for open resolvers, SIP, SNMP, game servers',
    make: (maker) => {
      const sport = maker.random.between(1024, 65_535);
      return datagram(maker, sport, portOf(maker.random, UDP_SCANNED), 40);
    },
  },
  {
    name: 'UDP reflection',
    share: 10,
    why: 'answers of amplifiers that were asked in our name, to any port',
    make: (maker) => {
      const { random } = maker;
      const dport = random.between(1, 65_535);
      return datagram(maker, random.pick(AMPLIFIERS), dport, random.between(400, 1400));
    },
  },
  {
    name: 'backscatter',
    share: 8,
    why: 'SYN/ACK and RST of others under attack in our name',
    make: (maker) => {
      const { random } = maker;
      const flags = random.pick([0x12, 0x12, 0x04, 0x14]);
      return stray(maker, flags, random.pick([80, 443, 22]), random.between(1024, 65_535));
    },
  },
  {
    name: 'ACK flood',
    share: 5,
    why: 'segments that look established, to get past stateless filters',
    make: (maker) => {
      const { random } = maker;
      const dport = random.chance(0.5) ? servicePort(maker) : random.between(1, 65_535);
      return stray(maker, random.pick([0x10, 0x18]), random.between(1024, 65_535), dport);
    },
  },
  {
    name: 'odd flags',
    share: 2,
    why: 'null, Xmas, FIN and impossible pairs, from port scanners',
    make: (maker) => {
      const { random } = maker;
      const flags = random.pick([0x00, 0x29, 0x01, 0x03, 0x06]);
      return stray(maker, flags, random.between(1024, 65_535), portOf(random, TCP_SCANNED));
    },
  },
  { name: 'ICMP', share: 4, why: 'pings, and answers and errors nobody asked for', make: ping },
  { name: 'bogons', share: 4, why: 'sources that cannot be: spoofed or misrouted', make: bogon },
  {
    name: 'listed',
    share: 6,
    why: 'sources that the rules name (strangers where they name none)',
    make: listed,
  },
  {
    name: 'fragments',
    share: 2,
    why: 'halves of large datagrams, from reflection',
    make: fragment,
  },
  { name: 'tunnels', share: 1, why: 'GRE, ESP, IP in IP, SCTP', make: tunnel },
  { name: 'noise', share: 4, why: 'ARP, multicast and broadcast of neighbours', make: noise },
  { name: 'wanted', share: 8, why: 'packets of flows that exist', make: wanted },
];

/** `count` frames for a machine in the shares of the mix, the same for the same seed. */
export function makeTraffic(machine: Machine, count: number, seed: number): readonly Sample[] {
  const random = createRandom(seed);
  return MIX.flatMap(({ name, share, make }) =>
    Array.from({ length: Math.round((count * share) / 100) }, () => ({
      kind: name,
      ...make({ random, machine, is6: random.chance(IPV6_SHARE) }),
    })),
  );
}
