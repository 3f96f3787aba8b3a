import { type Bits, bits } from '../support/bits.ts';

/**
 * Where a load starts: link-layer header, network header, transport header (as the kernel's
 * NFT_PAYLOAD_LL_HEADER and its brothers), or packet metadata.
 */
export type Base = 'll' | 'nh' | 'th' | 'meta';

/** One thing a rule can load, as a big-endian unsigned integer of `width` bits. */
export interface Field {
  /** As nft spells it: `ip saddr`, `meta l4proto`, `@nh,96,32`. */
  readonly name: string;
  readonly base: Base;
  /** From the start of the base, most significant bit first; 0 for metadata. */
  readonly offset: Bits;
  readonly width: Bits;
}

/** Two fields with the same key load the same bits. */
export function fieldKey(field: Field): string {
  return field.base === 'meta' ? field.name : `${field.base}:${field.offset}:${field.width}`;
}

/** Bytes that must be present behind the base for the load to succeed. */
export function fieldEnd(field: Field): number {
  return Math.ceil((field.offset + field.width) / 8);
}

function meta(key: string, width: number): Field {
  return { name: `meta ${key}`, base: 'meta', offset: bits(0), width: bits(width) };
}

/** Metadata a rule can match; interface names are 16 bytes, left-aligned (IFNAMSIZ). */
export const META = {
  protocol: meta('protocol', 16),
  nfproto: meta('nfproto', 8),
  l4proto: meta('l4proto', 8),
  length: meta('length', 32),
  pkttype: meta('pkttype', 8),
  mark: meta('mark', 32),
  priority: meta('priority', 32),
  iif: meta('iif', 128),
  iifname: meta('iifname', 128),
  iifgroup: meta('iifgroup', 32),
  iiftype: meta('iiftype', 16),
  oif: meta('oif', 128),
  oifname: meta('oifname', 128),
  oifgroup: meta('oifgroup', 32),
  oiftype: meta('oiftype', 16),
} as const satisfies Record<string, Field>;

/** What must hold before a protocol's fields may be loaded; nft adds these tests by itself. */
export type Needs =
  | { readonly kind: 'none' }
  /** Ethernet device (`meta iiftype ether`). */
  | { readonly kind: 'ether' }
  /** EtherType of the network header. */
  | { readonly kind: 'network'; readonly etherType: number }
  /** `meta l4proto`; `etherType` as well where the protocol belongs to one IP version. */
  | { readonly kind: 'transport'; readonly protocol: number; readonly etherType: number | null };

export interface Protocol {
  readonly name: string;
  readonly base: Exclude<Base, 'meta'>;
  readonly needs: Needs;
  /** nft's field name to [bit offset, bit width]. */
  readonly fields: Readonly<Record<string, readonly [offset: number, width: number]>>;
}

function frame(key: string, width: number): Field {
  return { name: `frame ${key}`, base: 'meta', offset: bits(0), width: bits(width) };
}

/**
 * Properties of the frame that no rule can name but the kernel's conditions between hooks depend on.
 * All are always present.
 */
export const FRAME = {
  /** VLAN tags in front of the network header: 0, 1 or 2 (two or more). */
  tags: frame('tags', 8),
  /** 0 whole, 1 first fragment (also an atomic IPv6 one), 2 later fragment. */
  fragment: frame('fragment', 8),
  /** 1 when the IPv4 header checksum is right, and for every frame that is not IPv4. */
  checksum: frame('checksum', 8),
} as const satisfies Record<string, Field>;
