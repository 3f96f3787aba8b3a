import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import type { AppliedChange } from './apply-change.ts';
import type { GuardEvent } from './guard.ts';
import { isSystemError } from './lock.ts';

/** A line to a machine whose guard tells of changes. */
export interface WatchSession {
  /** Settles when the line, or what told of changes, has ended. */
  readonly ended: Promise<void>;
  /** Something of ours is deployed there. */
  readonly isDeployed: boolean;
  /** Reads the ruleset as it is, and brings the program into step with it. */
  sync(): Promise<Result<AppliedChange>>;
  /** Tells the guard that all up to this event is covered; seconds out of step till now. */
  confirm(event: number): Promise<Result<number>>;
  /** Tells the guard why it is out of step. */
  noteReason(reason: string): Promise<void>;
  takeOff(reason: string): Promise<Result<null>>;
  /** Our program is on the device, and the guard lives. */
  isWell(): Promise<boolean>;
  /** Ends the guard: there is nothing to watch. */
  abandon(): Promise<void>;
  close(): Promise<void>;
}

/** Time, in milliseconds. */
export interface WatchClock {
  now(): number;
  /** Ends early when the signal is given. */
  sleep(duration: number, signal: AbortSignal): Promise<void>;
}

/** What the watcher works with. */
export interface WatchPort {
  /** `onEvent` gets the guard's last event first. */
  connect(onEvent: (event: GuardEvent) => void): Promise<Result<WatchSession>>;
  readonly clock: WatchClock;
  say(line: WatchLine): void;
}

/** What happened; can be written as JSON. */
export type WatchLine =
  /** `seconds` out of step before; `events`: changes that this one step covers. */
  | {
      readonly event: 'in-step';
      readonly seconds: number;
      readonly events: number;
      readonly change: AppliedChange['kind'];
      /** Stored into the program's tables; null where another program took its place, or none. */
      readonly words: number | null;
      readonly rulesetChecksum: string;
    }
  | { readonly event: 'out-of-step'; readonly diagnostics: readonly Diagnostic[] }
  | { readonly event: 'taken-off'; readonly reason: string }
  | { readonly event: 'unwell' }
  | { readonly event: 'disconnected'; readonly diagnostics: readonly Diagnostic[] }
  | { readonly event: 'ended' };

/** How to watch. */
export interface WatchOptions {
  /** The program stays on whatever happens. */
  readonly keep: boolean;
}

/** Milliseconds. */
export const TIMES = {
  /** So long without a change ends a burst of them, which then counts as one; */
  quiet: 50,
  /** but no burst waits longer. */
  longest: 500,
  /** Between two looks at the device. */
  look: 5_000,
  /** Before a step, or a connection, is tried again: doubled each time. */
  retry: { first: 500, most: 30_000 },
} as const;

function retryAfter(failures: number): number {
  return Math.min(TIMES.retry.first * 2 ** (failures - 1), TIMES.retry.most);
}

/** What may be over by itself: everything that is about the machine, and not about its ruleset. */
function isPassing({ code }: Diagnostic): boolean {
  return /^(deploy|ssh|watch)\//.test(code) && code !== 'deploy/self-test';
}

function describe(diagnostics: readonly Diagnostic[]): string {
  const errors = diagnostics.filter(({ severity }) => severity === 'error');
  return errors.map(({ code, message }) => `${message} (${code})`).join('; ');
}

/** What is heard of one machine; a change, its end and the signal to stop end a sleep early. */
interface Feed {
  /** The guard's last event. */
  seen: number;
  isOver: boolean;
  ring(): void;
  sleep(duration: number): Promise<void>;
}

function createFeed(clock: WatchClock, stop: AbortSignal): Feed {
  let bell = new AbortController();
  return {
    seen: 0,
    isOver: false,
    ring: () => bell.abort(),
    async sleep(duration) {
      await clock.sleep(duration, AbortSignal.any([bell.signal, stop]));
      if (bell.signal.aborted) bell = new AbortController();
    },
  };
}

/** Waits for the end of a burst of changes. */
async function waitForQuiet(clock: WatchClock, feed: Feed, stop: AbortSignal): Promise<void> {
  const end = clock.now() + TIMES.longest;
  let before = -1;
  while (before !== feed.seen && clock.now() < end && !stop.aborted) {
    before = feed.seen;
    await clock.sleep(TIMES.quiet, stop);
  }
}

