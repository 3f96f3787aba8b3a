import type { Question } from '../../ir/decision-nodes.ts';
import { splitKey } from '../../ir/operand.ts';
import { sortedElements } from '../../ir/region.ts';
import type { ElementSet, Operand, SetElements } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';
import { addData, type Emitter, emit, fetch, newLabel, reserve } from './emitter.ts';
import {
  add,
  and,
  ja,
  jeq,
  jeq32,
  jgt,
  jgt32,
  jlt,
  jlt32,
  jne,
  label,
  ldImm64,
  ldMapValue,
  ldx,
  lsh,
  mov,
  or,
  type Reg,
  r0,
  r1,
  r2,
  r3,
  r4,
  r5,
  r10,
  rsh,
  stx,
  sub,
} from './insn.ts';
import { loadField, loadOperand } from './loads.ts';

type Lookup = Extract<Question, { kind: 'lookup' }>;

/** Elements up to which a set is cheaper as code than as data. */
const CODE_ELEMENTS = 16;

/** The section of sets as data. */
export const RODATA = '.rodata';

/** Where a part of a key stands in its words of 64 bits. */
interface Place {
  readonly word: number;
  readonly shift: number;
}

/**
 * How a key is packed: parts in order, each inside one word where it fits, wide ones in two words
 * of their own. Any fixed order of the words sorts elements equally well.
 */
export interface KeyShape {
  readonly places: readonly Place[];
  readonly words: number;
}

/** Works out the packing of a key with these part widths (each at most 128 bits). */
export function shapeOf(parts: readonly number[]): KeyShape {
  const places: Place[] = [];
  let word = 0;
  let left = 64;
  for (const width of parts) {
    if (width > left) {
      if (left < 64) word += 1;
      left = 64;
    }
    if (width > 64) {
      places.push({ word, shift: 0 });
      word += 2;
      left = 64;
      continue;
    }
    left -= width;
    places.push({ word, shift: left });
    if (left === 0) {
      word += 1;
      left = 64;
    }
  }
  return { places, words: left < 64 ? word + 1 : word };
}

/** A key's value as words, most significant part first. */
export function packKey(shape: KeyShape, parts: readonly number[], key: bigint): bigint[] {
  const words = Array.from({ length: shape.words }, () => 0n);
  for (const [index, value] of splitKey(parts, key).entries()) {
    const place = shape.places[index];
    if (place === undefined) continue;
    const width = parts[index] ?? 0;
    if (width > 64) {
      words[place.word] = value >> 64n;
      words[place.word + 1] = value & ones(64);
    } else {
      words[place.word] = (words[place.word] ?? 0n) | (value << BigInt(place.shift));
    }
  }
  return words;
}

/** Whether every element is one key, so that boxes are not needed for a concatenation. */
function isExact(elements: SetElements): boolean {
  return elements.hi === elements.lo || elements.hi.every((hi, i) => hi === elements.lo[i]);
}

/** Why a program cannot do this look-up, or null. */
export function lookupProblem(key: readonly Operand[], set: ElementSet): string | null {
  const { parts } = set.elements;
  if (parts.some((width) => width > 128)) return 'a part of the key is wider than 128 bits';
  const wide = key.find(
    ({ field, mask, xor, shift }) =>
      field.width > 64 && (xor !== 0n || shift !== 0 || mask !== ones(field.width)),
  );
  if (wide !== undefined) return `${wide.field.name} is masked inside a key`;
  return null;
}

/** Emits a look-up; control leaves to `yes` or `no`. r0-r5 are lost. */
export function askLookup(emitter: Emitter, question: Lookup, yes: string, no: string): void {
  const { elements } = question.set;
  if (elements.lo.length === 0) {
    emit(emitter, ja(no));
    return;
  }
  const sorted = sortedElements(elements);
  if (sorted === null && !isExact(elements)) askBoxes(emitter, question, yes, no);
  else if (!emitter.dataSections || elements.lo.length <= CODE_ELEMENTS) {
    askInCode(emitter, question, yes, no);
  } else askInData(emitter, question, yes, no);
}

