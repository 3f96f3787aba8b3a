import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import { isXdpProfile } from '../backends/ebpf-offload/compile.ts';
import { isTcamProfile } from '../backends/tcam/compile.ts';
import type { XdpMode } from '../deploy/attachment.ts';
import { reviewFresh, waitFresh } from '../deploy/conntrack.ts';
import { type DeployReport, type DeployRequest, deployXdp } from '../deploy/deploy.ts';
import { confirmStep, lastEvent } from '../deploy/guard.ts';
import { readBase } from '../deploy/in-place.ts';
import { deployPaths } from '../deploy/paths.ts';
import { type DeployPreview, previewDeploy } from '../deploy/preview.ts';
import { renderDeploy, renderPreview, renderTables } from '../deploy/render-report.ts';
import { statusXdp } from '../deploy/status.ts';
import {
  deployTables,
  previewTables,
  type TablesReport,
  type TablesRequest,
} from '../deploy/tables.ts';
import { statusTables } from '../deploy/tables-status.ts';
import type { Transport } from '../deploy/transport.ts';
import type { Situation } from '../plan/place.ts';
import type { TcamProfile, XdpProfile } from '../profile/schema.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { type DeployRecord, type PlanningOptions, recordOf, writeRecord } from './deploy-record.ts';
import { createCompiler, type RequestOptions } from './deploy-request.ts';
import { createTablesCompiler, tablesMode } from './deploy-tables.ts';
import { EXIT, unwrapResult } from './exit.ts';
import { addFleetOptions, type FleetCliOptions, runOnMachines } from './fleet.ts';
import { type Machine, refuseUsage } from './machine.ts';
import {
  addCommonOptions,
  checkGranted,
  type Given,
  loadProfiles,
  readGiven,
  type SituationOptions,
  situationOn,
} from './options.ts';
import { reportDiagnostics } from './output.ts';

interface DeployOptions extends SituationOptions, FleetCliOptions, RequestOptions {
  readonly dryRun?: boolean;
  readonly waitFresh?: number;
  readonly yes?: boolean;
}

/** The profile that says what a mode can do, where `--profile` does not. */
const PROFILE_OF: Readonly<Record<XdpMode, string | null>> = {
  native: 'xdp-native',
  generic: 'xdp-generic',
  offload: null,
  'offload-tc': null,
};

const KIND_OF: Readonly<Record<XdpMode, string>> = {
  native: 'xdp-native',
  generic: 'xdp-generic',
  offload: 'xdp-offload',
  'offload-tc': 'xdp-offload',
};

function profileName(command: Command, options: PlanningOptions): string {
  const [name, second] = options.profile;
  if (second !== undefined) refuseUsage(command, 'deploy loads one program: give one --profile');
  const chosen = name ?? PROFILE_OF[options.mode];
  return chosen ?? refuseUsage(command, `--mode ${options.mode} needs --profile: which NIC is it?`);
}

/** The profile of the mode, or the one that is given; null where it cannot be read, which is said. */
export async function chooseProfile(
  command: Command,
  options: PlanningOptions,
): Promise<XdpProfile | null> {
  const name = profileName(command, options);
  const profile = unwrapResult(await loadProfiles([name]))?.[0];
  if (profile === undefined) return null;
  if (isXdpProfile(profile) && profile.kind === KIND_OF[options.mode]) return profile;
  const message = `profile ${profile.name} is ${profile.kind}, not for --mode ${options.mode}`;
  return refuseUsage(command, message);
}

/** Adds `--mode`. */
export function addModeOption(command: Command): Command {
  return command.addOption(
    new Option('--mode <MODE>', 'where the program runs')
      .choices(['native', 'generic', 'offload', 'offload-tc'])
      .default('native'),
  );
}

const LONGEST_WAIT = 86_400; // a day

