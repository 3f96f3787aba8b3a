import { fail, type Result, succeed } from '../../../support/diagnostics.ts';
import type { TableSet } from '../table.ts';
import {
  type Acl,
  type AclEntry,
  type AclPorts,
  ANY_MATCH,
  aclsByPriority,
  aclsOf,
  ICMP,
  layersOfEntries,
  type NumberedEntry,
  neededEntries,
  TCP,
} from './acl.ts';
import { parsePrefix, refuseEntry, refuseText, spellPrefix } from './acl-text.ts';

/** What stands for the port in the batch: `sed s/@DEV/swp1/`. */
const DEVICE = '@DEV';
/** A preference is the upper half of struct tcmsg.tcm_info: 16 bits. */
const TOP_PREF = 65_535;
const PROTOCOLS = { ip: 'ip', ip6: 'ipv6' } as const;
const ICMP_NAMES = { ip: 'icmp', ip6: 'icmpv6' } as const;
const L4_NAMES: ReadonlyMap<number, string> = new Map([
  [TCP, 'tcp'],
  [17, 'udp'],
  [132, 'sctp'],
]);

function spellProtocol(version: Acl['version'], protocol: number): string {
  if (protocol === ICMP[version]) return ICMP_NAMES[version];
  return L4_NAMES.get(protocol) ?? `0x${protocol.toString(16)}`;
}

/**
 * A port, a mask for ports that are one prefix (not all drivers take ranges), or a range. tc refuses port 0 on
 * its own (flower_parse_port), but takes it with a mask.
 */
function spellPorts({ lo, hi }: AclPorts): string {
  const size = hi - lo + 1;
  const isPrefix = Number.isInteger(Math.log2(size)) && lo % size === 0;
  if (isPrefix && (hi === 0 || lo < hi)) return `${lo}/0x${(0x10000 - size).toString(16)}`;
  return lo === hi ? String(lo) : `${lo}-${hi}`;
}

/** What flower cannot ask, or null. */
function problemOf({ code, type }: AclEntry): string | null {
  return code !== null && type === null ? 'an ICMP code without its type' : null;
}

/** A range from 0 as what flower takes (0 means unset, fl_set_key_port_range): port 0, then the rest. */
function splitPorts(entry: AclEntry): readonly AclEntry[] {
  const split = (side: 'sport' | 'dport', one: AclEntry): readonly AclEntry[] => {
    const ports = one[side];
    if (ports === null || ports.lo !== 0 || ports.hi === 0) return [one];
    if (ports.hi === 0xffff) return [{ ...one, [side]: null }];
    if (Number.isInteger(Math.log2(ports.hi + 1))) return [one];
    return [
      { ...one, [side]: { lo: 0, hi: 0 } },
      { ...one, [side]: { lo: 1, hi: ports.hi } },
    ];
  };
  return split('sport', entry).flatMap((one) => split('dport', one));
}

function keysOf(version: Acl['version'], entry: AclEntry): string {
  const { protocol, saddr, daddr, sport, dport, flags, type, code, dscp } = entry;
  const parts: string[] = [];
  if (protocol !== null) parts.push(`ip_proto ${spellProtocol(version, protocol)}`);
  if (saddr.length > 0) parts.push(`src_ip ${spellPrefix(version, saddr)}`);
  if (daddr.length > 0) parts.push(`dst_ip ${spellPrefix(version, daddr)}`);
  if (sport !== null) parts.push(`src_port ${spellPorts(sport)}`);
  if (dport !== null) parts.push(`dst_port ${spellPorts(dport)}`);
  const hex = (value: number): string => `0x${value.toString(16)}`;
  if (flags !== null) parts.push(`tcp_flags ${hex(flags.value)}/${hex(flags.mask)}`);
  if (type !== null) parts.push(`type ${type}`);
  if (code !== null) parts.push(`code ${code}`);
  // The DSCP is the upper six bits of what flower calls ip_tos, RFC 2474.
  if (dscp !== null) parts.push(`ip_tos ${hex(dscp << 2)}/0xfc`);
  return parts.join(' ');
}

