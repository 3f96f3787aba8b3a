import { ones } from '../support/bits.ts';
import type { Facts } from './facts.ts';
import { CT_STATE, type Field, fieldKey, META } from './fields.ts';
import { applyOperand, isPlain } from './operand.ts';
import {
  FIRST_OF_FLOW,
  type FlowStates,
  findElement,
  holdsCompare,
  nameValue,
  type Placed,
  placeKey,
  type Resolved,
  type ResolvedLookup,
  resolveState,
  settleLookup,
  UNSEEN_FLOW,
} from './resolve-test.ts';
import type { ElementSet, Hook, Operand, Test } from './ruleset.ts';

/**
 * Packets that would begin the flow of the packet at hand, if the ruleset let one of them through:
 * all that have its tuple, or the reversed one, and come through this machine one way.
 */
export interface Supposition {
  readonly version: 4 | 6;
  /** They go the other way: with addresses and ports exchanged. */
  readonly reversed: boolean;
  /** From another machine to this one, past it, or from this one. */
  readonly way: 'input' | 'forward' | 'output';
}

/** The hooks on each way, up to where the kernel confirms a new flow. */
export const WAYS: Readonly<Record<Supposition['way'], readonly Hook[]>> = {
  input: ['prerouting', 'input'],
  forward: ['prerouting', 'forward', 'postrouting'],
  output: ['output', 'postrouting'],
};

/** A place where a rule meets supposed packets. */
export interface SupposedSite extends Supposition {
  readonly facts: Facts;
  readonly hook: Hook;
  /** Of the base chain. */
  readonly priority: number;
  /** Transport protocols that the tests before this one leave over; null for any. */
  readonly protocols: readonly bigint[] | null;
}

const CONNTRACK = -200; // NF_IP_PRI_CONNTRACK, uapi/linux/netfilter_ipv4.h
const DEFRAGMENTATION = -400; // NF_IP_PRI_CONNTRACK_DEFRAG

/** Values of `ct state`: a packet that begins a flow is new; before connection tracking has run, all packets look invalid. */
export function statesAt({ hook, priority }: SupposedSite): FlowStates {
  if ((hook !== 'prerouting' && hook !== 'output') || priority > CONNTRACK) return FIRST_OF_FLOW;
  return priority < CONNTRACK ? UNSEEN_FLOW : [...UNSEEN_FLOW, ...FIRST_OF_FLOW];
}

const AH = 51n; // RFC 4302
const TCP = 6n;
const UDP = 17n;
const ICMP = 1n;
const ICMPV6 = 58n;
/** The type of the request that a reply belongs to: RFC 792, RFC 4443. */
const ECHO_REQUEST: ReadonlyMap<bigint, bigint> = new Map([
  [ICMP, 8n],
  [ICMPV6, 128n],
]);

const IP_PROTOCOL = 'nh:72:8';

const ADDRESSES: Readonly<Record<string, readonly [offset: number, from: string, to: string]>> = {
  'nh:96:32': [128, 'saddr', 'daddr'],
  'nh:128:32': [96, 'daddr', 'saddr'],
  'nh:64:128': [192, 'saddr', 'daddr'],
  'nh:192:128': [64, 'daddr', 'saddr'],
};
const PORTS: typeof ADDRESSES = {
  'th:0:16': [16, 'sport', 'dport'],
  'th:16:16': [0, 'dport', 'sport'],
};

function exchange(field: Field, pairs: typeof ADDRESSES): Placed {
  const row = pairs[fieldKey(field)];
  if (row === undefined) return unknown(field);
  const [offset, from, to] = row;
  const name = field.name.replace(from, to);
  return load({ ...field, name, offset: offset as Field['offset'] }); // a bit offset of the table
}

function load(field: Field): Placed {
  return { kind: 'load', operand: { field, mask: ones(field.width), xor: 0n, shift: 0 } };
}

function unknown({ name }: Field): Extract<Test, { kind: 'unknown' }> {
  const message = `${name}: may differ in other packets of the same flow`;
  const reason = { code: 'match/not-of-flow', message };
  return { kind: 'unknown', reason, stateful: false, text: name };
}

