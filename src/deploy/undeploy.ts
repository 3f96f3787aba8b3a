import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import {
  type AttachedProgram,
  detachArgv,
  formatProgram,
  inspectDevice,
  removeQdiscArgv,
} from './attachment.ts';
import { withDevice } from './deploy.ts';
import { runStep, warning } from './machine.ts';
import { type CounterOwner, sumByOwner } from './owner-counts.ts';
import {
  type DeployPaths,
  deployPaths,
  historyDirectory,
  objectFile,
  optionsFile,
  pinDirectory,
  selfTestDirectory,
  trialDirectory,
  watchDirectory,
} from './paths.ts';
import { removeState } from './state.ts';
import { type CountJson, countJson } from './status.ts';
import { collectCounts, type Survey, surveyDevice } from './survey.ts';
import type { TablesMode } from './tables-filters.ts';
import type { Transport } from './transport.ts';
import { claimTrial, readTrial } from './trial.ts';

export interface UndeployRequest {
  readonly device: string;
  /** Go on where the state cannot be read. */
  readonly force: boolean;
}

/** Filters of tc that were taken off. */
export interface RemovedTables {
  readonly mode: TablesMode;
  readonly filters: number;
}

/** What was done; can be written as JSON. */
export interface UndeployReport {
  readonly format: 'nft-offload/undeploy@1';
  readonly device: string;
  /** Null when no program of ours was attached. */
  readonly removed: AttachedProgram | RemovedTables | null;
  /** Other programs, which were left alone. */
  readonly left: readonly AttachedProgram[];
  /** What had been counted in all, since it is kept nowhere from now on. */
  readonly counters: readonly (CounterOwner & { readonly hardware: CountJson })[];
}

function describe(survey: Survey): readonly Diagnostic[] {
  const { device, ours, foreign, state } = survey;
  if (ours !== null) return [];
  if (foreign.length === 0) {
    return [warning('deploy/nothing-attached', `no program of ours is attached to ${device.name}`)];
  }
  const programs = foreign.map(formatProgram).join(' and ');
  const instead = state === null ? '' : ' instead of ours';
  const message = `${device.name} has the ${programs}${instead}, which stays`;
  return [warning('deploy/foreign-program', message)];
}

async function undeployLocked(
  transport: Transport,
  request: UndeployRequest,
  paths: DeployPaths,
): Promise<Result<UndeployReport>> {
  const { device, force } = request;
  const trial = await readTrial(transport, paths, device);
  // From here on the machine does not put anything back by itself.
  if (trial.kind === 'waiting') await claimTrial(transport, paths, device, trial.generation);
  const surveyed = await surveyDevice(transport, paths, device, { force, missingDevice: true });
  if (!surveyed.ok) return surveyed;
  const survey = surveyed.value;
  if (survey.ours !== null) {
    const what = `take ${formatProgram(survey.ours)} off ${device}`;
    const argv = detachArgv(device, survey.ours.mode);
    const detached = await runStep(transport, 'deploy/detach-failed', what, argv);
    if (!detached.ok) return detached;
    // `ip` also succeeds where nothing was removed.
    const after = await inspectDevice(transport, device);
    if (after.ok && after.value.programs.some(({ id }) => id === survey.ours?.id)) {
      return fail(errorAt('deploy/detach-failed', `cannot ${what}: it is still there`));
    }
  }
  const { state } = survey;
  if (state?.current.ownQdisc === true) await transport.run(removeQdiscArgv(device));
  const counts =
    state === null
      ? succeed({ now: [], before: [] })
      : await collectCounts(transport, paths, state, true);
  if (!counts.ok) return counts;
  const sums = sumByOwner([...counts.value.now, ...counts.value.before]);
  const kept = [
    // The guard ends when its directory is gone.
    watchDirectory(paths, device),
    optionsFile(paths, device),
    pinDirectory(paths, device),
    trialDirectory(paths, device),
    historyDirectory(paths, device),
    selfTestDirectory(paths, device),
  ];
  await transport.run(['rm', '-rf', '--one-file-system', '--', ...kept]);
  // Only when this was the last device.
  await transport.run(['rmdir', '--ignore-fail-on-non-empty', `${paths.bpffs}/nft-offload`]);
  await removeState(transport, paths, device);
  await transport.remove(objectFile(paths, device));
  const report: UndeployReport = {
    format: 'nft-offload/undeploy@1',
    device,
    removed: survey.ours,
    left: survey.foreign,
    counters: sums.map(({ owner, count }) => ({ ...owner, hardware: countJson(count) })),
  };
  const notices = [...surveyed.diagnostics, ...describe(survey), ...counts.diagnostics];
  return succeed(report, notices);
}

/** Takes our program off, with its pins and state; programs of others stay where they are. */
export async function undeployXdp(
  transport: Transport,
  request: UndeployRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<UndeployReport>> {
  return withDevice(transport, paths, request.device, () =>
    undeployLocked(transport, request, paths),
  );
}
