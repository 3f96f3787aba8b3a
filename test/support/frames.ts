import { parseIp, parseIp6, parseMac } from './addresses.ts';
import { LAB_ADDRESSES, LAB_MAC } from './lab-network.ts';

/** Text as usual (`10.0.0.1`, `2001:db8::1`, `02:00:00:00:00:01`), or the bytes. */
export type Address = string | Uint8Array;

/** A transport header and what follows; built when the pseudo header's sum is known (RFC 9293, 3.1). */
export interface Layer4 {
  readonly protocol: number;
  build(pseudoSum: number): Uint8Array;
}

/** What follows the Ethernet header, with the EtherType that announces it. */
export interface Layer3 {
  readonly etherType: number;
  readonly data: Uint8Array;
}

const EMPTY = new Uint8Array(0);
const PEER_MAC = parseMac('02:00:00:00:00:02');

function word(data: Uint8Array, offset: number, value: number): void {
  data[offset] = (value >> 8) & 0xff;
  data[offset + 1] = value & 0xff;
}

/** All parts one after another. */
export function joinBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

function sumWords(data: Uint8Array, start: number): number {
  let sum = start;
  for (let at = 0; at < data.length; at += 2) {
    sum += ((data[at] ?? 0) << 8) | (data[at + 1] ?? 0);
  }
  return sum;
}

