import type { Cut } from './match-cut.ts';
import { generationLane, type MatchTable } from './match-table.ts';

/** Lists up to which each box is compared with those before it. */
const MOST_COMPARED = 24;

/** What is known of a key at a node: bits by lane, and the interval that the known top bits leave. */
export interface Known {
  readonly mask: Uint32Array;
  readonly value: Uint32Array;
  readonly low: Uint32Array;
  readonly high: Uint32Array;
}

/** A table's keys and what is known of them. */
export interface Space {
  readonly table: MatchTable;
  /** All ones of each lane. */
  readonly full: Uint32Array;
}

/** The space of a table's keys. */
export function spaceOf(table: MatchTable): Space {
  const full = Uint32Array.from(table.key.widths, (width) =>
    width === 32 ? 0xffffffff : 2 ** width - 1,
  );
  return { table, full };
}

/** What is known at a root: nothing but that the generation is this one or a later one. */
export function knownAtRoot({ table, full }: Space, generation: number): Known {
  const lanes = full.length;
  const root = {
    mask: new Uint32Array(lanes),
    value: new Uint32Array(lanes),
    low: new Uint32Array(lanes),
    high: full,
  };
  root.value[generationLane(table.key)] = generation;
  root.low[generationLane(table.key)] = generation;
  return root;
}

/** Whether a box holds every key of the region. */
function coversRegion({ table, full }: Space, box: number, known: Known): boolean {
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
export function missesRegion({ table, full }: Space, box: number, known: Known): boolean {
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
function isInside({ table, full }: Space, box: number, other: number, known: Known): boolean {
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
export function prune(space: Space, list: Uint32Array, known: Known): Uint32Array {
  const kept = new Uint32Array(list.length);
  let length = 0;
  const isShort = list.length <= MOST_COMPARED;
  for (const box of list) {
    if (missesRegion(space, box, known)) continue;
    let isHidden = false;
    for (let before = 0; isShort && before < length && !isHidden; before += 1) {
      isHidden = isInside(space, box, kept[before] ?? 0, known);
    }
    if (isHidden) continue;
    kept[length] = box;
    length += 1;
    if (coversRegion(space, box, known)) break;
  }
  return kept.subarray(0, length);
}

/** Bits that all of some values of a window have, and those that none has. */
export interface Members {
  ones: number;
  zeros: number;
}

/** The children of a cut that hold the same boxes, and what is known of all of them. */
export interface Group extends Members {
  readonly list: Uint32Array;
  readonly members: number[];
}

/** For every value of a window, the boxes of a list that may hold such a key. */
export function distribute(
  { table }: Space,
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

/** Whether two lists hold the same boxes. */
export function isSame(a: Uint32Array, b: Uint32Array): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index += 1) if (a[index] !== b[index]) return false;
  return true;
}

/** Values of a window by what they hold. */
export function groupChildren(lists: Iterable<readonly [number, Uint32Array]>): Group[] {
  const byHash = new Map<number, Group[]>();
  const groups: Group[] = [];
  for (const [value, list] of lists) {
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
export function refine(
  { full }: Space,
  known: Known,
  { lane, shift, bits }: Cut,
  group: Members,
): Known {
  const agreed = (group.ones | group.zeros) & (2 ** bits - 1);
  const refined = {
    mask: known.mask.slice(),
    value: known.value.slice(),
    low: known.low.slice(),
    high: known.high.slice(),
  };
  const mask = ((known.mask[lane] ?? 0) | (agreed << shift)) >>> 0;
  const value = ((known.value[lane] ?? 0) | ((group.ones & agreed) << shift)) >>> 0;
  const open = (~mask & (full[lane] ?? 0)) >>> 0;
  // Ones from the highest unknown bit down.
  const below = open === 0 ? 0 : 2 ** (32 - Math.clz32(open)) - 1;
  refined.mask[lane] = mask;
  refined.value[lane] = value;
  refined.low[lane] = (value & ~below) >>> 0;
  refined.high[lane] = (value | below) >>> 0;
  return refined;
}
