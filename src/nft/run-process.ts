import { spawn } from 'node:child_process';

/** What a finished process left; `status` is null when it was ended by `signal` or never started. */
export interface Finished {
  readonly started: boolean;
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProcessOptions {
  /** Nothing when it is left out. */
  readonly input?: string | undefined;
  readonly cwd?: string | undefined;
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Bytes; a process that says more is ended. */
  readonly mostOutput: number;
}

/** Runs a program with exactly these arguments to its end; no shell ever sees them. */
export function runProcess(
  program: string,
  args: readonly string[],
  { input = '', cwd, env, mostOutput }: ProcessOptions,
): Promise<Finished> {
  return new Promise((resolve) => {
    const said: { readonly stdout: Buffer[]; readonly stderr: Buffer[] } = {
      stdout: [],
      stderr: [],
    };
    const text = (stream: keyof typeof said): string => Buffer.concat(said[stream]).toString();
    const child = spawn(program, args, { cwd, env: { ...process.env, ...env } });
    let size = 0;
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream].on('data', (data: Buffer) => {
        size += data.length;
        if (size > mostOutput) child.kill('SIGKILL');
        else said[stream].push(data);
      });
    }
    child.on('error', (error: NodeJS.ErrnoException) => {
      const stderr = text('stderr') || error.message;
      const started = error.code !== 'ENOENT';
      resolve({ started, status: null, signal: null, stdout: text('stdout'), stderr });
    });
    child.on('close', (status, signal) => {
      resolve({ started: true, status, signal, stdout: text('stdout'), stderr: text('stderr') });
    });
    // A program that ends before it has read all closes its input; its exit status says why.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}
