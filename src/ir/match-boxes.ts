import { ones } from '../support/bits.ts';
import type { Field } from './fields.ts';
import { FRAME, fieldKey } from './fields.ts';
import { isPlain, splitKey } from './operand.ts';
import { intervalOf, sortedElements } from './region.ts';
import type { Operand, SetElements, Test } from './ruleset.ts';

/** What one field must be: within an interval, and (`value & mask`) under some of its bits. */
export interface Constraint {
  readonly field: Field;
  readonly lo: bigint;
  readonly hi: bigint;
  readonly value: bigint;
  /** 0: no bits are asked. */
  readonly mask: bigint;
}

/** One way for a test to hold: all of its constraints. */
export type Alternative = readonly Constraint[];

/** Elements of a set that are looked up by a single key, up to which they are boxes of a table. */
const SMALL_SET = 64;
/** The same for sets that can only be asked element by element otherwise. */
const MOST_BOXES = 65_536;
/** Bits of a mask that a negated comparison is split into. */
const MOST_MASK_BITS = 8;
/** Fields wider than this are no part of a table's key. */
const WIDEST = 128;

function between(field: Field, lo: bigint, hi: bigint): Constraint {
  return { field, lo, hi, value: 0n, mask: 0n };
}

function underMask(field: Field, value: bigint, mask: bigint): Constraint {
  return { field, lo: 0n, hi: ones(field.width), value, mask };
}

/** The values outside sorted, disjoint intervals. */
function outside(
  field: Field,
  lo: readonly bigint[],
  hi: readonly bigint[],
): readonly Alternative[] {
  const gaps: Alternative[] = [];
  let from = 0n;
  for (const [index, start] of lo.entries()) {
    if (start > from) gaps.push([between(field, from, start - 1n)]);
    const end = hi[index] ?? start;
    if (end >= from) from = end + 1n;
  }
  if (from <= ones(field.width)) gaps.push([between(field, from, ones(field.width))]);
  return gaps;
}

/** `(field & mask) != value`: the first bit that differs tells the alternatives apart. */
function differing(field: Field, value: bigint, mask: bigint): readonly Alternative[] | null {
  const alternatives: Alternative[] = [];
  let known = 0n;
  for (let bit = 1n; bit <= mask; bit <<= 1n) {
    if ((mask & bit) === 0n) continue;
    if (alternatives.length === MOST_MASK_BITS) return null;
    const other = (value & known) | (~value & bit);
    known |= bit;
    alternatives.push([underMask(field, other, known)]);
  }
  return alternatives;
}

function compareBoxes(test: Extract<Test, { kind: 'compare' }>): readonly Alternative[] | null {
  const { operand, negated, lo, hi } = test;
  const interval = intervalOf(test);
  const { field, mask } = operand;
  if (interval !== null) {
    return negated
      ? outside(field, [interval.lo], [interval.hi])
      : [[between(field, interval.lo, interval.hi)]];
  }
  if (operand.xor !== 0n || operand.shift !== 0 || lo !== hi) return null;
  if ((lo & ~mask) !== 0n) return negated ? [[]] : [];
  return negated ? differing(field, lo, mask) : [[underMask(field, lo, mask)]];
}

function elementBoxes(key: readonly Operand[], { parts, lo, hi }: SetElements): Alternative[] {
  return lo.map((low, index) => {
    const lows = splitKey(parts, low);
    const highs = splitKey(parts, hi[index] ?? low);
    return key.map(({ field }, part) => between(field, lows[part] ?? 0n, highs[part] ?? 0n));
  });
}

function lookupBoxes(test: Extract<Test, { kind: 'lookup' }>): readonly Alternative[] | null {
  const { key, negated } = test;
  const { elements } = test.set;
  if (!key.every(isPlain)) return null;
  const sorted = sortedElements(elements);
  const isExact = elements.hi === elements.lo;
  const most = sorted !== null || isExact ? SMALL_SET : MOST_BOXES;
  if (elements.lo.length > most) return null;
  if (!negated) return elementBoxes(key, elements);
  const [operand] = key;
  if (sorted === null || operand === undefined) return null;
  return outside(operand.field, sorted.lo, sorted.hi);
}

const known = new WeakMap<Test, readonly Alternative[] | null>();

/**
 * A test as boxes of field values, any of which makes it hold (none: it never does); its loads are
 * taken to succeed. Null where it is not of that kind, or would be too many.
 */
export function boxesOf(test: Test): readonly Alternative[] | null {
  if (test.kind === 'unknown') return null;
  let boxes = known.get(test);
  if (boxes === undefined) {
    const fields = test.kind === 'compare' ? [test.operand.field] : test.key.map((o) => o.field);
    const isOdd = fields.some((field) => field.width > WIDEST || !isValue(field));
    boxes = isOdd ? null : test.kind === 'compare' ? compareBoxes(test) : lookupBoxes(test);
    known.set(test, boxes);
  }
  return boxes;
}

/** Fields that are worked out by code of their own are no numbers at hand. */
function isValue(field: Field): boolean {
  const key = fieldKey(field);
  return key !== FRAME.checksum.name && key !== FRAME.fragment.name && key !== FRAME.tags.name;
}