/** In front of all others: fragments pass, since flower reads their ports as 0. */
const FRAGMENTS: AclEntry = { ...ANY_MATCH, drops: false, rules: [] };

interface Layered {
  readonly acl: Acl;
  /** What is written, fragments first, and for each its layer. */
  readonly entries: readonly AclEntry[];
  readonly layers: readonly number[];
}

function layerEntries(acls: readonly Acl[]): readonly Layered[] {
  return acls.map((acl) => {
    const entries = [FRAGMENTS, ...neededEntries(acl)];
    return { acl, entries, layers: layersOfEntries(acl.version, entries) };
  });
}

function depthOf({ layers }: Layered): number {
  return layers.reduce((most, layer) => Math.max(most, layer + 1), 0);
}

/** Preferences that the filters take: those of one are all for the same IP version. */
export function countTcPreferences(tables: TableSet): number {
  const acls = aclsOf('tc flower', tables);
  return acls.ok ? layerEntries(acls.value).reduce((sum, one) => sum + depthOf(one), 0) : 0;
}

/** One filter of tc flower. Those of one preference overlap only where they agree. */
export interface TcFilter {
  readonly protocol: (typeof PROTOCOLS)[Acl['version']];
  readonly pref: number;
  /** As tc spells them; may be empty. */
  readonly keys: string;
  readonly action: 'drop' | 'pass';
  /** The rules that it comes from, as `formatRuleId` spells them. */
  readonly rules: readonly string[];
}

/** The filters of one IP version, the lowest preference first. */
function filtersOf(one: Layered, used: number): Result<readonly TcFilter[]> {
  const { version } = one.acl;
  const byLayer = Array.from({ length: depthOf(one) }, () => new Map<string, TcFilter>());
  for (const [index, entry] of one.entries.entries()) {
    for (const part of splitPorts(entry)) {
      const problem = problemOf(part);
      if (problem !== null) return fail(refuseEntry('tc flower', part, problem));
      const layer = one.layers[index] ?? 0;
      const keys = entry === FRAGMENTS ? 'ip_flags frag' : keysOf(version, part);
      const action = part.drops ? 'drop' : 'pass';
      const protocol = PROTOCOLS[version];
      const filter = { protocol, pref: used + layer + 1, keys, action, rules: part.rules } as const;
      // tc refuses a filter that is there already.
      if (byLayer[layer]?.has(keys) === false) byLayer[layer].set(keys, filter);
    }
  }
  return succeed(byLayer.flatMap((layer) => [...layer.values()]));
}

/** Tables as filters, the lowest preference first. */
export function tcFilters(tables: TableSet): Result<readonly TcFilter[]> {
  const acls = aclsOf('tc flower', tables);
  if (!acls.ok) return acls;
  const filters: TcFilter[] = [];
  for (const one of layerEntries(acls.value)) {
    const own = filtersOf(one, filters.at(-1)?.pref ?? 0);
    if (!own.ok) return own;
    filters.push(...own.value);
  }
  const most = filters.at(-1)?.pref ?? 0;
  return most > TOP_PREF ? fail(refuseText(`tc has ${TOP_PREF} preferences`)) : succeed(filters);
}

/** Lines for `tc -batch` with `@DEV` for the device, lowest preference first. */
export function writeTcFlower(tables: TableSet): Result<string> {
  const filters = tcFilters(tables);
  if (!filters.ok) return filters;
  const lines = filters.value.map(({ protocol, pref, keys, action }) => {
    const asked = keys === '' ? '' : ` ${keys}`;
    const head = `filter add dev ${DEVICE} ingress protocol ${protocol} pref ${pref}`;
    return `${head} flower${asked} action ${action}`;
  });
  return succeed(`${lines.join('\n')}\n`);
}

