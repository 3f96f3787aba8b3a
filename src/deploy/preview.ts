import { fail, type Result, succeed } from '../support/diagnostics.ts';
import { formatProgram } from './attachment.ts';
import { basisOf, type Changes, findChanges } from './changes.ts';
import { type DeployRequest, reviewSwitch } from './deploy.ts';
import { readKept } from './history.ts';
import { fitsInPlace } from './in-place.ts';
import { bindMaps } from './load.ts';
import { checkMachine } from './machine.ts';
import { type DeployPaths, deployPaths, generationPaths } from './paths.ts';
import { canSelfTest } from './self-test.ts';
import { surveyDevice } from './survey.ts';
import { planSwitch } from './switch-program.ts';
import type { Transport } from './transport.ts';

/** What `deployXdp` would do now; can be written as JSON. */
export interface DeployPreview {
  readonly format: 'nft-offload/deploy-preview@1';
  readonly device: string;
  /** One sentence a step, in order. */
  readonly steps: readonly string[];
  /** What is different from what is deployed; null when nothing of ours is, or it is not known. */
  readonly changes: Changes | null;
  /** For `deploy --basis`: it refuses when the device is not any more as it is now. */
  readonly basis: string;
}

/** Looks at the machine as `deployXdp` would, refuses what it would refuse, and changes nothing. */
export async function previewDeploy(
  transport: Transport,
  request: DeployRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<DeployPreview>> {
  const { device, mode, force, elf } = request;
  const missing = await checkMachine(transport, ['ip', 'bpftool']);
  if (missing.length > 0) return fail(...missing);
  const surveyed = await surveyDevice(transport, paths, device, { force, missingDevice: false });
  if (!surveyed.ok) return surveyed;
  const { programs } = surveyed.value.device;
  const plan = planSwitch(device, mode, programs);
  const reviewed = reviewSwitch(plan, surveyed.value, force);
  if (!reviewed.ok) return reviewed;
  const generation = Math.max(0, ...surveyed.value.generations) + 1;
  const target = generationPaths(paths, device, generation);
  const maps = bindMaps(request.maps ?? '', target);
  if (!maps.ok) return maps;
  const updates = maps.value.split('\n').length - 1;
  const { replaces, displaces } = plan;
  const inPlace = fitsInPlace(request, surveyed.value, surveyed.value.state);
  const steps = inPlace
    ? [
        `store ${request.update?.patch.words.length} words in the tables of the program that runs`,
        'make them visible, in one step',
      ]
    : [
        `load the program (${elf.length} bytes) and pin it in ${target.directory}`,
        ...(updates === 0 ? [] : [`fill its maps (${updates} updates)`]),
        ...(canSelfTest(request) ? [`try it out with ${request.frames.length} frames`] : []),
        ...(displaces === null ? [] : [`take the ${formatProgram(displaces)} off ${device}`]),
        replaces === null
          ? `attach it to ${device} in ${mode} mode`
          : `attach it to ${device} in place of the ${formatProgram(replaces)}, in one step`,
        ...(surveyed.value.ours === null
          ? []
          : ['keep the counts of the program before, and unpin it']),
      ];
  const { state } = surveyed.value;
  const before =
    state === null ? null : await readKept(transport, paths, device, state.current.origin);
  const report: DeployPreview = {
    format: 'nft-offload/deploy-preview@1',
    ...{ device, steps, basis: basisOf(surveyed.value) },
    changes: before?.ok === true ? findChanges(before.value, request) : null,
  };
  return succeed(report, [...surveyed.diagnostics, ...reviewed.diagnostics]);
}
