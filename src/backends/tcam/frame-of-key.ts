import { type Field, fieldKey, META } from '../../ir/fields.ts';
import { writeUint } from '../../support/bits.ts';
import type { Column, Layout } from './layout.ts';
import type { Served } from './table.ts';

const ETH_HLEN = 14;
const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;
/** Bytes behind the network header: more than any transport field that nft names. */
const BODY = 48;

/** The value of every column, out of a key as the proofs give it (words, then ranges). */
export function columnValues(key: Uint32Array, layout: Layout): readonly bigint[] {
  return layout.columns.map(({ bits }, index) => {
    const range = layout.rangeAt[index] ?? null;
    if (range !== null) return BigInt(key[layout.shape.words + range] ?? 0);
    const from = layout.bitAt[index] ?? 0;
    let value = 0n;
    for (let bit = from; bit < from + bits; bit += 1) {
      value = value * 2n + BigInt(((key[bit >>> 5] ?? 0) >>> (31 - (bit & 31))) & 1);
    }
    return value;
  });
}

/** Writes a field's bits into a frame. */
function putField(
  frame: Uint8Array,
  start: number,
  { offset, width }: Field,
  bits: number,
  value: bigint,
): void {
  const first = offset + width - bits;
  for (let bit = 0; bit < bits; bit += 1) {
    const at = start * 8 + first + bit;
    const mask = 0x80 >> (at & 7);
    const byte = frame[at >> 3] ?? 0;
    const isOne = ((value >> BigInt(bits - 1 - bit)) & 1n) === 1n;
    frame[at >> 3] = isOne ? byte | mask : byte & ~mask;
  }
}

function fixedValue(served: Served, field: Field): number | null {
  return served.fixed.find((one) => fieldKey(one.field) === fieldKey(field))?.values[0] ?? null;
}

/** The checksum of RFC 1071 over an IPv4 header whose own field is 0. */
export function checksum(frame: Uint8Array, from: number, length: number): number {
  let sum = 0;
  for (let at = from; at < from + length; at += 2)
    sum += (frame[at] ?? 0) * 256 + (frame[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum ^ 0xffff;
}

/**
 * A frame that has these values in a table's columns, otherwise as plain as can be: addresses of
 * nobody, a whole packet, the right lengths and IPv4 checksum.
 */
export function frameOfKey(
  columns: readonly Column[],
  values: readonly bigint[],
  served: Served,
): Uint8Array {
  const read = (field: Field): number | null => {
    const index = columns.findIndex((column) => fieldKey(column.field) === fieldKey(field));
    return index < 0 ? null : Number(values[index] ?? 0n);
  };
  const etherType = columns.findIndex(({ field }) => field.name === 'ether type');
  const outer = etherType < 0 ? null : Number(values[etherType] ?? 0n);
  const isTagged = outer === 0x8100 || outer === 0x88a8;
  const protocol = fixedValue(served, META.protocol) ?? read(META.protocol) ?? outer ?? ETH_P_IP;
  const nh = isTagged ? ETH_HLEN + 4 : ETH_HLEN;
  const header = protocol === ETH_P_IP ? 20 : protocol === ETH_P_IPV6 ? 40 : 0;
  const frame = new Uint8Array(nh + header + BODY);
  frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
  if (isTagged) frame.set([outer >> 8, outer & 0xff, 0, 0], 12);
  frame.set(writeUint(BigInt(protocol), 2), nh - 2);
  const l4proto = fixedValue(served, META.l4proto) ?? read(META.l4proto) ?? 255;
  if (protocol === ETH_P_IP) frame.set([0x45, 0, 0, 20 + BODY, 0, 0, 0, 0, 64, l4proto], nh);
  if (protocol === ETH_P_IPV6) frame.set([0x60, 0, 0, 0, 0, BODY, l4proto, 64], nh);
  const starts = { ll: 0, nh, th: nh + header };
  for (const [index, { field, bits }] of columns.entries()) {
    if (field.base === 'meta' || field.name === 'ether type') continue;
    putField(frame, starts[field.base], field, bits, values[index] ?? 0n);
  }
  if (protocol === ETH_P_IP) {
    frame.fill(0, nh + 10, nh + 12);
    frame.set(writeUint(BigInt(checksum(frame, nh, 20)), 2), nh + 10);
  }
  return frame;
}