/** For commander: whole seconds, a day at most. */
export function parseSeconds(text: string): number {
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
  if (options.waitFresh !== undefined) {
    const waited = options.dryRun === true ? null : await waitFresh(transport, options.waitFresh);
    if (waited?.ok === false) return waited;
    return succeed({ ...situation, facts: { ...situation.facts, conntrackFresh: true } });
  }
  if (!options.fact.includes('conntrack=fresh')) return succeed(situation);
  const reviewed = await reviewFresh(transport, options.force === true);
  return reviewed.ok ? succeed(situation, reviewed.diagnostics) : reviewed;
}

/** Asks on a terminal; scripts are not asked. */
async function isAgreed(question: string, options: DeployOptions): Promise<boolean> {
  if (options.yes === true || !process.stdin.isTTY || !process.stderr.isTTY) return true;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await terminal.question(`${question} [y/N] `)).trim());
  } finally {
    terminal.close();
  }
}

const NOT_AGREED = errorAt('deploy/not-agreed', 'nothing was changed');

/** How something of one kind is compiled for a machine and deployed there. */
interface Deploying<R extends { readonly device: string }> {
  readonly compile: (transport: Transport, situation: Situation) => Promise<Result<R>>;
  readonly preview: (transport: Transport, request: R) => Promise<Result<DeployPreview>>;
  readonly deploy: (transport: Transport, request: R) => Promise<Result<Report>>;
  /** What is kept of the options for `watch`. */
  readonly record: ((situation: Situation) => Promise<Result<DeployRecord>>) | null;
}

/** What was shown is done, and nothing else. */
async function deployAsShown<R extends { readonly device: string }>(
  transport: Transport,
  request: R,
  { preview, deploy }: Deploying<R>,
  options: DeployOptions,
): Promise<Result<Report>> {
  const shown = await preview(transport, request);
  if (!shown.ok) return shown;
  process.stderr.write(renderPreview(shown.value));
  if (!(await isAgreed(`Deploy to ${request.device}?`, options))) return fail(NOT_AGREED);
  return deploy(transport, { ...request, basis: shown.value.basis });
}

type Report = DeployReport | DeployPreview | TablesReport;

/** Compiles for the machine as it is, and deploys there; or says what that would do. */
async function deployOn<R extends { readonly device: string }>(
  command: Command,
  machine: Machine,
  given: Given,
  deploying: Deploying<R>,
  options: DeployOptions,
  isAsking: boolean,
): Promise<Result<Report>> {
  const { transport } = machine;
  const { dev = '' } = options;
  // What the ruleset becomes after this may not be what is read of it.
  const event = await lastEvent(transport, deployPaths(), dev);
  const read = await situationOn(command, machine, given, options, true);
  if (!read.ok) return read;
  const settled = await settleFlows(transport, read.value, options);
  if (!settled.ok) return settled;
  const granted = checkGranted(settled.value);
  if (!granted.ok) return granted;
  const compiled = await deploying.compile(transport, granted.value);
  if (!compiled.ok) return compiled;
  const request = compiled.value;
  const run = (): Promise<Result<Report>> => {
    if (options.dryRun === true) return deploying.preview(transport, request);
    return isAsking
      ? deployAsShown(transport, request, deploying, options)
      : deploying.deploy(transport, request);
  };
  const done = await run();
  if (done.ok && options.dryRun !== true && deploying.record !== null) {
    const record = await deploying.record(granted.value);
    if (!record.ok) return record;
    await writeRecord(transport, dev, record.value);
    if (event !== null) await confirmStep(transport, deployPaths(), dev, event);
  }
  const before = [...read.diagnostics, ...settled.diagnostics, ...compiled.diagnostics];
  return { ...done, diagnostics: [...before, ...done.diagnostics] };
}

function render(report: Report): string {
  if ('steps' in report) return renderPreview(report);
  return 'chain' in report ? renderTables(report) : renderDeploy(report);
}

