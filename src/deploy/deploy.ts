import type { CounterLayout } from '../backends/backend.ts';
import type { LiveProgram } from '../backends/ebpf-offload/live-program.ts';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import {
  type AttachedProgram,
  detachArgv,
  formatProgram,
  hasQdisc,
  type XdpMode,
} from './attachment.ts';
import { basisOf } from './changes.ts';
import { checkDeviceName } from './device-name.ts';
import { foldGoneRules } from './gone-rules.ts';
import { forgetGeneration, keepGeneration, listKept } from './history.ts';
import { changeInPlace, type InPlaceReport, type InPlaceUpdate } from './in-place.ts';
import { type LoadedProgram, loadGeneration, removeGeneration } from './load.ts';
import { isSystemError, withDeviceLock } from './lock.ts';
import { checkMachine, mountBpffs, type Tool, warning } from './machine.ts';
import { type CounterOwner, carryCounts } from './owner-counts.ts';
import { type DeployPaths, deployPaths, generationPaths } from './paths.ts';
import { canSelfTest, type SelfTestFrame, selfTest } from './self-test.ts';
import { type DeployState, removeState, writeState } from './state.ts';
import { collectBefore, type Survey, surveyDevice } from './survey.ts';
import { mayHaveSwitched, planSwitch, type SwitchPlan, switchProgram } from './switch-program.ts';
import { refuseBesideTables } from './tables-state.ts';
import type { Transport } from './transport.ts';
import { beginTrial, forgetTrials, readTrial, settleTrial, whileWaiting } from './trial.ts';

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
  readonly owners: readonly CounterOwner[];
  readonly rulesetChecksum: string;
  /** What the program is tried out with before it is attached. */
  readonly frames: readonly SelfTestFrame[];
  /** The rules that the program decides, each with its place and text. */
  readonly rules: readonly string[];
  /** What the device looked like when this was shown (see `basisOf`); null: however it looks. */
  readonly basis: string | null;
  /** Replace programs that are not ours, state that cannot be read, and change the mode. */
  readonly force: boolean;
  /** The generation it was deployed as before; null for something new. */
  readonly origin: number | null;
  /** Seconds until the machine goes back by itself unless that is confirmed; null: never. */
  readonly confirm: number | null;
  /** How it becomes what runs without another program; left out where it takes one. */
  readonly update?: InPlaceUpdate;
  /** What it will take to change it: null where that is kept already, left out where nothing does. */
  readonly live?: { readonly program: LiveProgram | null; readonly tables: number };
}

/** What was done; can be written as JSON. */
export interface DeployReport {
  readonly format: 'nft-offload/deploy@1';
  readonly device: string;
  readonly mode: XdpMode;
  readonly programId: number;
  readonly generation: number;
  readonly rulesetChecksum: string;
  /** Frames it was tried out with before it was attached. */
  readonly tested: number;
  /** Programs that are not attached any more. */
  readonly replaced: readonly AttachedProgram[];
  /** No frame met the device without a program. */
  readonly atomic: boolean;
  /** Seconds within which it must be confirmed; null when it need not be. */
  readonly confirm: number | null;
  /** What was changed of the program that ran before; null where another one was attached. */
  readonly inPlace: InPlaceReport | null;
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
  plan: SwitchPlan,
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
      origin: request.origin ?? generation,
      programId: program.id,
      ownQdisc: plan.makesQdisc || before?.current.ownQdisc === true,
      rulesetChecksum: request.rulesetChecksum,
      tables: request.live?.tables ?? null,
      changing: false,
      layout: request.counters,
      owners: [...request.owners],
      carried: [],
    },
    previous: before?.current ?? null,
  };
}

/** Takes over the counts of the program before; what cannot be read is said. */
export async function finishSwitch(
  transport: Transport,
  paths: DeployPaths,
  state: DeployState,
): Promise<Result<DeployState>> {
  const counts = await collectBefore(transport, paths, state, true);
  if (!counts.ok) return counts;
  const { current } = state;
  const all = carryCounts(counts.value, current.owners);
  const carried = [...(await foldGoneRules(transport, all, current.owners))];
  const finished: DeployState = { ...state, current: { ...current, carried }, previous: null };
  await writeState(transport, paths, finished);
  return succeed(finished, counts.diagnostics);
}

