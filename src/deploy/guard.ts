import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { detachArgv, type XdpMode } from './attachment.ts';
import { complaint, runStep } from './machine.ts';
import { type DeployPaths, lockFile, stateFile, watchDirectory } from './paths.ts';
import { quoteWord, quoteWords } from './shell.ts';
import type { Held, Transport } from './transport.ts';

/**
 * The guard is a script on the machine of the device that needs nothing of this process. It runs
 * `nft monitor` and numbers what it hears in the file `events`, a line each: number, seconds since the
 * machine started, words. Who has brought the program into step writes the number that this covers into
 * `synced`. While that is behind for longer than the limit, the guard takes the program off.
 */
export interface GuardRequest {
  readonly device: string;
  readonly mode: XdpMode;
  /** Seconds that the program may stay on while it is out of step; null: for ever. */
  readonly limit: number | null;
}

/** A change of the ruleset, or what counts as one: the monitor began, ended or lost something. */
export interface GuardEvent {
  readonly number: number;
  readonly what: string;
}

/** Lines of `events` that are kept at least, once they are in step. */
const KEPT_EVENTS = 100;

/** NETLINK_NETFILTER, include/uapi/linux/netlink.h; the second column of /proc/net/netlink. */
const NETLINK_NETFILTER = 12;

function writeScript(paths: DeployPaths, { device, mode, limit }: GuardRequest): string {
  return `#!/bin/sh
# Notes each change of the ruleset; takes the program of nft-offload off when nobody follows in time.
PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
export PATH LC_ALL
state=${quoteWord(stateFile(paths, device))}
lock=${quoteWord(lockFile(paths, device))}
device=${quoteWord(device)}
limit=${limit ?? 0}
cd -- ${quoteWord(watchDirectory(paths, device))} || exit 1

read_synced() { synced=0; [ ! -e synced ] || read -r synced _ <synced; }

# Seconds since the first event that nobody followed; nothing when all is in step.
behind() {
  read_synced
  awk -v synced="$synced" 'NR == 1 { now = $1; next }
    $1 + 0 > synced + 0 { printf "%.2f\\n", now - $2; exit }' /proc/uptime events
}

# Whether a program that is recorded as ours is on the device.
attached() {
  [ -e "$state" ] || return 1
  programs=$(bpftool net show dev "$device" 2>/dev/null)
  for id in $(sed -n 's/.*"programId": \\([0-9]*\\).*/\\1/p' "$state"); do
    case "$programs " in *" id $id"[!0-9]*) return 0 ;; esac
  done
  return 1
}

take_off() {
  attached || return 0
  ${quoteWords(detachArgv(device, mode))} || return 1
  read -r up _ </proc/uptime
  echo "$up $1" >off.new && mv -f off.new off
}

listen() {
  while [ -e guard ]; do
    nft monitor &
    monitor=$!
    # Changes count from when it listens; the kernel says so.
    tries=0
    until grep -q "^[0-9a-f]* *${NETLINK_NETFILTER} *$monitor  *0*[1-9a-f]" /proc/net/netlink; do
      tries=$((tries + 1))
      [ "$tries" -lt 250 ] && kill -0 "$monitor" 2>/dev/null || break
      sleep 0.02
    done
    echo '# listening'
    wait "$monitor"
    echo '# monitor ended'
    sleep 0.5
  done
}

note() {
  read_synced
  number=$(tail -n 1 events 2>/dev/null | sed 's/ .*//')
  number=\${number:-0}
  [ "$number" -ge "$synced" ] || number=$synced
  while read -r _ what; do
    kill -0 "$$" 2>/dev/null || exit
    read -r up _ </proc/uptime
    read_synced
    [ $((number % ${KEPT_EVENTS})) -ne 0 ] || [ "$synced" -lt "$number" ] || : >events
    number=$((number + 1))
    echo "$number $up $what" >>events
  done
}

case $1 in
  follow)
    exec 8>guard.lock
    flock -n 8 || exit 0
    (listen | grep --line-buffered '^#' | note) 8>&- &
    while [ -e guard ]; do
      if [ "$limit" -gt 0 ] && [ -n "$(behind | awk '$1 >= '"$limit")" ] && attached 8>&-; then
        # Whoever deploys just now may be about to bring it into step; but not for ever.
        exec 9>>"$lock"
        flock -w 2 9 8>&-
        [ -z "$(behind)" ] || take_off "nobody followed a change of the ruleset for $limit s" 8>&- 9>&-
        exec 9>&-
      fi
      sleep 1 8>&-
    done
    kill -- "-$$"
    ;;
  alive) ! flock -n guard.lock true ;;
  check) attached && ! flock -n guard.lock true ;;
  off)
    exec 9>>"$lock"
    flock -w 2 9
    take_off "$2" 9>&-
    ;;
  reason) echo "$2" >reason.new && mv -f reason.new reason ;;
  confirm)
    # The guard takes nothing off meanwhile, and afterwards it knows.
    exec 9>>"$lock"
    flock -w 10 9
    behind
    read -r up _ </proc/uptime
    echo "$2 $up" >synced.new && mv -f synced.new synced && rm -f off reason
    attached 9>&- || { echo "the program has been taken off meanwhile" >&2; exit 1; }
    ;;
  state)
    read -r up _ </proc/uptime
    echo "now $up"
    flock -n guard.lock true || echo alive
    echo "behind $(behind)"
    for file in synced off reason; do
      [ ! -e "$file" ] || echo "$file $(cat "$file")"
    done
    ;;
esac
`;
}