function value(constant: bigint): Placed {
  return { kind: 'value', value: constant };
}

/** Ports, and type and code of ICMP messages: nothing else behind the network header is in a tuple. */
function supposeTransport(field: Field, site: SupposedSite): Placed {
  const { protocols, reversed } = site;
  if (protocols === null || protocols.length === 0) return unknown(field);
  if (protocols.every((protocol) => protocol === TCP || protocol === UDP)) {
    if (reversed) return exchange(field, PORTS);
    return fieldKey(field) in PORTS ? load(field) : unknown(field);
  }
  const [only] = protocols;
  const request = only === undefined || protocols.length > 1 ? undefined : ECHO_REQUEST.get(only);
  if (request === undefined) return unknown(field);
  switch (fieldKey(field)) {
    case 'th:0:8':
      return reversed ? value(request) : load(field);
    case 'th:8:8':
      return load(field);
    default:
      return unknown(field);
  }
}

/** Every packet from outside arrives on the device itself, on none above it either. */
function isSole({ soleDevice, master, vlans }: Facts): boolean {
  return soleDevice && master === null && (vlans === null || vlans.length === 0);
}

function supposeDevice(field: Field, { facts, hook, way }: SupposedSite): Placed {
  const arrives = way !== 'output' && hook !== 'postrouting';
  switch (field.name) {
    case META.iif.name:
    case META.iifname.name:
      return arrives && isSole(facts) ? value(nameValue(facts.device)) : unknown(field);
    case META.oif.name:
    case META.oifname.name:
      return hook === 'prerouting' || hook === 'input' ? value(0n) : unknown(field);
    default:
      return unknown(field);
  }
}

/** What loading a field yields of the supposed packets, in terms of the packet at hand. */
function supposeField(field: Field, site: SupposedSite): Placed {
  const { version, reversed, priority } = site;
  // Before defragmentation a packet may come in pieces, the later ones without ports.
  const inPieces = priority <= DEFRAGMENTATION;
  if (field.name.startsWith('@')) return unknown(field);
  if (field.base === 'th') return inPieces ? unknown(field) : supposeTransport(field, site);
  if (field.base === 'nh') {
    if (fieldKey(field) === IP_PROTOCOL && version === 4) return load(field);
    if (reversed) return exchange(field, ADDRESSES);
    return fieldKey(field) in ADDRESSES ? load(field) : unknown(field);
  }
  switch (field.name) {
    case META.protocol.name:
      return value(version === 4 ? 0x0800n : 0x86ddn);
    case META.nfproto.name:
      return value(version === 4 ? 2n : 10n);
    case META.l4proto.name:
      return inPieces ? unknown(field) : load(field);
    case CT_STATE.name: {
      const [only, second] = statesAt(site);
      return only === undefined || second !== undefined ? unknown(field) : value(only);
    }
    default:
      return supposeDevice(field, site);
  }
}

function place(operand: Operand, site: SupposedSite): Placed {
  const placed = supposeField(operand.field, site);
  if (placed.kind !== 'load') return placed;
  return { kind: 'load', operand: { ...operand, field: placed.operand.field } };
}

const LOOPBACK = nameValue('lo');

/**
 * A device at which supposed packets neither arrive nor leave: what comes by `lo` has a source, and
 * what leaves by it a destination of this machine itself, and no tuple at hand has both.
 */
function isElsewhere({ name }: Field, { hook, way }: SupposedSite): boolean {
  const input = name === META.iif.name || name === META.iifname.name;
  const output = name === META.oif.name || name === META.oifname.name;
  if (input) return way !== 'output' && hook !== 'postrouting';
  return output && (hook === 'output' || hook === 'forward' || hook === 'postrouting');
}

