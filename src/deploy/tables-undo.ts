import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { removeQdiscArgv } from './attachment.ts';
import type { ConfirmReport } from './confirm.ts';
import { runStep } from './machine.ts';
import { sumByOwner } from './owner-counts.ts';
import { type DeployPaths, deployPaths, tablesDirectory } from './paths.ts';
import type { RollbackReport, RollbackRequest } from './rollback.ts';
import { countJson } from './status.ts';
import { deployTablesLocked } from './tables.ts';
import { chainOf, emptyArgv, enteredChain, leaveArgv } from './tables-filters.ts';
import { listTables, readTables, readTablesState, writeTablesState } from './tables-state.ts';
import { finishTables, readTableCounts, surveyTables, withTables } from './tables-survey.ts';
import type { Transport } from './transport.ts';
import { claimTrial, endTrial, forgetTrials, readTrial } from './trial.ts';
import type { UndeployReport, UndeployRequest } from './undeploy.ts';

/** Whether filters were deployed to the device, as far as the record says; the others are programs. */
async function hasTables(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<boolean> {
  const read = await readTablesState(transport, paths, device);
  return !read.ok || read.value !== null;
}

async function undeployLocked(
  transport: Transport,
  { device, force }: UndeployRequest,
  paths: DeployPaths,
): Promise<Result<UndeployReport>> {
  const trial = await readTrial(transport, paths, device);
  // From here on the machine does not put anything back by itself.
  if (trial.kind === 'waiting') await claimTrial(transport, paths, device, trial.generation);
  const surveyed = await surveyTables(transport, paths, device, force);
  if (!surveyed.ok) return surveyed;
  const { state, filters, isEntered } = surveyed.value;
  const entered = enteredChain(filters);
  if (isEntered || (force && entered !== null)) {
    const what = `take the filters off ${device}`;
    const left = await runStep(transport, 'deploy/detach-failed', what, leaveArgv(device));
    if (!left.ok) return left;
  }
  const deployments = state === null ? [] : [state.current, state.previous ?? state.current];
  const counts = [...(state?.carried ?? [])];
  for (const deployment of new Set(deployments)) {
    const own = await readTableCounts(transport, paths, device, deployment, filters);
    if (own.ok) counts.push(...own.value);
    await transport.run(emptyArgv(device, deployment.generation));
  }
  if (force && entered !== null) await transport.run(emptyArgv(device, entered - chainOf(0)));
  if (state?.current.ownQdisc === true) await transport.run(removeQdiscArgv(device));
  await writeTablesState(transport, paths, device, null);
  await forgetTrials(transport, paths, device);
  const kept = tablesDirectory(paths, device);
  await transport.run(['rm', '-rf', '--one-file-system', '--', kept]);
  const chain = state === null ? entered : chainOf(state.current.generation);
  const removed =
    isEntered && state !== null
      ? {
          mode: state.current.mode,
          filters: filters.filter((one) => one.chain === chain).length,
        }
      : null;
  const report: UndeployReport = {
    format: 'nft-offload/undeploy@1',
    ...{ device, removed, left: [] },
    counters: sumByOwner(counts).map(({ owner, count }) => ({
      ...owner,
      hardware: countJson(count),
    })),
  };
  return succeed(report, surveyed.diagnostics);
}

/** Takes our filters off, with their state; null where none were deployed. */
export async function undeployTables(
  transport: Transport,
  request: UndeployRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<UndeployReport> | null> {
  const { device } = request;
  if (!(await hasTables(transport, paths, device))) return null;
  return withTables(transport, paths, device, () => undeployLocked(transport, request, paths));
}

/** Ends a deployment of filters that was not confirmed, and says what there is then. */
async function takeBack(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<Result<number | null>> {
  const ended = await endTrial(transport, paths, device, generation);
  if (!ended.ok) return ended;
  const surveyed = await surveyTables(transport, paths, device, false);
  if (!surveyed.ok) return surveyed;
  const { state } = surveyed.value;
  const cleaned = state === null ? succeed(null) : await finishTables(transport, paths, state);
  if (!cleaned.ok) return cleaned;
  await forgetTrials(transport, paths, device);
  return succeed(state?.current.origin ?? null, cleaned.diagnostics);
}

async function rollbackLocked(
  transport: Transport,
  { device, to }: RollbackRequest,
  paths: DeployPaths,
): Promise<Result<RollbackReport>> {
  const read = await readTablesState(transport, paths, device);
  if (!read.ok) return read;
  const from = read.value?.current.origin ?? null;
  const report = { format: 'nft-offload/rollback@1', device, from } as const;
  const trial = await readTrial(transport, paths, device);
  if (to === null && (trial.kind === 'waiting' || trial.kind === 'claimed')) {
    const back = await takeBack(transport, paths, device, trial.generation);
    return back.ok ? succeed({ ...report, to: back.value }, back.diagnostics) : back;
  }
  const kept = await listTables(transport, paths, device);
  const target = to ?? kept.find((generation) => generation < (from ?? 0));
  if (target === undefined) {
    const message = `${device}: nothing that was deployed before is kept`;
    const help = 'undeploy takes the filters off; nftables then decides everything';
    return fail(errorAt('deploy/no-generation', message, { help }));
  }
  const record = await readTables(transport, paths, device, target);
  if (!record.ok) return record;
  const { format: _, ...again } = record.value;
  const request = { ...again, basis: null, origin: target, confirm: null };
  const deployed = await deployTablesLocked(transport, request, paths);
  return deployed.ok ? succeed({ ...report, to: target }, deployed.diagnostics) : deployed;
}

/** Goes back: out of a deployment that is not confirmed, else to one that is kept; null: no filters. */
export async function rollbackTables(
  transport: Transport,
  request: RollbackRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<RollbackReport> | null> {
  const { device } = request;
  if (!(await hasTables(transport, paths, device))) return null;
  return withTables(transport, paths, device, () => rollbackLocked(transport, request, paths));
}

async function confirmLocked(
  transport: Transport,
  device: string,
  paths: DeployPaths,
): Promise<Result<ConfirmReport>> {
  const trial = await readTrial(transport, paths, device);
  if (trial.kind === 'none') {
    const message = `${device}: nothing waits to be confirmed`;
    return fail(errorAt('deploy/nothing-to-confirm', message));
  }
  const { generation } = trial;
  const isKept =
    trial.kind === 'waiting' && (await claimTrial(transport, paths, device, generation));
  if (!isKept) {
    const back =
      trial.kind === 'rolled-back'
        ? succeed(null)
        : await takeBack(transport, paths, device, generation);
    if (!back.ok) return back;
    const message = `${device}: too late, generation ${generation} was taken back already`;
    const help = 'deploy again, with more time to confirm';
    return fail(errorAt('deploy/too-late', message, { help }));
  }
  const surveyed = await surveyTables(transport, paths, device, false);
  if (!surveyed.ok) return surveyed;
  const { state } = surveyed.value;
  const finished = state === null ? succeed(null) : await finishTables(transport, paths, state);
  if (!finished.ok) return finished;
  await forgetTrials(transport, paths, device);
  const report = { format: 'nft-offload/confirm@1', device, generation } as const;
  return succeed(report, finished.diagnostics);
}

/** Keeps filters that the machine would take back by itself; null where none were deployed. */
export async function confirmTables(
  transport: Transport,
  { device }: { readonly device: string },
  paths: DeployPaths = deployPaths(),
): Promise<Result<ConfirmReport> | null> {
  if (!(await hasTables(transport, paths, device))) return null;
  return withTables(transport, paths, device, () => confirmLocked(transport, device, paths));
}
