import {
  type Code,
  type CodeTable,
  createCodeTable,
  endOf,
  insnKey,
  need,
  nodesBelow,
  run,
  test,
} from './code.ts';
import type { StraightInsn } from './insn.ts';

/** A number for what a register holds; equal numbers are equal values. */
type Value = number;
const UNKNOWN: Value = -1;

/** What is known of a value. */
interface Known {
  readonly lo: number;
  readonly hi: number;
  readonly without: readonly number[];
  /** Bits known to be 0 and 1. */
  readonly clear: number;
  readonly set: number;
}

const ANYTHING: Known = { lo: 0, hi: 0xffff_ffff, without: [], clear: 0, set: 0 };

/** Values excluded one by one that are kept in mind. */
const MOST_EXCLUDED = 64;
const MOST_GAP = 8;
/** Nodes that one way is led past at a time. */
const MOST_SKIPPED = 256;

type Facts = ReadonlyMap<Value, Known>;

/** What is known on one way into a node. */
interface State {
  readonly a: Value;
  readonly x: Value;
  readonly facts: Facts;
}

/** Values numbered, so that two that are equal for certain have one number. */
interface Values {
  readonly numbers: Map<string, Value>;
  /** Values that are another one with some bits masked off. */
  readonly masked: Map<Value, { readonly of: Value; readonly mask: number }>;
}

function numberOf({ numbers }: Values, key: string): Value {
  let value = numbers.get(key);
  if (value === undefined) {
    value = numbers.size;
    numbers.set(key, value);
  }
  return value;
}

function computed(
  values: Values,
  insn: Extract<StraightInsn, { kind: 'alu' }>,
  state: State,
): Value {
  const { op, src } = insn;
  const operand = src === 'x' ? state.x : src;
  if (state.a === UNKNOWN || operand === UNKNOWN) return UNKNOWN;
  const key = src === 'x' ? `${op} v${state.a} v${operand}` : `${op} v${state.a} ${operand}`;
  if (op !== 'and' || src === 'x') return numberOf(values, key);
  const inner = values.masked.get(state.a);
  const of = inner?.of ?? state.a;
  const mask = ((inner?.mask ?? 0xffff_ffff) & src) >>> 0;
  const value = numberOf(values, `and v${of} ${mask}`);
  values.masked.set(value, { of, mask });
  return value;
}

/** A and X behind an instruction. */
function registersBehind(values: Values, insn: StraightInsn, state: State): Pick<State, 'a' | 'x'> {
  const { a, x } = state;
  switch (insn.kind) {
    case 'ld_abs':
    case 'ld_imm':
    case 'ld_len':
      return { a: numberOf(values, insnKey(insn)), x };
    case 'ld_ind':
      return { a: x === UNKNOWN ? UNKNOWN : numberOf(values, `${insnKey(insn)} v${x}`), x };
    case 'ldx_imm':
    case 'ldx_msh':
      return { a, x: numberOf(values, insnKey(insn)) };
    case 'ldx_len':
      return { a, x: numberOf(values, LENGTH) };
    case 'alu':
      return { a: computed(values, insn, state), x };
    case 'tax':
      return { a, x: a };
    case 'txa':
      return { a: x, x };
    case 'neg':
    case 'ld_mem':
      return { a: UNKNOWN, x };
    case 'ldx_mem':
      return { a, x: UNKNOWN };
    case 'st':
    case 'stx':
      return { a, x };
  }
}

/** The key of the packet's length. */
const LENGTH = insnKey({ kind: 'ld_len' });

/** Ancillary loads are no bytes of the packet. */
const PACKET_BYTES = 0x1_0000;

function atLeast(facts: Facts, value: Value, lo: number): Facts {
  const known = facts.get(value) ?? ANYTHING;
  return known.lo >= lo ? facts : new Map(facts).set(value, { ...known, lo });
}

/** A packet load that went on has shown how long the packet is at least. */
function factsBehind(values: Values, insn: StraightInsn, state: State): Facts {
  const { facts } = state;
  if (insn.kind === 'ld_abs' && insn.k < PACKET_BYTES) {
    return atLeast(facts, numberOf(values, LENGTH), insn.k + insn.size);
  }
  if (insn.kind === 'ldx_msh') return atLeast(facts, numberOf(values, LENGTH), insn.k + 1);
  if (insn.kind === 'ld_ind' && state.x !== UNKNOWN) {
    return atLeast(facts, numberOf(values, `reach v${state.x}`), insn.k + insn.size);
  }
  return facts;
}

function behind(values: Values, insn: StraightInsn, state: State): State {
  return {
    ...registersBehind(values, insn, state),
    facts: factsBehind(values, insn, state),
  };
}

