import { copyColumn } from './column32.ts';
import { addLeaf, type Builder, build, type Run } from './match-build.ts';
import { boxesByRule, pairRules, type RuleBoxes } from './match-diff.ts';
import { type Forest, finishForest, type Tree } from './match-forest.ts';
import { groupNames } from './match-groups.ts';
import {
  distribute,
  groupChildren,
  isSame,
  type Known,
  knownAtRoot,
  type Members,
  missesRegion,
  prune,
  refine,
  spaceOf,
} from './match-region.ts';
import { FOREVER, generationLane, type MatchTable, NO_ORDER } from './match-table.ts';

/*
 * A change of a table in use. Time is a lane of the key (the generation, read once a packet), so all of
 * a change becomes visible at once: boxes that go end with the present generation, new ones begin with
 * the next, and both stand in the trees before anybody reads the next one's number. Everything that is
 * written before that leaves what keys of the present generation find as it is:
 *
 *   1. new leaves, and trees of leaves that grew too long, into places that nothing leads to;
 *   2. children of nodes that are there, and roots, become the new leaves, one word each; rows of boxes
 *      that go get their end, one word each; trees' first orders go down.
 *
 * Inner nodes are never taken away. Places of leaves that a change replaced are free for the next one,
 * which must not begin before every reader of the generation before is gone.
 */

/** Trees of a table in use, and how many rules it has. */
export interface UsedTable {
  readonly table: MatchTable;
  readonly forest: Forest;
  readonly rules: number;
}

/** A table after a change, and what of its trees differs. */
export interface UpdatedTable {
  readonly table: MatchTable;
  readonly forest: Forest;
  /** Which rule of the table before each rule is; -1 for new ones. */
  readonly pairs: Int32Array;
  /** Boxes that begin with the next generation. */
  readonly begun: readonly number[];
  /**
   * Rules of the table before that are not there any more. Their boxes, as long as they are in leaves,
   * have the owners behind those of the rules, in this order.
   */
  readonly ended: readonly number[];
  /** Places of boxes in new leaves. Children from the number before the change on are new too. */
  readonly rows: readonly number[];
  /** Children that lead somewhere else. */
  readonly flips: readonly number[];
  /** Places of boxes in leaves that stay, which end now. */
  readonly marks: readonly number[];
}

/** What a box is to a change, by box; 0: nothing. */
const BEGINS = 1;
const ENDS = 2;
/** It may have been hidden by one that ends. */
const RETURNS = 3;

/** Rules that change beyond which trees are better made anew: a share of all, and some in any case. */
const SHARE = 8;
const SOME_RULES = 64;
/** The owner of boxes that nobody can meet any more. */
const NOBODY = 0xffffffff;
/** Orders between rules at the end of the list. */
const END_GAP = 2 ** 12;
/** Children for each box of a leaf that is split. */
const SPLIT_BUDGET = 64;

interface Change {
  readonly builder: Builder;
  readonly kinds: Uint8Array;
  readonly generation: number;
  readonly flips: number[];
  /** Children before the change. */
  readonly children: number;
}

function isGone({ table }: Pick<Builder, 'table'>, box: number, generation: number): boolean {
  return (table.hi[generationLane(table.key)]?.[box] ?? FOREVER) < generation;
}

/** Leaves that something leads to. */
function usedLeaves(bits: Uint32Array, children: Uint32Array, trees: readonly Tree[]): number[] {
  const isUsed = new Uint8Array(bits.length);
  for (const child of children) isUsed[child] = 1;
  for (const { root } of trees) isUsed[root] = 1;
  const leaves: number[] = [];
  for (const [node, used] of isUsed.entries())
    if (used === 1 && bits[node] === 0) leaves.push(node);
  return leaves;
}

