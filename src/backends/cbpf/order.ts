import { type Code, childrenOf, nodesBelow } from './code.ts';
import type { Insn } from './insn.ts';

/** An instruction with the rule it is for. */
export interface Line {
  readonly insn: Insn;
  readonly rule: string | null;
}

/** What a program returns. */
export interface Returns {
  readonly drop: number;
  readonly continue: number;
  /** Only in the code of a single rule. */
  readonly match?: number;
}

/** Farthest that a conditional jump skips: jt and jf are 8 bits. */
const FARTHEST = 255;

type Do = Extract<Code, { kind: 'do' }>;

/**
 * For every node the one instruction that runs straight into it; others that lead there need a jump.
 */
function chooseBefore(nodes: readonly Code[]): ReadonlyMap<Code, Do> {
  const before = new Map<Code, Do>();
  for (const node of nodes) {
    if (node.kind === 'do' && node.next.kind !== 'ret' && !before.has(node.next)) {
      before.set(node.next, node);
    }
  }
  return before;
}

/** The program from its end to its start; a place counts instructions from the end. */
interface Backward {
  readonly lines: Line[];
  /** Where each node, or a jump to it, is placed nearest to what comes next. */
  readonly places: Map<Code, number>;
  readonly returns: Returns;
  /**
   * Whether M is read. What follows a return then counts as run after it, although nothing gets there
   * (check_load_and_stores(), net/core/filter.c), so returns stand at the end only.
   */
  readonly readsMemory: boolean;
}

/** Instructions between what is placed next and a place. */
function skipTo({ lines }: Backward, place: number): number {
  return lines.length - 1 - place;
}

function place(backward: Backward, node: Code, insn: Insn, rule: string | null): void {
  backward.places.set(node, backward.lines.length);
  backward.lines.push({ insn, rule });
}

function placeReturn(backward: Backward, node: Extract<Code, { kind: 'ret' }>): void {
  const value = backward.returns[node.verdict];
  if (value === undefined) throw new Error('bug: a program returns what it has no value for');
  place(backward, node, { kind: 'ret', value }, null);
}

/** Puts a jump to a node, or another return, where the next conditional jump can reach it. */
function bringNear(backward: Backward, node: Code): void {
  const at = backward.places.get(node);
  if (node.kind === 'ret' && !backward.readsMemory) placeReturn(backward, node);
  else if (at === undefined) throw new Error('bug: a node is placed before what it leads to');
  else place(backward, node, { kind: 'ja', k: skipTo(backward, at) }, null);
}

function isFar(backward: Backward, node: Code, room: number): boolean {
  const at = backward.places.get(node);
  return at === undefined || skipTo(backward, at) > FARTHEST - room;
}

function placeTest(backward: Backward, node: Extract<Code, { kind: 'test' }>): void {
  // Bringing one near moves the other one farther away.
  if (isFar(backward, node.yes, 1)) bringNear(backward, node.yes);
  if (isFar(backward, node.no, 0)) bringNear(backward, node.no);
  const jump = (child: Code): number => skipTo(backward, backward.places.get(child) ?? 0);
  const { op, src, rule } = node;
  const insn: Insn = { kind: 'jump', op, src, jt: jump(node.yes), jf: jump(node.no) };
  place(backward, node, insn, rule);
}

/** An instruction whose next one is not right behind it is followed by a jump, or by a copy of it. */
function placeDo(backward: Backward, node: Do, isStraight: boolean): void {
  const { next, insn, rule } = node;
  if (!isStraight && backward.places.get(next) !== backward.lines.length - 1) {
    if (next.kind === 'test' && canReach(backward, next)) placeTest(backward, next);
    else bringNear(backward, next);
  }
  place(backward, node, insn, rule);
}

function canReach(backward: Backward, { yes, no }: Extract<Code, { kind: 'test' }>): boolean {
  return !isFar(backward, yes, 0) && !isFar(backward, no, 0);
}

/** Nodes in the order they are placed: what each leads to first, and straight runs in one piece. */
function runsInOrder(root: Code, before: ReadonlyMap<Code, Do>): Code[] {
  const done = new Set<Code>();
  const order: Code[] = [];
  /** The last node of the straight run that a node is in. */
  const lastOf = (node: Code): Code => {
    let last = node;
    while (last.kind === 'do' && before.get(last.next) === last) last = last.next;
    return last;
  };
  const stack: { readonly last: Code; readonly children: readonly Code[]; next: number }[] = [];
  const open = (node: Code): void => {
    const last = lastOf(node);
    if (done.has(last)) return;
    done.add(last);
    stack.push({ last, children: childrenOf(last), next: 0 });
  };
  open(root);
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const child = top.children[top.next];
    top.next += 1;
    if (child !== undefined) open(child);
    else {
      order.push(top.last);
      stack.pop();
    }
  }
  return order;
}

/**
 * Puts code in an order in which control only goes forward, with jumps where they are needed: behind
 * instructions that several others lead into, and where a target is more than 255 instructions away.
 */
export function orderCode(root: Code, returns: Returns): readonly Line[] {
  const nodes = nodesBelow(root);
  if (nodes.some(({ kind }) => kind === 'need')) throw new Error('bug: a need was not met');
  const before = chooseBefore(nodes);
  const readsMemory = nodes.some((node) => node.kind === 'do' && node.insn.kind === 'ld_mem');
  const backward: Backward = { lines: [], places: new Map(), returns, readsMemory };
  const ends = readsMemory ? nodes.filter(({ kind }) => kind === 'ret') : [];
  for (const last of new Set([...ends, ...runsInOrder(root, before)])) {
    if (last.kind === 'ret') placeReturn(backward, last);
    else if (last.kind === 'test') placeTest(backward, last);
    else if (last.kind === 'do') placeDo(backward, last, false);
    for (let node = before.get(last); node !== undefined; node = before.get(node)) {
      placeDo(backward, node, true);
    }
  }
  return backward.lines.reverse();
}
