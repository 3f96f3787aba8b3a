import { z } from 'zod';
import { type Diagnostic, fail, type Result, succeed } from '../../../support/diagnostics.ts';
import type { TableSet } from '../table.ts';
import { type Acl, type AclEntry, type AclPorts, ANY_MATCH, aclsOf } from './acl.ts';
import { parsePrefix, refuseEntry, refuseText, spellPrefix } from './acl-text.ts';
import { parseJsonAs } from './text.ts';

const TYPES = 'openconfig-packet-match-types';
/** Flags from the lowest bit on: RFC 9293 section 3.1, identities of openconfig-packet-match-types. */
const FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'];
const KINDS = { ip: ['ACL_IPV4', 'ipv4', 'NFT'], ip6: ['ACL_IPV6', 'ipv6', 'NFT6'] } as const;
/** openconfig-packet-match-types, ip-protocol-type: 0..254. */
const TOP_PROTOCOL = 254;
/** Sequence numbers are uint32 and ascend; there is room between them for rows by hand. */
const STEP = 10;

/** What the models have no leaf for, or null. */
function problemOf({ protocol, flags, type, code }: AclEntry): string | null {
  if (protocol !== null && protocol > TOP_PROTOCOL) return `protocol ${protocol}`;
  if (flags !== null && flags.value !== flags.mask) {
    return 'TCP flags that must be clear (its list only has flags that must be set)';
  }
  return type !== null || code !== null ? 'ICMP types by number' : null;
}

function spellPorts({ lo, hi }: AclPorts): number | string {
  return lo === hi ? lo : `${lo}..${hi}`;
}

function entryOf(version: Acl['version'], entry: AclEntry, sequence: number): unknown {
  const { protocol, saddr, daddr, sport, dport, flags, dscp, drops } = entry;
  const ip = {
    ...(saddr.length === 0 ? {} : { 'source-address': spellPrefix(version, saddr) }),
    ...(daddr.length === 0 ? {} : { 'destination-address': spellPrefix(version, daddr) }),
    ...(dscp === null ? {} : { dscp }),
    ...(protocol === null ? {} : { protocol }),
  };
  const names = FLAGS.filter((_, bit) => flags !== null && ((flags.mask >> bit) & 1) === 1);
  const transport = {
    ...(sport === null ? {} : { 'source-port': spellPorts(sport) }),
    ...(dport === null ? {} : { 'destination-port': spellPorts(dport) }),
    ...(flags === null
      ? {}
      : {
          'detail-mode': 'EXPLICIT',
          'explicit-detail-match-mode': 'ALL',
          'explicit-tcp-flags': names.map((name) => `${TYPES}:TCP_${name}`),
        }),
  };
  const config = (name: string, leaves: object): object =>
    Object.keys(leaves).length === 0 ? {} : { [name]: { config: leaves } };
  return {
    'sequence-id': sequence,
    config: { 'sequence-id': sequence },
    ...config(KINDS[version][1], ip),
    ...config('transport', transport),
    actions: { config: { 'forwarding-action': drops ? 'DROP' : 'ACCEPT' } },
  };
}

/** The ACL part of an OpenConfig configuration, RFC 7951 JSON; its last entry matches everything. */
export function writeOpenconfig(tables: TableSet): Result<string> {
  const acls = aclsOf('OpenConfig', tables);
  if (!acls.ok) return acls;
  const problems: Diagnostic[] = [];
  const sets = acls.value.map(({ version, entries }) => {
    const [type, , name] = KINDS[version];
    for (const entry of entries) {
      const problem = problemOf(entry);
      if (problem !== null) problems.push(refuseEntry('OpenConfig', entry, problem));
    }
    const list = entries.map((entry, index) => entryOf(version, entry, (index + 1) * STEP));
    return { name, type, config: { name, type }, 'acl-entries': { 'acl-entry': list } };
  });
  if (problems.length > 0) return fail(...problems);
  const root = { 'openconfig-acl:acl': { 'acl-sets': { 'acl-set': sets } } };
  return succeed(`${JSON.stringify(root, null, 1)}\n`);
}

