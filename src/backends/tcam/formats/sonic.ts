import { z } from 'zod';
import { fail, type Result, succeed } from '../../../support/diagnostics.ts';
import type { TableSet } from '../table.ts';
import { type Acl, type AclEntry, type AclPorts, ANY_MATCH, aclsOf } from './acl.ts';
import { parsePrefix, refuseEntry, refuseText, spellPrefix } from './acl-text.ts';
import { parseJsonAs } from './text.ts';

/** aclorch of SONiC compares flags up to URG. */
const MOST_FLAGS = 0x3f;
/** sonic-acl.yang: IP_PROTOCOL is 1..143. */
const PROTOCOLS = { lo: 1, hi: 143 } as const;
/** sonic-acl.yang: PRIORITY is 0..999999, the highest wins. */
const TOP_PRIORITY = 999_999;

const KINDS = {
  ip: {
    ...{ table: 'NFT', type: 'NFT4', ipType: 'IPV4ANY', source: 'SRC_IP', destination: 'DST_IP' },
    ...{ icmpType: 'ICMP_TYPE', icmpCode: 'ICMP_CODE' },
  },
  ip6: {
    ...{ table: 'NFT6', type: 'NFT6', ipType: 'IPV6ANY' },
    ...{ source: 'SRC_IPV6', destination: 'DST_IPV6' },
    ...{ icmpType: 'ICMPV6_TYPE', icmpCode: 'ICMPV6_CODE' },
  },
} as const;

type Rule = Readonly<Record<string, string>>;

/** Ports as the YANG model takes them: its ranges cannot begin with 0. */
function portsOf(ports: AclPorts | null, side: 'SRC' | 'DST'): readonly Rule[] {
  if (ports === null || (ports.lo === 0 && ports.hi === 0xffff)) return [{}];
  const { lo, hi } = ports;
  if (lo === hi) return [{ [`L4_${side}_PORT`]: String(lo) }];
  if (lo === 0) return [...portsOf({ lo: 0, hi: 0 }, side), ...portsOf({ lo: 1, hi }, side)];
  return [{ [`L4_${side}_PORT_RANGE`]: `${lo}-${hi}` }];
}

/** What the model or the switch refuses, or null. */
function problemOf({ protocol, flags }: AclEntry): string | null {
  if (protocol !== null && (protocol < PROTOCOLS.lo || protocol > PROTOCOLS.hi)) {
    return `protocol ${protocol} (${PROTOCOLS.lo} to ${PROTOCOLS.hi})`;
  }
  return flags !== null && flags.mask > MOST_FLAGS ? 'the TCP flags ecn and cwr' : null;
}

function rulesOf(version: Acl['version'], entry: AclEntry): readonly Rule[] {
  const kind = KINDS[version];
  const { protocol, saddr, daddr, flags, type, code, dscp, drops } = entry;
  const hex = (value: number): string => `0x${value.toString(16).padStart(2, '0')}`;
  const rule: Rule = {
    PACKET_ACTION: drops ? 'DROP' : 'FORWARD',
    IP_TYPE: kind.ipType,
    ...(saddr.length === 0 ? {} : { [kind.source]: spellPrefix(version, saddr) }),
    ...(daddr.length === 0 ? {} : { [kind.destination]: spellPrefix(version, daddr) }),
    ...(protocol === null ? {} : { IP_PROTOCOL: String(protocol) }),
    ...(flags === null ? {} : { TCP_FLAGS: `${hex(flags.value)}/${hex(flags.mask)}` }),
    ...(type === null ? {} : { [kind.icmpType]: String(type) }),
    ...(code === null ? {} : { [kind.icmpCode]: String(code) }),
    ...(dscp === null ? {} : { DSCP: String(dscp) }),
  };
  return portsOf(entry.sport, 'SRC').flatMap((source) =>
    portsOf(entry.dport, 'DST').map((destination) => ({ ...rule, ...source, ...destination })),
  );
}

function matchesOf(version: Acl['version']): readonly string[] {
  const { source, destination, icmpType, icmpCode } = KINDS[version];
  const ports = ['L4_SRC_PORT', 'L4_DST_PORT', 'L4_SRC_PORT_RANGE', 'L4_DST_PORT_RANGE'];
  return [
    ...['IP_TYPE', source, destination, 'IP_PROTOCOL', ...ports],
    ...['TCP_FLAGS', icmpType, icmpCode, 'DSCP'],
  ];
}

/**
 * config_db.json with a table an IP version, not bound to ports yet (`ports` is empty). There is no
 * implicit deny: what no rule drops is forwarded.
 */
