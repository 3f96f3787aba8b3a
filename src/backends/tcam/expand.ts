import type { Decider } from './function-table.ts';
import type { Column, Layout } from './layout.ts';
import { protocolColumn } from './layout.ts';

/** A part of a row that can be let go of: bits together, or the side of a range. */
type Part =
  | { readonly kind: 'bits'; readonly bits: readonly number[] }
  | { readonly kind: 'side'; readonly range: number; readonly side: 'low' | 'high' };

function bitIs(box: Uint32Array, word0: number, bit: number): boolean {
  return ((box[word0 + (bit >>> 5)] as number) & ((1 << (31 - (bit & 31))) >>> 0)) !== 0;
}

/** Parts of one column, in the order in which they are tried. */
function partsOf(column: Column, bitAt: number | null, rangeAt: number | null): Part[] {
  if (rangeAt !== null) {
    return [
      { kind: 'side', range: rangeAt, side: 'low' },
      { kind: 'side', range: rangeAt, side: 'high' },
    ];
  }
  if (bitAt === null) return [];
  const bits = Array.from({ length: column.bits }, (_, index) => bitAt + index);
  if (column.match === 'exact') return [{ kind: 'bits', bits }];
  return bits.reverse().map((bit) => ({ kind: 'bits', bits: [bit] }));
}

/**
 * Widens rows, first to last, part by part, where what is taken in gets the row's action anyway.
 * Prefix columns lose bits from the end only, exact ones all or none; a row that looks at a guarded
 * column keeps its protocol. Gives how many parts were let go of.
 */
export function expandRows(
  decider: Decider,
  layout: Layout,
  steps: number,
  budget: number,
): number {
  const { store, index, decides, spent } = decider;
  const { words, ranges, tops } = layout.shape;
  const limit = spent() + budget;
  const trial = new Uint32Array(store.stride);
  const protocol = protocolColumn(layout);
  const columns = layout.columns.map((column, at) => ({
    column,
    at,
    parts: partsOf(column, layout.bitAt[at] ?? null, layout.rangeAt[at] ?? null),
  }));

  function isGuarded(start: number): boolean {
    return columns.some(({ column, at }) => {
      if (column.protocols === null) return false;
      const bit = layout.bitAt[at] ?? null;
      const range = layout.rangeAt[at] ?? null;
      if (range !== null) {
        const lo = start + 2 * words + range;
        return store.boxes[lo] !== 0 || store.boxes[lo + ranges] !== tops[range];
      }
      return (
        bit !== null &&
        Array.from({ length: column.bits }, (_, offset) => bit + offset).some((b) =>
          bitIs(store.boxes, start + words, b),
        )
      );
    });
  }

  /** Writes to `trial` what letting go of the part adds; false when the row does not ask it. */
  function addition(start: number, part: Part): boolean {
    for (let word = 0; word < store.stride; word += 1)
      trial[word] = store.boxes[start + word] as number;
    if (part.kind === 'side') {
      const lo = 2 * words + part.range;
      const hi = lo + ranges;
      if (part.side === 'low') {
        if (trial[lo] === 0) return false;
        trial[hi] = (trial[lo] as number) - 1;
        trial[lo] = 0;
      } else {
        if (trial[hi] === tops[part.range]) return false;
        trial[lo] = (trial[hi] as number) + 1;
        trial[hi] = tops[part.range] ?? 0;
      }
      return true;
    }
    let cared = false;
    for (const bit of part.bits) {
      const word = bit >>> 5;
      const mask = (1 << (31 - (bit & 31))) >>> 0;
      if (((trial[words + word] as number) & mask) === 0) continue;
      cared = true;
      if (part.bits.length === 1) trial[word] = (trial[word] as number) ^ mask;
      else {
        trial[words + word] = (trial[words + word] as number) & ~mask;
        trial[word] = (trial[word] as number) & ~mask;
      }
    }
    return cared;
  }

  function letGo(row: number, part: Part): void {
    const start = row * store.stride;
    index.remove(row);
    if (part.kind === 'side') {
      const lo = start + 2 * words + part.range;
      if (part.side === 'low') store.boxes[lo] = 0;
      else store.boxes[lo + ranges] = tops[part.range] ?? 0;
    } else {
      for (const bit of part.bits) {
        const word = start + (bit >>> 5);
        const mask = (1 << (31 - (bit & 31))) >>> 0;
        store.boxes[word] = (store.boxes[word] as number) & ~mask;
        store.boxes[word + words] = (store.boxes[word + words] as number) & ~mask;
      }
    }
    index.insert(row);
  }

  let count = 0;
  for (let row = 0; row < store.count - 1 && spent() < limit; row += 1) {
    if (store.alive[row] === 0) continue;
    const start = row * store.stride;
    const guarded = isGuarded(start);
    for (const { column, at, parts } of columns) {
      if (at === protocol && guarded) continue;
      for (const part of parts) {
        if (!addition(start, part)) continue;
        if (decides(trial, 0, row, store.actions[row] ?? 0, -1, steps)) {
          letGo(row, part);
          count += 1;
        } else if (column.match === 'prefix' && part.kind === 'bits') break;
      }
    }
  }
  return count;
}
