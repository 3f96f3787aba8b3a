import { errorAt, fail, type Result } from '../support/diagnostics.ts';
import { type DeployPaths, lockFile } from './paths.ts';
import type { Transport } from './transport.ts';

/**
 * Holds the lock while lines come in. The kernel lets go of it when the process ends, however it does:
 * at the end of its input, or half a minute after the line to the machine broke without a word.
 */
const HOLDER = `umask 077
test -d "$2" || mkdir -p -- "$2" && : >>"$1" || exit 1
exec 9>>"$1"
flock -n 9 || { echo busy; exit 1; }
echo locked
while timeout 30 sh -c 'read -r line'; do :; done`;

/** Errors of files and connections, in distinction to bugs. */
export function isSystemError(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && typeof error.code === 'string';
}

/** Runs `work` while nobody else changes the device's program. */
export async function withDeviceLock<T>(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  work: () => Promise<Result<T>>,
): Promise<Result<T>> {
  const lock = lockFile(paths, device);
  const held = await transport.hold(['sh', '-c', HOLDER, 'sh', lock, paths.state]);
  if (held === null) {
    const message = `cannot lock ${device}: no file can be made in ${paths.state}, or the connection was lost`;
    return fail(errorAt('deploy/io', message));
  }
  if (held.line !== 'locked') {
    await held.release();
    const help = 'wait until it is done; a session that died lets go of the device by itself';
    return fail(errorAt('deploy/busy', `somebody else is deploying to ${device}`, { help }));
  }
  try {
    return await work();
  } catch (error) {
    if (!isSystemError(error)) throw error;
    return fail(errorAt('deploy/io', `the machine does not do as told: ${error.message}`));
  } finally {
    await held.release();
  }
}
