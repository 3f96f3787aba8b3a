import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import type { AppliedChange } from './apply-change.ts';
import {
  confirmStep,
  followGuard,
  type GuardEvent,
  type GuardRequest,
  isGuarded,
  noteReason,
  startGuard,
  stopGuard,
  takeOff,
} from './guard.ts';
import type { DeployPaths } from './paths.ts';
import type { Transport } from './transport.ts';
import type { WatchSession } from './watch.ts';

/** A machine to watch, and how its program comes into step. */
export interface WatchedMachine {
  readonly transport: Transport;
  readonly paths: DeployPaths;
  readonly isDeployed: boolean;
  sync(): Promise<Result<AppliedChange>>;
  close(): void;
}

/** Makes sure that the machine has a guard, and follows what that notes. */
export async function openWatchSession(
  { transport, paths, isDeployed, sync, close }: WatchedMachine,
  request: GuardRequest,
  onEvent: (event: GuardEvent) => void,
): Promise<Result<WatchSession>> {
  const { device } = request;
  const started = await startGuard(transport, paths, request);
  if (!started.ok) return started;
  const held = await followGuard(transport, paths, device, onEvent);
  if (held === null) {
    return fail(errorAt('watch/guard', 'the machine does not tell of changes of its ruleset'));
  }
  return succeed({
    ended: held.ended,
    isDeployed,
    sync,
    confirm: (event) => confirmStep(transport, paths, device, event),
    noteReason: (reason) => noteReason(transport, paths, device, reason),
    takeOff: (reason) => takeOff(transport, paths, device, reason),
    isWell: () => isGuarded(transport, paths, device),
    async abandon() {
      await stopGuard(transport, paths, device);
    },
    async close() {
      await held.release();
      close();
    },
  });
}
