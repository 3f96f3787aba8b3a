import type { DecisionNode, TableNode } from '../../ir/decision-nodes.ts';
import type { Usage } from '../backend.ts';
import { slotOfAction, type TreeData } from './tree-data.ts';

/** A table of a program, with where its data starts in the section of tables. */
export interface PlacedTable {
  readonly node: TableNode;
  readonly data: TreeData;
  readonly offset: number;
}

function nameOf(node: DecisionNode | undefined): string {
  if (node === undefined) throw new Error('bug: an action without a target');
  return node.kind === 'leaf' ? node.verdict : `n${node.id}`;
}

/** Copies of each rule in all leaves, by its number. */
function countRows({ table, forest, actions }: TableNode): Uint32Array {
  const rows = new Uint32Array(actions.length);
  for (const box of forest.boxes) {
    const owner = table.owner[box] ?? 0;
    if (owner < rows.length) rows[owner] = (rows[owner] ?? 0) + 1;
  }
  return rows;
}

function formatTable({ node, data, offset }: PlacedTable): string[] {
  const { forest, table, actions, targets, none } = node;
  const parts = table.key.parts.map(({ field, view, guard }) =>
    guard === null ? field.name : `${field.name} (${view}, where it is there)`,
  );
  const copies = countRows(node);
  return [
    `n${node.id}: structure tree, ${actions.length} rules as ${table.size} boxes of ${parts.join(', ')}`,
    `  .data.tree + ${offset}: ${forest.trees.length} trees of at most ${forest.depth} steps, ` +
      `${forest.children.length} words of nodes, ` +
      `${forest.boxes.length} rows of ${data.layout.rowBytes} bytes; ${data.bytes.length} bytes`,
    ...actions.map(({ target, rule }, number) => {
      const slot = slotOfAction(data.actions[number] ?? 0);
      const counts = slot === null ? '' : `, counter ${slot}`;
      const way = `${nameOf(targets[target])}${counts}, ${copies[number]} rows`;
      return `  ${number}: ${way}${rule === null ? '' : `  ; ${rule}`}`;
    }),
    `  else: ${nameOf(targets[none])}`,
  ];
}

/** Tables for people: what they hold, where, and what each rule does. */
export function formatTables(tables: readonly PlacedTable[]): string {
  return tables.flatMap((table) => ['', ...formatTable(table)]).join('\n');
}

/** What tables take beside the bytes of data; nothing where all is code. */
export function tableUsage(tables: readonly PlacedTable[]): Usage[] {
  if (tables.length === 0) return [];
  const rules = new Set(tables.flatMap(({ node }) => node.actions.map(({ rule }) => rule)));
  const trees = tables.reduce((sum, { node }) => sum + node.forest.trees.length, 0);
  return [
    { resource: 'trees', used: trees, limit: null },
    { resource: 'rules in trees', used: rules.size, limit: null },
  ];
}

/** Bytes of rows that each rule takes, by rule. */
export function tableCosts(tables: readonly PlacedTable[]): ReadonlyMap<string, number> {
  const costs = new Map<string, number>();
  for (const { node, data } of tables) {
    for (const [number, rows] of countRows(node).entries()) {
      const rule = node.actions[number]?.rule ?? null;
      if (rule !== null) costs.set(rule, (costs.get(rule) ?? 0) + rows * data.layout.rowBytes);
    }
  }
  return costs;
}
