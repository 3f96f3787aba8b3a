import { finish } from './column32.ts';
import { type Builder, build, createBuilder, type Room } from './match-build.ts';
import { groupBoxes } from './match-groups.ts';
import { knownAtRoot, spaceOf } from './match-region.ts';
import { type MatchTable, NO_ORDER } from './match-table.ts';

/**
 * Trees that find the first box of a table that holds a key. A node with `bits` 0 is a leaf: boxes
 * `boxes[base .. base + count)`, in order. Any other one looks at `bits` bits of a lane, from bit
 * `shift` up; the node for value `v` is `children[base + v]`.
 */
export interface Forest {
  readonly lane: Uint32Array;
  readonly shift: Uint32Array;
  readonly bits: Uint32Array;
  readonly base: Uint32Array;
  /** Boxes of a leaf; 0 for the rest. */
  readonly count: Uint32Array;
  readonly children: Uint32Array;
  readonly boxes: Uint32Array;
  readonly trees: readonly Tree[];
  /** Nodes on the longest way to a leaf, the leaf not counted. */
  readonly depth: number;
  /** How far it may grow while it is in use. */
  readonly room: Room;
}

export interface Tree {
  readonly root: number;
  /** No box in it has a lower order. */
  readonly first: number;
  /** See `groupNameOf`: its boxes are those of this name; and those without a tree, where it is 0. */
  readonly name: number;
  /** Boxes whose name has no tree are here. */
  readonly isRest: boolean;
}

/** Boxes that a leaf is not split for. */
const FEW = 6;
/** What a leaf holds at most. */
export const MOST_IN_LEAF = 63;
/** Boxes in all leaves together: what descriptors of leaves reach, see tree-data.ts. */
const MOST_ROWS = 400_000;
/** Room for children: what a node's descriptor reaches, see tree-data.ts of the eBPF backend. */
const MOST_CHILDREN = 2 ** 22;
/** Children that a tree may have for each of its boxes, and in any case. */
const CHILDREN_PER_BOX = 96;
const SOME_CHILDREN = 256;
/** The same for all trees of a table, beyond which there are none: leaves could not be made short enough. */
const MOST_PER_BOX = 256;
const MOST_AT_LEAST = 2 ** 14;
/** Nodes on a way; windows are chosen so that far fewer are needed. */
const MOST_DEPTH = 30;
/** Room that a table in use has beside what it needs: a share of it, and some in any case. */
const SLACK = 4;
const SOME_ROWS = 128;
/** Steps and boxes in a leaf beyond those of the longest; a verifier follows all that there may be. */
const MORE_STEPS = 2;
const SHORT_LEAF = 15;

function roomFor({ children, boxes, depth, count, room: most }: Builder): Room {
  const longest = count.data.reduce((length, one) => Math.max(length, one), 0);
  const grown = (used: number, some: number): number => used + Math.ceil(used / SLACK) + some;
  return {
    children: Math.min(most.children, grown(children.length, SOME_CHILDREN)),
    boxes: Math.min(most.boxes, grown(boxes.length, SOME_ROWS)),
    depth: depth + MORE_STEPS,
    // Ones in binary, which is what a program can cut a count to.
    few: most.few,
    leaf: Math.max(SHORT_LEAF, 2 ** Math.ceil(Math.log2(longest + 1)) - 1),
  };
}

/**
 * Trees for a table: boxes that are wide in different ways go into trees of their own, since together
 * they would be copied many times. A leaf that is longer than `few` is split where that pays. Null where
 * trees take too much room all the same.
 */
export function buildForest(table: MatchTable, few = FEW): Forest | null {
  const space = spaceOf(table);
  const children = Math.min(MOST_CHILDREN, MOST_AT_LEAST + MOST_PER_BOX * table.size);
  const most = { children, boxes: MOST_ROWS, depth: MOST_DEPTH, leaf: MOST_IN_LEAF, few };
  const builder = createBuilder(space, most);
  const nothing = knownAtRoot(space, 0);
  const trees = groupBoxes(table).map(({ name, isRest, list }): Tree => {
    const budget = SOME_CHILDREN + CHILDREN_PER_BOX * list.length;
    const root = build(builder, list, nothing, 0, budget);
    return { root, first: table.order[list[0] ?? 0] ?? 0, name, isRest };
  });
  if (builder.isTooBig) return null;
  return {
    ...finishForest(builder),
    trees: trees.sort((a, b) => a.first - b.first),
    room: roomFor(builder),
  };
}

/** What a builder made. */
export function finishForest(builder: Builder): Omit<Forest, 'trees' | 'room'> {
  const { lane, shift, bits, base, count, children, boxes, depth } = builder;
  return {
    lane: finish(lane),
    shift: finish(shift),
    bits: finish(bits),
    base: finish(base),
    count: finish(count),
    children: finish(children),
    boxes: finish(boxes),
    depth,
  };
}

/** The first box that holds a key (a number a lane), or null: walks the trees. */
export function lookUpForest(
  table: MatchTable,
  forest: Forest,
  key: readonly number[],
): number | null {
  let best: number | null = null;
  let order = NO_ORDER;
  for (const { root, first } of forest.trees) {
    if (first >= order) continue;
    let node = root;
    for (let bits = forest.bits[node] ?? 0; bits > 0; bits = forest.bits[node] ?? 0) {
      const word = key[forest.lane[node] ?? 0] ?? 0;
      const value = (word >>> (forest.shift[node] ?? 0)) & (2 ** bits - 1);
      node = forest.children[(forest.base[node] ?? 0) + value] ?? 0;
    }
    const base = forest.base[node] ?? 0;
    for (let at = base; at < base + (forest.count[node] ?? 0); at += 1) {
      const box = forest.boxes[at] ?? 0;
      const own = table.order[box] ?? 0;
      if (own >= order) break;
      if (!boxHolds(table, box, key)) continue;
      best = box;
      order = own;
      break;
    }
  }
  return best;
}

/** Whether a box holds a key. */
export function boxHolds(table: MatchTable, box: number, key: readonly number[]): boolean {
  return key.every((word, lane) => {
    if (word < (table.lo[lane]?.[box] ?? 0) || word > (table.hi[lane]?.[box] ?? 0)) return false;
    const mask = table.mask[lane]?.[box] ?? 0;
    return ((word ^ (table.value[lane]?.[box] ?? 0)) & mask) === 0;
  });
}