/** Programs for the host or a card. */
function deployingXdp(profile: XdpProfile, options: DeployOptions): Deploying<DeployRequest> {
  const compile = createCompiler(profile, options);
  return {
    compile: async (transport, situation) => {
      // What waits to be confirmed is a program of its own, which the machine can take back.
      const { device } = situation.facts;
      const running = options.confirm === undefined ? await readBase(transport, device) : null;
      return compile(situation, running);
    },
    preview: previewDeploy,
    deploy: deployXdp,
    record: ({ facts }) => recordOf(profile, options, facts.conntrackFresh),
  };
}

/** Rows of a TCAM, as filters of tc. */
function deployingTables(
  command: Command,
  profile: TcamProfile,
  options: DeployOptions,
): Deploying<TablesRequest> {
  const mode = tablesMode(command, profile, options.mode);
  const compile = createTablesCompiler(profile, { ...options, mode });
  return {
    compile: async (_, situation) => compile(situation),
    preview: previewTables,
    deploy: deployTables,
    record: null,
  };
}

async function runDeploy(
  path: string | undefined,
  options: DeployOptions,
  command: Command,
): Promise<void> {
  const { dev } = options;
  if (dev === undefined) refuseUsage(command, 'deploy where? Give --dev IF.');
  const [name] = options.profile;
  const named = name === undefined ? null : unwrapResult(await loadProfiles([name]))?.[0];
  if (named === undefined) return;
  if (named !== null && isTcamProfile(named)) {
    if (options.profile.length > 1)
      refuseUsage(command, 'deploy loads one table: give one --profile');
    return deployEverywhere(command, path, options, deployingTables(command, named, options));
  }
  const profile = await chooseProfile(command, options);
  if (profile === null) return;
  await deployEverywhere(command, path, options, deployingXdp(profile, options));
}

async function deployEverywhere<R extends { readonly device: string }>(
  command: Command,
  path: string | undefined,
  options: DeployOptions,
  deploying: Deploying<R>,
): Promise<void> {
  const { dev = '' } = options;
  const given = unwrapResult(await readGiven(command, path, options));
  if (given === null) return;
  const many = options.host.length > 1 || options.inventory !== undefined;
  const isAsking = !many && options.dryRun !== true && options.yes !== true && process.stdin.isTTY;
  if (many && options.dryRun !== true && !(await isAgreed('Deploy to all these hosts?', options))) {
    reportDiagnostics([NOT_AGREED]);
    process.exitCode = EXIT.refused;
    return;
  }
  await runOnMachines<Report>(command, options, {
    run: (machine) => deployOn(command, machine, given, deploying, options, isAsking),
    render,
    isWell: (machine) => isDeployed(machine, dev),
  });
}

/** Whether a device still has our program, and nothing is wrong with it. */
async function isDeployed({ transport }: Machine, device: string): Promise<Result<null>> {
  const tables = await statusTables(transport, { device });
  const status = tables ?? (await statusXdp(transport, { device }));
  if (!status.ok) return status;
  const { attachment, drift } = status.value;
  const wrong = drift.filter(({ code }) => code !== 'deploy/unconfirmed');
  const isOurs = attachment.kind === 'ours' || attachment.kind === 'tables';
  if (isOurs && wrong.length === 0) return succeed(null);
  const said = wrong.map(({ message }) => message);
  return fail(errorAt('deploy/canary', [`${device} is not well any more`, ...said].join('; ')));
}

/** `deploy`: compile for this machine's device, attach, replace what was there before. */
export function addDeployCommand(program: Command): void {
  addModeOption(addFleetOptions(addCommonOptions(program.command('deploy')), true))
    .description('compile for a device of this machine, or of others, and attach, atomically')
    .addOption(
      new Option(
        '--confirm <SECONDS>',
        'the machine goes back by itself unless `confirm` comes within this time',
      ).argParser(parseSeconds),
    )
    .option('--yes', 'do not ask on a terminal')
    .option('--dry-run', 'say what would be done, and do nothing')
    .option('--basis <HEX>', 'refuse unless the device is as `--dry-run --json` said (its `basis`)')
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
