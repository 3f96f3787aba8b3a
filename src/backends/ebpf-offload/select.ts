import type { Decision } from '../../ir/decision.ts';
import {
  childrenOf,
  type DecisionNode,
  type Question,
  type TableNode,
} from '../../ir/decision-nodes.ts';
import { type Field, FRAME, fieldKey, META } from '../../ir/fields.ts';
import { KEY_BYTES, type TableKey } from '../../ir/match-table.ts';
import { askQuestion } from './ask.ts';
import { emitGeneration, emitTable, leadsToCode } from './ask-table.ts';
import type { Dialect } from './dialect.ts';
import {
  CONTINUE,
  type DataSection,
  DROP,
  type Emitter,
  emit,
  FLUSH,
  nodeLabel,
  openEmitter,
  reserve,
  reserveKey,
  type SlotName,
  slot,
} from './emitter.ts';
import { type CounterPlan, emitFlush, emitNothingPending, emitPend } from './flush.ts';
import type { Hook } from './hook.ts';
import { exit, forRule, type Insn, ja, label, mov, r0 } from './insn.ts';
import { keyWords } from './lookup-key.ts';
import { emitPrologue, type Needs, prologueSlots } from './prologue.ts';
import { readyCheck } from './ready.ts';
import type { SetMap } from './set-map.ts';
import type { TreeData } from './tree-data.ts';
import type { PlacedTable } from './tree-format.ts';

/** A selected program: instructions with symbolic labels, and the bytes of its read-only data. */
export interface Selected {
  readonly insns: readonly Insn[];
  readonly rodata: Uint8Array;
  /** Tables; see tree-data.ts. */
  readonly trees: Uint8Array;
  readonly tables: readonly PlacedTable[];
  readonly stackBytes: number;
  /** Rules whose frames continue because too many counters would be pending on their way. */
  readonly uncounted: ReadonlySet<string>;
  /** Sets that have to be filled before the program decides anything. */
  readonly sets: readonly SetMap[];
}

export interface SelectOptions {
  readonly dialect: Dialect;
  readonly hook: Hook;
  /** Null when nothing is counted. */
  readonly counters:
    | (Omit<CounterPlan, 'pending'> & {
        /** The slot of each of the classifier's counters. */
        readonly slotOf: ReadonlyMap<number, number>;
      })
    | null;
  /** Data of tables that are in use; all are written where left out. */
  readonly tables?: {
    readonly generation: number;
    readonly dataOf: (node: TableNode) => TreeData | null;
  };
}

/** Counters that may be pending on one way: a word of the 512 bytes of stack each. */
const MOST_PENDING = 24;

function rootsOf({ untagged, tagged, stacked }: Decision): DecisionNode[] {
  const roots = [untagged, tagged].flatMap(({ ip, ip6, other }) => [ip, ip6, other]);
  return [...roots, stacked];
}

/** Every node before those it leads to, so that all jumps go forward. */
export function inOrder(decision: Decision): DecisionNode[] {
  const done = new Set<DecisionNode>();
  const order: DecisionNode[] = [];
  const stack: { node: DecisionNode; next: number }[] = [];
  const open = (node: DecisionNode): void => {
    if (done.has(node)) return;
    done.add(node);
    stack.push({ node, next: 0 });
  };
  for (const root of rootsOf(decision).reverse()) {
    open(root);
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const child = childrenOf(top.node)[top.next];
      top.next += 1;
      if (child !== undefined) open(child);
      else {
        order.push(top.node);
        stack.pop();
      }
    }
  }
  return order.reverse();
}

/** Counters that count between a node and those it leads to, at most. */
function countersOf(node: DecisionNode): number {
  if (node.kind === 'count') return node.counters.length;
  if (node.kind !== 'table') return 0;
  return node.actions.some(({ counter }) => counter !== null) ? 1 : 0;
}

/** How many counters can have been pended on the longest way to each node. */
export function pendingDepths(order: readonly DecisionNode[]): ReadonlyMap<DecisionNode, number> {
  const depths = new Map<DecisionNode, number>();
  for (const node of order) {
    const here = depths.get(node) ?? 0;
    depths.set(node, here);
    const behind = here + countersOf(node);
    for (const child of childrenOf(node)) {
      depths.set(child, Math.max(depths.get(child) ?? 0, behind));
    }
  }
  return depths;
}

