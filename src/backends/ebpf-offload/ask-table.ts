import type { DecisionNode, TableNode } from '../../ir/decision-nodes.ts';
import type { KeyPart, Presence } from '../../ir/match-table.ts';
import { generationLane, laneBytes, NO_ORDER, presenceLane } from '../../ir/match-table.ts';
import {
  addData,
  CONTINUE,
  type Emitter,
  END,
  emit,
  fetch,
  newLabel,
  PROTO,
  store,
} from './emitter.ts';
import {
  add,
  add32,
  and,
  and32,
  ja,
  jeq32,
  jge,
  jge32,
  jgt,
  jgt32,
  jle,
  jne,
  jne32,
  label,
  ldMapValue,
  ldx,
  lsh,
  lsh32,
  mov,
  mov32,
  r0,
  r1,
  r2,
  r3,
  r4,
  r5,
  r8,
  r9,
  r10,
  rsh,
  rsh32,
  stx,
  sub,
  sub32,
  xor,
} from './insn.ts';
import { baseRegister, loadField } from './loads.ts';
import { actionWord, TARGET_BITS, type TreeData, writeTree } from './tree-data.ts';
import type { Column } from './tree-layout.ts';

/*
 * The section of tables. Not read-only: what is frozen could not be changed while it runs. It begins with
 * the generation (u32), then zeros up to byte 64.
 */
export const TREES = '.data.tree';
const HEADER_BYTES = 64;

/** Where the walk keeps the number of the best rule so far and what it does. */
const BEST = r9;
const ACTION = r8;

/** What an action leads to. */
export interface TableWay {
  readonly label: string;
  /** Where the counter that counts is noted, or null where none does. */
  readonly pend: number | null;
}

export interface TableOptions {
  readonly slotOf: (counter: number) => number | null;
  /** A table's data where it is there already. */
  readonly dataOf: (node: TableNode) => TreeData | null;
  /** First byte of the key, from r10: `KEY_BYTES` are free there. */
  readonly key: number;
  /** By target of the node. */
  readonly ways: readonly TableWay[];
}

/** Whether what follows needs the registers that the walk takes. */
export function leadsToCode({ targets }: TableNode): boolean {
  return targets.some(({ kind }: DecisionNode) => kind !== 'leaf');
}

/** Emits a table: its key, the walk through its trees, what the rule found does. r0-r5 are lost. */
export function emitTable(emitter: Emitter, node: TableNode, options: TableOptions): void {
  const data = options.dataOf(node) ?? writeTree(node, options.slotOf);
  const offset = addData(emitter.trees, node, () => data.bytes);
  emitter.tables.push({ node, data, offset });
  emitKey(emitter, node, data, options.key);
  const keeps = leadsToCode(node);
  if (keeps) {
    store(emitter, 'saved-proto', PROTO);
    store(emitter, 'saved-end', END);
  }
  // The verifier knows the same of what is found in a table.
  emit(emitter, mov32(BEST, NO_ORDER), mov32(ACTION, actionWord(node.none, null)));
  for (const tree of node.forest.trees.keys()) {
    emitTree(emitter, node, data, offset, tree, options.key);
  }
  if (keeps) {
    emit(emitter, mov(r1, ACTION));
    fetch(emitter, PROTO, 'saved-proto');
    fetch(emitter, END, 'saved-end');
  } else emit(emitter, mov(r1, ACTION));
  emitWays(emitter, options.ways);
}

/** Begins the section of tables, and reads the generation, once a packet. r1 is lost. */
export function emitGeneration(emitter: Emitter, generation: number): void {
  addData(emitter.trees, emitter, () => {
    const header = new Uint8Array(HEADER_BYTES);
    new DataView(header.buffer).setUint32(0, generation, true);
    return header;
  });
  emit(emitter, ldMapValue(r1, TREES, 0), ldx(4, r1, r1, 0));
  store(emitter, 'generation', r1, 4);
}

