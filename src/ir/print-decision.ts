import type { Decision } from './decision.ts';
import { childrenOf, type DecisionNode, type Question, type TableNode } from './decision-nodes.ts';
import { formatTest } from './print.ts';

function formatQuestion(question: Question): string {
  switch (question.kind) {
    case 'compare':
      return formatTest({ ...question, negated: false, implicit: false });
    case 'lookup':
      return formatTest({ ...question, negated: false });
    case 'present':
      return `${question.end} bytes at ${question.base} (${question.view})`;
  }
}

/** All nodes, each before those it leads to. */
function nodesOf(roots: readonly DecisionNode[]): DecisionNode[] {
  const seen = new Map<number, DecisionNode>();
  const open = [...roots];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (seen.has(node.id)) continue;
    seen.set(node.id, node);
    open.push(...childrenOf(node));
  }
  return [...seen.values()].sort((a, b) => b.id - a.id);
}

function nameOf(node: DecisionNode): string {
  return node.kind === 'leaf' ? node.verdict : `n${node.id}`;
}

function formatTable({ id, table, forest, actions, targets, none }: TableNode): string {
  const fields = table.key.parts.map(({ field }) => field.name).join(', ');
  const ways = targets.map((target, index) => `${index} ${nameOf(target)}`).join(', ');
  const head = `n${id}: table of ${actions.length} rules, ${table.size} boxes of (${fields}), ${forest.trees.length} trees, else ${none}; ${ways}`;
  const lines = actions.map(({ target, counter, rule }, index) => {
    const counted = counter === null ? '' : ` count ${counter}`;
    const origin = rule === null ? '' : `  ; ${rule}`;
    return `  ${index}:${counted} -> ${target}${origin}`;
  });
  return [head, ...lines].join('\n');
}

function formatNode(node: Exclude<DecisionNode, { kind: 'leaf' }>): string {
  if (node.kind === 'table') return formatTable(node);
  const origin = node.rule === null ? '' : `  ; ${node.rule}`;
  if (node.kind === 'count') {
    const counters = node.counters.join(', ');
    return `n${node.id}: count ${counters} -> ${nameOf(node.next)}${origin}`;
  }
  const question = formatQuestion(node.question);
  return `n${node.id}: ${question} ? ${nameOf(node.yes)} : ${nameOf(node.no)}${origin}`;
}

/** The decision as text: the roots, then a line a node. */
export function printDecision(decision: Decision): string {
  const { untagged, tagged, stacked } = decision;
  const named: readonly (readonly [string, DecisionNode])[] = [
    ['ip', untagged.ip],
    ['ip6', untagged.ip6],
    ['other', untagged.other],
    ['tagged ip', tagged.ip],
    ['tagged ip6', tagged.ip6],
    ['tagged other', tagged.other],
    ['two tags', stacked],
  ];
  const roots = named.map(([name, node]) => `${name}: ${nameOf(node)}`);
  const nodes = nodesOf(named.map(([, node]) => node));
  const lines = nodes.flatMap((node) => (node.kind === 'leaf' ? [] : [formatNode(node)]));
  return `${[...roots, ...lines].join('\n')}\n`;
}
