import { type Code, type CodeTable, copyNode, insnKey, nodesBelow, remake, run } from './code.ts';
import { ANCILLARY, type StraightInsn } from './insn.ts';
import type { Meaning } from './meaning.ts';
import { findLive, findReaches, type Reach, X_LIVE } from './thread-code.ts';
import { MEMORY_WORDS } from './validate.ts';

type Do = Extract<Code, { kind: 'do' }>;

/** Loads of one value that stand first in some code, and what follows them. */
interface Lead {
  readonly insns: readonly StraightInsn[];
  readonly key: string;
  readonly behind: Code;
}

/** A long choice by one value whose ends load another one: it can be loaded before, and kept. */
interface Keeper {
  readonly head: Do;
  /** Comparisons of the choice and what masks its value. */
  readonly inside: ReadonlySet<Code>;
  readonly lead: Lead;
  /** Ends that load the value. */
  readonly uses: number;
}

/** Comparisons that a choice must have, and decisions that are looked at. */
const LONG = 4;
const MOST_NODES = 1500;
const MOST_TRIALS = 12;

function isPacketLoad({ insn }: Do): boolean {
  return insn.kind === 'ld_ind' || (insn.kind === 'ld_abs' && insn.k < ANCILLARY);
}

function leadOf(node: Code): Lead | null {
  if (node.kind !== 'do') return null;
  const { insn, next } = node;
  if (isPacketLoad(node)) return { insns: [insn], key: insnKey(insn), behind: next };
  if (insn.kind !== 'ldx_msh' && insn.kind !== 'ldx_imm') return null;
  if (next.kind !== 'do' || next.insn.kind !== 'ld_ind') return null;
  const key = `${insnKey(insn)},${insnKey(next.insn)}`;
  return { insns: [insn, next.insn], key, behind: next.next };
}

function isInside(node: Code): boolean {
  if (node.kind === 'test') return node.src !== 'x';
  return node.kind === 'do' && node.insn.kind === 'alu' && node.insn.src !== 'x';
}

function nextOf(node: Code): readonly Code[] {
  if (node.kind === 'test') return [node.yes, node.no];
  return node.kind === 'do' ? [node.next] : [];
}

/** Whether bytes may be loaded before the choice that only its ends were sure to load. */
function isThere(lead: Lead, ends: readonly Code[], reach: Reach, meaning: Meaning): boolean {
  const isKnown = lead.insns.every((insn, at) => {
    if (insn.kind === 'ld_abs') return insn.k + insn.size <= reach.packet;
    if (insn.kind === 'ldx_msh') return insn.k < reach.packet;
    return insn.kind !== 'ld_ind' || (at === 0 && insn.k + insn.size <= reach.x);
  });
  if (isKnown) return true;
  // Then a load that fails ends as every other way does.
  const isUseless = (end: Code): boolean => end.kind === 'ret' && end.verdict === 'continue';
  return (
    meaning.failedLoad === 'continue' &&
    ends.every((end) => isUseless(end) || leadOf(end)?.key === lead.key)
  );
}

function findKeeper(
  head: Code,
  live: ReadonlyMap<Code, number>,
  reach: Reach,
  meaning: Meaning,
): Keeper | null {
  if (head.kind !== 'do' || !isPacketLoad(head) || !isInside(head.next)) return null;
  const inside = new Set<Code>([head.next]);
  const ends = new Set<Code>();
  for (const node of inside) {
    for (const next of nextOf(node)) (isInside(next) ? inside : ends).add(next);
  }
  if ([...inside].filter(({ kind }) => kind === 'test').length < LONG) return null;
  const leads = [...ends].map(leadOf).filter((lead) => lead !== null);
  const uses = (lead: Lead): number => leads.filter(({ key }) => key === lead.key).length;
  const lead = leads.reduce<Lead | null>(
    (best, one) => (best === null || uses(one) > uses(best) ? one : best),
    null,
  );
  if (lead === null || !isThere(lead, [...ends], reach, meaning)) return null;
  const setsX = lead.insns.length > 1;
  const needsX = [...ends].some(
    (end) => leadOf(end)?.key !== lead.key && ((live.get(end) ?? 0) & X_LIVE) !== 0,
  );
  if (setsX && (needsX || head.insn.kind === 'ld_ind')) return null;
  return { head, inside, lead, uses: uses(lead) };
}

/** Keepers that may share their comparisons, or that save enough by themselves. */
function groupKeepers(keepers: readonly Keeper[]): readonly (readonly Keeper[])[] {
  const groups = new Map<string, Keeper[]>();
  for (const keeper of keepers) {
    const tests = [...keeper.inside].map((node) => (node.kind === 'test' ? node.src : ''));
    const key = tests.sort().join();
    groups.set(key, [...(groups.get(key) ?? []), keeper]);
  }
  const isWorthIt = (group: readonly Keeper[]): boolean =>
    group.length > 1 || group.some(({ lead, uses }) => lead.insns.length > 1 && uses > 2);
  return [...groups.values()]
    .filter(isWorthIt)
    .sort(([a], [b]) => (b?.inside.size ?? 0) - (a?.inside.size ?? 0));
}

/** The code from a keeper on, with its value kept in a word of M. */
function keepAt(
  table: CodeTable,
  { head, inside, lead }: Keeper,
  word: number,
  codeOf: (node: Code) => Code,
): Code {
  const copies = new Map<Code, Code>();
  const follow = (node: Code): Code => {
    const copy = copies.get(node);
    if (copy !== undefined) return copy;
    const own = leadOf(node);
    if (own?.key !== lead.key) return codeOf(node);
    return run(
      table,
      [{ kind: 'ld_mem', k: word }],
      codeOf(own.behind),
      node.kind === 'do' ? node.rule : null,
    );
  };
  // Children have smaller ids, so each is copied before what leads to it.
  for (const node of [...inside].sort((a, b) => a.id - b.id)) {
    copies.set(node, copyNode(table, node, follow));
  }
  const insns: StraightInsn[] = [...lead.insns, { kind: 'st', k: word }, head.insn];
  return run(table, insns, follow(head.next), head.rule);
}

/**
 * Loads a value before a long choice by another one and keeps it in M, where that is shorter: the ends
 * of the choice need not load it again and again, and choices by the same values become one. Keeps the
 * meaning and never grows.
 */
export function keepValues(root: Code, meaning: Meaning, shortest: number): Code {
  let code = root;
  // M[0] is for `meetNeeds`.
  let word = 1;
  for (let trials = 0; trials < MOST_TRIALS && word < MEMORY_WORDS; ) {
    const nodes = nodesBelow(code);
    if (nodes.length > MOST_NODES) return code;
    const live = findLive(nodes);
    const reaches = findReaches(nodes, shortest);
    const keepers = nodes.map((node) => {
      const reach = reaches.get(node);
      return reach === undefined ? null : findKeeper(node, live, reach, meaning);
    });
    const groups = groupKeepers(keepers.filter((keeper) => keeper !== null));
    let isShorter = false;
    for (const group of groups) {
      trials += 1;
      const byHead = new Map(group.map((keeper) => [keeper.head as Code, keeper]));
      const kept = word;
      const shorter = remake(nodes, (table, node, codeOf) => {
        const keeper = byHead.get(node);
        if (keeper === undefined) return copyNode(table, node, codeOf);
        return keepAt(table, keeper, kept, codeOf);
      })(code);
      if (nodesBelow(shorter).length >= nodes.length) continue;
      code = shorter;
      word += 1;
      isShorter = true;
      break;
    }
    if (!isShorter) return code;
  }
  return code;
}