/** Runs of boxes that are in no leaf. */
function freeRuns({ base, count, boxes }: Forest, leaves: readonly number[]): Run[] {
  const used = leaves.filter((leaf) => (count[leaf] ?? 0) > 0);
  used.sort((a, b) => (base[a] ?? 0) - (base[b] ?? 0));
  const runs: Run[] = [];
  let from = 0;
  for (const leaf of used) {
    const to = base[leaf] ?? 0;
    if (to > from) runs.push({ from, to });
    from = to + (count[leaf] ?? 0);
  }
  if (boxes.length > from) runs.push({ from, to: boxes.length });
  return runs;
}

/** Boxes that are gone and in no leaf, whose numbers can be given again. */
function freeBoxes(
  table: MatchTable,
  { base, count, boxes }: Forest,
  leaves: readonly number[],
  generation: number,
): number[] {
  const isUsed = new Uint8Array(table.size);
  for (const leaf of leaves) {
    const from = base[leaf] ?? 0;
    for (let at = from; at < from + (count[leaf] ?? 0); at += 1) isUsed[boxes[at] ?? 0] = 1;
  }
  const free: number[] = [];
  for (let box = 0; box < table.size; box += 1) {
    if (isUsed[box] === 0 && isGone({ table }, box, generation)) free.push(box);
  }
  return free;
}

/** Orders for rules: those of rules that stay, and numbers between them; null where there is no room. */
function giveOrders(old: MatchTable, before: RuleBoxes, pairs: Int32Array): Float64Array | null {
  const orders = new Float64Array(pairs.length);
  const known = [...pairs].map((rule) => {
    const [box] = rule < 0 ? [] : (before[rule] ?? []);
    return box === undefined ? null : (old.order[box] ?? 0);
  });
  let low = 0;
  for (let at = 0; at < known.length; ) {
    const own = known[at] ?? null;
    if (own !== null) {
      orders[at] = own;
      low = own;
      at += 1;
      continue;
    }
    let end = at;
    while (end < known.length && (known[end] ?? null) === null) end += 1;
    const high = known[end] ?? Math.min(NO_ORDER, low + (end - at + 1) * END_GAP);
    const step = Math.floor((high - low) / (end - at + 1));
    if (step < 1) return null;
    for (; at < end; at += 1) {
      low += step;
      orders[at] = low;
    }
  }
  return orders;
}

/** A copy of a table with room for as many boxes more. */
function copyTable(table: MatchTable, more: number, wanted: MatchTable): MatchTable {
  const room = table.size + more;
  const copy = (words: Uint32Array): Uint32Array =>
    copyColumn(words.subarray(0, Math.min(words.length, room)), room).data;
  const copyOrMake = (words: Uint32Array | null, other: Uint32Array | null | undefined) =>
    words !== null ? copy(words) : (other ?? null) === null ? null : new Uint32Array(room);
  return {
    key: table.key,
    size: table.size,
    lo: table.lo.map(copy),
    hi: table.hi.map(copy),
    value: table.value.map((words, lane) => copyOrMake(words, wanted.value[lane])),
    mask: table.mask.map((words, lane) => copyOrMake(words, wanted.mask[lane])),
    owner: copy(table.owner),
    order: copy(table.order),
  };
}

function copyBox(from: MatchTable, box: number, to: MatchTable, place: number): void {
  for (const [lane, low] of to.lo.entries()) {
    low[place] = from.lo[lane]?.[box] ?? 0;
    const high = to.hi[lane];
    if (high !== undefined) high[place] = from.hi[lane]?.[box] ?? 0;
    const value = to.value[lane] ?? null;
    const mask = to.mask[lane] ?? null;
    if (value !== null) value[place] = from.value[lane]?.[box] ?? 0;
    if (mask !== null) mask[place] = from.mask[lane]?.[box] ?? 0;
  }
}

function overlaps(table: MatchTable, a: number, b: number): boolean {
  const lanes = generationLane(table.key);
  for (let lane = 0; lane < lanes; lane += 1) {
    if ((table.lo[lane]?.[a] ?? 0) > (table.hi[lane]?.[b] ?? 0)) return false;
    if ((table.lo[lane]?.[b] ?? 0) > (table.hi[lane]?.[a] ?? 0)) return false;
    const both = (table.mask[lane]?.[a] ?? 0) & (table.mask[lane]?.[b] ?? 0);
    if ((((table.value[lane]?.[a] ?? 0) ^ (table.value[lane]?.[b] ?? 0)) & both) !== 0)
      return false;
  }
  return true;
}

