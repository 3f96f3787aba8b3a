import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { settleState, withDevice } from './deploy.ts';
import { removeGeneration } from './load.ts';
import { type DeployPaths, deployPaths, generationPaths } from './paths.ts';
import { type Survey, surveyDevice } from './survey.ts';
import type { Transport } from './transport.ts';
import { claimTrial, endTrial, forgetTrials, readTrial } from './trial.ts';

/** What was done; can be written as JSON. */
export interface ConfirmReport {
  readonly format: 'nft-offload/confirm@1';
  readonly device: string;
  readonly generation: number;
}

function tooLate(device: string, generation: number): Result<never> {
  const message = `${device}: too late, generation ${generation} was taken back already`;
  return fail(
    errorAt('deploy/too-late', message, { help: 'deploy again, with more time to confirm' }),
  );
}

/** Takes over the counts of programs that are not attached any more, and unpins these. */
export async function cleanUp(
  transport: Transport,
  paths: DeployPaths,
  survey: Survey,
): Promise<Result<null>> {
  const settled = await settleState(transport, paths, survey);
  if (!settled.ok) return settled;
  const device = survey.device.name;
  const current = settled.value?.current.generation ?? 0;
  for (const old of survey.generations) {
    if (old !== current) await removeGeneration(transport, paths, device, old);
  }
  await transport.run(['rm', '-f', '--', generationPaths(paths, device, current).displaced]);
  return succeed(null, settled.diagnostics);
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
  if (trial.kind === 'rolled-back') return tooLate(device, generation);
  if (trial.kind === 'claimed' || !(await claimTrial(transport, paths, device, generation))) {
    const ended = await endTrial(transport, paths, device, generation);
    return ended.ok ? tooLate(device, generation) : ended;
  }
  const surveyed = await surveyDevice(transport, paths, device, {
    force: false,
    missingDevice: false,
  });
  if (!surveyed.ok) return surveyed;
  const cleaned = await cleanUp(transport, paths, surveyed.value);
  if (!cleaned.ok) return cleaned;
  await forgetTrials(transport, paths, device);
  return succeed({ format: 'nft-offload/confirm@1', device, generation }, [
    ...surveyed.diagnostics,
    ...cleaned.diagnostics,
  ]);
}

/** Keeps a deployment that the machine would take back by itself. */
export async function confirmXdp(
  transport: Transport,
  { device }: { readonly device: string },
  paths: DeployPaths = deployPaths(),
): Promise<Result<ConfirmReport>> {
  return withDevice(transport, paths, device, () => confirmLocked(transport, device, paths));
}
