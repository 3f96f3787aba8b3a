import type { CounterLayout } from '../backends/backend.ts';
import type { Counter } from '../ir/classifier.ts';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { type AttachedProgram, detachArgv, formatProgram, type XdpMode } from './attachment.ts';
import { checkDeviceName } from './device-name.ts';
import { type LoadedProgram, loadGeneration, removeGeneration } from './load.ts';
import { withDeviceLock } from './lock.ts';
import { checkMachine, mountBpffs, warning } from './machine.ts';
import { carryCounts, ownerOf } from './owner-counts.ts';
import { type DeployPaths, deployPaths, generationPaths } from './paths.ts';
import { type DeployState, writeState } from './state.ts';
import { readOwnerCounts, type Survey, surveyDevice } from './survey.ts';
import { planSwitch, type SwitchPlan, switchProgram, undoSwitch } from './switch-program.ts';
import type { Transport } from './transport.ts';

/** A compiled program and where it goes. */
export interface DeployRequest {
  readonly device: string;
  readonly mode: XdpMode;
  /** A relocatable object whose section `xdp` holds one program. */
  readonly elf: Uint8Array;
  /** That program's symbol. */
  readonly program: string;
  /** bpftool batch commands (`map update name NAME ...`) that fill its maps, or null for none. */
  readonly maps: string | null;
  /** Null for a program that counts nothing. */
  readonly counters: CounterLayout | null;
  /** Slot `i` of the counters counts for owner `i`. */
  readonly counterOwners: readonly Counter[];
  readonly rulesetChecksum: string;
  /** Replace programs that are not ours, state that cannot be read, and change the mode. */
  readonly force: boolean;
}

/** What was done; can be written as JSON. */
export interface DeployReport {
  readonly format: 'nft-offload/deploy@1';
  readonly device: string;
  readonly mode: XdpMode;
  readonly programId: number;
  readonly generation: number;
  readonly rulesetChecksum: string;
  /** Programs that are not attached any more. */
  readonly replaced: readonly AttachedProgram[];
  /** No frame met the device without a program. */
  readonly atomic: boolean;
}

function refuseForeign(plan: SwitchPlan, ours: AttachedProgram | null): readonly Diagnostic[] {
  const inTheWay = [plan.replaces, plan.displaces].filter((program) => program !== null);
  return inTheWay
    .filter((program) => program !== ours)
    .map((program) =>
      errorAt(
        'deploy/foreign-program',
        `${plan.device} has the ${formatProgram(program)}, which nft-offload did not attach`,
        { help: 'remove it with the program it belongs to, or replace it with --force' },
      ),
    );
}

function refuseModeChange(plan: SwitchPlan): readonly Diagnostic[] {
  const { device, mode, displaces } = plan;
  if (displaces === null) return [];
  const message = `${device} changes from ${displaces.mode} to ${mode} mode, and the kernel has no way to do that in one step: frames that arrive meanwhile meet no program`;
  const help = `keep --mode ${displaces.mode}, or accept the gap with --force`;
  return [errorAt('deploy/mode-change', message, { help })];
}

/** What stands against the switch; with --force it is said and done. */
function reviewSwitch(plan: SwitchPlan, survey: Survey, force: boolean): Result<null> {
  const foreign = refuseForeign(plan, survey.ours);
  const objections = foreign.length > 0 ? foreign : refuseModeChange(plan);
  if (objections.length > 0 && !force) return fail(...objections);
  return succeed(
    null,
    objections.map(({ code, message }) => warning(code, message)),
  );
}

function newState(
  request: DeployRequest,
  survey: Survey,
  generation: number,
  program: LoadedProgram,
): DeployState {
  return {
    format: 'nft-offload/state@1',
    device: request.device,
    ifindex: survey.device.ifindex,
    bootId: survey.bootId,
    mode: request.mode,
    generation,
    programId: program.id,
    rulesetChecksum: request.rulesetChecksum,
    layout: request.counters,
    owners: request.counterOwners.map(ownerOf),
    carried: [],
  };
}

