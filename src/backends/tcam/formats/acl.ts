import { fieldEnd, fieldKey, META } from '../../../ir/fields.ts';
import { findMatchField } from '../../../profile/tcam-schema.ts';
import { ones } from '../../../support/bits.ts';
import { type Diagnostic, fail, type Result, succeed } from '../../../support/diagnostics.ts';
import { idleRows, layersOf, mixedPriority } from '../layers.ts';
import type { Column } from '../layout.ts';
import {
  type Action,
  type Cell,
  cellsOf,
  joinCells,
  type TableRow,
  type TableSet,
  type TcamTable,
} from '../table.ts';
import { refuseRow } from './refuse.ts';
import { prefixLength } from './text.ts';

/** Addresses that agree with `value` in their first `length` bits; length 0: all. */
export interface AclPrefix {
  readonly value: bigint;
  readonly length: number;
}

/** Ports lo..hi, both included. */
export interface AclPorts {
  readonly lo: number;
  readonly hi: number;
}

export interface AclFlags {
  readonly value: number;
  readonly mask: number;
}

/** What one line of an access list asks; null: anything. */
export interface AclMatch {
  readonly protocol: number | null;
  readonly saddr: AclPrefix;
  readonly daddr: AclPrefix;
  readonly sport: AclPorts | null;
  readonly dport: AclPorts | null;
  readonly flags: AclFlags | null;
  readonly type: number | null;
  readonly code: number | null;
  readonly dscp: number | null;
}

export interface AclEntry extends AclMatch {
  readonly drops: boolean;
  readonly rules: readonly string[];
}

/** An access list for one IP version: first match decides, the last entry matches everything. */
export interface Acl {
  readonly version: 'ip' | 'ip6';
  readonly entries: readonly AclEntry[];
}

const ANYWHERE: AclPrefix = { value: 0n, length: 0 };
export const ANY_MATCH: AclMatch = {
  protocol: null,
  saddr: ANYWHERE,
  daddr: ANYWHERE,
  sport: null,
  dport: null,
  flags: null,
  type: null,
  code: null,
  dscp: null,
};

/** Transport protocols that every access list knows ports of: TCP and UDP. */
const PORT_PROTOCOLS: readonly (number | null)[] = [6, 17];
export const VERSIONS = { ip: 0x0800, ip6: 0x86dd } as const; // ETH_P_IP, ETH_P_IPV6
export const ICMP = { ip: 1, ip6: 58 } as const; // IANA protocol numbers
export const TCP = 6;

/** The prefix that a cell is, or null when its mask is none. */
function prefixOf({ value, mask }: Cell, bits: number): AclPrefix | null {
  const length = prefixLength(mask, bits);
  return length === null ? null : { value, length };
}

function portsOf({ value, mask, range }: Cell): AclPorts | null {
  if (range !== null) return { lo: range.lo, hi: range.hi };
  const length = prefixLength(mask, 16);
  if (length === null) return null;
  const lo = Number(value);
  return { lo, hi: lo + 2 ** (16 - length) - 1 };
}

function exactOf({ value, mask }: Cell, bits: number): number | null {
  return mask === ones(bits) ? Number(value) : null;
}

type Setter = (cell: Cell, bits: number) => Partial<AclMatch> | null;

function set<K extends keyof AclMatch>(
  name: K,
  read: (cell: Cell, bits: number) => AclMatch[K] | null,
): Setter {
  return (cell, bits) => {
    const value = read(cell, bits);
    return value === null ? null : { [name]: value };
  };
}

const saddr = set('saddr', prefixOf);
const daddr = set('daddr', prefixOf);
const sport = set('sport', portsOf);
const dport = set('dport', portsOf);
const dscp = set('dscp', exactOf);
const type = set('type', exactOf);
const code = set('code', exactOf);
const flags = set('flags', ({ value, mask }) => ({ value: Number(value), mask: Number(mask) }));

