import type { ViewName } from '../../ir/classifier.ts';
import type { Question } from '../../ir/decision-nodes.ts';
import { type Field, FRAME, fieldKey, META } from '../../ir/fields.ts';
import type { Operand } from '../../ir/ruleset.ts';
import { bits, ones } from '../../support/bits.ts';
import { choose } from './choose.ts';
import { type Code, type CodeTable, need, run, test } from './code.ts';
import { indexTransport, loadField, loadValue, wordsOf } from './field-load.ts';
import type { StraightInsn } from './insn.ts';
import type { Meaning, Place } from './meaning.ts';
import type { Piece } from './pieces.ts';

/** What questions are asked with. */
export interface Asker {
  readonly table: CodeTable;
  readonly meaning: Meaning;
  readonly place: Place;
}

/** A question with where its answers lead. */
export interface Ways {
  readonly yes: Code;
  readonly no: Code;
  readonly rule: string | null;
}

type Compare = Extract<Question, { kind: 'compare' }>;

/** Where values of a field lead: from `from` up to the next one's. */
export interface FieldPiece {
  readonly from: bigint;
  readonly to: Code;
  readonly rule: string | null;
}

// IPv6 extension headers, include/net/ipv6.h: hop-by-hop, routing, fragment, AH, options.
const EXTENSIONS = [0, 43, 44, 51, 60];

/** A field of at most 32 bits by its pieces. */
function chooseWord(
  { table, meaning, place }: Asker,
  field: Field,
  view: ViewName,
  pieces: readonly FieldPiece[],
): Code {
  const [first] = pieces;
  if (first === undefined) throw new Error('bug: a field without pieces');
  if (pieces.length === 1) return first.to;
  const load = loadField(meaning, place, field, view);
  if (load === null) return table.pass;
  const { below, above, plus } = load;
  const scale = 2 ** below;
  const isMasked = above > 0;
  const scaled: Piece[] = [];
  for (const [i, { from, to, rule }] of pieces.entries()) {
    const before = pieces[i - 1];
    const single = isMasked && below > 0 && before !== undefined && from - before.from === 1n;
    // Where the bits below are masked off nothing lies between one value and the next.
    const start = single ? Number(before.from) * scale + 1 : Number(from) * scale;
    scaled.push({ from: Math.max(0, start + (i === 0 ? 0 : plus)), to, rule });
  }
  const top = 2 ** (field.width + below) - 1;
  const known = scaled.filter(({ from }, i) => from <= top && scaled[i + 1]?.from !== from);
  const choice = choose(table, known, { top, leaf: meaning.leaf });
  const mask = Number(ones(field.width)) * scale;
  const insns: StraightInsn[] = [...load.insns];
  if (isMasked) insns.push({ kind: 'alu', op: 'and', src: mask });
  return choice.kind === 'ret' ? choice : run(table, insns, choice, first.rule);
}

/** The pieces of a field's lower words where its first word is `word`. */
function below(pieces: readonly FieldPiece[], word: bigint, shift: bigint): FieldPiece[] {
  const base = word << shift;
  const end = (word + 1n) << shift;
  let start: FieldPiece | undefined;
  const inside: FieldPiece[] = [];
  for (const piece of pieces) {
    if (piece.from <= base) start = piece;
    else if (piece.from < end) inside.push({ ...piece, from: piece.from - base });
  }
  if (start === undefined) throw new Error('bug: pieces that do not start at 0');
  return [{ ...start, from: 0n }, ...inside];
}

/** A field of any width by its pieces, word after word. */
export function chooseField(
  asker: Asker,
  words: readonly Field[],
  view: ViewName,
  pieces: readonly FieldPiece[],
): Code {
  const [word, ...rest] = words;
  if (word === undefined) throw new Error('bug: a field without words');
  if (rest.length === 0) return chooseWord(asker, word, view, pieces);
  const shift = BigInt(rest.reduce((sum, { width }) => sum + width, 0));
  const own: FieldPiece[] = [];
  let last: FieldPiece | null = null;
  for (let i = 0; i < pieces.length; ) {
    const piece = pieces[i];
    if (piece === undefined) break;
    const value = piece.from >> shift;
    let end = i + 1;
    while (end < pieces.length && (pieces[end]?.from ?? 0n) >> shift === value) end += 1;
    const isWhole = end === i + 1 && piece.from === value << shift;
    if (!isWhole) {
      const around = last === null ? pieces.slice(i, end) : [last, ...pieces.slice(i, end)];
      const inner = chooseField(asker, rest, view, below(around, value, shift));
      own.push({ from: value, to: inner, rule: piece.rule });
    }
    last = pieces[end - 1] ?? piece;
    const next = pieces[end];
    const behind = isWhole ? value : value + 1n;
    if (next === undefined || next.from >> shift > behind || isWhole) {
      if (behind <= ones(word.width)) own.push({ from: behind, to: last.to, rule: last.rule });
    }
    i = end;
  }
  return chooseWord(asker, word, view, own);
}

/** Values of a field that lead somewhere else. */
export interface Override {
  readonly lo: number;
  readonly hi: number;
  readonly to: Code;
}

