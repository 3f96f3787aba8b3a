import { expect, it } from 'vitest';
import type { AppliedChange } from '../../src/deploy/apply-change.ts';
import { type GuardEvent, parseEvent, parseStep } from '../../src/deploy/guard.ts';
import {
  runWatch,
  TIMES,
  type WatchClock,
  type WatchLine,
  type WatchSession,
} from '../../src/deploy/watch.ts';
import { errorAt, fail, type Result, succeed } from '../../src/support/diagnostics.ts';

/** A clock that jumps to the next thing that is due, and ends when nothing is. */
function fakeClock(
  stop: AbortController,
  until: number,
): WatchClock & { at: Map<number, () => void> } {
  let now = 0;
  const at = new Map<number, () => void>();
  const happen = (end: number, signal: AbortSignal): void => {
    for (const [due, what] of [...at].sort(([a], [b]) => a - b)) {
      if (due > end || signal.aborted) break;
      at.delete(due);
      now = Math.max(now, due);
      what();
    }
  };
  return {
    at,
    now: () => now,
    async sleep(duration, signal) {
      const end = now + duration;
      happen(end, signal);
      // What was made to happen may have ended this sleep early.
      if (!signal.aborted) now = end;
      if (now >= until) stop.abort();
      await Promise.resolve();
    },
  };
}

const CHANGED: Result<AppliedChange> = succeed({
  kind: 'unchanged',
  rulesetChecksum: 'sum',
});
const UNREADABLE = fail(errorAt('read/live', 'the live ruleset cannot be listed'));
const BUSY = fail(errorAt('deploy/busy', 'somebody else is deploying'));

interface Scene {
  /** Events of the guard, by time; milliseconds. */
  readonly events?: readonly number[];
  /** What each step comes to; the last one for all that follow. */
  readonly steps?: readonly Result<AppliedChange>[];
  readonly keep?: boolean;
  readonly isDeployed?: boolean;
  /** When the line breaks, and how many connections after that fail. */
  readonly breaksAt?: number;
  readonly unreachable?: number;
  /** From when on the program is gone, until the next step. */
  readonly unwellAt?: number;
  /** Events that come in the middle of the first step. */
  readonly during?: number;
}

/** Plays a scene for a minute; what was said, with what was asked of the machine. */
async function play(scene: Scene) {
  const { events = [], steps = [CHANGED], isDeployed = true } = scene;
  const stop = new AbortController();
  const clock = fakeClock(stop, 60_000);
  const lines: WatchLine[] = [];
  const log: string[] = [];
  let [number, step, connections, isUnwell] = [1, 0, 0, false];
  let tell: (event: GuardEvent) => void = () => {};
  const change = (): void => {
    number += 1;
    tell({ number, what: 'new generation' });
  };
  for (const [index, time] of events.entries()) clock.at.set(time + index / 1000, change);
  let breakLine = (): void => {};
  if (scene.breaksAt !== undefined) clock.at.set(scene.breaksAt, () => breakLine());
  if (scene.unwellAt !== undefined) {
    clock.at.set(scene.unwellAt, () => {
      isUnwell = true;
    });
  }
  const session: WatchSession = {
    ended: Promise.resolve(),
    isDeployed,
    async sync() {
      log.push(`sync ${number}`);
      isUnwell = false;
      const result = steps[Math.min(step, steps.length - 1)] ?? CHANGED;
      if (step === 0) for (let more = scene.during ?? 0; more > 0; more -= 1) change();
      step += 1;
      return result;
    },
    async confirm(event) {
      log.push(`confirm ${event}`);
      return succeed(0.5);
    },
    async noteReason() {},
    async takeOff() {
      log.push('off');
      return succeed(null);
    },
    isWell: async () => !isUnwell,
    async abandon() {
      log.push('abandon');
    },
    async close() {
      log.push('close');
    },
  };
  const done = await runWatch(
    {
      clock,
      say: (line) => lines.push(line),
      async connect(onEvent) {
        connections += 1;
        if (connections > 1 && connections <= 1 + (scene.unreachable ?? 0)) {
          return fail(errorAt('ssh/unreachable', 'no route'));
        }
        tell = onEvent;
        onEvent({ number, what: 'listening' });
        return succeed({
          ...session,
          ended: new Promise<void>((resolve) => {
            breakLine = resolve;
          }),
        });
      },
    },
    { keep: scene.keep === true },
    stop.signal,
  );
  return { done, log, said: lines.map(({ event }) => event), lines };
}

