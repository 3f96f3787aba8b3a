import { ones, writeUint } from '../support/bits.ts';
import type { Reason } from '../support/diagnostics.ts';
import type { ViewName } from './classifier.ts';
import type { Facts } from './facts.ts';
import { CT_STATE, type Field, fieldKey, META } from './fields.ts';
import { applyOperand, equals, overlaps, plain, splitKey, testedFields } from './operand.ts';
import type { ElementSet, Hook, Operand, Test } from './ruleset.ts';

/** The device on which the hooks that are being written see the frames. */
export interface Link {
  /** Null: it depends on a tag that the frame does not show. */
  readonly device: string | null;
  /** Destinations whose `pkttype` is host, 48 bits; null: not known. */
  readonly hostMacs: readonly bigint[] | null;
  /** A VLAN tag of the frame may be gone here. */
  readonly tagRemoved: boolean;
  /** Frames for other hosts went another way before. */
  readonly addressed: boolean;
}

/** What is known where a rule runs. */
export interface Site {
  readonly facts: Facts;
  readonly link: Link;
  readonly view: ViewName;
  readonly hook: Hook;
  /** What statements before it, or NAT, may have rewritten. */
  readonly changed: readonly Field[] | 'everything';
  /** Values `ct state` may have. */
  readonly states: FlowStates;
}

/** What is assumed of the packet's flow: values that `ct state` may have. */
export type FlowStates = readonly bigint[];

const INVALID = 1n;
const ESTABLISHED = 2n;
const RELATED = 4n;
const NEW = 8n;
const UNTRACKED = 64n;

/** Nothing is assumed. */
export const ANY_FLOW: FlowStates = [INVALID, ESTABLISHED, RELATED, NEW, UNTRACKED];

/** Where connection tracking has not run yet: below NF_IP_PRI_CONNTRACK, -200. */
export const UNSEEN_FLOW: FlowStates = [INVALID, UNTRACKED];

/** The packet belongs to no flow that connection tracking knows. */
export const NO_FLOW: FlowStates = [INVALID, NEW, UNTRACKED];

/** The packet is the first of its flow, if a rule lets it through: only such packets begin one. */
export const FIRST_OF_FLOW: FlowStates = [NEW];

/**
 * Rules are read as they are written, for any packet of any device: every field, also metadata, is
 * compared as the kernel sees it there, and only what may have been rewritten before is unknown.
 */
export const AS_WRITTEN: FlowStates = [...ANY_FLOW];

/** A test after resolution: certain, or what is left to check on the frame. */
export type Resolved = boolean | Test;

