import type { Field } from '../ir/fields.ts';
import { IP_PROTOCOLS, SERVICES } from './well-known.ts';

/** Names that stand for numbers, as `nft describe` prints them for one data type. */
type Symbols = Readonly<Record<string, number>>;

const ETHER_TYPE: Symbols = {
  ip: 0x0800,
  arp: 0x0806,
  ip6: 0x86dd,
  '8021q': 0x8100,
  '8021ad': 0x88a8,
  vlan: 0x8100,
};

const ICMP_TYPE: Symbols = {
  'echo-reply': 0,
  'destination-unreachable': 3,
  'source-quench': 4,
  redirect: 5,
  'echo-request': 8,
  'router-advertisement': 9,
  'router-solicitation': 10,
  'time-exceeded': 11,
  'parameter-problem': 12,
  'timestamp-request': 13,
  'timestamp-reply': 14,
  'info-request': 15,
  'info-reply': 16,
  'address-mask-request': 17,
  'address-mask-reply': 18,
};

const ICMP_CODE: Symbols = {
  'net-unreachable': 0,
  'host-unreachable': 1,
  'prot-unreachable': 2,
  'port-unreachable': 3,
  'frag-needed': 4,
  'net-prohibited': 9,
  'host-prohibited': 10,
  'admin-prohibited': 13,
};

const ICMPV6_TYPE: Symbols = {
  'destination-unreachable': 1,
  'packet-too-big': 2,
  'time-exceeded': 3,
  'parameter-problem': 4,
  'echo-request': 128,
  'echo-reply': 129,
  'mld-listener-query': 130,
  'mld-listener-report': 131,
  'mld-listener-done': 132,
  'mld-listener-reduction': 132,
  'nd-router-solicit': 133,
  'nd-router-advert': 134,
  'nd-neighbor-solicit': 135,
  'nd-neighbor-advert': 136,
  'nd-redirect': 137,
  'router-renumbering': 138,
  'ind-neighbor-solicit': 141,
  'ind-neighbor-advert': 142,
  'mld2-listener-report': 143,
};

const ICMPV6_CODE: Symbols = {
  'no-route': 0,
  'admin-prohibited': 1,
  'addr-unreachable': 3,
  'port-unreachable': 4,
  'policy-fail': 5,
  'reject-route': 6,
};

const IGMP_TYPE: Symbols = {
  'membership-query': 17,
  'membership-report-v1': 18,
  'membership-report-v2': 22,
  'membership-report-v3': 34,
  'leave-group': 23,
};

const DCCP_TYPE: Symbols = {
  request: 0,
  response: 1,
  data: 2,
  ack: 3,
  dataack: 4,
  closereq: 5,
  close: 6,
  reset: 7,
  sync: 8,
  syncack: 9,
};

const ARP_OPERATION: Symbols = {
  request: 1,
  reply: 2,
  rrequest: 3,
  rreply: 4,
  inrequest: 8,
  inreply: 9,
  nak: 10,
};

const DSCP: Symbols = {
  cs0: 0x00,
  cs1: 0x08,
  cs2: 0x10,
  cs3: 0x18,
  cs4: 0x20,
  cs5: 0x28,
  cs6: 0x30,
  cs7: 0x38,
  df: 0x00,
  be: 0x00,
  lephb: 0x01,
  af11: 0x0a,
  af12: 0x0c,
  af13: 0x0e,
  af21: 0x12,
  af22: 0x14,
  af23: 0x16,
  af31: 0x1a,
  af32: 0x1c,
  af33: 0x1e,
  af41: 0x22,
  af42: 0x24,
  af43: 0x26,
  va: 0x2c,
  ef: 0x2e,
};

const ECN: Symbols = { 'not-ect': 0, ect1: 1, ect0: 2, ce: 3 };

const TCP_FLAGS: Symbols = {
  fin: 0x01,
  syn: 0x02,
  rst: 0x04,
  psh: 0x08,
  ack: 0x10,
  urg: 0x20,
  ecn: 0x40,
  cwr: 0x80,
};

// NF_CT_STATE_BIT and NF_CT_STATE_UNTRACKED_BIT of include/uapi/linux/netfilter/nf_conntrack_common.h.
const CT_STATES: Symbols = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 };

const PACKET_TYPE: Symbols = { host: 0, unicast: 0, broadcast: 1, multicast: 2, other: 3 };

// NFPROTO_* of include/uapi/linux/netfilter.h.
const NFPROTO: Symbols = { ipv4: 2, ipv6: 10 };

// ARPHRD_* of include/uapi/linux/if_arp.h.
const INTERFACE_TYPE: Symbols = {
  ether: 1,
  ppp: 512,
  ipip: 768,
  ipip6: 769,
  loopback: 772,
  sit: 776,
  ipgre: 778,
};

// TC_H_ROOT and TC_H_UNSPEC of include/uapi/linux/pkt_sched.h.
const PRIORITY: Symbols = { root: 0xffffffff, none: 0 };

const GROUP: Symbols = { default: 0 };
const CFI: Symbols = { exists: 1, missing: 0 };

/** Which names a field's constants can have; fields that are not here take numbers and addresses. */
const SYMBOLS_OF_FIELD: Readonly<Record<string, Symbols>> = {
  'ether type': ETHER_TYPE,
  'vlan type': ETHER_TYPE,
  'arp ptype': ETHER_TYPE,
  'gre protocol': ETHER_TYPE,
  'meta protocol': ETHER_TYPE,
  'vlan cfi': CFI,
  'vlan dei': CFI,
  'arp operation': ARP_OPERATION,
  'ip protocol': IP_PROTOCOLS,
  'ip6 nexthdr': IP_PROTOCOLS,
  'ah nexthdr': IP_PROTOCOLS,
  'comp nexthdr': IP_PROTOCOLS,
  'meta l4proto': IP_PROTOCOLS,
  'ip dscp': DSCP,
  'ip6 dscp': DSCP,
  'ip ecn': ECN,
  'ip6 ecn': ECN,
  'tcp flags': TCP_FLAGS,
  'ct state': CT_STATES,
  'icmp type': ICMP_TYPE,
  'icmp code': ICMP_CODE,
  'icmpv6 type': ICMPV6_TYPE,
  'icmpv6 code': ICMPV6_CODE,
  'igmp type': IGMP_TYPE,
  'dccp type': DCCP_TYPE,
  'meta nfproto': NFPROTO,
  'meta pkttype': PACKET_TYPE,
  'meta priority': PRIORITY,
  'meta iifgroup': GROUP,
  'meta oifgroup': GROUP,
  'meta iiftype': INTERFACE_TYPE,
  'meta oiftype': INTERFACE_TYPE,
};

/** Fields whose constants are sets of flags: a bare `tcp flags syn` tests for any of them. */
const FLAG_FIELDS: ReadonlySet<string> = new Set(['tcp flags', 'ct state']);

/** Whether nft reads a bare constant of this field as flags of which any may be set. */
export function isFlagField(field: Field): boolean {
  return FLAG_FIELDS.has(field.name);
}

/** The number that `name` stands for with this field, or null. */
export function findSymbol(field: Field, name: string): number | null {
  const symbols = SYMBOLS_OF_FIELD[field.name];
  const own = symbols === undefined ? null : lookUp(symbols, name);
  if (own !== null) return own;
  return /\b[sd]port$/.test(field.name) || field.base === 'th' ? lookUp(SERVICES, name) : null;
}

function lookUp(symbols: Symbols, name: string): number | null {
  return Object.hasOwn(symbols, name) ? (symbols[name] ?? null) : null;
}
