import { errorAt, fail, type Reason, type Result, succeed } from '../support/diagnostics.ts';
import { attachArgv, detachArgv, removeQdiscArgv } from './attachment.ts';
import { listNames } from './looks.ts';
import { runStep } from './machine.ts';
import { type DeployPaths, generationPaths, stateFile, trialDirectory } from './paths.ts';
import { quoteWord, quoteWords } from './shell.ts';
import { type DeployState, formatState } from './state.ts';
import type { SwitchPlan } from './switch-program.ts';
import type { Transport } from './transport.ts';

/** A deployment that the machine takes back by itself unless it is confirmed. */
export type Trial =
  | { readonly kind: 'none' }
  /** `until`: seconds since the epoch, by the machine's clock. */
  | { readonly kind: 'waiting'; readonly generation: number; readonly until: number }
  /** Being taken back, or whoever did that died over it. */
  | { readonly kind: 'claimed'; readonly generation: number }
  /** `at`: when, as in RFC 3339. */
  | { readonly kind: 'rolled-back'; readonly generation: number; readonly at: string };

export const NO_TRIAL: Trial = { kind: 'none' };

interface TrialFiles {
  readonly directory: string;
  /** There while nobody has decided; whoever renames it first does. */
  readonly pending: string;
  readonly claimed: string;
  readonly confirmed: string;
  readonly script: string;
  /** The state to go back to. */
  readonly state: string;
  readonly done: string;
}

function trialFiles(paths: DeployPaths, device: string, generation: number): TrialFiles {
  const directory = trialDirectory(paths, device);
  const file = (suffix: string): string => `${directory}/${generation}.${suffix}`;
  return {
    directory,
    pending: file('pending'),
    claimed: file('claimed'),
    confirmed: file('confirmed'),
    script: file('sh'),
    state: file('state'),
    done: file('rolled-back'),
  };
}

