/*
 * A frame as the kernel's hooks see it. Kernel facts are measured on Linux 6.18 unless a symbol is
 * named.
 *
 * ODD FRAMES. No tier decides them. Every tier makes these checks, in this order; the first that
 * holds gives the code. `u16(n)` is big-endian at byte n, L the frame's length.
 *
 *   1  L < 14                                                     packet/short
 *      nh = 14, type = u16(12)
 *   2  type is 8100 or 88a8:
 *        L < 20                                                   packet/cut-tag
 *        nh = 18, type = u16(16)
 *        type is 8100 or 88a8: two tags, not odd, no more checks
 *   3  type < 0600                                                packet/length-field
 *   4  type is 0800:
 *        L - nh < 20                                              packet/ipv4-cut
 *        byte(nh) >> 4 != 4                                       packet/ipv4-version
 *        ihl = byte(nh) & 15, ihl < 5                             packet/ipv4-header-length
 *        total = u16(nh + 2), total < 4 * ihl                     packet/ipv4-total-length
 *        total > L - nh                                           packet/ipv4-truncated
 *   5  type is 86dd:
 *        L - nh < 40                                              packet/ipv6-cut
 *        byte(nh) >> 4 != 6                                       packet/ipv6-version
 *        payload = u16(nh + 4), payload == 0                      packet/ipv6-no-payload
 *        40 + payload > L - nh                                    packet/ipv6-truncated
 *        next = byte(nh + 6), at = nh + 40, end = at + payload
 *        six times, while next is 0, 43, 44, 51 or 60:
 *          at + 8 > end                                           packet/ipv6-extension-cut
 *          next is 51: leave the loop, next stays 51 (th is the AH header)
 *          next is 44:
 *            u16(at + 2) & fff8 != 0                              packet/ipv6-later-fragment
 *            size = 8
 *          else size = 8 * (byte(at + 1) + 1)
 *          at + size > end                                        packet/ipv6-extension-cut
 *          next = byte(at), at = at + size
 *        six headers passed and next is 0, 43, 44, 51 or 60       packet/ipv6-extensions
 *
 * After 5 without a code: meta l4proto is `next`, th is `at`. Everything else (50, 59, 135, 139,
 * 140...) ends the walk as a transport protocol. IPv4 options, IPv4 fragments, ARP and any other
 * EtherType are not odd.
 */

/** Which part of a fragmented IP packet a frame carries; an atomic IPv6 fragment is a first one. */
export type Fragment = 'whole' | 'first' | 'later';

/** What rules on one kind of hook can load. All offsets are into `frame`. */
export interface View {
  /** For link-layer loads; a load succeeds when its bytes are in here. */
  readonly frame: Uint8Array;
  /** `meta protocol`. */
  readonly protocol: number;
  /** NFPROTO_IPV4 2, NFPROTO_IPV6 10, else NFPROTO_NETDEV 5. */
  readonly nfproto: number;
  /** Where `nh` loads start. */
  readonly network: number;
  /** Loads from `nh` and `th` must end by here: the frame's end at ingress, IP's at layer 3. */
  readonly end: number;
  /** Null when loading it ends the rule. */
  readonly l4proto: number | null;
  /** Where `th` loads start, at most `end`; null exactly when `l4proto` is. */
  readonly transport: number | null;
  /** `th` loads of a later fragment depend on the socket buffer's layout: nobody can tell. */
  readonly fragment: Fragment;
  /** `meta length`, and what a counter adds. */
  readonly length: number;
}

/**
 * Why a frame has no layer-3 view. not-ip: no IP hook sees it. malformed: the kernel discards it
 * before prerouting. undecided: too short to be a frame, or two tags (only if both VLAN ids are 0
 * does it get there).
 */
export type NoL3 = 'not-ip' | 'malformed' | 'undecided';

/** One received frame, as netdev ingress and the layer-3 hooks see it. */
export interface Packet {
  /** The bytes on the wire, from the destination address, without checksum. */
  readonly frame: Uint8Array;
  readonly ingress: View;
  /**
   * As prerouting sees it unless the kernel discards it for another reason: checksum, address scope,
   * destination MAC, hop-by-hop options. A tag is gone there: the device is another one.
   */
  readonly l3: View | null;
  /** Null exactly when `l3` is there. */
  readonly noL3: NoL3 | null;
  /** VLAN tags before the network header; 2 is two or more. */
  readonly tags: 0 | 1 | 2;
  /** As at ingress. */
  readonly fragment: Fragment;
  /** False for an IPv4 header (behind at most one tag) that is cut or whose checksum is wrong. */
  readonly checksum: boolean;
  /** The code of the table above, or null. */
  readonly odd: string | null;
}

