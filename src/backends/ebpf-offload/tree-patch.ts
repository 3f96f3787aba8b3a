import type { TableNode } from '../../ir/decision-nodes.ts';
import type { MatchTable } from '../../ir/match-table.ts';
import { type UpdatedTable, type UsedTable, updateTable } from '../../ir/match-update.ts';
import {
  CELL_BYTES,
  descriptor,
  type TreeData,
  type TreeSource,
  writeCell,
  writeRow,
} from './tree-data.ts';
import { canHold } from './tree-layout.ts';

/** One store of 32 bits, little-endian, at a byte of the data. */
export interface PatchWord {
  readonly offset: number;
  readonly value: number;
}

/** A table as data after a change, and the stores that make it of the data before. */
export interface PatchedTree {
  readonly table: MatchTable;
  readonly forest: TableNode['forest'];
  readonly data: TreeData;
  readonly updated: UpdatedTable;
  /**
   * In an order in which every store leaves what keys of the present generation find: first what nothing
   * leads to, then what leads there.
   */
  readonly words: readonly PatchWord[];
}

/** What a table is to become. */
export interface WantedTable {
  readonly table: MatchTable;
  /** See `actionWord`, by rule; asked after rules were paired. */
  readonly actionsOf: (pairs: Int32Array) => Uint32Array | null;
  readonly rules: number;
  readonly doesSame: (before: number, after: number) => boolean;
}

/** Bytes that were written over, to be compared. */
interface Touched {
  readonly at: number;
  readonly bytes: number;
}

function differing(before: DataView, after: DataView, touched: Iterable<Touched>): PatchWord[] {
  const words: PatchWord[] = [];
  for (const { at, bytes } of touched) {
    for (let offset = at; offset < at + bytes; offset += 4) {
      const value = after.getUint32(offset, true);
      if (value !== before.getUint32(offset, true)) words.push({ offset, value });
    }
  }
  return words;
}

function viewOf({ bytes }: TreeData): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Changes a table in use, from the generation after `generation` on; see `updateTable`. Null where its
 * data has no room for that, or its rows cannot say it.
 */
export function patchTree(
  used: UsedTable,
  data: TreeData,
  wanted: WantedTable,
  generation: number,
): PatchedTree | null {
  const updated = updateTable(used, wanted.table, wanted.rules, generation, wanted.doesSame);
  if (updated === null) return null;
  const { table, forest, rows, flips, marks, begun, ended, pairs } = updated;
  if (!begun.every((box) => canHold(data.layout, table, box))) return null;
  const own = wanted.actionsOf(pairs);
  if (own === null) return null;
  const actions = Uint32Array.from([...own, ...ended.map((rule) => data.actions[rule] ?? 0)]);
  const { layout, nodes, nodeWords, rowUnits } = data;
  const places = { nodes, rows: data.rows, nodeWords, rowUnits };
  const source: TreeSource = { ...places, table, forest, layout, actions };
  const changed: TreeData = { ...places, layout, actions, bytes: data.bytes.slice() };
  const view = viewOf(changed);
  const fresh: Touched[] = [];
  for (const place of rows) {
    writeRow(view, source, place);
    fresh.push({ at: data.rows + place * layout.rowBytes, bytes: layout.rowBytes });
  }
  const writeChild = (index: number): Touched => {
    const at = nodes + 4 * index;
    view.setUint32(at, descriptor(source, forest.children[index] ?? 0), true);
    return { at, bytes: 4 };
  };
  for (let index = used.forest.children.length; index < forest.children.length; index += 1) {
    fresh.push(writeChild(index));
  }
  const visible = flips.map(writeChild);
  for (const place of marks) {
    writeRow(view, source, place);
    visible.push({ at: data.rows + place * layout.rowBytes, bytes: layout.rowBytes });
  }
  for (const tree of forest.trees.keys()) {
    writeCell(view, source, tree);
    visible.push({ at: tree * CELL_BYTES, bytes: CELL_BYTES });
  }
  const before = viewOf(data);
  const words = [...differing(before, view, fresh), ...differing(before, view, visible)];
  return { table, forest, data: changed, updated, words };
}
