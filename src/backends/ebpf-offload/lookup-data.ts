import { addData, type Emitter, emit, fetch, newLabel } from './emitter.ts';
import {
  add,
  and,
  ja,
  jgt,
  jlt,
  jne,
  label,
  ldMapValue,
  ldx,
  lsh,
  mov,
  type Reg,
  r0,
  r1,
  r2,
  r3,
  r4,
  r5,
  r10,
  rsh,
  sub,
} from './insn.ts';
import { loadOperand } from './loads.ts';
import { type Lookup, stackKey } from './lookup-key.ts';
import { isExact, type Packed, pack, shapeOf } from './set-key.ts';

/** The section of sets as data. */
export const RODATA = '.rodata';

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
export function askInData(emitter: Emitter, question: Lookup, yes: string, no: string): void {
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