/** r1 is an action. */
function emitWays(emitter: Emitter, ways: readonly TableWay[]): void {
  if (ways.some(({ pend }) => pend !== null)) {
    // By xor, as `emitPend`: else the verifier would tell what is counted here from what is not.
    fetch(emitter, r0, 'zero');
    emit(emitter, mov32(r2, r1), rsh32(r2, TARGET_BITS), xor(r0, r2));
  }
  emit(emitter, and32(r1, 2 ** TARGET_BITS - 1));
  const last = ways.length - 1;
  for (const [target, way] of ways.entries()) {
    const next = target === last ? null : newLabel(emitter, 'way');
    if (way.pend === null) {
      if (next === null) emit(emitter, ja(way.label));
      else emit(emitter, jeq32(r1, target, way.label));
      continue;
    }
    if (next !== null) emit(emitter, jne32(r1, target, next));
    emit(emitter, stx(8, r10, way.pend, r0), ja(way.label));
    if (next !== null) emit(emitter, label(next));
  }
}

/** Fills the key. What cannot be loaded is 0, and its presence bit too. */
function emitKey(emitter: Emitter, { table }: TableNode, { layout }: TreeData, key: number): void {
  const { parts, presences, widths } = table.key;
  // Zeros that the verifier does not know: what is stored over them is no less known.
  fetch(emitter, r4, 'zero');
  for (let word = 0; word < layout.words; word += 1) emit(emitter, stx(8, r10, key + 8 * word, r4));
  const storeParts = (guard: number | null): void => {
    for (const part of parts) {
      if (part.guard === guard) storePart(emitter, part, widths, layout.places, key);
    }
  };
  fetch(emitter, r1, 'generation', 4);
  emit(emitter, stx(4, r10, key + (layout.places[generationLane(table.key)] ?? 0), r1));
  storeParts(null);
  if (presences.length === 0) return;
  const present = presences.map(() => newLabel(emitter, 'present'));
  const asked = presences.map(() => newLabel(emitter, 'asked'));
  // What falls through knows least, and the verifier should walk on with that first.
  for (const [index, presence] of presences.entries()) {
    askPresence(emitter, presence, present[index] ?? CONTINUE);
    emit(emitter, label(asked[index] ?? CONTINUE));
  }
  const flags = presenceLane(table.key);
  const bytes = laneBytes(widths[flags] ?? 0);
  const done = newLabel(emitter, 'key');
  emit(emitter, stx(bytes, r10, key + (layout.places[flags] ?? 0), r4), ja(done));
  for (const index of presences.keys()) {
    emit(emitter, label(present[index] ?? CONTINUE));
    storeParts(index);
    emit(emitter, add(r4, 2 ** index), ja(asked[index] ?? CONTINUE));
  }
  emit(emitter, label(done));
}

/** Leaves to `yes` when the bytes are there. r0-r3 and r5 are lost. */
function askPresence(emitter: Emitter, { base, view, end }: Presence, yes: string): void {
  const no = newLabel(emitter, 'absent');
  if (view === 'l3' && base !== 'll') {
    fetch(emitter, r0, base === 'nh' ? 'l3-length' : 'transport-left');
    const enough = newLabel(emitter, 'enough');
    emit(emitter, jge32(r0, end, enough), ja(no), label(enough));
  }
  emit(emitter, mov(r0, baseRegister(emitter, base)), add(r0, end), jle(r0, END, yes), label(no));
}

/** r0, r1 and r5 are lost. */
function storePart(
  emitter: Emitter,
  { field, view, lane, lanes }: KeyPart,
  widths: readonly number[],
  places: readonly number[],
  key: number,
): void {
  let from = 0;
  for (let index = lane; index < lane + lanes; index += 1) {
    const width = widths[index] ?? 0;
    const place = places[index] ?? 0;
    const isPair = width === 32 && index + 1 < lane + lanes && places[index + 1] === place - 4;
    loadField(emitter, r1, field, view, from, isPair ? 64 : width);
    if (isPair) {
      emit(emitter, stx(8, r10, key + place - 4, r1));
      from += 64;
      index += 1;
    } else {
      emit(emitter, stx(laneBytes(width), r10, key + place, r1));
      from += width;
    }
  }
}

