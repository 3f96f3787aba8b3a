import { type Field, fieldKey, META } from './fields.ts';
import { intervalOf, presenceOf, sortedElements } from './region.ts';
import type { View } from './residual.ts';
import type { Test } from './ruleset.ts';

/** A value cut: everything below `at`, and the rest. */
export interface Cut {
  readonly field: Field;
  /** The first value of the upper side. */
  readonly at: bigint;
}

const SAMPLE = 96;

/** The value cut that splits the rows best, or null when none is worth its copies. */
export function chooseCut({ rows, region }: View): Cut | null {
  const step = Math.max(1, Math.floor(rows.length / SAMPLE));
  const sample = rows.filter((_, index) => index % step === 0);
  const byField = new Map<string, { field: Field; spans: (readonly [bigint, bigint] | null)[] }>();
  for (const [index, row] of sample.entries()) {
    for (const { test } of row.tests) {
      if (test.kind === 'unknown' || test.negated) continue;
      const interval = spanOf(test);
      if (interval === null || isCostly(interval.field)) continue;
      if (presenceOf(interval.field, row.view, region) !== 'present') continue;
      let known = byField.get(interval.key);
      if (known === undefined) {
        known = { field: interval.field, spans: sample.map(() => null) };
        byField.set(interval.key, known);
      }
      known.spans[index] = [interval.lo, interval.hi];
    }
  }
  let best: { cut: Cut; cost: number } | null = null;
  for (const [key, { field, spans }] of byField) {
    for (const at of cutPoints(spans, region.get(key)?.lo ?? 0n)) {
      let low = 0;
      let high = 0;
      for (const span of spans) {
        if (span === null || span[0] < at) low += 1;
        if (span === null || span[1] >= at) high += 1;
      }
      const cost = Math.max(low, high) + 0.5 * (low + high - spans.length);
      if (best === null || cost < best.cost) best = { cut: { field, at }, cost };
    }
  }
  return best !== null && best.cost <= 0.8 * sample.length ? best.cut : null;
}

/** The least and greatest value a test's field may have for it to hold. */
function spanOf(test: Test): ReturnType<typeof intervalOf> {
  if (test.kind === 'compare') return intervalOf(test);
  if (test.kind !== 'lookup' || test.key.length !== 1) return null;
  const [operand] = test.key;
  const sorted = sortedElements(test.set.elements);
  if (operand === undefined || sorted === null || operand.shift !== 0 || operand.xor !== 0n)
    return null;
  const lo = sorted.lo[0];
  const hi = sorted.hi.at(-1);
  if (lo === undefined || hi === undefined) return null;
  return { key: fieldKey(operand.field), field: operand.field, lo, hi };
}

/** Cutting on these would make every frame pay for them. */
function isCostly(field: Field): boolean {
  return field.name.startsWith('frame ') || fieldKey(field) === META.length.name;
}

const POINTS = 12;

function cutPoints(spans: readonly (readonly [bigint, bigint] | null)[], lowest: bigint): bigint[] {
  const ends = spans.flatMap((span) => (span === null ? [] : [span[0], span[1] + 1n]));
  const points = [...new Set(ends)].filter((at) => at > lowest).sort((a, b) => (a < b ? -1 : 1));
  if (points.length <= POINTS) return points;
  return Array.from({ length: POINTS }, (_, i) => {
    const at = Math.floor(((i + 0.5) * points.length) / POINTS);
    return points[at] ?? 0n;
  });
}
