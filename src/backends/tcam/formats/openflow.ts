import { fieldKey, META } from '../../../ir/fields.ts';
import { formatMac } from '../../../ir/print.ts';
import { ones } from '../../../support/bits.ts';
import {
  type Diagnostic,
  errorAt,
  fail,
  type Result,
  succeed,
} from '../../../support/diagnostics.ts';
import { layersOf } from '../layers.ts';
import {
  type Action,
  type Cell,
  cellsOf,
  type TableRow,
  type TableSet,
  type TcamTable,
} from '../table.ts';
import { refuseRow } from './refuse.ts';
import { formatIp, formatIp6 } from './text.ts';

/** ovs-ofctl(8), Flow Syntax: priorities are 0 to 65535, the highest wins. */
export const TOP_PRIORITY = 65_535;

/** include/uapi/linux/if_ether.h. */
export const ETHER_TYPES = { ip: 0x0800, arp: 0x0806, ipv6: 0x86dd } as const;
const { ip: ETH_P_IP, arp: ETH_P_ARP, ipv6: ETH_P_IPV6 } = ETHER_TYPES;

interface Spelling {
  readonly name: string;
  /** Whether ovs-fields(7) lets a bitwise mask stand beside the value. */
  readonly mask: boolean;
  readonly format: (value: bigint) => string;
}

const decimal = (value: bigint): string => value.toString();
const hexadecimal = (value: bigint): string => `0x${value.toString(16)}`;

function spelling(name: string, mask: boolean, format: (value: bigint) => string): Spelling {
  return { name, mask, format };
}

/** How ovs-fields(7) calls nft's fields. */
export const SPELLINGS: Readonly<Record<string, Spelling>> = {
  'ether saddr': spelling('dl_src', true, formatMac),
  'ether daddr': spelling('dl_dst', true, formatMac),
  'ip saddr': spelling('nw_src', true, formatIp),
  'ip daddr': spelling('nw_dst', true, formatIp),
  'ip dscp': spelling('ip_dscp', false, decimal),
  'ip ecn': spelling('nw_ecn', false, decimal),
  'ip ttl': spelling('nw_ttl', false, decimal),
  'ip6 saddr': spelling('ipv6_src', true, formatIp6),
  'ip6 daddr': spelling('ipv6_dst', true, formatIp6),
  'ip6 flowlabel': spelling('ipv6_label', true, hexadecimal),
  'ip6 dscp': spelling('ip_dscp', false, decimal),
  'ip6 ecn': spelling('nw_ecn', false, decimal),
  'ip6 hoplimit': spelling('nw_ttl', false, decimal),
  'meta l4proto': spelling('nw_proto', false, decimal),
  'icmp type': spelling('icmp_type', false, decimal),
  'icmp code': spelling('icmp_code', false, decimal),
  'icmpv6 type': spelling('icmpv6_type', false, decimal),
  'icmpv6 code': spelling('icmpv6_code', false, decimal),
  'tcp flags': spelling('tcp_flags', true, hexadecimal),
  'arp operation': spelling('arp_op', false, decimal),
  'arp saddr ip': spelling('arp_spa', true, formatIp),
  'arp daddr ip': spelling('arp_tpa', true, formatIp),
  'arp saddr ether': spelling('arp_sha', true, formatMac),
  'arp daddr ether': spelling('arp_tha', true, formatMac),
};

/** Ports are only understood together with their protocol. */
export const PORTS: ReadonlyMap<number, string> = new Map([
  [6, 'tcp'],
  [17, 'udp'],
  [132, 'sctp'],
]);

const PORT_NAMES: Readonly<Record<string, string>> = {
  'th sport': 'src',
  'th dport': 'dst',
  'tcp sport': 'src',
  'tcp dport': 'dst',
  'udp sport': 'src',
  'udp dport': 'dst',
};

/** A match under construction, or what OpenFlow cannot say of it. */
interface Match {
  readonly parts: string[];
  protocol: number | null;
  l4proto: number | null;
  problem: string | null;
}

function oneValue({ value, mask }: Cell, width: number): number | null {
  return mask === ones(width) ? Number(value) : null;
}

function addCell(match: Match, name: string, cell: Cell, bits: number): void {
  if (cell.range !== null) {
    match.problem = `a range of ${name}`;
    return;
  }
  if (cell.mask === 0n) return;
  const port = PORT_NAMES[name];
  const transport = match.l4proto === null ? undefined : PORTS.get(match.l4proto);
  if (port !== undefined && transport === undefined) {
    match.problem = `${name} of any protocol (give tcp, udp or sctp)`;
    return;
  }
  const known =
    port === undefined ? SPELLINGS[name] : spelling(`${transport}_${port}`, true, hexadecimal);
  if (known === undefined) {
    match.problem = name;
    return;
  }
  if (cell.mask === ones(bits)) match.parts.push(`${known.name}=${known.format(cell.value)}`);
  else if (known.mask)
    match.parts.push(`${known.name}=${known.format(cell.value)}/${known.format(cell.mask)}`);
  else match.problem = `a mask of ${name}`;
}

/** The protocol keyword that lets the other fields be looked at. */
function keyword(protocol: number | null, l4proto: number | null): string | null {
  if (protocol === null) return null;
  if (protocol === ETH_P_ARP) return 'arp';
  if (protocol !== ETH_P_IP && protocol !== ETH_P_IPV6) return `dl_type=0x${protocol.toString(16)}`;
  const suffix = protocol === ETH_P_IPV6 ? '6' : '';
  const name =
    l4proto === null ? undefined : (PORTS.get(l4proto) ?? { 1: 'icmp', 58: 'icmp' }[l4proto]);
  if (name === undefined) return protocol === ETH_P_IP ? 'ip' : 'ipv6';
  return (l4proto === 1) === (protocol === ETH_P_IP) || (l4proto !== 1 && l4proto !== 58)
    ? `${name}${suffix}`
    : null;
}

