import type { Decision, Roots } from '../../ir/decision.ts';
import {
  branch,
  createNodeTable,
  type DecisionNode,
  type NodeTable,
  type Question,
} from '../../ir/decision-nodes.ts';
import { type Branch, branchesOf, fieldsOf, nameQuestion, rootsOf } from './thread-decision.ts';

/** An answer that every way from a node to a drop gives. */
interface Gate {
  readonly question: Question;
  readonly rule: string | null;
  readonly holds: boolean;
}

/** By what is asked and answered; null where no way drops, and so anything would do. */
type Gates = ReadonlyMap<string, Gate> | null;

/** Larger decisions are left as they are: sets are compared at every node. */
const MOST_BRANCHES = 1500;

function addGate(gates: Gates, gate: Gate): Gates {
  if (gates === null) return null;
  return new Map(gates).set(`${nameQuestion(gate.question)} ${gate.holds}`, gate);
}

function inBoth(a: Gates, b: Gates): Gates {
  if (a === null || b === null) return a ?? b;
  return new Map([...a].filter(([name]) => b.has(name)));
}

/** The gates of every node; children come first. */
function findGates(branches: readonly Branch[]): ReadonlyMap<DecisionNode, Gates> {
  const gates = new Map<DecisionNode, Gates>();
  const at = (node: DecisionNode): Gates => {
    if (node.kind === 'leaf') return node.verdict === 'drop' ? new Map() : null;
    return gates.get(node) ?? new Map();
  };
  for (const node of branches) {
    const { question, rule, yes, no } = node;
    const ifYes = addGate(at(yes), { question, rule, holds: true });
    gates.set(node, inBoth(ifYes, addGate(at(no), { question, rule, holds: false })));
  }
  return gates;
}

/** How often each question is asked below a node. */
function countAsked(node: Branch): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const { question } of branchesOf([node])) {
    const name = nameQuestion(question);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

/**
 * The gates of a node that are asked more than once below it, and presences, in the order of one way to
 * a drop. A value is left out where that way makes sure first that its bytes are there.
 */
function repeatedGates(head: Branch, gates: ReadonlyMap<DecisionNode, Gates>): readonly Gate[] {
  const own = gates.get(head) ?? null;
  if (own === null || own.size === 0) return [];
  const counts = countAsked(head);
  const leadsNowhere = (child: DecisionNode): boolean =>
    child.kind === 'leaf' ? child.verdict !== 'drop' : gates.get(child) === null;
  const found: Gate[] = [];
  const unsure = new Set<string>();
  let isRepeated = false;
  for (let node: DecisionNode = head; node.kind === 'branch'; ) {
    const { question, yes, no }: Branch = node;
    const name = nameQuestion(question);
    const gate = own.get(`${name} true`) ?? own.get(`${name} false`);
    const isAgain = (counts.get(name) ?? 0) > 1;
    if (question.kind === 'present') {
      if (gate === undefined) unsure.add(question.base);
      else found.push(gate);
    } else if (gate !== undefined && isAgain) {
      if (!fieldsOf(question).some(({ base }) => unsure.has(base))) found.push(gate);
    }
    isRepeated ||= isAgain && found.at(-1) === gate && gate !== undefined;
    node = leadsNowhere(yes) ? no : yes;
  }
  return isRepeated ? found : [];
}

function askGates(table: NodeTable, node: DecisionNode, gates: readonly Gate[]): DecisionNode {
  return gates.reduceRight((behind, { question, holds, rule }) => {
    const [yes, no] = holds ? [behind, table.pass] : [table.pass, behind];
    return branch(table, question, yes, no, rule);
  }, node);
}

/**
 * A decision that asks first what all ways to a drop ask, where several of them do; null when there is
 * no such question. Keeps the meaning; what is asked again below is for `threadDecision` to take out.
 */
export function askOnce(decision: Decision): Decision | null {
  const roots = rootsOf(decision);
  const branches = branchesOf(roots).reverse();
  if (branches.length > MOST_BRANCHES) return null;
  const gates = findGates(branches);
  const table = createNodeTable();
  const made = new Map<DecisionNode, DecisionNode>();
  let isChanged = false;
  const get = (node: DecisionNode): DecisionNode => {
    if (node.kind === 'leaf') return node.verdict === 'drop' ? table.drop : table.pass;
    const known = made.get(node);
    if (known === undefined) throw new Error('bug: a node is used before it is made');
    return known;
  };
  for (const node of branches) {
    const again = branch(table, node.question, get(node.yes), get(node.no), node.rule);
    const repeated = repeatedGates(node, gates);
    isChanged ||= repeated.length > 0;
    made.set(node, askGates(table, again, repeated));
  }
  const rootsAgain = ({ ip, ip6, other }: Roots): Roots => ({
    ip: get(ip),
    ip6: get(ip6),
    other: get(other),
  });
  if (!isChanged) return null;
  return {
    untagged: rootsAgain(decision.untagged),
    tagged: rootsAgain(decision.tagged),
    stacked: get(decision.stacked),
    size: table.interned.size,
  };
}