const port = z.union([z.int().min(0).max(0xffff), z.string().regex(/^\d+\.\.\d+$/)]);
const ipLeaves = z
  .strictObject({
    'source-address': z.string().optional(),
    'destination-address': z.string().optional(),
    dscp: z.int().optional(),
    protocol: z.int().optional(),
  })
  .default({});
const container = z.strictObject({ config: ipLeaves }).default({ config: {} });
const entrySchema = z.strictObject({
  'sequence-id': z.int(),
  config: z.object({}).loose(),
  ipv4: container,
  ipv6: container,
  transport: z
    .strictObject({
      config: z.strictObject({
        'source-port': port.optional(),
        'destination-port': port.optional(),
        'detail-mode': z.literal('EXPLICIT').optional(),
        'explicit-detail-match-mode': z.literal('ALL').optional(),
        'explicit-tcp-flags': z.array(z.string()).optional(),
      }),
    })
    .default({ config: {} }),
  actions: z.object({
    config: z.object({ 'forwarding-action': z.enum(['ACCEPT', 'DROP', 'REJECT']) }),
  }),
});
const fileSchema = z.object({
  'openconfig-acl:acl': z.object({
    'acl-sets': z.object({
      'acl-set': z.array(
        z.object({
          type: z.enum(['ACL_IPV4', 'ACL_IPV6']),
          'acl-entries': z.object({ 'acl-entry': z.array(entrySchema) }),
        }),
      ),
    }),
  }),
});

function readPorts(ports: z.output<typeof port> | undefined): AclPorts | null {
  if (ports === undefined) return null;
  if (typeof ports === 'number') return { lo: ports, hi: ports };
  const [lo = 0, hi = 0] = ports.split('..').map(Number);
  return { lo, hi };
}

function readEntry(
  version: Acl['version'],
  entry: z.output<typeof entrySchema>,
): AclEntry | string {
  const ip = entry[KINDS[version][1]].config;
  const leaves = entry.transport.config;
  const prefix = (text: string | undefined) =>
    text === undefined ? ANY_MATCH.saddr : parsePrefix(version, text);
  const saddr = prefix(ip['source-address']);
  const daddr = prefix(ip['destination-address']);
  if (saddr === null || daddr === null) return 'an address is no prefix';
  const bits = (leaves['explicit-tcp-flags'] ?? []).map((name) =>
    FLAGS.indexOf(name.replace(/^.*TCP_/, '')),
  );
  if (bits.includes(-1)) return 'a TCP flag is not known';
  const mask = bits.reduce((sum, bit) => sum | (1 << bit), 0);
  return {
    ...ANY_MATCH,
    protocol: ip.protocol ?? null,
    saddr,
    daddr,
    sport: readPorts(leaves['source-port']),
    dport: readPorts(leaves['destination-port']),
    flags: mask === 0 ? null : { value: mask, mask },
    dscp: ip.dscp ?? null,
    drops: entry.actions.config['forwarding-action'] !== 'ACCEPT',
    rules: [],
  };
}

/** The inverse of `writeOpenconfig`. */
export function readOpenconfig(text: string, file: string): Result<readonly Acl[]> {
  const parsed = parseJsonAs(fileSchema, text, (message) => refuseText(message, file));
  if (!parsed.ok) return parsed;
  const acls: Acl[] = [];
  for (const set of parsed.value['openconfig-acl:acl']['acl-sets']['acl-set']) {
    const version = set.type === 'ACL_IPV4' ? 'ip' : 'ip6';
    const list = [...set['acl-entries']['acl-entry']];
    list.sort((a, b) => a['sequence-id'] - b['sequence-id']);
    const entries: AclEntry[] = [];
    for (const one of list) {
      const entry = readEntry(version, one);
      if (typeof entry === 'string')
        return fail(refuseText(`entry ${one['sequence-id']}: ${entry}`, file));
      entries.push(entry);
    }
    acls.push({ version, entries });
  }
  return succeed(acls);
}
