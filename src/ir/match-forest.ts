import { type Cut, chooseCut } from './match-cut.ts';
import { groupBoxes } from './match-groups.ts';
import type { MatchTable } from './match-table.ts';

/**
 * Trees that find the first box of a table that holds a key. A node with `bits` 0 is a leaf: boxes
 * `boxes[base .. base + count)`, in order. Any other one looks at `bits` bits of a lane, from bit
 * `shift` up; the node for value `v` is `children[base + v]`.
 */
export interface Forest {
  readonly lane: Uint8Array;
  readonly shift: Uint8Array;
  readonly bits: Uint8Array;
  readonly base: Uint32Array;
  /** Boxes of a leaf; 0 for the rest. */
  readonly count: Uint8Array;
  readonly nodes: number;
  readonly children: Uint32Array;
  readonly boxes: Uint32Array;
  /** In order of the first box they hold, which a walk may stop at. */
  readonly trees: readonly Tree[];
  /** Nodes on the longest way to a leaf, the leaf not counted. */
  readonly depth: number;
}

export interface Tree {
  readonly root: number;
  /** The lowest owner of its boxes. */
  readonly first: number;
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
/** Lists up to which each box is compared with those before it. */
const MOST_COMPARED = 24;

/** What is known of a key at a node: bits by lane, and the interval that the known top bits leave. */
interface Known {
  readonly mask: Uint32Array;
  readonly value: Uint32Array;
  readonly low: Uint32Array;
  readonly high: Uint32Array;
}

interface Builder {
  readonly table: MatchTable;
  /** All ones of each lane. */
  readonly full: Uint32Array;
  readonly lane: number[];
  readonly shift: number[];
  readonly bits: number[];
  readonly base: number[];
  readonly count: number[];
  readonly children: number[];
  readonly boxes: number[];
  readonly leaves: Map<string, number>;
  readonly few: number;
  readonly most: number;
  depth: number;
  isTooBig: boolean;
}

function addNode(
  builder: Builder,
  lane: number,
  shift: number,
  bits: number,
  base: number,
): number {
  builder.lane.push(lane);
  builder.shift.push(shift);
  builder.bits.push(bits);
  builder.base.push(base);
  return builder.count.push(0) - 1;
}

function addLeaf(builder: Builder, list: Uint32Array): number {
  const name = list.join(' ');
  const known = builder.leaves.get(name);
  if (known !== undefined) return known;
  if (list.length > MOST_IN_LEAF || builder.boxes.length > MOST_ROWS) builder.isTooBig = true;
  const node = addNode(builder, 0, 0, 0, builder.boxes.length);
  builder.count[node] = list.length;
  for (const box of list) builder.boxes.push(box);
  builder.leaves.set(name, node);
  return node;
}

/** Whether a box holds every key of the region. */
function coversRegion({ table, full }: Builder, box: number, known: Known): boolean {
  for (let lane = 0; lane < full.length; lane += 1) {
    const value = known.value[lane] ?? 0;
    const top = (value | (~(known.mask[lane] ?? 0) & (full[lane] ?? 0))) >>> 0;
    if ((table.lo[lane]?.[box] ?? 0) > value || (table.hi[lane]?.[box] ?? 0) < top) return false;
    const mask = table.mask[lane]?.[box] ?? 0;
    if (mask === 0) continue;
    if ((mask & ~(known.mask[lane] ?? 0)) !== 0) return false;
    if (((value ^ (table.value[lane]?.[box] ?? 0)) & mask) !== 0) return false;
  }
  return true;
}

/** Whether no key of the region is in a box. */
function missesRegion({ table, full }: Builder, box: number, known: Known): boolean {
  for (let lane = 0; lane < full.length; lane += 1) {
    const mask = known.mask[lane] ?? 0;
    if (mask === 0) continue;
    if ((table.lo[lane]?.[box] ?? 0) > (known.high[lane] ?? 0)) return true;
    if ((table.hi[lane]?.[box] ?? 0) < (known.low[lane] ?? 0)) return true;
    const own = (table.mask[lane]?.[box] ?? 0) & mask;
    if ((((known.value[lane] ?? 0) ^ (table.value[lane]?.[box] ?? 0)) & own) !== 0) return true;
  }
  return false;
}

/** Whether every key of the region that is in `box` is in `other` too. */
function isInside({ table, full }: Builder, box: number, other: number, known: Known): boolean {
  for (let lane = 0; lane < full.length; lane += 1) {
    const low = table.lo[lane]?.[other] ?? 0;
    const high = table.hi[lane]?.[other] ?? 0;
    if (low > (known.low[lane] ?? 0) && low > (table.lo[lane]?.[box] ?? 0)) return false;
    if (high < (known.high[lane] ?? 0) && high < (table.hi[lane]?.[box] ?? 0)) return false;
    const mask = table.mask[lane]?.[other] ?? 0;
    if (mask === 0) continue;
    const own = table.mask[lane]?.[box] ?? 0;
    const region = known.mask[lane] ?? 0;
    if ((mask & ~(own | region)) !== 0) return false;
    const value =
      ((table.value[lane]?.[box] ?? 0) & own) | ((known.value[lane] ?? 0) & region & ~own);
    if (((value ^ (table.value[lane]?.[other] ?? 0)) & mask) !== 0) return false;
  }
  return true;
}

/** The boxes that can still be the first match in a region. */
function prune(builder: Builder, list: Uint32Array, known: Known): Uint32Array {
  const kept = new Uint32Array(list.length);
  let length = 0;
  const isShort = list.length <= MOST_COMPARED;
  for (const box of list) {
    if (missesRegion(builder, box, known)) continue;
    let isHidden = false;
    for (let before = 0; isShort && before < length && !isHidden; before += 1) {
      isHidden = isInside(builder, box, kept[before] ?? 0, known);
    }
    if (isHidden) continue;
    kept[length] = box;
    length += 1;
    if (coversRegion(builder, box, known)) break;
  }
  return kept.subarray(0, length);
}

/** The children of a cut that hold the same boxes, and what is known of all of them. */
interface Group {
  readonly list: Uint32Array;
  readonly members: number[];
  ones: number;
  zeros: number;
}

/** For every value of a window, the boxes that may hold such a key. */
function distribute(
  { table }: Builder,
  list: Uint32Array,
  known: Known,
  { lane, shift, bits }: Cut,
): Uint32Array[] {
  const size = 2 ** bits;
  const masks = table.mask[lane] ?? null;
  const low = known.low[lane] ?? 0;
  const high = known.high[lane] ?? 0;
  const counts = new Uint32Array(size);
  const lists: Uint32Array[] = [];
  // Once to count, and once to fill.
  for (const isFilling of [false, true]) {
    if (isFilling) for (const count of counts) lists.push(new Uint32Array(count));
    counts.fill(0);
    for (const box of list) {
      const first = Math.max(low, table.lo[lane]?.[box] ?? 0) >>> shift;
      const last = Math.min(high, table.hi[lane]?.[box] ?? 0) >>> shift;
      const span = Math.min(size, last - first + 1);
      const mask = ((masks?.[box] ?? 0) >>> shift) & (size - 1);
      const want = ((table.value[lane]?.[box] ?? 0) >>> shift) & mask;
      for (let step = 0; step < span; step += 1) {
        const value = (first + step) & (size - 1);
        if ((value & mask) !== want) continue;
        const count = counts[value] ?? 0;
        const own = lists[value];
        if (own !== undefined) own[count] = box;
        counts[value] = count + 1;
      }
    }
  }
  return lists;
}

function isSame(a: Uint32Array, b: Uint32Array): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index += 1) if (a[index] !== b[index]) return false;
  return true;
}

