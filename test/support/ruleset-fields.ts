import type { LabHook } from './lab-oracle.ts';
import type { Random } from './random.ts';
import type { ValueKindName } from './ruleset-values.ts';

/** Families that the generator writes tables for. */
export type TableFamily = 'netdev' | 'bridge' | 'inet' | 'ip' | 'ip6';

/** Where a rule stands. */
export interface RulePlace {
  readonly family: TableFamily;
  readonly hook: LabHook;
  /** What the rule may name as the input device; `eth0` alone when left out. */
  readonly devices?: readonly string[];
}

/** Families whose rules see frames of any protocol. */
function seesFrames(family: TableFamily): boolean {
  return family === 'netdev' || family === 'bridge';
}

/** A field that a rule may match. */
export interface RuleField {
  readonly name: string;
  readonly values: ValueKindName;
  /** nft 1.0.6 gives `typeof NAME` for it, and takes it in concatenations and named sets. */
  readonly settable: boolean;
}

function field(name: string, values: ValueKindName, settable = true): RuleField {
  return { name, values, settable };
}

const IP = [
  ...[field('ip saddr', 'ip'), field('ip daddr', 'ip'), field('ip saddr', 'ip')],
  ...[field('ip ttl', 'byte'), field('ip dscp', 'dscp', false), field('ip length', 'word')],
  ...[field('ip id', 'word'), field('ip frag-off', 'word', false)],
  ...[field('@nh,96,32', 'rawIp', false), field('@nh,64,8', 'rawByte', false)],
];

const IP6 = [
  ...[field('ip6 saddr', 'ip6'), field('ip6 daddr', 'ip6'), field('ip6 saddr', 'ip6')],
  ...[field('ip6 hoplimit', 'byte'), field('ip6 length', 'word')],
  ...[field('ip6 flowlabel', 'flowLabel', false), field('ip6 dscp', 'dscp', false)],
];

const TCP = [
  ...[field('tcp dport', 'port'), field('tcp dport', 'port'), field('tcp sport', 'port')],
  ...[field('tcp flags', 'tcpFlags', false), field('tcp window', 'word', false)],
];

const UDP = [
  ...[field('udp dport', 'port'), field('udp sport', 'port'), field('udp length', 'word', false)],
];

const ANY_PORT = [
  ...[field('th dport', 'port'), field('th sport', 'port'), field('@th,16,16', 'port', false)],
  ...[field('@th,0,8', 'rawByte', false), field('@th,13,3', 'pcp', false)],
];

const ICMP = [field('icmp type', 'icmpType'), field('icmp code', 'icmpType', false)];
const ICMPV6 = [field('icmpv6 type', 'icmpType'), field('icmpv6 code', 'icmpType', false)];

/** Fields that go together in one rule without contradiction. */
export interface FieldGroup {
  /** The IP version that the fields imply; null when they imply none. */
  readonly version: 4 | 6 | null;
  /** Matches with these come first, whether or not any other field of the group is used. */
  readonly lead: readonly string[];
  readonly fields: readonly RuleField[];
}

function network(random: Random, family: TableFamily): 4 | 6 | null {
  if (family === 'ip') return 4;
  if (family === 'ip6') return 6;
  return random.pick([4, 4, 6, null]);
}

function transport(
  random: Random,
  version: 4 | 6 | null,
  family: TableFamily,
): Omit<FieldGroup, 'version'> {
  const roll = random.below(20);
  if (roll < 8) return { lead: [], fields: TCP };
  if (roll < 12) return { lead: [], fields: UDP };
  if (roll < 14)
    return { lead: random.chance(0.6) ? ['meta l4proto { 6, 17 }'] : [], fields: ANY_PORT };
  if (roll < 16 && version === 4) return { lead: [], fields: ICMP };
  if (roll < 16 && version === 6) return { lead: [], fields: ICMPV6 };
  const protocols = [field('meta l4proto', 'protocol')];
  if (version === 4) protocols.push(field('ip protocol', 'protocol'));
  // In an ip6 table nexthdr needs nothing; elsewhere it brings its own dependency.
  if (version === 6) protocols.push(field('ip6 nexthdr', 'protocol'));
  if (version === null && seesFrames(family)) {
    return {
      lead: [],
      fields: [field('ether type', 'etherType'), field('meta protocol', 'etherType')],
    };
  }
  return { lead: [], fields: protocols };
}

/** Fields for one rule: of at most one network and one transport protocol. */
export function pickFieldGroup(random: Random, place: RulePlace): FieldGroup {
  const version = network(random, place.family);
  const group = transport(random, version, place.family);
  const fields = version === null ? [] : version === 4 ? IP : IP6;
  const anywhere = [field('meta length', 'word', false)];
  const tags =
    seesFrames(place.family) && version === null && random.chance(0.5)
      ? [field('vlan id', 'vlan', false), field('vlan pcp', 'pcp', false)]
      : [];
  // `vlan` settles the EtherType, and so excludes matches on it.
  if (tags.length > 0)
    return { version, lead: [], fields: [...tags, field('ether daddr', 'mac', false)] };
  const atLink = place.hook === 'ingress' || seesFrames(place.family);
  const link = atLink ? [field('ether daddr', 'mac', false)] : [];
  return {
    version,
    lead: group.lead,
    fields: [...fields, ...group.fields, ...group.fields, ...anywhere, ...link],
  };
}

/** A match without operands to vary, that most packets pass; `version` as in the rule's group. */
export function pickBroadMatch(
  random: Random,
  place: RulePlace,
  version: FieldGroup['version'],
): string {
  const { devices = ['eth0'] } = place;
  const choices = ['iifname "eth0"', 'iifname != "lo"', 'iifname "eth*"', 'meta pkttype host'];
  for (const device of devices.slice(1)) {
    choices.push(`iifname "${device}"`, `iif "${device}"`, `iifname != "${device}"`);
    choices.push(`iifname { "${device}", "lo" }`, 'iif != "lo"', 'iifgroup default');
    if (place.family === 'inet') choices.push('iifname { "eth0.*", "br*" }');
    if (place.family === 'inet' && version !== 6) choices.push('ether type ip');
  }
  choices.push('meta pkttype != other', 'meta pkttype { host, broadcast, multicast }');
  if (place.family === 'inet') {
    choices.push('iifname { "eth0", "eth1" }');
    if (version !== 6) choices.push('meta nfproto ipv4');
    if (version !== 4) choices.push('meta nfproto ipv6');
  }
  return random.pick(choices);
}
