import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { addQdisc, hasQdisc, removeQdiscArgv } from './attachment.ts';
import { changedSince } from './deploy.ts';
import { isSystemError } from './lock.ts';
import { runStep, warning } from './machine.ts';
import type { CounterOwner } from './owner-counts.ts';
import { type DeployPaths, deployPaths, tablesFile } from './paths.ts';
import type { DeployPreview } from './preview.ts';
import { readState } from './state.ts';
import {
  chainOf,
  emptyArgv,
  enterArgv,
  enteredChain,
  explainTc,
  type FlowerFilter,
  isTaken,
  leaveArgv,
  listFilters,
  loadFilters,
  type TablesMode,
} from './tables-filters.ts';
import {
  forgetTables,
  keepTables,
  listTables,
  type TablesState,
  writeTablesState,
} from './tables-state.ts';
import {
  finishTables,
  surveyTables,
  type TablesSurvey,
  tablesBasis,
  withTables,
} from './tables-survey.ts';
import type { Transport } from './transport.ts';
import { beginOwnTrial, forgetTrials, readTrial, settleTrial, whileWaiting } from './trial.ts';

/** Filters of tc flower and where they go. */
export interface TablesRequest {
  readonly device: string;
  readonly mode: TablesMode;
  readonly filters: readonly FlowerFilter[];
  readonly owners: readonly CounterOwner[];
  readonly rulesetChecksum: string;
  /** What the device looked like when this was shown (see `tablesBasis`); null: however it looks. */
  readonly basis: string | null;
  /** The generation they were deployed as before; null for something new. */
  readonly origin: number | null;
  /** Seconds until the machine goes back by itself unless that is confirmed; null: never. */
  readonly confirm: number | null;
}

/** What was done; can be written as JSON. */
export interface TablesReport {
  readonly format: 'nft-offload/deploy-tables@1';
  readonly device: string;
  readonly mode: TablesMode;
  readonly filters: number;
  readonly chain: number;
  readonly generation: number;
  readonly rulesetChecksum: string;
  /** The generation whose filters are not asked any more; null when there was none. */
  readonly replaced: number | null;
  readonly confirm: number | null;
}

/** What stands against filters of ours on the device, or null. */
async function refuseTables(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  survey: TablesSurvey,
): Promise<Diagnostic | null> {
  if (survey.ifindex === 0) {
    return errorAt('deploy/no-device', `there is no device ${device}`, {
      help: '`ip link` lists the devices',
    });
  }
  const program = await readState(transport, paths, device);
  if (program.ok && program.value?.bootId === survey.bootId) {
    const message = `a program was deployed to ${device}, and it takes one kind at a time`;
    return errorAt('deploy/other-kind', message, { help: `undeploy --dev ${device} first` });
  }
  const isForeign = !survey.isEntered && enteredChain(survey.filters) !== null;
  if (!isTaken(survey.filters) && !isForeign) return null;
  const message = `${device} has filters of somebody else where ours have to be, or behind them`;
  const help = `\`tc filter show dev ${device} ingress\` lists them; ours are the last, with preference 65000`;
  return errorAt('deploy/foreign-filter', message, { help });
}

/** A switch that is about to be. */
interface TablesSwitch {
  readonly request: TablesRequest;
  readonly before: TablesState | null;
  readonly begun: TablesState;
  readonly makesQdisc: boolean;
}

/** What puts the device back to what it had. */
function backCommands({ request, before, begun, makesQdisc }: TablesSwitch) {
  const { device } = request;
  if (before !== null) return [enterArgv(device, before.current.mode, before.current.generation)];
  const off = [leaveArgv(device), emptyArgv(device, begun.current.generation)];
  return makesQdisc ? [...off, removeQdiscArgv(device)] : off;
}

