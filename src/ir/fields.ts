import { type Bits, bits } from '../support/bits.ts';
import { remember } from '../support/remember.ts';

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
  return field.base === 'meta' ? field.name : placeKey(field);
}

const placeKey = remember((field: Field) => `${field.base}:${field.offset}:${field.width}`);

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

/** Connection tracking's view of the packet: one bit of NF_CT_STATE_BIT (nf_conntrack_common.h). */
export const CT_STATE: Field = { name: 'ct state', base: 'meta', offset: bits(0), width: bits(32) };

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

const ETHER: Needs = { kind: 'ether' };
const ARP: Needs = { kind: 'network', etherType: 0x0806 };
const IPV4: Needs = { kind: 'network', etherType: 0x0800 };
const IPV6: Needs = { kind: 'network', etherType: 0x86dd };

function over(protocol: number, etherType: number | null = null): Needs {
  return { kind: 'transport', protocol, etherType };
}

/**
 * Every header a rule can name; a new field is one entry in its row. Offsets are bits from the start of
 * the base, as nft compiles them (nftables src/proto.c, the structs of the kernel's uapi headers).
 */
export const PROTOCOLS: readonly Protocol[] = [
  {
    name: 'ether',
    base: 'll',
    needs: ETHER,
    fields: { daddr: [0, 48], saddr: [48, 48], type: [96, 16] },
  },
  {
    // The outermost tag, which stands behind the 14 bytes of the Ethernet header.
    name: 'vlan',
    base: 'll',
    needs: { kind: 'network', etherType: 0x8100 },
    fields: { pcp: [112, 3], cfi: [115, 1], dei: [115, 1], id: [116, 12], type: [128, 16] },
  },
  {
    name: 'arp',
    base: 'nh',
    needs: ARP,
    fields: {
      htype: [0, 16],
      ptype: [16, 16],
      hlen: [32, 8],
      plen: [40, 8],
      operation: [48, 16],
      'saddr ether': [64, 48],
      'saddr ip': [112, 32],
      'daddr ether': [144, 48],
      'daddr ip': [192, 32],
    },
  },
  {
    name: 'ip',
    base: 'nh',
    needs: IPV4,
    fields: {
      version: [0, 4],
      hdrlength: [4, 4],
      dscp: [8, 6],
      ecn: [14, 2],
      length: [16, 16],
      id: [32, 16],
      'frag-off': [48, 16],
      ttl: [64, 8],
      protocol: [72, 8],
      checksum: [80, 16],
      saddr: [96, 32],
      daddr: [128, 32],
    },
  },
  {
    name: 'ip6',
    base: 'nh',
    needs: IPV6,
    fields: {
      version: [0, 4],
      dscp: [4, 6],
      ecn: [10, 2],
      flowlabel: [12, 20],
      length: [32, 16],
      nexthdr: [48, 8],
      hoplimit: [56, 8],
      saddr: [64, 128],
      daddr: [192, 128],
    },
  },
  {
    name: 'th',
    base: 'th',
    needs: { kind: 'none' },
    fields: { sport: [0, 16], dport: [16, 16] },
  },
  {
    name: 'tcp',
    base: 'th',
    needs: over(6),
    fields: {
      sport: [0, 16],
      dport: [16, 16],
      sequence: [32, 32],
      ackseq: [64, 32],
      doff: [96, 4],
      reserved: [100, 4],
      flags: [104, 8],
      window: [112, 16],
      checksum: [128, 16],
      urgptr: [144, 16],
    },
  },
  {
    name: 'udp',
    base: 'th',
    needs: over(17),
    fields: { sport: [0, 16], dport: [16, 16], length: [32, 16], checksum: [48, 16] },
  },
  {
    name: 'udplite',
    base: 'th',
    needs: over(136),
    fields: { sport: [0, 16], dport: [16, 16], csumcov: [32, 16], checksum: [48, 16] },
  },
  {
    name: 'sctp',
    base: 'th',
    needs: over(132),
    fields: { sport: [0, 16], dport: [16, 16], vtag: [32, 32], checksum: [64, 32] },
  },
  {
    name: 'dccp',
    base: 'th',
    needs: over(33),
    fields: { sport: [0, 16], dport: [16, 16], type: [67, 4] },
  },
  {
    name: 'icmp',
    base: 'th',
    needs: over(1, 0x0800),
    fields: {
      type: [0, 8],
      code: [8, 8],
      checksum: [16, 16],
      id: [32, 16],
      sequence: [48, 16],
      gateway: [32, 32],
      mtu: [48, 16],
    },
  },
  {
    name: 'icmpv6',
    base: 'th',
    needs: over(58, 0x86dd),
    fields: {
      type: [0, 8],
      code: [8, 8],
      checksum: [16, 16],
      'parameter-problem': [32, 32],
      mtu: [32, 32],
      id: [32, 16],
      sequence: [48, 16],
      'max-delay': [32, 16],
      taddr: [64, 128],
      daddr: [192, 128],
    },
  },
  {
    name: 'igmp',
    base: 'th',
    needs: over(2, 0x0800),
    fields: { type: [0, 8], mrt: [8, 8], checksum: [16, 16], group: [32, 32] },
  },
  {
    name: 'esp',
    base: 'th',
    needs: over(50),
    fields: { spi: [0, 32], sequence: [32, 32] },
  },
  {
    name: 'ah',
    base: 'th',
    needs: over(51),
    fields: {
      nexthdr: [0, 8],
      hdrlength: [8, 8],
      reserved: [16, 16],
      spi: [32, 32],
      sequence: [64, 32],
    },
  },
  {
    name: 'comp',
    base: 'th',
    needs: over(108),
    fields: { nexthdr: [0, 8], flags: [8, 8], cpi: [16, 16] },
  },
  {
    name: 'gre',
    base: 'th',
    needs: over(47),
    fields: { flags: [0, 5], version: [13, 3], protocol: [16, 16] },
  },
];

const PROTOCOL_BY_NAME: ReadonlyMap<string, Protocol> = new Map(
  PROTOCOLS.map((protocol) => [protocol.name, protocol]),
);

/** The protocol nft calls `name`, or null. */
export function findProtocol(name: string): Protocol | null {
  return PROTOCOL_BY_NAME.get(name) ?? null;
}

const FIELD_BY_NAME: ReadonlyMap<string, Field> = new Map(
  PROTOCOLS.flatMap((protocol) =>
    Object.entries(protocol.fields).map(([name, [offset, width]]): [string, Field] => [
      `${protocol.name} ${name}`,
      {
        name: `${protocol.name} ${name}`,
        base: protocol.base,
        offset: bits(offset),
        width: bits(width),
      },
    ]),
  ),
);

/** The payload field nft spells `protocol name` (`ip saddr`, `arp saddr ip`), or null. */
export function findField(protocol: string, name: string): Field | null {
  return FIELD_BY_NAME.get(`${protocol} ${name}`) ?? null;
}

/** nft's raw payload `@nh,96,32`; offset and width in bits. */
export function rawField(base: Exclude<Base, 'meta'>, offset: number, width: number): Field {
  return {
    name: `@${base},${offset},${width}`,
    base,
    offset: bits(offset),
    width: bits(width),
  };
}