it('steps once at the start, and once for a burst of changes', async () => {
  const burst = Array.from({ length: 100 }, (_, index) => 1000 + index);
  const { log, lines } = await play({ events: burst });
  expect(log).toEqual(['sync 1', 'confirm 1', 'sync 101', 'confirm 101', 'close']);
  expect(lines[1]).toMatchObject({ event: 'in-step', events: 100, seconds: 0.5 });
});

it('does not wait for ever for the end of a burst', async () => {
  const events = Array.from({ length: 100 }, (_, index) => 1000 + 40 * index);
  const { log } = await play({ events });
  const steps = log.filter((line) => line.startsWith('sync')).length;
  expect(steps).toBeGreaterThan((40 * 100) / (TIMES.longest + TIMES.quiet));
  expect(log.at(-2)).toBe('confirm 101');
});

it('covers only changes from before the ruleset was read', async () => {
  const { log } = await play({ during: 2 });
  expect(log).toEqual(['sync 1', 'confirm 1', 'sync 3', 'confirm 3', 'close']);
});

it('takes the program off where the ruleset cannot be followed, and puts it back later', async () => {
  const steps = [CHANGED, UNREADABLE, CHANGED];
  const { log, said } = await play({ events: [1000], steps });
  expect(log).toEqual(['sync 1', 'confirm 1', 'sync 2', 'off', 'sync 2', 'confirm 2', 'close']);
  expect(said).toEqual(['in-step', 'out-of-step', 'taken-off', 'in-step', 'ended']);
});

it('leaves the program where it is told to', async () => {
  const { log, said } = await play({ events: [1000], steps: [CHANGED, UNREADABLE], keep: true });
  expect(log).not.toContain('off');
  expect(said).toContain('out-of-step');
});

it('tries again what passes by itself, less and less often, and leaves the rest to the guard', async () => {
  const { log } = await play({ events: [1000], steps: [CHANGED, BUSY] });
  expect(log).not.toContain('off');
  // 0.5, 1, 2, ... seconds: not more than seven in a minute.
  const tries = log.filter((line) => line === 'sync 2').length;
  expect(tries).toBeGreaterThan(3);
  expect(tries).toBeLessThan(8);
});

it('tries at once what failed when the ruleset changes again', async () => {
  const steps = [CHANGED, UNREADABLE, UNREADABLE, UNREADABLE, UNREADABLE, CHANGED];
  const { log } = await play({ events: [1000, 6000], steps: [...steps.slice(0, 4), CHANGED] });
  expect(log).toContain('confirm 3');
});

it('steps after each new line to the machine', async () => {
  const { log, said } = await play({ breaksAt: 2000, unreachable: 3 });
  expect(log).toEqual(['sync 1', 'confirm 1', 'close', 'sync 1', 'confirm 1', 'close']);
  expect(said.filter((event) => event === 'disconnected')).toHaveLength(4);
});

it('puts back a program that is gone', async () => {
  const { log, said } = await play({ unwellAt: 7000 });
  expect(log).toEqual(['sync 1', 'confirm 1', 'close', 'sync 1', 'confirm 1', 'close']);
  expect(said).toContain('unwell');
});

it('fails where nothing of ours is there and nothing can be put there', async () => {
  const { done, log, said } = await play({ isDeployed: false, steps: [UNREADABLE] });
  expect(done.ok).toBe(false);
  expect(log).toEqual(['sync 1', 'abandon', 'close']);
  expect(said).toEqual([]);
});

it.each([
  [
    '12 45.67 new generation 5 by process 8 (nft)',
    { number: 12, what: 'new generation 5 by process 8 (nft)' },
  ],
  ['1 0.05 listening', { number: 1, what: 'listening' }],
  ['', null],
  ['tail: events: file truncated', null],
  ['12 new generation', null],
])('reads the event %j', (line, event) => {
  expect(parseEvent(line)).toEqual(event);
});

it('reads what the guard knows', () => {
  expect(parseStep('now 100.50\nalive\nbehind \nsynced 7 90.00\n')).toEqual({
    ...{ step: 'in', seconds: 10.5, reason: null, off: null, guarded: true },
  });
  expect(
    parseStep('now 100.50\nbehind 3.20\nsynced 7 90.00\noff 99.00 why\nreason it is bad\n'),
  ).toEqual({ step: 'out', seconds: 3.2, reason: 'it is bad', off: 'why', guarded: false });
});
