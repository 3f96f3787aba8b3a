import type { Counter } from '../ir/classifier.ts';
import type { Family } from '../ir/ruleset.ts';

/** What an nft counter counted. */
export interface Count {
  readonly packets: bigint;
  readonly bytes: bigint;
}

/**
 * The nft counter that a slot counts for: a named one (`name`), or those of one rule (`chain`,
 * `handle`, `index`). Several slots may share an owner. Deleted rules of a chain have neither handle
 * nor index.
 */
export interface CounterOwner {
  readonly family: Family;
  readonly table: string;
  readonly name: string | null;
  readonly chain: string | null;
  readonly handle: number | null;
  /** Of the rule inside its chain, from 0. */
  readonly index: number | null;
}

export interface OwnerCount {
  readonly owner: CounterOwner;
  readonly count: Count;
}

export const NOTHING: Count = { packets: 0n, bytes: 0n };

export function addCounts(a: Count, b: Count): Count {
  return { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
}

export function ownerOf(counter: Counter): CounterOwner {
  return {
    family: counter.family,
    table: counter.table,
    name: counter.name,
    chain: counter.rule?.chain ?? null,
    handle: counter.rule?.handle ?? null,
    index: counter.rule?.index ?? null,
  };
}

/** `inet filter input handle 12`, `inet filter input #3`, `inet filter counter web`... */
export function formatOwner(owner: CounterOwner): string {
  const table = `${owner.family} ${owner.table}`;
  if (owner.name !== null) return `${table} counter ${owner.name}`;
  const chain = `${table} ${owner.chain}`;
  if (owner.handle !== null) return `${chain} handle ${owner.handle}`;
  return owner.index === null ? `${chain} (deleted rules)` : `${chain} #${owner.index + 1}`;
}

function exactKey({ family, table, name, chain, handle, index }: CounterOwner): string {
  const position = handle === null ? `#${index}` : handle;
  return JSON.stringify(name === null ? [family, table, chain, position] : [family, table, name]);
}

function indexKey({ family, table, chain, index }: CounterOwner): string {
  return JSON.stringify([family, table, chain, index]);
}

/**
 * A way to find an owner again: by name, else by handle; by index only where one of the two sides
 * has no handle (a ruleset read from a file), because an insertion moves indices.
 */
export function indexOwners<T extends { readonly owner: CounterOwner }>(
  items: readonly T[],
): (owner: CounterOwner) => T | null {
  const exact = new Map(items.map((item) => [exactKey(item.owner), item]));
  const rules = items.filter(({ owner }) => owner.index !== null);
  const byIndex = new Map(rules.map((item) => [indexKey(item.owner), item]));
  return (owner) => {
    const same = exact.get(exactKey(owner));
    if (same !== undefined || owner.index === null) return same ?? null;
    const candidate = byIndex.get(indexKey(owner));
    if (candidate === undefined) return null;
    return owner.handle === null || candidate.owner.handle === null ? candidate : null;
  };
}

/** Each owner once, in order of first appearance, with the sum of its counts. */
export function sumByOwner(counts: readonly OwnerCount[]): readonly OwnerCount[] {
  const sums = new Map<string, OwnerCount>();
  for (const { owner, count } of counts) {
    const key = exactKey(owner);
    const before = sums.get(key);
    sums.set(
      key,
      before === undefined
        ? { owner, count }
        : { owner: before.owner, count: addCounts(before.count, count) },
    );
  }
  return [...sums.values()];
}

/**
 * What is kept for the owners of the next program: every count under the owner that it belongs to
 * there, and those that no longer have one under their old owner, so that none is ever lost.
 */
export function carryCounts(
  counts: readonly OwnerCount[],
  owners: readonly CounterOwner[],
): readonly OwnerCount[] {
  const find = indexOwners(owners.map((owner) => ({ owner })));
  const moved = counts.map(({ owner, count }) => ({ owner: find(owner)?.owner ?? owner, count }));
  return sumByOwner(moved).filter(({ count }) => count.packets > 0n || count.bytes > 0n);
}
