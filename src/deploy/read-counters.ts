import { z } from 'zod';
import { COUNTER_BYTES, type CounterLayout } from '../backends/backend.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { complaint, parseJson } from './machine.ts';
import { addCounts, type Count, NOTHING } from './owner-counts.ts';
import type { Transport } from './transport.ts';

const bytesSchema = z.array(z.string().regex(/^0x[0-9a-f]{2}$/));

/** `bpftool -j map dump` (bpftool-map(8)): `values` of per-CPU maps, `value` of others. */
const dumpSchema = z.array(
  z.object({
    key: bytesSchema.length(4),
    value: bytesSchema.optional(),
    values: z.array(z.object({ value: bytesSchema })).optional(),
  }),
);

function toBytes(hex: readonly string[]): DataView {
  return new DataView(Uint8Array.from(hex, (byte) => Number.parseInt(byte, 16)).buffer);
}

/** Objects are little-endian (`IDENT` in elf-format.ts), so is every machine that loads them. */
function readCount(value: DataView, slot: number): Count {
  const at = slot * COUNTER_BYTES;
  if (at + COUNTER_BYTES > value.byteLength) return NOTHING;
  return { packets: value.getBigUint64(at, true), bytes: value.getBigUint64(at + 8, true) };
}

/** One count a slot, summed over the CPUs, out of a map's elements; null where these are none. */
export function parseCounters(elements: unknown, layout: CounterLayout): readonly Count[] | null {
  const dump = dumpSchema.safeParse(elements);
  if (!dump.success) return null;
  const entries = new Map(
    dump.data.map(({ key, value, values }) => {
      const copies = values?.map((copy) => toBytes(copy.value)) ?? [toBytes(value ?? [])];
      return [toBytes(key).getUint32(0, true), copies] as const;
    }),
  );
  return Array.from({ length: layout.slots }, (_, slot) => {
    const copies = entries.get(Math.floor(slot / layout.slotsPerEntry)) ?? [];
    const counts = copies.map((copy) => readCount(copy, slot % layout.slotsPerEntry));
    return counts.reduce(addCounts, NOTHING);
  });
}

/** One count a slot, summed over the CPUs. */
export async function readCounters(
  transport: Transport,
  pin: string,
  layout: CounterLayout,
): Promise<Result<readonly Count[]>> {
  const result = await transport.run(['bpftool', '-j', 'map', 'dump', 'pinned', pin]);
  const unreadable = (why: string): Result<never> =>
    fail(errorAt('deploy/no-counters', `cannot read the counters in ${pin}: ${why}`));
  if (result.code !== 0) return unreadable(complaint(result));
  const counts = parseCounters(parseJson(result.stdout), layout);
  return counts === null
    ? unreadable('bpftool prints something else than elements')
    : succeed(counts);
}

/** Between two looks at a map that is going out of use, and how often to look at most. */
const SETTLE_MS = 10;
const SETTLE_LOOKS = 20;

/**
 * The final counts of a program that was just replaced. A CPU may still be inside it for some
 * microseconds (programs are freed after an RCU grace period, not switched off), so this looks until
 * two looks give the same.
 */
export async function readSettledCounters(
  transport: Transport,
  pin: string,
  layout: CounterLayout,
): Promise<Result<readonly Count[]>> {
  let last = await readCounters(transport, pin, layout);
  for (let look = 1; look < SETTLE_LOOKS && last.ok; look += 1) {
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    const next = await readCounters(transport, pin, layout);
    const before = last.value;
    if (next.ok && next.value.every((count, slot) => sameCount(count, before[slot] ?? NOTHING))) {
      return next;
    }
    last = next;
  }
  return last;
}

function sameCount(a: Count, b: Count): boolean {
  return a.packets === b.packets && a.bytes === b.bytes;
}
