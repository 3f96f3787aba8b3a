import type { CounterLayout } from '../../src/backends/backend.ts';
import type { Counter } from '../../src/ir/classifier.ts';
import type { Outcome } from '../../src/ir/evaluate.ts';
import type { KernelLab } from './kernel-lab.ts';
import type { CounterReading } from './lab-oracle.ts';
import type { LoadedXdp } from './lab-xdp.ts';
import type { Pipeline } from './pipeline.ts';

/** Packets and bytes. */
export type Amount = readonly [packets: bigint, bytes: bigint];

const SLOT_BYTES = 16;

function add(a: Amount | undefined, b: Amount): Amount {
  return a === undefined ? b : [a[0] + b[0], a[1] + b[1]];
}

/** The program's counters in the kernel, by slot, added up over the CPUs. */
export async function readSlots(
  lab: KernelLab,
  loaded: LoadedXdp,
  { map, slots, slotsPerEntry }: CounterLayout,
): Promise<readonly Amount[]> {
  const elements = await lab.readMap(loaded, map);
  return Array.from({ length: slots }, (_, slot) => {
    const values = elements[Math.floor(slot / slotsPerEntry)]?.values ?? [];
    const at = (slot % slotsPerEntry) * SLOT_BYTES;
    return values
      .map(({ buffer, byteOffset }) => new DataView(buffer, byteOffset))
      .map((view): Amount => [view.getBigUint64(at, true), view.getBigUint64(at + 8, true)])
      .reduce<Amount>(add, [0n, 0n]);
  });
}

function unequal(name: string, wanted: Amount | undefined, got: Amount | undefined): string[] {
  const [packets, bytes] = wanted ?? [0n, 0n];
  const [gotPackets, gotBytes] = got ?? [0n, 0n];
  if (packets === gotPackets && bytes === gotBytes) return [];
  return [`${name}: ${packets}/${bytes} wanted, ${gotPackets}/${gotBytes} counted`];
}

function nameOf({ family, table, name, rule }: Counter): string {
  return rule === null
    ? `${family} ${table} counter ${name}`
    : `${family} ${table} ${rule.chain} #${rule.index}`;
}

function nameOfReading({ family, table, chain, index, name }: CounterReading): string {
  return name === null
    ? `${family} ${table} ${chain} #${index}`
    : `${family} ${table} counter ${name}`;
}

/**
 * Both runs of the program against the specialised classifier, for the frames that were dropped;
 * `slots` is what the kernel's run counted.
 */
export function compareProgramCounters(
  { classifier, artifact, counted }: Pipeline,
  slots: readonly Amount[],
  dropped: readonly Outcome[],
): string[] {
  const wanted = new Map<number, Amount>();
  for (const { counts } of dropped) {
    for (const [index, { packets, bytes }] of counts) {
      wanted.set(index, add(wanted.get(index), [BigInt(packets), BigInt(bytes)]));
    }
  }
  const interpreted = counted();
  const placed = new Set(artifact.owners);
  return classifier.counters.flatMap((counter, index) => {
    if (!placed.has(counter)) return unequal(nameOf(counter), wanted.get(index), undefined);
    const slot = artifact.owners.indexOf(counter);
    return [
      ...unequal(`${nameOf(counter)} (kernel's run)`, wanted.get(index), slots[slot]),
      ...unequal(`${nameOf(counter)} (our run)`, wanted.get(index), interpreted[slot]),
    ];
  });
}

/** The counters of nftables alone against those of the program and of nftables behind it. */
export function compareNftCounters(
  alone: readonly CounterReading[],
  rest: readonly CounterReading[],
  owners: readonly Counter[],
  slots: readonly Amount[],
): string[] {
  const sums = new Map<string, Amount>();
  for (const [slot, owner] of owners.entries()) {
    const name = nameOf(owner);
    sums.set(name, add(sums.get(name), slots[slot] ?? [0n, 0n]));
  }
  const toAmount = ({ packets, bytes }: CounterReading): Amount => [BigInt(packets), BigInt(bytes)];
  for (const reading of rest) {
    const name = nameOfReading(reading);
    sums.set(name, add(sums.get(name), toAmount(reading)));
  }
  const wanted = new Map<string, Amount>();
  for (const reading of alone) {
    const name = nameOfReading(reading);
    wanted.set(name, add(wanted.get(name), toAmount(reading)));
  }
  const names = new Set([...wanted.keys(), ...sums.keys()]);
  return [...names].flatMap((name) => unequal(name, wanted.get(name), sums.get(name)));
}
