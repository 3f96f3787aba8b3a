import { FOREVER, generationLane, type MatchTable } from './match-table.ts';

/** A table's rules in order, each as the boxes that nobody took away. */
export type RuleBoxes = readonly (readonly number[])[];

/** The boxes of each of a table's rules. */
export function boxesByRule(table: MatchTable, rules: number): RuleBoxes {
  const lists: number[][] = Array.from({ length: rules }, () => []);
  const ends = table.hi[generationLane(table.key)];
  for (let box = 0; box < table.size; box += 1) {
    if (ends?.[box] === FOREVER) lists[table.owner[box] ?? rules]?.push(box);
  }
  return lists;
}

function isSameBox(a: MatchTable, box: number, b: MatchTable, other: number): boolean {
  const lanes = generationLane(a.key);
  for (let lane = 0; lane < lanes; lane += 1) {
    if (a.lo[lane]?.[box] !== b.lo[lane]?.[other]) return false;
    if (a.hi[lane]?.[box] !== b.hi[lane]?.[other]) return false;
    if ((a.mask[lane]?.[box] ?? 0) !== (b.mask[lane]?.[other] ?? 0)) return false;
    if ((a.value[lane]?.[box] ?? 0) !== (b.value[lane]?.[other] ?? 0)) return false;
  }
  return true;
}

/** What tells rules with different boxes apart. */
function nameOf({ key, lo, hi, value, mask }: MatchTable, boxes: readonly number[]): string {
  const words: number[] = [];
  const lanes = generationLane(key);
  for (const box of boxes) {
    for (let lane = 0; lane < lanes; lane += 1) {
      words.push(lo[lane]?.[box] ?? 0, hi[lane]?.[box] ?? 0);
      words.push(mask[lane]?.[box] ?? 0, value[lane]?.[box] ?? 0);
    }
  }
  return words.join();
}

/** The indices of a longest ascending subsequence. */
function longestAscending(numbers: readonly number[]): Set<number> {
  const tails: number[] = [];
  const before = new Int32Array(numbers.length);
  for (const [index, number] of numbers.entries()) {
    let low = 0;
    let high = tails.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((numbers[tails[middle] ?? 0] ?? 0) < number) low = middle + 1;
      else high = middle;
    }
    before[index] = low === 0 ? -1 : (tails[low - 1] ?? -1);
    tails[low] = index;
  }
  const chosen = new Set<number>();
  for (let at = tails.at(-1) ?? -1; at >= 0; at = before[at] ?? -1) chosen.add(at);
  return chosen;
}

/** A table and its rules. */
export interface Ruled {
  readonly table: MatchTable;
  readonly rules: RuleBoxes;
}

/**
 * Which rule of `before` each rule of `after` is, -1 for those that are new; ascending where there is
 * one. Both have one key. `isSame` says whether two rules do the same when they match.
 */
export function pairRules(
  before: Ruled,
  after: Ruled,
  isSame: (before: number, after: number) => boolean,
): Int32Array {
  const pairs = new Int32Array(after.rules.length).fill(-1);
  const equal = (old: number, now: number): boolean => {
    const a = before.rules[old];
    const b = after.rules[now];
    if (a === undefined || b === undefined || a.length !== b.length) return false;
    return (
      a.every((box, at) => isSameBox(before.table, box, after.table, b[at] ?? 0)) &&
      isSame(old, now)
    );
  };
  let from = 0;
  while (from < after.rules.length && equal(from, from)) {
    pairs[from] = from;
    from += 1;
  }
  let oldEnd = before.rules.length;
  let end = after.rules.length;
  while (end > from && oldEnd > from && equal(oldEnd - 1, end - 1)) {
    oldEnd -= 1;
    end -= 1;
    pairs[end] = oldEnd;
  }
  pairMiddle(before, after, isSame, { from, oldEnd, end }, pairs);
  return pairs;
}

/** Pairs what is neither at the start nor at the end. */
function pairMiddle(
  before: Ruled,
  after: Ruled,
  isSame: (before: number, after: number) => boolean,
  { from, oldEnd, end }: { from: number; oldEnd: number; end: number },
  pairs: Int32Array,
): void {
  const known = new Map<string, number[]>();
  for (let old = from; old < oldEnd; old += 1) {
    const name = nameOf(before.table, before.rules[old] ?? []);
    const list = known.get(name);
    if (list === undefined) known.set(name, [old]);
    else list.push(old);
  }
  const found: { readonly now: number; readonly old: number }[] = [];
  for (let now = from; now < end; now += 1) {
    const list = known.get(nameOf(after.table, after.rules[now] ?? [])) ?? [];
    const at = list.findIndex((old) => isSame(old, now));
    const [old] = at < 0 ? [] : list.splice(at, 1);
    if (old !== undefined) found.push({ now, old });
  }
  const kept = longestAscending(found.map(({ old }) => old));
  for (const [index, { now, old }] of found.entries()) if (kept.has(index)) pairs[now] = old;
}