// EtherTypes: include/uapi/linux/if_ether.h.
const ETH_HLEN = 14;
const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;
const ETH_P_8021Q = 0x8100;
const ETH_P_8021AD = 0x88a8;
/** Below it the field is a length (ETH_P_802_3_MIN). */
const ETH_P_802_3_MIN = 0x0600;
const ETH_P_802_3 = 0x0001;
const ETH_P_802_2 = 0x0004;
const VLAN_HLEN = 4;
/** VLAN_HLEN + sizeof(unsigned short): what skb_vlan_untag() must be able to pull. */
const VLAN_MIN = 6;

// include/uapi/linux/netfilter.h.
const NFPROTO_IPV4 = 2;
const NFPROTO_NETDEV = 5;
const NFPROTO_IPV6 = 10;

const IPV4_MIN = 20;
const IPV6_HLEN = 40;
// RFC 791 section 3.1: 0x2000 is MF, the low 13 bits are the offset.
const IP_MF = 0x2000;
const IP_OFFSET = 0x1fff;
// RFC 8200 section 4.5.
const IP6_OFFSET = 0xfff8;

// include/net/ipv6.h, the ones ipv6_ext_hdr() knows.
const NEXTHDR_HOP = 0;
const NEXTHDR_ROUTING = 43;
const NEXTHDR_FRAGMENT = 44;
const NEXTHDR_AUTH = 51;
const NEXTHDR_DEST = 60;

/** Ours, so that a tier's walk is bounded. */
const MAX_EXTENSIONS = 6;

function byteAt(data: Uint8Array, offset: number): number {
  return data[offset] ?? 0;
}

function u16(data: Uint8Array, offset: number): number {
  return (byteAt(data, offset) << 8) | byteAt(data, offset + 1);
}

function isTag(type: number): boolean {
  return type === ETH_P_8021Q || type === ETH_P_8021AD;
}

/** Where the tags end and what is behind the first one. */
interface Link {
  readonly tags: 0 | 1 | 2;
  /** EtherType field behind at most one tag. */
  readonly type: number;
  /** At most the frame's length. */
  readonly network: number;
}

function readLink(frame: Uint8Array): Link {
  const type = u16(frame, 12);
  if (!isTag(type)) return { tags: 0, type, network: Math.min(ETH_HLEN, frame.length) };
  const inner = u16(frame, 16);
  const network = Math.min(ETH_HLEN + VLAN_HLEN, frame.length);
  return { tags: isTag(inner) ? 2 : 1, type: inner, network };
}

/** Is it an extension header that the walk passes or, for AH, stops at? */
function isExtension(next: number): boolean {
  return (
    next === NEXTHDR_HOP ||
    next === NEXTHDR_ROUTING ||
    next === NEXTHDR_FRAGMENT ||
    next === NEXTHDR_AUTH ||
    next === NEXTHDR_DEST
  );
}

function findOddity(frame: Uint8Array, link: Link): string | null {
  if (frame.length < ETH_HLEN) return 'packet/short';
  if (link.tags > 0 && frame.length < ETH_HLEN + VLAN_MIN) return 'packet/cut-tag';
  if (link.tags === 2) return null;
  if (link.type < ETH_P_802_3_MIN) return 'packet/length-field';
  if (link.type === ETH_P_IP) return findIpv4Oddity(frame, link.network);
  if (link.type === ETH_P_IPV6) return findIpv6Oddity(frame, link.network);
  return null;
}

/** What ip_rcv_core() and __nft_set_pktinfo_ipv4_validate() both refuse. */
function findIpv4Oddity(frame: Uint8Array, nh: number): string | null {
  const available = frame.length - nh;
  if (available < IPV4_MIN) return 'packet/ipv4-cut';
  if (byteAt(frame, nh) >> 4 !== 4) return 'packet/ipv4-version';
  const headerLength = (byteAt(frame, nh) & 15) * 4;
  if (headerLength < IPV4_MIN) return 'packet/ipv4-header-length';
  const total = u16(frame, nh + 2);
  if (total < headerLength) return 'packet/ipv4-total-length';
  return total > available ? 'packet/ipv4-truncated' : null;
}

