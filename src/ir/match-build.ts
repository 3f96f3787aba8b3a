import { type Column32, columnOf, push, reserve } from './column32.ts';
import { chooseCut } from './match-cut.ts';
import {
  distribute,
  groupChildren,
  type Known,
  prune,
  refine,
  type Space,
} from './match-region.ts';

/** Trees while they are made, or changed. */
export interface Builder extends Space {
  readonly lane: Column32;
  readonly shift: Column32;
  readonly bits: Column32;
  readonly base: Column32;
  readonly count: Column32;
  readonly children: Column32;
  readonly boxes: Column32;
  /** Nodes that nothing leads to any more, and runs of boxes that are in no leaf. */
  readonly freeNodes: number[];
  readonly freeBoxes: Run[];
  /** Leaves that were made, by their boxes. */
  readonly leaves: Map<string, number>;
  readonly room: Room;
  /** Steps on the longest way. */
  depth: number;
  isTooBig: boolean;
}

/** How far trees may grow. */
export interface Room {
  readonly children: number;
  /** In all leaves together. */
  readonly boxes: number;
  /** Nodes on a way, the leaf not counted. */
  readonly depth: number;
  /** Boxes in a leaf. */
  readonly leaf: number;
  /** Boxes in a leaf that is not split for them. */
  readonly few: number;
}

/** Places `from` to `to`, which is not one of them. */
export interface Run {
  from: number;
  readonly to: number;
}

/** A builder without a node. */
export function createBuilder(space: Space, room: Room): Builder {
  const column = (): Column32 => columnOf(1024);
  return {
    ...space,
    ...{ lane: column(), shift: column(), bits: column(), base: column(), count: column() },
    ...{ children: column(), boxes: column(), freeNodes: [], freeBoxes: [], leaves: new Map() },
    ...{ room, depth: 0, isTooBig: false },
  };
}

function addNode(
  builder: Builder,
  lane: number,
  shift: number,
  bits: number,
  base: number,
): number {
  const reused = builder.freeNodes.pop();
  const node = reused ?? builder.lane.length;
  if (reused === undefined) {
    for (const column of [builder.lane, builder.shift, builder.bits, builder.base]) push(column, 0);
    push(builder.count, 0);
  }
  builder.lane.data[node] = lane;
  builder.shift.data[node] = shift;
  builder.bits.data[node] = bits;
  builder.base.data[node] = base;
  builder.count.data[node] = 0;
  return node;
}

/** The place of as many boxes: the smallest free run that has room, else the end. */
function takeBoxes(builder: Builder, length: number): number {
  let best: Run | null = null;
  for (const run of builder.freeBoxes) {
    const size = run.to - run.from;
    if (size >= length && (best === null || size < best.to - best.from)) best = run;
  }
  if (best === null) {
    if (builder.boxes.length + length > builder.room.boxes) builder.isTooBig = true;
    return reserve(builder.boxes, length);
  }
  best.from += length;
  return best.from - length;
}

/** The leaf of a list, made where there is none. */
export function addLeaf(builder: Builder, list: Uint32Array): number {
  const name = list.join(' ');
  const known = builder.leaves.get(name);
  if (known !== undefined) return known;
  if (list.length > builder.room.leaf) builder.isTooBig = true;
  const base = list.length === 0 ? 0 : takeBoxes(builder, list.length);
  const node = addNode(builder, 0, 0, 0, base);
  builder.count.data[node] = list.length;
  builder.boxes.data.set(list, base);
  builder.leaves.set(name, node);
  return node;
}

/**
 * The tree for a list of boxes in a region. `budget` is how many children it may have in all; when it
 * is used up, leaves are as long as they may be.
 */
export function build(
  builder: Builder,
  all: Uint32Array,
  known: Known,
  depth: number,
  budget: number,
): number {
  const list = prune(builder, all, known);
  if (list.length <= builder.room.few || builder.isTooBig) return addLeaf(builder, list);
  const { mask, low, high } = known;
  const cut = depth < builder.room.depth ? chooseCut(builder.table, list, mask, low, high) : null;
  if (cut === null) return addLeaf(builder, list);
  const size = 2 ** cut.bits;
  if (size > budget && list.length <= builder.room.leaf) return addLeaf(builder, list);
  builder.depth = Math.max(builder.depth, depth + 1);
  if (builder.children.length + size > builder.room.children) {
    builder.isTooBig = true;
    return addLeaf(builder, list);
  }
  const base = reserve(builder.children, size);
  const node = addNode(builder, cut.lane, cut.shift, cut.bits, base);
  const groups = groupChildren(distribute(builder, list, known, cut).entries());
  const total = groups.reduce((sum, group) => sum + group.list.length, 1);
  for (const group of groups) {
    const share = (Math.max(0, budget - size) * group.list.length) / total;
    const refined = refine(builder, known, cut, group);
    const child = build(builder, group.list, refined, depth + 1, share);
    for (const value of group.members) builder.children.data[base + value] = child;
  }
  return node;
}