/** What is known of the last deployment that had to be confirmed. */
export async function readTrial(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<Trial> {
  const names = await listNames(transport, trialDirectory(paths, device));
  const found = names.flatMap((name) => {
    const [, number, suffix] = /^([0-9]{1,9})\.(pending|claimed|rolled-back)$/.exec(name) ?? [];
    return number === undefined ? [] : [{ generation: Number(number), suffix }];
  });
  const [last] = found.sort((a, b) => b.generation - a.generation);
  if (last === undefined) return NO_TRIAL;
  const { generation, suffix } = last;
  if (suffix === 'claimed') return { kind: 'claimed', generation };
  const files = trialFiles(paths, device, generation);
  const file = suffix === 'pending' ? files.pending : files.done;
  const text = new TextDecoder()
    .decode((await transport.readFile(file)) ?? new Uint8Array())
    .trim();
  return suffix === 'pending'
    ? { kind: 'waiting', generation, until: Number(text) }
    : { kind: 'rolled-back', generation, at: text };
}

/** Programs that put the device back to what it had before the switch. */
function backArgv(
  { device, mode, replaces, displaces, makesQdisc }: SwitchPlan,
  replacedPin: string,
  displacedPin: string,
): readonly (readonly string[])[] {
  const off = [detachArgv(device, mode), ...(makesQdisc ? [removeQdiscArgv(device)] : [])];
  if (displaces !== null) {
    return [...off, attachArgv(device, displaces.mode, displacedPin, false)];
  }
  if (replaces !== null) return [attachArgv(device, mode, replacedPin, true)];
  return off;
}

/** Seconds between two tries to put the old program back, and how many there are. */
const RETRY = { seconds: 1, times: 30 };

/**
 * The watchdog, a script that needs nothing of this process: it waits, and unless the deployment was
 * confirmed meanwhile it attaches what was there before and puts the old state back.
 */
function writeScript(
  files: TrialFiles,
  commands: readonly (readonly string[])[],
  restoreState: readonly string[],
): string {
  return `#!/bin/sh
# Takes a deployment of nft-offload back unless it is confirmed in time.
PATH=$PATH:/usr/sbin:/sbin
left=$1
while [ "$left" -gt 0 ]; do
  [ -e ${quoteWord(files.pending)} ] || exit 0
  sleep 1
  left=$((left - 1))
done
mv -- ${quoteWords([files.pending, files.claimed])} 2>/dev/null || [ -e ${quoteWord(files.claimed)} ] || exit 0
tries=0
until ${commands.map(quoteWords).join(' && ')}; do
  tries=$((tries + 1))
  [ "$tries" -lt ${RETRY.times} ] || exit 1
  sleep ${RETRY.seconds}
  [ -e ${quoteWord(files.claimed)} ] || exit 0
done
${quoteWords(restoreState)}
date -u +%Y-%m-%dT%H:%M:%SZ >${quoteWord(files.done)}
rm -f -- ${quoteWord(files.claimed)}
`;
}

/** What a trial has to know. */
export interface TrialRequest {
  readonly plan: SwitchPlan;
  readonly generation: number;
  /** Until it is taken back. */
  readonly seconds: number;
  /** Null when nothing of ours was there. */
  readonly before: DeployState | null;
  readonly begun: DeployState;
}

async function clearTrials(transport: Transport, directory: string): Promise<void> {
  await transport.run(['rm', '-rf', '--one-file-system', '--', directory]);
}

/** Programs of others live on while they are pinned, and can be put back. */
async function pinForeign(
  transport: Transport,
  { replaces }: SwitchPlan,
  pin: string,
): Promise<Result<null>> {
  if (replaces === null) return succeed(null);
  const argv = ['bpftool', 'prog', 'pin', 'id', String(replaces.id), pin];
  const pinned = await runStep(transport, 'deploy/attach-failed', 'keep the old program', argv);
  return pinned.ok ? succeed(null) : pinned;
}

const START = 'setsid sh "$1" "$2" </dev/null >/dev/null 2>&1 &';

/** Starts the machine's own clock; from now on it goes back by itself. */
export async function beginTrial(
  transport: Transport,
  paths: DeployPaths,
  { plan, generation, seconds, before, begun }: TrialRequest,
): Promise<Result<null>> {
  const { device } = plan;
  const files = trialFiles(paths, device, generation);
  await clearTrials(transport, files.directory);
  const { displaced } = generationPaths(paths, device, generation);
  const own = before === null ? null : generationPaths(paths, device, before.current.generation);
  const isOwn = before !== null && plan.replaces?.id === before.current.programId;
  const pinned = isOwn ? succeed(null) : await pinForeign(transport, plan, displaced);
  if (!pinned.ok) return pinned;
  const commands = backArgv(plan, isOwn && own !== null ? own.program : displaced, displaced);
  // Counts of the program that is taken back are taken over by the next command.
  const back = before === null ? null : { ...before, previous: begun.current };
  const stateOf = stateFile(paths, device);
  return startWatchdog(transport, files, { seconds, commands, back, stateOf });
}

/** What the watchdog does when the time is over. */
interface Watch {
  readonly seconds: number;
  readonly commands: readonly (readonly string[])[];
  /** The state to go back to; null: to none. */
  readonly back: object | null;
  /** Where that is kept. */
  readonly stateOf: string;
}

async function startWatchdog(
  transport: Transport,
  files: TrialFiles,
  { seconds, commands, back, stateOf }: Watch,
): Promise<Result<null>> {
  const restore =
    back === null ? ['rm', '-f', '--', stateOf] : ['mv', '-f', '--', files.state, stateOf];
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  if (back !== null) await transport.writeFile(files.state, encode(formatState(back)));
  await transport.writeFile(files.script, encode(writeScript(files, commands, restore)));
  const now = Number((await transport.run(['date', '+%s'])).stdout);
  await transport.writeFile(files.pending, encode(`${now + seconds}\n`));
  const argv = ['sh', '-c', START, 'sh', files.script, `${seconds}`];
  const started = await runStep(transport, 'deploy/no-watchdog', 'start the watchdog', argv, {
    help: 'nothing was changed; without --confirm no watchdog is needed',
  });
  return started.ok ? succeed(null) : started;
}

/** As `beginTrial`, with commands of one's own to go back. */
export async function beginOwnTrial(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
  watch: Watch,
): Promise<Result<null>> {
  const files = trialFiles(paths, device, generation);
  await clearTrials(transport, files.directory);
  return startWatchdog(transport, files, watch);
}

/** A command that is only run while the trial waits: the switch must not come after its end. */
export function whileWaiting(
  paths: DeployPaths,
  device: string,
  generation: number,
  argv: readonly string[],
): readonly string[] {
  const { pending } = trialFiles(paths, device, generation);
  const script =
    'test -e "$1" || { echo "the time to confirm is over" >&2; exit 1; }; shift; exec "$@"';
  return ['sh', '-c', script, 'sh', pending, ...argv];
}

/** Decides for the new program; false when the machine has decided already. */
export async function claimTrial(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<boolean> {
  const { pending, confirmed } = trialFiles(paths, device, generation);
  return (await transport.run(['mv', '--', pending, confirmed])).code === 0;
}

/** Takes a deployment back at once, also one that died while it was taken back. */
export async function endTrial(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  generation: number,
): Promise<Result<null>> {
  const { script } = trialFiles(paths, device, generation);
  const what = 'put back what was there before';
  const done = await runStep(transport, 'deploy/rollback-failed', what, ['sh', script, '0']);
  return done.ok ? succeed(null) : done;
}

/** Forgets trials that are over. */
export async function forgetTrials(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<void> {
  await clearTrials(transport, trialDirectory(paths, device));
}

/** Refuses a change while a deployment waits to be confirmed. */
function waitingDiagnostic(device: string) {
  return errorAt('deploy/unconfirmed', `the last deployment to ${device} is not confirmed yet`, {
    help: `first \`confirm --dev ${device}\` or \`rollback --dev ${device}\``,
  });
}

/** What `status` says of a trial; null when there is nothing to say. */
export function describeTrial(trial: Trial): Reason | null {
  switch (trial.kind) {
    case 'none':
      return null;
    case 'waiting':
      return {
        code: 'deploy/unconfirmed',
        message: `not confirmed: goes back by itself at ${new Date(trial.until * 1000).toISOString()}`,
      };
    case 'claimed':
      return {
        code: 'deploy/rolling-back',
        message: 'it is being taken back, or that was cut short',
      };
    case 'rolled-back':
      return {
        code: 'deploy/rolled-back',
        message: `generation ${trial.generation} was taken back at ${trial.at}: nobody confirmed it`,
      };
  }
}

/** Refuses while a deployment waits to be confirmed; ends one that was cut short. */
export async function settleTrial(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<Result<null>> {
  const trial = await readTrial(transport, paths, device);
  if (trial.kind === 'waiting') return fail(waitingDiagnostic(device));
  if (trial.kind === 'claimed') return endTrial(transport, paths, device, trial.generation);
  return succeed(null);
}