type Reader = (version: Acl['version'], text: string) => Partial<AclEntry> | null;

function readPorts(text: string): AclPorts | null {
  const masked = /^(\d+)\/(0x[0-9a-f]{1,4})$/i.exec(text);
  if (masked !== null) {
    const [start, mask] = [Number(masked[1]), Number(masked[2])];
    const size = 0x10000 - mask;
    const isPrefix = Number.isInteger(Math.log2(size)) && start % size === 0;
    return isPrefix ? { lo: start, hi: start + size - 1 } : null;
  }
  const [lo, hi = lo] = text.split('-').map(Number);
  return lo === undefined || hi === undefined || !/^\d+(-\d+)?$/.test(text) ? null : { lo, hi };
}

function readNumber(text: string): number | null {
  return /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : null;
}

function readAddress(side: 'saddr' | 'daddr'): Reader {
  return (version, text) => {
    const prefix = parsePrefix(version, text);
    return prefix === null ? null : { [side]: prefix };
  };
}

function readSide(side: 'sport' | 'dport'): Reader {
  return (_, text) => {
    const ports = readPorts(text);
    return ports === null ? null : { [side]: ports };
  };
}

function readExact(name: 'type' | 'code'): Reader {
  return (_, text) => {
    const value = readNumber(text);
    return value === null ? null : { [name]: value };
  };
}

const READERS: Readonly<Record<string, Reader>> = {
  ip_proto: (version, text) => {
    if (text === ICMP_NAMES[version]) return { protocol: ICMP[version] };
    const named = [...L4_NAMES].find(([, name]) => name === text)?.[0];
    // tc reads a number as hexadecimal whether it says so or not (flower_parse_ip_proto).
    const isNumber = /^(0x)?[0-9a-f]{1,2}$/i.test(text);
    const protocol = named ?? (isNumber ? Number.parseInt(text, 16) : null);
    return protocol === null ? null : { protocol };
  },
  src_ip: readAddress('saddr'),
  dst_ip: readAddress('daddr'),
  src_port: readSide('sport'),
  dst_port: readSide('dport'),
  tcp_flags: (_, text) => {
    const [value, mask = 0xff] = text.split('/').map(Number);
    return value === undefined || Number.isNaN(value) ? null : { flags: { value, mask } };
  },
  type: readExact('type'),
  code: readExact('code'),
  ip_tos: (_, text) => {
    const [value, mask] = text.split('/').map(Number);
    return value === undefined || mask !== 0xfc ? null : { dscp: value >> 2 };
  },
};

const LINE =
  /^filter add dev \S+ ingress protocol (ip|ipv6) pref (\d+) flower((?: \S+ \S+)*) action (drop|pass)$/;

/** The inverse of `writeTcFlower`. */
export function readTcFlower(text: string, file: string): Result<readonly Acl[]> {
  const found: NumberedEntry[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const match = LINE.exec(line.replace(' skip_sw', ''));
    if (match === null) return fail(refuseText(`line ${index + 1} is not understood`, file));
    const [, protocol, pref, asked = '', action] = match;
    const version = protocol === 'ip' ? 'ip' : 'ip6';
    // Fragments are left out of what can be proven.
    if (asked === ' ip_flags frag' && action === 'pass') continue;
    let entry: AclEntry = { ...ANY_MATCH, drops: action === 'drop', rules: [] };
    const words = asked.trim().split(' ');
    for (let at = 0; at + 1 < words.length; at += 2) {
      const part = READERS[words[at] ?? '']?.(version, words[at + 1] ?? '') ?? null;
      if (part === null) return fail(refuseText(`line ${index + 1}: ${words[at]}`, file));
      entry = { ...entry, ...part };
    }
    found.push({ version, priority: Number(pref), entry });
  }
  const acls = aclsByPriority(found);
  return typeof acls === 'number'
    ? fail(refuseText(`entries of preference ${acls} overlap and do not agree`, file))
    : succeed(acls);
}
