import { ones } from '../../../support/bits.ts';
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
import { parsePrefix, refuseEntry, refuseText } from './acl-text.ts';
import { formatIp, formatIp6, prefixLength } from './text.ts';

/** The items that transport protocols have, testpmd's flow rules. */
const ITEMS: Readonly<Record<string, ReadonlyMap<number, string>>> = {
  ip: new Map([
    [TCP, 'tcp'],
    [17, 'udp'],
    [ICMP.ip, 'icmp'],
  ]),
  ip6: new Map([
    [TCP, 'tcp'],
    [17, 'udp'],
    [ICMP.ip6, 'icmp6'],
  ]),
};

function ternary(name: string, value: string, mask: string): string {
  return ` ${name} spec ${value} ${name} mask ${mask}`;
}

/** A port, a prefix of ports, or a range, for which few drivers take `last`. */
function spellPorts(name: string, ports: AclPorts | null): string {
  if (ports === null) return '';
  const size = ports.hi - ports.lo + 1;
  const isPrefix = Number.isInteger(Math.log2(size)) && ports.lo % size === 0;
  const mask = isPrefix ? 0x10000 - size : 0xffff;
  const last = isPrefix ? '' : ` ${name} last ${ports.hi}`;
  return ` ${name} spec ${ports.lo}${last} ${name} mask 0x${mask.toString(16)}`;
}

function patternOf(version: Acl['version'], entry: AclEntry): string {
  const { protocol, saddr, daddr, sport, dport, flags, type, code, dscp } = entry;
  const width = version === 'ip' ? 32 : 128;
  const format = version === 'ip' ? formatIp : formatIp6;
  const address = (name: string, { value, length }: AclEntry['saddr']): string =>
    length === 0 ? '' : ternary(name, format(value), format(ones(width) ^ ones(width - length)));
  const item = protocol === null ? undefined : ITEMS[version]?.get(protocol);
  const number = (name: string, value: number | null, mask: string): string =>
    value === null ? '' : ternary(name, String(value), mask);
  // DSCP is the upper six bits of the byte, RFC 2474.
  const tos = number(version === 'ip' ? 'tos' : 'tc', dscp === null ? null : dscp << 2, '0xfc');
  const next = number('proto', item === undefined ? protocol : null, '0xff');
  const kind = number('type', type, '0xff') + number('code', code, '0xff');
  const bits =
    flags === null ? '' : ternary('flags', String(flags.value), `0x${flags.mask.toString(16)}`);
  const ports = spellPorts('src', sport) + spellPorts('dst', dport);
  const ip = `${version === 'ip' ? 'ipv4' : 'ipv6'}${address('src', saddr)}${address('dst', daddr)}${tos}${next}`;
  return ['eth', ip, ...(item === undefined ? [] : [`${item}${ports}${bits}${kind}`]), 'end'].join(
    ' / ',
  );
}

/** Priorities that the rules take. */
export function countRtePriorities(tables: TableSet): number {
  const acls = aclsOf('rte_flow', tables);
  const layers = acls.ok
    ? acls.value.flatMap((acl) => layersOfEntries(acl.version, neededEntries(acl)))
    : [];
  return layers.reduce((most, layer) => Math.max(most, layer + 1), 0);
}

/**
 * Commands of dpdk-testpmd for port 0; the lowest priority number wins, what passes is spread by RSS. Rules of
 * one priority overlap only where they agree.
 */
export function writeRteFlow(tables: TableSet): Result<string> {
  const acls = aclsOf('rte_flow', tables);
  if (!acls.ok) return acls;
  const lines: string[] = [];
  for (const acl of acls.value) {
    const { version } = acl;
    const entries = neededEntries(acl);
    const layers = layersOfEntries(version, entries);
    for (const [index, entry] of entries.entries()) {
      const priority = layers[index];
      if (entry.protocol === 0) return fail(refuseEntry('rte_flow', entry, 'protocol 0'));
      const action = entry.drops ? 'drop' : 'rss';
      const pattern = patternOf(version, entry);
      lines.push(
        `flow create 0 ingress priority ${priority} pattern ${pattern} actions ${action} / end`,
      );
    }
  }
  return succeed(`${lines.join('\n')}\n`);
}

/** What one item asks of one of its fields, as it is written. */
interface Asked {
  spec: string | null;
  last: string | null;
  mask: string | null;
}

/** `src spec A src mask B dst ...` by field; null when a word is missing or is not known. */
function readAsked(words: readonly string[]): ReadonlyMap<string, Asked> | null {
  const asked = new Map<string, Asked>();
  for (let at = 0; at < words.length; at += 3) {
    const [name = '', part, text] = words.slice(at, at + 3);
    if (text === undefined || (part !== 'spec' && part !== 'last' && part !== 'mask')) return null;
    const own = asked.get(name) ?? { spec: null, last: null, mask: null };
    if (own[part] !== null) return null;
    own[part] = text;
    asked.set(name, own);
  }
  return asked;
}

