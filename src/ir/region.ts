import { ones } from '../support/bits.ts';
import type { ViewName } from './classifier.ts';
import { type Field, FRAME, fieldEnd, fieldKey, META } from './fields.ts';
import { applyOperand, holds, isPlain } from './operand.ts';
import type { ElementSet, Operand, Test } from './ruleset.ts';

/** A set of values: an interval without some single values. */
export interface Known {
  readonly lo: bigint;
  readonly hi: bigint;
  readonly without: readonly bigint[];
}

/**
 * What is known of a frame at one place of a decision: values by field key, and bytes present
 * behind each base by `presenceKey`. Never changed; `restrict` makes a new one.
 */
export type Region = ReadonlyMap<string, Known>;

const PRESENCE: Readonly<Record<ViewName, Readonly<Record<Field['base'], string>>>> = {
  ingress: {
    ll: 'present ll',
    nh: 'present nh ingress',
    th: 'present th ingress',
    meta: 'present',
  },
  l3: { ll: 'present ll', nh: 'present nh l3', th: 'present th l3', meta: 'present' },
};

/** The key of "so many bytes are there": link layer in one way, the others once per view. */
export function presenceKey(base: Field['base'], view: ViewName): string {
  return PRESENCE[view][base];
}

/** The key of "the packet has a transport protocol": 0 when it has none. */
export const L4PROTO_PRESENT = 'present l4proto';

/** More than any frame holds. */
export const PLENTY = 0xffffn;

/** The region where, in addition, `key` is within lo..hi. */
export function restrict(region: Region, key: string, lo: bigint, hi: bigint): Region {
  const old = region.get(key);
  const known: Known = {
    lo: old !== undefined && old.lo > lo ? old.lo : lo,
    hi: old !== undefined && old.hi < hi ? old.hi : hi,
    without: old?.without ?? [],
  };
  return new Map(region).set(key, known);
}

/** The region where, in addition, `key` is not `value`. */
export function exclude(region: Region, key: string, value: bigint): Region {
  const old = region.get(key) ?? { lo: 0n, hi: ones(128), without: [] };
  return new Map(region).set(key, { ...old, without: [...old.without, value] });
}

/** The values of one field that make a test hold, where they are one interval. */
export interface FieldInterval {
  readonly key: string;
  readonly field: Field;
  readonly lo: bigint;
  readonly hi: bigint;
  /** Every value is in it. */
  readonly isAll: boolean;
}

function isPrefixMask(mask: bigint, width: number): boolean {
  const inverse = mask ^ ones(width);
  return (inverse & (inverse + 1n)) === 0n;
}

function computeInterval(test: Test): FieldInterval | null {
  if (test.kind !== 'compare') return null;
  const { operand, lo, hi } = test;
  const { field, mask } = operand;
  if (operand.xor !== 0n || operand.shift !== 0) return null;
  const key = fieldKey(field);
  const top = ones(field.width);
  if (mask === top) return { key, field, lo, hi, isAll: lo === 0n && hi === top };
  if (lo !== hi || !isPrefixMask(mask, field.width) || (lo & ~mask) !== 0n) return null;
  return { key, field, lo, hi: lo | (mask ^ top), isAll: mask === 0n };
}

const intervals = new WeakMap<Test, FieldInterval | null>();

/** The interval a comparison asks for (ignoring `negated`), or null when it is none. */
export function intervalOf(test: Test): FieldInterval | null {
  let known = intervals.get(test);
  if (known === undefined) {
    known = computeInterval(test);
    intervals.set(test, known);
  }
  return known;
}

/** Whether a load succeeds; `fragment`: nobody can tell, its bytes may be another header's. */
export type Presence = 'present' | 'absent' | 'open' | 'fragment';

/** What the region says about loading a field at a hook of this view. */
export function presenceOf(field: Field, view: ViewName, region: Region): Presence {
  if (field.base === 'meta') {
    if (fieldKey(field) !== META.l4proto.name) return 'present';
    return region.get(L4PROTO_PRESENT)?.hi === 0n ? 'absent' : 'present';
  }
  const end = BigInt(fieldEnd(field));
  const bytes = region.get(presenceKey(field.base, view));
  if (bytes !== undefined && bytes.hi < end) return 'absent';
  if (field.base === 'th' && (region.get(FRAME.fragment.name)?.lo ?? 0n) >= 2n) return 'fragment';
  return bytes !== undefined && bytes.lo >= end ? 'present' : 'open';
}