/** OVS sets bit 12 of vlan_tci for every frame that has a tag, ovs-fields(7). */
export const NO_TAG = 'vlan_tci=0x0000/0x1000';

function matchOf(table: TcamTable, cells: readonly Cell[]): Match {
  const { fixed, untagged, whole } = table.served;
  const match: Match = { parts: [], protocol: null, l4proto: null, problem: null };
  for (const { field, values } of fixed) {
    if (values.length > 1) match.problem = `one of several values of ${field.name}`;
    if (fieldKey(field) === META.protocol.name) match.protocol = values[0] ?? null;
    if (fieldKey(field) === META.l4proto.name) match.l4proto = values[0] ?? null;
  }
  let noTag = untagged;
  const rest: [string, Cell, number][] = [];
  for (const [index, { field, bits }] of table.columns.entries()) {
    const cell = cells[index];
    if (cell === undefined || (cell.mask === 0n && cell.range === null)) continue;
    const value = oneValue(cell, bits);
    const key = fieldKey(field);
    if (field.name === 'ether type' && value !== null) {
      match.protocol ??= value;
      if (match.protocol !== value) match.problem = 'ether type beside another meta protocol';
      noTag = true;
    } else if (key === META.protocol.name && value !== null) match.protocol = value;
    else if (
      key === META.l4proto.name &&
      value !== null &&
      keyword(match.protocol ?? ETH_P_IP, value) !== null &&
      PORTS.has(value)
    ) {
      match.l4proto = value;
    } else rest.push([field.name, cell, bits]);
  }
  const first = keyword(match.protocol, match.l4proto);
  if (first !== null) match.parts.push(first);
  if (noTag) match.parts.push(NO_TAG);
  const hasTransport = table.columns.some(({ field }) => field.base === 'th');
  if (whole) match.parts.push('ip_frag=no');
  else if (hasTransport) match.parts.push('ip_frag=not_later');
  for (const [name, cell, bits] of rest) addCell(match, name, cell, bits);
  return match;
}

/** Both ports of a cut header read as 0 (measured), so that value says nothing. */
function cutHeader(table: TcamTable): readonly string[] {
  const [protocol] = table.served.fixed.flatMap(({ field, values }) =>
    fieldKey(field) === META.l4proto.name ? values : [],
  );
  const name = protocol === undefined ? undefined : PORTS.get(protocol);
  if (name !== undefined) return [`${name}_src=0`, `${name}_dst=0`];
  if (protocol === 1) return ['icmp_type=0', 'icmp_code=0'];
  return protocol === 58 ? ['icmpv6_type=0', 'icmpv6_code=0'] : [];
}

/** What a row that decides does, as OpenFlow actions; `row` counts all rows and defaults in order. */
export type FlowActions = (action: Action, row: number) => string;

const PLAIN_ACTIONS: FlowActions = (action) => {
  if (action === 'trap') return 'controller';
  return action === 'drop' ? 'drop' : 'normal';
};

/**
 * Flows for `ovs-ofctl -O OpenFlow14 --bundle replace-flows`, highest priority first. Each of our
 * tables is an OpenFlow table; what one does not decide goes on to the next.
 */
export function writeOpenflow(
  { tables }: TableSet,
  actions: FlowActions = PLAIN_ACTIONS,
): Result<string> {
  const lines: string[] = [];
  const problems: Diagnostic[] = [];
  let number = 0;
  for (const [place, table] of tables.entries()) {
    const end: TableRow = { value: 0n, mask: 0n, ranges: [], action: table.default, rules: [] };
    const rows = [...table.rows, end];
    // Rows that are told apart must not share a priority even where they agree.
    const layers = layersOf({ ...table, rows }, actions === PLAIN_ACTIONS ? 'agreeing' : 'apart');
    const depth = layers.reduce((most, layer) => Math.max(most, layer + 1), 0);
    if (depth >= TOP_PRIORITY - 1) {
      const message = `OpenFlow has ${TOP_PRIORITY} priorities, table ${table.name} needs ${depth}`;
      return fail(errorAt('tcam/format', message, { help: 'use a profile that limits the rows' }));
    }
    const isLast = place === tables.length - 1;
    const act = (action: Action, row: number): string =>
      action === 'continue' && !isLast ? `goto_table:${place + 1}` : actions(action, row);
    const isFinal = table.default !== 'continue';
    const cut = isFinal ? [] : cutHeader(table);
    const all = matchOf(table, cellsOf(table.columns, end));
    if (cut.length > 0) {
      const head = [`table=${place}`, `priority=${TOP_PRIORITY}`, ...all.parts, ...cut];
      lines.push(`${head.join(',')},actions=${act('continue', -1)}`);
    }
    const flows: string[][] = Array.from({ length: depth }, () => []);
    for (const [index, row] of rows.entries()) {
      const match = matchOf(table, cellsOf(table.columns, row));
      if (match.problem === null) {
        const layer = layers[index] ?? 0;
        const head = [`table=${place}`, `priority=${TOP_PRIORITY - 1 - layer}`, ...match.parts];
        flows[layer]?.push(`${head.join(',')},actions=${act(row.action, number)}`);
      } else problems.push(refuseRow('OpenFlow', table, row, match.problem));
      number += 1;
    }
    lines.push(...flows.flat(), `table=${place},priority=0,actions=${act('continue', -1)}`);
  }
  if (problems.length > 0) return fail(...problems);
  if (tables.length === 0) lines.push(`table=0,priority=0,actions=${actions('continue', -1)}`);
  return succeed(`${lines.join('\n')}\n`);
}