function groupChildren(lists: readonly Uint32Array[]): Group[] {
  const byHash = new Map<number, Group[]>();
  const groups: Group[] = [];
  for (const [value, list] of lists.entries()) {
    let hash = list.length;
    // FNV-1a's multiplier; only to find candidates, which are compared.
    for (const box of list) hash = Math.imul(hash ^ box, 0x01000193);
    const candidates = byHash.get(hash) ?? [];
    const known = candidates.find((group) => isSame(group.list, list));
    if (known !== undefined) {
      known.members.push(value);
      known.ones &= value;
      known.zeros &= ~value;
      continue;
    }
    const group = { list, members: [value], ones: value, zeros: ~value };
    candidates.push(group);
    byHash.set(hash, candidates);
    groups.push(group);
  }
  return groups;
}

/** The region of a group: the bits of the window that its members agree in are known too. */
function refine(builder: Builder, known: Known, { lane, shift, bits }: Cut, group: Group): Known {
  const agreed = (group.ones | group.zeros) & (2 ** bits - 1);
  const refined = {
    mask: known.mask.slice(),
    value: known.value.slice(),
    low: known.low.slice(),
    high: known.high.slice(),
  };
  const mask = ((known.mask[lane] ?? 0) | (agreed << shift)) >>> 0;
  const value = ((known.value[lane] ?? 0) | ((group.ones & agreed) << shift)) >>> 0;
  const open = (~mask & (builder.full[lane] ?? 0)) >>> 0;
  // Ones from the highest unknown bit down.
  const below = open === 0 ? 0 : 2 ** (32 - Math.clz32(open)) - 1;
  refined.mask[lane] = mask;
  refined.value[lane] = value;
  refined.low[lane] = (value & ~below) >>> 0;
  refined.high[lane] = (value | below) >>> 0;
  return refined;
}