/** The new state with the counts of the program before; what cannot be read is said. */
async function carryState(
  transport: Transport,
  paths: DeployPaths,
  old: DeployState | null,
  next: DeployState,
): Promise<Result<DeployState>> {
  if (old === null) return succeed(next);
  const counted = await readOwnerCounts(transport, paths, old, true);
  const last = counted.ok ? counted.value : [];
  const lost = counted.ok
    ? []
    : counted.diagnostics.map(({ message }) => warning('deploy/counts-lost', message));
  const carried = [...carryCounts([...old.carried, ...last], next.owners)];
  return succeed({ ...next, carried }, lost);
}

/** Attached and recorded, or neither. */
async function switchAndRecord(
  transport: Transport,
  paths: DeployPaths,
  plan: SwitchPlan,
  survey: Survey,
  next: DeployState,
): Promise<Result<null>> {
  const target = generationPaths(paths, plan.device, next.generation);
  const switched = await switchProgram(transport, plan, target, next.programId);
  if (!switched.ok) return switched;
  const { state } = survey;
  try {
    const carried = await carryState(transport, paths, state, next);
    if (!carried.ok) return carried;
    await writeState(transport, paths, carried.value);
    return succeed(null, carried.diagnostics);
  } catch (error) {
    const previous =
      state === null ? null : generationPaths(paths, plan.device, state.generation).program;
    await undoSwitch(transport, plan, target, previous);
    throw error;
  }
}

async function deployLocked(
  transport: Transport,
  request: DeployRequest,
  paths: DeployPaths,
): Promise<Result<DeployReport>> {
  const { device, mode, force } = request;
  const options = { force, missingDevice: false };
  const surveyed = await surveyDevice(transport, paths, device, options);
  if (!surveyed.ok) return surveyed;
  const survey = surveyed.value;
  const plan = planSwitch(device, mode, survey.device.programs);
  const reviewed = reviewSwitch(plan, survey, force);
  if (!reviewed.ok) return reviewed;

  const generation = Math.max(0, survey.state?.generation ?? 0, ...survey.generations) + 1;
  const loaded = await loadGeneration(transport, paths, request, generation);
  if (!loaded.ok) return loaded;
  const next = newState(request, survey, generation, loaded.value);
  let done: Result<null> | null = null;
  try {
    done = await switchAndRecord(transport, paths, plan, survey, next);
  } finally {
    if (!done?.ok) await removeGeneration(transport, paths, device, generation);
  }
  if (!done.ok) return done;

  // Beside a program in the NIC another one may run, so one of ours may still be there.
  const beside = survey.ours !== null && survey.ours.mode !== mode && plan.displaces === null;
  if (survey.ours !== null && beside) await transport.run(detachArgv(device, survey.ours.mode));
  for (const old of survey.generations) await removeGeneration(transport, paths, device, old);
  await transport.run(['rm', '-f', '--', generationPaths(paths, device, generation).displaced]);
  const replaced = [plan.replaces, plan.displaces, beside ? survey.ours : null];
  const report: DeployReport = {
    format: 'nft-offload/deploy@1',
    device,
    mode,
    programId: loaded.value.id,
    generation,
    rulesetChecksum: request.rulesetChecksum,
    replaced: replaced.filter((program) => program !== null),
    atomic: plan.displaces === null,
  };
  return succeed(report, [...surveyed.diagnostics, ...reviewed.diagnostics, ...done.diagnostics]);
}

/**
 * Loads the program beside the one that runs, fills its maps, and only then exchanges the two in one
 * step. When anything fails before that, the old one goes on and nothing of the new one stays.
 */
export async function deployXdp(
  transport: Transport,
  request: DeployRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<DeployReport>> {
  const bad = checkDeviceName(request.device);
  if (bad !== null) return fail(bad);
  const missing = await checkMachine(transport, ['ip', 'bpftool']);
  if (missing.length > 0) return fail(...missing);
  const mounted = await mountBpffs(transport, paths.bpffs);
  if (!mounted.ok) return mounted;
  return withDeviceLock(transport, paths, request.device, () =>
    deployLocked(transport, request, paths),
  );
}