function findIpv6Oddity(frame: Uint8Array, nh: number): string | null {
  const available = frame.length - nh;
  if (available < IPV6_HLEN) return 'packet/ipv6-cut';
  if (byteAt(frame, nh) >> 4 !== 6) return 'packet/ipv6-version';
  const payload = u16(frame, nh + 4);
  if (payload === 0) return 'packet/ipv6-no-payload';
  if (IPV6_HLEN + payload > available) return 'packet/ipv6-truncated';
  const end = nh + IPV6_HLEN + payload;
  let next = byteAt(frame, nh + 6);
  let at = nh + IPV6_HLEN;
  for (let passed = 0; passed < MAX_EXTENSIONS && isExtension(next); passed += 1) {
    if (at + 8 > end) return 'packet/ipv6-extension-cut';
    if (next === NEXTHDR_AUTH) return null;
    const isFragment = next === NEXTHDR_FRAGMENT;
    if (isFragment && (u16(frame, at + 2) & IP6_OFFSET) !== 0) return 'packet/ipv6-later-fragment';
    const size = isFragment ? 8 : (byteAt(frame, at + 1) + 1) * 8;
    if (at + size > end) return 'packet/ipv6-extension-cut';
    next = byteAt(frame, at);
    at += size;
  }
  return isExtension(next) ? 'packet/ipv6-extensions' : null;
}

/** The part of a view that the IP header decides. */
interface Transport {
  readonly l4proto: number | null;
  readonly transport: number | null;
  readonly fragment: Fragment;
}

const NO_TRANSPORT: Transport = { l4proto: null, transport: null, fragment: 'whole' };

/** As __nft_set_pktinfo_ipv4_validate(): null fields for a header that lies. */
function readIpv4(frame: Uint8Array, nh: number): Transport {
  if (findIpv4Oddity(frame, nh) !== null) return NO_TRANSPORT;
  const place = u16(frame, nh + 6);
  const first = (place & IP_MF) === 0 ? 'whole' : 'first';
  return {
    l4proto: byteAt(frame, nh + 9),
    transport: nh + (byteAt(frame, nh) & 15) * 4,
    fragment: (place & IP_OFFSET) === 0 ? first : 'later',
  };
}

/**
 * As __nft_set_pktinfo_ipv6_validate() with ipv6_find_hdr(target -1, IP6_FH_F_AUTH), also for odd
 * packets: no bound on the number of headers, a header that runs past the end still names the next.
 */
function readIpv6(frame: Uint8Array, nh: number): Transport {
  if (frame.length - nh < IPV6_HLEN || byteAt(frame, nh) >> 4 !== 6) return NO_TRANSPORT;
  if (IPV6_HLEN + u16(frame, nh + 4) > frame.length - nh) return NO_TRANSPORT;
  let next = byteAt(frame, nh + 6);
  let at = nh + IPV6_HLEN;
  let fragment: Fragment = 'whole';
  while (isExtension(next)) {
    // Each header's first fields must be there: struct ipv6_opt_hdr, ipv6_rt_hdr, frag_hdr.frag_off.
    const needed = next === NEXTHDR_ROUTING || next === NEXTHDR_FRAGMENT ? 4 : 2;
    if (at + needed > frame.length) return { ...NO_TRANSPORT, fragment };
    if (next === NEXTHDR_AUTH) break;
    const following = byteAt(frame, at);
    if (next !== NEXTHDR_FRAGMENT) {
      at += (byteAt(frame, at + 1) + 1) * 8;
    } else if ((u16(frame, at + 2) & IP6_OFFSET) === 0) {
      fragment = 'first';
      at += 8;
    } else if (isExtension(following)) {
      return { ...NO_TRANSPORT, fragment: 'later' };
    } else {
      // The kernel leaves the transport offset at 0, which is the IPv6 header.
      return { l4proto: following, transport: nh, fragment: 'later' };
    }
    next = following;
  }
  return { l4proto: next, transport: Math.min(at, frame.length), fragment };
}

function readTransport(frame: Uint8Array, nh: number, protocol: number): Transport {
  if (protocol === ETH_P_IP) return readIpv4(frame, nh);
  if (protocol === ETH_P_IPV6) return readIpv6(frame, nh);
  return NO_TRANSPORT;
}

