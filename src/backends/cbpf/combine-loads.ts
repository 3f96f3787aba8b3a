import {
  type Code,
  type CodeTable,
  childrenOf,
  copyNode,
  nodesBelow,
  remake,
  run,
  test,
} from './code.ts';
import { ANCILLARY, type Size } from './insn.ts';
import type { Meaning } from './meaning.ts';
import { A_LIVE, findLive, findReaches, type Reach } from './thread-code.ts';

/** A value of some bits of the packet and where it leads. */
interface Case {
  readonly value: number;
  readonly to: Code;
}

/** Bytes loaded, some bits of them compared with single values, all others lead to `other`. */
interface Choice {
  readonly base: 'packet' | 'x';
  readonly k: number;
  readonly size: Size;
  readonly mask: number;
  readonly cases: readonly Case[];
  readonly other: Code;
  readonly rule: string | null;
  /** Its nodes, the load first. */
  readonly nodes: readonly Code[];
}

type Load = Pick<Choice, 'base' | 'k' | 'size'>;

function loadOf(node: Code): Load | null {
  if (node.kind !== 'do') return null;
  const { insn } = node;
  if (insn.kind === 'ld_abs' && insn.k < ANCILLARY) return { ...insn, base: 'packet' };
  return insn.kind === 'ld_ind' ? { ...insn, base: 'x' } : null;
}

/** A node as a choice, or null where it is none. */
function readChoice(start: Code): Choice | null {
  const load = loadOf(start);
  if (load === null || start.kind !== 'do') return null;
  const nodes: Code[] = [start];
  let mask = 2 ** (load.size * 8) - 1;
  let node = start.next;
  if (node.kind === 'do' && node.insn.kind === 'alu' && node.insn.op === 'and') {
    if (node.insn.src === 'x') return null;
    mask = (mask & node.insn.src) >>> 0;
    nodes.push(node);
    node = node.next;
  }
  const { rule } = start;
  if (node.kind === 'test' && node.op === 'jset' && node.src !== 'x') {
    const cases = [{ value: 0, to: node.no }];
    mask = (mask & node.src) >>> 0;
    return { ...load, mask, cases, other: node.yes, rule, nodes: [...nodes, node] };
  }
  const cases: Case[] = [];
  while (node.kind === 'test' && node.op === 'jeq' && node.src !== 'x') {
    nodes.push(node);
    if ((node.src & ~mask) === 0) cases.push({ value: node.src, to: node.yes });
    node = node.no;
  }
  return cases.length === 0 ? null : { ...load, mask, cases, other: node, rule, nodes };
}

function endOfLoad({ k, size }: Load): number {
  return k + size;
}

/** A choice whose cases all go on with one about bytes nearby, as a single choice; else null. */
function joinChoices(first: Choice): Choice | null {
  const inner = first.cases.map(({ to }) => readChoice(to));
  const [second] = inner;
  if (second === undefined || second === null || second.base !== first.base) return null;
  const end = Math.max(endOfLoad(first), endOfLoad(second));
  const span = end - Math.min(first.k, second.k);
  const size = span > 2 ? 4 : 2;
  if (span > 4 || end < size) return null;
  const shift = (load: Load): number => 2 ** ((end - endOfLoad(load)) * 8);
  const place = ({ mask }: Choice, load: Load): number => mask * shift(load);
  const mask = (place(first, first) | place(second, second)) >>> 0;
  if ((place(first, first) & place(second, second)) !== 0) return null;
  const cases: Case[] = [];
  const nodes = new Set(first.nodes);
  for (const [index, choice] of inner.entries()) {
    const isLike =
      choice?.k === second.k && choice.size === second.size && choice.mask === second.mask;
    if (!isLike || choice.base !== second.base || choice.other !== first.other) return null;
    const outer = (first.cases[index]?.value ?? 0) * shift(first);
    for (const { value, to } of choice.cases) {
      cases.push({ value: (outer | (value * shift(second))) >>> 0, to });
    }
    for (const node of choice.nodes) nodes.add(node);
  }
  const { base, other, rule } = first;
  return { base, k: end - size, size, mask, cases, other, rule, nodes: [...nodes] };
}

