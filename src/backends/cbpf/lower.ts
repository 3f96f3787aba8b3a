import type { DecisionNode, Question } from '../../ir/decision-nodes.ts';
import { type Field, fieldEnd, fieldKey, META } from '../../ir/fields.ts';
import { isPlain } from '../../ir/operand.ts';
import { intervalOf, sortedElements } from '../../ir/region.ts';
import { ones } from '../../support/bits.ts';
import {
  type Asker,
  askCompare,
  askPresent,
  chooseField,
  type FieldPiece,
  guardExtensions,
  isBehindExtensions,
  type Ways,
  withoutExtensions,
} from './ask.ts';
import { askLookup } from './ask-lookup.ts';
import type { Code } from './code.ts';
import { wordsOf } from './field-load.ts';
import { type Branch, branchesOf, fieldsOf, testOf } from './thread-decision.ts';

/** Values of a field for which a question is answered yes. */
interface Interval {
  readonly lo: bigint;
  readonly hi: bigint;
}

/** A question about one field's value. */
interface FieldQuestion {
  /** Questions with the same key are about the same value. */
  readonly key: string;
  readonly field: Field;
  /** Ascending, apart from each other. */
  readonly yes: readonly Interval[];
}

function fieldQuestion(question: Question): FieldQuestion | null {
  if (question.kind === 'present') return null;
  if (question.kind === 'compare') {
    const { field } = question.operand;
    const interval = intervalOf(testOf(question));
    if (interval === null || field.name.startsWith('frame ')) return null;
    const yes = [{ lo: interval.lo, hi: interval.hi }];
    return { key: `${question.view} ${interval.key}`, field, yes };
  }
  const [operand] = question.key;
  const sorted = sortedElements(question.set.elements);
  if (operand === undefined || sorted === null || !isPlain(operand)) return null;
  const yes = sorted.lo.map((lo, index) => ({ lo, hi: sorted.hi[index] ?? lo }));
  return { key: `${question.view} ${fieldKey(operand.field)}`, field: operand.field, yes };
}

/** Branches that together ask for one field: by branch, the one that control comes in by. */
function groupBranches(
  branches: readonly Branch[],
  questions: ReadonlyMap<Branch, FieldQuestion | null>,
  roots: ReadonlySet<DecisionNode>,
): ReadonlyMap<DecisionNode, Branch> {
  const heads = new Map<DecisionNode, Branch>();
  /** The one group that all ways to a node come from; null when there are several. */
  const from = new Map<DecisionNode, Branch | null>();
  for (const node of branches) {
    const before = from.get(node) ?? null;
    const question = questions.get(node);
    const same = before !== null && question != null && questions.get(before)?.key === question.key;
    const head = same && !roots.has(node) ? before : node;
    heads.set(node, head);
    for (const child of [node.yes, node.no]) {
      const known = from.get(child);
      from.set(child, known === undefined || known === head ? head : null);
    }
  }
  return heads;
}

/** Where values lead: from `from` up to the next one's. */
interface Lead {
  readonly from: bigint;
  readonly to: DecisionNode;
  readonly rule: string | null;
}

/** Puts the leads of both answers together; each is ascending and starts at 0. Linear time. */
function mergeLeads(
  intervals: readonly Interval[],
  yes: readonly Lead[],
  no: readonly Lead[],
): Lead[] {
  const merged: Lead[] = [];
  let here = 0n;
  let [inInterval, inYes, inNo] = [0, 0, 0];
  for (;;) {
    while ((yes[inYes + 1]?.from ?? here + 1n) <= here) inYes += 1;
    while ((no[inNo + 1]?.from ?? here + 1n) <= here) inNo += 1;
    const interval = intervals[inInterval];
    const isInside = interval !== undefined && here >= interval.lo;
    const lead = isInside ? yes[inYes] : no[inNo];
    if (lead === undefined) throw new Error('bug: leads that do not start at 0');
    if (merged.at(-1)?.to !== lead.to) {
      merged.push(lead.from === here ? lead : { from: here, to: lead.to, rule: lead.rule });
    }
    const edge = isInside ? interval.hi + 1n : interval?.lo;
    const change = isInside ? yes[inYes + 1]?.from : no[inNo + 1]?.from;
    if (edge === undefined && change === undefined) return merged;
    const isEdge = edge !== undefined && (change === undefined || edge <= change);
    here = isEdge ? edge : (change ?? here);
    if (isEdge && isInside) inInterval += 1;
  }
}

/** Everything below one kind of packet. */
interface Lowering {
  readonly asker: Asker;
  readonly codes: Map<DecisionNode, Code>;
}

function codeOf({ codes, asker }: Lowering, node: DecisionNode): Code {
  if (node.kind === 'leaf') return node.verdict === 'drop' ? asker.table.drop : asker.table.pass;
  const code = codes.get(node);
  if (code === undefined) throw new Error('bug: a branch is used before it is lowered');
  return code;
}