/** Puts the packed key on the stack, word 0 lowest; returns the offset of word 0. */
function stackKey(emitter: Emitter, question: Lookup): number {
  const shape = shapeOf(question.set.elements.parts);
  const base = keyArea(emitter, shape.words);
  const started = new Set<number>();
  for (const [index, operand] of question.key.entries()) {
    const place = shape.places[index];
    if (place === undefined) throw new Error('bug: more key parts than the set has');
    const at = base + 8 * place.word;
    if (operand.field.width > 64) {
      for (const half of [0, 1]) {
        loadField(emitter, r1, operand.field, question.view, 64 * half, 64);
        emit(emitter, stx(8, r10, at + 8 * half, r1));
      }
      continue;
    }
    loadOperand(emitter, r1, operand, question.view);
    if (place.shift > 0) emit(emitter, lsh(r1, place.shift));
    if (started.has(place.word)) emit(emitter, ldx(8, r0, r10, at), or(r1, r0));
    emit(emitter, stx(8, r10, at, r1));
    started.add(place.word);
  }
  return base;
}

const keyAreas = new WeakMap<Emitter, { words: number; offset: number }[]>();

/** One area for all keys of the same length: no two are alive at once. */
function keyArea(emitter: Emitter, words: number): number {
  const areas = keyAreas.get(emitter) ?? [];
  keyAreas.set(emitter, areas);
  const known = areas.find((area) => area.words >= words);
  if (known !== undefined) return known.offset;
  const offset = reserve(emitter, words);
  areas.push({ words, offset });
  return offset;
}

interface Packed {
  readonly shape: KeyShape;
  /** By element, in ascending order. */
  readonly lo: readonly (readonly bigint[])[];
  readonly hi: readonly (readonly bigint[])[];
  readonly exact: boolean;
}

function compareWords(a: readonly bigint[], b: readonly bigint[]): number {
  for (const [index, word] of a.entries()) {
    const other = b[index] ?? 0n;
    if (word !== other) return word < other ? -1 : 1;
  }
  return 0;
}

function pack(elements: SetElements): Packed {
  const source = sortedElements(elements) ?? elements;
  const shape = shapeOf(source.parts);
  const rows = source.lo.map((lo, index) => ({
    lo: packKey(shape, source.parts, lo),
    hi: packKey(shape, source.parts, source.hi[index] ?? lo),
  }));
  rows.sort((a, b) => compareWords(a.lo, b.lo));
  return {
    shape,
    lo: rows.map(({ lo }) => lo),
    hi: rows.map(({ hi }) => hi),
    exact: isExact(source),
  };
}

/** A binary search as code: constants in the instructions. */
function askInCode(emitter: Emitter, question: Lookup, yes: string, no: string): void {
  const packed = pack(question.set.elements);
  const [operand] = question.key;
  if (operand === undefined) throw new Error('bug: look-up without a key');
  if (packed.shape.words > 1) {
    const base = stackKey(emitter, question);
    searchWords(emitter, packed, base, 0, packed.lo.length, yes, no);
    return;
  }
  const narrow = question.key.length === 1 && operand.field.width <= 32;
  if (question.key.length === 1) {
    loadOperand(emitter, r1, operand, question.view);
    const shift = packed.shape.places[0]?.shift ?? 0;
    if (!narrow && shift > 0) emit(emitter, lsh(r1, shift));
    const down = narrow ? BigInt(shift) : 0n;
    const unshift = (rows: Packed['lo']): bigint[] => rows.map(([word]) => (word ?? 0n) >> down);
    searchRegister(emitter, narrow, unshift(packed.lo), unshift(packed.hi), yes, no);
    return;
  }
  const base = stackKey(emitter, question);
  emit(emitter, ldx(8, r1, r10, base));
  const first = (rows: Packed['lo']): bigint[] => rows.map(([word]) => word ?? 0n);
  searchRegister(emitter, false, first(packed.lo), first(packed.hi), yes, no);
}

