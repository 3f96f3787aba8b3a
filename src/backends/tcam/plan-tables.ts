import { type Field, FRAME, fieldKey, META } from '../../ir/fields.ts';
import { exclude, L4PROTO_PRESENT, PLENTY, presenceKey, type Region } from '../../ir/region.ts';
import type { TcamProfile } from '../../profile/schema.ts';
import type { KeySet } from '../../profile/tcam-schema.ts';
import { findMatchField } from '../../profile/tcam-schema.ts';
import { namedProtocol } from './interpret.ts';
import type { Column } from './layout.ts';
import { needField, type Version } from './rewrite-frame.ts';
import type { Served } from './table.ts';

/** A table to be made: which frames it is for, and what its key may have. */
export interface TablePlan {
  readonly name: string;
  readonly version: Version;
  /** What all its frames have in common. */
  readonly region: Region;
  readonly served: Served;
  /** The key as a profile has it; null: whatever the rules look at. */
  readonly columns: readonly Column[] | null;
  /** Values of a field that other tables before it decide: rows that continue come first. */
  readonly guards: { readonly field: Field; readonly values: readonly number[] } | null;
  readonly fixedProtocols: ReadonlySet<number> | null;
}

const ETH_P_IP = 0x0800;
const ETH_P_ARP = 0x0806;
const ETH_P_IPV6 = 0x86dd;
const NFPROTO = { ip: 2n, ip6: 10n, other: 5n } as const;
const VIEWS = ['ingress', 'l3'] as const;

function known(lo: number | bigint, hi: number | bigint = lo) {
  return { lo: BigInt(lo), hi: BigInt(hi), without: [] };
}

interface RegionOptions {
  readonly protocol: number | null;
  readonly l4proto: number | null;
  readonly untagged: boolean;
  readonly whole: boolean;
}

const ETH_HLEN = 14;
/** Bytes of the network header that a frame which is not odd has. */
const HEADER_BYTES = { ip: 20, ip6: 40, other: 0 } as const;

/** What is known of frames that are not odd. */
function regionOf(version: Version, { protocol, l4proto, untagged, whole }: RegionOptions): Region {
  const region = new Map([
    [META.nfproto.name, known(NFPROTO[version])],
    [FRAME.tags.name, known(0, untagged ? 0 : version === 'other' ? 2 : 1)],
    [FRAME.fragment.name, known(0, whole || version === 'other' ? 0 : version === 'ip' ? 2 : 1)],
  ]);
  if (protocol !== null) region.set(META.protocol.name, known(protocol));
  if (l4proto !== null) region.set(META.l4proto.name, known(l4proto));
  for (const view of VIEWS) {
    const header = HEADER_BYTES[version];
    region.set(presenceKey('ll', view), known(ETH_HLEN + header, PLENTY));
    region.set(presenceKey('nh', view), known(header, PLENTY));
    // Where loads beyond that succeed stays open: the key gets the field, and frames must have it.
    if (version === 'other') region.set(presenceKey('th', view), known(0));
  }
  if (version === 'other') region.set(L4PROTO_PRESENT, known(0));
  return region;
}

function without(region: Region, field: Field, values: readonly number[]): Region {
  return values.reduce((left, value) => exclude(left, fieldKey(field), BigInt(value)), region);
}

const ANY_FRAME: Served = { fixed: [], untagged: false, whole: false };

/** Protocols with fields of their own, beside ports, among those that rules look at. */
function specialProtocols(fields: readonly Field[], version: Version): readonly number[] {
  const found = new Set<number>();
  for (const field of fields) {
    const protocol = namedProtocol(field);
    if (protocol === null) continue;
    const isPort =
      field.offset + field.width <= 32 && field.width === 16 && /port$/.test(field.name);
    if (!isPort && !(version === 'ip' ? protocol === 58 : protocol === 1)) found.add(protocol);
  }
  return [...found].sort((a, b) => a - b);
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  1: 'icmp',
  2: 'igmp',
  6: 'tcp',
  17: 'udp',
  33: 'dccp',
  47: 'gre',
  50: 'esp',
  51: 'ah',
  58: 'icmpv6',
  108: 'comp',
  132: 'sctp',
  136: 'udplite',
};

