import { isPlain, splitKey } from '../../ir/operand.ts';
import type { ElementSet, Operand, Test } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';
import { columnOf, type Layout, locate } from './layout.ts';
import { complementIntervals, type Intervals, joinIntervals, prefixesOf } from './prefixes.ts';
import { strideOf } from './row-store.ts';

/**
 * A box while rows are made: bits as two integers (bit 0 is the last bit of the last word), ranges
 * by their place. Undefined in `ranges`: every value.
 */
export interface Box {
  readonly value: bigint;
  readonly mask: bigint;
  readonly ranges: readonly (readonly [lo: number, hi: number] | undefined)[];
}

export const ANY_BOX: Box = { value: 0n, mask: 0n, ranges: [] };

/** The common part of two boxes, or null when there is none. */
export function meet(a: Box, b: Box): Box | null {
  if (((a.value ^ b.value) & a.mask & b.mask) !== 0n) return null;
  const base = { value: a.value | b.value, mask: a.mask | b.mask };
  if (b.ranges.length === 0) return { ...base, ranges: a.ranges };
  if (a.ranges.length === 0) return { ...base, ranges: b.ranges };
  const ranges: (readonly [number, number] | undefined)[] = [];
  const places = Math.max(a.ranges.length, b.ranges.length);
  for (let place = 0; place < places; place += 1) {
    const one = a.ranges[place];
    const two = b.ranges[place];
    if (one === undefined || two === undefined) ranges[place] = one ?? two;
    else {
      const lo = Math.max(one[0], two[0]);
      const hi = Math.min(one[1], two[1]);
      if (lo > hi) return null;
      ranges[place] = [lo, hi];
    }
  }
  return { ...base, ranges };
}

/** All common parts of boxes of two lists. */
export function meetAll(as: readonly Box[], bs: readonly Box[]): Box[] {
  const met: Box[] = [];
  for (const a of as) {
    for (const b of bs) {
      const both = meet(a, b);
      if (both !== null) met.push(both);
    }
  }
  return met;
}

/** Writes a box as the words of a `RowStore`. */
export function writeBox({ value, mask, ranges }: Box, layout: Layout): Uint32Array {
  const { words, tops, ranges: count } = layout.shape;
  const box = new Uint32Array(strideOf(layout.shape));
  for (let word = 0; word < words; word += 1) {
    const below = BigInt((words - 1 - word) * 32);
    box[word] = Number((value >> below) & 0xffffffffn);
    box[words + word] = Number((mask >> below) & 0xffffffffn);
  }
  for (let range = 0; range < count; range += 1) {
    const [lo, hi] = ranges[range] ?? [0, tops[range] ?? 0];
    box[2 * words + range] = lo;
    box[2 * words + count + range] = hi;
  }
  return box;
}

/** Moves bits of a field to their columns' places in the box. */
function placeBits(operand: Operand, value: bigint, mask: bigint, layout: Layout): Box | null {
  const { field } = operand;
  const pieces = locate(layout, field, mask);
  if (pieces === null) return null;
  const total = layout.shape.words * 32;
  let boxValue = 0n;
  let boxMask = 0n;
  for (const { column, columnBit, fieldBit, length } of pieces) {
    const below = BigInt(field.width - fieldBit - length);
    const part = ones(length);
    const own = (mask >> below) & part;
    if (own === 0n) continue;
    const start = layout.bitAt[column];
    if (start === null || start === undefined) throw new Error('bug: bits of a range column');
    const up = BigInt(total - start - columnBit - length);
    boxMask |= own << up;
    boxValue |= ((value >> below) & part) << up;
  }
  return { value: boxValue & boxMask, mask: boxMask, ranges: [] };
}

/**
 * Boxes for `lo <= ((load & mask) ^ xor) << shift <= hi`; they do not overlap. Null: the key lacks a
 * bit of it.
 */