/** Binary search of r1 over sorted, disjoint intervals. */
function searchRegister(
  emitter: Emitter,
  narrow: boolean,
  lo: readonly bigint[],
  hi: readonly bigint[],
  yes: string,
  no: string,
): void {
  const jump = (op: 'eq' | 'lt' | 'gt', value: bigint, target: string): void => {
    if (narrow) {
      const make = { eq: jeq32, lt: jlt32, gt: jgt32 }[op];
      emit(emitter, make(r1, Number(value), target));
    } else {
      const make = { eq: jeq, lt: jlt, gt: jgt }[op];
      emit(emitter, ldImm64(r0, value), make(r1, r0, target));
    }
  };
  const search = (from: number, to: number): void => {
    if (from >= to) {
      emit(emitter, ja(no));
      return;
    }
    const middle = (from + to) >> 1;
    const low = lo[middle] ?? 0n;
    const high = hi[middle] ?? low;
    if (low === high) {
      jump('eq', low, yes);
      if (to - from === 1) {
        emit(emitter, ja(no));
        return;
      }
    } else if (to - from === 1) {
      jump('lt', low, no);
      jump('gt', high, no);
      emit(emitter, ja(yes));
      return;
    }
    const below = from === middle ? no : newLabel(emitter, 'below');
    jump('lt', low, below);
    if (low !== high) {
      const above = middle + 1 === to ? no : newLabel(emitter, 'above');
      jump('gt', high, above);
      emit(emitter, ja(yes));
      if (above !== no) emit(emitter, label(above));
    }
    if (!(low !== high && middle + 1 === to)) search(middle + 1, to);
    if (below !== no) {
      emit(emitter, label(below));
      search(from, middle);
    }
  };
  search(0, lo.length);
}

/** Binary search over elements of several words; the key is on the stack. */
function searchWords(
  emitter: Emitter,
  packed: Packed,
  base: number,
  from: number,
  to: number,
  yes: string,
  no: string,
): void {
  if (from >= to) {
    emit(emitter, ja(no));
    return;
  }
  const middle = (from + to) >> 1;
  const below = from === middle ? no : newLabel(emitter, 'below');
  const above = middle + 1 === to ? no : newLabel(emitter, 'above');
  const lo = packed.lo[middle] ?? [];
  const hi = packed.hi[middle] ?? lo;
  compareKey(emitter, base, lo, below, packed.exact ? above : null);
  if (packed.exact) emit(emitter, ja(yes));
  else {
    compareKey(emitter, base, hi, null, above);
    emit(emitter, ja(yes));
  }
  if (above !== no) {
    emit(emitter, label(above));
    searchWords(emitter, packed, base, middle + 1, to, yes, no);
  }
  if (below !== no) {
    emit(emitter, label(below));
    searchWords(emitter, packed, base, from, middle, yes, no);
  }
}

/** Leaves to `less` or `more` where the key is; goes on behind when equal, or where that is null. */
function compareKey(
  emitter: Emitter,
  base: number,
  words: readonly bigint[],
  less: string | null,
  more: string | null,
): void {
  const done = newLabel(emitter, 'compared');
  const last = words.length - 1;
  for (const [index, word] of words.entries()) {
    emit(emitter, ldx(8, r1, r10, base + 8 * index), ldImm64(r0, word));
    emit(emitter, jlt(r1, r0, less ?? done));
    if (index < last || more !== null) emit(emitter, jgt(r1, r0, more ?? done));
  }
  emit(emitter, label(done));
}

