import { z } from 'zod';
import { TREES } from '../backends/ebpf-offload/ask-table.ts';
import { writeElf } from '../backends/ebpf-offload/elf.ts';
import type { ProgramPatch } from '../backends/ebpf-offload/live-program.ts';
import { MOST_PAIRS, patchObject, writePatch } from '../backends/ebpf-offload/patch-program.ts';
import type { PatchWord } from '../backends/ebpf-offload/tree-patch.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { complaint, parseJson, runStep } from './machine.ts';
import { type DeployPaths, generationPaths, mapPin, objectFile, patchDirectory } from './paths.ts';
import { printBytes, quoteWord } from './shell.ts';
import type { Transport } from './transport.ts';

/** Pinned beside a program whose tables change. */
interface Writer {
  /** The patch program, see patch-program.ts. */
  readonly program: string;
  /** A map of maps: an update of it returns when all programs that began before have ended. */
  readonly grace: string;
  readonly map: string;
}

function writerOf(paths: DeployPaths, device: string, generation: number): Writer {
  const target = generationPaths(paths, device, generation);
  const { directory } = target;
  return { program: `${directory}/patch`, grace: `${directory}/grace`, map: mapPin(target, TREES) };
}

/** Loads what stores words into the tables of a generation, unless it is there. */
async function openWriter(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  { program, grace, map }: Writer,
  bytes: number,
): Promise<Result<unknown>> {
  const there = await transport.run(['test', '-e', grace]);
  if (there.code === 0) return succeed(null);
  const object = objectFile(paths, device);
  await transport.writeFile(object, writeElf(patchObject(bytes)));
  const load = ['bpftool', 'prog', 'load', object, program, 'type', 'xdp'];
  const argv = [...load, 'map', 'idx', '0', 'pinned', map];
  await transport.run(['rm', '-f', '--', program]);
  const loaded = await runStep(transport, 'deploy/patch', 'load what changes tables', argv);
  await transport.remove(object);
  if (!loaded.ok) return loaded;
  const create = ['bpftool', 'map', 'create', grace, 'type', 'array_of_maps', 'key', '4'];
  const rest = ['value', '4', 'entries', '1', 'name', 'nft_grace', 'inner_map', 'pinned', map];
  return runStep(transport, 'deploy/patch', 'make a map of maps', [...create, ...rest]);
}

/** A directory of its own (`$1`) for the packets, gone when the script ends. */
const RUN = `umask 077
rm -rf -- "$1" && mkdir -p -- "$1" && cd -- "$1" || exit 1
trap 'rm -rf -- "$1"' EXIT
`;

const outputSchema = z.array(z.object({ output: z.unknown() }));
const runSchema = z.object({ retval: z.number() });

/**
 * Stores words in order, then waits until every CPU has left what it ran before: the kernel waits
 * for running programs when a map of maps changes (maybe_wait_bpf_programs(), kernel/bpf/syscall.c).
 */
async function storeWords(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  { program, grace, map }: Writer,
  words: readonly PatchWord[],
): Promise<Result<null>> {
  const packets = writePatch(words);
  const files = packets.map((packet, at) => `printf %b '${printBytes(packet)}' >${at} || exit 1\n`);
  const wait = `map update pinned ${grace} key 0 0 0 0 value pinned ${map}\n`;
  const batch = packets.map((_, at) => `prog run pinned ${program} data_in ${at}\n`).join('');
  const end = `test -e ${quoteWord(grace)} || exit 1\n`;
  const script = `${RUN}${files.join('')}${end}bpftool -j batch file - <<'END'\n${batch}${wait}prog show pinned ${program}\nEND\nexit 0\n`;
  const directory = patchDirectory(paths, device);
  const result = await transport.run(['sh', '-s', '--', directory], { input: script });
  const failed = (why: string): Result<never> =>
    fail(errorAt('deploy/patch', `cannot change the tables of ${device}: ${why}`));
  const outputs = outputSchema.safeParse(parseJson(result.stdout));
  if (!outputs.success) return failed(complaint(result));
  const runs = outputs.data.map(({ output }) => output);
  for (const [at, packet] of packets.entries()) {
    const ran = runSchema.safeParse(runs[at]);
    if (!ran.success || ran.data.retval !== packet.length / 8)
      return failed('it stored too little');
  }
  // A batch ends at the first command that fails; the last one is there only where all went well.
  return runs.length === packets.length + 2 ? succeed(null) : failed(complaint(result));
}

/** Words that are worth storing; beyond that a program is loaded faster. */
export const MOST_WORDS = 200 * MOST_PAIRS;

/**
 * Changes the tables of a generation's program: every packet meets all of the old ones, or all of the
 * new ones. When it fails, packets meet the old ones (or, where only the last wait failed, the new ones), and the
 * tables cannot be changed again.
 */
export async function storePatch(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
  { words, commit, bytes }: ProgramPatch,
): Promise<Result<null>> {
  const writer = writerOf(paths, device, generation);
  const opened = await openWriter(transport, paths, device, writer, bytes);
  if (!opened.ok) return opened;
  const stored =
    words.length === 0 ? succeed(null) : await storeWords(transport, paths, device, writer, words);
  return stored.ok ? storeWords(transport, paths, device, writer, [commit]) : stored;
}
