import { expandRows } from './expand.ts';
import { expandRanges } from './expand-ranges.ts';
import { createDecider } from './function-table.ts';
import { type Layout, layOut } from './layout.ts';
import { optimisePrefixes } from './prefix-paint.ts';
import { dropRedundant, removeRedundant } from './redundancy.ts';
import { compact, type RowStore } from './row-store.ts';

/** How hard to look for fewer rows. */
export const EFFORTS = ['low', 'normal', 'high'] as const;
export type Effort = (typeof EFFORTS)[number];

/** Steps of one question, and of all widening together; no clock, so that results are the same. */
const BUDGETS: Readonly<
  Record<Effort, { readonly question: number; readonly removal: number; readonly widening: number }>
> = {
  low: { question: 100, removal: 3_000_000, widening: 0 },
  normal: { question: 200, removal: 20_000_000, widening: 500_000 },
  high: { question: 2_000, removal: 1_000_000_000, widening: 30_000_000 },
};

/** Steps a row needs at least: with fewer, widening would stop before it found anything. */
const WIDENING_SHARE = 25;

/** Fewer rows that decide every key the same; ranges stay ranges. */
export function minimiseRanges(store: RowStore, layout: Layout, effort: Effort): RowStore {
  const { question, removal } = BUDGETS[effort];
  return optimisePrefixes(removeRedundant(store, question, removal), layout, question);
}

/** The layout with all columns compared bit by bit. */
export function withoutRanges(layout: Layout): Layout {
  return layOut(layout.columns, () => false, layout.fixedProtocols);
}

/** Rows of value and mask only, for `withoutRanges(layout)`. */
export function minimiseTernary(store: RowStore, layout: Layout, effort: Effort): RowStore {
  const target = withoutRanges(layout);
  const { question, removal, widening } = BUDGETS[effort];
  const direct = removeRedundant(expandRanges(store, layout, target, true), question, removal);
  if (widening === 0 || direct.count * WIDENING_SHARE > widening) return direct;
  const decider = createDecider(compact(direct));
  expandRows(decider, target, Math.min(question, 100), widening);
  dropRedundant(decider, question, removal);
  const widened = compact(decider.store);
  return widened.count < direct.count ? widened : direct;
}

/** As `minimiseTernary`, with prefixes only where a device or format has no bit masks. */
export function expandPlainly(store: RowStore, layout: Layout): RowStore {
  return expandRanges(store, layout, withoutRanges(layout), false);
}
