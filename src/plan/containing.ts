/** A range of values, both ends included. */
export interface Span {
  readonly lo: bigint;
  readonly hi: bigint;
}

/**
 * Finds all spans that contain a given one: the spans in order of `lo`, and over them a tree of the
 * greatest `hi` (an implicit interval tree). Takes time for the logarithm of the spans and for every
 * span found.
 */
export function createContaining<T extends Span>(
  spans: readonly T[],
): (span: Span) => readonly T[] {
  const sorted = [...spans].sort((a, b) => (a.lo < b.lo ? -1 : a.lo > b.lo ? 1 : 0));
  const greatest: bigint[] = [];
  const build = (from: number, to: number): bigint => {
    if (from >= to) return -1n;
    const middle = (from + to) >> 1;
    const own = sorted[middle]?.hi ?? -1n;
    const sides = [build(from, middle), build(middle + 1, to)];
    const most = sides.reduce((a, b) => (a > b ? a : b), own);
    greatest[middle] = most;
    return most;
  };
  build(0, sorted.length);
  return ({ lo, hi }) => {
    const found: T[] = [];
    const visit = (from: number, to: number): void => {
      if (from >= to) return;
      const middle = (from + to) >> 1;
      const span = sorted[middle];
      if (span === undefined || (greatest[middle] ?? -1n) < hi) return;
      visit(from, middle);
      if (span.lo > lo) return;
      if (span.hi >= hi) found.push(span);
      visit(middle + 1, to);
    };
    visit(0, sorted.length);
    return found;
  };
}