/**
 * Tables for no device in particular: one an IP version, before it one for each transport protocol of
 * which rules look at more than ports, then one for ARP and one for all other frames. Keys always
 * have `meta protocol`.
 */
export function planGenericTables(fields: readonly Field[]): readonly TablePlan[] {
  const plans: TablePlan[] = [];
  const free = { untagged: false, whole: false };
  for (const [version, protocol, name] of [
    ['ip', ETH_P_IP, 'ipv4'],
    ['ip6', ETH_P_IPV6, 'ipv6'],
  ] as const) {
    const fixed = { field: META.protocol, values: [protocol] };
    const special = specialProtocols(fields, version);
    for (const l4proto of special) {
      plans.push({
        name: `${name}-${PROTOCOL_NAMES[l4proto] ?? l4proto}`,
        version,
        region: regionOf(version, { ...free, protocol, l4proto }),
        served: { ...ANY_FRAME, fixed: [fixed, { field: META.l4proto, values: [l4proto] }] },
        columns: null,
        guards: null,
        fixedProtocols: new Set([l4proto]),
      });
    }
    plans.push({
      name,
      version,
      region: without(
        regionOf(version, { ...free, protocol, l4proto: null }),
        META.l4proto,
        special,
      ),
      served: { ...ANY_FRAME, fixed: [fixed] },
      columns: null,
      guards: special.length === 0 ? null : { field: META.l4proto, values: special },
      fixedProtocols: null,
    });
  }
  const hasArp = fields.some(({ name }) => name.startsWith('arp '));
  if (hasArp) {
    plans.push({
      name: 'arp',
      version: 'other',
      region: regionOf('other', { ...free, protocol: ETH_P_ARP, l4proto: null }),
      served: { ...ANY_FRAME, fixed: [{ field: META.protocol, values: [ETH_P_ARP] }] },
      columns: null,
      guards: null,
      fixedProtocols: null,
    });
  }
  const others = [ETH_P_IP, ETH_P_IPV6, ...(hasArp ? [ETH_P_ARP] : [])];
  plans.push({
    name: 'ethernet',
    version: 'other',
    region: without(
      regionOf('other', { ...free, protocol: null, l4proto: null }),
      META.protocol,
      others,
    ),
    served: ANY_FRAME,
    columns: null,
    guards: { field: META.protocol, values: others },
    fixedProtocols: null,
  });
  return plans;
}

/** Ports that parsers of switches and cards know; others only where a key set is for them alone. */
const PORT_PROTOCOLS = [6, 17];

function columnsOf(set: KeySet, protocols: readonly number[] | null): readonly Column[] {
  return set.key.map(({ field: name, bits, match }): Column => {
    const field = findMatchField(name);
    if (field === null) throw new Error(`bug: a profile names ${name}`);
    const own = namedProtocol(field);
    const guard = field.base !== 'th' ? null : own === null ? (protocols ?? PORT_PROTOCOLS) : [own];
    // A device that has one bit of the protocol tells its few protocols apart by it.
    const isSelector = fieldKey(field) === META.l4proto.name && bits < field.width;
    return {
      field,
      bits: isSelector ? field.width : bits,
      match: isSelector ? 'exact' : match,
      protocols: guard === null ? null : new Set(guard),
    };
  });
}

/** Formats that can ask for frames without tag and packets that are no fragments. */
const PRECISE = ['openflow', 'tc-flower', 'rte-flow'];

