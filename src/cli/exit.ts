import type { Result } from '../support/diagnostics.ts';
import { reportDiagnostics } from './output.ts';

/** Exit codes scripts rely on; `partly`: done on some hosts, not on others. */
export const EXIT = { done: 0, refused: 1, usage: 2, partly: 3 } as const;

/** The value, its warnings told; or null, the errors told and the exit code set. */
export function unwrapResult<T>(result: Result<T>): T | null {
  reportDiagnostics(result.diagnostics);
  if (result.ok) return result.value;
  process.exitCode = EXIT.refused;
  return null;
}
