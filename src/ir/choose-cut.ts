import { type Field, fieldKey, META } from './fields.ts';
import { isPlain } from './operand.ts';
import { intervalOf, presenceOf, sortedElements } from './region.ts';
import type { View } from './residual.ts';
import type { Test } from './ruleset.ts';

/** A value cut: everything below `at`, and the rest. */
export interface Cut {
  readonly field: Field;
  /** The first value of the upper side. */
  readonly at: bigint;
}

/** Rows looked at to choose a cut, and values tried on each field. */
const SAMPLE = 40;
const POINTS = 8;

/** The values of one field that the sampled rows may match; rounded, which only blurs the choice. */
interface Spans {
  readonly field: Field;
  /** By row of the sample; rows that do not ask match anything. */
  readonly low: Float64Array;
  readonly high: Float64Array;
  /** Where a span begins, or the value behind its end. */
  readonly edges: bigint[];
}

function openSpans(field: Field, rows: number): Spans {
  const low = new Float64Array(rows).fill(-1);
  const high = new Float64Array(rows).fill(Number.POSITIVE_INFINITY);
  return { field, low, high, edges: [] };
}

/** The value cut that splits the rows best, or null when none is worth its copies. */
export function chooseCut({ rows, region }: View): Cut | null {
  const step = Math.max(1, Math.floor(rows.length / SAMPLE));
  const size = Math.ceil(rows.length / step);
  const byField = new Map<string, Spans>();
  for (let index = 0; index < size; index += 1) {
    const row = rows[index * step];
    if (row === undefined) continue;
    for (const { test } of row.tests) {
      const span = spanOf(test);
      if (span === null || isCostly(span.field)) continue;
      if (presenceOf(span.field, row.view, region) !== 'present') continue;
      let spans = byField.get(span.key);
      if (spans === undefined) {
        spans = openSpans(span.field, size);
        byField.set(span.key, spans);
      }
      spans.low[index] = Number(span.lo);
      spans.high[index] = Number(span.hi);
      spans.edges.push(span.lo, span.hi + 1n);
    }
  }
  let best: Cut | null = null;
  let bestCost = 0.8 * size;
  for (const [key, { field, low, high, edges }] of byField) {
    for (const at of cutPoints(edges, region.get(key)?.lo ?? 0n)) {
      const cost = costOf(Number(at), low, high);
      if (cost >= bestCost) continue;
      best = { field, at };
      bestCost = cost;
    }
  }
  return best;
}

/** Rows on the fuller side, and half of those that stand on both. */
function costOf(at: number, low: Float64Array, high: Float64Array): number {
  let below = 0;
  let above = 0;
  for (let index = 0; index < low.length; index += 1) {
    if ((low[index] ?? 0) < at) below += 1;
    if ((high[index] ?? 0) >= at) above += 1;
  }
  return Math.max(below, above) + 0.5 * (below + above - low.length);
}

/** The least and greatest value a test's field may have for it to hold; null where that is no help. */
function spanOf(test: Test): ReturnType<typeof intervalOf> {
  if (test.kind === 'unknown' || test.negated) return null;
  if (test.kind === 'compare') return intervalOf(test);
  const [operand] = test.key;
  const sorted = sortedElements(test.set.elements);
  if (operand === undefined || sorted === null) return null;
  if (!isPlain(operand)) return null;
  const lo = sorted.lo[0];
  const hi = sorted.hi.at(-1);
  if (lo === undefined || hi === undefined) return null;
  return { key: fieldKey(operand.field), field: operand.field, lo, hi, isAll: false };
}

/** Cutting on these would make every frame pay for them. */
function isCostly(field: Field): boolean {
  return field.name.startsWith('frame ') || fieldKey(field) === META.length.name;
}

/** A few values spread over where spans begin and end. */
function cutPoints(edges: readonly bigint[], lowest: bigint): bigint[] {
  const points = [...new Set(edges)].filter((at) => at > lowest);
  points.sort((a, b) => (a < b ? -1 : 1));
  if (points.length <= POINTS) return points;
  return Array.from({ length: POINTS }, (_, i) => {
    const at = Math.floor(((i + 0.5) * points.length) / POINTS);
    return points[at] ?? 0n;
  });
}
