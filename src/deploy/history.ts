import { z } from 'zod';
import type { LiveProgram } from '../backends/ebpf-offload/live-program.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import type { DeployRequest } from './deploy.ts';
import { readLive, writeLive } from './live-record.ts';
import { listGenerations } from './looks.ts';
import { parseJson } from './machine.ts';
import { type DeployPaths, historyDirectory } from './paths.ts';
import { counterLayoutSchema, modeSchema, ownerSchema, selfTestSchema } from './state.ts';
import type { Transport } from './transport.ts';

/** What is kept of a deployment beside its object, so that it can be deployed again. */
const recordSchema = z.object({
  format: z.literal('nft-offload/generation@1'),
  device: z.string(),
  mode: modeSchema,
  program: z.string(),
  maps: z.string().nullable(),
  counters: counterLayoutSchema.nullable(),
  owners: z.array(ownerSchema),
  rulesetChecksum: z.string(),
  frames: z.array(selfTestSchema).default([]),
  rules: z.array(z.string()).default([]),
  /** See `DeployRequest.live`. */
  tables: z.number().nullable().default(null),
});

/** Deployments that are kept, the present one included. */
const KEPT = 5;

function recordFile(paths: DeployPaths, device: string, generation: number): string {
  return `${historyDirectory(paths, device)}/${generation}.json`;
}

function objectFile(paths: DeployPaths, device: string, generation: number): string {
  return `${historyDirectory(paths, device)}/${generation}.o`;
}

/** What it takes to change it while it runs; see live-record.ts. */
function liveFile(paths: DeployPaths, device: string, generation: number): string {
  return `${historyDirectory(paths, device)}/${generation}.live`;
}

/** Keeps what is deployed, and lets go of what was deployed long ago. */
export async function keepGeneration(
  transport: Transport,
  paths: DeployPaths,
  request: DeployRequest,
  generation: number,
): Promise<void> {
  const { device, mode, program, maps, counters, owners, rulesetChecksum, elf, frames, rules } =
    request;
  const record: z.input<typeof recordSchema> = {
    format: 'nft-offload/generation@1',
    ...{
      device,
      mode,
      program,
      maps,
      rulesetChecksum,
      owners: [...owners],
      frames: [...frames],
      rules: [...rules],
      tables: request.live?.tables ?? null,
    },
    counters: counters === null ? null : { ...counters },
  };
  await transport.writeFile(objectFile(paths, device, generation), elf);
  const live = request.live?.program ?? null;
  if (live !== null) {
    await transport.writeFile(liveFile(paths, device, generation), writeLive(live));
  }
  const text = `${JSON.stringify(record)}\n`;
  await transport.writeFile(recordFile(paths, device, generation), new TextEncoder().encode(text));
  const kept = await listKept(transport, paths, device);
  for (const old of kept.slice(KEPT)) await forgetGeneration(transport, paths, device, old);
}

/** Generations that can be deployed again, the newest first. */
export async function listKept(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<readonly number[]> {
  return listGenerations(transport, historyDirectory(paths, device));
}

/** Removes what was kept of one deployment; none there is no error. */
export async function forgetGeneration(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<void> {
  // The record goes first: without it the object counts for nothing.
  await transport.remove(recordFile(paths, device, generation));
  await transport.remove(objectFile(paths, device, generation));
  await transport.remove(liveFile(paths, device, generation));
}

/** What it takes to change what was deployed as that generation, or null. */
export async function readKeptLive(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<LiveProgram | null> {
  const file = await transport.readFile(liveFile(paths, device, generation));
  return file === null ? null : readLive(file);
}

/** What was deployed as that generation, to be deployed again. */
export async function readKept(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<Result<DeployRequest>> {
  const file = recordFile(paths, device, generation);
  const text = await transport.readFile(file);
  const elf = await transport.readFile(objectFile(paths, device, generation));
  const parsed = recordSchema.safeParse(
    text === null ? null : parseJson(new TextDecoder().decode(text)),
  );
  if (parsed.success && elf !== null && parsed.data.device === device) {
    const { format: _, tables, ...record } = parsed.data;
    return succeed({
      ...record,
      elf,
      force: false,
      basis: null,
      confirm: null,
      origin: generation,
      ...(tables === null ? {} : { live: { program: null, tables } }),
    });
  }
  return fail(
    errorAt(
      'deploy/no-generation',
      `generation ${generation} of ${device} is not kept (any more)`,
      {
        help: '`status` lists those that are',
      },
    ),
  );
}
