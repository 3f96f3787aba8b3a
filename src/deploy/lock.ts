import { errorAt, fail, type Result } from '../support/diagnostics.ts';
import { complaint } from './machine.ts';
import { type DeployPaths, lockDirectory } from './paths.ts';
import type { Transport } from './transport.ts';

/** A lock older than this belongs to somebody who died: no deployment takes this long. */
const STALE_MINUTES = '10';

/** Errors of files and connections, in distinction to bugs. */
function isSystemError(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && typeof error.code === 'string';
}

/** Runs `work` while nobody else changes the device's program. */
export async function withDeviceLock<T>(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  work: () => Promise<Result<T>>,
): Promise<Result<T>> {
  const lock = lockDirectory(paths, device);
  await transport.run(['mkdir', '-p', '-m', '700', paths.state]);
  // `mkdir` without -p is the test and the lock in one step.
  let made = await transport.run(['mkdir', lock]);
  if (made.code !== 0) {
    await transport.run(['find', lock, '-maxdepth', '0', '-mmin', `+${STALE_MINUTES}`, '-delete']);
    made = await transport.run(['mkdir', lock]);
  }
  if (made.code !== 0) {
    return fail(
      errorAt('deploy/busy', `somebody else is deploying to ${device}: ${complaint(made)}`, {
        help: `wait; if nobody is, remove the directory ${lock}`,
      }),
    );
  }
  try {
    return await work();
  } catch (error) {
    if (!isSystemError(error)) throw error;
    return fail(errorAt('deploy/io', `the machine does not do as told: ${error.message}`));
  } finally {
    // Where the connection is gone the lock becomes stale.
    await transport.run(['rmdir', lock]).catch(() => {});
  }
}
