import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { cleanUp } from './confirm.ts';
import { deployLocked, withDevice } from './deploy.ts';
import { listKept, readKept } from './history.ts';
import { removeGeneration } from './load.ts';
import { mountBpffs } from './machine.ts';
import { type DeployPaths, deployPaths } from './paths.ts';
import { readState } from './state.ts';
import { surveyDevice } from './survey.ts';
import type { Transport } from './transport.ts';
import { endTrial, forgetTrials, readTrial } from './trial.ts';

export interface RollbackRequest {
  readonly device: string;
  /** The generation to go back to; null for the one before. */
  readonly to: number | null;
  /** Accept a gap where the mode changes, and programs of others. */
  readonly force: boolean;
}

/** What was done; can be written as JSON. */
export interface RollbackReport {
  readonly format: 'nft-offload/rollback@1';
  readonly device: string;
  /** What was attached, and is not any more; null when nothing of ours was. */
  readonly from: number | null;
  /** The generation whose program is attached now; null when none of ours is. */
  readonly to: number | null;
}

/** Ends a deployment that was not confirmed. */
async function takeBack(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<Result<RollbackReport>> {
  const ended = await endTrial(transport, paths, device, generation);
  if (!ended.ok) return ended;
  const options = { force: false, missingDevice: true };
  const surveyed = await surveyDevice(transport, paths, device, options);
  if (!surveyed.ok) return surveyed;
  const { state } = surveyed.value;
  const cleaned =
    state === null
      ? succeed(await removeGeneration(transport, paths, device, generation))
      : await cleanUp(transport, paths, surveyed.value);
  if (!cleaned.ok) return cleaned;
  await forgetTrials(transport, paths, device);
  const to = state?.current.origin ?? null;
  return succeed({ format: 'nft-offload/rollback@1', device, from: generation, to }, [
    ...surveyed.diagnostics,
    ...cleaned.diagnostics,
  ]);
}

/** Deploys again what was deployed before. */
async function deployKept(
  transport: Transport,
  paths: DeployPaths,
  { device, to, force }: RollbackRequest,
): Promise<Result<RollbackReport>> {
  const state = await readState(transport, paths, device);
  if (!state.ok) return state;
  const from = state.value?.current ?? null;
  const kept = await listKept(transport, paths, device);
  const before = kept.find((generation) => generation < (from?.origin ?? 0));
  const target = to ?? before;
  if (target === undefined) {
    const message = `${device}: nothing that was deployed before is kept`;
    const help = 'undeploy takes the program off; nftables then decides everything';
    return fail(errorAt('deploy/no-generation', message, { help }));
  }
  const request = await readKept(transport, paths, device, target);
  if (!request.ok) return request;
  const deployed = await deployLocked(transport, { ...request.value, force }, paths);
  if (!deployed.ok) return deployed;
  const report = { format: 'nft-offload/rollback@1', device, from: from?.origin ?? null } as const;
  return succeed({ ...report, to: target }, deployed.diagnostics);
}

/** Goes back: out of a deployment that is not confirmed, else to one that is kept. */
export async function rollbackXdp(
  transport: Transport,
  request: RollbackRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<RollbackReport>> {
  const { device, to } = request;
  return withDevice(transport, paths, device, async () => {
    const mounted = await mountBpffs(transport, paths.bpffs);
    if (!mounted.ok) return mounted;
    const trial = await readTrial(transport, paths, device);
    if (to === null && (trial.kind === 'waiting' || trial.kind === 'claimed')) {
      return takeBack(transport, paths, device, trial.generation);
    }
    return deployKept(transport, paths, request);
  });
}
