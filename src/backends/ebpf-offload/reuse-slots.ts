import type { Counter } from '../../ir/classifier.ts';
import type { CounterSlots } from './counter-slots.ts';
import type { LiveCounters } from './live-program.ts';

/** Gives the counters of a new ruleset slots of a program in use. */
export interface ReusedSlots {
  /** Whether a counter may go on in a slot. */
  readonly mayBe: (counter: number, slot: number) => boolean;
  /** Makes a counter go on in a slot; false where it goes on elsewhere, or another one does there. */
  readonly bind: (counter: number, slot: number) => boolean;
  /** The slot of a counter: that of the same one before, else a new one; null where there is none. */
  readonly slotOf: (counter: number) => number | null;
  /** All that was given. */
  readonly finish: () => CounterSlots | null;
  /** Slots whose rules are gone. */
  readonly retired: () => ReadonlySet<number>;
}

/** The same for counters that are the same one for nft; null where that cannot be told. */
function nameOf({ family, table, name, view, rule }: Counter): string | null {
  if (name !== null) return JSON.stringify([family, table, view, name]);
  const handle = rule?.handle ?? null;
  return handle === null ? null : JSON.stringify([family, table, view, rule?.chain, handle]);
}

function isSameChain(a: Counter, b: Counter): boolean {
  const places = [a, b].map(({ family, table, view, rule }) => [family, table, view, rule?.chain]);
  return JSON.stringify(places[0]) === JSON.stringify(places[1]);
}

/** Slots by the name of what counts there. */
function namedSlots({ owners, retired }: LiveCounters): Map<string, number[]> {
  const named = new Map<string, number[]>();
  for (const [slot, owner] of owners.entries()) {
    const name = retired.has(slot) ? null : nameOf(owner);
    if (name === null) continue;
    const slots = named.get(name);
    if (slots === undefined) named.set(name, [slot]);
    else slots.push(slot);
  }
  return named;
}

const NONE: Omit<LiveCounters, 'layout'> = { ingress: 0, owners: [], retired: new Set() };

/**
 * Slots of a program in use for the counters of another ruleset: a counter keeps its slot as long as
 * its rule is there (by handle, or, in rulesets without handles, where all else of the rule is the same);
 * new ones get slots that nobody used.
 */
export function reuseSlots(live: LiveCounters | null, counters: readonly Counter[]): ReusedSlots {
  const { ingress, owners: before, retired: gone } = live ?? NONE;
  const named = live === null ? new Map<string, number[]>() : namedSlots(live);
  const owners = [...before];
  const slots = new Map<number, number>();
  const taken = new Set<number>();
  const bind = (counter: number, slot: number): boolean => {
    const known = slots.get(counter);
    if (known !== undefined) return known === slot;
    const owner = counters[counter];
    if (taken.has(slot) || owner === undefined) return false;
    slots.set(counter, slot);
    taken.add(slot);
    owners[slot] = owner;
    return true;
  };
  const addSlot = (counter: number): number | null => {
    const owner = counters[counter];
    const slot = owners.length;
    if (live === null || owner === undefined || slot >= live.layout.slots) return null;
    if ((owner.view === 'ingress') !== slot < ingress) return null;
    owners.push(owner);
    return bind(counter, slot) ? slot : null;
  };
  return {
    mayBe: (counter, slot) => {
      const known = slots.get(counter);
      const [old, now] = [before[slot], counters[counter]];
      if (known !== undefined) return known === slot;
      if (old === undefined || now === undefined || gone.has(slot)) return false;
      if (taken.has(slot)) return false;
      const names = [nameOf(old), nameOf(now)];
      if (names.every((name) => name !== null)) return names[0] === names[1];
      return old.name === null && now.name === null && isSameChain(old, now);
    },
    bind,
    slotOf: (counter) => {
      const known = slots.get(counter);
      if (known !== undefined) return known;
      const owner = counters[counter];
      const name = owner === undefined ? null : nameOf(owner);
      const same = named.get(name ?? '')?.find((slot) => !taken.has(slot));
      if (same === undefined) return addSlot(counter);
      return bind(counter, same) ? same : null;
    },
    finish: () => (live === null ? null : { layout: live.layout, ingress, slotOf: slots, owners }),
    retired: () => new Set([...owners.keys()].filter((slot) => !taken.has(slot))),
  };
}
