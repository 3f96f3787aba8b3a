import { META } from '../../../ir/fields.ts';
import { findMatchField } from '../../../profile/tcam-schema.ts';
import { parseIpv4, parseIpv6 } from '../../../support/addresses.ts';
import { ones } from '../../../support/bits.ts';
import { fail, type Result, succeed } from '../../../support/diagnostics.ts';
import { mixedPriority } from '../layers.ts';
import type { Column } from '../layout.ts';
import {
  type Action,
  type Cell,
  joinCells,
  type TableRow,
  type TableSet,
  type TcamTable,
} from '../table.ts';
import { refuseText } from './acl-text.ts';
import { ETHER_TYPES, NO_TAG, PORTS, SPELLINGS, TOP_PRIORITY } from './openflow.ts';

/** EtherType and, where it says one, transport protocol. */
type Keyword = readonly [etherType: number, l4proto: number | null];

/** What a keyword stands for, ovs-fields(7), "Field Specifications". */
const KEYWORDS: ReadonlyMap<string, readonly [etherType: number, l4proto: number | null]> = new Map<
  string,
  Keyword
>([
  ['ip', [ETHER_TYPES.ip, null]],
  ['ipv6', [ETHER_TYPES.ipv6, null]],
  ['arp', [ETHER_TYPES.arp, null]],
  ['icmp', [ETHER_TYPES.ip, 1]],
  ['icmp6', [ETHER_TYPES.ipv6, 58]],
  ...[...PORTS].flatMap(([l4proto, name]): [string, Keyword][] => [
    [name, [ETHER_TYPES.ip, l4proto]],
    [`${name}6`, [ETHER_TYPES.ipv6, l4proto]],
  ]),
]);

/** One flow, as far as a row is made of it. */
interface Flow {
  readonly table: number;
  readonly priority: number;
  readonly etherType: number | null;
  readonly l4proto: number | null;
  readonly noTag: boolean;
  /** Which fragments it is for; null: all. */
  readonly fragments: 'none' | 'first' | null;
  /** By nft's name, but for what the keywords say. */
  readonly asked: ReadonlyMap<string, Cell>;
  readonly actions: string;
}

function parseValue(text: string): bigint | null {
  if (/^(0x[0-9a-f]{1,32}|\d{1,20})$/i.test(text)) return BigInt(text);
  if (/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)) return BigInt(`0x${text.replaceAll(':', '')}`);
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

/** `VALUE` or `VALUE/MASK` of so many bits; a number behind an address may be a prefix length. */
function parseCell(text: string, bits: number): Cell | null {
  const [first = '', second, ...more] = text.split('/');
  const value = parseValue(first);
  const isLength = second !== undefined && /^\d{1,3}$/.test(second) && /[.:]/.test(first);
  const length = Number(second);
  if (isLength && length > bits) return null;
  const mask =
    second === undefined
      ? ones(bits)
      : isLength
        ? ones(bits) ^ ones(bits - length)
        : parseValue(second);
  if (value === null || mask === null || more.length > 0) return null;
  return mask <= ones(bits) && (value & ~mask) === 0n ? { value, mask, range: null } : null;
}

/** nft's name of a field of OpenFlow, in a flow of these protocols; null when there is none. */
function fieldName(name: string, etherType: number | null, l4proto: number | null): string | null {
  const transport = l4proto === null ? undefined : PORTS.get(l4proto);
  if (transport !== undefined && name === `${transport}_src`) return 'th sport';
  if (transport !== undefined && name === `${transport}_dst`) return 'th dport';
  const version = etherType === ETHER_TYPES.ipv6 ? 'ip6' : 'ip';
  const names = Object.entries(SPELLINGS).flatMap(([own, spelled]) =>
    spelled.name === name ? own : [],
  );
  return names.find((own) => names.length === 1 || own.startsWith(`${version} `)) ?? null;
}

interface Parts {
  etherType: number | null;
  l4proto: number | null;
  noTag: boolean;
  fragments: Flow['fragments'];
  readonly fields: (readonly [name: string, text: string])[];
}

/** Takes in one part of a match that is no field of a key; false when it is one. */
function readHead(parts: Parts, part: string): boolean {
  const keyword = KEYWORDS.get(part);
  if (keyword !== undefined) {
    parts.etherType = keyword[0];
    parts.l4proto = keyword[1];
  } else if (part === NO_TAG) parts.noTag = true;
  else if (part === 'ip_frag=no') parts.fragments = 'none';
  else if (part === 'ip_frag=not_later') parts.fragments = 'first';
  else if (/^dl_type=0x[0-9a-f]{1,4}$/.test(part)) parts.etherType = Number(part.slice(8));
  else return false;
  return true;
}