/** What access lists ask, by nft's names. */
const SETTERS: Readonly<Record<string, Setter>> = {
  'meta l4proto': set('protocol', exactOf),
  'ip saddr': saddr,
  'ip daddr': daddr,
  'ip6 saddr': saddr,
  'ip6 daddr': daddr,
  'ip dscp': dscp,
  'ip6 dscp': dscp,
  'th sport': sport,
  'th dport': dport,
  'tcp sport': sport,
  'tcp dport': dport,
  'udp sport': sport,
  'udp dport': dport,
  'tcp flags': flags,
  'icmp type': type,
  'icmp code': code,
  'icmpv6 type': type,
  'icmpv6 code': code,
};

/** A row as an entry of `match`'s protocol, or what cannot be said of it. */
function matchOf(table: TcamTable, row: TableRow, protocol: number | null): AclMatch | string {
  let match: AclMatch = { ...ANY_MATCH, protocol };
  const cells = cellsOf(table.columns, row);
  for (const [index, { field, bits }] of table.columns.entries()) {
    const cell = cells[index];
    if (cell === undefined || (cell.mask === 0n && cell.range === null)) continue;
    const setter = bits === field.width || field.name === 'tcp flags' ? SETTERS[field.name] : null;
    if (setter === null || setter === undefined) return field.name;
    const part = setter(cell, bits);
    if (part === null) return `this mask of ${field.name}`;
    match = { ...match, ...part };
  }
  const hasPorts = match.sport !== null || match.dport !== null;
  if (hasPorts && !PORT_PROTOCOLS.includes(match.protocol)) {
    return 'ports of other protocols than tcp and udp';
  }
  return match;
}

/** Bytes of network header that every packet has. */
const HEADER_BYTES = { ip: 20, ip6: 40 } as const;

/** A column that frames may lack: rows then do not hold for them, which no access list can say. */
function lackable({ columns }: TcamTable, version: Acl['version']): string | null {
  const column = columns.find(({ field }) => {
    if (field.base === 'nh') return fieldEnd(field) > HEADER_BYTES[version];
    return field.base === 'th' && SETTERS[field.name] === undefined;
  });
  return column?.field.name ?? null;
}

/** Protocols that a table's frames have; null: any. */
function protocolsOf({ served }: TcamTable): readonly (number | null)[] {
  const fixed = served.fixed.find(({ field }) => fieldKey(field) === META.l4proto.name);
  return fixed?.values ?? [null];
}

function isOf({ served }: TcamTable, etherType: number): boolean {
  return served.fixed.some(
    ({ field, values }) => fieldKey(field) === META.protocol.name && values.includes(etherType),
  );
}

/** Whether an entry asks nothing but, perhaps, a protocol. */
function isOpen(match: AclMatch): boolean {
  const { protocol: _, saddr: source, daddr: destination, ...rest } = match;
  const { sport: from, dport: to, flags: bits, type: kind, code: detail, dscp: tos } = rest;
  const asked = [from, to, bits, kind, detail, tos];
  return source.length + destination.length === 0 && asked.every((one) => one === null);
}

/** Rows of a version's tables one behind the other: a later table continues what an earlier serves. */
function aclOf(
  format: string,
  version: Acl['version'],
  tables: readonly TcamTable[],
  problems: Diagnostic[],
): Acl {
  const entries: AclEntry[] = [];
  // Protocols of which nothing is left to decide.
  const decided = new Set<number | null>();
  const refuse = (table: TcamTable, row: TableRow, what: string): void =>
    void problems.push(refuseRow(format, table, row, what));
  for (const table of tables) {
    const end: TableRow = { value: 0n, mask: 0n, ranges: [], action: table.default, rules: [] };
    const missing = lackable(table, version);
    if (missing !== null) refuse(table, table.rows[0] ?? end, missing);
    for (const row of [...table.rows, end]) {
      if (row.action === 'trap') refuse(table, row, 'what goes to the CPU');
      for (const protocol of protocolsOf(table)) {
        const match = matchOf(table, row, protocol);
        if (typeof match === 'string') refuse(table, row, match);
        else if (!decided.has(match.protocol)) {
          entries.push({ ...match, drops: row.action === 'drop', rules: row.rules });
          if (isOpen(match)) decided.add(match.protocol);
        }
      }
    }
  }
  if (!decided.has(null)) entries.push({ ...ANY_MATCH, drops: false, rules: [] });
  return { version, entries };
}