/** An interface name as the kernel compares it: 16 bytes, padded with zeros (IFNAMSIZ). */
export function nameValue(name: string): bigint {
  const bytes = new Uint8Array(16);
  bytes.set(Buffer.from(name, 'utf8').subarray(0, 16));
  return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function unknown(code: string, message: string, field: Field): Extract<Test, { kind: 'unknown' }> {
  const reason: Reason = { code, message: `${field.name}: ${message}` };
  return { kind: 'unknown', reason, stateful: false, text: field.name };
}

type Constant = { readonly kind: 'value'; readonly value: bigint } | { readonly kind: 'absent' };

const ARPHRD_ETHER = 1n; // include/uapi/linux/if_arp.h

/** Metadata that is the same for every frame of the device, or null when it is not. */
function constantOf(field: Field, site: Site): Constant | null {
  switch (fieldKey(field)) {
    case META.iif.name:
    case META.iifname.name:
      if (site.link.device === null) return null;
      return { kind: 'value', value: nameValue(site.link.device) };
    case META.iifgroup.name: {
      const { device, group } = site.facts;
      if (group === null || site.link.device !== device) return null;
      return { kind: 'value', value: BigInt(group) };
    }
    case META.iiftype.name:
      return { kind: 'value', value: ARPHRD_ETHER };
    case META.oif.name:
    case META.oifname.name:
    case META.oifgroup.name:
      return site.hook === 'forward' ? null : { kind: 'value', value: 0n };
    case META.oiftype.name:
      return site.hook === 'forward' ? null : { kind: 'absent' };
    default:
      return null;
  }
}

/** Bits of a header that something rewrites before a rule sees them, and whose header that is. */
type Rewritten = readonly [base: Field['base'], of: string, from: number, width: number];

/** What differs between the wire and what a rule sees once segments are merged. */
const CHANGED_BY_MERGING: readonly Rewritten[] = [
  ['nh', 'ip ', 16, 16], // length
  ['nh', 'ip ', 32, 16], // id
  ['nh', 'ip ', 80, 16], // checksum
  ['nh', 'ip6 ', 32, 16], // length
  ['th', 'tcp ', 32, 32], // sequence
  ['th', 'tcp ', 108, 1], // psh
  ['th', 'tcp ', 111, 1], // fin
  ['th', 'tcp ', 128, 16], // checksum
  ['th', 'udp ', 32, 32], // length, checksum
];

/** Raw loads and `th` fields may be of any header. */
function touches(operand: Operand, rewritten: readonly Rewritten[]): boolean {
  const { base, name } = operand.field;
  const anyHeader = name.startsWith('@') || name.startsWith('th ');
  return rewritten.some(
    ([of, header, from, width]) =>
      of === base && (anyHeader || name.startsWith(header)) && keepsBits(operand, from, width),
  );
}

/** Whether the operand keeps any of these bits of the header. */
function keepsBits({ field, mask }: Operand, from: number, width: number): boolean {
  const below = field.offset + field.width - (from + width);
  const window = below >= 0 ? ones(width) << BigInt(below) : ones(width) >> BigInt(-below);
  return (mask & window) !== 0n;
}

function differsUnderGro(operand: Operand): boolean {
  return fieldKey(operand.field) === META.length.name || touches(operand, CHANGED_BY_MERGING);
}

/** Forwarding takes one off the hop limit and mends the IPv4 checksum. */
const CHANGED_BY_FORWARDING: readonly Rewritten[] = [
  ['nh', 'ip6 ', 56, 8],
  ['nh', 'ip ', 64, 8],
  ['nh', 'ip ', 80, 16],
];

function changedByForwarding(operand: Operand): boolean {
  return !isHopLimit(operand.field) && touches(operand, CHANGED_BY_FORWARDING);
}

const TCP_FLAGS = 'th:104:8';
const NEVER_MERGED = 0x26n; // syn, rst, urg: tcp_gro_receive flushes these (net/ipv4/tcp_offload.c)

/** Segments with these flags are never merged, so requiring one keeps psh and fin as on the wire. */
function requiresUnmerged(test: Extract<Test, { kind: 'compare' }>): boolean {
  const { operand, lo, hi, negated } = test;
  return (
    fieldKey(operand.field) === TCP_FLAGS &&
    !negated &&
    lo === hi &&
    operand.xor === 0n &&
    operand.shift === 0 &&
    (lo & NEVER_MERGED) !== 0n
  );
}

const HIDDEN_TAG = 'the NIC may take the VLAN tag out of the frame (give --fact rx-vlan=off)';
const HIDDEN_TAG_FROM = 96; // bits: a tag in metadata shifts what lies behind the addresses

/** Of these fields, the one that may have been rewritten before the rule sees it, as unknown. */
function rewrittenOf(
  fields: readonly Field[],
  changed: Site['changed'],
): Extract<Test, { kind: 'unknown' }> | null {
  const field = fields.find(
    (one) => changed === 'everything' || changed.some((written) => overlaps(written, one)),
  );
  if (field === undefined) return null;
  return unknown('match/changed-before', 'may have been rewritten before this rule', field);
}

/** Why the frame on the wire does not tell what this operand yields, or null when it does. */
function hiddenBecause(
  operand: Operand,
  site: Site,
  unmerged = false,
): Extract<Test, { kind: 'unknown' }> | null {
  const { field } = operand;
  const { facts, hook, changed } = site;
  const rewritten = field.base === 'meta' ? null : rewrittenOf([field], changed);
  if (rewritten !== null) return rewritten;
  switch (fieldKey(field)) {
    case CT_STATE.name:
      return unknown('match/ct-state', 'depends on connection tracking', field);
    case META.mark.name:
    case META.priority.name:
      return unknown('match/packet-mark', 'is set by software, not carried by the frame', field);
    case META.iif.name:
    case META.iifname.name:
      return unknown('fact/rx-vlan', HIDDEN_TAG, field);
    case META.iifgroup.name:
      return unknown('fact/group', 'the device group is not known (give --fact group=N)', field);
    case META.oif.name:
    case META.oifname.name:
    case META.oifgroup.name:
    case META.oiftype.name:
      return unknown('match/output-device', 'needs the route, which only the kernel knows', field);
    default:
  }
  if (!facts.groOff && !unmerged && differsUnderGro(operand)) {
    return unknown(
      'fact/gro',
      'receive offload merges segments before the rule sees them (give --fact gro=off)',
      field,
    );
  }
  if (!facts.rxVlanOff && field.base === 'll' && field.offset + field.width > HIDDEN_TAG_FROM) {
    return unknown('fact/rx-vlan', HIDDEN_TAG, field);
  }
  if (site.link.tagRemoved && field.base === 'll' && field.offset + field.width > HIDDEN_TAG_FROM) {
    return unknown('match/behind-tag', 'a VLAN tag of the frame is gone at this hook', field);
  }
  if (hook === 'forward' && changedByForwarding(operand)) {
    return unknown('match/changed-before', 'forwarding rewrites a part of it', field);
  }
  return null;
}

const PKTTYPES = [0n, 1n, 2n, 3n] as const; // host, broadcast, multicast, otherhost: if_packet.h
const MAC: Field = { name: 'ether daddr', base: 'll', offset: 0, width: 48 } as Field;
const GROUP_BIT = 0x010000000000n;
const BROADCAST = ones(48);

/** Whether a comparison holds for a loaded value. */
export function holdsCompare(test: Extract<Test, { kind: 'compare' }>, loaded: bigint): boolean {
  const value = applyOperand(test.operand, loaded);
  return (value >= test.lo && value <= test.hi) !== test.negated;
}

/**
 * `meta pkttype` as tests on the destination address: the device's own, all ones, or the group
 * bit. Layer-3 hooks never see frames for other hosts.
 */
function resolvePacketType(accepts: (type: bigint) => boolean, site: Site): Resolved {
  const { changed } = site;
  if (changed === 'everything' || changed.includes(META.pkttype)) {
    return unknown('match/changed-before', 'may have been set before this rule', META.pkttype);
  }
  const [host, broadcast, multicast, seenOther] = PKTTYPES.map(accepts);
  const other = site.view === 'ingress' ? seenOther : host;
  if (host === broadcast && broadcast === multicast && multicast === other) return host === true;
  const macs = site.link.hostMacs;
  if (host !== other && macs === null) {
    return unknown('fact/mac', "needs the device's address (give --fact mac=...)", META.pkttype);
  }
  const group = { field: MAC, mask: GROUP_BIT, xor: 0n, shift: 0 };
  const boxes: [bigint, bigint, bigint][] = [];
  const box = (bit: bigint, lo: bigint, hi: bigint): void => {
    if (lo <= hi) boxes.push([bit, lo, hi]);
  };
  if (broadcast) box(GROUP_BIT, BROADCAST, BROADCAST);
  if (multicast) box(GROUP_BIT, 0n, BROADCAST - 1n);
  const own = [...(macs ?? [])].sort((a, b) => (a < b ? -1 : 1));
  if (host && other) box(0n, 0n, BROADCAST);
  else if (host) for (const mac of own) box(0n, mac, mac);
  else if (other) {
    for (const [i, mac] of own.entries()) box(0n, (own[i - 1] ?? -1n) + 1n, mac - 1n);
    box(0n, (own.at(-1) ?? -1n) + 1n, BROADCAST);
  }
  const join = (bit: bigint, value: bigint): bigint => (bit << 48n) | value;
  const elements = {
    parts: [48, 48],
    lo: boxes.map(([bit, lo]) => join(bit, lo)),
    hi: boxes.map(([bit, , hi]) => join(bit, hi)),
    verdicts: null,
  };
  const [first] = boxes;
  if (boxes.length === 1 && first !== undefined && host && other) return equals(MAC, 0n, GROUP_BIT);
  return {
    kind: 'lookup',
    key: [group, plain(MAC)],
    set: { name: null, elements, unknown: null },
    negated: false,
  };
}

/** A test on `ct state`: certain where it comes out the same for every state there may be. */
function agree({ states }: Pick<Site, 'states'>, holds: (state: bigint) => boolean): Resolved {
  const outcomes = states.map(holds);
  if (outcomes.every((outcome) => outcome)) return true;
  if (outcomes.every((outcome) => !outcome)) return false;
  return unknown('match/ct-state', 'depends on connection tracking', CT_STATE);
}

/** A test on `ct state` alone; null for any other. */
export function resolveState(test: Test, site: Pick<Site, 'states'>): Resolved | null {
  if (test.kind === 'unknown') return null;
  const operands = test.kind === 'compare' ? [test.operand] : test.key;
  const [only] = operands;
  if (only === undefined || operands.length > 1) return null;
  if (fieldKey(only.field) !== CT_STATE.name) return null;
  if (test.kind === 'compare') return agree(site, (state) => holdsCompare(test, state));
  if (test.set.unknown !== null) return null;
  return agree(
    site,
    (state) => (findElement(test.set, applyOperand(only, state)) !== null) !== test.negated,
  );
}

/** Hop limits are already one less when a forward chain sees the packet; the frame has the old one. */
function beforeForwarding(test: Extract<Test, { kind: 'compare' }>): Test {
  const { operand } = test;
  const whole = operand.mask === ones(operand.field.width) && operand.xor === 0n;
  if (!whole || operand.shift !== 0) {
    return unknown('match/changed-before', 'forwarding takes one off', operand.field);
  }
  return { ...test, lo: test.lo + 1n, hi: test.hi + 1n };
}

function isHopLimit(field: Field): boolean {
  return field.name === 'ip ttl' || field.name === 'ip6 hoplimit';
}

const ETHER_TYPE = 'll:96:16';

/** Where tags are gone, the EtherType in the Ethernet header is the protocol behind them. */
function operandAt(operand: Operand, { link, facts }: Site): Operand {
  const isType = fieldKey(operand.field) === ETHER_TYPE && link.tagRemoved && facts.rxVlanOff;
  return isType ? { ...operand, field: META.protocol } : operand;
}

function resolveCompare(given: Extract<Test, { kind: 'compare' }>, site: Site): Resolved {
  const operand = operandAt(given.operand, site);
  const test = operand === given.operand ? given : { ...given, operand };
  const { field } = test.operand;
  const constant = constantOf(field, site);
  if (constant?.kind === 'absent') return false;
  if (constant?.kind === 'value') return holdsCompare(test, constant.value);
  if (fieldKey(field) === META.pkttype.name) {
    return resolvePacketType((type) => holdsCompare(test, type), site);
  }
  const hidden = hiddenBecause(test.operand, site, requiresUnmerged(test));
  if (hidden !== null) return hidden;
  return site.hook === 'forward' && isHopLimit(field) ? beforeForwarding(test) : test;
}

/** The set without part `index`, keeping only the elements that hold `value` there. */
function fixPart(set: ElementSet, index: number, value: bigint): ElementSet {
  const { parts, lo, hi, verdicts } = set.elements;
  const below = parts.slice(index + 1).reduce((sum, width) => sum + width, 0);
  const cut = (key: bigint): bigint =>
    ((key >> BigInt(below + (parts[index] ?? 0))) << BigInt(below)) | (key & ones(below));
  const kept = lo.flatMap((key, i) => {
    const from = splitKey(parts, key)[index] ?? 0n;
    const to = splitKey(parts, hi[i] ?? key)[index] ?? 0n;
    return value >= from && value <= to ? [i] : [];
  });
  return {
    ...set,
    elements: {
      parts: parts.filter((_, i) => i !== index),
      lo: kept.map((i) => cut(lo[i] ?? 0n)),
      hi: kept.map((i) => cut(hi[i] ?? 0n)),
      verdicts: verdicts === null ? null : kept.flatMap((i) => verdicts[i] ?? []),
    },
  };
}

/** A lookup with the device's constants put in; the key is empty when nothing else is left of it. */
export type ResolvedLookup =
  | { readonly kind: 'lookup'; readonly key: readonly Operand[]; readonly set: ElementSet }
  /** A load always fails, so the rule never matches. */
  | { readonly kind: 'breaks' }
  | Extract<Test, { kind: 'unknown' }>;

/** What one part of a key yields: a constant, nothing (the load fails), what to load, or unknown. */
export type Placed =
  | Constant
  | { readonly kind: 'load'; readonly operand: Operand }
  | Extract<Test, { kind: 'unknown' }>;

/** Puts what is known of its parts into a lookup; see `ResolvedLookup`. */
export function placeKey(
  key: readonly Operand[],
  set: ElementSet,
  place: (operand: Operand) => Placed,
): ResolvedLookup {
  if (set.unknown !== null) {
    return { kind: 'unknown', reason: set.unknown, stateful: false, text: set.name ?? 'set' };
  }
  const rest: Operand[] = [];
  let resolved = set;
  for (const operand of key) {
    const placed = place(operand);
    if (placed.kind === 'absent') return { kind: 'breaks' };
    if (placed.kind === 'unknown') return placed;
    if (placed.kind === 'load') rest.push(placed.operand);
    else resolved = fixPart(resolved, rest.length, applyOperand(operand, placed.value));
  }
  return { kind: 'lookup', key: rest, set: resolved };
}

function placeOperand(given: Operand, site: Site): Placed {
  const operand = operandAt(given, site);
  const { field } = operand;
  const known = constantOf(field, site) ?? hiddenBecause(operand, site);
  if (known !== null) return known;
  if (site.hook === 'forward' && isHopLimit(field)) {
    return unknown('match/changed-before', 'forwarding takes one off', field);
  }
  if (fieldKey(field) === META.pkttype.name) {
    return unknown('match/packet-type', 'only supported alone, not in a key', field);
  }
  return { kind: 'load', operand };
}

/** Resolves the key of a lookup or verdict map; see `ResolvedLookup`. */
export function resolveLookup(
  key: readonly Operand[],
  set: ElementSet,
  site: Site,
): ResolvedLookup {
  if (site.states === AS_WRITTEN && set.unknown === null) {
    const fields = key.map(({ field }) => field);
    return rewrittenOf(fields, site.changed) ?? { kind: 'lookup', key, set };
  }
  return placeKey(key, set, (operand) => placeOperand(operand, site));
}

/** A lookup that is a test: certain where nothing is left of its key, or of its set. */
export function settleLookup(
  test: Extract<Test, { kind: 'lookup' }>,
  resolved: ResolvedLookup,
): Resolved {
  if (resolved.kind === 'breaks') return false;
  if (resolved.kind === 'unknown') return resolved;
  const some = resolved.set.elements.lo.length > 0;
  if (resolved.key.length === 0) return some !== test.negated;
  if (!some && !test.negated) return false;
  return { ...test, key: resolved.key, set: resolved.set };
}

/** Puts in what is constant on the device, and marks as unknown what the frame does not tell. */
export function resolveTest(test: Test, site: Site): Resolved {
  if (site.states === AS_WRITTEN && test.kind !== 'unknown') {
    const unreliable = test.kind === 'lookup' ? resolveLookup(test.key, test.set, site) : null;
    if (unreliable?.kind === 'unknown') return unreliable;
    return rewrittenOf(testedFields(test), site.changed) ?? test;
  }
  const state = resolveState(test, site);
  if (state !== null) return state;
  switch (test.kind) {
    case 'unknown':
      return test;
    case 'compare':
      return resolveCompare(test, site);
    case 'lookup':
      return resolveLookupTest(test, site);
  }
}

/** Index of the element that holds a key of one part, or null. */
export function findElement({ elements }: ElementSet, value: bigint): number | null {
  const { lo, hi } = elements;
  const index = lo.findIndex((low, i) => value >= low && value <= (hi[i] ?? low));
  return index < 0 ? null : index;
}

function resolveLookupTest(test: Extract<Test, { kind: 'lookup' }>, site: Site): Resolved {
  const [only] = test.key;
  const alone = test.key.length === 1 && only !== undefined;
  if (alone && fieldKey(only.field) === META.pkttype.name && test.set.unknown === null) {
    const { lo, hi } = test.set.elements;
    return resolvePacketType((type) => {
      const value = applyOperand(only, type);
      return lo.some((low, i) => value >= low && value <= (hi[i] ?? low)) !== test.negated;
    }, site);
  }
  return settleLookup(test, resolveLookup(test.key, test.set, site));
}

/** Bytes of an interface name, for listings. */
export function nameOf(value: bigint): string {
  return Buffer.from(writeUint(value, 16)).toString('utf8').replace(/\0+$/, '');
}