/** The boxes of a change by tree, each list in order; those that may return among them. */
function boxesByTree(
  { builder: { table }, kinds, generation }: Change,
  trees: readonly Tree[],
): Uint32Array[] {
  const nameOf = groupNames(table);
  const rest = trees.findIndex(({ isRest }) => isRest);
  const numbers = new Map(trees.map(({ name }, index) => [name, index]));
  const treeOf = (box: number): number => numbers.get(nameOf(box)) ?? rest;
  const lists: number[][] = trees.map(() => []);
  const ending: number[][] = trees.map(() => []);
  for (const [box, kind] of kinds.entries()) {
    if (kind === 0) continue;
    const tree = treeOf(box);
    lists[tree]?.push(box);
    if (kind === ENDS) ending[tree]?.push(box);
  }
  if (ending.some(({ length }) => length > 0)) {
    for (let box = 0; box < table.size; box += 1) {
      if (kinds[box] !== 0 || isGone({ table }, box, generation)) continue;
      const tree = treeOf(box);
      const order = table.order[box] ?? 0;
      const isHidden = ending[tree]?.some(
        (other) => (table.order[other] ?? 0) <= order && overlaps(table, box, other),
      );
      if (isHidden !== true) continue;
      kinds[box] = RETURNS;
      lists[tree]?.push(box);
    }
  }
  return lists.map((list) => sortBoxes(table, Uint32Array.from(list)));
}

function sortBoxes({ order }: MatchTable, list: Uint32Array): Uint32Array {
  return list.sort((a, b) => (order[a] ?? 0) - (order[b] ?? 0) || a - b);
}

function touches({ kinds }: Change, list: Uint32Array): boolean {
  return list.some((box) => kinds[box] === BEGINS || kinds[box] === ENDS);
}

/** The leaf, or the tree, that a leaf becomes; itself where nothing comes to it. */
function changeLeaf(
  { builder, kinds, generation }: Change,
  leaf: number,
  list: Uint32Array,
  known: Known,
  depth: number,
): number {
  const { table, boxes, base, count, room } = builder;
  const from = base.data[leaf] ?? 0;
  const old = boxes.data.slice(from, from + (count.data[leaf] ?? 0));
  const isEnding = list.some((box) => kinds[box] === ENDS);
  const more = list.filter((box) => {
    const isMore = kinds[box] === BEGINS || (kinds[box] === RETURNS && isEnding);
    return isMore && !old.includes(box);
  });
  if (more.length === 0) return leaf;
  const stay = old.filter((box) => !isGone({ table }, box, generation));
  const all = sortBoxes(table, Uint32Array.from([...stay, ...more]));
  const pruned = prune(builder, all, known);
  if (isSame(pruned, old)) return leaf;
  if (pruned.length <= 2 * room.few) return addLeaf(builder, pruned);
  return build(builder, pruned, known, depth, SPLIT_BUDGET * pruned.length);
}

/** Values of a window by the child that they lead to. */
function membersOf({ children, base, bits }: Builder, node: number): (child: number) => Members {
  const size = 2 ** (bits.data[node] ?? 0);
  const from = base.data[node] ?? 0;
  return (child) => {
    const members: Members = { ones: -1, zeros: -1 };
    for (let value = 0; value < size; value += 1) {
      if (children.data[from + value] !== child) continue;
      members.ones &= value;
      members.zeros &= ~value;
    }
    return members;
  };
}