/** A line of `ovs-ofctl`'s form as a flow, or what is not understood of it. */
function readFlow(line: string): Flow | string {
  const [, match = '', actions = ''] = /^(.*),actions=(.+)$/.exec(line) ?? [];
  if (actions === '') return 'no actions';
  const parts: Parts = {
    etherType: null,
    l4proto: null,
    noTag: false,
    fragments: null,
    fields: [],
  };
  const numbers = new Map([
    ['table', 0],
    ['priority', 0x8000], // OFP_DEFAULT_PRIORITY, openflow.h
  ]);
  for (const part of match.split(',')) {
    if (readHead(parts, part)) continue;
    const [name = '', text] = part.split('=');
    if (text === undefined) return `${name} is not known`;
    if (!numbers.has(name)) parts.fields.push([name, text]);
    else if (/^\d{1,5}$/.test(text)) numbers.set(name, Number(text));
    else return `${name} cannot be ${text}`;
  }
  const asked = new Map<string, Cell>();
  for (const [name, text] of parts.fields) {
    if (name === 'nw_proto' && /^\d{1,3}$/.test(text)) {
      parts.l4proto = Number(text);
      continue;
    }
    const own = fieldName(name, parts.etherType, parts.l4proto);
    const field = own === null ? null : findMatchField(own);
    if (own === null || field === null) return `${name} is not known`;
    const cell = parseCell(text, field.width);
    if (cell === null) return `${name} cannot be ${text}`;
    asked.set(own, cell);
  }
  const [table = 0, priority = 0] = numbers.values();
  const { etherType, l4proto, noTag, fragments } = parts;
  return { table, priority, etherType, l4proto, noTag, fragments, asked, actions };
}

/** The one value that all flows have, or null. */
function common<T>(flows: readonly Flow[], read: (flow: Flow) => T | null): T | null {
  const [first] = flows;
  const value = first === undefined ? null : read(first);
  return flows.every((flow) => read(flow) === value) ? value : null;
}

function exactly(name: string, value: number): readonly [string, Cell] {
  const bits = findMatchField(name)?.width ?? 0;
  return [name, { value: BigInt(value), mask: ones(bits), range: null }];
}

/** Whether a flow only makes up for cut headers, whose fields the switch reads as 0. */
function isForCutHeaders({ priority, asked }: Flow): boolean {
  const fields = [...asked.values()];
  const isZero = fields.every(({ value }) => value === 0n);
  return priority === TOP_PRIORITY && fields.length === 2 && isZero;
}

/** What header fields flows of a transport protocol can ask for; of others, ports. */
const TRANSPORT: ReadonlyMap<number, readonly string[]> = new Map([
  [1, ['icmp type', 'icmp code']],
  [6, ['th sport', 'th dport', 'tcp flags']],
  [58, ['icmpv6 type', 'icmpv6 code']],
]);

/** Fields that the switch tells frames of a table apart by, asked for or not. */
function namesOf(
  etherType: number | null,
  l4proto: number | null,
  fragments: Flow['fragments'],
): readonly string[] {
  if (etherType !== ETHER_TYPES.ip && etherType !== ETHER_TYPES.ipv6) return [];
  const protocol = l4proto === null ? [META.l4proto.name] : [];
  // Later fragments have none of these.
  if (fragments === null) return protocol;
  return [...protocol, ...(TRANSPORT.get(l4proto ?? -1) ?? ['th sport', 'th dport'])];
}

