import { type Code, type CodeTable, run, test } from './code.ts';
import { costOf, joinPieces, type Piece, type Run, singlesOf } from './pieces.ts';
import { testBits } from './test-bits.ts';

/** The top of what A holds, and what may be done with it. */
export interface ChoiceOptions {
  /** Greatest value A can have. */
  readonly top: number;
  /** Single values asked one after the other before they are split by size. */
  readonly leaf: number;
}

function slice({ pieces, lo, hi }: Run, at: number): readonly [Run, Run] {
  const first = pieces.findIndex(({ from }) => from >= at);
  const cut = first === -1 ? pieces.length : first;
  const low = { pieces: pieces.slice(0, cut), lo, hi: at - 1 };
  const above = pieces.slice(cut);
  const inside = pieces[cut - 1];
  const starts = above[0]?.from === at || inside === undefined;
  const high = starts ? above : [{ ...inside, from: at }, ...above];
  return [low, { pieces: high, lo: at, hi }];
}

/** The value that splits a run best: at an edge that must be asked for anyway, else in a gap. */
function chooseSplit(run: Run, singles: readonly boolean[], leaf: number): number | null {
  const { pieces } = run;
  let best: number | null = null;
  let least = Number.POSITIVE_INFINITY;
  const middle = pieces.length / 2;
  for (let i = 1; i < pieces.length; i += 1) {
    if (singles[i] || singles[i - 1]) continue;
    const off = Math.abs(i - middle);
    if (off < least) {
      least = off;
      best = pieces[i]?.from ?? null;
    }
  }
  if (best !== null) return best;
  const count = singles.filter(Boolean).length;
  if (count <= leaf) return null;
  for (let i = 1; i < pieces.length; i += 1) {
    if (singles[i] !== true || singles[i + 1] === true) continue;
    const off = Math.abs(i + 1 - middle);
    if (off < least) {
      least = off;
      best = pieces[i + 1]?.from ?? null;
    }
  }
  return best;
}

/** Comparisons of A with constants, A kept. */
function compareRun(table: CodeTable, run: Run, leaf: number): Code {
  const { pieces } = run;
  const [first, second] = pieces;
  if (first === undefined) throw new Error('bug: a choice without pieces');
  if (second === undefined) return first.to;
  const singles = singlesOf(run);
  const at = chooseSplit(run, singles, leaf);
  if (at !== null) {
    const [low, high] = slice(run, at);
    const yes = compareRun(table, high, leaf);
    const rule = pieces.find(({ from }) => from >= at)?.rule ?? null;
    return splitAt(table, at, high, low, yes, compareRun(table, low, leaf), rule);
  }
  let node = first.to;
  for (let i = pieces.length - 1; i > 0; i -= 1) {
    const piece = pieces[i];
    if (piece !== undefined && singles[i]) {
      node = test(table, 'jeq', piece.from, piece.to, node, piece.rule);
    }
  }
  return node;
}

/** `>=`, or an equality where one side is a single value, which leaves more known. */
function splitAt(
  table: CodeTable,
  at: number,
  high: Run,
  low: Run,
  yes: Code,
  no: Code,
  rule: string | null,
): Code {
  if (high.lo === high.hi) return test(table, 'jeq', at, yes, no, rule);
  if (low.lo === low.hi) return test(table, 'jeq', low.lo, no, yes, rule);
  return test(table, 'jge', at, yes, no, rule);
}

/** The place that most pieces lead to. */
function usualOf(pieces: readonly Piece[]): Code | null {
  const counts = new Map<Code, number>();
  for (const { to } of pieces) counts.set(to, (counts.get(to) ?? 0) + 1);
  let usual: Code | null = null;
  for (const [to, count] of counts) {
    if (usual === null || count > (counts.get(usual) ?? 0)) usual = to;
  }
  return usual;
}

/** Bits below a prefix that a piece is, or -1 where it is none or starts with everything. */
function blockBits(from: number, to: number): number {
  const bits = Math.log2(to - from);
  return Number.isInteger(bits) && from % 2 ** bits === 0 ? bits : -1;
}

/** Prefixes of one length, to be compared after the bits below are masked off. */
interface Group {
  readonly bits: number;
  readonly members: readonly Piece[];
}

/** Groups of at least two prefixes that cost less when masked; `rest` leads past them. */
function takeGroups(run: Run): { readonly groups: readonly Group[]; readonly rest: Run } {
  const usual = usualOf(run.pieces);
  const byBits = new Map<number, Piece[]>();
  for (const [i, piece] of run.pieces.entries()) {
    const end = run.pieces[i + 1]?.from ?? run.hi + 1;
    const bits = blockBits(piece.from, end);
    if (piece.to === usual || bits <= 0) continue;
    byBits.set(bits, [...(byBits.get(bits) ?? []), piece]);
  }
  const groups: Group[] = [];
  let rest = run;
  for (const [bits, members] of [...byBits].sort(([a], [b]) => a - b)) {
    if (members.length < 2 || usual === null) continue;
    const taken = new Set(members);
    const without = {
      ...rest,
      pieces: joinPieces(
        rest.pieces.map((piece) => (taken.has(piece) ? { ...piece, to: usual } : piece)),
      ),
    };
    if (costOf(without) + members.length + 1 >= costOf(rest)) continue;
    groups.push({ bits, members });
    rest = without;
  }
  return { groups, rest };
}

/** What is known of A, so that pieces have a node only where they lead somewhere. */
export function choose(
  table: CodeTable,
  pieces: readonly Piece[],
  { top, leaf }: ChoiceOptions,
): Code {
  const whole: Run = { pieces: joinPieces(pieces), lo: 0, hi: top };
  const { groups, rest } = takeGroups(whole);
  const usual = usualOf(whole.pieces);
  if (groups.length === 0 || usual === null) {
    return compareRun(table, { ...whole, pieces: testBits(table, whole.pieces) }, leaf);
  }
  // Masks in order of growing width: each works on what the one before has left in A.
  let behind = usual;
  for (const { bits, members } of [...groups].reverse()) {
    const ends: Piece[] = [{ from: 0, to: behind, rule: null }];
    for (const member of members) {
      if (member.from === 0) ends.pop();
      ends.push(member, { from: member.from + 1, to: behind, rule: null });
    }
    const masked = joinEqualStarts(ends);
    const choice = compareRun(table, { pieces: joinPieces(masked), lo: 0, hi: top }, leaf);
    const mask = (0xffff_ffff - (2 ** bits - 1)) >>> 0;
    const and = { kind: 'alu', op: 'and', src: (mask & top) >>> 0 } as const;
    behind = run(table, [and], choice, members[0]?.rule ?? null);
  }
  const redirected = rest.pieces.map((piece) =>
    piece.to === usual ? { ...piece, to: behind } : piece,
  );
  return compareRun(table, { ...rest, pieces: redirected }, leaf);
}

/** Of pieces that start at the same value the last one counts. */
function joinEqualStarts(pieces: readonly Piece[]): Piece[] {
  return pieces.filter((piece, i) => pieces[i + 1]?.from !== piece.from);
}
