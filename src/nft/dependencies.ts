import { type Field, findField, META, PROTOCOLS, type Protocol } from '../ir/fields.ts';
import type { Family, Test } from '../ir/ruleset.ts';
import { bits, ones } from '../support/bits.ts';
import type { Reason } from '../support/diagnostics.ts';

/**
 * What a rule has established about the packet so far, as nft's own protocol context (src/proto.c,
 * src/payload.c) tracks it. Lives for the lowering of one rule and is changed on the way.
 */
export interface ProtocolContext {
  readonly family: Family;
  /** The link layer is known to be Ethernet. */
  ether: boolean;
  /** VLAN tags established in front of the network header. */
  tags: number;
  /** Name of the network protocol, `other` for one that no row describes. */
  network: string | null;
  /** Name of the transport protocol, `other` for one that no row describes. */
  transport: string | null;
  /** The ICMP or ICMPv6 type that an equality established. */
  icmpType: number | null;
}

/** The context at the start of a rule in a table of `family`. */
export function startContext(family: Family): ProtocolContext {
  return {
    family,
    ether: family === 'bridge',
    tags: 0,
    network: family === 'ip' || family === 'ip6' || family === 'arp' ? family : null,
    transport: null,
    icmpType: null,
  };
}

// ARPHRD_ETHER of include/uapi/linux/if_arp.h.
const ARPHRD_ETHER = 1n;
const TAG_TYPES: ReadonlySet<number> = new Set([0x8100, 0x88a8]);
const TAG_BITS = 32;

/** Fields of one ICMP header that exist only for some types (nftables src/payload.c, icmp_dep). */
const ICMP_TYPES_OF_FIELD: Readonly<Record<string, readonly number[]>> = {
  'icmp id': [8, 0],
  'icmp sequence': [8, 0],
  'icmp mtu': [3],
  'icmp gateway': [5],
  'icmpv6 parameter-problem': [4],
  'icmpv6 mtu': [2],
  'icmpv6 id': [128, 129],
  'icmpv6 sequence': [128, 129],
  'icmpv6 max-delay': [130],
  'icmpv6 taddr': [135, 136, 137],
  'icmpv6 daddr': [137],
};

/** The test nft adds when it needs `field` to have `value`. */
export function equalityTest(field: Field, value: bigint, implicit: boolean): Test {
  return {
    kind: 'compare',
    operand: { field, mask: ones(field.width), xor: 0n, shift: 0 },
    lo: value,
    hi: value,
    negated: false,
    implicit,
  };
}

/** `field` of a header that stands behind `tags` VLAN tags more than its row says. */
function behindTags(field: Field, tags: number): Field {
  return tags === 0 ? field : { ...field, offset: bits(field.offset + tags * TAG_BITS) };
}