/** A map of devices without `lo`, where supposed packets do not meet it. */
export function withoutLoopback(
  key: readonly Operand[],
  map: ElementSet,
  site: SupposedSite,
): ElementSet {
  const [only] = key;
  if (only === undefined || key.length > 1 || !isPlain(only)) return map;
  if (!isElsewhere(only.field, site)) return map;
  const { parts, lo, hi, verdicts } = map.elements;
  const kept = lo.flatMap((low, i) => (low === LOOPBACK && hi[i] === LOOPBACK ? [] : [i]));
  const pick = (column: readonly bigint[]): bigint[] => kept.map((i) => column[i] ?? 0n);
  const rest = verdicts === null ? null : kept.flatMap((i) => verdicts[i] ?? []);
  return { ...map, elements: { parts, lo: pick(lo), hi: pick(hi), verdicts: rest } };
}

function isProtocol({ field }: Operand): boolean {
  return field.name === META.l4proto.name;
}

/**
 * Connection tracking looks through an IPv6 authentication header, nftables does not: of a TCP
 * flow there may be packets whose `meta l4proto` is AH (ipv6_skip_exthdr against ipv6_find_hdr).
 */
export function missesWrapped(test: Test, { version }: SupposedSite): boolean {
  if (version === 4 || test.kind === 'unknown') return false;
  return test.kind === 'compare' ? isProtocol(test.operand) : test.key.some(isProtocol);
}

/** A test or map on `meta l4proto` that may take the way of a wrapped packet alone. */
function takesWrapped(key: readonly Operand[], site: SupposedSite, holds: (ah: bigint) => boolean) {
  if (site.version === 4 || !key.some(isProtocol)) return false;
  const [only, second] = key;
  return only === undefined || second !== undefined || holds(applyOperand(only, AH));
}

/** Resolves the key of a lookup or verdict map for supposed packets. */
export function supposeLookup(
  key: readonly Operand[],
  set: ElementSet,
  site: SupposedSite,
  negated = false,
): ResolvedLookup {
  const holds = (ah: bigint): boolean => (findElement(set, ah) !== null) !== negated;
  if (takesWrapped(key, site, holds)) return unknown(META.l4proto);
  return placeKey(key, set, (operand) => place(operand, site));
}

/**
 * A test on the packet at hand that tells what a rule's test says of every supposed packet; unknown
 * where they may differ.
 */
export function supposeTest(test: Test, site: SupposedSite): Resolved {
  if (test.kind === 'unknown') return test;
  const state = resolveState(test, { states: statesAt(site) });
  if (state !== null) return state;
  if (test.kind === 'lookup') {
    return settleLookup(test, supposeLookup(test.key, test.set, site, test.negated));
  }
  const { operand, lo, hi, negated } = test;
  if (lo === LOOPBACK && hi === LOOPBACK && isPlain(operand) && isElsewhere(operand.field, site)) {
    return negated;
  }
  if (takesWrapped([operand], site, (ah) => (ah >= lo && ah <= hi) !== negated)) {
    return unknown(operand.field);
  }
  const placed = place(operand, site);
  switch (placed.kind) {
    case 'absent':
      return false;
    case 'value':
      return holdsCompare(test, placed.value);
    case 'load':
      return { ...test, operand: placed.operand };
    case 'unknown':
      return placed;
  }
}

/** The protocols that a test leaves over of those before; null for any. */
export function narrowProtocols(test: Test, before: readonly bigint[] | null) {
  if (test.kind === 'unknown' || test.negated) return before;
  const [operand, second] = test.kind === 'compare' ? [test.operand] : test.key;
  if (operand === undefined || second !== undefined) return before;
  if (!isProtocol(operand) && fieldKey(operand.field) !== IP_PROTOCOL) return before;
  if (!isPlain(operand)) return before;
  const boxes =
    test.kind === 'compare'
      ? [[test.lo, test.hi] as const]
      : test.set.elements.lo.map((lo, i) => [lo, test.set.elements.hi[i] ?? lo] as const);
  const all = boxes.flatMap(([lo, hi]) =>
    Array.from({ length: Number(hi - lo) + 1 }, (_, i) => lo + BigInt(i)),
  );
  return before === null ? all : before.filter((protocol) => all.includes(protocol));
}