/** Pieces with some values led elsewhere. */
export function overlay(
  pieces: readonly FieldPiece[],
  overrides: readonly Override[],
): FieldPiece[] {
  const edges = new Set(pieces.map(({ from }) => from));
  for (const { lo, hi } of overrides) edges.add(BigInt(lo)).add(BigInt(hi + 1));
  return [...edges]
    .sort((a, b) => (a < b ? -1 : 1))
    .map((from) => {
      const piece = pieces.findLast((one) => one.from <= from);
      if (piece === undefined) throw new Error('bug: pieces that do not start at 0');
      const override = overrides.find(({ lo, hi }) => from >= lo && from <= hi);
      return { from, to: override?.to ?? piece.to, rule: piece.rule };
    });
}

const NEXT_HEADER: Field = { name: 'ip6 nexthdr', base: 'nh', offset: bits(48), width: bits(8) };

/** Pieces of IPv6's next header with extension headers handed on. */
export function withoutExtensions(
  { place, meaning, table }: Asker,
  pieces: readonly FieldPiece[],
): readonly FieldPiece[] {
  if (place.version !== 6 || meaning.frames === 'well-formed') return pieces;
  return overlay(
    pieces,
    EXTENSIONS.map((value) => ({ lo: value, hi: value, to: table.pass })),
  );
}

/** Hands on IPv6 packets with extension headers, whose transport header is somewhere else. */
export function guardExtensions(asker: Asker, code: Code): Code {
  if (asker.place.version !== 6) return code;
  const pieces = withoutExtensions(asker, [{ from: 0n, to: code, rule: null }]);
  return chooseField(asker, [NEXT_HEADER], 'ingress', pieces);
}

/** Whether what a field says depends on IPv6 having no extension headers. */
export function isBehindExtensions(field: Field): boolean {
  const key = fieldKey(field);
  return field.base === 'th' || key === META.l4proto.name || key === FRAME.fragment.name;
}

const FRAGMENT_OFFSET = 0x1fff; // RFC 791 section 3.1
const MORE_FRAGMENTS = 0x2000;

function askFragment(asker: Asker, { lo, hi }: Compare, { yes, no, rule }: Ways): Code {
  const { table, place } = asker;
  const [whole, first, later] = [0n, 1n, 2n].map((kind) => (kind >= lo && kind <= hi ? yes : no));
  if (whole === undefined || first === undefined || later === undefined) return table.pass;
  if (place.version !== 4) return whole;
  const unlessLater = test(table, 'jset', MORE_FRAGMENTS, first, whole, rule);
  const choice = test(table, 'jset', FRAGMENT_OFFSET, later, unlessLater, rule);
  const insn = { kind: 'ld_abs', size: 2, k: place.network + 6 } as const;
  return choice.kind === 'ret' ? choice : run(table, [insn], choice, rule);
}

/** `(A & mask) in lo..hi` for a mask of any shape. */
function testMasked(
  table: CodeTable,
  mask: number,
  lo: number,
  hi: number,
  { yes, no, rule }: Ways,
): Code {
  if (hi === 0) return test(table, 'jset', mask, no, yes, rule);
  const lowest = (mask & -mask) >>> 0;
  if (lo > 0 && lo <= lowest && hi >= mask) return test(table, 'jset', mask, yes, no, rule);
  const insn = { kind: 'alu', op: 'and', src: mask } as const;
  return run(table, [insn], testRange(table, lo, hi, mask, { yes, no, rule }), rule);
}

function testRange(
  table: CodeTable,
  lo: number,
  hi: number,
  top: number,
  { yes, no, rule }: Ways,
): Code {
  if (lo === hi) return test(table, 'jeq', lo, yes, no, rule);
  const upper = hi >= top ? yes : test(table, 'jgt', hi, no, yes, rule);
  return lo === 0 ? upper : test(table, 'jge', lo, upper, no, rule);
}

/** A comparison of a computed value of at most 32 bits. */
function askComputed(asker: Asker, { operand, lo, hi, view }: Compare, ways: Ways): Code {
  const { table, meaning, place } = asker;
  const { field, mask, xor, shift } = operand;
  const load = loadValue(meaning, place, field, view);
  if (load === null) return table.pass;
  const scale = 2 ** load.below;
  const inPlace = Number(mask) * scale;
  if (shift === 0 && (xor === 0n || lo === hi)) {
    const [from, to] = [Number(lo ^ xor), Number(hi ^ xor)];
    if (lo === hi && ((lo ^ xor) & ~mask) !== 0n) return ways.no;
    const end = to * scale;
    return run(table, load.insns, testMasked(table, inPlace, from * scale, end, ways), ways.rule);
  }
  const top = Number(ones(field.width));
  const computed = computeInsns(operand, load.below);
  const choice = testRange(table, Number(lo), Number(hi), top, ways);
  return run(table, [...load.insns, ...computed], choice, ways.rule);
}