function nfprotoOf(protocol: number): number {
  if (protocol === ETH_P_IP) return NFPROTO_IPV4;
  return protocol === ETH_P_IPV6 ? NFPROTO_IPV6 : NFPROTO_NETDEV;
}

/** eth_type_trans() and vlan_set_encap_proto(): a length is no protocol. */
function protocolOf(frame: Uint8Array, link: Link): number {
  if (link.type >= ETH_P_802_3_MIN) return link.type;
  return u16(frame, link.network) === 0xffff ? ETH_P_802_3 : ETH_P_802_2;
}

function viewIngress(frame: Uint8Array, link: Link): View {
  const protocol = protocolOf(frame, link);
  const isWhole = frame.length >= ETH_HLEN + VLAN_MIN;
  const isRebuilt = link.tags > 0 && isWhole && protocol !== link.type;
  return {
    frame: isRebuilt ? rebuildTag(frame, protocol) : frame,
    protocol,
    nfproto: nfprotoOf(protocol),
    network: link.network,
    end: frame.length,
    ...readTransport(frame, link.network, protocol),
    length: frame.length - link.network,
  };
}

/** Link-layer loads rebuild a stripped tag from metadata (nft_payload_rebuild_vlan_hdr()). */
function rebuildTag(frame: Uint8Array, protocol: number): Uint8Array {
  const rebuilt = frame.slice();
  rebuilt.set([protocol >> 8, protocol & 0xff], ETH_HLEN + 2);
  return rebuilt;
}

/** The IP packet's own length where the kernel lets it pass to prerouting, else why it does not. */
function findL3Length(frame: Uint8Array, link: Link): number | NoL3 {
  if (frame.length < ETH_HLEN) return 'undecided';
  if (link.tags > 0 && frame.length < ETH_HLEN + VLAN_MIN) return 'malformed';
  if (link.tags === 2) return 'undecided';
  if (link.type !== ETH_P_IP && link.type !== ETH_P_IPV6) return 'not-ip';
  const nh = link.network;
  if (link.type === ETH_P_IP) {
    return findIpv4Oddity(frame, nh) === null ? u16(frame, nh + 2) : 'malformed';
  }
  const available = frame.length - nh;
  if (available < IPV6_HLEN || byteAt(frame, nh) >> 4 !== 6) return 'malformed';
  const length = IPV6_HLEN + u16(frame, nh + 4);
  return length > available ? 'malformed' : length;
}

/** The packet trimmed to its own length, behind a plain Ethernet header. */
function viewL3(frame: Uint8Array, link: Link, length: number): View {
  const trimmed = frame.subarray(0, link.network + length);
  const plain = link.tags === 0 ? trimmed : removeTag(trimmed);
  return {
    frame: plain,
    protocol: link.type,
    nfproto: nfprotoOf(link.type),
    network: ETH_HLEN,
    end: plain.length,
    ...readTransport(plain, ETH_HLEN, link.type),
    length,
  };
}

function removeTag(frame: Uint8Array): Uint8Array {
  const plain = frame.slice(VLAN_HLEN);
  plain.set(frame.subarray(0, 12));
  return plain;
}

/** RFC 1071 over the header; false when it is cut. */
function isChecksumRight(frame: Uint8Array, nh: number): boolean {
  const headerLength = (byteAt(frame, nh) & 15) * 4;
  if (headerLength < IPV4_MIN || nh + headerLength > frame.length) return false;
  let sum = 0;
  for (let at = nh; at < nh + headerLength; at += 2) sum += u16(frame, at);
  // At most 30 words, so folding twice is enough.
  const folded = (sum & 0xffff) + (sum >>> 16);
  return (folded & 0xffff) + (folded >>> 16) === 0xffff;
}

/**
 * Reads a frame as it came off the wire, tag still in the data, nothing merged. Never throws: what
 * cannot be read is `odd`, and its views are the kernel's as far as they were measured.
 */
export function parsePacket(frame: Uint8Array): Packet {
  const link = readLink(frame);
  const ingress = viewIngress(frame, link);
  const l3 = findL3Length(frame, link);
  return {
    frame,
    ingress,
    l3: typeof l3 === 'number' ? viewL3(frame, link, l3) : null,
    noL3: typeof l3 === 'number' ? null : l3,
    tags: link.tags,
    fragment: ingress.fragment,
    checksum: ingress.protocol !== ETH_P_IP || isChecksumRight(frame, link.network),
    odd: findOddity(frame, link),
  };
}
