import type { Question } from '../../ir/decision-nodes.ts';
import { type Field, fieldKey, META } from '../../ir/fields.ts';
import { isPlain, plain, splitKey } from '../../ir/operand.ts';
import type { Operand, SetElements, Test } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';
import { type Asker, computeInsns, guardExtensions, isBehindExtensions, type Ways } from './ask.ts';
import { choose } from './choose.ts';
import { type Code, run } from './code.ts';
import { loadValue, wordsOf } from './field-load.ts';
import { joinPieces, type Piece } from './pieces.ts';

type Lookup = Extract<Question, { kind: 'lookup' }>;

/** One step of a look-up: a word of the key and how many bits it has. */
interface KeyWord {
  readonly field: Field;
  /** Null when the word is the field as it is. */
  readonly computed: Operand | null;
  readonly width: number;
}

/** A product of intervals, one for each word. */
interface Box {
  readonly lo: readonly number[];
  readonly hi: readonly number[];
}

/** Boxes a range over several words may be made of, and elements with ranges in several parts. */
const MOST_RANGED = 64;

function keyWords(operand: Operand): readonly KeyWord[] | null {
  const { field } = operand;
  if (!isPlain(operand)) {
    return field.width <= 32 ? [{ field, computed: operand, width: field.width }] : null;
  }
  const words = wordsOf(field);
  return words?.map((word) => ({ field: word, computed: null, width: word.width })) ?? null;
}

/** An interval over words, most significant first, as intervals that are products. */
function splitInterval(widths: readonly number[], lo: bigint, hi: bigint): Box[] {
  const [width = 0, ...rest] = widths;
  if (rest.length === 0) return [{ lo: [Number(lo)], hi: [Number(hi)] }];
  const shift = BigInt(rest.reduce((sum, bits) => sum + bits, 0));
  const below = ones(Number(shift));
  const first = lo >> shift;
  const last = hi >> shift;
  const prefix = (from: bigint, to: bigint, boxes: readonly Box[]): Box[] =>
    boxes.map((box) => ({ lo: [Number(from), ...box.lo], hi: [Number(to), ...box.hi] }));
  if (first === last) return prefix(first, last, splitInterval(rest, lo & below, hi & below));
  const startsWhole = (lo & below) === 0n;
  const endsWhole = (hi & below) === below;
  const from = startsWhole ? first : first + 1n;
  const to = endsWhole ? last : last - 1n;
  const boxes: Box[] = [];
  if (!startsWhole) boxes.push(...prefix(first, first, splitInterval(rest, lo & below, below)));
  if (from <= to) {
    const whole = { lo: rest.map(() => 0), hi: rest.map((bits) => 2 ** bits - 1) };
    boxes.push(...prefix(from, to, [whole]));
  }
  if (!endsWhole) boxes.push(...prefix(last, last, splitInterval(rest, 0n, hi & below)));
  return width === 0 ? [] : boxes;
}

function product(parts: readonly (readonly Box[])[]): Box[] {
  return parts.reduce<Box[]>(
    (boxes, part) =>
      boxes.flatMap(({ lo, hi }) =>
        part.map((box) => ({ lo: [...lo, ...box.lo], hi: [...hi, ...box.hi] })),
      ),
    [{ lo: [], hi: [] }],
  );
}

function boxesOf({ parts, lo, hi }: SetElements, widths: readonly (readonly number[])[]): Box[] {
  return lo.flatMap((low, index) => {
    const from = splitKey(parts, low);
    const to = splitKey(parts, hi[index] ?? low);
    return product(
      widths.map((words, part) => splitInterval(words, from[part] ?? 0n, to[part] ?? 0n)),
    );
  });
}

/** Chooses by one word after the other among the boxes that are left. */
function chooseBoxes(
  asker: Asker,
  question: Lookup,
  words: readonly KeyWord[],
  boxes: readonly Box[],
  level: number,
  ways: Ways,
): Code {
  const word = words[level];
  if (boxes.length === 0) return ways.no;
  if (word === undefined) return ways.yes;
  const edges = new Set([0]);
  const top = 2 ** word.width - 1;
  for (const { lo, hi } of boxes) {
    edges.add(lo[level] ?? 0);
    if ((hi[level] ?? 0) < top) edges.add((hi[level] ?? 0) + 1);
  }
  const sorted = [...edges].sort((a, b) => a - b);
  const inside = activeBoxes(boxes, level, sorted);
  const pieces: Piece[] = sorted.map((from, index) => ({
    from,
    to: chooseBoxes(asker, question, words, inside[index] ?? [], level + 1, ways),
    rule: ways.rule,
  }));
  return askWord(asker, question, word, joinPieces(pieces), ways);
}