/** Writes down what is needed to go on, or back, whatever happens from here. */
async function recordTables(
  transport: Transport,
  paths: DeployPaths,
  change: TablesSwitch,
): Promise<Result<null>> {
  const { request, before, begun } = change;
  const { device, mode, rulesetChecksum, confirm } = request;
  const { generation } = begun.current;
  if (request.origin === null) {
    const [filters, owners] = [[...request.filters], [...request.owners]];
    const format = 'nft-offload/tables-generation@1';
    const record = { format, device, mode, rulesetChecksum, filters, owners } as const;
    await keepTables(transport, paths, record, generation);
  }
  await writeTablesState(transport, paths, device, begun);
  if (confirm === null) return succeed(null);
  // Counts of what is taken back are taken over by the next command.
  const back = before === null ? null : { ...before, previous: begun.current };
  const stateOf = tablesFile(paths, device);
  const watch = { seconds: confirm, commands: backCommands(change), back, stateOf };
  return beginOwnTrial(transport, paths, device, generation, watch);
}

/** Leads frames to the new filters, or leaves everything as it was. */
async function enterTables(
  transport: Transport,
  paths: DeployPaths,
  change: TablesSwitch,
): Promise<Result<null>> {
  const { request, before, begun } = change;
  const { device, mode, confirm } = request;
  const { generation } = begun.current;
  const undo = async (): Promise<void> => {
    await writeTablesState(transport, paths, device, before);
    await transport.run(emptyArgv(device, generation));
    await forgetTrials(transport, paths, device);
    if (request.origin === null) await forgetTables(transport, paths, device, generation);
  };
  try {
    const recorded = await recordTables(transport, paths, change);
    if (!recorded.ok) {
      await undo();
      return recorded;
    }
  } catch (error) {
    await undo().catch(() => {}); // the first complaint is the telling one
    throw error;
  }
  const argv = enterArgv(device, mode, generation);
  const guarded = confirm === null ? argv : whileWaiting(paths, device, generation, argv);
  const what = `lead frames on ${device} to the filters`;
  const entered = await runStep(transport, 'deploy/attach-failed', what, guarded);
  if (!entered.ok) {
    const { kind } = await readTrial(transport, paths, device);
    // Whoever took it back has put everything in order.
    if (kind !== 'claimed' && kind !== 'rolled-back') await undo();
    return explainTc(entered);
  }
  const listed = await listFilters(transport, device);
  if (!listed.ok) return listed;
  if (enteredChain(listed.value) === chainOf(generation)) return succeed(null);
  const message = `${device} does not have the filters that were just put there`;
  const help = 'something else changes its filters at the same time; stop it';
  return fail(errorAt('deploy/attach-failed', message, { help }));
}

