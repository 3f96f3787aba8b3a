import { z } from 'zod';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { listGenerations } from './looks.ts';
import { parseJson } from './machine.ts';
import { type DeployPaths, tablesDirectory, tablesFile } from './paths.ts';
import { formatState, ownerCountSchema, ownerSchema, whole } from './state.ts';
import type { Transport } from './transport.ts';

const modeSchema = z.enum(['offload', 'generic']);

const deploymentSchema = z.object({
  generation: whole,
  /** The generation whose filters these are; another one after going back to it. */
  origin: whole,
  mode: modeSchema,
  /** We made the place for filters, so it goes when they go. */
  ownQdisc: z.boolean(),
  rulesetChecksum: z.string(),
});

/** Filters that were deployed. */
export type TablesDeployment = z.output<typeof deploymentSchema>;

const stateSchema = z.object({
  format: z.literal('nft-offload/tables-state@1'),
  device: z.string(),
  ifindex: whole,
  /** See `readBootId`. */
  bootId: z.string(),
  current: deploymentSchema,
  /** Whose counts are not taken over yet: the switch from it is under way, or has to be confirmed. */
  previous: deploymentSchema.nullable(),
  isTrial: z.boolean(),
  /** What filters before these have counted. */
  carried: z.array(ownerCountSchema),
});

/** What filters were deployed to a device; describes this boot only. */
export type TablesState = z.output<typeof stateSchema>;

const filterSchema = z.object({
  protocol: z.enum(['ip', 'ipv6']),
  pref: whole,
  handle: whole,
  // One line of a batch of tc.
  keys: z.string().regex(/^[a-z0-9_:./ -]*$/i),
  action: z.enum(['drop', 'pass']),
  owner: whole.nullable(),
});

const recordSchema = z.object({
  format: z.literal('nft-offload/tables-generation@1'),
  device: z.string(),
  mode: modeSchema,
  rulesetChecksum: z.string(),
  filters: z.array(filterSchema),
  owners: z.array(ownerSchema),
});

/** What is kept of deployed filters. */
export type TablesRecord = z.output<typeof recordSchema>;

/** Null when no filters were deployed to the device. */
export async function readTablesState(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<Result<TablesState | null>> {
  const file = tablesFile(paths, device);
  const content = await transport.readFile(file);
  if (content === null) return succeed(null);
  const parsed = stateSchema.safeParse(parseJson(new TextDecoder().decode(content)));
  if (parsed.success && parsed.data.device === device) return succeed(parsed.data);
  const message = `what was deployed to ${device} cannot be read back`;
  const help = '`undeploy --force` removes what is left; carried counters are lost';
  const place = { kind: 'file', file, line: null, column: null } as const;
  return fail(errorAt('deploy/bad-state', message, { help, place }));
}

/** Why no program can be deployed to a device; null where it has no filters of ours. */
export async function refuseBesideTables(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<Diagnostic | null> {
  if ((await transport.readFile(tablesFile(paths, device))) === null) return null;
  const message = `filters of tc were deployed to ${device}, and it takes one kind at a time`;
  return errorAt('deploy/other-kind', message, { help: `undeploy --dev ${device} first` });
}

/** Writes the state down; null: there is nothing of ours any more. */
export async function writeTablesState(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  state: TablesState | null,
): Promise<void> {
  const file = tablesFile(paths, device);
  if (state === null) await transport.remove(file);
  else await transport.writeFile(file, new TextEncoder().encode(formatState(state)));
}

/** Deployments that are kept, the present one included. */
const KEPT = 5;

function recordFile(paths: DeployPaths, device: string, generation: number): string {
  return `${tablesDirectory(paths, device)}/${generation}.json`;
}

/** Generations that can be deployed again, the newest first. */
export async function listTables(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<readonly number[]> {
  return listGenerations(transport, tablesDirectory(paths, device));
}

/** Keeps what is deployed, and lets go of what was deployed long ago. */
export async function keepTables(
  transport: Transport,
  paths: DeployPaths,
  record: TablesRecord,
  generation: number,
): Promise<void> {
  const { device } = record;
  const content = new TextEncoder().encode(formatState(record));
  await transport.writeFile(recordFile(paths, device, generation), content);
  const kept = await listTables(transport, paths, device);
  for (const old of kept.slice(KEPT)) await forgetTables(transport, paths, device, old);
}

/** Removes what was kept of one deployment; none there is no error. */
export async function forgetTables(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<void> {
  await transport.remove(recordFile(paths, device, generation));
}

/** The filters that were deployed as that generation. */
export async function readTables(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<Result<TablesRecord>> {
  const text = await transport.readFile(recordFile(paths, device, generation));
  const parsed = recordSchema.safeParse(
    text === null ? null : parseJson(new TextDecoder().decode(text)),
  );
  if (parsed.success && parsed.data.device === device) return succeed(parsed.data);
  const message = `generation ${generation} of ${device} is not kept (any more)`;
  return fail(errorAt('deploy/no-generation', message, { help: '`status` lists those that are' }));
}
