import type { Field } from '../../src/ir/fields.ts';
import { ones, writeUint } from '../../src/support/bits.ts';
import { formatIp, formatIp6 } from './addresses.ts';

/** Values worth asking about one field: two in order, with room below, between and above. */
export interface FieldSample {
  readonly low: bigint;
  readonly high: bigint;
}

export function sampleOf({ width }: Pick<Field, 'width'>): FieldSample {
  if (width === 1) return { low: 0n, high: 1n };
  const low = ones(width) / 5n;
  return { low, high: low + ones(width) / 3n };
}

/** What frames should have in the field. */
export function valuesAround(field: Field): readonly bigint[] {
  const { low, high } = sampleOf(field);
  const top = ones(field.width);
  const all = [0n, low - 1n, low, low + 1n, high - 1n, high, high + 1n, top - 1n, top];
  return [...new Set(all.filter((value) => value >= 0n && value <= top))];
}

function formatValue({ name, width }: Field, value: bigint): string {
  const isAddress = /addr/.test(name);
  if (width === 48) return [...writeUint(value, 6)].map(hexByte).join(':');
  if (isAddress && width === 32) return formatIp(writeUint(value, 4));
  if (isAddress && width === 128) return formatIp6(writeUint(value, 16));
  return value.toString();
}

function hexByte(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}

/** Every way to ask about a field, as nft writes it, then by position where nft refuses the name. */
export function matchesOf(field: Field): readonly (readonly [named: string, raw: string])[] {
  const { low, high } = sampleOf(field);
  const raw = `@${field.base},${field.offset},${field.width}`;
  const mask = ones(field.width) - 1n;
  const forms = (name: string, text: (value: bigint) => string): string[] => [
    `${name} ${text(low)}`,
    `${name} != ${text(low)}`,
    `${name} < ${text(high)}`,
    `${name} ${text(low)}-${text(high)}`,
    `${name} != ${text(low)}-${text(high)}`,
    `${name} { ${text(low)}, ${text(high)} }`,
    `${name} { ${text(low)}-${text(high - 1n)}, ${text(high + 1n)} }`,
    `${name} != { ${text(low)}, ${text(high)} }`,
    `${name} & ${text(mask)} == ${text(low & mask)}`,
    `${name} & ${text(mask)} != ${text(high & mask)}`,
    `${name} vmap { ${text(low)} : jump called, ${text(high)} : continue }`,
  ];
  const named = forms(field.name, (value) => formatValue(field, value));
  const byPosition = forms(raw, (value) => `0x${value.toString(16)}`);
  return named.map((text, index) => [text, byPosition[index] ?? raw]);
}
