import { z } from 'zod';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { parseJson } from './machine.ts';
import { type DeployPaths, stateFile } from './paths.ts';
import type { Transport } from './transport.ts';

/** 64-bit counts do not fit JSON numbers. */
const decimal = z
  .string()
  .regex(/^[0-9]{1,30}$/)
  .transform((text) => BigInt(text));

export const whole = z.number().int().nonnegative();

/** See `CounterOwner`. */
export const ownerSchema = z.object({
  family: z.enum(['ip', 'ip6', 'inet', 'arp', 'bridge', 'netdev']),
  table: z.string(),
  name: z.string().nullable(),
  chain: z.string().nullable(),
  handle: whole.nullable(),
  index: whole.nullable(),
});

export const modeSchema = z.enum(['native', 'generic', 'offload', 'offload-tc']);

/** See `CounterLayout`. */
export const counterLayoutSchema = z.object({
  map: z.string(),
  perCpu: z.boolean(),
  slotsPerEntry: z.number().int().positive(),
  slots: whole,
});

export type CounterLayoutJson = z.output<typeof counterLayoutSchema>;

/** See `SelfTestFrame`. */
export const selfTestSchema = z.object({
  /** As hex, from the destination address on. */
  frame: z.string().regex(/^([0-9a-f]{2}){14,}$/),
  /** Otherwise it is passed on. */
  drops: z.boolean(),
  /** What it adds to the program's counters. */
  counts: z.array(z.object({ slot: whole, packets: whole, bytes: whole })),
  /** The rule that decides it, for people. */
  rule: z.string(),
});

/** See `OwnerCount`. */
export const ownerCountSchema = z.object({
  owner: ownerSchema,
  count: z.object({ packets: decimal, bytes: decimal }),
});

const deploymentSchema = z.object({
  mode: modeSchema,
  /** Its directory below the device's pin directory. */
  generation: whole,
  /** The generation whose object it is; another one after going back to it. */
  origin: whole.default(0),
  programId: whole,
  /** We made the place for filters of tc, so it goes when the program goes. */
  ownQdisc: z.boolean().default(false),
  rulesetChecksum: z.string(),
  /** The generation of its tables, see `LiveProgram`; null where they cannot be changed. */
  tables: whole.nullable().default(null),
  /** Its tables are being changed, or a change of them failed: whether it was made is not known. */
  changing: z.boolean().default(false),
  layout: counterLayoutSchema.nullable(),
  /** Slot `i` of the counters counts for owner `i`. */
  owners: z.array(ownerSchema),
  /** What earlier programs counted. */
  carried: z.array(ownerCountSchema),
});

/** One program that was deployed. */
export type Deployment = z.output<typeof deploymentSchema>;

const stateSchema = z.object({
  format: z.literal('nft-offload/state@1'),
  device: z.string(),
  ifindex: whole,
  /** Changes with every boot. */
  bootId: z.string(),
  current: deploymentSchema,
  /**
   * Written before the switch from `previous` to `current`, null once its counts were taken over: a
   * session that dies in between leaves a program that is known to be ours, and no count is lost.
   */
  previous: deploymentSchema.nullable(),
});

/** What was deployed to a device; describes this boot only. */
export type DeployState = z.output<typeof stateSchema>;

/** Reads what a state file holds; `content` is null where there is none. */
export function parseState(
  content: string | null,
  file: string,
  device: string,
): Result<DeployState | null> {
  if (content === null) return succeed(null);
  const parsed = stateSchema.safeParse(parseJson(content));
  if (parsed.success && parsed.data.device === device) return succeed(parsed.data);
  const [issue] = parsed.error?.issues ?? [];
  const why =
    issue === undefined
      ? 'it is about another device'
      : `${issue.path.join('.')}: ${issue.message}`;
  return fail(
    errorAt('deploy/bad-state', `what was deployed to ${device} cannot be read back: ${why}`, {
      help: 'undeploy with --force removes what is left and starts afresh; carried counters are lost',
      place: { kind: 'file', file, line: null, column: null },
    }),
  );
}

/** Null when nothing was deployed to the device. */
export async function readState(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<Result<DeployState | null>> {
  const file = stateFile(paths, device);
  const content = await transport.readFile(file);
  return parseState(content === null ? null : new TextDecoder().decode(content), file, device);
}

/** The text of a state file. */
export function formatState(state: object): string {
  const text = JSON.stringify(
    state,
    (_key, value: unknown) => (typeof value === 'bigint' ? value.toString() : value),
    2,
  );
  return `${text}\n`;
}

export async function writeState(
  transport: Transport,
  paths: DeployPaths,
  state: DeployState,
): Promise<void> {
  const content = new TextEncoder().encode(formatState(state));
  await transport.writeFile(stateFile(paths, state.device), content);
}

export async function removeState(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<void> {
  await transport.remove(stateFile(paths, device));
}
