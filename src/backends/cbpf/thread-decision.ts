import type { Decision, Roots } from '../../ir/decision.ts';
import {
  branch,
  createNodeTable,
  type DecisionNode,
  type Question,
} from '../../ir/decision-nodes.ts';
import { type Field, fieldKey, META } from '../../ir/fields.ts';
import {
  exclude,
  intervalOf,
  type Known,
  PLENTY,
  presenceKey,
  type Region,
  restrict,
  type Truth,
  truthOf,
  withinIn,
} from '../../ir/region.ts';
import type { Operand, SetElements, Test } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';

export type Branch = Extract<DecisionNode, { kind: 'branch' }>;
type Compare = Extract<Question, { kind: 'compare' }>;
type Lookup = Extract<Question, { kind: 'lookup' }>;

/** How many answered questions one way skips at a time; bounds the work on long lists. */
const MOST_SKIPPED = 256;

const tests = new WeakMap<Question, Exclude<Test, { kind: 'unknown' }>>();

/** The question as the test of a rule, one object for each. */
export function testOf(question: Compare | Lookup): Exclude<Test, { kind: 'unknown' }> {
  let test = tests.get(question);
  if (test === undefined) {
    test =
      question.kind === 'compare'
        ? { ...question, negated: false, implicit: false }
        : { ...question, negated: false };
    tests.set(question, test);
  }
  return test;
}

/** What is known of values that are computed with goes by what computes them. */
function computedKey({ field, mask, xor, shift }: Operand): string {
  return `${fieldKey(field)} & ${mask} ^ ${xor} << ${shift}`;
}

/** The hooks' views of a frame differ in these. */
function dependsOnView(field: Field): boolean {
  return field.base === 'll' || fieldKey(field) === META.length.name;
}

/** Sets with as many elements at most are told apart by what is in them. */
const FEW_ELEMENTS = 64;

const setNames = new WeakMap<SetElements, string>();
let sets = 0;

function nameSet(elements: SetElements): string {
  let name = setNames.get(elements);
  if (name === undefined) {
    const { lo, hi } = elements;
    sets += 1;
    name = lo.length > FEW_ELEMENTS ? `#${sets}` : `${lo.join()}-${hi === lo ? '' : hi.join()}`;
    setNames.set(elements, name);
  }
  return name;
}

/** Whether a key is in a set is a value of its own: 1 or 0. */
function lookupKey({ key, set, view }: Lookup): string {
  return `${view} ${key.map(computedKey).join('.')} in ${nameSet(set.elements)}`;
}

/** The interval a comparison asks for, of the field or of what is computed from it. */
function comparedInterval(question: Compare) {
  const { operand, lo, hi, view } = question;
  const { field } = operand;
  const plain = intervalOf(testOf(question));
  const isAll = lo === 0n && hi >= ones(field.width);
  const interval = plain ?? { key: computedKey(operand), field, lo, hi, isAll };
  return dependsOnView(field) ? { ...interval, key: `${view} ${interval.key}` } : interval;
}

/** A name for what a question asks, whoever asks it. */
export function nameQuestion(question: Question): string {
  switch (question.kind) {
    case 'present':
      return `${presenceKey(question.base, question.view)} ${question.end}`;
    case 'lookup':
      return lookupKey(question);
    case 'compare': {
      const { key, lo, hi } = comparedInterval(question);
      return `${key} ${lo}-${hi}`;
    }
  }
}

/** The fields whose values a question is about. */
export function fieldsOf(question: Question): readonly Field[] {
  if (question.kind === 'present') return [];
  return question.kind === 'compare'
    ? [question.operand.field]
    : question.key.map(({ field }) => field);
}

/** Whether a region answers a question. */
function answer(question: Question, region: Region): Truth {
  if (question.kind === 'present') {
    const known = region.get(presenceKey(question.base, question.view));
    if (known === undefined) return 'open';
    if (known.lo >= BigInt(question.end)) return 'true';
    return known.hi < BigInt(question.end) ? 'false' : 'open';
  }
  if (question.kind === 'lookup') {
    const known = region.get(lookupKey(question));
    if (known !== undefined && known.lo === known.hi) return known.lo === 1n ? 'true' : 'false';
    return truthOf(testOf(question), region);
  }
  const plain = truthOf(testOf(question), region);
  return plain === 'open' ? withinIn(comparedInterval(question), region) : plain;
}

function learnCompare(question: Compare, region: Region, holds: boolean): Region {
  const { key, field, lo, hi } = comparedInterval(question);
  if (holds) return restrict(region, key, lo, hi);
  if (lo === hi) return exclude(region, key, lo);
  const top = ones(field.width);
  if (lo === 0n) return restrict(region, key, hi + 1n, top);
  return hi >= top ? restrict(region, key, 0n, lo - 1n) : region;
}

