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
export async function runProcess(
  program: string,
  args: readonly string[],
  { input = '', cwd, env = {}, mostOutput }: ProcessOptions,
): Promise<Finished> {
  // Many runs start no program, and loading it takes longer than reading a small ruleset.
  const { execa } = await import('execa');
  const result = await execa(program, args, {
    ...{ input, env: { ...env }, maxBuffer: mostOutput, reject: false, stripFinalNewline: false },
    ...(cwd === undefined ? {} : { cwd }),
  });
  const { exitCode = null, signal = null, stdout, stderr, code } = result;
  const isSilent = exitCode === null && stderr === '';
  return {
    started: code !== 'ENOENT',
    ...{ status: exitCode, signal: signal ?? null, stdout },
    stderr: isSilent ? (result.shortMessage ?? '') : stderr,
  };
}
