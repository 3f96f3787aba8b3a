import { bits, ones } from '../support/bits.ts';
import type { Reason } from '../support/diagnostics.ts';
import type { Facts, LocalAddress } from './facts.ts';
import { type Field, FRAME, META } from './fields.ts';
import { equals, not, oneOf, within } from './operand.ts';
import type { Link } from './resolve-test.ts';
import type { Test } from './ruleset.ts';

/**
 * What the kernel itself asks between hooks, as data: frames for which all tests hold go the way
 * `then` says. Everything here restates measured behaviour of Linux 6.18 (ip_rcv, ipv6_rcv,
 * ip_route_input, ip_forward and their IPv6 brothers).
 */
export interface Condition {
  readonly label: string;
  readonly tests: readonly Test[];
  readonly then:
    | { readonly kind: 'lost' }
    | { readonly kind: 'accept' }
    | { readonly kind: 'unknown'; readonly reason: Reason }
    /** It may be gone here; see `uncertain` of an entry's target. */
    | { readonly kind: 'uncertain' };
}

const ETH_IP = 0x0800n;
const ETH_IP6 = 0x86ddn;

function field(name: string, base: 'll' | 'nh' | 'th', offset: number, width: number): Field {
  return { name, base, offset: bits(offset), width: bits(width) };
}

const DESTINATION_MAC = field('ether daddr', 'll', 0, 48);
const IHL = field('ip hdrlength', 'nh', 4, 4);
const TTL = field('ip ttl', 'nh', 64, 8);
const SADDR = field('ip saddr', 'nh', 96, 32);
const DADDR = field('ip daddr', 'nh', 128, 32);
const NEXTHDR = field('ip6 nexthdr', 'nh', 48, 8);
const HOPLIMIT = field('ip6 hoplimit', 'nh', 56, 8);
const SADDR6 = field('ip6 saddr', 'nh', 64, 128);
const DADDR6 = field('ip6 daddr', 'nh', 192, 128);

export const IS_IP = equals(META.protocol, ETH_IP);
export const IS_IP6 = equals(META.protocol, ETH_IP6);
const GROUP_MAC = equals(DESTINATION_MAC, 1n << 40n, 1n << 40n);
const LOST = { kind: 'lost' } as const;
const UNCERTAIN = { kind: 'uncertain' } as const;

function prefix(of: Field, value: bigint, length: number): Test {
  const mask = ones(of.width) ^ ones(of.width - length);
  return equals(of, value, mask);
}

function unknown(code: string, message: string): Condition['then'] {
  return { kind: 'unknown', reason: { code, message } };
}

const v4 = (a: number, b = 0, c = 0, d = 0): bigint =>
  BigInt(a * 2 ** 24 + b * 2 ** 16 + c * 2 ** 8 + d);
const v6 = (head: number): bigint => BigInt(head) << 112n;

/**
 * Generic XDP also sees copies of this machine's own multicast and broadcast, without an Ethernet
 * header: they begin with an IP version where a frame has its destination address.
 */
export function loopedCopies(facts: Facts): readonly Condition[] {
  const foreign = facts.mac === null ? [] : [not(equals(DESTINATION_MAC, facts.mac))];
  return [4n, 6n].map((version) => ({
    label: `may be a looped copy of an own IPv${version} packet, without Ethernet header`,
    tests: [equals(DESTINATION_MAC, version << 44n, 0xfn << 44n), ...foreign],
    then: unknown('path/looped-copy', 'it may have no Ethernet header'),
  }));
}

/** Frames for other hosts, which get no further than the device. */
function forOthers({ addressed, hostMacs }: Link): readonly Condition[] {
  if (addressed) return [];
  if (hostMacs === null) {
    return [
      { label: 'unicast: may be for another host', tests: [not(GROUP_MAC)], then: UNCERTAIN },
    ];
  }
  const foreign = not(oneOf(DESTINATION_MAC, hostMacs));
  return [{ label: 'unicast for another host', tests: [not(GROUP_MAC), foreign], then: LOST }];
}

/** Which frames reach prerouting of the device at all. */
export function beforePrerouting(link: Link): readonly Condition[] {
  return [
    {
      label: 'neither IPv4 nor IPv6',
      tests: [not(oneOf(META.protocol, [ETH_IP, ETH_IP6]))],
      then: { kind: 'accept' },
    },
    ...forOthers(link),
    { label: 'IPv4 checksum wrong', tests: [IS_IP, equals(FRAME.checksum, 0n)], then: LOST },
    { label: 'IPv6 source is loopback', tests: [IS_IP6, equals(SADDR6, 1n)], then: LOST },
    {
      label: 'IPv6 source is multicast',
      tests: [IS_IP6, prefix(SADDR6, v6(0xff00), 8)],
      then: LOST,
    },
    { label: 'IPv6 destination is loopback', tests: [IS_IP6, equals(DADDR6, 1n)], then: LOST },
    {
      label: 'IPv6 destination scope is 0 or 1',
      tests: [IS_IP6, equals(DADDR6, v6(0xff00), v6(0xff0e))],
      then: LOST,
    },
    {
      label: 'IPv6 hop-by-hop options',
      tests: [IS_IP6, equals(NEXTHDR, 0n)],
      then: unknown('path/ip6-options', 'the kernel reads hop-by-hop options first'),
    },
  ];
}

