import { z } from 'zod';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { isInNic, type XdpMode } from './attachment.ts';
import { explainDriver, watchKernelLog } from './driver-errors.ts';
import { complaint, parseJson, runStep } from './machine.ts';
import {
  type DeployPaths,
  type GenerationPaths,
  generationPaths,
  mapPin,
  objectFile,
} from './paths.ts';
import type { CommandResult, Transport } from './transport.ts';

/** What is to be loaded. */
export interface LoadRequest {
  readonly device: string;
  readonly mode: XdpMode;
  readonly elf: Uint8Array;
  /** The program's symbol. */
  readonly program: string;
  /** bpftool commands that fill the maps: `map update name NAME key ... value ...`, one a line. */
  readonly maps: string | null;
}

/** A program in the kernel. */
export interface LoadedProgram {
  readonly id: number;
  readonly name: string;
  /** Seconds since the epoch. */
  readonly loadedAt: number;
}

const programSchema = z.object({
  id: z.number(),
  name: z.string().default(''),
  loaded_at: z.number().default(0),
});

/** A program as `bpftool -j prog show` prints it; null where it prints something else. */
export function parseProgram(text: string): LoadedProgram | null {
  const parsed = programSchema.safeParse(parseJson(text));
  if (!parsed.success) return null;
  return { id: parsed.data.id, name: parsed.data.name, loadedAt: parsed.data.loaded_at };
}

/** The program pinned at `pin`, or null when there is none. */
export async function readPinnedProgram(
  transport: Transport,
  pin: string,
): Promise<LoadedProgram | null> {
  const { code, stdout } = await transport.run(['bpftool', '-j', 'prog', 'show', 'pinned', pin]);
  return code === 0 ? parseProgram(stdout) : null;
}

/** Generations among the names in a device's pin directory, the current one and what a crash left. */
export function readGenerations({ stdout }: CommandResult): readonly number[] {
  return stdout
    .split('\n')
    .filter((name) => /^[0-9]{1,9}$/.test(name))
    .map(Number);
}

/** Unpins all that a generation holds. */
export async function removeGeneration(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<void> {
  const { directory } = generationPaths(paths, device, generation);
  await transport.run(['rm', '-rf', '--one-file-system', '--', directory]);
}

/** `map update name NAME ...` with nothing in it that a batch file gives another meaning. */
const UPDATE = /^map update name ([A-Za-z0-9_.]{1,15}) (key [A-Za-z0-9 ]+)$/;

/**
 * The same commands for the maps of one generation: a name would be ambiguous while the old program
 * is still loaded. Anything but map updates is refused.
 */
export function bindMaps(batch: string, generation: GenerationPaths): Result<string> {
  const lines = batch
    .split('\n')
    .map((line, index) => ({ text: line.trim().replace(/\s+/g, ' '), number: index + 1 }))
    .filter(({ text }) => text !== '' && !text.startsWith('#'));
  const bound: string[] = [];
  for (const { text, number } of lines) {
    const [, name, rest] = UPDATE.exec(text) ?? [];
    if (name === undefined || rest === undefined) {
      const message = `line ${number} of the map contents is no map update: ${text.slice(0, 80)}`;
      return fail(errorAt('deploy/bad-maps', message));
    }
    bound.push(`map update pinned ${mapPin(generation, name)} ${rest}`);
  }
  return succeed(bound.map((line) => `${line}\n`).join(''));
}

/**
 * Runs bound map updates. bpftool 7.1 ends a batch by looking at an errno that may be left from
 * anything (`reading batch file failed`), but it stops at the first command that fails: so a last
 * command that prints the program's id proves the others, whatever the exit status is.
 */
async function fillMaps(
  transport: Transport,
  batch: string,
  target: GenerationPaths,
  programId: number,
): Promise<Result<null>> {
  if (batch === '') return succeed(null);
  const input = `${batch}prog show pinned ${target.program}\n`;
  const result = await transport.run(['bpftool', 'batch', 'file', '-'], { input });
  if (result.stdout.split('\n').some((line) => line.startsWith(`${programId}: `))) {
    return succeed(null);
  }
  return fail(errorAt('deploy/maps-failed', `cannot fill the maps: ${complaint(result)}`));
}

async function loadInto(
  transport: Transport,
  paths: DeployPaths,
  request: LoadRequest,
  target: GenerationPaths,
): Promise<Result<LoadedProgram>> {
  const batch = bindMaps(request.maps ?? '', target);
  if (!batch.ok) return batch;
  const object = objectFile(paths, request.device);
  await transport.writeFile(object, request.elf);
  // A program for the NIC is compiled by the driver when it is loaded, so it is bound to the device.
  const bound = isInNic(request.mode) ? ['dev', request.device] : [];
  const type = request.mode === 'offload-tc' ? 'classifier' : 'xdp';
  const load = ['bpftool', '--', 'prog', 'load', object, target.program, 'type', type, ...bound];
  const watch = isInNic(request.mode) ? await watchKernelLog(transport) : null;
  const loaded = await runStep(
    transport,
    'deploy/load-failed',
    'load the program',
    [...load, 'pinmaps', target.maps],
    { help: 'nothing was changed; the last lines are what the kernel says' },
  );
  await transport.remove(object);
  if (!loaded.ok) return watch === null ? loaded : explainDriver(loaded, await watch());
  const program = await readPinnedProgram(transport, target.program);
  if (program === null || program.name !== request.program.slice(0, 15)) {
    const message = `the object's program is "${program?.name}", not "${request.program}"`;
    return fail(errorAt('deploy/wrong-program', message));
  }
  const filled = await fillMaps(transport, batch.value, target, program.id);
  if (!filled.ok) return filled;
  return succeed(program);
}

/** Loads the program and fills its maps as a new generation; when that fails, nothing of it stays. */
export async function loadGeneration(
  transport: Transport,
  paths: DeployPaths,
  request: LoadRequest,
  generation: number,
): Promise<Result<LoadedProgram>> {
  const target = generationPaths(paths, request.device, generation);
  const made = await transport.run(['mkdir', '-p', '-m', '700', target.maps]);
  if (made.code !== 0) {
    return fail(errorAt('deploy/no-bpffs', `cannot make ${target.maps}: ${complaint(made)}`));
  }
  const loaded = await loadInto(transport, paths, request, target);
  if (!loaded.ok) await removeGeneration(transport, paths, request.device, generation);
  return loaded;
}