/** Everything of a loaded generation that is not to be. */
async function dropGeneration(
  transport: Transport,
  paths: DeployPaths,
  { device, origin }: DeployRequest,
  generation: number,
): Promise<void> {
  await removeGeneration(transport, paths, device, generation);
  await forgetTrials(transport, paths, device);
  if (origin === null) await forgetGeneration(transport, paths, device, generation);
}

/** A switch that is about to be. */
interface Switch {
  readonly request: DeployRequest;
  readonly plan: SwitchPlan;
  readonly before: DeployState | null;
  readonly begun: DeployState;
}

/** Writes down what is needed to go on, or back, whatever happens from here. */
async function recordSwitch(
  transport: Transport,
  paths: DeployPaths,
  { request, plan, before, begun }: Switch,
): Promise<Result<null>> {
  const { generation } = begun.current;
  if (request.origin === null) await keepGeneration(transport, paths, request, generation);
  await writeState(transport, paths, begun);
  const seconds = request.confirm;
  if (seconds === null) return succeed(null);
  return beginTrial(transport, paths, { plan, generation, seconds, before, begun });
}

function takenBack({ device, confirm }: DeployRequest): Diagnostic {
  const message = `${device}: taken back by the machine itself, ${confirm} s were over before it was heard of again`;
  const help = 'does the ruleset let the connection to the machine through?';
  return errorAt('deploy/rolled-back', message, { help });
}

/** What is left to do once the program is attached can be done by the next command as well. */
async function finishLater(
  device: string,
  work: () => Promise<Result<null>>,
): Promise<Result<null>> {
  try {
    return await work();
  } catch (error) {
    if (!isSystemError(error)) throw error;
    const message = `the program is on ${device}, but not all of the record: ${error.message}`;
    const help = 'the next command for this device ends what was begun';
    return succeed(null, [warning('deploy/unfinished', message, help)]);
  }
}

/** Attached and recorded, or neither. */
async function switchAndRecord(
  transport: Transport,
  paths: DeployPaths,
  change: Switch,
): Promise<Result<null>> {
  const { request, plan, before, begun } = change;
  const { device } = plan;
  const { generation, programId } = begun.current;
  const undo = async (): Promise<void> => {
    if (before === null) await removeState(transport, paths, device);
    else await writeState(transport, paths, before);
    await dropGeneration(transport, paths, request, generation);
  };
  try {
    const recorded = await recordSwitch(transport, paths, change);
    if (!recorded.ok) {
      await undo();
      return recorded;
    }
  } catch (error) {
    await undo().catch(() => {}); // the first complaint is the telling one
    throw error;
  }
  const target = generationPaths(paths, device, generation);
  const guard = (argv: readonly string[]): readonly string[] =>
    request.confirm === null ? argv : whileWaiting(paths, device, generation, argv);
  const switched = await switchProgram(transport, plan, target, programId, guard);
  if (!switched.ok) {
    const { kind } = await readTrial(transport, paths, device);
    // Whoever took it back has put everything in order, and the next command reads of it.
    if (kind === 'claimed' || kind === 'rolled-back') return fail(takenBack(request));
    if (mayHaveSwitched(switched.diagnostics)) return switched;
    await undo();
    return switched;
  }
  if (request.confirm !== null) return succeed(null);
  return finishLater(device, async () => {
    const finished = await finishSwitch(transport, paths, begun);
    return finished.ok ? succeed(null, finished.diagnostics) : finished;
  });
}

/** Takes over what an earlier session left that died in the middle. */
export async function settleState(
  transport: Transport,
  paths: DeployPaths,
  { state }: Survey,
): Promise<Result<DeployState | null>> {
  if (state === null || state.previous === null) return succeed(state);
  return finishSwitch(transport, paths, state);
}