/** One step: the program covers all up to the event that was seen last, or it is said why not. */
async function takeStep(
  { say }: WatchPort,
  session: WatchSession,
  feed: Feed,
  covered: number | null,
  { keep }: WatchOptions,
): Promise<Result<null>> {
  const upTo = feed.seen;
  const synced = await session.sync();
  if (synced.ok) {
    const confirmed = await session.confirm(upTo);
    if (!confirmed.ok) return confirmed;
    const { kind: change, rulesetChecksum } = synced.value;
    const words = change === 'unchanged' ? null : (synced.value.report.inPlace?.words ?? null);
    const events = Math.max(0, upTo - (covered ?? upTo));
    const seconds = confirmed.value;
    say({ event: 'in-step', seconds, events, change, words, rulesetChecksum });
    return succeed(null);
  }
  if (!session.isDeployed && covered === null) return synced;
  say({ event: 'out-of-step', diagnostics: synced.diagnostics });
  const reason = describe(synced.diagnostics);
  await session.noteReason(reason);
  // What passes by itself is tried again; the guard takes the program off when that lasts too long.
  if (!keep && !synced.diagnostics.every(isPassing)) {
    const off = await session.takeOff(reason);
    if (off.ok) say({ event: 'taken-off', reason });
  }
  return synced;
}

/**
 * Steps after each change until the line ends or `stop` is given. Fails when nothing of ours is on the
 * machine and nothing can be put there: then there is nothing to watch.
 */
async function followSession(
  port: WatchPort,
  session: WatchSession,
  feed: Feed,
  options: WatchOptions,
  stop: AbortSignal,
): Promise<Result<null>> {
  const { clock, say } = port;
  let [failures, dueAt] = [0, 0];
  /** The last event that the program is in step with; null: of none on this line. */
  let covered: number | null = null;
  /** The last event when a step was tried last; null: a step is due. */
  let tried: number | null = null;
  while (!stop.aborted && !feed.isOver) {
    if (tried === feed.seen && !(failures > 0 && clock.now() >= dueAt)) {
      await feed.sleep(failures > 0 ? dueAt - clock.now() : TIMES.look);
      const isIdle = failures === 0 && tried === feed.seen && !stop.aborted && !feed.isOver;
      if (isIdle && !(await session.isWell())) {
        say({ event: 'unwell' });
        tried = null;
        // The guard may be gone, and a new one is started on a new line.
        return succeed(null);
      }
      continue;
    }
    if (tried !== null) await waitForQuiet(clock, feed, stop);
    tried = feed.seen;
    const stepped = await takeStep(port, session, feed, covered, options);
    if (stepped.ok) [covered, failures] = [tried, 0];
    else if (!session.isDeployed && covered === null) return stepped;
    else failures += 1;
    dueAt = clock.now() + retryAfter(failures);
  }
  return succeed(null);
}

/**
 * Keeps the program of a device in step with its ruleset until `stop` is given: after each change, on every
 * new line to the machine, and when the program or the guard is gone. Fails only at the start.
 */
export async function runWatch(
  port: WatchPort,
  options: WatchOptions,
  stop: AbortSignal,
): Promise<Result<null>> {
  let failures = 0;
  let isFirst = true;
  while (!stop.aborted) {
    const feed = createFeed(port.clock, stop);
    const opened = await attempt(() =>
      port.connect(({ number }) => {
        feed.seen = number;
        feed.ring();
      }),
    );
    if (!opened.ok) {
      if (isFirst) return opened;
      failures += 1;
      port.say({ event: 'disconnected', diagnostics: opened.diagnostics });
      await port.clock.sleep(retryAfter(failures), stop);
      continue;
    }
    const session = opened.value;
    void session.ended.then(() => {
      feed.isOver = true;
      feed.ring();
    });
    const done = await attempt(() => followSession(port, session, feed, options, stop));
    const isHopeless = !done.ok && isFirst && !session.isDeployed;
    if (isHopeless) await session.abandon();
    await session.close();
    if (isHopeless) return done;
    isFirst = false;
    failures = done.ok ? 0 : failures + 1;
    if (stop.aborted) break;
    if (!done.ok || feed.isOver) port.say({ event: 'disconnected', diagnostics: done.diagnostics });
    await port.clock.sleep(retryAfter(Math.max(1, failures)), stop);
  }
  port.say({ event: 'ended' });
  return succeed(null);
}

/** Faults of the machine and of the line to it are told like any other. */
async function attempt<T>(work: () => Promise<Result<T>>): Promise<Result<T>> {
  try {
    return await work();
  } catch (error) {
    if (!isSystemError(error)) throw error;
    return fail(errorAt('watch/io', `the machine does not do as told: ${error.message}`));
  }
}
