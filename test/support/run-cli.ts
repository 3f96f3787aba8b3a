import { join } from 'node:path';
import { execa } from 'execa';

/** The root of the project. */
export const PROJECT = join(import.meta.dirname, '../..');

/** What a run of the command line left behind. */
export interface CliRun {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command line from its sources, as an ordinary process. */
export async function runCli(
  args: readonly string[],
  options: { readonly input?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<CliRun> {
  const { exitCode, stdout, stderr } = await execa(
    process.execPath,
    ['--import', 'tsx', join(PROJECT, 'src/cli/main.ts'), ...args],
    { cwd: PROJECT, reject: false, input: options.input ?? '', env: { ...options.env } },
  );
  return { exitCode, stdout, stderr };
}