/** The Internet checksum (RFC 1071) over `data`, beginning with a sum of 16-bit words. */
export function internetChecksum(data: Uint8Array, start = 0): number {
  let sum = sumWords(data, start);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** Data without a header that anyone knows; no checksum. */
export function raw(protocol: number, data: Uint8Array = EMPTY): Layer4 {
  return { protocol, build: () => data };
}

export interface TcpFields {
  readonly sport?: number;
  readonly dport?: number;
  readonly sequence?: number;
  readonly acknowledgment?: number;
  /** All eight bits from CWR (0x80) to FIN (0x01); SYN (0x02) when left out. */
  readonly flags?: number;
  readonly window?: number;
  /** Options, padded by the caller to 4 bytes. */
  readonly options?: Uint8Array;
  /** Data offset in 4-byte words, when it should lie. */
  readonly dataOffset?: number;
  readonly checksum?: number;
}

/** TCP (RFC 9293); the checksum is right unless given. */
export function tcp(fields: TcpFields = {}, payload: Uint8Array = EMPTY): Layer4 {
  return {
    protocol: 6,
    build: (pseudoSum) => {
      const options = fields.options ?? EMPTY;
      const data = joinBytes(new Uint8Array(20), options, payload);
      const view = new DataView(data.buffer);
      view.setUint16(0, fields.sport ?? 40000);
      view.setUint16(2, fields.dport ?? 80);
      view.setUint32(4, fields.sequence ?? 1);
      view.setUint32(8, fields.acknowledgment ?? 0);
      view.setUint8(12, ((fields.dataOffset ?? 5 + options.length / 4) << 4) & 0xf0);
      view.setUint8(13, fields.flags ?? 0x02);
      view.setUint16(14, fields.window ?? 8192);
      word(data, 16, fields.checksum ?? internetChecksum(data, pseudoSum + data.length));
      return data;
    },
  };
}

export interface UdpFields {
  readonly sport?: number;
  readonly dport?: number;
  readonly length?: number;
  /** 0 means that there is none (RFC 768). */
  readonly checksum?: number;
}

/** UDP (RFC 768); `protocol` 136 makes UDP-Lite of it. */
export function udp(fields: UdpFields = {}, payload: Uint8Array = EMPTY, protocol = 17): Layer4 {
  return {
    protocol,
    build: (pseudoSum) => {
      const data = joinBytes(new Uint8Array(8), payload);
      word(data, 0, fields.sport ?? 40000);
      word(data, 2, fields.dport ?? 53);
      word(data, 4, fields.length ?? data.length);
      const right = internetChecksum(data, pseudoSum + data.length);
      word(data, 6, fields.checksum ?? (right === 0 ? 0xffff : right));
      return data;
    },
  };
}

export interface IcmpFields {
  readonly type?: number;
  readonly code?: number;
  readonly id?: number;
  readonly sequence?: number;
  readonly checksum?: number;
}

function icmpMessage(fields: IcmpFields, type: number, payload: Uint8Array): Uint8Array {
  const data = joinBytes(new Uint8Array(8), payload);
  data[0] = fields.type ?? type;
  data[1] = fields.code ?? 0;
  word(data, 4, fields.id ?? 1);
  word(data, 6, fields.sequence ?? 1);
  return data;
}

/** ICMP (RFC 792), an echo request by default. */
export function icmp(fields: IcmpFields = {}, payload: Uint8Array = EMPTY): Layer4 {
  return {
    protocol: 1,
    build: () => {
      const data = icmpMessage(fields, 8, payload);
      word(data, 2, fields.checksum ?? internetChecksum(data));
      return data;
    },
  };
}

/** ICMPv6 (RFC 4443), an echo request by default. */
export function icmpv6(fields: IcmpFields = {}, payload: Uint8Array = EMPTY): Layer4 {
  return {
    protocol: 58,
    build: (pseudoSum) => {
      const data = icmpMessage(fields, 128, payload);
      word(data, 2, fields.checksum ?? internetChecksum(data, pseudoSum + data.length));
      return data;
    },
  };
}

/** SCTP's common header (RFC 9260); the checksum is left 0. */
export function sctp(
  fields: { readonly sport?: number; readonly dport?: number } = {},
  payload: Uint8Array = EMPTY,
): Layer4 {
  const data = joinBytes(new Uint8Array(12), payload);
  word(data, 0, fields.sport ?? 40000);
  word(data, 2, fields.dport ?? 80);
  return raw(132, data);
}

/** GRE (RFC 2784) without checksum, key or sequence. */
export function gre(etherType = 0x0800, payload: Uint8Array = EMPTY): Layer4 {
  return raw(47, joinBytes(Uint8Array.of(0, 0, etherType >> 8, etherType & 0xff), payload));
}

/** ESP (RFC 4303): SPI, sequence number, opaque data. */
export function esp(spi = 0x1000, payload: Uint8Array = new Uint8Array(16)): Layer4 {
  const head = Uint8Array.of(spi >>> 24, spi >> 16, spi >> 8, spi, 0, 0, 0, 1);
  return raw(50, joinBytes(head, payload));
}

/** AH (RFC 4302) with a 12-byte check value in front of `inner`. */
export function ah(inner: Layer4, spi = 0x1000): Layer4 {
  const head = Uint8Array.of(inner.protocol, 4, 0, 0, spi >>> 24, spi >> 16, spi >> 8, spi);
  const rest = new Uint8Array(16);
  rest[3] = 1;
  // The inner header's checksum counts its own protocol, not AH's (RFC 4302, 2.1).
  const build = (pseudoSum: number) =>
    joinBytes(head, rest, inner.build(pseudoSum - 51 + inner.protocol));
  return { protocol: 51, build };
}

export interface Ipv4Fields {
  readonly saddr?: Address;
  readonly daddr?: Address;
  /** The payload's own when left out. */
  readonly protocol?: number;
  readonly ttl?: number;
  readonly tos?: number;
  readonly id?: number;
  readonly dontFragment?: boolean;
  readonly reservedBit?: boolean;
  readonly moreFragments?: boolean;
  /** In units of 8 bytes. */
  readonly fragmentOffset?: number;
  /** Options, padded by the caller to 4 bytes. */
  readonly options?: Uint8Array;
  readonly version?: number;
  /** Header length in 4-byte words, when it should lie. */
  readonly ihl?: number;
  readonly totalLength?: number;
  readonly checksum?: number;
}

function ipBytes(address: Address): Uint8Array {
  return typeof address === 'string' ? parseIp(address) : address;
}

/** IPv4 (RFC 791); lengths and checksum are right unless given. Defaults: a peer to the lab. */
export function ipv4(fields: Ipv4Fields, payload: Layer4): Layer3 {
  const saddr = ipBytes(fields.saddr ?? '10.0.0.2');
  const daddr = ipBytes(fields.daddr ?? LAB_ADDRESSES.eth0.ip);
  const options = fields.options ?? EMPTY;
  const pseudoSum = sumWords(daddr, sumWords(saddr, payload.protocol));
  const header = joinBytes(new Uint8Array(12), saddr, daddr, options);
  const data = joinBytes(header, payload.build(pseudoSum));
  data[0] = (((fields.version ?? 4) << 4) | ((fields.ihl ?? header.length / 4) & 15)) & 0xff;
  data[1] = fields.tos ?? 0;
  word(data, 2, fields.totalLength ?? data.length);
  word(data, 4, fields.id ?? 1);
  const flags =
    (fields.reservedBit ? 0x8000 : 0) |
    (fields.dontFragment ? 0x4000 : 0) |
    (fields.moreFragments ? 0x2000 : 0);
  word(data, 6, flags | ((fields.fragmentOffset ?? 0) & 0x1fff));
  data[8] = fields.ttl ?? 64;
  data[9] = fields.protocol ?? payload.protocol;
  // Over the header that the ihl field claims, so that only one thing is wrong at a time.
  const claimed = Math.min(((data[0] ?? 0) & 15) * 4, data.length);
  word(data, 10, fields.checksum ?? internetChecksum(data.subarray(0, claimed)));
  return { etherType: 0x0800, data };
}

/** An IPv6 extension header; `type` is what the header before it announces. */
export interface Extension {
  readonly type: number;
  /** The header with its own first byte (next header) still to be filled in. */
  readonly data: Uint8Array;
}

/** Hop-by-hop (0), destination options (60) or routing (43) with this content, zero-padded to 8n. */
export function extension(type: number, content: Uint8Array = Uint8Array.of(1, 4)): Extension {
  const data = new Uint8Array(Math.ceil((2 + content.length) / 8) * 8);
  data.set(content, 2);
  data[1] = data.length / 8 - 1;
  return { type, data };
}

/** Fragment header (RFC 8200, 4.5); the offset in units of 8 bytes. Atomic by default. */
export function fragmentHeader(offset = 0, more = false, id = 1): Extension {
  const data = Uint8Array.of(0, 0, 0, 0, id >>> 24, id >> 16, id >> 8, id);
  word(data, 2, (offset << 3) | (more ? 1 : 0));
  return { type: 44, data };
}

export interface Ipv6Fields {
  readonly saddr?: Address;
  readonly daddr?: Address;
  readonly hopLimit?: number;
  readonly trafficClass?: number;
  readonly flowLabel?: number;
  readonly extensions?: readonly Extension[];
  /** What the last header announces; the payload's own protocol when left out. */
  readonly nextHeader?: number;
  readonly version?: number;
  readonly payloadLength?: number;
}

function ip6Bytes(address: Address): Uint8Array {
  return typeof address === 'string' ? parseIp6(address) : address;
}

/** IPv6 (RFC 8200); lengths and the next-header chain are right unless given. */
export function ipv6(fields: Ipv6Fields, payload: Layer4): Layer3 {
  const saddr = ip6Bytes(fields.saddr ?? '2001:db8::2');
  const daddr = ip6Bytes(fields.daddr ?? LAB_ADDRESSES.eth0.ip6);
  const pseudoSum = sumWords(daddr, sumWords(saddr, payload.protocol));
  const last = fields.nextHeader ?? payload.protocol;
  const chain = fields.extensions ?? [];
  const headers = chain.map((header, index) => {
    const data = header.data.slice();
    data[0] = chain[index + 1]?.type ?? last;
    return data;
  });
  const data = joinBytes(new Uint8Array(8), saddr, daddr, ...headers, payload.build(pseudoSum));
  const trafficClass = fields.trafficClass ?? 0;
  const flowLabel = fields.flowLabel ?? 0;
  data[0] = (((fields.version ?? 6) << 4) | (trafficClass >> 4)) & 0xff;
  data[1] = ((trafficClass & 15) << 4) | ((flowLabel >> 16) & 15);
  word(data, 2, flowLabel);
  word(data, 4, fields.payloadLength ?? data.length - 40);
  data[6] = chain[0]?.type ?? last;
  data[7] = fields.hopLimit ?? 64;
  return { etherType: 0x86dd, data };
}

/** An ARP request (RFC 826) for `daddr`. */
export function arp(saddr: Address = '10.0.0.2', daddr: Address = LAB_ADDRESSES.eth0.ip): Layer3 {
  const head = Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2);
  const data = joinBytes(head, ipBytes(saddr), new Uint8Array(6), ipBytes(daddr));
  return { etherType: 0x0806, data };
}