/**
 * Tables as access lists: prefixes, ranges of ports, TCP flags, ICMP types. What such a list cannot
 * ask is refused with its rule. Frames of other kinds must be left alone.
 */
export function aclsOf(format: string, { tables }: TableSet): Result<readonly Acl[]> {
  const problems: Diagnostic[] = [];
  const acls = (['ip', 'ip6'] as const).flatMap((version) => {
    const own = tables.filter((table) => isOf(table, VERSIONS[version]));
    return own.length === 0 ? [] : [aclOf(format, version, own, problems)];
  });
  for (const table of tables) {
    if (isOf(table, VERSIONS.ip) || isOf(table, VERSIONS.ip6)) continue;
    const end = { value: 0n, mask: 0n, ranges: [], action: table.default, rules: [] };
    const bad = [...table.rows, end].find(({ action }) => action === 'drop');
    if (bad !== undefined) problems.push(refuseRow(format, table, bad, 'frames that are not IP'));
  }
  return problems.length > 0 ? fail(...problems) : succeed(acls);
}

/** Fields of a table's key for an entry, in nft's names, and what it asks of each. */
function fieldsOf(version: Acl['version'], entry: AclMatch): readonly (readonly [string, Cell])[] {
  const asked: (readonly [string, Cell])[] = [];
  const put = (name: string, value: bigint, mask: bigint): void =>
    void asked.push([name, { value, mask, range: null }]);
  const exact = (name: string, value: number | null, bits: number): void => {
    if (value !== null) put(name, BigInt(value), ones(bits));
  };
  const width = version === 'ip' ? 32 : 128;
  for (const side of ['saddr', 'daddr'] as const) {
    const { value, length } = entry[side];
    if (length > 0) put(`${version} ${side}`, value, ones(width) ^ ones(width - length));
  }
  for (const side of ['sport', 'dport'] as const) {
    const ports = entry[side];
    if (ports === null || (ports.lo === 0 && ports.hi === 0xffff)) continue;
    const range = { column: -1, ...ports };
    asked.push([`th ${side}`, { value: 0n, mask: 0n, range }]);
  }
  if (entry.flags !== null) put('tcp flags', BigInt(entry.flags.value), BigInt(entry.flags.mask));
  const icmp = version === 'ip' ? 'icmp' : 'icmpv6';
  exact(`${icmp} type`, entry.type, 8);
  exact(`${icmp} code`, entry.code, 8);
  exact(`${version} dscp`, entry.dscp, 6);
  return asked;
}

