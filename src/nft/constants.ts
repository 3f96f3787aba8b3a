import type { Field } from '../ir/fields.ts';
import { parseIpv4, parseIpv6 } from '../support/addresses.ts';
import { ones } from '../support/bits.ts';
import { isObject, member, numberMember, soleEntry } from './json.ts';
import { findSymbol } from './symbols.ts';

/** An inclusive interval of a field's values; `lo === hi` is one value. */
export interface Interval {
  readonly lo: bigint;
  readonly hi: bigint;
}

// IFNAMSIZ of include/uapi/linux/if.h.
const INTERFACE_NAME_BYTES = 16;

/** Whether the field holds an interface name as 16 left-aligned bytes. */
export function isInterfaceField(field: Field): boolean {
  return field.base === 'meta' && /^meta [io]if(name)?$/.test(field.name);
}

/** An interface name as nft compares it: 16 bytes, left-aligned; null when it does not fit. */
export function encodeInterfaceName(name: string): bigint | null {
  const encoded = Buffer.from(name, 'utf8');
  if (encoded.length === 0 || encoded.length >= INTERFACE_NAME_BYTES) return null;
  let value = 0n;
  for (let index = 0; index < INTERFACE_NAME_BYTES; index += 1) {
    value = (value << 8n) | BigInt(encoded[index] ?? 0);
  }
  return value;
}

function parseMac(text: string): bigint | null {
  if (!/^[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}$/.test(text)) return null;
  return BigInt(
    `0x${text
      .split(':')
      .map((octet) => octet.padStart(2, '0'))
      .join('')}`,
  );
}

function parseWord(field: Field, text: string): bigint | null {
  if (isInterfaceField(field)) return encodeInterfaceName(text.replaceAll('\\*', '*'));
  if (/^(0x[0-9a-fA-F]+|\d+)$/.test(text)) return BigInt(text);
  if (field.name === 'meta priority') {
    // A traffic control handle, major:minor, both hexadecimal.
    const handle = /^([0-9a-fA-F]{0,4}):([0-9a-fA-F]{0,4})$/.exec(text);
    if (handle !== null) return (BigInt(`0x0${handle[1]}`) << 16n) | BigInt(`0x0${handle[2]}`);
  }
  const width: number = field.width;
  if (width === 32 && text.includes('.')) return parseIpv4(text);
  if (width === 48 && text.includes(':')) return parseMac(text);
  if (width === 128 && text.includes(':')) return parseIpv6(text);
  const symbol = findSymbol(field, text);
  return symbol === null ? null : BigInt(symbol);
}

function combine(
  field: Field,
  parts: readonly unknown[],
  join: (a: bigint, b: bigint) => bigint,
): bigint | null {
  let result: bigint | null = null;
  for (const part of parts) {
    const value = parseConstant(field, part);
    if (value === null) return null;
    result = result === null ? value : join(result, value);
  }
  return result;
}

/**
 * The plain integer a constant stands for when it is compared with `field`; lists are flags. Null when
 * it is not a constant, not known, or a number that JSON could not carry exactly.
 */
export function parseConstant(field: Field, value: unknown): bigint | null {
  if (typeof value === 'number') {
    if (isInterfaceField(field)) return null;
    return Number.isSafeInteger(value) && value >= 0 ? BigInt(value) : null;
  }
  if (typeof value === 'boolean') return value ? 1n : 0n;
  if (typeof value === 'string') return parseWord(field, value);
  if (Array.isArray(value)) return combine(field, value, (a, b) => a | b);
  const entry = soleEntry(value);
  if (entry === null || !Array.isArray(entry[1])) return null;
  switch (entry[0]) {
    case '|':
      return combine(field, entry[1], (a, b) => a | b);
    case '&':
      return combine(field, entry[1], (a, b) => a & b);
    case '^':
      return combine(field, entry[1], (a, b) => a ^ b);
    case '<<':
      return combine(field, entry[1], (a, b) => (b > 128n ? 0n : a << b));
    case '>>':
      return combine(field, entry[1], (a, b) => a >> b);
    default:
      return null;
  }
}

/** The leading-ones mask of a prefix length, or null when it is longer than the field. */
export function prefixMask(width: number, length: number | null): bigint | null {
  if (length === null || !Number.isInteger(length) || length < 0 || length > width) return null;
  return ones(width) ^ ones(width - length);
}

function parsePrefix(field: Field, body: unknown): Interval | null {
  if (!isObject(body)) return null;
  const address = parseConstant(field, member(body, 'addr'));
  const mask = prefixMask(field.width, numberMember(body, 'len'));
  if (address === null || mask === null) return null;
  const lo = address & mask;
  return { lo, hi: lo | (ones(field.width) ^ mask) };
}

/** `"eth*"`: every name with these leading bytes; null when the text has no wildcard. */
export function parseWildcard(field: Field, value: unknown): Interval | null {
  if (typeof value !== 'string' || !isInterfaceField(field)) return null;
  if (!value.endsWith('*') || value.endsWith('\\*')) return null;
  const stem = value.slice(0, -1);
  const lo = stem === '' ? 0n : encodeInterfaceName(stem);
  if (lo === null) return null;
  return { lo, hi: lo | ones((INTERFACE_NAME_BYTES - Buffer.byteLength(stem)) * 8) };
}

/** The values a set element, a range, a prefix or a constant covers; null when it cannot be read. */
export function parseInterval(field: Field, value: unknown): Interval | null {
  if (isObject(value)) {
    if ('prefix' in value) return parsePrefix(field, member(value, 'prefix'));
    if ('range' in value) {
      const range = member(value, 'range');
      if (!Array.isArray(range) || range.length !== 2) return null;
      const lo = parseConstant(field, range[0]);
      const hi = parseConstant(field, range[1]);
      return lo === null || hi === null || lo > hi ? null : { lo, hi };
    }
  }
  const wild = parseWildcard(field, value);
  if (wild !== null) return wild;
  const exact = parseConstant(field, value);
  return exact === null ? null : { lo: exact, hi: exact };
}
