import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';

/** The root of the project. */
export const PROJECT = join(import.meta.dirname, '../..');

function changedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** What node runs as the command line: as it was built where nothing changed since, else the sources. */
function findMain(): readonly string[] {
  const [built, sources] = [join(PROJECT, 'dist/cli/main.js'), join(PROJECT, 'src')];
  const files = readdirSync(sources, { recursive: true, encoding: 'utf8' });
  const last = Math.max(...files.map((file) => changedAt(join(sources, file))));
  return changedAt(built) > last ? [built] : ['--import', 'tsx', join(sources, 'cli/main.ts')];
}

export const MAIN = findMain();

/** What a run of the command line left behind. */
export interface CliRun {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command line as an ordinary process. */
export async function runCli(
  args: readonly string[],
  options: { readonly input?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<CliRun> {
  const { exitCode, stdout, stderr } = await execa(process.execPath, [...MAIN, ...args], {
    cwd: PROJECT,
    reject: false,
    input: options.input ?? '',
    env: { ...options.env },
  });
  return { exitCode, stdout, stderr };
}