/** The boxes over each of the sorted edges. */
function activeBoxes(boxes: readonly Box[], level: number, sorted: readonly number[]): Box[][] {
  const at = new Map(sorted.map((edge, index) => [edge, index]));
  const active: Box[][] = sorted.map(() => []);
  for (const box of boxes) {
    const first = at.get(box.lo[level] ?? 0) ?? 0;
    const last = at.get((box.hi[level] ?? 0) + 1) ?? sorted.length;
    for (let index = first; index < last; index += 1) active[index]?.push(box);
  }
  return active;
}

function askWord(
  asker: Asker,
  { view }: Lookup,
  { field, computed, width }: KeyWord,
  pieces: readonly Piece[],
  { rule }: Ways,
): Code {
  const { table, meaning, place } = asker;
  const [first] = pieces;
  if (first !== undefined && pieces.length === 1) return first.to;
  const load = loadValue(meaning, place, field, view);
  if (load === null) return constantWord(asker, field, pieces);
  if (computed !== null) {
    const choice = choose(table, pieces, { top: 2 ** width - 1, leaf: meaning.leaf });
    return run(table, [...load.insns, ...computeInsns(computed, load.below)], choice, rule);
  }
  const scale = 2 ** load.below;
  if (load.above > 0) {
    const insns = computeInsns(plain(field), load.below);
    const choice = choose(table, pieces, { top: 2 ** width - 1, leaf: meaning.leaf });
    return run(table, [...load.insns, ...insns], choice, rule);
  }
  const scaled = pieces.map((piece) => ({ ...piece, from: piece.from * scale }));
  const top = 2 ** (width + load.below) - 1;
  const choice = choose(table, scaled, { top, leaf: meaning.leaf });
  return choice.kind === 'ret' ? choice : run(table, load.insns, choice, rule);
}

/** Metadata that every packet of a kind has in common. */
function constantWord({ place, table }: Asker, field: Field, pieces: readonly Piece[]): Code {
  const value = constantOf(field, place.version);
  if (value === null) return table.pass;
  return pieces.findLast(({ from }) => from <= value)?.to ?? table.pass;
}

function constantOf(field: Field, version: 4 | 6 | null): number | null {
  const key = fieldKey(field);
  // EtherTypes: include/uapi/linux/if_ether.h; NFPROTO_*: include/uapi/linux/netfilter.h.
  if (key === META.nfproto.name) return version === 4 ? 2 : version === 6 ? 10 : 5;
  if (key === META.protocol.name && version !== null) return version === 4 ? 0x0800 : 0x86dd;
  return null;
}

/** A look-up of a key in a set, word by word. */
export function askLookup(asker: Asker, question: Lookup, ways: Ways): Code {
  const parts = question.key.map(keyWords);
  const known = parts.filter((part) => part !== null);
  if (known.length < parts.length) return asker.table.pass;
  const widths = known.map((words) => words.map(({ width }) => width));
  const boxes = boxesOf(question.set.elements, widths);
  const code = chooseBoxes(asker, question, known.flat(), boxes, 0, ways);
  const isBehind = question.key.some(({ field }) => isBehindExtensions(field));
  return isBehind ? guardExtensions(asker, code) : code;
}

/** Why no program can look up in a set, or null. */
export function lookupProblem(test: Extract<Test, { kind: 'lookup' }>): string | null {
  const { parts, lo, hi } = test.set.elements;
  for (const operand of test.key) {
    if (keyWords(operand) === null) return `${operand.field.name} is computed with`;
  }
  if (parts.length < 2 || hi === lo) return null;
  const ranged = lo.filter((low, index) => {
    const from = splitKey(parts, low);
    const to = splitKey(parts, hi[index] ?? low);
    return from.filter((value, part) => value !== to[part]).length > 1;
  });
  return ranged.length > MOST_RANGED
    ? `${ranged.length} elements have ranges in several parts, at most ${MOST_RANGED}`
    : null;
}