/** The device is not as it was when a plan was shown. */
export function changedSince(device: string): Diagnostic {
  const message = `${device} is not any more as it was when the plan was made`;
  return errorAt('deploy/changed', message, { help: 'look at the new plan: `deploy --dry-run`' });
}

/** Deploys while nobody else does; see `deployXdp`. */
export async function deployLocked(
  transport: Transport,
  request: DeployRequest,
  paths: DeployPaths,
): Promise<Result<DeployReport>> {
  const { device, mode, force } = request;
  const free = await settleTrial(transport, paths, device);
  if (!free.ok) return free;
  const tables = await refuseBesideTables(transport, paths, device);
  if (tables !== null) return fail(tables);
  const options = { force, missingDevice: false };
  const surveyed = await surveyDevice(transport, paths, device, options);
  if (!surveyed.ok) return surveyed;
  const survey = surveyed.value;
  if (request.basis !== null && request.basis !== basisOf(survey))
    return fail(changedSince(device));
  const makesQdisc = mode === 'offload-tc' && !(await hasQdisc(transport, device));
  const plan = planSwitch(device, mode, survey.device.programs, makesQdisc);
  const reviewed = reviewSwitch(plan, survey, force);
  if (!reviewed.ok) return reviewed;

  const settled = await settleState(transport, paths, survey);
  if (!settled.ok) return settled;
  const kept = await listKept(transport, paths, device);
  const generation = Math.max(0, ...survey.generations, ...kept) + 1;
  const inPlace = await changeInPlace(transport, paths, request, survey, settled.value, generation);
  if (inPlace.report !== null) {
    const said = [surveyed, reviewed, settled, inPlace].flatMap(({ diagnostics }) => diagnostics);
    return succeed(inPlace.report, said);
  }
  const loaded = await loadGeneration(transport, paths, request, generation);
  if (!loaded.ok) return loaded;
  const tested = await selfTest(transport, paths, request, generation);
  if (!tested.ok) {
    await removeGeneration(transport, paths, device, generation);
    return tested;
  }
  const before = inPlace.state;
  const begun = beginState(request, survey, plan, before, generation, loaded.value);
  const done = await switchAndRecord(transport, paths, { request, plan, before, begun });
  if (!done.ok) return done;

  // Beside a program in the NIC another one may run, so one of ours may still be there.
  const beside = survey.ours !== null && survey.ours.mode !== mode && plan.displaces === null;
  if (survey.ours !== null && beside) await transport.run(detachArgv(device, survey.ours.mode));
  if (request.confirm === null) {
    for (const old of survey.generations) await removeGeneration(transport, paths, device, old);
    await transport.run(['rm', '-f', '--', generationPaths(paths, device, generation).displaced]);
    await forgetTrials(transport, paths, device);
  }
  const replaced = [plan.replaces, plan.displaces, beside ? survey.ours : null];
  const report: DeployReport = {
    format: 'nft-offload/deploy@1',
    device,
    mode,
    programId: loaded.value.id,
    generation,
    rulesetChecksum: request.rulesetChecksum,
    tested: canSelfTest(request) ? request.frames.length : 0,
    replaced: replaced.filter((program) => program !== null),
    atomic: plan.displaces === null,
    confirm: request.confirm,
    inPlace: null,
  };
  return succeed(report, [
    ...surveyed.diagnostics,
    ...reviewed.diagnostics,
    ...settled.diagnostics,
    ...inPlace.diagnostics,
    ...done.diagnostics,
  ]);
}

/** Runs `work` on a machine that has the tools for it, while nobody else changes what is on the device. */
export async function withDevice<T>(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  work: () => Promise<Result<T>>,
  tools: readonly Tool[] = ['ip', 'bpftool'],
): Promise<Result<T>> {
  const bad = checkDeviceName(device);
  if (bad !== null) return fail(bad);
  const missing = await checkMachine(transport, tools);
  if (missing.length > 0) return fail(...missing);
  return withDeviceLock(transport, paths, device, work);
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
  return withDevice(transport, paths, request.device, async () => {
    const mounted = await mountBpffs(transport, paths.bpffs);
    return mounted.ok ? deployLocked(transport, request, paths) : mounted;
  });
}