type TestCode = Extract<Code, { kind: 'test' }>;

function knownOf(values: Values, facts: Facts, value: Value): Known {
  const known = facts.get(value) ?? ANYTHING;
  const masked = values.masked.get(value);
  if (masked === undefined) return known;
  const outside = ~masked.mask >>> 0;
  const clear = (known.clear | outside) >>> 0;
  const hi = Math.min(known.hi, masked.mask);
  const of = facts.get(masked.of);
  // Masking off low bits keeps the order, so bounds stay bounds.
  const isPrefix = ((outside + 1) & outside) === 0;
  if (of === undefined || !isPrefix) return { ...known, hi, clear };
  const lo = Math.max(known.lo, (of.lo & masked.mask) >>> 0);
  return { ...known, lo, hi: Math.min(hi, (of.hi & masked.mask) >>> 0), clear };
}

/** The answer to a comparison of A with a constant, or null. */
function decide(values: Values, { op, src }: TestCode, { a, facts }: State): boolean | null {
  if (src === 'x' || a === UNKNOWN) return null;
  const { lo, hi, without, clear, set } = knownOf(values, facts, a);
  switch (op) {
    case 'jeq':
      if (src < lo || src > hi || without.includes(src)) return false;
      if ((src & clear) !== 0 || (~src & set) !== 0) return false;
      return lo === hi ? true : null;
    case 'jgt':
      if (lo > src) return true;
      return hi <= src ? false : null;
    case 'jge':
      if (lo >= src) return true;
      return hi < src ? false : null;
    case 'jset':
      if (lo === hi) return (lo & src) !== 0;
      if ((src & set) !== 0) return true;
      return (src & ~clear) === 0 ? false : null;
  }
}

function narrow({ op, src }: TestCode, known: Known, holds: boolean): Known {
  if (src === 'x') return known;
  const { lo, hi, without } = known;
  switch (op) {
    case 'jeq': {
      if (holds) return { ...known, lo: src, hi: src };
      if (src === lo) return { ...known, lo: lo + 1 };
      if (src === hi) return { ...known, hi: hi - 1 };
      return without.length < MOST_EXCLUDED ? { ...known, without: [...without, src] } : known;
    }
    case 'jgt':
      return holds ? { ...known, lo: Math.max(lo, src + 1) } : { ...known, hi: Math.min(hi, src) };
    case 'jge':
      return holds ? { ...known, lo: Math.max(lo, src) } : { ...known, hi: Math.min(hi, src - 1) };
    case 'jset':
      if (!holds) return { ...known, clear: (known.clear | src) >>> 0 };
      return (src & (src - 1)) === 0 ? { ...known, set: (known.set | src) >>> 0 } : known;
  }
}

/** The facts behind an answer. */
function learn(values: Values, node: TestCode, { a, facts }: State, holds: boolean): Facts {
  if (a === UNKNOWN || node.src === 'x') return facts;
  const known = narrow(node, knownOf(values, facts, a), holds);
  const more = new Map(facts).set(a, known);
  const masked = values.masked.get(a);
  if (masked === undefined) return more;
  const outside = ~masked.mask >>> 0;
  if (((outside + 1) & outside) !== 0) return more;
  // The value that was masked lies in the block of what is left of it.
  const of = facts.get(masked.of) ?? ANYTHING;
  const lo = Math.max(of.lo, known.lo);
  const hi = Math.min(of.hi, (known.hi | outside) >>> 0);
  return more.set(masked.of, { ...of, lo, hi });
}

export const A_LIVE = 1;
export const X_LIVE = 2;

/** Registers an instruction reads, and sets without reading them. */
function usesOf(insn: StraightInsn): { readonly reads: number; readonly sets: number } {
  switch (insn.kind) {
    case 'ld_abs':
    case 'ld_imm':
    case 'ld_len':
    case 'ld_mem':
      return { reads: 0, sets: A_LIVE };
    case 'ld_ind':
      return { reads: X_LIVE, sets: A_LIVE };
    case 'ldx_imm':
    case 'ldx_len':
    case 'ldx_mem':
    case 'ldx_msh':
      return { reads: 0, sets: X_LIVE };
    case 'st':
    case 'neg':
      return { reads: A_LIVE, sets: 0 };
    case 'stx':
      return { reads: X_LIVE, sets: 0 };
    case 'alu':
      return { reads: insn.src === 'x' ? A_LIVE | X_LIVE : A_LIVE, sets: 0 };
    case 'tax':
      return { reads: A_LIVE, sets: X_LIVE };
    case 'txa':
      return { reads: X_LIVE, sets: A_LIVE };
  }
}

