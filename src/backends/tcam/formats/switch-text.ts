import { fail, type Result, succeed } from '../../../support/diagnostics.ts';
import type { TableSet } from '../table.ts';
import { type Acl, type AclEntry, type AclPorts, ANY_MATCH, aclsOf, ICMP, TCP } from './acl.ts';
import { parsePrefix, refuseEntry, refuseText, spellPrefix } from './acl-text.ts';

/** How one vendor's access lists differ from the other's. */
export interface Dialect {
  readonly name: string;
  /** ICMPv6 in an IPv6 list. */
  readonly icmp6: string;
}

export const EOS: Dialect = { name: 'EOS', icmp6: 'icmpv6' };
export const NX_OS: Dialect = { name: 'NX-OS', icmp6: 'icmp' };

const LISTS = { ip: ['ip', 'NFT'], ip6: ['ipv6', 'NFT6'] } as const;
/** Room between sequence numbers for rows by hand. */
const STEP = 10;
/** TCP flags that lists know, from the lowest bit on. */
const FLAGS = ['fin', 'syn', 'rst', 'psh', 'ack', 'urg'];

function spellProtocol({ icmp6 }: Dialect, version: Acl['version'], protocol: number | null) {
  if (protocol === null) return LISTS[version][0];
  if (protocol === TCP) return 'tcp';
  if (protocol === 17) return 'udp';
  if (protocol === ICMP[version]) return version === 'ip' ? 'icmp' : icmp6;
  return String(protocol);
}

function spellPorts(ports: AclPorts | null): string {
  if (ports === null) return '';
  return ports.lo === ports.hi ? ` eq ${ports.lo}` : ` range ${ports.lo} ${ports.hi}`;
}

/** What the lists cannot ask, or null: of several flags it is not said alike what they mean. */
function problemOf({ flags, type, code }: AclEntry): string | null {
  if (
    flags !== null &&
    (flags.value !== flags.mask || !FLAGS.some((_, bit) => flags.mask === 1 << bit))
  ) {
    return 'TCP flags other than one that must be set';
  }
  return code !== null && type === null ? 'an ICMP code without its type' : null;
}

function lineOf(dialect: Dialect, version: Acl['version'], entry: AclEntry): string {
  const { protocol, saddr, daddr, sport, dport, flags, type, code, dscp, drops } = entry;
  const address = (prefix: AclEntry['saddr']): string =>
    prefix.length === 0 ? 'any' : spellPrefix(version, prefix);
  const head = `${drops ? 'deny' : 'permit'} ${spellProtocol(dialect, version, protocol)}`;
  const from = `${address(saddr)}${spellPorts(sport)}`;
  const to = `${address(daddr)}${spellPorts(dport)}`;
  const rest = [
    ...(flags === null ? [] : [FLAGS[Math.log2(flags.mask)]]),
    ...(type === null ? [] : [type]),
    ...(code === null ? [] : [code]),
    ...(dscp === null ? [] : ['dscp', dscp]),
  ];
  return [head, from, to, ...rest].join(' ');
}

/** Access lists as EOS and NX-OS take them, with the deny or permit at their end written out. */
export function writeSwitchText(dialect: Dialect, tables: TableSet): Result<string> {
  const acls = aclsOf(dialect.name, tables);
  if (!acls.ok) return acls;
  const lines: string[] = [];
  for (const { version, entries } of acls.value) {
    lines.push(`${LISTS[version][0]} access-list ${LISTS[version][1]}`);
    for (const [index, entry] of entries.entries()) {
      const problem = problemOf(entry);
      if (problem !== null) return fail(refuseEntry(dialect.name, entry, problem));
      lines.push(`   ${(index + 1) * STEP} ${lineOf(dialect, version, entry)}`);
    }
    lines.push('!');
  }
  return succeed(`${lines.join('\n')}\n`);
}

function readProtocol(dialect: Dialect, version: Acl['version'], text: string): number | null {
  if (text === LISTS[version][0]) return null;
  if (text === 'tcp') return TCP;
  if (text === 'udp') return 17;
  if (text === (version === 'ip' ? 'icmp' : dialect.icmp6)) return ICMP[version];
  return Number(text);
}

/** Takes words from the front as long as they are understood. */
function readLine(dialect: Dialect, version: Acl['version'], line: string): AclEntry | null {
  const words = line.trim().split(/\s+/);
  if (/^\d+$/.test(words[0] ?? '')) words.shift();
  const action = words.shift();
  if (action !== 'permit' && action !== 'deny') return null;
  const protocol = readProtocol(dialect, version, words.shift() ?? '');
  if (Number.isNaN(protocol)) return null;
  const address = () => {
    const word = words.shift() ?? '';
    if (word === 'any') return ANY_MATCH.saddr;
    return parsePrefix(version, word === 'host' ? (words.shift() ?? '') : word);
  };
  const ports = (): AclPorts | null => {
    if (words[0] !== 'eq' && words[0] !== 'range') return null;
    const isRange = words.shift() === 'range';
    const lo = Number(words.shift());
    return { lo, hi: isRange ? Number(words.shift()) : lo };
  };
  const saddr = address();
  const sport = ports();
  const daddr = address();
  const dport = ports();
  if (saddr === null || daddr === null) return null;
  const bit = FLAGS.indexOf(words[0] ?? '');
  if (bit >= 0) words.shift();
  const number = (): number | null => (/^\d+$/.test(words[0] ?? '') ? Number(words.shift()) : null);
  const type = number();
  const code = number();
  const hasDscp = words[0] === 'dscp';
  if (hasDscp) words.shift();
  const dscp = hasDscp ? number() : null;
  const numbers = [sport?.lo, sport?.hi, dport?.lo, dport?.hi];
  if (words.length > 0 || numbers.some((one) => Number.isNaN(one))) return null;
  const flags = bit < 0 ? null : { value: 1 << bit, mask: 1 << bit };
  const match = { protocol, saddr, daddr, sport, dport, flags, type, code, dscp };
  return { ...match, drops: action === 'deny', rules: [] };
}

/** The inverse of `writeSwitchText`; what no line of a list permits is denied, as on the switch. */
export function readSwitchText(
  dialect: Dialect,
  text: string,
  file: string,
): Result<readonly Acl[]> {
  const lists = new Map<Acl['version'], AclEntry[]>();
  let version: Acl['version'] | null = null;
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('!')) continue;
    const head = /^(ip|ipv6) access-list \S+$/.exec(line.trim());
    if (head !== null) {
      version = head[1] === 'ip' ? 'ip' : 'ip6';
      lists.set(version, []);
      continue;
    }
    const entry = version === null ? null : readLine(dialect, version, line);
    if (version === null || entry === null)
      return fail(refuseText(`line ${index + 1} is not understood`, file));
    lists.get(version)?.push(entry);
  }
  const denied: AclEntry = { ...ANY_MATCH, drops: true, rules: [] };
  return succeed(
    [...lists].map(([own, entries]) => ({ version: own, entries: [...entries, denied] })),
  );
}