function scriptFile(paths: DeployPaths, device: string): string {
  return `${watchDirectory(paths, device)}/guard`;
}

/** What the guard of one device does when asked. */
async function ask(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  ...words: readonly string[]
): Promise<Result<string>> {
  const result = await transport.run(['sh', scriptFile(paths, device), ...words]);
  if (result.code === 0) return succeed(result.stdout);
  const message = `the guard on the machine does not do as told: ${complaint(result)}`;
  return fail(errorAt('watch/guard', message));
}

const START = 'setsid sh "$1" follow </dev/null >/dev/null 2>&1 &';

/** Waits until the guard has heard of anything; a tenth of a second each. */
const AWAIT =
  'for _ in $(seq 50); do [ -s "$1/events" ] && ! flock -n "$1/guard.lock" true && exit 0; sleep 0.1; done; exit 1';

/** Starts the guard, with that limit from now on; one that runs already is replaced. */
export async function startGuard(
  transport: Transport,
  paths: DeployPaths,
  request: GuardRequest,
): Promise<Result<null>> {
  const { device } = request;
  const directory = watchDirectory(paths, device);
  const script = scriptFile(paths, device);
  const text = writeScript(paths, request);
  const before = await transport.readFile(script);
  const isSame = before !== null && new TextDecoder().decode(before) === text;
  if (isSame && (await ask(transport, paths, device, 'alive')).ok) return succeed(null);
  // The one before ends as soon as it sees that its script is gone.
  await transport.remove(script);
  const gone = 'for _ in $(seq 50); do flock -n "$1/guard.lock" true && break; sleep 0.1; done';
  if (before !== null) await transport.run(['sh', '-c', gone, 'sh', directory]);
  await transport.writeFile(script, new TextEncoder().encode(text));
  const failed = 'watch/guard';
  const started = await runStep(transport, failed, 'start the guard', [
    ...['sh', '-c', START, 'sh', script],
  ]);
  if (!started.ok) return started;
  const heard = await runStep(
    transport,
    failed,
    'hear of changes of the ruleset',
    ['sh', '-c', AWAIT, 'sh', directory],
    { help: 'the machine needs `nft monitor`, flock, awk and setsid' },
  );
  return heard.ok ? succeed(null) : heard;
}