/** One VLAN tag (IEEE 802.1Q): 0x8100 unless told. */
export interface Tag {
  readonly protocol?: number;
  readonly vid: number;
  readonly pcp?: number;
}

export interface EthernetFields {
  /** The lab's `eth0` when left out. */
  readonly daddr?: Address;
  readonly saddr?: Address;
  /** The content's own when left out; below 0x600 it is an 802.3 length. */
  readonly type?: number;
  /** Outermost first. */
  readonly tags?: readonly Tag[];
  /** Zero bytes are added up to this length. */
  readonly padTo?: number;
}

function macBytes(address: Address): Uint8Array {
  return typeof address === 'string' ? parseMac(address) : address;
}

/** The whole frame, without its check sequence. */
export function ethernet(fields: EthernetFields, content: Layer3): Uint8Array {
  const tags = fields.tags ?? [];
  const start = 14 + 4 * tags.length;
  const frame = new Uint8Array(Math.max(start + content.data.length, fields.padTo ?? 0));
  frame.set(macBytes(fields.daddr ?? LAB_MAC), 0);
  frame.set(macBytes(fields.saddr ?? PEER_MAC), 6);
  for (const [index, tag] of tags.entries()) {
    word(frame, 12 + 4 * index, tag.protocol ?? 0x8100);
    word(frame, 14 + 4 * index, ((tag.pcp ?? 0) << 13) | (tag.vid & 0xfff));
  }
  word(frame, start - 2, fields.type ?? content.etherType);
  frame.set(content.data, start);
  return frame;
}
