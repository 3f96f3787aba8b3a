import type { MatchTable } from './match-table.ts';

/** An address (or part of one) is narrow from this many known top bits on. */
const NARROW_BITS = 8;
/** Lanes of addresses and of ports, by their width. */
const ADDRESS_BITS = 32;
const PORT_BITS = 16;
/** Boxes that are not worth a tree of their own. */
const SMALL_GROUP = 64;
/** Trees of one table; every one costs a walk. */
const MOST_GROUPS = 8;

function addressLanes({ key }: MatchTable): number[] {
  const lanes = key.parts
    .filter(({ field }) => field.width >= ADDRESS_BITS)
    .map(({ lane }) => lane);
  return lanes.slice(0, 2);
}

function portLanes({ key }: MatchTable): number[] {
  return key.parts
    .filter(({ lanes, lane }) => lanes === 1 && key.widths[lane] === PORT_BITS)
    .map(({ lane }) => lane)
    .slice(0, 2);
}

function isNarrow({ key, lo, hi }: MatchTable, lane: number, box: number): boolean {
  const span = (hi[lane]?.[box] ?? 0) - (lo[lane]?.[box] ?? 0);
  return span < 2 ** ((key.widths[lane] ?? 0) - NARROW_BITS);
}

function isExact({ lo, hi }: MatchTable, lane: number, box: number): boolean {
  return lo[lane]?.[box] === hi[lane]?.[box];
}

/**
 * What boxes that can share a tree without being copied much have in common: the narrow ones of their
 * addresses, as bits; where none is, 4 and the first port that they are exact in, else 0.
 */
export function groupNames(table: MatchTable): (box: number) => number {
  const addresses = addressLanes(table);
  const ports = portLanes(table);
  return (box) => {
    let name = 0;
    for (const lane of addresses) name = name * 2 + (isNarrow(table, lane, box) ? 1 : 0);
    if (name !== 0) return name;
    const exact = ports.findIndex((lane) => isExact(table, lane, box));
    return exact < 0 ? 0 : 4 + exact;
  };
}

/** Boxes for a tree of their own, in order; `isRest`: those of small groups too. */
export interface BoxGroup {
  readonly name: number;
  readonly isRest: boolean;
  readonly list: Uint32Array;
}

/** The boxes of a new table by tree; never empty lists. */
export function groupBoxes(table: MatchTable): BoxGroup[] {
  const nameOf = groupNames(table);
  const groups = new Map<number, number[]>();
  for (let box = 0; box < table.size; box += 1) {
    const name = nameOf(box);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [box]);
    else group.push(box);
  }
  const sorted = [...groups.entries()].sort(([, a], [, b]) => b.length - a.length);
  const large = sorted.filter(
    ([, list], index) => index === 0 || (list.length >= SMALL_GROUP && index < MOST_GROUPS),
  );
  const small = sorted.filter((group) => !large.includes(group));
  // What is too little for a tree of its own goes where boxes are wide anyway, else to the largest.
  const rest = large.find(([name]) => name === 0) ?? large[0];
  return large.map(([name, list]) => {
    const isRest = name === rest?.[0];
    const all = isRest ? [...list, ...small.flatMap(([, other]) => other)] : list;
    return { name, isRest, list: Uint32Array.from(all).sort() };
  });
}