function mustFind(protocol: string, name: string): Field {
  const field = findField(protocol, name);
  if (field === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return field;
}

const ETHER_TYPE = mustFind('ether', 'type');
const VLAN_TYPE = mustFind('vlan', 'type');

function networkName(etherType: number): string {
  const row = PROTOCOLS.find(
    ({ base, needs }) => base === 'nh' && needs.kind === 'network' && needs.etherType === etherType,
  );
  return row === undefined ? 'other' : row.name;
}

function transportName(protocol: number): string {
  const row = PROTOCOLS.find(
    ({ needs }) => needs.kind === 'transport' && needs.protocol === protocol,
  );
  return row === undefined ? 'other' : row.name;
}

function conflict(established: string, wanted: string): Reason {
  return {
    code: 'match/conflicting-protocols',
    message: `the rule has established ${established} and then loads from ${wanted}`,
  };
}

function needEther(context: ProtocolContext): readonly Test[] {
  if (context.ether) return [];
  context.ether = true;
  return [equalityTest(META.iiftype, ARPHRD_ETHER, true)];
}

/** The field whose equality with an EtherType establishes the network protocol. */
function networkSelector(
  context: ProtocolContext,
  etherType: number,
  forTransport: boolean,
): Field {
  if (context.tags > 0) return behindTags(VLAN_TYPE, context.tags - 1);
  if (context.family === 'netdev') return context.ether ? ETHER_TYPE : META.protocol;
  if (context.family === 'bridge') {
    return forTransport || etherType === 0x0806 ? ETHER_TYPE : META.protocol;
  }
  return context.ether ? ETHER_TYPE : META.nfproto;
}

function needNetwork(
  context: ProtocolContext,
  etherType: number,
  forTransport: boolean,
): readonly Test[] | Reason {
  const name = networkName(etherType);
  if (context.network === name) return [];
  if (context.network !== null) {
    return forTransport ? [] : conflict(context.network, name);
  }
  const field = networkSelector(context, etherType, forTransport);
  // NFPROTO_IPV4 and NFPROTO_IPV6 of include/uapi/linux/netfilter.h.
  const nfproto = etherType === 0x0800 ? 2n : etherType === 0x86dd ? 10n : null;
  if (field === META.nfproto && nfproto === null) return conflict(context.family, name);
  context.network = name;
  const value = field === META.nfproto && nfproto !== null ? nfproto : BigInt(etherType);
  return [equalityTest(field, value, true)];
}

function needTransport(
  context: ProtocolContext,
  protocol: Protocol,
  number: number,
  etherType: number | null,
): readonly Test[] | Reason {
  if (context.transport === protocol.name) return [];
  if (context.transport !== null) return conflict(context.transport, protocol.name);
  const network = etherType === null ? [] : needNetwork(context, etherType, true);
  if ('code' in network) return network;
  context.transport = protocol.name;
  return [...network, equalityTest(META.l4proto, BigInt(number), true)];
}

function needTag(context: ProtocolContext): readonly Test[] {
  const ether = needEther(context);
  if (context.tags > 0) return ether;
  context.tags = 1;
  return [...ether, equalityTest(ETHER_TYPE, 0x8100n, true)];
}

/** What nft puts in front of a load of `protocol`, or why the rule cannot be understood. */
export function requireProtocol(
  context: ProtocolContext,
  protocol: Protocol,
): readonly Test[] | Reason {
  const { needs } = protocol;
  switch (needs.kind) {
    case 'none':
      return [];
    case 'ether':
      return needEther(context);
    case 'network':
      return protocol.base === 'll'
        ? needTag(context)
        : needNetwork(context, needs.etherType, false);
    case 'transport':
      return needTransport(context, protocol, needs.protocol, needs.etherType);
  }
}

/** Where `field` really stands in this rule, with the ICMP type test that some fields need. */
export function placeField(
  context: ProtocolContext,
  protocol: Protocol,
  field: Field,
): { readonly field: Field; readonly tests: readonly Test[] } | Reason {
  if (protocol.name === 'vlan') {
    return { field: behindTags(field, context.tags - 1), tests: [] };
  }
  const types = ICMP_TYPES_OF_FIELD[field.name];
  if (types === undefined) return { field, tests: [] };
  if (context.icmpType !== null) {
    if (types.includes(context.icmpType)) return { field, tests: [] };
    return conflict(`${protocol.name} type ${context.icmpType}`, field.name);
  }
  context.icmpType = types[0] ?? null;
  return { field, tests: [typeTest(mustFind(protocol.name, 'type'), types)] };
}

function typeTest(field: Field, types: readonly number[]): Test {
  const values = types.map(BigInt);
  const [only] = values;
  if (values.length === 1 && only !== undefined) return equalityTest(field, only, true);
  return {
    kind: 'lookup',
    key: [{ field, mask: ones(field.width), xor: 0n, shift: 0 }],
    set: {
      name: null,
      elements: { parts: [field.width], lo: values, hi: values, verdicts: null },
      unknown: null,
    },
    negated: false,
  };
}

/** Records what an equality of a whole field tells about the protocols (nft's pctx_update). */
export function learnEquality(context: ProtocolContext, field: Field, value: bigint): void {
  const number = Number(value);
  const { family } = context;
  switch (field.name) {
    case 'meta l4proto':
    case 'ip protocol':
    case 'ip6 nexthdr':
      if (field.base === 'meta' || transportName(number) !== 'other') {
        context.transport = transportName(number);
      }
      return;
    case 'meta nfproto':
      if (family !== 'ip' && family !== 'ip6' && family !== 'arp') {
        context.network = number === 2 ? 'ip' : number === 10 ? 'ip6' : 'other';
      }
      return;
    case 'meta protocol':
      if (family === 'netdev' || family === 'bridge') context.network = networkName(number);
      return;
    case 'meta iiftype':
      if (family !== 'bridge') context.ether = value === ARPHRD_ETHER;
      return;
    case 'icmp type':
    case 'icmpv6 type':
      context.icmpType = number;
      return;
    default:
      if (field.base === 'll') learnEtherType(context, field, number);
  }
}

function learnEtherType(context: ProtocolContext, field: Field, etherType: number): void {
  const expected = context.tags === 0 ? ETHER_TYPE : behindTags(VLAN_TYPE, context.tags - 1);
  if (field.offset !== expected.offset || field.width !== expected.width) return;
  if (field.name.startsWith('@')) return;
  if (TAG_TYPES.has(etherType)) context.tags += 1;
  else if (networkName(etherType) !== 'other') context.network ??= networkName(etherType);
}