export function writeSonic(tables: TableSet): Result<string> {
  const acls = aclsOf('SONiC', tables);
  if (!acls.ok) return acls;
  const types: Record<string, unknown> = {};
  const lists: Record<string, unknown> = {};
  const lines: string[] = [];
  for (const { version, entries } of acls.value) {
    const { table, type } = KINDS[version];
    const problems = entries.flatMap((entry) => {
      const problem = problemOf(entry);
      return problem === null ? [] : refuseEntry('SONiC', entry, problem);
    });
    if (problems.length > 0) return fail(...problems);
    types[type] = {
      MATCHES: matchesOf(version),
      ACTIONS: ['PACKET_ACTION'],
      BIND_POINTS: ['PORT', 'PORTCHANNEL'],
    };
    lists[table] = { type, stage: 'ingress', ports: [] };
    const rules = entries.flatMap((entry) => rulesOf(version, entry));
    if (rules.length > TOP_PRIORITY)
      return fail(refuseText(`SONiC has ${TOP_PRIORITY} priorities`));
    for (const [index, rule] of rules.entries()) {
      const written = { PRIORITY: String(rules.length - index), ...rule };
      lines.push(`    ${JSON.stringify(`${table}|R${index + 1}`)}: ${JSON.stringify(written)}`);
    }
  }
  const parts = [
    `  "ACL_TABLE_TYPE": ${JSON.stringify(types)}`,
    `  "ACL_TABLE": ${JSON.stringify(lists)}`,
    `  "ACL_RULE": {\n${lines.join(',\n')}\n  }`,
  ];
  return succeed(`{\n${parts.join(',\n')}\n}\n`);
}

const fileSchema = z.object({
  ACL_TABLE: z.record(z.string(), z.object({ type: z.string() })),
  ACL_RULE: z.record(z.string(), z.record(z.string(), z.string())),
});

function number(text: string | undefined): number | null {
  return text === undefined ? null : Number(text);
}

function readPorts(rule: Rule, side: 'SRC' | 'DST'): AclPorts | null {
  const one = number(rule[`L4_${side}_PORT`]);
  if (one !== null) return { lo: one, hi: one };
  const [lo, hi] = (rule[`L4_${side}_PORT_RANGE`] ?? '').split('-').map(Number);
  return lo === undefined || hi === undefined ? null : { lo, hi };
}

function readRule(version: Acl['version'], rule: Rule): AclEntry | string {
  const kind = KINDS[version];
  const known = new Set([...matchesOf(version), 'PRIORITY', 'PACKET_ACTION']);
  const other = Object.keys(rule).find((key) => !known.has(key));
  if (other !== undefined) return `${other} is not understood`;
  const prefix = (key: string) => parsePrefix(version, rule[key] ?? '');
  const action = rule['PACKET_ACTION'];
  if (action !== 'DROP' && action !== 'FORWARD' && action !== 'ACCEPT') {
    return `PACKET_ACTION ${action ?? 'is missing'}`;
  }
  const saddr = rule[kind.source] === undefined ? ANY_MATCH.saddr : prefix(kind.source);
  const daddr = rule[kind.destination] === undefined ? ANY_MATCH.daddr : prefix(kind.destination);
  if (saddr === null || daddr === null) return 'an address is no prefix';
  const [value, mask = MOST_FLAGS] = (rule['TCP_FLAGS'] ?? '').split('/').map(Number);
  return {
    protocol: number(rule['IP_PROTOCOL']),
    saddr,
    daddr,
    sport: readPorts(rule, 'SRC'),
    dport: readPorts(rule, 'DST'),
    flags: rule['TCP_FLAGS'] === undefined || value === undefined ? null : { value, mask },
    type: number(rule[kind.icmpType]),
    code: number(rule[kind.icmpCode]),
    dscp: number(rule['DSCP']),
    drops: action === 'DROP',
    rules: [],
  };
}

/** The rules of a config_db.json whose tables are called as `writeSonic` calls them. */
export function readSonic(text: string, file: string): Result<readonly Acl[]> {
  const parsed = parseJsonAs(
    fileSchema,
    text,
    (message) => refuseText(message, file),
    () => 'no config_db.json with access lists',
  );
  if (!parsed.ok) return parsed;
  const { ACL_TABLE, ACL_RULE } = parsed.value;
  const acls: Acl[] = [];
  for (const version of ['ip', 'ip6'] as const) {
    const { table } = KINDS[version];
    if (ACL_TABLE[table] === undefined) continue;
    const rules = Object.entries(ACL_RULE).filter(([key]) => key.startsWith(`${table}|`));
    rules.sort(([, a], [, b]) => Number(b['PRIORITY']) - Number(a['PRIORITY']));
    const entries: AclEntry[] = [];
    for (const [key, rule] of rules) {
      const entry = readRule(version, rule);
      if (typeof entry === 'string') return fail(refuseText(`${key}: ${entry}`, file));
      entries.push(entry);
    }
    entries.push({ ...ANY_MATCH, drops: false, rules: [] });
    acls.push({ version, entries });
  }
  return succeed(acls);
}