/** A table for the frames that it is said to serve. */
function planServed(name: string, served: Served, columns: readonly Column[]): TablePlan {
  const valuesOf = (field: Field): readonly number[] | null =>
    served.fixed.find((one) => fieldKey(one.field) === fieldKey(field))?.values ?? null;
  const [protocol = null, ...more] = valuesOf(META.protocol) ?? [];
  const only = more.length === 0 ? protocol : null;
  const version: Version = only === ETH_P_IP ? 'ip' : only === ETH_P_IPV6 ? 'ip6' : 'other';
  const l4 = valuesOf(META.l4proto);
  const [l4proto = null] = l4?.length === 1 ? l4 : [];
  const whole = version !== 'other' && served.whole;
  const { untagged } = served;
  return {
    name,
    version,
    region: regionOf(version, { protocol: only, l4proto, untagged, whole }),
    served: { ...served, whole },
    columns,
    guards: null,
    fixedProtocols: l4 === null ? null : new Set(l4),
  };
}

/** Plans for tables that are there already, in their order. */
export function planGivenTables(
  tables: readonly {
    readonly name: string;
    readonly served: Served;
    readonly columns: readonly Column[];
  }[],
): readonly TablePlan[] {
  const plans = tables.map(({ name, served, columns }) => planServed(name, served, columns));
  return plans.map((plan, index) => withGuards(plan, plans.slice(0, index)));
}

/** One table a key set of a profile, those for fewer frames first. */
export function planProfileTables(profile: TcamProfile): readonly TablePlan[] {
  const isPrecise = (profile.formats?.value ?? []).some((format) => PRECISE.includes(format));
  const narrow = { untagged: isPrecise, whole: isPrecise };
  const sorted = [...profile.keySets].sort(
    (a, b) => (b.fixed?.length ?? 0) - (a.fixed?.length ?? 0),
  );
  const plans = sorted.map((set): TablePlan => {
    const fixed = (set.fixed ?? []).map(({ field: name, values }) => {
      const field = findMatchField(name);
      if (field === null) throw new Error(`bug: a profile names ${name}`);
      return { field, values };
    });
    const l4 = fixed.find(({ field }) => fieldKey(field) === META.l4proto.name)?.values ?? null;
    return planServed(set.name, { fixed, ...narrow }, columnsOf(set, l4));
  });
  return plans.map((plan, index) => withGuards(plan, plans.slice(0, index)));
}

/** Rows that continue for what tables before this one have decided. */
function withGuards(plan: TablePlan, before: readonly TablePlan[]): TablePlan {
  if (plan.version === 'other') {
    if (plan.served.fixed.length > 0) return plan;
    const values = [ETH_P_IP, ETH_P_IPV6];
    const arp = before.some(({ served }) =>
      served.fixed.some((one) => one.values.includes(ETH_P_ARP)),
    );
    const all = arp ? [...values, ETH_P_ARP] : values;
    const region = without(plan.region, META.protocol, all);
    const hasProtocol = plan.columns?.some(({ field }) => fieldKey(field) === META.protocol.name);
    // Without tags the frame's EtherType says the same.
    const field = hasProtocol === true ? META.protocol : needField('ether', 'type');
    return { ...plan, region, guards: { field, values: all } };
  }
  if (plan.fixedProtocols !== null) return plan;
  const taken = new Set<number>();
  for (const other of before) {
    if (other.version === plan.version)
      for (const value of other.fixedProtocols ?? []) taken.add(value);
  }
  if (taken.size === 0) return plan;
  const values = [...taken].sort((a, b) => a - b);
  const region = without(plan.region, META.l4proto, values);
  return { ...plan, region, guards: { field: META.l4proto, values } };
}

const NH_PROTOCOL = needField('ip', 'protocol');

/** The column a field is looked up in: IPv4's protocol is `meta l4proto`. */
export function canonicalField(field: Field, version: Version): Field {
  return version === 'ip' && fieldKey(field) === fieldKey(NH_PROTOCOL) ? META.l4proto : field;
}