/** Changes everything below a node; gives what stands in its place then. */
function changeNode(
  change: Change,
  node: number,
  list: Uint32Array,
  known: Known,
  depth: number,
): number {
  const { builder, flips } = change;
  const bits = builder.bits.data[node] ?? 0;
  if (bits === 0) return changeLeaf(change, node, list, known, depth);
  const lane = builder.lane.data[node] ?? 0;
  const cut = { lane, shift: builder.shift.data[node] ?? 0, bits };
  const base = builder.base.data[node] ?? 0;
  const byChild = new Map<number, [number, Uint32Array][]>();
  for (const [value, own] of distribute(builder, list, known, cut).entries()) {
    if (!touches(change, own)) continue;
    const child = builder.children.data[base + value] ?? 0;
    const values = byChild.get(child);
    if (values === undefined) byChild.set(child, [[value, own]]);
    else values.push([value, own]);
  }
  const membersBelow = membersOf(builder, node);
  for (const [child, values] of byChild) {
    if ((builder.bits.data[child] ?? 0) > 0) {
      const below = refine(builder, known, cut, membersBelow(child));
      const own = list.filter((box) => !missesRegion(builder, box, below));
      changeNode(change, child, own, below, depth + 1);
      continue;
    }
    for (const group of groupChildren(values)) {
      const below = refine(builder, known, cut, group);
      const changed = changeLeaf(change, child, group.list, below, depth + 1);
      if (changed === child) continue;
      for (const value of group.members) {
        builder.children.data[base + value] = changed;
        if (base + value < change.children) flips.push(base + value);
      }
    }
  }
  return node;
}

/** What becomes of the boxes of both tables. */
interface Merged {
  readonly table: MatchTable;
  /** What each box is to the change. */
  readonly kinds: Uint8Array;
  readonly begun: readonly number[];
  readonly ended: readonly number[];
}

/** A table with the boxes of both, those that go ending and new ones, in free numbers first, beginning. */
function mergeTables(
  used: UsedTable,
  wanted: MatchTable,
  { before, after, pairs, orders }: Paired,
  generation: number,
  free: readonly number[],
): Merged {
  const places = [...after.entries()].flatMap(([rule, boxes]) => (pairs[rule] === -1 ? boxes : []));
  const more = Math.max(0, places.length - free.length);
  const table = { ...copyTable(used.table, more, wanted), size: used.table.size + more };
  const time = generationLane(table.key);
  const [begins, ends] = [table.lo[time], table.hi[time]];
  if (begins === undefined || ends === undefined)
    throw new Error('bug: a table without generations');
  for (let box = 0; box < used.table.size; box += 1) {
    if (isGone(used, box, generation)) table.owner[box] = NOBODY;
  }
  const kinds = new Uint8Array(table.size);
  const stays = new Set(pairs);
  const ended = [...before.keys()].filter((rule) => !stays.has(rule));
  for (const [index, rule] of ended.entries()) {
    for (const box of before[rule] ?? []) {
      ends[box] = generation;
      table.owner[box] = after.length + index;
      kinds[box] = ENDS;
    }
  }
  const begun: number[] = [];
  for (const [rule, boxes] of after.entries()) {
    const old = pairs[rule] ?? -1;
    for (const box of old < 0 ? [] : (before[old] ?? [])) table.owner[box] = rule;
    for (const box of old < 0 ? boxes : []) {
      const place = free[begun.length] ?? used.table.size + begun.length - free.length;
      copyBox(wanted, box, table, place);
      begins[place] = generation + 1;
      table.owner[place] = rule;
      table.order[place] = orders[rule] ?? 0;
      kinds[place] = BEGINS;
      begun.push(place);
    }
  }
  return { table, kinds, begun, ended };
}

interface Paired {
  readonly before: RuleBoxes;
  readonly after: RuleBoxes;
  readonly pairs: Int32Array;
  readonly orders: Float64Array;
}