/** A test seen from a region. */
export type Truth = 'true' | 'false' | 'open';

/** Whether a field is within an interval. */
export function withinIn({ key, lo, hi, isAll }: FieldInterval, region: Region): Truth {
  if (isAll) return 'true';
  const known = region.get(key);
  if (known === undefined) return 'open';
  if (known.hi < lo || known.lo > hi) return 'false';
  if (known.lo >= lo && known.hi <= hi) return 'true';
  return lo === hi && known.without.includes(lo) ? 'false' : 'open';
}

function compareIn(test: Extract<Test, { kind: 'compare' }>, region: Region): Truth {
  const interval = intervalOf(test);
  if (interval !== null) return withinIn(interval, region);
  const known = region.get(fieldKey(test.operand.field));
  if (known === undefined || known.lo !== known.hi) return 'open';
  const value = applyOperand(test.operand, known.lo);
  return value >= test.lo && value <= test.hi ? 'true' : 'false';
}

/** Index of the last element that starts at or below `value`; -1 when none does. */
function lastStart(lo: readonly bigint[], value: bigint): number {
  let from = 0;
  let to = lo.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((lo[middle] ?? 0n) <= value) from = middle + 1;
    else to = middle;
  }
  return from - 1;
}

const sortedSets = new WeakMap<ElementSet['elements'], ElementSet['elements'] | null>();

/** The elements in ascending order where the key has one part; null for concatenations. */
export function sortedElements(elements: ElementSet['elements']): ElementSet['elements'] | null {
  if (elements.parts.length !== 1) return null;
  let sorted = sortedSets.get(elements);
  if (sorted === undefined) {
    const order = [...elements.lo.keys()];
    const at = (i: number): bigint => elements.lo[i] ?? 0n;
    order.sort((a, b) => (at(a) < at(b) ? -1 : at(a) > at(b) ? 1 : 0));
    const lo = order.map(at);
    const hi = elements.hi === elements.lo ? lo : order.map((i) => elements.hi[i] ?? 0n);
    sorted = { ...elements, lo, hi, verdicts: null };
    sortedSets.set(elements, sorted);
  }
  return sorted;
}

function lookupIn(test: Extract<Test, { kind: 'lookup' }>, region: Region): Truth {
  const { elements } = test.set;
  if (elements.lo.length === 0) return 'false';
  const values = test.key.map((operand) => constantIn(operand, region));
  if (values.every((value) => value !== null)) {
    return elements.lo.some((_, index) => holds(elements, index, values)) ? 'true' : 'false';
  }
  const [operand] = test.key;
  const sorted = sortedElements(elements);
  if (operand === undefined || sorted === null || !isPlain(operand)) return 'open';
  const known = region.get(fieldKey(operand.field));
  if (known === undefined) return 'open';
  if (known.without.length > 0 && sorted.hi === sorted.lo) {
    const left = sorted.lo.some(
      (value) => value >= known.lo && value <= known.hi && !known.without.includes(value),
    );
    if (!left) return 'false';
  }
  const last = lastStart(sorted.lo, known.hi);
  const end = sorted.hi[last] ?? -1n;
  if (last < 0 || end < known.lo) return 'false';
  return (sorted.lo[last] ?? 0n) <= known.lo && end >= known.hi ? 'true' : 'open';
}

function constantIn(operand: Operand, region: Region): bigint | null {
  const known = region.get(fieldKey(operand.field));
  if (known === undefined || known.lo !== known.hi) return null;
  return applyOperand(operand, known.lo);
}

/** Whether a test's values match, its loads taken to succeed; `negated` is respected. */
export function truthOf(test: Test, region: Region): Truth {
  if (test.kind === 'unknown') throw new Error('bug: an unknown test was not specialised away');
  const truth = test.kind === 'compare' ? compareIn(test, region) : lookupIn(test, region);
  return test.negated ? opposite(truth) : truth;
}

/** What is true of a test's negation. */
export function opposite(truth: Truth): Truth {
  if (truth === 'open') return truth;
  return truth === 'true' ? 'false' : 'true';
}