/** A flow table takes packets of flows it knows past all later hooks (nf_flow_table_ip.c). */
export const FLOW_TABLE: Condition = {
  label: 'a flow table may take it past all later hooks',
  tests: [oneOf(META.l4proto, [6n, 17n, 47n])], // TCP, UDP, GRE
  then: unknown('path/flow-table', 'the ruleset has `flow add`, and known flows skip later hooks'),
};

/** Connection tracking puts fragments together before the next chain. */
export function defragmentation(version: 'ip' | 'ip6'): Condition {
  return {
    label: `${version} fragments are put together for connection tracking`,
    tests: [version === 'ip' ? IS_IP : IS_IP6, not(equals(FRAME.fragment, 0n))],
    then: unknown('path/fragment', 'fragments are put together before this chain'),
  };
}

/** A nat chain sees only the first packet of a flow, so nobody can tell which packets it drops. */
export const NAT_MAY_DROP: Condition = {
  label: 'a nat chain may drop it',
  tests: [],
  then: UNCERTAIN,
};

/** Translation drops GRE whose header it cannot rewrite (gre_manip_pkt wants 8 bytes). */
export const GRE_MAY_DROP: Condition = {
  label: 'GRE that cannot be translated is dropped',
  tests: [equals(META.l4proto, 47n)],
  then: UNCERTAIN,
};

/**
 * What address translation may rewrite at prerouting: destinations alone, whichever way the flow
 * goes (nf_nat_packet, nf_nat_manip_pkt), with checksums, ICMP ids and what ICMP errors quote.
 */
export function translatedFields(version: 'ip' | 'ip6'): readonly Field[] {
  const transport = [field('@th,16,80', 'th', 16, 80), field('@th,128,65407', 'th', 128, 65407)];
  if (version === 'ip6') return [DADDR6, ...transport];
  return [DADDR, field('ip checksum', 'nh', 80, 16), ...transport];
}

const OPTIONS_TO_KERNEL: readonly Condition[] = [
  {
    label: 'IPv4 options',
    tests: [IS_IP, not(equals(IHL, 5n))],
    then: unknown('path/ip-options', 'the kernel reads IPv4 options before this hook'),
  },
  {
    label: 'IPv6 routing header or destination options',
    tests: [IS_IP6, oneOf(NEXTHDR, [43n, 60n])],
    then: unknown('path/ip6-options', 'the kernel reads extension headers before this hook'),
  },
];

/** Sources that input and forwarding refuse (fib_validate_source, ip_route_input_slow). */
function martianSources(facts: Facts): readonly Condition[] {
  const own = among(facts, 4, ({ value }) => [value]);
  return [
    { label: 'source 127/8', tests: [IS_IP, prefix(SADDR, v4(127), 8)], then: LOST },
    { label: 'source is multicast', tests: [IS_IP, prefix(SADDR, v4(224), 4)], then: LOST },
    {
      label: 'source 255.255.255.255',
      tests: [IS_IP, equals(SADDR, v4(255, 255, 255, 255))],
      then: LOST,
    },
    ...(own.length > 0
      ? [{ label: 'source is our own', tests: [IS_IP, oneOf(SADDR, own)], then: LOST }]
      : []),
  ];
}

/** There is none for IPv6. */
function reversePath({ rpFilterOff }: Facts): readonly Condition[] {
  if (rpFilterOff) return [];
  return [{ label: 'reverse path filter may discard', tests: [IS_IP], then: UNCERTAIN }];
}

/**
 * Addresses the kernel may treat as broadcast (IPv4) or subnet-router anycast (IPv6) because of a
 * local one, whatever its prefix length is.
 */
function nearLocal({ version, value }: LocalAddress): bigint[] {
  const width = version === 4 ? 32 : 128;
  const near: bigint[] = [];
  for (let host = 1; host < width; host += 1) {
    const low = ones(host);
    near.push(value & ~low);
    if (version === 4) near.push(value | low);
  }
  return near.filter((address) => address !== value);
}

function among(facts: Facts, version: 4 | 6, pick: (a: LocalAddress) => bigint[]): bigint[] {
  return (facts.localAddresses ?? []).filter((a) => a.version === version).flatMap(pick);
}

/** Addresses whose way depends on more than the list of local addresses. */
const SPECIAL: readonly {
  readonly version: 4 | 6;
  readonly label: string;
  readonly value: bigint;
  readonly length: number;
}[] = [
  { version: 4, label: 'multicast, reserved or broadcast', value: v4(224), length: 3 },
  { version: 4, label: '127/8', value: v4(127), length: 8 },
  { version: 4, label: '0/8', value: 0n, length: 8 },
  { version: 4, label: '169.254/16', value: v4(169, 254), length: 16 },
  { version: 6, label: 'IPv6 multicast', value: v6(0xff00), length: 8 },
  { version: 6, label: 'IPv6 link-local', value: v6(0xfe80), length: 10 },
  { version: 6, label: '::/8', value: 0n, length: 8 },
];

