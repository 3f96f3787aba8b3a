import { expandedLength, lengthChoices } from './prefix-levels.ts';

/** Keys of a set with prefixes of the same lengths, one length a part, and how many there are. */
export interface LengthGroup {
  readonly lengths: readonly number[];
  readonly keys: number;
}

/** How many keys there may be after prefixes were expanded. */
export interface KeyBudget {
  /** For fewer look-ups. */
  readonly usual: number;
  /** Where there would be too many look-ups otherwise. */
  readonly most: number;
}

/** Groups that are looked up together, and the positions of what was put into them. */
interface Joined extends LengthGroup {
  readonly members: readonly number[];
}

/** Keys of a group when its prefixes are expanded to longer ones. */
function expanded({ lengths, keys }: LengthGroup, to: readonly number[]): number {
  return lengths.reduce((count, length, part) => count * 2 ** ((to[part] ?? 0) - length), keys);
}

function join(a: Joined, b: Joined): Joined {
  const lengths = a.lengths.map((length, part) => Math.max(length, b.lengths[part] ?? 0));
  const keys = expanded(a, lengths) + expanded(b, lengths);
  return { lengths, keys, members: [...a.members, ...b.members] };
}

/** The other group that it takes the fewest keys more to be joined with. */
interface Partner {
  readonly group: Joined;
  readonly added: number;
}

function findPartner(group: Joined, others: Iterable<Joined>): Partner | null {
  let best: Partner | null = null;
  for (const other of others) {
    if (other === group) continue;
    const lengths = group.lengths.map((length, part) => Math.max(length, other.lengths[part] ?? 0));
    const added = expanded(group, lengths) + expanded(other, lengths) - group.keys - other.keys;
    if (best === null || added < best.added) best = { group: other, added };
  }
  return best;
}

/** Joins groups, always the two that add the fewest keys, while the budget allows. */
function joinGroups(groups: readonly LengthGroup[], most: number, budget: KeyBudget): Joined[] {
  const partners = new Map<Joined, Partner | null>();
  for (const [index, group] of groups.entries()) {
    partners.set({ ...group, members: [index] }, null);
  }
  for (const group of partners.keys()) partners.set(group, findPartner(group, partners.keys()));
  let keys = groups.reduce((sum, group) => sum + group.keys, 0);
  while (partners.size > 1) {
    let first: Joined | null = null;
    let partner: Partner | null = null;
    for (const [group, own] of partners) {
      if (own === null || (partner !== null && own.added >= partner.added)) continue;
      [first, partner] = [group, own];
    }
    if (first === null || partner === null) break;
    keys += partner.added;
    if (keys > (partners.size > most ? budget.most : budget.usual)) break;
    const gone = [first, partner.group];
    for (const group of gone) partners.delete(group);
    const joined = join(first, partner.group);
    partners.set(joined, null);
    for (const [group, own] of partners) {
      if (own === null || gone.includes(own.group)) {
        partners.set(group, findPartner(group, partners.keys()));
      } else {
        const other = findPartner(group, [joined]);
        if (other !== null && other.added < own.added) partners.set(group, other);
      }
    }
  }
  return [...partners.keys()];
}

/** The fewest lengths of one part that the budget allows, which is the best there is. */
function chooseOfOne(
  groups: readonly LengthGroup[],
  most: number,
  { usual }: KeyBudget,
): readonly (readonly number[])[] | null {
  const counts = new Map(groups.map(({ lengths: [length = 0], keys }) => [length, keys]));
  const choice = lengthChoices(counts, most).find(({ prefixes }) => prefixes <= usual);
  if (choice === undefined) return null;
  return groups.map(({ lengths: [length = 0] }) => [expandedLength(choice.lengths, length)]);
}

/**
 * Which lengths the prefixes of each group are expanded to, so that there are few different ones:
 * each is a look-up. Null where there are more than `most` all the same. Several parts: as built up
 * by joining the cheapest two, not the best there is.
 */
export function chooseLengths(
  groups: readonly LengthGroup[],
  most: number,
  budget: KeyBudget,
): readonly (readonly number[])[] | null {
  if (groups.every(({ lengths }) => lengths.length === 1)) return chooseOfOne(groups, most, budget);
  const joined = joinGroups(groups, most, budget);
  if (joined.length > most) return null;
  const targets = new Map(
    joined.flatMap(({ lengths, members }) => members.map((index) => [index, lengths] as const)),
  );
  return groups.map(({ lengths }, index) => targets.get(index) ?? lengths);
}