/**
 * The tree for a list of boxes in a region. `budget` is how many children it may have in all; when it
 * is used up, leaves are as long as they may be.
 */
function build(
  builder: Builder,
  all: Uint32Array,
  known: Known,
  depth: number,
  budget: number,
): number {
  const list = prune(builder, all, known);
  if (list.length <= builder.few || builder.isTooBig) return addLeaf(builder, list);
  const { mask, low, high } = known;
  const cut = depth < MOST_DEPTH ? chooseCut(builder.table, list, mask, low, high) : null;
  if (cut === null) return addLeaf(builder, list);
  const size = 2 ** cut.bits;
  if (size > budget && list.length <= MOST_IN_LEAF) return addLeaf(builder, list);
  builder.depth = Math.max(builder.depth, depth + 1);
  const base = builder.children.length;
  if (base + size > builder.most) {
    builder.isTooBig = true;
    return addLeaf(builder, list);
  }
  for (let value = 0; value < size; value += 1) builder.children.push(0);
  const node = addNode(builder, cut.lane, cut.shift, cut.bits, base);
  const groups = groupChildren(distribute(builder, list, known, cut));
  const total = groups.reduce((sum, group) => sum + group.list.length, 1);
  for (const group of groups) {
    const share = (Math.max(0, budget - size) * group.list.length) / total;
    const refined = refine(builder, known, cut, group);
    const child = build(builder, group.list, refined, depth + 1, share);
    for (const value of group.members) builder.children[base + value] = child;
  }
  return node;
}

/**
 * Trees for a table: boxes that are wide in different ways go into trees of their own, since together
 * they would be copied many times. A leaf that is longer than `few` is split where that pays. Null where
 * trees take too much room all the same.
 */
export function buildForest(table: MatchTable, few = FEW): Forest | null {
  const { widths } = table.key;
  const full = Uint32Array.from(widths, (width) => (width === 32 ? 0xffffffff : 2 ** width - 1));
  const most = Math.min(MOST_CHILDREN, MOST_AT_LEAST + MOST_PER_BOX * table.size);
  const builder: Builder = {
    ...{ table, full, lane: [], shift: [], bits: [], base: [], count: [], children: [] },
    ...{ boxes: [], leaves: new Map(), few, most, depth: 0, isTooBig: false },
  };
  const nothing: Known = {
    mask: new Uint32Array(widths.length),
    value: new Uint32Array(widths.length),
    low: new Uint32Array(widths.length),
    high: full,
  };
  const trees = groupBoxes(table).map((list): Tree => {
    const budget = SOME_CHILDREN + CHILDREN_PER_BOX * list.length;
    const root = build(builder, list, nothing, 0, budget);
    return { root, first: table.owner[list[0] ?? 0] ?? 0 };
  });
  if (builder.isTooBig) return null;
  const { lane, shift, bits, base, count, children, boxes, depth } = builder;
  return {
    lane: Uint8Array.from(lane),
    shift: Uint8Array.from(shift),
    bits: Uint8Array.from(bits),
    base: Uint32Array.from(base),
    count: Uint8Array.from(count),
    nodes: lane.length,
    children: Uint32Array.from(children),
    boxes: Uint32Array.from(boxes),
    trees: trees.sort((a, b) => a.first - b.first),
    depth,
  };
}

/** The owner of the first box that holds a key (a number a lane), or null: walks the trees. */
export function lookUpForest(
  table: MatchTable,
  forest: Forest,
  key: readonly number[],
): number | null {
  let best: number | null = null;
  for (const { root, first } of forest.trees) {
    if (best !== null && first >= best) break;
    let node = root;
    for (let bits = forest.bits[node] ?? 0; bits > 0; bits = forest.bits[node] ?? 0) {
      const word = key[forest.lane[node] ?? 0] ?? 0;
      const value = (word >>> (forest.shift[node] ?? 0)) & (2 ** bits - 1);
      node = forest.children[(forest.base[node] ?? 0) + value] ?? 0;
    }
    const base = forest.base[node] ?? 0;
    for (let at = base; at < base + (forest.count[node] ?? 0); at += 1) {
      const box = forest.boxes[at] ?? 0;
      const owner = table.owner[box] ?? 0;
      if (best !== null && owner >= best) break;
      if (!boxHolds(table, box, key)) continue;
      best = owner;
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
