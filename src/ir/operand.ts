import { ones } from '../support/bits.ts';
import { remember } from '../support/remember.ts';
import { type Field, fieldKey } from './fields.ts';
import type { ElementSet, Operand, Test } from './ruleset.ts';

/** The field as it is loaded, without mask, xor or shift. */
export const plain = remember(
  (field: Field): Operand => ({ field, mask: ones(field.width), xor: 0n, shift: 0 }),
);

export function isPlain(operand: Operand): boolean {
  return operand.xor === 0n && operand.shift === 0 && operand.mask === ones(operand.field.width);
}

/** What the operand yields for a loaded value. */
export function applyOperand(operand: Operand, loaded: bigint): bigint {
  const value = (loaded & operand.mask) ^ operand.xor;
  if (operand.shift === 0) return value;
  const shifted =
    operand.shift > 0 ? value << BigInt(operand.shift) : value >> BigInt(-operand.shift);
  return shifted & ones(operand.field.width);
}

/** `field == value`, or with `mask`, `(field & mask) == value`; implicit: the kernel's or nft's own. */
export function equals(field: Field, value: bigint, mask: bigint = ones(field.width)): Test {
  const operand = { field, mask, xor: 0n, shift: 0 };
  return { kind: 'compare', operand, lo: value, hi: value, negated: false, implicit: true };
}

/** `field in lo..hi`, both included. */
export function within(field: Field, lo: bigint, hi: bigint): Test {
  return { kind: 'compare', operand: plain(field), lo, hi, negated: false, implicit: true };
}

export function not(test: Test): Test {
  return test.kind === 'unknown' ? test : { ...test, negated: !test.negated };
}

/** `field` is one of the exact `values`. */
export function oneOf(field: Field, values: readonly bigint[]): Test {
  const lo = [...new Set(values)].sort((a, b) => (a < b ? -1 : 1));
  const [only] = lo;
  if (lo.length === 1 && only !== undefined) return equals(field, only);
  const set: ElementSet = {
    name: null,
    elements: { parts: [field.width], lo, hi: lo, verdicts: null },
    unknown: null,
  };
  return { kind: 'lookup', key: [plain(field)], set, negated: false };
}

/** The fields a test loads; none for an unknown one. */
export function testedFields(test: Test): readonly Field[] {
  switch (test.kind) {
    case 'compare':
      return [test.operand.field];
    case 'lookup':
      return test.key.map((operand) => operand.field);
    case 'unknown':
      return [];
  }
}

/** The only IP version whose packets have this header field; null where that is not said. */
function versionOf({ base, name }: Field): 4 | 6 | null {
  if (base !== 'nh') return null;
  return name.startsWith('ip ') ? 4 : name.startsWith('ip6 ') ? 6 : null;
}

/** Whether writing `a` may change what loading `b` yields. */
export function overlaps(a: Field, b: Field): boolean {
  if (a.base === 'meta' || b.base === 'meta') return fieldKey(a) === fieldKey(b);
  const versions = [versionOf(a), versionOf(b)];
  if (!versions.includes(null) && versions[0] !== versions[1]) return false;
  return a.base === b.base && a.offset < b.offset + b.width && b.offset < a.offset + a.width;
}

/** Element `index` of a set holds `key` (one integer a part). */
export function holds(set: ElementSet['elements'], index: number, key: readonly bigint[]): boolean {
  const lo = splitKey(set.parts, set.lo[index] ?? 0n);
  const hi = splitKey(set.parts, set.hi[index] ?? 0n);
  return key.every((part, i) => part >= (lo[i] ?? 0n) && part <= (hi[i] ?? 0n));
}

/** The parts of a concatenated key, first part first. */
export function splitKey(parts: readonly number[], key: bigint): bigint[] {
  const values: bigint[] = [];
  let rest = key;
  for (let index = parts.length - 1; index >= 0; index -= 1) {
    const width = parts[index] ?? 0;
    values.unshift(rest & ones(width));
    rest >>= BigInt(width);
  }
  return values;
}

/** The inverse of `splitKey`. */
export function joinKey(parts: readonly number[], values: readonly bigint[]): bigint {
  return parts.reduce((key, width, i) => (key << BigInt(width)) | (values[i] ?? 0n), 0n);
}