const SPECIAL_DESTINATIONS = SPECIAL.map(({ version, label, value, length }) => ({
  label: `destination ${/^[\d:]/.test(label) ? '' : 'is '}${label}`,
  tests:
    version === 4 ? [IS_IP, prefix(DADDR, value, length)] : [IS_IP6, prefix(DADDR6, value, length)],
}));

/** Addresses that may be this machine's because one of its own is near. */
function besideLocal(facts: Facts, version: 4 | 6): readonly bigint[] {
  const own = among(facts, version, ({ value }) => [value]);
  return among(facts, version, nearLocal).filter((address) => !own.includes(address));
}

/**
 * Tests, each on `address` alone, of which one holds for every address that may be this machine's
 * own without being in the list: multicast, broadcast, reserved, and near a local one.
 */
export function specialAddresses(facts: Facts, version: 4 | 6, address: Field): readonly Test[] {
  const beside = besideLocal(facts, version);
  const prefixes = SPECIAL.filter((special) => special.version === version).map(
    ({ value, length }) => prefix(address, value, length),
  );
  return beside.length > 0 ? [...prefixes, oneOf(address, beside)] : prefixes;
}

/** Tests that hold for packets to this machine's own addresses; one list an IP version. */
export function localDestination(facts: Facts): readonly (readonly Test[])[] {
  const own4 = among(facts, 4, ({ value }) => [value]);
  const own6 = among(facts, 6, ({ value }) => [value]);
  return [
    ...(own4.length > 0 ? [[IS_IP, oneOf(DADDR, own4)]] : []),
    ...(own6.length > 0 ? [[IS_IP6, oneOf(DADDR6, own6)]] : []),
  ];
}

/** Destinations that are neither certainly local nor certainly not. */
export function undecidedDestinations(facts: Facts): readonly Condition[] {
  const then =
    facts.role === 'host'
      ? UNCERTAIN
      : unknown('path/special-destination', 'only the kernel knows where it goes');
  const near4 = besideLocal(facts, 4);
  const near6 = besideLocal(facts, 6);
  const lists: { label: string; tests: readonly Test[] }[] = [...SPECIAL_DESTINATIONS];
  if (near4.length > 0) {
    const tests = [IS_IP, oneOf(DADDR, near4)];
    lists.push({ label: 'destination may be a subnet broadcast', tests });
  }
  if (near6.length > 0) {
    const tests = [IS_IP6, oneOf(DADDR6, near6)];
    lists.push({ label: 'destination may be a subnet anycast', tests });
  }
  return lists.map(({ label, tests }) => ({ label, tests, then }));
}

/** Which packets for this machine reach the input hook. */
export function beforeInput(facts: Facts): readonly Condition[] {
  return [
    {
      label: 'fragment',
      tests: [not(equals(FRAME.fragment, 0n))],
      then: unknown('path/fragment', 'fragments are put together before input'),
    },
    ...OPTIONS_TO_KERNEL,
    ...martianSources(facts),
    {
      label: 'source 0/8',
      tests: [IS_IP, prefix(SADDR, 0n, 8)],
      then: unknown('path/special-source', 'only DHCP may use it'),
    },
    ...reversePath(facts),
  ];
}

/** Which packets for others reach the forward hook. */
export function beforeForward(facts: Facts): readonly Condition[] {
  const expired = unknown('path/hop-limit', 'the kernel answers "time exceeded"');
  return [
    ...OPTIONS_TO_KERNEL,
    { label: 'ttl 0 or 1', tests: [IS_IP, within(TTL, 0n, 1n)], then: expired },
    { label: 'hop limit 0 or 1', tests: [IS_IP6, within(HOPLIMIT, 0n, 1n)], then: expired },
    { label: 'multicast or broadcast MAC', tests: [GROUP_MAC], then: LOST },
    ...martianSources(facts),
    {
      label: 'source 0/8',
      tests: [IS_IP, prefix(SADDR, 0n, 8)],
      then: unknown('path/special-source', 'only the kernel knows where it goes'),
    },
    {
      label: 'IPv6 source is link-local',
      tests: [IS_IP6, prefix(SADDR6, v6(0xfe80), 10)],
      then: unknown('path/special-source', 'it is not forwarded'),
    },
    {
      label: 'IPv6 source ::/8',
      tests: [IS_IP6, prefix(SADDR6, 0n, 8)],
      then: unknown('path/special-source', 'only the kernel knows where it goes'),
    },
    ...reversePath(facts),
    ...(facts.routed ? [] : [{ label: 'the route may discard', tests: [], then: UNCERTAIN }]),
  ];
}