/** What all flows of a table have in common, and which of the rest a row must ask for. */
function tableOf(
  place: number,
  flows: readonly Flow[],
  actionOf: (flow: Flow) => Action,
  pass: Action,
): TcamTable | string {
  const etherType = common(flows, (flow) => flow.etherType);
  const l4proto = etherType === null ? null : common(flows, (flow) => flow.l4proto);
  const untagged = etherType !== null && flows.every(({ noTag }) => noTag);
  const fragments = common(flows, (flow) => flow.fragments);
  if (fragments === null && flows.some((flow) => flow.fragments !== null)) {
    return 'only some flows leave fragments out';
  }
  const rows: { readonly asked: ReadonlyMap<string, Cell>; readonly action: Action }[] = [];
  for (const flow of flows) {
    const cells = new Map(flow.asked);
    const { etherType: own, noTag } = flow;
    if (noTag && own === null) return 'frames without a tag, of any protocol';
    if (own !== null && noTag && !untagged) cells.set(...exactly('ether type', own));
    else if (own !== null && etherType === null) cells.set(...exactly(META.protocol.name, own));
    if (flow.l4proto !== null && l4proto === null) {
      cells.set(...exactly(META.l4proto.name, flow.l4proto));
    }
    rows.push({ asked: cells, action: actionOf(flow) });
  }
  const asked = new Set(rows.flatMap((row) => [...row.asked.keys()]));
  const whole = fragments === 'none';
  const names = [...new Set([...namesOf(etherType, l4proto, fragments), ...asked])];
  const columns = names.flatMap((name): Column[] => {
    const field = findMatchField(name);
    return field === null ? [] : [{ field, bits: field.width, match: 'ternary', protocols: null }];
  });
  const none: Cell = { value: 0n, mask: 0n, range: null };
  const written = rows.map(
    ({ asked: cells, action }): TableRow => ({
      ...joinCells(
        columns,
        columns.map(({ field }) => cells.get(field.name) ?? none),
      ),
      action,
      rules: [],
    }),
  );
  const end = written.at(-1);
  const isDefault = end !== undefined && end.mask === 0n;
  const fixed = [
    ...(etherType === null ? [] : [{ field: META.protocol, values: [etherType] }]),
    ...(l4proto === null ? [] : [{ field: META.l4proto, values: [l4proto] }]),
  ];
  return {
    name: `table ${place}`,
    columns,
    served: { fixed, untagged, whole },
    rows: isDefault ? written.slice(0, -1) : written,
    default: isDefault ? end.action : pass,
  };
}

/** What a flow does; null when a row cannot say it. `goto_table` to the next one: it goes on. */
function actionOf({ actions }: Flow, next: number | null, pass: Action): Action | null {
  if (actions === 'drop') return 'drop';
  if (actions.toLowerCase() === 'controller') return 'trap';
  if (next !== null && actions === `goto_table:${next}`) return 'continue';
  // What passes here never comes to the tables behind.
  const isLast = next === null || pass === 'permit';
  return actions.toLowerCase() === 'normal' && isLast ? pass : null;
}

/**
 * The inverse of `writeOpenflow`: each OpenFlow table is one of ours. What stands before and behind the rows
 * only to hand frames on is left out.
 */
export function readOpenflow(text: string, file: string, pass: Action): Result<TableSet> {
  const byTable = new Map<number, Flow[]>();
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const flow = readFlow(line.trim());
    if (typeof flow === 'string') return fail(refuseText(`line ${index + 1}: ${flow}`, file));
    byTable.set(flow.table, [...(byTable.get(flow.table) ?? []), flow]);
  }
  const places = [...byTable.keys()].sort((a, b) => a - b);
  const tables: TcamTable[] = [];
  for (const [index, place] of places.entries()) {
    const refuse = (what: string) => fail(refuseText(`table ${place}: ${what}`, file));
    const flows = (byTable.get(place) ?? []).sort((a, b) => b.priority - a.priority);
    const next = places[index + 1] ?? null;
    const bad = flows.find((flow) => actionOf(flow, next, pass) === null);
    if (bad !== undefined) return refuse(`actions=${bad.actions} is not understood`);
    const act = (flow: Flow): Action => actionOf(flow, next, pass) ?? 'continue';
    const own = flows.filter((flow) => {
      const isOpen = flow.etherType === null && flow.asked.size === 0 && !flow.noTag;
      const handsOn = act(flow) !== 'drop';
      return !(handsOn && ((flow.priority === 0 && isOpen) || isForCutHeaders(flow)));
    });
    if (own.length === 0) continue;
    const table = tableOf(place, own, act, pass);
    if (typeof table === 'string') return refuse(table);
    // The last flow may have become the default.
    const end =
      table.rows.length === own.length
        ? []
        : [{ value: 0n, mask: 0n, ranges: [], action: table.default, rules: [] }];
    const priorities = own.map(({ priority }) => priority);
    const twice = mixedPriority({ ...table, rows: [...table.rows, ...end] }, priorities);
    if (twice !== null) {
      return refuse(`flows of priority ${twice} overlap and do not agree`);
    }
    tables.push(table);
  }
  return succeed({ profile: null, tables });
}