function questionFields(question: Question): readonly Field[] {
  if (question.kind === 'compare') return [question.operand.field];
  return question.kind === 'lookup' ? question.key.map(({ field }) => field) : [];
}

/** Collects what a program needs beside the header pointers. */
interface NeedsMaker {
  readonly slots: Set<SlotName>;
  transport: boolean;
}

function needPresence(
  needs: NeedsMaker,
  { base, view }: Pick<Extract<Question, { kind: 'present' }>, 'base' | 'view'>,
): void {
  if (base === 'th') needs.transport = true;
  if (base === 'll') needs.slots.add('frame');
  else if (view === 'l3') needs.slots.add(base === 'nh' ? 'l3-length' : 'transport-left');
}

function needField(needs: NeedsMaker, field: Field, view: Question['view']): void {
  const need = (name: SlotName): void => void needs.slots.add(name);
  if (field.base === 'th') needs.transport = true;
  if (field.base === 'll') need('frame');
  if (field.base !== 'meta') return;
  const key = fieldKey(field);
  if (key === META.protocol.name) need('protocol');
  if (key === META.nfproto.name) need('nfproto');
  if (key === FRAME.fragment.name) need('fragment');
  if (key === META.length.name) need(view === 'ingress' ? 'ingress-length' : 'l3-length');
}

function needKey(needs: NeedsMaker, { parts, presences }: TableKey): void {
  needs.slots.add('zero');
  needs.slots.add('generation');
  for (const { field, view } of parts) needField(needs, field, view);
  for (const presence of presences) needPresence(needs, presence);
}

function needsOf(
  order: readonly DecisionNode[],
  decision: Decision,
  options: SelectOptions,
): Needs {
  const slots = new Set<SlotName>(prologueSlots(decision, options.dialect));
  const needs: NeedsMaker = { slots, transport: false };
  const need = (name: SlotName): void => void slots.add(name);
  for (const node of order) {
    if (node.kind === 'table') {
      needKey(needs, node.table.key);
      if (leadsToCode(node)) for (const name of ['saved-proto', 'saved-end'] as const) need(name);
    }
    if (node.kind !== 'branch') continue;
    const { question } = node;
    if (question.kind === 'lookup' && options.dialect.dataSections) need('zero');
    if (question.kind === 'present') needPresence(needs, question);
    for (const field of questionFields(question)) needField(needs, field, question.view);
  }
  if (options.counters !== null) {
    const { ingress, layout } = options.counters;
    need('zero');
    if (ingress > 0) need('ingress-length');
    if (ingress < layout.slots) need('l3-length');
  }
  return needs;
}

/**
 * Selects instructions for a decision. Guarantees: r0-r5 are free between questions, jumps go
 * forward, every instruction of a rule names it, a frame is dropped or continues as the decision
 * says, and counters count exactly when the frame is dropped.
 */
