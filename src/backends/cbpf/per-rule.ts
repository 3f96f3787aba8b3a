import type { Classifier, Entry, Target } from '../../ir/classifier.ts';
import { buildDecision } from '../../ir/decision.ts';
import { equals } from '../../ir/operand.ts';
import { formatRuleId } from '../../ir/ruleset.ts';
import { MATCHED } from './ask.ts';
import type { Insn } from './insn.ts';
import type { Meaning } from './meaning.ts';
import { type Line, orderCode, type Returns } from './order.ts';
import { meaningOf, shorten } from './shorten.ts';
import { threadDecision } from './thread-decision.ts';

/** What every `ret` of a piece stands for until the piece is put in its place. */
const EXITS = { drop: 0, continue: 1, match: 2 } as const;
/** By value: it does not match, the frame is handed on, it matches. */
const MISMATCH = EXITS.drop;
const HAND_ON = EXITS.continue;

/** The code of one rule: needs nothing from what ran before and may stand anywhere. */
export type RulePiece = readonly Insn[];

/** Pieces by what they are made from. */
export type PieceCache = Map<string, RulePiece>;

type PieceOptions = Pick<Meaning, 'dialect' | 'linkType' | 'frames'> & {
  readonly returns: Returns;
};

function keyOf(
  { view, tests }: Entry,
  { dialect, linkType, frames, returns }: PieceOptions,
): string {
  const plain = (_: string, value: unknown): unknown =>
    typeof value === 'bigint' ? `${value}n` : value;
  const isGuarded = returns.continue !== 0;
  return JSON.stringify([dialect, linkType, frames, isGuarded, view, tests], plain);
}

/** The walk through one entry alone: where all its tests hold a mark is asked for. */
function aloneOf(entry: Entry): Classifier {
  const asks: Entry = {
    ...entry,
    counts: [],
    then: { kind: 'entry', index: 1, uncertain: false },
    otherwise: { kind: 'drop' },
  };
  const marks: Entry = {
    ...asks,
    tests: [equals(MATCHED, 1n)],
    then: { kind: 'drop' },
    otherwise: { kind: 'accept' },
  };
  return { device: '', stages: [], counters: [], entries: [asks, marks] };
}

function compileRule(entry: Entry, options: PieceOptions): RulePiece {
  const alone = aloneOf(entry);
  const meaning = meaningOf({ entries: [entry] }, options);
  const decision = threadDecision(
    buildDecision(alone, { leafRules: 2, copies: 1, regions: false }),
  );
  return orderCode(shorten(decision, meaning), EXITS).map(({ insn }) => insn);
}

/**
 * One piece of code for each entry of a specialised classifier. Those that the cache has are taken
 * from it, the others made and left there; `made` says how many.
 */
export function compileRules(
  { entries }: Classifier,
  options: PieceOptions,
  cache: PieceCache,
): { readonly pieces: readonly RulePiece[]; readonly made: number } {
  let made = 0;
  const pieces = entries.map((entry) => {
    const key = keyOf(entry, options);
    const known = cache.get(key);
    if (known !== undefined) return known;
    const piece = compileRule(entry, options);
    cache.set(key, piece);
    made += 1;
    return piece;
  });
  return { pieces, made };
}

/** Where a `ret` of a piece leads. */
function targetOf({ then, otherwise }: Entry, exit: number): Target {
  if (exit === HAND_ON) return { kind: 'accept' };
  return exit === MISMATCH ? otherwise : then;
}

/** Puts pieces together: what each leads to becomes a jump or a return. No piece changes its size. */
export function linkPieces(
  { entries }: Classifier,
  pieces: readonly RulePiece[],
  returns: Returns,
): readonly Line[] {
  const starts: number[] = [];
  let size = 0;
  for (const piece of pieces) {
    starts.push(size);
    size += piece.length;
  }
  const lines: Line[] = [];
  for (const [index, piece] of pieces.entries()) {
    const entry = entries[index];
    if (entry === undefined) throw new Error('bug: a piece without an entry');
    const rule = entry.rule === null ? null : formatRuleId(entry.rule);
    for (const insn of piece) {
      if (insn.kind !== 'ret') {
        lines.push({ insn, rule });
        continue;
      }
      const target = targetOf(entry, Number(insn.value));
      if (target.kind === 'entry') {
        const k = (starts[target.index] ?? 0) - lines.length - 1;
        lines.push({ insn: { kind: 'ja', k }, rule });
      } else {
        const value = target.kind === 'drop' ? returns.drop : returns.continue;
        lines.push({ insn: { kind: 'ret', value }, rule });
      }
    }
  }
  if (lines.length > 0) return lines;
  return [{ insn: { kind: 'ret', value: returns.continue }, rule: null }];
}
