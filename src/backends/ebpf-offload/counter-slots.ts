import type { Classifier, Counter } from '../../ir/classifier.ts';
import type { DecisionNode } from '../../ir/decision-nodes.ts';
import type { XdpProfile } from '../../profile/schema.ts';
import { COUNTER_BYTES, type CounterLayout } from '../backend.ts';
import type { Dialect } from './dialect.ts';
import type { MapDefinition } from './maps.ts';

const COUNTER_MAP = 'counters';
/** Counters in one map entry: costs nothing at run time, and creates the map 500 times faster. */
const SLOTS_PER_ENTRY = 512;

/** Counters that a decision can count, by their index in the classifier; ascending. */
export function countersIn(order: readonly DecisionNode[]): readonly number[] {
  const used = new Set<number>();
  for (const node of order) {
    if (node.kind === 'count') for (const counter of node.counters) used.add(counter);
    if (node.kind !== 'table') continue;
    for (const { counter } of node.actions) if (counter !== null) used.add(counter);
  }
  return [...used].sort((a, b) => a - b);
}

/** Where the counters of a decision count, and from which slot on the IP packet's length is added. */
export interface CounterSlots {
  readonly layout: CounterLayout;
  readonly ingress: number;
  readonly slotOf: ReadonlyMap<number, number>;
  /** By slot; there may be more slots. */
  readonly owners: readonly Counter[];
}

/** Counters of a decision, those at ingress first; null where it counts nothing. */
export function placeCounters(
  order: readonly DecisionNode[],
  { counters }: Classifier,
  profile: XdpProfile,
  dialect: Dialect,
): CounterSlots | null {
  const sorted = countersIn(order);
  if (sorted.length === 0) return null;
  const isIngress = (index: number): boolean => counters[index]?.view === 'ingress';
  const placed = [...sorted.filter(isIngress), ...sorted.filter((index) => !isIngress(index))];
  const ingress = sorted.filter(isIngress).length;
  const grows = order.some(({ kind }) => kind === 'table');
  const layout = layoutOf(profile, dialect, placed.length, grows);
  return {
    layout,
    // What is added later counts as all others do, where they are all alike.
    ingress: ingress === placed.length ? layout.slots : ingress,
    slotOf: new Map(placed.map((counter, index) => [counter, index])),
    owners: placed.flatMap((index) => counters[index] ?? []),
  };
}

/** Room for counters of rules that come later: a share of what there are, and some in any case. */
const SLACK = 8;
const SOME_SLOTS = 64;

function layoutOf(
  profile: XdpProfile,
  dialect: Dialect,
  used: number,
  grows: boolean,
): CounterLayout {
  const slots = grows ? used + Math.ceil(used / SLACK) + SOME_SLOTS : used;
  const perCpu = profile.limits.maps.kinds.some(({ kind }) => kind === 'percpu_array');
  const whole = 2 ** Math.ceil(Math.log2(slots));
  const most = perCpu ? SLOTS_PER_ENTRY : whole;
  const slotsPerEntry = dialect.constantMapOffsets ? 1 : Math.min(most, whole);
  return { map: COUNTER_MAP, perCpu, slotsPerEntry, slots };
}

/** The map that counters stand in. */
export function counterMap(layout: CounterLayout): MapDefinition {
  return {
    name: layout.map,
    type: layout.perCpu ? 'percpu_array' : 'array',
    keySize: 4,
    valueSize: layout.slotsPerEntry * COUNTER_BYTES,
    maxEntries: Math.ceil(layout.slots / layout.slotsPerEntry),
    flags: 0,
  };
}
