import { type Diagnostic, fail, type Result, succeed } from '../support/diagnostics.ts';
import { type AttachedProgram, type DeviceState, inspectDevice } from './attachment.ts';
import { listGenerations, readPinnedProgram } from './load.ts';
import { readBootId, warning } from './machine.ts';
import { NOTHING, type OwnerCount } from './owner-counts.ts';
import { type DeployPaths, generationPaths, mapPin } from './paths.ts';
import { readCounters, readSettledCounters } from './read-counters.ts';
import { type Deployment, type DeployState, readState } from './state.ts';
import type { Transport } from './transport.ts';

/** A device, what was deployed to it, and whose the programs on it are. */
export interface Survey {
  readonly device: DeviceState;
  /** Null when nothing was deployed since the machine started. */
  readonly state: DeployState | null;
  /** State that describes an earlier boot: its pins and counters are gone. */
  readonly outdated: DeployState | null;
  /** The program that is attached, recorded and pinned as ours. */
  readonly ours: AttachedProgram | null;
  readonly foreign: readonly AttachedProgram[];
  /** Numbers of the generations that are pinned. */
  readonly generations: readonly number[];
  readonly bootId: string;
}

/** With `force`, state that cannot be read counts as none, and what is pinned is ours all the same. */
export interface SurveyOptions {
  readonly force: boolean;
  /** The device may be gone (it then has no programs). */
  readonly missingDevice: boolean;
}

/** A switch that was begun and not finished did not happen when the program before is attached. */
function resolveSwitch(state: DeployState, programs: readonly AttachedProgram[]): DeployState {
  const { previous } = state;
  const kept = programs.some(
    ({ id, mode }) => id === previous?.programId && mode === previous.mode,
  );
  return previous !== null && kept ? { ...state, current: previous, previous: null } : state;
}

async function findOurs(
  transport: Transport,
  paths: DeployPaths,
  device: DeviceState,
  state: DeployState | null,
  pinned: readonly number[],
): Promise<AttachedProgram | null> {
  // Without state (only asked for when forced) any pinned generation will do.
  const generations = state === null ? pinned : [state.current.generation];
  for (const generation of generations) {
    const pin = generationPaths(paths, device.name, generation).program;
    const program = await readPinnedProgram(transport, pin);
    const attached = device.programs.find(({ id }) => id === program?.id);
    if (attached === undefined) continue;
    const recorded = state?.current ?? { programId: attached.id, mode: attached.mode };
    if (recorded.programId === attached.id && recorded.mode === attached.mode) return attached;
  }
  return null;
}

/** Looks at everything and changes nothing. */
export async function surveyDevice(
  transport: Transport,
  paths: DeployPaths,
  name: string,
  options: SurveyOptions,
): Promise<Result<Survey>> {
  const notices: Diagnostic[] = [];
  const inspected = await inspectDevice(transport, name);
  const gone =
    !inspected.ok && inspected.diagnostics.every(({ code }) => code === 'deploy/no-device');
  if (!inspected.ok && !(gone && options.missingDevice)) return inspected;
  const device = inspected.ok ? inspected.value : { name, ifindex: 0, programs: [] };
  const read = await readState(transport, paths, name);
  if (!read.ok) {
    if (!options.force) return read;
    notices.push(...read.diagnostics.map(({ code, message }) => warning(code, message)));
  }
  const bootId = await readBootId(transport);
  const recorded = read.ok ? read.value : null;
  const outdated = recorded !== null && recorded.bootId !== bootId ? recorded : null;
  const state =
    recorded === null || outdated !== null ? null : resolveSwitch(recorded, device.programs);
  const generations = await listGenerations(transport, paths, name);
  if (gone && recorded === null && read.ok && generations.length === 0) {
    return inspected.ok ? fail() : inspected;
  }
  if (gone)
    notices.push(warning('deploy/device-gone', `the device ${name} does not exist any more`));
  const trusted = state !== null || !read.ok ? generations : [];
  const ours = await findOurs(transport, paths, device, state, trusted);
  const foreign = device.programs.filter((program) => program !== ours);
  return succeed({ device, state, outdated, ours, foreign, generations, bootId }, notices);
}

/** What a deployment's slots hold, by owner. */
async function readOwnerCounts(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  deployment: Deployment,
  settled: boolean,
): Promise<Result<readonly OwnerCount[]>> {
  const { layout, owners, generation } = deployment;
  if (layout === null || layout.slots === 0) return succeed([]);
  const pin = mapPin(generationPaths(paths, device, generation), layout.map);
  const counts = await (settled ? readSettledCounters : readCounters)(transport, pin, layout);
  if (!counts.ok) return counts;
  return succeed(owners.map((owner, slot) => ({ owner, count: counts.value[slot] ?? NOTHING })));
}

/** Counts of the attached program, and of those before it. */
export interface SplitCounts {
  readonly now: readonly OwnerCount[];
  readonly before: readonly OwnerCount[];
}

/** What programs before the present one counted; what cannot be read is a warning. */
export async function collectBefore(
  transport: Transport,
  paths: DeployPaths,
  { current, previous, device }: DeployState,
  settled: boolean,
): Promise<Result<readonly OwnerCount[]>> {
  const carried = [...(previous?.carried ?? []), ...current.carried];
  if (previous === null) return succeed(carried);
  const last = await readOwnerCounts(transport, paths, device, previous, settled);
  if (last.ok) return succeed([...carried, ...last.value]);
  return succeed(
    carried,
    last.diagnostics.map(({ message }) => warning('deploy/counts-lost', message)),
  );
}

/** Everything that was counted so far; what cannot be read is a warning. `settled`: not in use now. */
export async function collectCounts(
  transport: Transport,
  paths: DeployPaths,
  state: DeployState,
  settled: boolean,
): Promise<Result<SplitCounts>> {
  const now = await readOwnerCounts(transport, paths, state.device, state.current, settled);
  const before = await collectBefore(transport, paths, state, settled);
  if (!before.ok) return before;
  const lost = now.ok ? [] : now.diagnostics;
  return succeed({ now: now.ok ? now.value : [], before: before.value }, [
    ...lost.map(({ message }) => warning('deploy/counts-lost', message)),
    ...before.diagnostics,
  ]);
}
