import { execFile } from 'node:child_process';

/** Runs a program to its end and gives its standard output; a failure throws with its standard error. */
export function runCommand(
  program: string,
  args: readonly string[],
  input: string | Uint8Array | null = null,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...args],
      { encoding: 'buffer', maxBuffer: 1 << 30 },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else {
          const said = stderr.toString().trim();
          reject(new Error(`${program} ${args.join(' ')}: ${said === '' ? error.message : said}`));
        }
      },
    );
    // A program that dies early closes its input; its exit status says why.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input ?? '');
  });
}