function lowerField(
  lowering: Lowering,
  { field }: FieldQuestion,
  view: Branch['question']['view'],
  leads: readonly Lead[],
): Code {
  const { asker } = lowering;
  const top = ones(field.width);
  const known = leads.filter(({ from }) => from <= top);
  const pieces: FieldPiece[] = known.map(({ from, to, rule }) => ({
    from,
    to: codeOf(lowering, to),
    rule,
  }));
  const words = wordsOf(field);
  if (words === null) return asker.table.pass;
  if (fieldKey(field) === META.l4proto.name) {
    return chooseField(asker, words, view, withoutExtensions(asker, pieces));
  }
  const code = chooseField(asker, words, view, pieces);
  return isBehindExtensions(field) ? guardExtensions(asker, code) : code;
}

function ask(asker: Asker, question: Question, ways: Ways): Code {
  switch (question.kind) {
    case 'compare':
      return askCompare(asker, question, ways);
    case 'lookup':
      return askLookup(asker, question, ways);
    case 'present':
      return askPresent(asker, question, ways);
  }
}

function lowerBranch({ asker, codes }: Lowering, { question, yes, no, rule }: Branch): Code {
  const code = (node: DecisionNode): Code => codeOf({ asker, codes }, node);
  return ask(asker, question, { yes: code(yes), no: code(no), rule });
}

/** One question asked before the kind of packet is known. */
export function askFirst(asker: Asker, { question }: Branch, ways: Ways): Code {
  const asked = fieldQuestion(question);
  if (asked === null) return ask(asker, question, ways);
  const { yes, no, rule } = ways;
  const words = wordsOf(asked.field);
  if (words === null) return asker.table.pass;
  const top = ones(asked.field.width);
  const pieces: FieldPiece[] = [{ from: 0n, to: no, rule }];
  for (const { lo, hi } of asked.yes) {
    if (pieces.at(-1)?.from === lo) pieces.pop();
    pieces.push({ from: lo, to: yes, rule });
    if (hi < top) pieces.push({ from: hi + 1n, to: no, rule });
  }
  return chooseField(asker, words, question.view, pieces);
}

/** Everything below a root, lowered; the leads of branches that ask for the same field as the root. */
function lowerBelow(lowering: Lowering, root: DecisionNode): readonly Lead[] | null {
  const branches = branchesOf([root]);
  const questions = new Map(branches.map((node) => [node, fieldQuestion(node.question)]));
  const heads = groupBranches(branches, questions, new Set([root]));
  const leads = new Map<DecisionNode, readonly Lead[]>();
  for (const node of [...branches].reverse()) {
    const question = questions.get(node) ?? null;
    if (question === null) {
      lowering.codes.set(node, lowerBranch(lowering, node));
      continue;
    }
    const head = heads.get(node);
    const leadsOf = (child: DecisionNode): readonly Lead[] =>
      (heads.get(child) === head ? leads.get(child) : undefined) ?? [
        { from: 0n, to: child, rule: node.rule },
      ];
    const merged = mergeLeads(question.yes, leadsOf(node.yes), leadsOf(node.no));
    leads.set(node, merged);
    if (head === node) {
      lowering.codes.set(node, lowerField(lowering, question, node.question.view, merged));
    }
  }
  return leads.get(root) ?? null;
}

/** A decision for one kind of packet as code. */
export function lowerRoot(asker: Asker, root: DecisionNode): Code {
  const lowering: Lowering = { asker, codes: new Map() };
  lowerBelow(lowering, root);
  return codeOf(lowering, root);
}

/** A decision for packets that are not IP as pieces of the EtherType. */
export function lowerOther(asker: Asker, root: DecisionNode): FieldPiece[] {
  const lowering: Lowering = { asker, codes: new Map() };
  const leads = lowerBelow(lowering, root);
  const isProtocol =
    root.kind === 'branch' && fieldQuestion(root.question)?.field.name === META.protocol.name;
  if (leads === null || !isProtocol) return [{ from: 0n, to: codeOf(lowering, root), rule: null }];
  return leads.map(({ from, to, rule }) => ({ from, to: codeOf(lowering, to), rule }));
}

/** Whether a decision asks for the transport protocol or anything behind the IP header. */
export function asksTransport(root: DecisionNode): boolean {
  return branchesOf([root]).some(
    ({ question }) =>
      (question.kind === 'present' && question.base === 'th') ||
      fieldsOf(question).some(isBehindExtensions),
  );
}

/** Bytes of a frame before its EtherType or outer tag. */
const ADDRESSES = 12;

/** Whether a decision reads the EtherType or a tag as the bytes that they are. */
export function readsType(root: DecisionNode): boolean {
  return branchesOf([root]).some(({ question }) =>
    fieldsOf(question).some((field) => field.base === 'll' && fieldEnd(field) > ADDRESSES),
  );
}

/** Whether a question reads the Ethernet header alone. */
export function readsLinkOnly(question: Question): boolean {
  const fields = fieldsOf(question);
  return fields.length > 0 && fields.every(({ base }) => base === 'll');
}

/** Whether a decision asks for one of these EtherTypes by its value. */
export function namesProtocol(root: DecisionNode, types: readonly number[]): boolean {
  return branchesOf([root]).some(({ question }) => {
    const asked = fieldQuestion(question);
    if (asked === null || fieldKey(asked.field) !== META.protocol.name) return false;
    return asked.yes.some(({ lo, hi }) => lo === hi && types.includes(Number(lo)));
  });
}