/** The region behind an answer. */
function learn(question: Question, region: Region, holds: boolean): Region {
  switch (question.kind) {
    case 'present': {
      const key = presenceKey(question.base, question.view);
      const end = BigInt(question.end);
      return holds ? restrict(region, key, end, PLENTY) : restrict(region, key, 0n, end - 1n);
    }
    case 'compare':
      return learnCompare(question, region, holds);
    case 'lookup': {
      const is = holds ? 1n : 0n;
      return restrict(region, lookupKey(question), is, is);
    }
  }
}

function meetKnown(a: Known, b: Known): Known {
  const low = a.lo < b.lo ? a : b;
  const high = a.hi > b.hi ? a : b;
  return {
    lo: low.lo,
    hi: high.hi,
    without: a.without.filter((value) => b.without.includes(value) || value < b.lo || value > b.hi),
  };
}

/** What is true in both. */
function meet(a: Region, b: Region): Region {
  const both = new Map<string, Known>();
  for (const [key, known] of a) {
    const other = b.get(key);
    if (other !== undefined) both.set(key, meetKnown(known, other));
  }
  return both;
}

const NOTHING: Region = new Map();

/** Where a way with this knowledge ends up. */
function skipAnswered(from: DecisionNode, region: Region): DecisionNode {
  let node = from;
  for (let skipped = 0; skipped < MOST_SKIPPED && node.kind === 'branch'; skipped += 1) {
    const truth = answer(node.question, region);
    if (truth === 'open') return node;
    node = truth === 'true' ? node.yes : node.no;
  }
  return node;
}

/** Every branch below the roots, each before those it leads to. */
export function branchesOf(roots: readonly DecisionNode[]): Branch[] {
  const seen = new Set<DecisionNode>(roots);
  for (const node of seen) {
    if (node.kind === 'count') throw new Error('bug: a classic BPF program cannot count');
    if (node.kind === 'branch') seen.add(node.yes).add(node.no);
  }
  return [...seen].filter((node) => node.kind === 'branch').sort((a, b) => b.id - a.id);
}

/** The seven roots of a decision, in one order. */
export function rootsOf({ untagged, tagged, stacked }: Decision): DecisionNode[] {
  const roots = [untagged, tagged].flatMap(({ ip, ip6, other }) => [ip, ip6, other]);
  return [...roots, stacked];
}

/**
 * A decision that asks nothing whose answer every way there knows: each way is led past the
 * questions it has answered, then equal nodes are shared anew. Keeps the meaning and never grows.
 */
export function threadDecision(decision: Decision): Decision {
  const roots = rootsOf(decision);
  const known = new Map<DecisionNode, Region>(roots.map((root) => [root, NOTHING]));
  const led = new Map<DecisionNode, { readonly yes: DecisionNode; readonly no: DecisionNode }>();
  for (const node of branchesOf(roots)) {
    const here = known.get(node);
    if (here === undefined) continue;
    const way = (child: DecisionNode, holds: boolean): DecisionNode => {
      const region = learn(node.question, here, holds);
      const target = skipAnswered(child, region);
      const before = known.get(target);
      known.set(target, before === undefined ? region : meet(before, region));
      return target;
    };
    led.set(node, { yes: way(node.yes, true), no: way(node.no, false) });
  }
  return rebuild(decision, led);
}

function rebuild(
  decision: Decision,
  led: ReadonlyMap<DecisionNode, { readonly yes: DecisionNode; readonly no: DecisionNode }>,
): Decision {
  const table = createNodeTable();
  const made = new Map<DecisionNode, DecisionNode>();
  const get = (node: DecisionNode): DecisionNode => {
    if (node.kind === 'leaf') return node.verdict === 'drop' ? table.drop : table.pass;
    const known = made.get(node);
    if (known === undefined) throw new Error('bug: a node is used before it is made');
    return known;
  };
  for (const [node, ways] of [...led].sort(([a], [b]) => a.id - b.id)) {
    if (node.kind !== 'branch') continue;
    made.set(node, branch(table, node.question, get(ways.yes), get(ways.no), node.rule));
  }
  const roots = (old: Roots): Roots => ({
    ip: get(old.ip),
    ip6: get(old.ip6),
    other: get(old.other),
  });
  return {
    untagged: roots(decision.untagged),
    tagged: roots(decision.tagged),
    stacked: get(decision.stacked),
    size: table.interned.size,
  };
}
