import { StringDecoder } from 'node:string_decoder';

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
  /** Is told what the process says on standard output, as it comes. */
  readonly onOutput?: ((text: string) => void) | undefined;
  /** Bytes; a process that says more is ended. */
  readonly mostOutput: number;
}

/** Runs a program with exactly these arguments to its end; no shell ever sees them. */
export async function runProcess(
  program: string,
  args: readonly string[],
  { input = '', cwd, env = {}, onOutput, mostOutput }: ProcessOptions,
): Promise<Finished> {
  // Many runs start no program, and loading it takes longer than reading a small ruleset.
  const { execa } = await import('execa');
  const child = execa(program, args, {
    ...{ input, env: { ...env }, maxBuffer: mostOutput, reject: false, stripFinalNewline: false },
    ...(cwd === undefined ? {} : { cwd }),
  });
  if (onOutput !== undefined) {
    const decoder = new StringDecoder('utf8');
    child.stdout.on('data', (chunk: Buffer) => onOutput(decoder.write(chunk)));
  }
  const result = await child;
  const { exitCode = null, signal = null, stdout, stderr, code } = result;
  const isSilent = exitCode === null && stderr === '';
  return {
    started: code !== 'ENOENT',
    ...{ status: exitCode, signal: signal ?? null, stdout },
    stderr: isSilent ? (result.shortMessage ?? '') : stderr,
  };
}
