import { type Field, FRAME, fieldEnd, fieldKey, findProtocol, META } from '../../ir/fields.ts';
import type { Packet } from '../../ir/packet.ts';
import { ones, readUint } from '../../support/bits.ts';
import type { Column } from './layout.ts';
import { type Action, bitsBehind, type TableSet, type TcamTable } from './table.ts';

/** What a set of tables does with a frame. */
export interface Decided {
  readonly action: Action;
  /** Places of the table and the row that decided; null when no table serves the frame. */
  readonly table: number | null;
  /** Null: the table's default. */
  readonly row: number | null;
}

/** The transport protocol that a field's name speaks of, or null. */
export function namedProtocol(field: Field): number | null {
  const needs = findProtocol(field.name.split(' ')[0] ?? '')?.needs;
  return needs?.kind === 'transport' ? needs.protocol : null;
}

const META_VALUES: Readonly<Record<string, (packet: Packet) => number | null>> = {
  [META.protocol.name]: ({ ingress }) => ingress.protocol,
  [META.nfproto.name]: ({ ingress }) => ingress.nfproto,
  [META.l4proto.name]: ({ ingress }) => ingress.l4proto,
  [FRAME.tags.name]: ({ tags }) => tags,
};

/** End of the bytes a device can look at: of the IP packet where there is one, else of the frame. */
function endOf(packet: Packet): number {
  if (packet.l3 === null) return packet.frame.length;
  return packet.ingress.network + packet.l3.length;
}

/** A field of a frame; null when the frame does not have it. */
export function loadField(field: Field, packet: Packet): bigint | null {
  if (field.base === 'meta') {
    const value = META_VALUES[fieldKey(field)]?.(packet) ?? null;
    return value === null ? null : BigInt(value);
  }
  const { ingress } = packet;
  if (field.base === 'th' && ingress.fragment === 'later') return null;
  const start = { ll: 0, nh: ingress.network, th: ingress.transport }[field.base];
  const end = field.base === 'll' ? packet.frame.length : endOf(packet);
  if (start === null || start + fieldEnd(field) > end) return null;
  const first = Math.floor(field.offset / 8);
  const bytes = fieldEnd(field) - first;
  const loaded = readUint(ingress.frame, start + first, bytes);
  const below = BigInt(fieldEnd(field) * 8 - field.offset - field.width);
  return (loaded >> below) & ones(field.width);
}

/** Whether frames of this kind have a column at all; what they lack reads as 0. */
function hasColumn({ field, protocols }: Column, packet: Packet): boolean {
  if (field.base !== 'th' || protocols === null) return true;
  const { l4proto } = packet.ingress;
  return l4proto !== null && protocols.has(l4proto);
}

/** The frame's key in a table, or null when the table does not serve it. */
export function keyOf(table: TcamTable, packet: Packet): bigint | null {
  if (packet.odd !== null) return null;
  const { fixed, untagged, whole } = table.served;
  if (untagged && packet.tags !== 0) return null;
  if (whole && packet.fragment !== 'whole') return null;
  for (const { field, values } of fixed) {
    const value = loadField(field, packet);
    if (value === null || !values.includes(Number(value))) return null;
  }
  let key = 0n;
  for (const column of table.columns) {
    const value = hasColumn(column, packet) ? loadField(column.field, packet) : 0n;
    if (value === null) return null;
    key = (key << BigInt(column.bits)) | (value & ones(column.bits));
  }
  return key;
}

function matches(
  table: TcamTable,
  row: TcamTable['rows'][number],
  key: bigint,
  behind: readonly number[],
): boolean {
  if (((key ^ row.value) & row.mask) !== 0n) return false;
  return row.ranges.every(({ column, lo, hi }) => {
    const bits = table.columns[column]?.bits ?? 0;
    const value = Number((key >> BigInt(behind[column] ?? 0)) & ones(bits));
    return value >= lo && value <= hi;
  });
}

/** The reference meaning of tables: a frame goes through those that serve it until one decides. */
export function interpretTables({ tables }: TableSet, packet: Packet): Decided {
  let last: Decided = { action: 'continue', table: null, row: null };
  for (const [place, table] of tables.entries()) {
    const key = keyOf(table, packet);
    if (key === null) continue;
    const behind = bitsBehind(table.columns);
    const row = table.rows.findIndex((one) => matches(table, one, key, behind));
    const action = table.rows[row]?.action ?? table.default;
    last = { action, table: place, row: row < 0 ? null : row };
    if (action !== 'continue') return last;
  }
  return last;
}
