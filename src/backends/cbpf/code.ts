import type { JumpOp, Source, StraightInsn } from './insn.ts';

/** How a way ends; `match` only in the code of a single rule, where `drop` is: it does not match. */
export type Ending = 'drop' | 'continue' | 'match';

/**
 * A program before it has an order: a node is an instruction that knows where control goes next.
 * Equal nodes are the same object, so equal ends of different ways are one. Children have smaller
 * ids than their parents.
 */
export type Code =
  | { readonly kind: 'ret'; readonly id: number; readonly verdict: Ending }
  | {
      readonly kind: 'do';
      readonly id: number;
      readonly insn: StraightInsn;
      readonly next: Code;
      readonly rule: string | null;
    }
  | {
      readonly kind: 'test';
      readonly id: number;
      readonly op: JumpOp;
      readonly src: Source;
      readonly yes: Code;
      readonly no: Code;
      readonly rule: string | null;
    }
  | {
      /**
       * No instruction: a way to drop must load byte `end` - 1 behind the base (`packet`: where it
       * starts; `x`: where X points), so that a frame without it is rejected.
       */
      readonly kind: 'need';
      readonly id: number;
      readonly base: 'packet' | 'x';
      readonly end: number;
      readonly next: Code;
    };

/** Nodes made so far. */
export interface CodeTable {
  readonly nodes: Map<string, Code>;
  readonly drop: Code;
  readonly pass: Code;
  readonly match: Code;
}

export function createCodeTable(): CodeTable {
  const pass: Code = { kind: 'ret', id: 0, verdict: 'continue' };
  const drop: Code = { kind: 'ret', id: 1, verdict: 'drop' };
  const match: Code = { kind: 'ret', id: 2, verdict: 'match' };
  const nodes = new Map<string, Code>([
    ['continue', pass],
    ['drop', drop],
    ['match', match],
  ]);
  return { nodes, drop, pass, match };
}

/** The end of this kind. */
export function endOf({ drop, pass, match }: CodeTable, ending: Ending): Code {
  if (ending === 'match') return match;
  return ending === 'drop' ? drop : pass;
}

function intern(table: CodeTable, key: string, make: (id: number) => Code): Code {
  let node = table.nodes.get(key);
  if (node === undefined) {
    node = make(table.nodes.size);
    table.nodes.set(key, node);
  }
  return node;
}

/** A key for what an instruction does. */
export function insnKey(insn: StraightInsn): string {
  const k = 'k' in insn ? insn.k : '';
  const size = 'size' in insn ? insn.size : '';
  return insn.kind === 'alu' ? `${insn.op} ${insn.src}` : `${insn.kind}${size} ${k}`;
}

/** Executes instructions, then goes on. `rule` names the rule they are for. */
export function run(
  table: CodeTable,
  insns: readonly StraightInsn[],
  next: Code,
  rule: string | null,
): Code {
  return insns.reduceRight((behind, insn) => {
    const key = `${insnKey(insn)}>${behind.id}`;
    return intern(table, key, (id) => ({ kind: 'do', id, insn, next: behind, rule }));
  }, next);
}

/** Goes to `yes` when `A op src`, else to `no`. */
export function test(
  table: CodeTable,
  op: JumpOp,
  src: Source,
  yes: Code,
  no: Code,
  rule: string | null,
): Code {
  if (yes === no) return yes;
  const key = `${op} ${src}?${yes.id}:${no.id}`;
  return intern(table, key, (id) => ({ kind: 'test', id, op, src, yes, no, rule }));
}

/** See the node of this kind. */
export function need(table: CodeTable, base: 'packet' | 'x', end: number, next: Code): Code {
  if (next.kind === 'ret' && next.verdict === 'continue') return next;
  return intern(table, `need ${base} ${end}>${next.id}`, (id) => ({
    kind: 'need',
    id,
    base,
    end,
    next,
  }));
}

/** A node in another table, what it leads to as `codeOf` says. */
export function copyNode(table: CodeTable, node: Code, codeOf: (node: Code) => Code): Code {
  switch (node.kind) {
    case 'ret':
      return endOf(table, node.verdict);
    case 'do':
      return run(table, [node.insn], codeOf(node.next), node.rule);
    case 'test':
      return test(table, node.op, node.src, codeOf(node.yes), codeOf(node.no), node.rule);
    case 'need':
      return need(table, node.base, node.end, codeOf(node.next));
  }
}

/**
 * Makes all nodes again in a table of their own, each as `make` says (`copyNode` where it says nothing
 * new); `below` is in `nodesBelow`'s order, so that what a node leads to is there before it.
 */
export function remake(
  below: readonly Code[],
  make: (table: CodeTable, node: Code, codeOf: (node: Code) => Code) => Code,
): (node: Code) => Code {
  const table = createCodeTable();
  const made = new Map<Code, Code>();
  const codeOf = (node: Code): Code => {
    if (node.kind === 'ret') return endOf(table, node.verdict);
    const known = made.get(node);
    if (known === undefined) throw new Error('bug: code is used before it is made');
    return known;
  };
  for (const node of [...below].reverse()) made.set(node, make(table, node, codeOf));
  return codeOf;
}

export function childrenOf(node: Code): readonly Code[] {
  switch (node.kind) {
    case 'ret':
      return [];
    case 'do':
    case 'need':
      return [node.next];
    case 'test':
      return [node.no, node.yes];
  }
}

/** All nodes below a root, each before those it leads to. */
export function nodesBelow(root: Code): Code[] {
  const seen = new Set<Code>([root]);
  for (const node of seen) for (const child of childrenOf(node)) seen.add(child);
  return [...seen].sort((a, b) => b.id - a.id);
}
