import type { CounterLayout } from '../backends/backend.ts';
import type { Counter } from '../ir/classifier.ts';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { type AttachedProgram, detachArgv, formatProgram, type XdpMode } from './attachment.ts';
import { checkDeviceName } from './device-name.ts';
import { foldGoneRules } from './gone-rules.ts';
import { type LoadedProgram, loadGeneration, removeGeneration } from './load.ts';
import { withDeviceLock } from './lock.ts';
import { checkMachine, mountBpffs, warning } from './machine.ts';
import { carryCounts, ownerOf } from './owner-counts.ts';
import { type DeployPaths, deployPaths, generationPaths } from './paths.ts';
import { type DeployState, removeState, writeState } from './state.ts';
import { collectCounts, type Survey, surveyDevice } from './survey.ts';
import { planSwitch, type SwitchPlan, switchProgram } from './switch-program.ts';
import type { Transport } from './transport.ts';

/** A compiled program and where it goes. */
export interface DeployRequest {
  readonly device: string;
  readonly mode: XdpMode;
  /** A relocatable object that holds one program for the mode. */
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
export function reviewSwitch(plan: SwitchPlan, survey: Survey, force: boolean): Result<null> {
  const foreign = refuseForeign(plan, survey.ours);
  const objections = foreign.length > 0 ? foreign : refuseModeChange(plan);
  if (objections.length > 0 && !force) return fail(...objections);
  return succeed(
    null,
    objections.map(({ code, message }) => warning(code, message)),
  );
}

/** The state while the switch is under way. */
function beginState(
  request: DeployRequest,
  survey: Survey,
  before: DeployState | null,
  generation: number,
  program: LoadedProgram,
): DeployState {
  return {
    format: 'nft-offload/state@1',
    device: request.device,
    ifindex: survey.device.ifindex,
    bootId: survey.bootId,
    current: {
      mode: request.mode,
      generation,
      programId: program.id,
      rulesetChecksum: request.rulesetChecksum,
      layout: request.counters,
      owners: request.counterOwners.map(ownerOf),
      carried: [],
    },
    previous: before?.current ?? null,
  };
}

/** Takes over the counts of the program before; what cannot be read is said. */
async function finishSwitch(
  transport: Transport,
  paths: DeployPaths,
  state: DeployState,
): Promise<Result<DeployState>> {
  const counts = await collectCounts(transport, paths, state, true);
  if (!counts.ok) return counts;
  const { current } = state;
  const all = carryCounts(counts.value.before, current.owners);
  const carried = [...(await foldGoneRules(transport, all, current.owners))];
  const finished: DeployState = { ...state, current: { ...current, carried }, previous: null };
  await writeState(transport, paths, finished);
  return succeed(finished, counts.diagnostics);
}

/** Attached and recorded, or neither. */
async function switchAndRecord(
  transport: Transport,
  paths: DeployPaths,
  plan: SwitchPlan,
  before: DeployState | null,
  begun: DeployState,
): Promise<Result<null>> {
  const { device } = plan;
  const { generation, programId } = begun.current;
  try {
    await writeState(transport, paths, begun);
  } catch (error) {
    await removeGeneration(transport, paths, device, generation);
    throw error;
  }
  const target = generationPaths(paths, device, generation);
  const switched = await switchProgram(transport, plan, target, programId);
  if (!switched.ok) {
    if (before === null) await removeState(transport, paths, device);
    else await writeState(transport, paths, before);
    await removeGeneration(transport, paths, device, generation);
    return switched;
  }
  const finished = await finishSwitch(transport, paths, begun);
  return finished.ok ? succeed(null, finished.diagnostics) : finished;
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

  const { state } = survey;
  // An earlier session may have died in the middle.
  const settled =
    state === null || state.previous === null
      ? succeed(state)
      : await finishSwitch(transport, paths, state);
  if (!settled.ok) return settled;
  const generation = Math.max(0, ...survey.generations) + 1;
  const loaded = await loadGeneration(transport, paths, request, generation);
  if (!loaded.ok) return loaded;
  const begun = beginState(request, survey, settled.value, generation, loaded.value);
  const done = await switchAndRecord(transport, paths, plan, settled.value, begun);
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
  return succeed(report, [
    ...surveyed.diagnostics,
    ...reviewed.diagnostics,
    ...settled.diagnostics,
    ...done.diagnostics,
  ]);
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