/** A concatenation with ranges: one element after the other. */
function askBoxes(emitter: Emitter, question: Lookup, yes: string, no: string): void {
  const { elements } = question.set;
  const { parts } = elements;
  const shape = shapeOf(parts.map((width) => (width > 64 ? 128 : 64)));
  const base = keyArea(emitter, shape.words);
  for (const [index, operand] of question.key.entries()) {
    const at = base + 8 * (shape.places[index]?.word ?? 0);
    if (operand.field.width > 64) {
      for (const half of [0, 1]) {
        loadField(emitter, r1, operand.field, question.view, 64 * half, 64);
        emit(emitter, stx(8, r10, at + 8 * half, r1));
      }
    } else {
      loadOperand(emitter, r1, operand, question.view);
      emit(emitter, stx(8, r10, at, r1));
    }
  }
  for (const [element, key] of elements.lo.entries()) {
    const next = newLabel(emitter, 'element');
    const lows = splitKey(parts, key);
    const highs = splitKey(parts, elements.hi[element] ?? key);
    for (const [index, low] of lows.entries()) {
      const high = highs[index] ?? low;
      const at = base + 8 * (shape.places[index]?.word ?? 0);
      askPart(emitter, at, parts[index] ?? 0, low, high, next);
    }
    emit(emitter, ja(yes), label(next));
  }
  emit(emitter, ja(no));
}

function askPart(
  emitter: Emitter,
  at: number,
  width: number,
  low: bigint,
  high: bigint,
  no: string,
): void {
  if (low === 0n && high === ones(width)) return;
  if (width > 64) {
    const split = (value: bigint): bigint[] => [value >> 64n, value & ones(64)];
    compareKey(emitter, at, split(low), no, null);
    compareKey(emitter, at, split(high), null, no);
    return;
  }
  emit(emitter, ldx(8, r1, r10, at));
  if (width <= 32) {
    if (low === high) emit(emitter, jgt32(r1, Number(low), no), jlt32(r1, Number(low), no));
    else emit(emitter, jlt32(r1, Number(low), no), jgt32(r1, Number(high), no));
    return;
  }
  if (low === high) emit(emitter, ldImm64(r0, low), jne(r1, r0, no));
  else {
    emit(emitter, ldImm64(r0, low), jlt(r1, r0, no));
    emit(emitter, ldImm64(r0, high), jgt(r1, r0, no));
  }
}

/*
 * A set as data: 2^k rows in ascending order, the last one repeated to fill up, then, unless all
 * are exact, the same rows' upper ends. A row is one 32-bit word, or 64-bit ones (padded to 2^n), in the
 * machine's own order (little-endian).
 *
 *   lo[0] lo[1] ... lo[2^k-1]  hi[0] hi[1] ... hi[2^k-1]
 */
function wideRowBytes(words: number): number {
  return 8 * 2 ** Math.ceil(Math.log2(words));
}

function writeRows(packed: Packed, narrow: boolean, rows: number): Uint8Array {
  const { words } = packed.shape;
  const rowBytes = narrow ? 4 : wideRowBytes(words);
  const columns = packed.exact ? [packed.lo] : [packed.lo, packed.hi];
  const data = new Uint8Array(columns.length * rows * rowBytes);
  const view = new DataView(data.buffer);
  const down = BigInt(packed.shape.places[0]?.shift ?? 0);
  for (const [column, source] of columns.entries()) {
    for (let row = 0; row < rows; row += 1) {
      const value = source[Math.min(row, source.length - 1)] ?? [];
      const at = (column * rows + row) * rowBytes;
      if (narrow) view.setUint32(at, Number((value[0] ?? 0n) >> down), true);
      else for (const [i, word] of value.entries()) view.setBigUint64(at + 8 * i, word, true);
    }
  }
  return data;
}

/** A binary search in read-only data. */
function askInData(emitter: Emitter, question: Lookup, yes: string, no: string): void {
  const { elements } = question.set;
  const [operand] = question.key;
  const narrow = question.key.length === 1 && operand !== undefined && operand.field.width <= 32;
  const exact = isExact(elements);
  const rows = 2 ** Math.max(1, Math.ceil(Math.log2(elements.lo.length)));
  const offset = addData(emitter.rodata, elements, () => writeRows(pack(elements), narrow, rows));
  if (narrow && operand !== undefined) {
    loadOperand(emitter, r1, operand, question.view);
    emit(emitter, mov(r5, r1));
    searchNarrow(emitter, { offset, rows, exact, yes, no });
    return;
  }
  const base = stackKey(emitter, question);
  const { words } = shapeOf(elements.parts);
  searchWide(emitter, { offset, rows, exact, yes, no, base, words });
}