function boxesOfInterval(operand: Operand, lo: bigint, hi: bigint, layout: Layout): Box[] | null {
  const { field, mask, xor, shift } = operand;
  const column = columnOf(layout, field);
  const range = column < 0 ? null : (layout.rangeAt[column] ?? null);
  if (range !== null && isPlain(operand)) {
    const ranges: (readonly [number, number] | undefined)[] = [];
    ranges[range] = [Number(lo), Number(hi)];
    return [{ value: 0n, mask: 0n, ranges }];
  }
  const boxes: Box[] = [];
  const all = ones(field.width);
  for (const prefix of prefixesOf(lo, hi, field.width)) {
    const back = (bits: bigint): bigint =>
      shift >= 0 ? bits >> BigInt(shift) : bits << BigInt(-shift);
    // Bits that shifting brings in are 0: a prefix that wants a 1 there holds nothing.
    const brought =
      shift === 0 ? 0n : all ^ ((shift > 0 ? all << BigInt(shift) : all >> BigInt(-shift)) & all);
    if ((prefix.value & prefix.mask & brought) !== 0n) continue;
    const wanted = back(prefix.value & ~brought) & all;
    const cared = back(prefix.mask & ~brought) & all;
    const fixed = cared & ~mask;
    if (((wanted ^ xor) & fixed) !== 0n) continue;
    const own = cared & mask;
    const box = placeBits(operand, (wanted ^ xor) & own, own, layout);
    if (box === null) return null;
    boxes.push(box);
  }
  return boxes;
}

/** The boxes of one key's elements or, for one that is negated, of the gaps between them. */
function intervalsOf(set: ElementSet['elements'], negated: boolean): Intervals {
  const joined = joinIntervals(set.lo.map((lo, index) => [lo, set.hi[index] ?? lo]));
  return negated ? complementIntervals(joined, ones(set.parts[0] ?? 0)) : joined;
}

type Ranges = readonly (readonly [bigint, bigint])[];

/** What a union of boxes, one range a part, leaves of the whole: part by part, in stripes. */
function complementBoxes(boxes: readonly Ranges[], parts: readonly number[]): Ranges[] {
  const [width, ...rest] = parts;
  if (width === undefined) return boxes.length > 0 ? [] : [[]];
  const cuts = new Set<bigint>([0n]);
  for (const [first] of boxes) {
    if (first === undefined) continue;
    cuts.add(first[0]);
    cuts.add(first[1] + 1n);
  }
  const starts = [...cuts].filter((cut) => cut <= ones(width)).sort((a, b) => (a < b ? -1 : 1));
  return starts.flatMap((lo, index) => {
    const hi = (starts[index + 1] ?? ones(width) + 1n) - 1n;
    const inside = boxes.filter(
      ([first]) => first !== undefined && first[0] <= lo && hi <= first[1],
    );
    const left = complementBoxes(
      inside.map((box) => box.slice(1)),
      rest,
    );
    return left.map((box): Ranges => [[lo, hi], ...box]);
  });
}

function boxesOfConcatenation(
  test: Extract<Test, { kind: 'lookup' }>,
  layout: Layout,
): Box[] | null {
  const { elements } = test.set;
  const { parts } = elements;
  const held = elements.lo.map((low, index): Ranges => {
    const lo = splitKey(parts, low);
    const hi = splitKey(parts, elements.hi[index] ?? low);
    return parts.map((_, part): readonly [bigint, bigint] => [lo[part] ?? 0n, hi[part] ?? 0n]);
  });
  const boxes: Box[] = [];
  for (const box of test.negated ? complementBoxes(held, parts) : held) {
    let product: Box[] = [ANY_BOX];
    for (const [part, [lo, hi]] of box.entries()) {
      const operand = test.key[part];
      if (operand === undefined) throw new Error('bug: a key with fewer operands than parts');
      const own = boxesOfInterval(operand, lo, hi, layout);
      if (own === null) return null;
      product = meetAll(product, own);
    }
    for (const one of product) boxes.push(one);
  }
  return boxes;
}

/** The boxes that together hold exactly what the test accepts; null when the key cannot say it. */
export function boxesOf(test: Test, layout: Layout): Box[] | null {
  if (test.kind === 'unknown') return null;
  if (test.kind === 'lookup' && test.key.length > 1) return boxesOfConcatenation(test, layout);
  const operand = test.kind === 'compare' ? test.operand : test.key[0];
  if (operand === undefined) throw new Error('bug: a look-up without a key');
  const top = ones(operand.field.width);
  const intervals =
    test.kind === 'lookup'
      ? intervalsOf(test.set.elements, test.negated)
      : test.negated
        ? complementIntervals([[test.lo, test.hi]], top)
        : [[test.lo, test.hi] as const];
  const boxes: Box[] = [];
  for (const [lo, hi] of intervals) {
    const own = boxesOfInterval(operand, lo, hi, layout);
    if (own === null) return null;
    for (const one of own) boxes.push(one);
  }
  return boxes;
}
