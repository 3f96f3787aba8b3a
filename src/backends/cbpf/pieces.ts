import type { Code } from './code.ts';

/**
 * Where a value in A leads: a piece holds from `from` up to the next piece's. Sorted; the first one
 * starts at 0; neighbours differ.
 */
export interface Piece {
  readonly from: number;
  readonly to: Code;
  readonly rule: string | null;
}

/** A run of pieces inside a choice: those from index `first` to `last`, bounded by values. */
export interface Run {
  readonly pieces: readonly Piece[];
  readonly lo: number;
  readonly hi: number;
}

/** Pieces of one value each between two that lead to the same place: one comparison takes one out. */
export function singlesOf({ pieces, hi }: Run): readonly boolean[] {
  const sizes = pieces.map(({ from }, i) => (pieces[i + 1]?.from ?? hi + 1) - from);
  const singles = pieces.map(() => false);
  for (let i = 1; i < pieces.length; i += 1) {
    if (sizes[i] !== 1) continue;
    let end = i;
    while (end < pieces.length && sizes[end] === 1) end += 1;
    if (end < pieces.length && pieces[end]?.to === pieces[i - 1]?.to) {
      for (let j = i; j < end; j += 1) singles[j] = true;
    }
    i = end;
  }
  return singles;
}

/** Comparisons that a run takes. */
export function costOf(run: Run): number {
  const singles = singlesOf(run);
  let cost = run.pieces.length - 1;
  // A group of n singles between equals has n + 1 edges and takes n comparisons.
  for (let i = 1; i < singles.length; i += 1) if (singles[i] && !singles[i - 1]) cost -= 1;
  return cost;
}

/** Puts the pieces of neighbours that lead to the same place together. */
export function joinPieces(pieces: readonly Piece[]): Piece[] {
  return pieces.filter((piece, i) => i === 0 || pieces[i - 1]?.to !== piece.to);
}
