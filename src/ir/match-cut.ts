import type { MatchTable } from './match-table.ts';

/** A window of a lane: `bits` bits from bit `shift` up. */
export interface Cut {
  readonly lane: number;
  readonly shift: number;
  readonly bits: number;
}

/** Boxes that are looked at to choose; more change the choice little. */
const SAMPLE = 192;
/** Widths of windows: node descriptors have three bits for them. */
const LEAST_BITS = 2;
const MOST_BITS = 8;
/** What copies and wide nodes weigh against smaller lists; the optimum is flat (measured). */
const COPIES = 0.3;
const WIDTH = 0.02;
/** A cut must shrink the list that a key meets by this much (base 2 logarithm). */
const LEAST_GAIN = 0.15;

function sampleOf(list: Uint32Array): Uint32Array {
  if (list.length <= SAMPLE) return list;
  const step = list.length / SAMPLE;
  return Uint32Array.from({ length: SAMPLE }, (_, index) => list[Math.floor(index * step)] ?? 0);
}

const counts = new Int32Array(2 ** MOST_BITS + 1);

/** The sum and the sum of squares of the children's lengths. */
function measure(
  from: Uint32Array,
  to: Uint32Array,
  length: number,
  shift: number,
  bits: number,
): readonly [number, number] {
  const size = 2 ** bits;
  const top = size - 1;
  counts.fill(0, 0, size + 1);
  let everywhere = 0;
  for (let index = 0; index < length; index += 1) {
    const first = (from[index] ?? 0) >>> shift;
    const last = (to[index] ?? 0) >>> shift;
    if (last - first >= top) {
      everywhere += 1;
      continue;
    }
    const a = first & top;
    const b = (last & top) + 1;
    counts[a] = (counts[a] ?? 0) + 1;
    counts[b] = (counts[b] ?? 0) - 1;
    // Around the end: what wraps starts again at 0.
    if (b <= a) counts[0] = (counts[0] ?? 0) + 1;
  }
  let here = everywhere;
  let sum = 0;
  let squares = 0;
  for (let value = 0; value < size; value += 1) {
    here += counts[value] ?? 0;
    sum += here;
    squares += here * here;
  }
  return [sum, squares];
}

/** As `measure` for a lane with masks, where what a box allows need not be an interval. */
function measureMasked(
  rows: readonly (readonly [from: number, to: number, value: number, mask: number])[],
  shift: number,
  bits: number,
): readonly [number, number] {
  const size = 2 ** bits;
  counts.fill(0, 0, size);
  for (const [from, to, value, mask] of rows) {
    const first = from >>> shift;
    const span = Math.min(size, (to >>> shift) - first + 1);
    const asked = (mask >>> shift) & (size - 1);
    const want = (value >>> shift) & asked;
    for (let step = 0; step < span; step += 1) {
      const at = (first + step) & (size - 1);
      if ((at & asked) === want) counts[at] = (counts[at] ?? 0) + 1;
    }
  }
  let sum = 0;
  let squares = 0;
  for (let value = 0; value < size; value += 1) {
    const here = counts[value] ?? 0;
    sum += here;
    squares += here * here;
  }
  return [sum, squares];
}

/**
 * The window that leaves the shortest lists for what it costs, or null where none helps. `known` and
 * `intervals` say what is known of each lane already.
 */
export function choosePart(
  table: MatchTable,
  list: Uint32Array,
  known: Uint32Array,
  intervals: readonly (readonly [number, number])[],
): Cut | null {
  const sample = sampleOf(list);
  const { length } = sample;
  const widest = Math.min(MOST_BITS, Math.ceil(Math.log2(list.length)) + 2);
  const from = new Uint32Array(length);
  const to = new Uint32Array(length);
  let best: Cut | null = null;
  let bestScore = Math.log2(length) - LEAST_GAIN;
  for (const [lane, width] of table.key.widths.entries()) {
    const [low = 0, high = 0] = intervals[lane] ?? [];
    const lows = table.lo[lane];
    const highs = table.hi[lane];
    if (low === high || lows === undefined || highs === undefined) continue;
    let isAsked = false;
    for (const [index, box] of sample.entries()) {
      const a = Math.max(low, lows[box] ?? 0);
      const b = Math.min(high, highs[box] ?? 0);
      from[index] = a;
      to[index] = b;
      isAsked ||= a > low || b < high;
    }
    const masks = table.mask[lane] ?? null;
    const isMasked = masks !== null && sample.some((box) => (masks[box] ?? 0) !== 0);
    if (!isAsked && !isMasked) continue;
    const rows = isMasked
      ? Array.from(sample, (box, index): [number, number, number, number] => [
          from[index] ?? 0,
          to[index] ?? 0,
          table.value[lane]?.[box] ?? 0,
          masks[box] ?? 0,
        ])
      : null;
    for (let bits = LEAST_BITS; bits <= Math.min(widest, width); bits += 1) {
      for (let shift = width - bits; shift >= 0; shift -= 1) {
        const window = ((2 ** bits - 1) << shift) >>> 0;
        if (((known[lane] ?? 0) & window) !== 0) continue;
        const [sum, squares] =
          rows === null
            ? measure(from, to, length, shift, bits)
            : measureMasked(rows, shift, bits);
        if (sum === 0) continue;
        const score =
          Math.log2(squares / sum) + COPIES * Math.log2(Math.max(1, sum / length)) + WIDTH * bits;
        if (score < bestScore) {
          bestScore = score;
          best = { lane, shift, bits };
        }
      }
    }
  }
  return best;
}
