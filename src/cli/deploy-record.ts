import { z } from 'zod';
import { STRUCTURES } from '../backends/backend.ts';
import { parseJson } from '../deploy/machine.ts';
import { type DeployPaths, deployPaths, optionsFile } from '../deploy/paths.ts';
import { modeSchema } from '../deploy/state.ts';
import type { Transport } from '../deploy/transport.ts';
import { CONCESSIONS } from '../ir/concede.ts';
import type { Profile } from '../profile/schema.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import type { RequestOptions } from './deploy-request.ts';
import type { SituationOptions } from './options.ts';
import { readTextFile } from './read-file.ts';

/** Options that say which program a deployment makes of a ruleset. */
export type PlanningOptions = SituationOptions & Pick<RequestOptions, 'mode'>;

const portSchema = z.number().int().min(0).max(65_535);

const recordSchema = z.object({
  format: z.literal('nft-offload/options@1'),
  mode: modeSchema,
  /** The text of the profile's file, so that it need not be there again. */
  profile: z.string(),
  /** Every `--fact`, as it was given. */
  fact: z.array(z.string()),
  /** The text of the `--facts` file, or null. */
  facts: z.string().nullable(),
  concessions: z.array(
    z.string().refine((name): name is keyof typeof CONCESSIONS => Object.hasOwn(CONCESSIONS, name)),
  ),
  replyPorts: z.array(z.object({ from: portSchema, to: portSchema })).nullable(),
  structure: z.enum(STRUCTURES),
  /** Connection tracking knew no flow from before this ruleset. */
  fresh: z.boolean(),
});

/** What a deployment was made with; kept on the machine for `watch`. */
export type DeployRecord = z.output<typeof recordSchema>;

/** The record of a deployment with these options. */
export async function recordOf(
  profile: Profile,
  options: PlanningOptions,
  fresh: boolean,
): Promise<Result<DeployRecord>> {
  const { mode, fact, facts, concede, structure = 'auto' } = options;
  const text =
    facts === undefined ? null : await readTextFile(facts, 'facts/unreadable', 'the facts');
  if (text !== null && !text.ok) return text;
  return succeed({
    format: 'nft-offload/options@1',
    ...{ mode, profile: JSON.stringify(profile), fact: [...fact], facts: text?.value ?? null },
    concessions: [...concede.concessions],
    replyPorts: concede.replyPorts === null ? null : [...concede.replyPorts],
    ...{ structure, fresh },
  });
}

export async function writeRecord(
  transport: Transport,
  device: string,
  record: DeployRecord,
  paths: DeployPaths = deployPaths(),
): Promise<void> {
  const text = `${JSON.stringify(record, null, 2)}\n`;
  await transport.writeFile(optionsFile(paths, device), new TextEncoder().encode(text));
}

/** Null where nothing is deployed. */
export async function readRecord(
  transport: Transport,
  device: string,
  paths: DeployPaths = deployPaths(),
): Promise<Result<DeployRecord | null>> {
  const file = optionsFile(paths, device);
  const text = await transport.readFile(file);
  if (text === null) return succeed(null);
  const parsed = recordSchema.safeParse(parseJson(new TextDecoder().decode(text)));
  if (parsed.success) return succeed(parsed.data);
  const message = `what ${device} was deployed with cannot be read back`;
  const place = { kind: 'file', file, line: null, column: null } as const;
  return fail(errorAt('deploy/bad-options', message, { place, help: 'deploy once more' }));
}