function readNumber(text: string | null): number | null {
  return text !== null && /^(0x[0-9a-f]{1,4}|\d{1,5})$/i.test(text) ? Number(text) : null;
}

type Reader = (asked: Asked, version: Acl['version']) => Partial<AclEntry> | null;

function readAddress(side: 'saddr' | 'daddr'): Reader {
  return ({ spec, last, mask }, version) => {
    const width = version === 'ip' ? 32 : 128;
    const bits = mask === null ? null : parsePrefix(version, mask);
    const length = bits === null ? null : prefixLength(bits.value, width);
    const prefix = last === null ? parsePrefix(version, `${spec}/${length}`) : null;
    return prefix === null ? null : { [side]: prefix };
  };
}

function readPorts(side: 'sport' | 'dport'): Reader {
  return ({ spec, last, mask }) => {
    const [lo, hi, bits] = [spec, last, mask].map(readNumber);
    if (typeof lo !== 'number' || typeof bits !== 'number' || Math.max(lo, bits) > 0xffff)
      return null;
    if (last !== null) {
      const isRange = typeof hi === 'number' && lo <= hi && hi <= 0xffff && bits === 0xffff;
      return isRange ? { [side]: { lo, hi } } : null;
    }
    const length = prefixLength(BigInt(bits), 16);
    if (length === null || (lo & ~bits) !== 0) return null;
    return { [side]: { lo, hi: lo + 2 ** (16 - length) - 1 } };
  };
}

function readExact(mask: number, take: (value: number) => Partial<AclEntry>): Reader {
  return ({ spec, last, mask: bits }) => {
    const value = readNumber(spec);
    const isExact = last === null && readNumber(bits) === mask;
    return value === null || !isExact || (value & ~mask) !== 0 ? null : take(value);
  };
}

const readFlags: Reader = ({ spec, last, mask }) => {
  const [value, bits] = [readNumber(spec), readNumber(mask)];
  if (value === null || bits === null || last !== null || bits > 0xff) return null;
  return (value & ~bits) === 0 ? { flags: { value, mask: bits } } : null;
};

const dscp = readExact(0xfc, (value) => ({ dscp: value >> 2 }));
const protocol = readExact(0xff, (value) => ({ protocol: value }));
const addresses = { src: readAddress('saddr'), dst: readAddress('daddr') };
const ports = { src: readPorts('sport'), dst: readPorts('dport') };
const kinds = {
  type: readExact(0xff, (type) => ({ type })),
  code: readExact(0xff, (code) => ({ code })),
};

/** How fields of testpmd's items are read. */
const READERS: Readonly<Record<string, Readonly<Record<string, Reader>>>> = {
  ipv4: { ...addresses, tos: dscp, proto: protocol },
  ipv6: { ...addresses, tc: dscp, proto: protocol },
  tcp: { ...ports, flags: readFlags },
  udp: ports,
  icmp: kinds,
  icmp6: kinds,
};

/** Takes in one item of a pattern; null when it is not understood. */
function readItem(entry: AclEntry, version: Acl['version'], words: readonly string[]) {
  const [item = '', ...rest] = words;
  const isIp = item === 'ipv4' || item === 'ipv6';
  const named = [...(ITEMS[version] ?? [])].find(([, name]) => name === item)?.[0];
  const asked = readAsked(rest);
  if (asked === null || (!isIp && named === undefined)) return null;
  let read: AclEntry = named === undefined ? entry : { ...entry, protocol: named };
  for (const [name, own] of asked) {
    const part = READERS[item]?.[name]?.(own, version) ?? null;
    if (part === null) return null;
    read = { ...read, ...part };
  }
  return read;
}

const LINE =
  /^flow create \d+ ingress priority (\d{1,9}) pattern eth \/ (ipv4|ipv6)( .*)? \/ end actions (drop|rss) \/ end$/;

/** The inverse of `writeRteFlow`. */
export function readRteFlow(text: string, file: string): Result<readonly Acl[]> {
  const found: NumberedEntry[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const refuse = (what: string) => fail(refuseText(`line ${index + 1}: ${what}`, file));
    const match = LINE.exec(line);
    if (match === null) return refuse('not understood');
    const [, priority, ip = '', rest = '', action] = match;
    const version = ip === 'ipv4' ? 'ip' : 'ip6';
    const items = `${ip}${rest}`.split(' / ').map((item) => item.split(' '));
    let entry: AclEntry | null = { ...ANY_MATCH, drops: action === 'drop', rules: [] };
    for (const [place, item] of items.entries()) {
      // The network header, then at most one of a transport protocol.
      const isThere = place === 0 || (place === 1 && item[0] !== 'ipv4' && item[0] !== 'ipv6');
      entry = isThere && entry !== null ? readItem(entry, version, item) : null;
    }
    if (entry === null) return refuse('its pattern is not understood');
    found.push({ version, priority: Number(priority), entry });
  }
  const acls = aclsByPriority(found);
  return typeof acls === 'number'
    ? fail(refuseText(`entries of priority ${acls} overlap and do not agree`, file))
    : succeed(acls);
}