/** From the loaded container to the operand's value. */
export function computeInsns(
  { field, mask, xor, shift }: Operand,
  belowBits: number,
): StraightInsn[] {
  const insns: StraightInsn[] = [];
  const alu = (op: 'and' | 'xor' | 'lsh' | 'rsh', src: bigint | number): void => {
    insns.push({ kind: 'alu', op, src: Number(src) });
  };
  if (belowBits > 0) alu('rsh', belowBits);
  alu('and', mask & ones(field.width));
  if (xor !== 0n) alu('xor', xor);
  if (shift > 0) {
    alu('lsh', shift);
    alu('and', ones(field.width));
  } else if (shift < 0) alu('rsh', -shift);
  return insns;
}

/** A wide field compared word by word under a mask, with one value. */
function askWideMasked(asker: Asker, question: Compare, words: readonly Field[], ways: Ways): Code {
  const { operand, lo } = question;
  const value = lo ^ operand.xor;
  if ((value & ~operand.mask) !== 0n || lo !== question.hi) return ways.no;
  let shift = 0n;
  let node = ways.yes;
  for (const word of [...words].reverse()) {
    const mask = (operand.mask >> shift) & ones(word.width);
    const part = (value >> shift) & ones(word.width);
    shift += BigInt(word.width);
    if (mask === 0n) continue;
    const one: Compare = {
      ...question,
      operand: { field: word, mask, xor: 0n, shift: 0 },
      lo: part,
      hi: part,
    };
    node = askComputed(asker, one, { ...ways, yes: node });
  }
  return node;
}

/** Asked where all tests of a single rule hold; no frame has it. */
export const MATCHED: Field = {
  name: 'frame matched',
  base: 'meta',
  offset: bits(0),
  width: bits(1),
};

/** Asks one comparison that is not about an interval of its field. */
export function askCompare(asker: Asker, question: Compare, ways: Ways): Code {
  const { operand } = question;
  const { field } = operand;
  const key = fieldKey(field);
  if (key === MATCHED.name) return asker.table.match;
  const words = wordsOf(field);
  const code =
    key === FRAME.fragment.name
      ? askFragment(asker, question, ways)
      : key === FRAME.checksum.name
        ? asker.table.pass
        : words === null
          ? asker.table.pass
          : words.length > 1
            ? askWideMasked(asker, question, words, ways)
            : askComputed(asker, question, ways);
  return isBehindExtensions(field) ? guardExtensions(asker, code) : code;
}

type Present = Extract<Question, { kind: 'present' }>;

/** At layer 3 IP's own length says what is there. */
function presentAtLayer3(asker: Asker, { base, end }: Present, { yes, no, rule }: Ways): Code {
  const { table, place } = asker;
  const { version, network } = place;
  if (base === 'll' || version === null) return table.pass;
  if (version === 6) {
    const left = base === 'nh' ? end - 40 : end;
    if (left <= 0) return yes;
    const choice = test(table, 'jge', left, yes, no, rule);
    return run(table, [{ kind: 'ld_abs', size: 2, k: network + 4 }], choice, rule);
  }
  const total = { kind: 'ld_abs', size: 2, k: network + 2 } as const;
  const choice = test(table, 'jge', end, yes, no, rule);
  if (base === 'nh') return run(table, [total], choice, rule);
  const sub = { kind: 'alu', op: 'sub', src: 'x' } as const;
  return run(table, [indexTransport(place), total, sub], choice, rule);
}

/** Bytes of the packet that a presence at ingress asks for; for IPv4's transport beside X. */
function endOf({ base, end }: Present, { network, version, tags, hiddenTag }: Place): number {
  if (base === 'll') return hiddenTag && tags > 0 ? end - 4 : end;
  if (base === 'nh') return network + end;
  return network + end + (version === 6 ? 40 : 0);
}

/** Whether the bytes a load needs are there. */
export function askPresent(asker: Asker, question: Present, ways: Ways): Code {
  const { table, meaning, place } = asker;
  const { yes, rule } = ways;
  // Behind a raw IP packet there may have been more at ingress.
  const isCut = meaning.linkType === 'RAW' && question.view === 'ingress';
  const no = isCut ? table.pass : ways.no;
  if (meaning.frames === 'well-formed') return yes;
  const isTransport = question.base === 'th';
  if (question.view === 'l3') {
    const code = presentAtLayer3(asker, question, ways);
    return isTransport ? guardExtensions(asker, code) : code;
  }
  if (isTransport && place.version === null) return no;
  const end = endOf(question, place);
  const indexed = isTransport && place.version === 4;
  if (meaning.failedLoad === 'continue' && no === table.pass) {
    const code = indexed
      ? run(table, [indexTransport(place)], need(table, 'x', end, yes), rule)
      : need(table, 'packet', end, yes);
    return isTransport ? guardExtensions(asker, code) : code;
  }
  const choice = test(table, 'jge', end, yes, no, rule);
  const length = { kind: 'ld_len' } as const;
  const insns: StraightInsn[] = indexed
    ? [indexTransport(place), length, { kind: 'alu', op: 'sub', src: 'x' }]
    : [length];
  const code = run(table, insns, choice, rule);
  return isTransport ? guardExtensions(asker, code) : code;
}
