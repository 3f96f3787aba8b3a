import { fail, type Result, succeed } from '../../../support/diagnostics.ts';
import type { TableSet } from '../table.ts';
import { type Acl, type AclEntry, type AclPorts, ANY_MATCH, aclsOf } from './acl.ts';
import { parsePrefix, refuseEntry, refuseText, spellPrefix } from './acl-text.ts';

const KINDS = {
  ip: ['inet', 'NFT', 'protocol', 'dscp'],
  ip6: ['inet6', 'NFT6', 'next-header', 'traffic-class'],
} as const;
/** Flags that tcp-flags names, from the lowest bit on. */
const FLAGS = ['fin', 'syn', 'rst', 'push', 'ack', 'urgent'];

function spellFlags({ value, mask }: NonNullable<AclEntry['flags']>): string {
  const names = FLAGS.flatMap((name, bit) => {
    if (((mask >> bit) & 1) === 0) return [];
    return ((value >> bit) & 1) === 1 ? name : `!${name}`;
  });
  return `"(${names.join(' & ')})"`;
}

function spellPorts({ lo, hi }: AclPorts): string {
  return lo === hi ? String(lo) : `${lo}-${hi}`;
}

function conditionsOf(version: Acl['version'], entry: AclEntry): readonly string[] {
  const { protocol, saddr, daddr, sport, dport, flags, type, code, dscp } = entry;
  const [, , protocolName, dscpName] = KINDS[version];
  const asked = [sport, dport, flags, type, code].some((one) => one !== null);
  return [
    ...(saddr.length === 0 ? [] : [`source-address ${spellPrefix(version, saddr)}`]),
    ...(daddr.length === 0 ? [] : [`destination-address ${spellPrefix(version, daddr)}`]),
    ...(protocol === null ? [] : [`${protocolName} ${protocol}`]),
    // Without it Junos reads ports out of the data of later fragments.
    ...(asked && version === 'ip' ? ['fragment-offset 0'] : []),
    ...(sport === null ? [] : [`source-port ${spellPorts(sport)}`]),
    ...(dport === null ? [] : [`destination-port ${spellPorts(dport)}`]),
    ...(flags === null ? [] : [`tcp-flags ${spellFlags(flags)}`]),
    ...(type === null ? [] : [`icmp-type ${type}`]),
    ...(code === null ? [] : [`icmp-code ${code}`]),
    ...(dscp === null ? [] : [`${dscpName} ${dscp}`]),
  ];
}

/** Firewall filters as `set` commands (`load set`); the last term matches everything. */
export function writeJunos(tables: TableSet): Result<string> {
  const acls = aclsOf('Junos', tables);
  if (!acls.ok) return acls;
  const lines: string[] = [];
  for (const { version, entries } of acls.value) {
    const [family, name] = KINDS[version];
    for (const [index, entry] of entries.entries()) {
      if (entry.flags !== null && entry.flags.mask >> FLAGS.length !== 0) {
        return fail(refuseEntry('Junos', entry, 'the TCP flags ecn and cwr'));
      }
      const head = `set firewall family ${family} filter ${name} term t${index + 1}`;
      for (const one of conditionsOf(version, entry)) lines.push(`${head} from ${one}`);
      lines.push(`${head} then ${entry.drops ? 'discard' : 'accept'}`);
    }
  }
  return succeed(`${lines.join('\n')}\n`);
}

function readFlags(text: string): AclEntry['flags'] {
  const names = /^"\((.*)\)"$/.exec(text)?.[1]?.split(' & ') ?? [];
  let value = 0;
  let mask = 0;
  for (const name of names) {
    const bit = FLAGS.indexOf(name.replace('!', ''));
    if (bit < 0) return null;
    mask |= 1 << bit;
    if (!name.startsWith('!')) value |= 1 << bit;
  }
  return mask === 0 ? null : { value, mask };
}

function readPorts(text: string): AclPorts | null {
  const [lo, hi = lo] = text.split('-').map(Number);
  return lo === undefined || hi === undefined || !/^\d+(-\d+)?$/.test(text) ? null : { lo, hi };
}

function readCondition(
  version: Acl['version'],
  name: string,
  text: string,
): Partial<AclEntry> | null {
  const [, , protocolName, dscpName] = KINDS[version];
  const number = /^\d+$/.test(text) ? Number(text) : null;
  const some = <K extends keyof AclEntry>(key: K, value: AclEntry[K] | null) =>
    value === null ? null : { [key]: value };
  switch (name) {
    case 'source-address':
      return some('saddr', parsePrefix(version, text));
    case 'destination-address':
      return some('daddr', parsePrefix(version, text));
    case protocolName:
      return some('protocol', number);
    case 'source-port':
      return some('sport', readPorts(text));
    case 'destination-port':
      return some('dport', readPorts(text));
    case 'tcp-flags':
      return some('flags', readFlags(text));
    case 'icmp-type':
      return some('type', number);
    case 'icmp-code':
      return some('code', number);
    case dscpName:
      return some('dscp', number);
    default:
      return name === 'fragment-offset' && text === '0' ? {} : null;
  }
}

const LINE = /^set firewall family (inet6?) filter \S+ term (\S+) (?:from (\S+) (.*)|then (\S+))$/;

/** The inverse of `writeJunos`; what no term accepts is discarded, as on the switch. */
export function readJunos(text: string, file: string): Result<readonly Acl[]> {
  const lists = { ip: new Map<string, AclEntry>(), ip6: new Map<string, AclEntry>() };
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const [, family, term = '', name, asked = '', then] = LINE.exec(line.trim()) ?? [];
    const version = family === 'inet' ? 'ip' : 'ip6';
    const old = lists[version].get(term) ?? { ...ANY_MATCH, drops: false, rules: [] };
    const isKnown = then === 'discard' || then === 'accept';
    const action = isKnown ? { drops: then === 'discard' } : null;
    const part = name === undefined ? action : readCondition(version, name, asked);
    if (family === undefined || part === null)
      return fail(refuseText(`line ${index + 1} is not understood`, file));
    lists[version].set(term, { ...old, ...part });
  }
  const denied: AclEntry = { ...ANY_MATCH, drops: true, rules: [] };
  const acls = (['ip', 'ip6'] as const).flatMap((version): Acl[] => {
    const entries = [...lists[version].values()];
    return entries.length === 0 ? [] : [{ version, entries: [...entries, denied] }];
  });
  return succeed(acls);
}