/** Registers whose value matters at each node. */
export function findLive(nodes: readonly Code[]): ReadonlyMap<Code, number> {
  const live = new Map<Code, number>();
  for (const node of [...nodes].reverse()) live.set(node, liveAt(node, live));
  return live;
}

function liveAt(node: Code, live: ReadonlyMap<Code, number>): number {
  const at = (child: Code): number => live.get(child) ?? 0;
  switch (node.kind) {
    case 'ret':
      return 0;
    case 'need':
      return at(node.next) | (node.base === 'x' ? X_LIVE : 0);
    case 'do': {
      const { reads, sets } = usesOf(node.insn);
      return (at(node.next) & ~sets) | reads;
    }
    case 'test':
      return at(node.yes) | at(node.no) | A_LIVE | (node.src === 'x' ? X_LIVE : 0);
  }
}

/** Whether what a `need` asks for is known already. */
function isMet(values: Values, node: Extract<Code, { kind: 'need' }>, state: State): boolean {
  const key = node.base === 'x' ? `reach v${state.x}` : LENGTH;
  return (state.facts.get(numberOf(values, key))?.lo ?? 0) >= node.end;
}

/** Stores matter elsewhere, and a load may end the program unless the same bytes were loaded before. */
function isSkippable(values: Values, insn: StraightInsn, { x, facts }: State): boolean {
  const reach = (key: string): number => facts.get(numberOf(values, key))?.lo ?? 0;
  switch (insn.kind) {
    case 'st':
    case 'stx':
      return false;
    case 'ld_abs':
      return insn.k >= PACKET_BYTES || reach(LENGTH) >= insn.k + insn.size;
    case 'ldx_msh':
      return reach(LENGTH) > insn.k;
    case 'ld_ind':
      return x !== UNKNOWN && reach(`reach v${x}`) >= insn.k + insn.size;
    default:
      return true;
  }
}

/** The farthest node that a way with this state can go to directly. */
function land(values: Values, live: ReadonlyMap<Code, number>, from: Code, state: State): Code {
  let node = from;
  let landed = from;
  let here = state;
  for (let skipped = 0; skipped < MOST_SKIPPED; skipped += 1) {
    if (node.kind === 'do') {
      if (!isSkippable(values, node.insn, here)) break;
      here = { ...registersBehind(values, node.insn, here), facts: state.facts };
      node = node.next;
    } else if (node.kind === 'test') {
      const answer = decide(values, node, here);
      if (answer === null) break;
      node = answer ? node.yes : node.no;
    } else if (node.kind === 'need') {
      if (!isMet(values, node, here)) break;
      node = node.next;
    } else break;
    const wanted = live.get(node) ?? 0;
    const fitsA = (wanted & A_LIVE) === 0 || (here.a !== UNKNOWN && here.a === state.a);
    const fitsX = (wanted & X_LIVE) === 0 || (here.x !== UNKNOWN && here.x === state.x);
    if (fitsA && fitsX) landed = node;
  }
  return landed;
}

/** Values between two intervals that are apart, where they are few enough to be kept in mind. */
function gapBetween(a: Known, b: Known): number[] {
  const [low, high] = a.hi < b.lo ? [a, b] : [b, a];
  const size = high.lo - low.hi - 1;
  if (size <= 0 || size > MOST_GAP) return [];
  return Array.from({ length: size }, (_, i) => low.hi + 1 + i);
}

function meetKnown(a: Known, b: Known): Known {
  const isOutside = (value: number, { lo, hi, without }: Known): boolean =>
    value < lo || value > hi || without.includes(value);
  const without = [
    ...a.without.filter((value) => isOutside(value, b)),
    ...b.without.filter((value) => isOutside(value, a) && !a.without.includes(value)),
    ...gapBetween(a, b),
  ];
  return {
    lo: Math.min(a.lo, b.lo),
    hi: Math.max(a.hi, b.hi),
    without,
    clear: (a.clear & b.clear) >>> 0,
    set: (a.set & b.set) >>> 0,
  };
}

function meet(a: State, b: State): State {
  const facts = new Map<Value, Known>();
  for (const [value, known] of a.facts) {
    const other = b.facts.get(value);
    if (other !== undefined) facts.set(value, meetKnown(known, other));
  }
  return { a: a.a === b.a ? a.a : UNKNOWN, x: a.x === b.x ? a.x : UNKNOWN, facts };
}

/** Bytes known to be there, from the packet's start and behind X. */
export interface Reach {
  readonly packet: number;
  readonly x: number;
}

