import { splitKey } from '../../ir/operand.ts';
import { sortedElements } from '../../ir/region.ts';
import type { SetElements } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';

/** Where a part of a key stands in its words of 64 bits. */
interface Place {
  readonly word: number;
  readonly shift: number;
}

/**
 * How a key is packed: parts in order, each inside one word where it fits, wide ones in two words
 * of their own. Any fixed order of the words sorts elements equally well.
 */
export interface KeyShape {
  readonly places: readonly Place[];
  readonly words: number;
}

/** Works out the packing of a key with these part widths (each at most 128 bits). */
export function shapeOf(parts: readonly number[]): KeyShape {
  const places: Place[] = [];
  let word = 0;
  let left = 64;
  for (const width of parts) {
    if (width > left) {
      if (left < 64) word += 1;
      left = 64;
    }
    if (width > 64) {
      places.push({ word, shift: 0 });
      word += 2;
      left = 64;
      continue;
    }
    left -= width;
    places.push({ word, shift: left });
    if (left === 0) {
      word += 1;
      left = 64;
    }
  }
  return { places, words: left < 64 ? word + 1 : word };
}

/** A key's value as words, most significant part first. */
export function packKey(shape: KeyShape, parts: readonly number[], key: bigint): bigint[] {
  const words = Array.from({ length: shape.words }, () => 0n);
  for (const [index, value] of splitKey(parts, key).entries()) {
    const place = shape.places[index];
    if (place === undefined) continue;
    const width = parts[index] ?? 0;
    if (width > 64) {
      words[place.word] = value >> 64n;
      words[place.word + 1] = value & ones(64);
    } else {
      words[place.word] = (words[place.word] ?? 0n) | (value << BigInt(place.shift));
    }
  }
  return words;
}

/** Whether every element is one key, so that boxes are not needed for a concatenation. */
export function isExact(elements: SetElements): boolean {
  return elements.hi === elements.lo || elements.hi.every((hi, i) => hi === elements.lo[i]);
}

export interface Packed {
  readonly shape: KeyShape;
  /** By element, in ascending order. */
  readonly lo: readonly (readonly bigint[])[];
  readonly hi: readonly (readonly bigint[])[];
  readonly exact: boolean;
}

function compareWords(a: readonly bigint[], b: readonly bigint[]): number {
  for (const [index, word] of a.entries()) {
    const other = b[index] ?? 0n;
    if (word !== other) return word < other ? -1 : 1;
  }
  return 0;
}

export function pack(elements: SetElements): Packed {
  const source = sortedElements(elements) ?? elements;
  const shape = shapeOf(source.parts);
  const rows = source.lo.map((lo, index) => ({
    lo: packKey(shape, source.parts, lo),
    hi: packKey(shape, source.parts, source.hi[index] ?? lo),
  }));
  rows.sort((a, b) => compareWords(a.lo, b.lo));
  return {
    shape,
    lo: rows.map(({ lo }) => lo),
    hi: rows.map(({ hi }) => hi),
    exact: isExact(source),
  };
}