interface Join {
  readonly first: Choice;
  readonly joined: Choice;
}

function findJoin(node: Code): Join | null {
  const first = readChoice(node);
  const joined = first === null ? null : joinChoices(first);
  return first === null || joined === null ? null : { first, joined };
}

/** Whether bytes may be loaded that were not loaded yet where the first values decide alone. */
function isThere(first: Choice, joined: Choice, reach: Reach, meaning: Meaning): boolean {
  const end = endOfLoad(joined);
  if (end <= endOfLoad(first) || end <= reach[first.base]) return true;
  const { other } = first;
  // Then a load that fails ends as the values do.
  return meaning.failedLoad === 'continue' && other.kind === 'ret' && other.verdict !== 'drop';
}

/** Nodes that are not needed any more when a choice stands for them: nothing else leads to them. */
function countFreed({ nodes }: Choice, ways: ReadonlyMap<Code, number>): number {
  const [head] = nodes;
  const inside = new Set(nodes);
  const led = new Map<Code, number>();
  let freed = 0;
  // Children have smaller ids.
  for (const node of [...nodes].sort((a, b) => b.id - a.id)) {
    if (node !== head && led.get(node) !== ways.get(node)) continue;
    freed += 1;
    for (const child of childrenOf(node)) {
      if (inside.has(child)) led.set(child, (led.get(child) ?? 0) + 1);
    }
  }
  return freed;
}

function makeChoice(table: CodeTable, choice: Choice, codeOf: (node: Code) => Code): Code {
  const { base, k, size, mask, rule } = choice;
  let node = codeOf(choice.other);
  for (const { value, to } of [...choice.cases].reverse()) {
    node = test(table, 'jeq', value, codeOf(to), node, rule);
  }
  const isAll = mask === 2 ** (size * 8) - 1;
  const and = { kind: 'alu', op: 'and', src: mask } as const;
  const load = { kind: base === 'x' ? 'ld_ind' : 'ld_abs', size, k } as const;
  return run(table, isAll ? [load] : [load, and], node, rule);
}

/**
 * Loads bytes that are compared one after the other together, and compares them at once: IPv4's
 * fragment offset and protocol, a tag and the type before it. Keeps the meaning and never grows.
 */
export function combineLoads(root: Code, meaning: Meaning, shortest: number): Code {
  const nodes = nodesBelow(root);
  const candidates = nodes.map(findJoin).filter((join) => join !== null);
  if (candidates.length === 0) return root;
  const live = findLive(nodes);
  const reaches = findReaches(nodes, shortest);
  const ways = new Map<Code, number>();
  for (const node of nodes) {
    for (const child of childrenOf(node)) ways.set(child, (ways.get(child) ?? 0) + 1);
  }
  const usesA = (node: Code): boolean => ((live.get(node) ?? 0) & A_LIVE) !== 0;
  const isGood = ({ first, joined }: Join): boolean => {
    const [head] = first.nodes;
    const reach = head === undefined ? undefined : reaches.get(head);
    if (reach === undefined || !isThere(first, joined, reach, meaning)) return false;
    if (usesA(joined.other) || joined.cases.some(({ to }) => usesA(to))) return false;
    return joined.cases.length + 2 < countFreed(joined, ways);
  };
  const joins = new Map<Code | undefined, Choice>(
    candidates.filter(isGood).map(({ first, joined }) => [first.nodes[0], joined]),
  );
  if (joins.size === 0) return root;
  const codeOf = remake(nodes, (table, node, get) => {
    const joined = joins.get(node);
    return joined === undefined ? copyNode(table, node, get) : makeChoice(table, joined, get);
  });
  return codeOf(root);
}