/** Ends the guard, which does so when its directory is gone. */
export async function stopGuard(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<void> {
  const directory = watchDirectory(paths, device);
  await transport.run(['rm', '-rf', '--one-file-system', '--', directory]);
}

/** Lines go on while it is wanted, and end with the line to the machine. */
const FOLLOW = `tail -n 1 -F -- "$1" 2>/dev/null &
while timeout 30 sh -c 'read -r line'; do :; done
kill $!`;

/** The guard's events, the last one of before first; null when the machine does not say any. */
export async function followGuard(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  onEvent: (event: GuardEvent) => void,
): Promise<Held | null> {
  const events = `${watchDirectory(paths, device)}/events`;
  return transport.hold(['sh', '-c', FOLLOW, 'sh', events], (line) => {
    const event = parseEvent(line);
    if (event !== null) onEvent(event);
  });
}

/** One line of the guard's events; null for anything else. */
export function parseEvent(line: string): GuardEvent | null {
  const [, number, what = ''] = /^(\d{1,15}) [\d.]+ (.*)$/.exec(line) ?? [];
  return number === undefined ? null : { number: Number(number), what };
}

/** The program is in step with all up to that event; seconds that it was not. */
export async function confirmStep(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  event: number,
): Promise<Result<number>> {
  const said = await ask(transport, paths, device, 'confirm', `${event}`);
  return said.ok ? succeed(Number(said.value.trim())) : said;
}

/** The number of the guard's last event; null where there is no guard. */
export async function lastEvent(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<number | null> {
  const events = `${watchDirectory(paths, device)}/events`;
  const { code, stdout } = await transport.run(['tail', '-n', '1', '--', events]);
  return code === 0 ? (parseEvent(stdout.trimEnd())?.number ?? null) : null;
}

/** Takes our program off, and writes down why. */
export async function takeOff(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  reason: string,
): Promise<Result<null>> {
  const done = await ask(transport, paths, device, 'off', reason);
  return done.ok ? succeed(null) : done;
}

/** Writes down why it is out of step. */
export async function noteReason(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  reason: string,
): Promise<void> {
  await ask(transport, paths, device, 'reason', reason);
}

/** Whether the guard lives and our program is on the device. */
export async function isGuarded(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<boolean> {
  return (await ask(transport, paths, device, 'check')).ok;
}

/** Whether a device is in step with its ruleset, as the guard on the machine knows. */
export interface StepReport {
  readonly step: 'in' | 'out';
  /** Since when, in seconds. */
  readonly seconds: number;
  /** Why it is out of step; null where that is not known. */
  readonly reason: string | null;
  /** Why the program was taken off; null while it was not. */
  readonly off: string | null;
  /** False: changes of the ruleset go unnoticed. */
  readonly guarded: boolean;
}

/** What the guard prints for `state`. */
export function parseStep(text: string): StepReport {
  const lines = new Map(
    text.split('\n').map((line) => {
      const [key = '', ...rest] = line.split(' ');
      return [key, rest.join(' ')] as const;
    }),
  );
  const behind = lines.get('behind') ?? '';
  const [, since = '0'] = (lines.get('synced') ?? '').split(' ');
  const off = lines.get('off');
  return {
    step: behind === '' ? 'in' : 'out',
    seconds: behind === '' ? Number(lines.get('now') ?? 0) - Number(since) : Number(behind),
    reason: lines.get('reason') ?? null,
    off: off === undefined ? null : off.replace(/^\S+ /, ''),
    guarded: lines.has('alive'),
  };
}

/** Whether the device is in step; null where nobody watches it. */
export async function readStep(
  transport: Transport,
  paths: DeployPaths,
  device: string,
): Promise<StepReport | null> {
  const said = await ask(transport, paths, device, 'state');
  return said.ok ? parseStep(said.value) : null;
}
