import { readFile } from 'node:fs/promises';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';

/** The text of a file that the command line names; `what` says what it should hold. */
export async function readTextFile(
  path: string,
  code: string,
  what: string,
): Promise<Result<string>> {
  try {
    return succeed(await readFile(path, 'utf8'));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return fail(errorAt(code, `cannot read ${what}: ${why}`));
  }
}