/** The rules of both tables; null where too many differ, or orders do not suffice. */
function pairTables(
  used: UsedTable,
  wanted: MatchTable,
  rules: number,
  doesSame: (before: number, after: number) => boolean,
): Paired | null {
  const before = boxesByRule(used.table, used.rules);
  const after = boxesByRule(wanted, rules);
  const old = { table: used.table, rules: before };
  const pairs = pairRules(old, { table: wanted, rules: after }, doesSame);
  const kept = pairs.reduce((sum, rule) => sum + (rule < 0 ? 0 : 1), 0);
  const changes = used.rules - kept + (rules - kept);
  if (changes > SOME_RULES + used.rules / SHARE) return null;
  const orders = giveOrders(used.table, before, pairs);
  return orders === null ? null : { before, after, pairs, orders };
}

/**
 * Changes the trees of a table in use so that from the generation after `generation` on they find what
 * `wanted` says, a table of `rules` rules with the same key; every key of that generation itself finds
 * what it found. `doesSame` tells whether a rule of each do the same when they match. Null where there
 * is no room, or where too much is different: then trees are better made anew.
 */
export function updateTable(
  used: UsedTable,
  wanted: MatchTable,
  rules: number,
  generation: number,
  doesSame: (before: number, after: number) => boolean,
): UpdatedTable | null {
  const paired = pairTables(used, wanted, rules, doesSame);
  const { forest } = used;
  if (paired === null || forest.trees.length === 0) return null;
  const leaves = usedLeaves(forest.bits, forest.children, forest.trees);
  const free = freeBoxes(used.table, forest, leaves, generation);
  const { table, kinds, begun, ended } = mergeTables(used, wanted, paired, generation, free);
  const builder = reopen(forest, table, leaves);
  const flips: number[] = [];
  const change = { builder, kinds, generation, flips, children: forest.children.length };
  const lists = boxesByTree(change, forest.trees);
  const start = knownAtRoot(builder, generation);
  const trees = forest.trees.map((tree, index): Tree => {
    const list = lists[index] ?? new Uint32Array();
    if (!touches(change, list)) return tree;
    const root = changeNode(change, tree.root, list, start, 0);
    const lowest = table.order[list[0] ?? 0] ?? NO_ORDER;
    return { ...tree, root, first: Math.min(tree.first, lowest) };
  });
  if (builder.isTooBig) return null;
  const changed = { ...finishForest(builder), trees, room: forest.room };
  const isOld = new Uint8Array(changed.bits.length);
  for (const leaf of leaves) isOld[leaf] = 1;
  const stay = usedLeaves(changed.bits, changed.children, trees).filter(
    (leaf) => isOld[leaf] === 1,
  );
  return {
    table,
    forest: changed,
    pairs: paired.pairs,
    begun,
    ended,
    rows: [...builder.leaves.values()].flatMap((leaf) => placesOf(changed, leaf)),
    flips,
    marks: stay.flatMap((leaf) =>
      placesOf(changed, leaf).filter((at) => kinds[changed.boxes[at] ?? 0] === ENDS),
    ),
  };
}

function placesOf(
  { base, count }: Forest | Omit<Forest, 'trees' | 'room'>,
  leaf: number,
): number[] {
  return Array.from({ length: count[leaf] ?? 0 }, (_, index) => (base[leaf] ?? 0) + index);
}

/** A builder that goes on with trees; nodes and places that nothing leads to are free. */
function reopen(forest: Forest, table: MatchTable, leaves: readonly number[]): Builder {
  const isUsed = new Uint8Array(forest.bits.length);
  for (const leaf of leaves) isUsed[leaf] = 1;
  const freeNodes: number[] = [];
  for (const [node, bits] of forest.bits.entries()) {
    if (bits === 0 && isUsed[node] === 0) freeNodes.push(node);
  }
  return {
    ...spaceOf(table),
    lane: copyColumn(forest.lane),
    shift: copyColumn(forest.shift),
    bits: copyColumn(forest.bits),
    base: copyColumn(forest.base),
    count: copyColumn(forest.count),
    children: copyColumn(forest.children),
    boxes: copyColumn(forest.boxes),
    freeNodes,
    freeBoxes: freeRuns(forest, leaves),
    leaves: new Map(),
    room: forest.room,
    depth: forest.depth,
    isTooBig: false,
  };
}