/** One tree, unless no rule in it can win: down to a leaf, then its rows in order. */
function emitTree(
  emitter: Emitter,
  { forest }: TableNode,
  { layout, nodes, rows, nodeWords, rowUnits }: TreeData,
  offset: number,
  tree: number,
  key: number,
): void {
  const [down, leaf, row, skip, next] = ['node', 'leaf', 'row', 'skip', 'tree'].map((stem) =>
    newLabel(emitter, stem),
  );
  if (!down || !leaf || !row || !skip || !next) throw new Error('bug: no labels');
  emit(emitter, ldMapValue(r2, TREES, offset + 8 * tree));
  if (tree > 0) emit(emitter, ldx(4, r1, r2, 4), jge(r1, BEST, next));
  emit(emitter, ldx(4, r1, r2, 0), ldMapValue(r0, TREES, offset + nodes));
  emit(emitter, mov32(r5, forest.room.depth + 1), label(down));
  emit(emitter, mov32(r2, r1), and32(r2, 7), jeq32(r2, 0, leaf));
  emit(emitter, add(r5, -1), jeq32(r5, 0, CONTINUE));
  // A shift takes the low six bits of its register only.
  emit(emitter, mov32(r3, r1), and32(r3, 8 * (layout.words - 1)));
  emit(emitter, add(r3, r10), ldx(8, r3, r3, key));
  emit(emitter, mov32(r4, r1), rsh32(r4, 6), rsh(r3, r4));
  emit(emitter, lsh32(r2, 1), mov32(r4, 1), lsh32(r4, r2), add32(r4, -1), and(r3, r4));
  emit(emitter, rsh32(r1, 12), lsh32(r1, 2), add(r1, r3), jgt(r1, nodeWords - 1, CONTINUE));
  emit(emitter, lsh(r1, 2), add(r1, r0), ldx(4, r1, r1, 0), ja(down));

  emit(emitter, label(leaf), mov32(r5, r1), rsh32(r5, 3), and32(r5, forest.room.leaf));
  emit(emitter, jeq32(r5, 0, next), rsh32(r1, 9), jgt32(r1, rowUnits - 1, CONTINUE), lsh(r1, 3));
  emit(emitter, ldMapValue(r0, TREES, offset + rows), add(r1, r0), label(row));
  emit(emitter, ldx(4, r2, r1, layout.orderAt), jge(r2, BEST, next));
  for (const column of layout.columns) testColumn(emitter, column, layout.places, key, skip);
  emit(emitter, ldx(4, BEST, r1, layout.orderAt), ldx(4, ACTION, r1, layout.actionAt), ja(next));
  emit(emitter, label(skip), add(r1, layout.rowBytes), add(r5, -1), jne(r5, 0, row), label(next));
}

/** Leaves to `no` where the row in r1 does not match the key in one column. r2-r3 are lost. */
function testColumn(
  emitter: Emitter,
  { kind, lane, lanes, bytes, at }: Column,
  places: readonly number[],
  key: number,
  no: string,
): void {
  const place = key + (places[lanes === 2 ? lane + 1 : lane] ?? 0);
  emit(emitter, ldx(bytes, r3, r10, place));
  if (kind === 'mask') {
    emit(emitter, ldx(bytes, r2, r1, at + bytes), and(r3, r2), ldx(bytes, r2, r1, at));
    emit(emitter, jne(r3, r2, no));
    return;
  }
  emit(emitter, ldx(bytes, r2, r1, at), bytes === 8 ? sub(r3, r2) : sub32(r3, r2));
  emit(emitter, ldx(bytes, r2, r1, at + bytes), jgt(r3, r2, no));
}
