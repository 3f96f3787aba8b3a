import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { type AppliedChange, applyChange } from '../deploy/apply-change.ts';
import { isFresh } from '../deploy/conntrack.ts';
import { isGuarded, readStep } from '../deploy/guard.ts';
import { readBase } from '../deploy/in-place.ts';
import { deployPaths } from '../deploy/paths.ts';
import { printable } from '../deploy/render-status.ts';
import type { SshTarget } from '../deploy/ssh/target.ts';
import { readState } from '../deploy/state.ts';
import { runWatch, type WatchClock, type WatchLine, type WatchSession } from '../deploy/watch.ts';
import { openWatchSession } from '../deploy/watch-session.ts';
import type { Situation } from '../plan/place.ts';
import { parseProfile } from '../profile/load.ts';
import { formatDiagnostic, type Result, succeed } from '../support/diagnostics.ts';
import { addModeOption, chooseProfile, parseSeconds } from './deploy.ts';
import {
  type DeployRecord,
  type PlanningOptions,
  readRecord,
  recordOf,
  writeRecord,
} from './deploy-record.ts';
import { createCompiler, keyOfSituation } from './deploy-request.ts';
import { unwrapResult } from './exit.ts';
import { parseFactsFile } from './facts-file.ts';
import { addHostOption, type Machine, openMachine, refuseUsage } from './machine.ts';
import { addSituationOptions, checkGranted, readGiven, situationOn } from './options.ts';

interface WatchCliOptions extends PlanningOptions {
  readonly dev?: string;
  readonly host?: SshTarget;
  readonly acceptNew?: boolean;
  readonly maxOutOfStep: number;
  readonly onFailure: 'off' | 'keep';
}

/** Options that say which program is made; when any is given, what was recorded does not count. */
const PLANNING = ['mode', 'profile', 'fact', 'facts', 'concede', 'structure'];

function isPlanned(command: Command): boolean {
  return PLANNING.some((name) => command.getOptionValueSource(name) === 'cli');
}

/** The situation on the machine now, as the record says to look at it. */
async function readSituation(
  command: Command,
  machine: Machine,
  device: string,
  record: DeployRecord,
): Promise<Result<Situation>> {
  const base = record.facts === null ? null : parseFactsFile(record.facts, 'the recorded facts');
  if (base !== null && !base.ok) return base;
  const options = {
    ...{ dev: device, profile: [], fact: record.fact, structure: record.structure },
    concede: { concessions: record.concessions, replyPorts: record.replyPorts },
  };
  const given = { base: base?.value, ruleset: null };
  const read = await situationOn(command, machine, given, options, true);
  if (!read.ok) return read;
  const facts = { ...read.value.facts, conntrackFresh: record.fresh };
  return checkGranted({ ...read.value, facts });
}

/**
 * Plans for the machine as it is and brings its program into step. `conntrack=fresh` was said of one
 * ruleset: flows that began under another may be known, so the fact goes unless there are none.
 */
function createSync(
  command: Command,
  machine: Machine,
  device: string,
  first: { readonly record: DeployRecord; readonly isFollowed: boolean; readonly isNew: boolean },
): () => Promise<Result<AppliedChange>> {
  const { transport } = machine;
  let { record, isFollowed, isNew } = first;
  /** What the program was made of by this session. */
  let applied: string | null = null;
  return async () => {
    const profile = parseProfile(record.profile, 'the recorded profile');
    if (!profile.ok) return profile;
    let situation = await readSituation(command, machine, device, record);
    if (!situation.ok) return situation;
    if (record.fresh && !isFollowed && !(await isFresh(transport))) {
      record = { ...record, fresh: false };
      isNew = true;
      const { facts } = situation.value;
      situation = checkGranted({ ...situation.value, facts: { ...facts, conntrackFresh: false } });
      if (!situation.ok) return situation;
    }
    isFollowed = false;
    const key = keyOfSituation(situation.value);
    if (key === applied && (await isGuarded(transport, deployPaths(), device))) {
      return succeed({ kind: 'unchanged', rulesetChecksum: key.split(' ')[0] ?? '' });
    }
    applied = null;
    const compile = createCompiler(profile.value, { mode: record.mode });
    const request = compile(situation.value, await readBase(transport, device));
    if (!request.ok) return request;
    if (isNew) await writeRecord(transport, device, record);
    isNew = false;
    const done = await applyChange(transport, request.value);
    if (done.ok) applied = key;
    return done;
  };
}