/** What is known to be there at each node; `nodes` are in order, every packet has `shortest`. */
export function findReaches(nodes: readonly Code[], shortest: number): ReadonlyMap<Code, Reach> {
  const values: Values = { numbers: new Map(), masked: new Map() };
  const length = numberOf(values, LENGTH);
  const states = new Map<Code, State>();
  const reach = (node: Code, state: State): void => {
    const before = states.get(node);
    states.set(node, before === undefined ? state : meet(before, state));
  };
  const [root] = nodes;
  if (root === undefined) return new Map();
  reach(root, { a: UNKNOWN, x: UNKNOWN, facts: atLeast(new Map(), length, shortest) });
  const reaches = new Map<Code, Reach>();
  for (const node of nodes) {
    const state = states.get(node);
    if (state === undefined) continue;
    const { x, facts } = state;
    const known = (value: Value): number => facts.get(value)?.lo ?? 0;
    const behindX = x === UNKNOWN ? 0 : known(numberOf(values, `reach v${x}`));
    reaches.set(node, { packet: known(length), x: behindX });
    if (node.kind === 'do') reach(node.next, behind(values, node.insn, state));
    else if (node.kind === 'need') reach(node.next, state);
    else if (node.kind === 'test') {
      reach(node.yes, { ...state, facts: learn(values, node, state, true) });
      reach(node.no, { ...state, facts: learn(values, node, state, false) });
    }
  }
  return reaches;
}

interface Ways {
  readonly next: Code | null;
  readonly yes: Code | null;
  readonly no: Code | null;
}

function leadWays(
  root: Code,
  shortest: number,
): { readonly start: Code; readonly ways: ReadonlyMap<Code, Ways> } {
  const nodes = nodesBelow(root);
  const values: Values = { numbers: new Map(), masked: new Map() };
  const live = findLive(nodes);
  const states = new Map<Code, State>();
  const ways = new Map<Code, Ways>();
  const go = (target: Code, state: State): Code => {
    const landed = land(values, live, target, state);
    if (landed.kind !== 'ret') {
      const before = states.get(landed);
      states.set(landed, before === undefined ? state : meet(before, state));
    }
    return landed;
  };
  const facts = atLeast(new Map(), numberOf(values, LENGTH), shortest);
  const start = go(root, { a: UNKNOWN, x: UNKNOWN, facts });
  for (const node of nodes) {
    const state = states.get(node);
    if (state === undefined) continue;
    if (node.kind === 'do') {
      const next = go(node.next, behind(values, node.insn, state));
      ways.set(node, { next, yes: null, no: null });
    } else if (node.kind === 'need') {
      ways.set(node, { next: go(node.next, state), yes: null, no: null });
    } else if (node.kind === 'test') {
      const yes = go(node.yes, { ...state, facts: learn(values, node, state, true) });
      const no = go(node.no, { ...state, facts: learn(values, node, state, false) });
      ways.set(node, { next: null, yes, no });
    }
  }
  return { start, ways };
}

/** The nodes again with new ways, equal ones shared. */
function rebuild(table: CodeTable, start: Code, ways: ReadonlyMap<Code, Ways>): Code {
  const made = new Map<Code, Code>();
  const get = (node: Code | null): Code => {
    if (node?.kind === 'ret') return endOf(table, node.verdict);
    const known = node === null ? undefined : made.get(node);
    if (known === undefined) throw new Error('bug: code is used before it is made');
    return known;
  };
  for (const [node, { next, yes, no }] of [...ways].sort(([a], [b]) => a.id - b.id)) {
    if (node.kind === 'do') made.set(node, run(table, [node.insn], get(next), node.rule));
    if (node.kind === 'need') made.set(node, need(table, node.base, node.end, get(next)));
    if (node.kind === 'test') {
      made.set(node, test(table, node.op, node.src, get(yes), get(no), node.rule));
    }
  }
  return get(start);
}

/** Rounds after which a program is as short as leading ways makes it, in all we have seen. */
const MOST_ROUNDS = 8;

/**
 * Leads every way past what it need not execute: loads of what A or X hold already, comparisons whose
 * answer is known, and instructions whose result nobody reads. Keeps the meaning; packet loads are
 * only skipped where as many bytes are known to be there; every packet has `shortest`. Never grows.
 */
export function threadCode(root: Code, shortest: number): Code {
  let code = root;
  let size = nodesBelow(code).length;
  for (let round = 0; round < MOST_ROUNDS; round += 1) {
    const { start, ways } = leadWays(code, shortest);
    const next = rebuild(createCodeTable(), start, ways);
    const left = nodesBelow(next).length;
    const isDone = left >= size && round > 0;
    code = next;
    size = left;
    if (isDone) break;
  }
  return code;
}
