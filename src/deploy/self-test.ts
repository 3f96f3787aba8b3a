import { z } from 'zod';
import { COUNTER_BYTES } from '../backends/backend.ts';
import { HOOKS } from '../backends/ebpf-offload/hook.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { isInNic, type XdpMode } from './attachment.ts';
import { complaint, parseJson } from './machine.ts';
import { addCounts, type Count, NOTHING } from './owner-counts.ts';
import { type DeployPaths, generationPaths, mapPin, selfTestDirectory } from './paths.ts';
import { parseCounters } from './read-counters.ts';
import { printBytes } from './shell.ts';
import type { CounterLayoutJson, selfTestSchema } from './state.ts';
import type { Transport } from './transport.ts';

/** A frame for the loaded program, and what has to come of it; as it is kept with a deployment. */
export type SelfTestFrame = z.output<typeof selfTestSchema>;

/** A directory of its own (`$1`) for the frames, gone when the script ends. */
const RUN = `umask 077
test ! -e "$1" || rm -rf -- "$1"
mkdir -p -- "$1" && cd -- "$1" || exit 1
trap 'rm -rf -- "$1"' EXIT
`;

/** A line between what the frames did and what became of the counters. */
const BETWEEN = '-- counters to zero';

const batchSchema = z.array(z.object({ output: z.unknown() }));
const clearedSchema = z.array(z.object({ output: z.null() }));
const runSchema = z.object({ retval: z.number() });

/** Entries of the counter map that the frames count in. */
function touchedEntries(frames: readonly SelfTestFrame[], layout: CounterLayoutJson): number[] {
  const slots = frames.flatMap(({ counts }) => counts.map(({ slot }) => slot));
  return [...new Set(slots.map((slot) => Math.floor(slot / layout.slotsPerEntry)))];
}

/** A key of the counter map as bpftool wants it, little-endian. */
function keyBytes(entry: number): string {
  return [0, 8, 16, 24].map((shift) => (entry >>> shift) & 0xff).join(' ');
}

interface SelfTest {
  readonly device: string;
  readonly mode: XdpMode;
  readonly frames: readonly SelfTestFrame[];
  readonly counters: CounterLayoutJson | null;
}

function writeScript(test: SelfTest, program: string, counterPin: string | null): string {
  const { frames, counters } = test;
  const files = frames.map(
    ({ frame }, at) => `printf %b '${printBytes(Buffer.from(frame, 'hex'))}' >${at} || exit 1\n`,
  );
  const entries = counters === null ? [] : touchedEntries(frames, counters).map(keyBytes);
  const batch = [
    ...frames.map((_, at) => `prog run pinned ${program} data_in ${at}\n`),
    ...entries.map((key) => `map lookup pinned ${counterPin} key ${key}\n`),
  ];
  const zeros = Array((counters?.slotsPerEntry ?? 0) * COUNTER_BYTES)
    .fill(0)
    .join(' ');
  const clear = entries.map((key) => `map update pinned ${counterPin} key ${key} value ${zeros}\n`);
  return [
    RUN,
    ...files,
    `bpftool -j batch file - <<'END'\n${batch.join('')}END\n`,
    `echo ${BETWEEN}\n`,
    ...(clear.length === 0 ? [] : [`bpftool -j batch file - <<'END'\n${clear.join('')}END\n`]),
    // The exit status of a batch says nothing; see `fillMaps`.
    'exit 0\n',
  ].join('');
}

function sumCounts(frames: readonly SelfTestFrame[]): ReadonlyMap<number, Count> {
  const sums = new Map<number, Count>();
  for (const { slot, packets, bytes } of frames.flatMap(({ counts }) => counts)) {
    const one = { packets: BigInt(packets), bytes: BigInt(bytes) };
    sums.set(slot, addCounts(sums.get(slot) ?? NOTHING, one));
  }
  return sums;
}

function mismatch(device: string, what: string): Result<never> {
  const message = `the loaded program does not do as the ruleset says (${device}): ${what}`;
  const help = 'nothing was attached; please report this with the ruleset: it is a bug';
  return fail(errorAt('deploy/self-test', message, { help }));
}

function compare(test: SelfTest, outputs: readonly unknown[]): Result<null> {
  const { device, frames, counters } = test;
  // Other programs are in a NIC, and not tried out.
  const { drop, pass } = HOOKS.xdp;
  for (const [at, { frame, drops, rule }] of frames.entries()) {
    const ran = runSchema.safeParse(outputs[at]);
    if (!ran.success) return mismatch(device, `frame ${frame} does not run through it`);
    const action = drops ? drop : pass;
    if (ran.data.retval === action) continue;
    const said = `returns ${ran.data.retval} for frame ${frame}, not ${action} (${rule})`;
    return mismatch(device, `it ${said}`);
  }
  if (counters === null) return succeed(null);
  const read = parseCounters(outputs.slice(frames.length), counters);
  if (read === null) return mismatch(device, 'its counters cannot be read');
  const sums = sumCounts(frames);
  for (const [slot, got] of read.entries()) {
    const wanted = sums.get(slot) ?? NOTHING;
    if (got.packets === wanted.packets && got.bytes === wanted.bytes) continue;
    const counted = `${got.packets} packets, ${got.bytes} bytes`;
    return mismatch(
      device,
      `counter ${slot} has ${counted}, not ${wanted.packets} and ${wanted.bytes}`,
    );
  }
  return succeed(null);
}

/** Whether the kernel can run a loaded program on given frames: not one that a NIC has. */
export function canSelfTest({ mode, frames }: Pick<SelfTest, 'mode' | 'frames'>): boolean {
  return frames.length > 0 && !isInNic(mode);
}

/**
 * Runs frames through a program that is loaded and not attached yet, compares verdicts and counters
 * with what the ruleset says, and sets the counters back to zero. Programs in a NIC cannot be run so
 * (bpf_prog_test_run of an offloaded program is refused, kernel/bpf/offload.c).
 */
export async function selfTest(
  transport: Transport,
  paths: DeployPaths,
  test: SelfTest,
  generation: number,
): Promise<Result<null>> {
  if (!canSelfTest(test)) return succeed(null);
  const target = generationPaths(paths, test.device, generation);
  const pin = test.counters === null ? null : mapPin(target, test.counters.map);
  const script = writeScript(test, target.program, pin);
  const directory = selfTestDirectory(paths, test.device);
  const result = await transport.run(['sh', '-s', '--', directory], { input: script });
  const [ran = '', cleared = ''] = result.stdout.split(`${BETWEEN}\n`);
  const parsed = batchSchema.safeParse(parseJson(ran));
  if (result.code === 0 && parsed.success) {
    const outputs = parsed.data.map(({ output }) => output);
    const compared = compare(test, outputs);
    if (!compared.ok || test.counters === null) return compared;
    const wanted = touchedEntries(test.frames, test.counters).length;
    if (wanted === 0) return compared;
    // bpftool stops at the first that fails.
    const zeroed = clearedSchema.safeParse(parseJson(cleared));
    if (zeroed.data?.length === wanted) return compared;
  }
  const message = `the loaded program could not be tried out: ${complaint(result)}`;
  return fail(errorAt('deploy/self-test', message, { help: 'nothing was attached' }));
}
