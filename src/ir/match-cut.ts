import { generationLane, type MatchTable } from './match-table.ts';

/** A window of a lane: `bits` bits from bit `shift` up. */
export interface Cut {
  readonly lane: number;
  readonly shift: number;
  readonly bits: number;
}

/** Boxes that are looked at to choose; more change the choice little. */
const SAMPLE = 1024;
/** Widths of windows, all even: node descriptors have three bits for them. */
const LEAST_BITS = 2;
const MOST_BITS = 12;
/** Widths differ by. */
const STEP_BITS = 2;
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

/** What was measured last: the sum and the sum of squares of the children's lengths. */
const measured = { sum: 0, squares: 0 };

function addUp(start: number, size: number, isRunning: boolean): void {
  let here = start;
  let sum = 0;
  let squares = 0;
  for (let value = 0; value < size; value += 1) {
    here = isRunning ? here + (counts[value] ?? 0) : (counts[value] ?? 0);
    sum += here;
    squares += here * here;
  }
  measured.sum = sum;
  measured.squares = squares;
}

function measure(from: Uint32Array, to: Uint32Array, shift: number, bits: number): void {
  const size = 2 ** bits;
  const top = size - 1;
  for (let value = 0; value <= size; value += 1) counts[value] = 0;
  let everywhere = 0;
  for (let index = 0; index < from.length; index += 1) {
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
  addUp(everywhere, size, true);
}

/** As `measure` for a lane with masks, where what a box allows need not be an interval. */
function measureMasked(
  from: Uint32Array,
  to: Uint32Array,
  value: Uint32Array,
  mask: Uint32Array,
  shift: number,
  bits: number,
): void {
  const size = 2 ** bits;
  counts.fill(0, 0, size);
  for (let index = 0; index < from.length; index += 1) {
    const first = (from[index] ?? 0) >>> shift;
    const span = Math.min(size, ((to[index] ?? 0) >>> shift) - first + 1);
    const asked = ((mask[index] ?? 0) >>> shift) & (size - 1);
    const want = ((value[index] ?? 0) >>> shift) & asked;
    for (let step = 0; step < span; step += 1) {
      const at = (first + step) & (size - 1);
      if ((at & asked) === want) counts[at] = (counts[at] ?? 0) + 1;
    }
  }
  addUp(0, size, false);
}

/** The sample's boxes in one lane. */
interface Column {
  readonly lane: number;
  readonly width: number;
  /** Bits of the lane that are known. */
  readonly known: number;
  readonly from: Uint32Array;
  readonly to: Uint32Array;
  /** Value and mask where the lane has masks, else null. */
  readonly masked: { readonly value: Uint32Array; readonly mask: Uint32Array } | null;
}

function columnOf(
  table: MatchTable,
  sample: Uint32Array,
  lane: number,
  known: number,
  low: number,
  high: number,
): Column | null {
  const lows = table.lo[lane];
  const highs = table.hi[lane];
  const width = table.key.widths[lane] ?? 0;
  if (low === high || width < LEAST_BITS || lows === undefined || highs === undefined) return null;
  const masks = table.mask[lane] ?? null;
  const values = table.value[lane] ?? null;
  const { length } = sample;
  const from = new Uint32Array(length);
  const to = new Uint32Array(length);
  let isAsked = false;
  let isMasked = false;
  for (let index = 0; index < length; index += 1) {
    const box = sample[index] ?? 0;
    const a = Math.max(low, lows[box] ?? 0);
    const b = Math.min(high, highs[box] ?? 0);
    from[index] = a;
    to[index] = b;
    if (a > low || b < high) isAsked = true;
    if (masks !== null && (masks[box] ?? 0) !== 0) isMasked = true;
  }
  if (!isAsked && !isMasked) return null;
  const pick = (column: Uint32Array | null): Uint32Array => sample.map((box) => column?.[box] ?? 0);
  const masked = isMasked ? { value: pick(values), mask: pick(masks) } : null;
  return { lane, width, known, from, to, masked };
}

/** How short the lists get, and at what price; less is better. Infinite for what is known in part. */
function score(column: Column, shift: number, bits: number): number {
  const { known, from, to, masked, width } = column;
  if (shift < 0 || shift + bits > width) return Number.POSITIVE_INFINITY;
  const window = ((2 ** bits - 1) << shift) >>> 0;
  if ((known & window) !== 0) return Number.POSITIVE_INFINITY;
  if (masked === null) measure(from, to, shift, bits);
  else measureMasked(from, to, masked.value, masked.mask, shift, bits);
  if (measured.sum === 0) return Number.POSITIVE_INFINITY;
  const copies = measured.sum / from.length;
  return (
    Math.log2(measured.squares / measured.sum) +
    COPIES * Math.log2(Math.max(1, copies)) +
    WIDTH * bits
  );
}

/** Windows of the first look that are looked at in other widths. */
const CANDIDATES = 3;
const FIRST_BITS = 6;

/**
 * The window that leaves the shortest lists for what it costs, or null where none helps. `known` says
 * which bits of each lane are known, `low` and `high` within what it is.
 */
export function chooseCut(
  table: MatchTable,
  list: Uint32Array,
  known: Uint32Array,
  low: Uint32Array,
  high: Uint32Array,
): Cut | null {
  const sample = sampleOf(list);
  const widest = Math.min(MOST_BITS, Math.ceil(Math.log2(list.length)) + 3);
  const first = Math.min(FIRST_BITS, widest);
  const found: { column: Column; shift: number; score: number }[] = [];
  // Not by generation: the boxes of one do not stay together.
  for (let lane = 0; lane < generationLane(table.key); lane += 1) {
    const column = columnOf(
      ...([table, sample, lane, known[lane] ?? 0, low[lane] ?? 0, high[lane] ?? 0] as const),
    );
    if (column === null) continue;
    const bits = Math.min(first, column.width - (column.width % STEP_BITS));
    for (let shift = column.width - bits; shift >= 0; shift -= 1) {
      found.push({ column, shift, score: score(column, shift, bits) });
    }
  }
  found.sort((a, b) => a.score - b.score);
  let best: Cut | null = null;
  let bestScore = Math.log2(sample.length) - LEAST_GAIN;
  for (const { column, shift } of found.slice(0, CANDIDATES)) {
    const end = Math.min(column.width, shift + first);
    for (let bits = LEAST_BITS; bits <= widest; bits += STEP_BITS) {
      // The same window at its lower and at its upper end, longer or shorter.
      for (const at of [shift, end - bits]) {
        const own = score(column, at, bits);
        if (own < bestScore) {
          bestScore = own;
          best = { lane: column.lane, shift: at, bits };
        }
      }
    }
  }
  return best;
}