export function selectProgram(decision: Decision, options: SelectOptions): Selected {
  const emitter = openEmitter(options.dialect, options.hook);
  const order = inOrder(decision);
  const depths = pendingDepths(order);
  const deepest = order.reduce((most, node) => Math.max(most, depthBehind(node, depths)), 0);
  const words = Math.min(deepest, MOST_PENDING);
  const pending = Array.from({ length: words }, () => reserve(emitter, 1));
  const uncounted = new Set<string>();
  const plan = options.counters === null ? null : { ...options.counters, pending };
  const needs = needsOf(order, decision, options);
  for (const name of needs.slots) slot(emitter, name);
  const hasTables = order.some(({ kind }) => kind === 'table');
  const tableKey = hasTables ? reserve(emitter, KEY_BYTES / 8) : 0;
  reserveKey(emitter, keyWordsOf(order));
  let start = 0;
  emitPrologue(emitter, decision, needs, () => {
    start = emitter.insns.length;
    if (hasTables) emitGeneration(emitter, options.tables?.generation ?? 0);
    emitNothingPending(emitter, pending);
  });
  for (const node of order) {
    if (node.kind === 'leaf') continue;
    if (countersOf(node) > 0 && depthBehind(node, depths) > MOST_PENDING) {
      const rules = node.kind === 'table' ? node.actions.map(({ rule }) => rule) : [node.rule];
      for (const rule of rules) uncounted.add(rule ?? 'a policy');
      emit(emitter, label(nodeLabel(node)), ja(CONTINUE));
      continue;
    }
    emitNode(emitter, node, depths, {
      tableKey,
      pending,
      slotOf: (counter) => options.counters?.slotOf.get(counter) ?? null,
      dataOf: options.tables?.dataOf ?? (() => null),
    });
  }
  if (plan !== null && words > 0) emitFlush(emitter, plan);
  emit(emitter, label(DROP), mov(r0, options.hook.drop), exit());
  emit(emitter, label(CONTINUE), mov(r0, options.hook.pass), exit());
  const sets = [...emitter.maps];
  if (sets.length > 0) emitter.insns.splice(start, 0, ...readyCheck(emitter));
  const rodata = joinData(emitter.rodata);
  const trees = joinData(emitter.trees);
  const { insns, tables, stack: stackBytes } = emitter;
  return { insns, rodata, trees, tables, stackBytes, uncounted, sets };
}

function joinData({ chunks, bytes }: DataSection): Uint8Array {
  const joined = new Uint8Array(bytes);
  let at = 0;
  for (const chunk of chunks) {
    joined.set(chunk, at);
    at += chunk.length;
  }
  return joined;
}

/** At least one word: counters and the ready cell have keys too. */
function keyWordsOf(order: readonly DecisionNode[]): number {
  const words = order.map((node) =>
    node.kind === 'branch' && node.question.kind === 'lookup' ? keyWords(node.question) : 1,
  );
  return words.reduce((most, count) => Math.max(most, count), 1);
}

function depthBehind(node: DecisionNode, depths: ReadonlyMap<DecisionNode, number>): number {
  return (depths.get(node) ?? 0) + countersOf(node);
}

/** Where nodes keep what they work with. */
interface NodePlaces {
  readonly tableKey: number;
  readonly pending: readonly number[];
  readonly slotOf: (counter: number) => number | null;
  readonly dataOf: (node: TableNode) => TreeData | null;
}

function emitNode(
  emitter: Emitter,
  node: Exclude<DecisionNode, { kind: 'leaf' }>,
  depths: ReadonlyMap<DecisionNode, number>,
  { tableKey, pending, slotOf, dataOf }: NodePlaces,
): void {
  const from = emitter.insns.length;
  const depth = depths.get(node) ?? 0;
  const to = (child: DecisionNode, behind = depthBehind(node, depths)): string => {
    if (child.kind !== 'leaf') return nodeLabel(child);
    if (child.verdict === 'continue') return CONTINUE;
    return behind > 0 ? FLUSH : DROP;
  };
  const placeAt = (at: number): number => {
    const offset = pending[at];
    if (offset === undefined) throw new Error('bug: a counter has no place');
    return offset;
  };
  emit(emitter, label(nodeLabel(node)));
  switch (node.kind) {
    case 'branch':
      askQuestion(emitter, node.question, to(node.yes), to(node.no));
      break;
    case 'count':
      for (const [i, counter] of node.counters.entries()) {
        const slot = slotOf(counter);
        if (slot === null) throw new Error('bug: a counter has no slot');
        emitPend(emitter, placeAt(depth + i), slot);
      }
      emit(emitter, ja(to(node.next)));
      break;
    case 'table': {
      const counting = new Set(
        node.actions.flatMap(({ target, counter }) => (counter === null ? [] : [target])),
      );
      const ways = node.targets.map((target, index) => {
        const pend = counting.has(index) ? placeAt(depth) : null;
        return { label: to(target, depth + (pend === null ? 0 : 1)), pend };
      });
      emitTable(emitter, node, { slotOf, dataOf, key: tableKey, ways });
      return;
    }
  }
  if (node.rule === null) return;
  // One by one: a set in code may be more than a call takes arguments.
  const insns = emitter.insns.splice(from);
  for (const insn of forRule(node.rule, insns)) emitter.insns.push(insn);
}