/** A session for one connection to the machine. */
async function connect(
  command: Command,
  options: WatchCliOptions,
  device: string,
  asked: DeployRecord,
  onEvent: Parameters<typeof openWatchSession>[2],
): Promise<Result<WatchSession>> {
  const opened = await openMachine(options.host, options.acceptNew === true);
  if (!opened.ok) return opened;
  const machine = opened.value;
  const { transport } = machine;
  const paths = deployPaths();
  const prepare = async (): Promise<Result<WatchSession>> => {
    const [state, recorded] = [
      await readState(transport, paths, device),
      await readRecord(transport, device),
    ];
    if (!state.ok) return state;
    if (!recorded.ok) return recorded;
    const isNew = isPlanned(command) || recorded.value === null;
    const record = isNew ? asked : (recorded.value ?? asked);
    const step = await readStep(transport, paths, device);
    const isFollowed = step?.step === 'in' && step.guarded && !isNew;
    const watched = {
      ...{ transport, paths, isDeployed: state.value !== null, close: machine.close },
      sync: createSync(command, machine, device, { record, isFollowed, isNew }),
    };
    const limit = options.onFailure === 'keep' ? null : options.maxOutOfStep;
    return openWatchSession(watched, { device, mode: record.mode, limit }, onEvent);
  };
  try {
    const session = await prepare();
    if (!session.ok) machine.close();
    return session;
  } catch (error) {
    machine.close();
    throw error;
  }
}

const WHAT: Readonly<Record<AppliedChange['kind'], string>> = {
  unchanged: 'nothing to do',
  'in-place': 'changed in place',
  replaced: 'program replaced, counters carried',
};

function renderLine(line: WatchLine): string {
  switch (line.event) {
    case 'in-step': {
      const { seconds, events, change, words, rulesetChecksum } = line;
      const what = WHAT[change] + (words === null ? '' : `, ${words} words`);
      const after = seconds > 0 ? `, out of step for ${seconds.toFixed(2)} s` : '';
      return `in step with ruleset ${rulesetChecksum.slice(0, 12)}: ${what} (changes: ${events}${after})`;
    }
    case 'out-of-step':
      return `out of step: ${line.diagnostics.map(formatDiagnostic).join('; ')}`;
    case 'taken-off':
      return `the program was taken off, nftables decides everything: ${line.reason}`;
    case 'unwell':
      return 'the program or its guard is gone; both are put back';
    case 'disconnected':
      return [
        'no line to the machine; trying again',
        ...line.diagnostics.map(formatDiagnostic),
      ].join(': ');
    case 'ended':
      return 'no longer followed; the guard takes the program off when the ruleset changes';
  }
}

const CLOCK: WatchClock = {
  now: () => performance.now(),
  // An early end is no error.
  sleep: (duration, signal) => sleep(Math.max(0, duration), undefined, { signal }).catch(() => {}),
};

async function runWatchCommand(options: WatchCliOptions, command: Command): Promise<void> {
  const { dev } = options;
  if (dev === undefined) refuseUsage(command, 'watch which device? Give --dev IF.');
  if (unwrapResult(await readGiven(command, undefined, options)) === null) return;
  const profile = await chooseProfile(command, options);
  if (profile === null) return;
  const fresh = options.fact.includes('conntrack=fresh');
  const asked = unwrapResult(await recordOf(profile, options, fresh));
  if (asked === null) return;
  const stop = new AbortController();
  // Not `once`: a listener that is gone by then makes execa end this process.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop.abort());
  const say = (line: WatchLine): void => {
    const text = options.json
      ? JSON.stringify({ format: 'nft-offload/watch@1', device: dev, ...line })
      : printable(`${dev}: ${renderLine(line)}`.replaceAll('\n', ' '));
    process.stdout.write(`${text}\n`);
  };
  const port = {
    connect: (onEvent: Parameters<typeof openWatchSession>[2]) =>
      connect(command, options, dev, asked, onEvent),
    ...{ clock: CLOCK, say },
  };
  unwrapResult(await runWatch(port, { keep: options.onFailure === 'keep' }, stop.signal));
}

/** `watch`: keep what is deployed in step with the live ruleset. */
export function addWatchCommand(program: Command): void {
  addModeOption(addHostOption(addSituationOptions(program.command('watch'))))
    .description('follow changes of the live ruleset, and keep the program in step with it')
    .addOption(
      new Option(
        '--max-out-of-step <SECONDS>',
        'after so long without a step the machine takes the program off by itself',
      )
        .argParser(parseSeconds)
        .default(30),
    )
    .addOption(
      new Option('--on-failure <WHAT>', 'a program that cannot be brought into step is')
        .choices(['off', 'keep'])
        .default('off'),
    )
    .action(runWatchCommand);
}
