import type { ViewName } from './classifier.ts';
import { type Field, fieldKey } from './fields.ts';
import type { Forest } from './match-forest.ts';
import type { MatchTable } from './match-table.ts';
import type { Operand, Test } from './ruleset.ts';

/** One question about a frame. Its loads always succeed where it is asked. */
export type Question =
  | {
      readonly kind: 'compare';
      readonly operand: Operand;
      readonly lo: bigint;
      readonly hi: bigint;
      readonly view: ViewName;
    }
  | {
      readonly kind: 'lookup';
      readonly key: readonly Operand[];
      readonly set: Extract<Test, { kind: 'lookup' }>['set'];
      readonly view: ViewName;
    }
  | {
      /** At least `end` bytes are there behind the base. */
      readonly kind: 'present';
      readonly base: Exclude<Field['base'], 'meta'>;
      readonly view: ViewName;
      readonly end: number;
    };

/**
 * A node of the decision DAG. Nodes are shared: the same object may be reached in many ways, and
 * `id` tells them apart. Children have smaller ids than their parents.
 */
export type DecisionNode =
  | { readonly kind: 'leaf'; readonly id: number; readonly verdict: 'drop' | 'continue' }
  | {
      readonly kind: 'branch';
      readonly id: number;
      readonly question: Question;
      readonly yes: DecisionNode;
      readonly no: DecisionNode;
      /** The rule that asks, or null for the builder's own cuts and the kernel's conditions. */
      readonly rule: string | null;
    }
  | {
      readonly kind: 'count';
      readonly id: number;
      /** Indices of the classifier's counters. */
      readonly counters: readonly number[];
      readonly next: DecisionNode;
      readonly rule: string | null;
    }
  | TableNode;

/** What the first rule of a table that matches does. */
export interface TableAction {
  /** Index into the node's targets. */
  readonly target: number;
  /** Index of the classifier's counter that counts, or null. */
  readonly counter: number | null;
  readonly rule: string | null;
}

/** Asks many rules at once; only where the builder was told to make such nodes. */
export interface TableNode {
  readonly kind: 'table';
  readonly id: number;
  readonly table: MatchTable;
  readonly forest: Forest;
  /** By owner of the table's boxes. */
  readonly actions: readonly TableAction[];
  /** Where actions lead. */
  readonly targets: readonly DecisionNode[];
  /** When no box holds the key: one of the targets. */
  readonly none: number;
}

/** Nodes made so far; equal ones are the same object. */
export interface NodeTable {
  readonly interned: Map<string, DecisionNode>;
  readonly ids: Map<object, number>;
  readonly drop: DecisionNode;
  readonly pass: DecisionNode;
}

function intern(table: NodeTable, key: string, make: (id: number) => DecisionNode): DecisionNode {
  let node = table.interned.get(key);
  if (node === undefined) {
    node = make(table.interned.size);
    table.interned.set(key, node);
  }
  return node;
}

function identity(table: NodeTable, object: object): number {
  let id = table.ids.get(object);
  if (id === undefined) {
    id = table.ids.size;
    table.ids.set(object, id);
  }
  return id;
}

function operandKey({ field, mask, xor, shift }: Operand): string {
  return `${fieldKey(field)}&${mask.toString(36)}^${xor.toString(36)}<${shift}`;
}

/**
 * A key for what a question asks. Those of rules are one object each, so the object will do; the
 * builder's own are made anew every time.
 */
function questionKey(table: NodeTable, question: Question, rule: string | null): string {
  if (rule !== null && question.kind !== 'present') return `#${identity(table, question)}`;
  return describeQuestion(table, question);
}

function describeQuestion(table: NodeTable, question: Question): string {
  switch (question.kind) {
    case 'compare':
      return `c${operandKey(question.operand)}=${question.lo.toString(36)}-${question.hi.toString(36)}${question.view}`;
    case 'lookup': {
      const set = identity(table, question.set.elements);
      return `l${question.key.map(operandKey).join('.')}@${set}${question.view}`;
    }
    case 'present':
      return `p${question.base}${question.end}${question.view}`;
  }
}

/** Asks a question; null rule: the builder's own. Both ways the same: nothing is asked. */
export function branch(
  table: NodeTable,
  question: Question,
  yes: DecisionNode,
  no: DecisionNode,
  rule: string | null,
): DecisionNode {
  if (yes === no) return yes;
  const key = `${questionKey(table, question, rule)}?${yes.id}:${no.id}`;
  return intern(table, key, (id) => ({ kind: 'branch', id, question, yes, no, rule }));
}

/** Counts, unless the frame is handed on anyway. */
export function count(
  table: NodeTable,
  counters: readonly number[],
  next: DecisionNode,
  rule: string | null,
): DecisionNode {
  if (counters.length === 0 || next === table.pass) return next;
  const key = `n${counters.join(',')}:${next.id}`;
  return intern(table, key, (id) => ({ kind: 'count', id, counters, next, rule }));
}

/** Asks a table; every one is a node of its own. */
export function askTable(table: NodeTable, node: Omit<TableNode, 'kind' | 'id'>): DecisionNode {
  return intern(table, `t${table.interned.size}`, (id) => ({ kind: 'table', id, ...node }));
}

/** The nodes that one leads to, each once or more. */
export function childrenOf(node: DecisionNode): readonly DecisionNode[] {
  switch (node.kind) {
    case 'leaf':
      return [];
    case 'count':
      return [node.next];
    case 'branch':
      return [node.no, node.yes];
    case 'table':
      return node.targets;
  }
}

/** A table with the two leaves. */
export function createNodeTable(): NodeTable {
  const pass: DecisionNode = { kind: 'leaf', id: 0, verdict: 'continue' };
  const drop: DecisionNode = { kind: 'leaf', id: 1, verdict: 'drop' };
  const interned = new Map([
    ['continue', pass],
    ['drop', drop],
  ]);
  return { interned, ids: new Map(), drop, pass };
}
