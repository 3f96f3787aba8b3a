import { createHash } from 'node:crypto';
import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import { PROGRAM, type XdpArtifact } from '../backends/ebpf-offload/compile.ts';
import type { XdpMode } from '../deploy/attachment.ts';
import { reviewFresh, waitFresh } from '../deploy/conntrack.ts';
import { type DeployRequest, deployXdp } from '../deploy/deploy.ts';
import { previewDeploy } from '../deploy/preview.ts';
import { renderDeploy, renderPreview } from '../deploy/render-report.ts';
import { openLocalTransport, type Transport } from '../deploy/transport.ts';
import type { Ruleset } from '../ir/ruleset.ts';
import { placeXdp, type Situation } from '../plan/place.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
import { unwrapResult } from './exit.ts';
import type { CommonOptions } from './options.ts';
import { addCommonOptions, loadProfiles, readSituation, refuseUsage } from './options.ts';

interface DeployOptions extends CommonOptions {
  readonly mode: XdpMode;
  readonly dryRun?: boolean;
  readonly force?: boolean;
  readonly waitFresh?: number;
}

/** The profile that says what a mode can do, where `--profile` does not. */
const PROFILE_OF: Readonly<Record<XdpMode, string | null>> = {
  native: 'xdp-native',
  generic: 'xdp-generic',
  offload: null,
};

const KIND_OF: Readonly<Record<XdpMode, string>> = {
  native: 'xdp-native',
  generic: 'xdp-generic',
  offload: 'xdp-offload',
};

/** Tells rulesets apart; independent of how they were read. */
function checksumOf(ruleset: Ruleset): string {
  const text = JSON.stringify(ruleset, (_, value: unknown) =>
    typeof value === 'bigint' ? value.toString(16) : value,
  );
  return createHash('sha256').update(text).digest('hex');
}

function profileName(command: Command, options: DeployOptions): string {
  const [name, second] = options.profile;
  if (second !== undefined) refuseUsage(command, 'deploy loads one program: give one --profile');
  const chosen = name ?? PROFILE_OF[options.mode];
  return chosen ?? refuseUsage(command, '--mode offload needs --profile: which NIC is it?');
}

function requestOf(
  artifact: XdpArtifact,
  ruleset: Ruleset,
  device: string,
  options: DeployOptions,
): DeployRequest {
  return {
    device,
    mode: options.mode,
    elf: artifact.elf,
    program: PROGRAM,
    maps: null,
    counters: artifact.counters,
    counterOwners: artifact.owners,
    rulesetChecksum: checksumOf(ruleset),
    force: options.force === true,
  };
}

const LONGEST_WAIT = 86_400; // a day

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (/^\d+$/.test(text) && seconds <= LONGEST_WAIT) return seconds;
  throw new InvalidArgumentError(`A whole number of seconds, ${LONGEST_WAIT} at most.`);
}

/**
 * The situation with `conntrack=fresh` waited for, or checked where it was given: a flow from before
 * the ruleset would make packets established that the program takes for unsolicited.
 */
async function settleFlows(
  transport: Transport,
  situation: Situation,
  options: DeployOptions,
): Promise<Result<Situation>> {
  if (options.waitFresh !== undefined && options.dryRun !== true) {
    const waited = await waitFresh(transport, options.waitFresh);
    if (!waited.ok) return waited;
    return succeed({ ...situation, facts: { ...situation.facts, conntrackFresh: true } });
  }
  if (!options.fact.includes('conntrack=fresh')) return succeed(situation);
  const reviewed = await reviewFresh(transport, options.force === true);
  return reviewed.ok ? succeed(situation, reviewed.diagnostics) : reviewed;
}

async function runDeploy(
  path: string | undefined,
  options: DeployOptions,
  command: Command,
): Promise<void> {
  if (options.dev === undefined) refuseUsage(command, 'deploy where? Give --dev IF.');
  const name = profileName(command, options);
  const profiles = unwrapResult(await loadProfiles([name]));
  const profile = profiles?.[0];
  if (profile === undefined) return;
  if (profile.kind !== KIND_OF[options.mode]) {
    refuseUsage(
      command,
      `profile ${profile.name} is ${profile.kind}, not for --mode ${options.mode}`,
    );
  }
  const read = unwrapResult(await readSituation(command, path, options, true));
  if (read === null) return;
  const transport = openLocalTransport();
  const situation = unwrapResult(await settleFlows(transport, read, options));
  if (situation === null) return;
  const placed = unwrapResult(placeXdp(situation, profile));
  if (placed === null) return;
  const { device } = situation.facts;
  const request = requestOf(placed.artifact, situation.ruleset, device, options);
  if (options.dryRun === true) {
    const preview = unwrapResult(await previewDeploy(transport, request));
    if (preview === null) return;
    console.log(options.json ? JSON.stringify(preview, null, 2) : renderPreview(preview));
    return;
  }
  const report = unwrapResult(await deployXdp(transport, request));
  if (report === null) return;
  console.log(options.json ? JSON.stringify(report, null, 2) : renderDeploy(report));
}

/** `deploy`: compile for this machine's device, attach, replace what was there before. */
export function addDeployCommand(program: Command): void {
  addCommonOptions(program.command('deploy'))
    .description('compile for a device of this machine and attach, atomically')
    .addOption(
      new Option('--mode <MODE>', 'where the program runs')
        .choices(['native', 'generic', 'offload'])
        .default('native'),
    )
    .option('--dry-run', 'say what would be done, and do nothing')
    .option(
      '--force',
      'replace a program that is not ours; accept a gap when the mode changes; ' +
        'believe --fact conntrack=fresh although flows are known',
    )
    .addOption(
      new Option(
        '--wait-fresh <SECONDS>',
        'wait until connection tracking knows no flow (fact conntrack=fresh)',
      ).argParser(parseSeconds),
    )
    .action(runDeploy);
}