/** Entries of one protocol (null: of all but `special`) as a table. */
function tableOf(
  { version, entries }: Acl,
  protocol: number | null,
  special: readonly number[],
  pass: Action,
): TcamTable {
  const own = entries.filter((entry) =>
    protocol === null
      ? entry.protocol === null || !special.includes(entry.protocol)
      : entry.protocol === null || entry.protocol === protocol,
  );
  const asked = own.map((entry) => {
    const fields = fieldsOf(version, entry);
    const l4proto = { value: BigInt(entry.protocol ?? 0), mask: 0xffn, range: null };
    const isAsked = protocol === null && entry.protocol !== null;
    return new Map<string, Cell>(isAsked ? [['meta l4proto', l4proto], ...fields] : fields);
  });
  const names = new Set(asked.flatMap((fields) => [...fields.keys()]));
  if (protocol === null && special.length > 0) names.add('meta l4proto');
  const columns = [...names].map((name): Column => {
    const field = findMatchField(name);
    if (field === null) throw new Error(`bug: nft has no field ${name}`);
    return { field, bits: field.width, match: 'ternary', protocols: null };
  });
  const none: Cell = { value: 0n, mask: 0n, range: null };
  const rowOf = (fields: ReadonlyMap<string, Cell>) =>
    joinCells(
      columns,
      columns.map(({ field }, column) => {
        const cell = fields.get(field.name) ?? none;
        return cell.range === null ? cell : { ...cell, range: { ...cell.range, column } };
      }),
    );
  const guards = (protocol === null ? special : []).map((value): TableRow => {
    const cell = { value: BigInt(value), mask: 0xffn, range: null };
    return { ...rowOf(new Map([['meta l4proto', cell]])), action: pass, rules: [] };
  });
  const rows = own.map(
    ({ drops, rules }, index): TableRow => ({
      ...rowOf(asked[index] ?? new Map()),
      action: drops ? 'drop' : pass,
      rules,
    }),
  );
  const name = `${version === 'ip' ? 'ipv4' : 'ipv6'}${protocol === null ? '' : `-${protocol}`}`;
  const fixed = [
    { field: META.protocol, values: [VERSIONS[version]] },
    ...(protocol === null ? [] : [{ field: META.l4proto, values: [protocol] }]),
  ];
  const served = { fixed, untagged: false, whole: false };
  return { name, columns, served, rows: [...guards, ...rows], default: pass };
}

/**
 * Access lists as tables again, for proofs: one for each protocol of which more than ports is asked,
 * and one for all others. `pass` is what entries do that do not drop.
 */
export function tablesOf(acls: readonly Acl[], pass: Action): TableSet {
  const tables = acls.flatMap((acl) => {
    const icmp = ICMP[acl.version];
    const special = [
      ...(acl.entries.some((entry) => entry.flags !== null) ? [TCP] : []),
      ...(acl.entries.some((entry) => entry.type !== null || entry.code !== null) ? [icmp] : []),
    ].sort((a, b) => a - b);
    return [...special, null].map((protocol) => tableOf(acl, protocol, special, pass));
  });
  return { profile: null, tables };
}

/** An entry as a format has it whose lines have priorities, the lowest first. */
export interface NumberedEntry {
  readonly version: Acl['version'];
  readonly priority: number;
  readonly entry: AclEntry;
}

/** The entries of a list that have to be written where what no entry matches passes anyway. */
export function neededEntries({ version, entries }: Acl): readonly AclEntry[] {
  const last = entries.at(-1);
  if (last === undefined || last.drops) return entries;
  const idle = idleRows(rowsOf(version, entries));
  return entries.filter((_, at) => !idle.has(at));
}

/** Entries in order as rows that lie in layers; see `layersOf`. */
function rowsOf(version: Acl['version'], entries: readonly AclEntry[]) {
  return tableOf({ version, entries }, null, [], 'continue');
}

/** For every entry its layer, 0 the first to be asked: entries of one layer may be in any order. */
export function layersOfEntries(
  version: Acl['version'],
  entries: readonly AclEntry[],
): readonly number[] {
  return layersOf(rowsOf(version, entries));
}

/**
 * Numbered entries as access lists, behind which everything passes. The number that two entries of
 * one list have which overlap and do not agree, since which of them comes first is then the device's to say.
 */
export function aclsByPriority(found: readonly NumberedEntry[]): readonly Acl[] | number {
  const acls: Acl[] = [];
  for (const version of ['ip', 'ip6'] as const) {
    const own = found
      .filter((one) => one.version === version)
      .sort((a, b) => a.priority - b.priority);
    const entries = own.map(({ entry }) => entry);
    const priorities = own.map(({ priority }) => priority);
    const twice = mixedPriority(rowsOf(version, entries), priorities);
    if (twice !== null) return twice;
    const last = { ...ANY_MATCH, drops: false, rules: [] };
    if (own.length > 0) acls.push({ version, entries: [...entries, last] });
  }
  return acls;
}
