import { type Code, copyNode, nodesBelow, remake, run } from './code.ts';
import { ANCILLARY, type StraightInsn } from './insn.ts';
import { findLive } from './thread-code.ts';

/** Bytes that every way to drop has loaded, from the packet's start and behind X. */
interface Reach {
  readonly packet: number;
  readonly x: number;
}

const EVERYTHING = Number.POSITIVE_INFINITY;

function reachBefore(insn: StraightInsn, { packet, x }: Reach): Reach {
  switch (insn.kind) {
    case 'ld_abs':
      return insn.k >= ANCILLARY
        ? { packet, x }
        : { packet: Math.max(packet, insn.k + insn.size), x };
    case 'ld_ind':
      return { packet, x: Math.max(x, insn.k + insn.size) };
    case 'ldx_imm':
    case 'ldx_len':
    case 'ldx_mem':
    case 'ldx_msh':
    case 'tax':
      return { packet, x: 0 };
    default:
      return { packet, x };
  }
}

function reachAt(node: Code, reaches: ReadonlyMap<Code, Reach>): Reach {
  const at = (child: Code): Reach => reaches.get(child) ?? { packet: 0, x: 0 };
  switch (node.kind) {
    case 'ret': {
      const far = node.verdict === 'continue' ? EVERYTHING : 0;
      return { packet: far, x: far };
    }
    case 'need':
      return at(node.next);
    case 'do':
      return reachBefore(node.insn, at(node.next));
    case 'test': {
      const [yes, no] = [at(node.yes), at(node.no)];
      return { packet: Math.min(yes.packet, no.packet), x: Math.min(yes.x, no.x) };
    }
  }
}

/** A load of the last byte wanted; A is kept in M[0] where it still matters. */
function loadLast(node: Extract<Code, { kind: 'need' }>, isLive: boolean): StraightInsn[] {
  const k = node.end - 1;
  const load: StraightInsn =
    node.base === 'x' ? { kind: 'ld_ind', size: 1, k } : { kind: 'ld_abs', size: 1, k };
  return isLive ? [{ kind: 'st', k: 0 }, load, { kind: 'ld_mem', k: 0 }] : [load];
}

/**
 * Takes out every `need` that the loads behind it meet anyway on all ways to drop, and loads a byte
 * for the others.
 */
export function meetNeeds(root: Code): Code {
  const nodes = nodesBelow(root);
  const live = findLive(nodes);
  const reaches = new Map<Code, Reach>();
  const codeOf = remake(nodes, (table, node, get) => {
    const reach = reachAt(node, reaches);
    reaches.set(node, reach);
    if (node.kind !== 'need') return copyNode(table, node, get);
    const next = get(node.next);
    if (reach[node.base] >= node.end) return next;
    reaches.set(node, { ...reach, [node.base]: node.end });
    const isLive = ((live.get(node.next) ?? 0) & 1) !== 0;
    return run(table, loadLast(node, isLive), next, null);
  });
  return codeOf(root);
}