/** Deploys while nobody else does; see `deployTables`. */
export async function deployTablesLocked(
  transport: Transport,
  request: TablesRequest,
  paths: DeployPaths,
): Promise<Result<TablesReport>> {
  const { device, mode, rulesetChecksum, confirm } = request;
  const free = await settleTrial(transport, paths, device);
  if (!free.ok) return free;
  const surveyed = await surveyTables(transport, paths, device, false);
  if (!surveyed.ok) return surveyed;
  const survey = surveyed.value;
  if (request.basis !== null && request.basis !== tablesBasis(survey)) {
    return fail(changedSince(device));
  }
  const refused = await refuseTables(transport, paths, device, survey);
  if (refused !== null) return fail(refused);
  const settled =
    survey.state === null ? succeed(null) : await finishTables(transport, paths, survey.state);
  if (!settled.ok) return settled;
  // Filters that somebody took off are deployed as on a device without any.
  const before = survey.isEntered ? settled.value : null;
  if (before === null && settled.value !== null) {
    await transport.run(emptyArgv(device, settled.value.current.generation));
  }
  const kept = await listTables(transport, paths, device);
  const generation = Math.max(0, settled.value?.current.generation ?? 0, ...kept) + 1;

  const makesQdisc = !(await hasQdisc(transport, device));
  if (makesQdisc) {
    const placed = await addQdisc(transport, device);
    if (!placed.ok) return placed;
  }
  const removeQdisc = async (): Promise<void> => {
    if (makesQdisc) await transport.run(removeQdiscArgv(device));
  };
  const loaded = await loadFilters(transport, device, mode, generation, request.filters);
  if (!loaded.ok) {
    await removeQdisc();
    return loaded;
  }
  const ownQdisc = makesQdisc || settled.value?.current.ownQdisc === true;
  const current = { generation, origin: request.origin ?? generation, mode, ownQdisc };
  const begun: TablesState = {
    format: 'nft-offload/tables-state@1',
    ...{ device, ifindex: survey.ifindex, bootId: survey.bootId },
    current: { ...current, rulesetChecksum },
    previous: before?.current ?? null,
    isTrial: confirm !== null,
    carried: settled.value?.carried ?? [],
  };
  const change = { request, before, begun, makesQdisc };
  const entered = await enterTables(transport, paths, change);
  if (!entered.ok) {
    await removeQdisc();
    return entered;
  }
  const notices = [...surveyed.diagnostics, ...settled.diagnostics];
  if (confirm === null) notices.push(...(await finishLater(transport, paths, begun)));
  const report: TablesReport = {
    format: 'nft-offload/deploy-tables@1',
    ...{ device, mode, filters: request.filters.length, chain: chainOf(generation), generation },
    ...{ rulesetChecksum, replaced: before?.current.generation ?? null, confirm },
  };
  return succeed(report, notices);
}

/** What is left to do can be done by the next command as well. */
async function finishLater(
  transport: Transport,
  paths: DeployPaths,
  begun: TablesState,
): Promise<readonly Diagnostic[]> {
  const { device } = begun;
  try {
    const finished = await finishTables(transport, paths, begun);
    await forgetTrials(transport, paths, device);
    return finished.diagnostics.map(({ code, message }) => warning(code, message));
  } catch (error) {
    if (!isSystemError(error)) throw error;
    const message = `the filters are on ${device}, but not all of the record: ${error.message}`;
    return [
      warning('deploy/unfinished', message, 'the next command for this device ends what was begun'),
    ];
  }
}

/**
 * Loads filters of tc into a chain of their own beside those that are asked, and only then leads all
 * frames there, in one step. When anything fails before that, the old ones go on and nothing of the
 * new ones stays.
 */
export async function deployTables(
  transport: Transport,
  request: TablesRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<TablesReport>> {
  const { device } = request;
  return withTables(transport, paths, device, () => deployTablesLocked(transport, request, paths));
}

/** Looks at the machine as `deployTables` would, refuses what it would refuse, and changes nothing. */
export async function previewTables(
  transport: Transport,
  request: TablesRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<DeployPreview>> {
  const { device, filters, mode } = request;
  const surveyed = await surveyTables(transport, paths, device, false);
  if (!surveyed.ok) return surveyed;
  const refused = await refuseTables(transport, paths, device, surveyed.value);
  if (refused !== null) return fail(refused);
  const { state, isEntered } = surveyed.value;
  const kept = await listTables(transport, paths, device);
  const generation = Math.max(0, state?.current.generation ?? 0, ...kept) + 1;
  const where = mode === 'offload' ? 'the device' : 'the host';
  const steps = [
    ...((await hasQdisc(transport, device)) ? [] : [`make a place for filters on ${device}`]),
    `load ${filters.length} filters into chain ${chainOf(generation)}, run by ${where}`,
    isEntered
      ? `lead frames there instead of to chain ${chainOf(state?.current.generation ?? 0)}, in one step`
      : 'lead frames there',
    ...(isEntered ? ['keep the counts of the filters before, and take them away'] : []),
  ];
  const basis = tablesBasis(surveyed.value);
  const report = { format: 'nft-offload/deploy-preview@1', device, steps, basis } as const;
  return succeed({ ...report, changes: null }, surveyed.diagnostics);
}