interface Search {
  readonly offset: number;
  readonly rows: number;
  readonly exact: boolean;
  readonly yes: string;
  readonly no: string;
}

/** r1 is the byte offset of the last row known to start at or below the key in r5. */
function searchNarrow(emitter: Emitter, { offset, rows, exact, yes, no }: Search): void {
  emit(emitter, ldMapValue(r2, RODATA, offset), mov(r1, 0), add(r5, 1));
  for (let step = rows / 2; step >= 1; step /= 2) {
    const ahead = step * 4;
    emit(emitter, mov(r3, r2), add(r3, r1));
    if (ahead > 0x7fff) emit(emitter, add(r3, ahead), ldx(4, r4, r3, 0));
    else emit(emitter, ldx(4, r4, r3, ahead));
    // Negative exactly when the row is not above the key; no branch, so none is mispredicted. (By
    // rsh: verifiers follow both outcomes of an arsh by 63, see maybe_fork_scalars.)
    emit(emitter, sub(r4, r5), rsh(r4, 63), lsh(r4, Math.log2(ahead)), add(r1, r4));
  }
  emit(emitter, add(r5, -1), add(r2, r1), ldx(4, r3, r2, 0));
  if (exact) {
    emit(emitter, jne(r3, r5, no), ja(yes));
    return;
  }
  emit(emitter, jgt(r3, r5, no));
  const column = rows * 4;
  if (column > 0x7fff) emit(emitter, add(r2, column), ldx(4, r3, r2, 0));
  else emit(emitter, ldx(4, r3, r2, column));
  emit(emitter, jgt(r5, r3, no), ja(yes));
}

/** As `searchNarrow`, for keys of 64-bit words that stand on the stack. */
function searchWide(
  emitter: Emitter,
  search: Search & { readonly base: number; readonly words: number },
): void {
  const { offset, rows, exact, yes, no, base, words } = search;
  const size = wideRowBytes(words);
  const all = (rows - 1) * size;
  emit(emitter, ldMapValue(r2, RODATA, offset));
  // Zero that the verifier takes for any row, so that all ways through a step look the same to it.
  fetch(emitter, r1, 'zero');
  emit(emitter, and(r1, all));
  for (let step = rows / 2; step >= 1; step /= 2) {
    const stay = newLabel(emitter, 'stay');
    const take = newLabel(emitter, 'take');
    emit(emitter, mov(r5, r1), add(r5, step * size), and(r5, all));
    emit(emitter, mov(r3, r5), add(r3, r2));
    for (let word = 0; word < words; word += 1) {
      emit(emitter, ldx(8, r4, r3, 8 * word), ldx(8, r0, r10, base + 8 * word));
      emit(emitter, jgt(r4, r0, stay));
      if (word < words - 1) emit(emitter, jlt(r4, r0, take));
    }
    emit(emitter, label(take), mov(r1, r5), label(stay));
  }
  emit(emitter, mov(r3, r1), add(r3, r2));
  if (exact) {
    for (let word = 0; word < words; word += 1) {
      emit(emitter, ldx(8, r4, r3, 8 * word), ldx(8, r0, r10, base + 8 * word));
      emit(emitter, jne(r4, r0, no));
    }
    emit(emitter, ja(yes));
    return;
  }
  compareRow(emitter, r3, base, words, no, null);
  emit(emitter, add(r3, rows * size));
  compareRow(emitter, r3, base, words, null, no);
  emit(emitter, ja(yes));
}

/** The key against a row: leaves to `less` or `more`; null goes on behind. */
function compareRow(
  emitter: Emitter,
  row: Reg,
  base: number,
  words: number,
  less: string | null,
  more: string | null,
): void {
  const done = newLabel(emitter, 'compared');
  for (let word = 0; word < words; word += 1) {
    emit(emitter, ldx(8, r4, row, 8 * word), ldx(8, r0, r10, base + 8 * word));
    emit(emitter, jlt(r0, r4, less ?? done), jgt(r0, r4, more ?? done));
  }
  emit(emitter, label(done));
}
