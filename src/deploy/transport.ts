import { spawn } from 'node:child_process';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { runProcess } from '../nft/run-process.ts';

/** How a program ended; `code` is 127 where there is no such program, as a shell has it. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The machine that is deployed to: all that `src/deploy` does there goes through these. */
export interface Transport {
  /** Runs a program with exactly these arguments (no shell ever sees them), to its end. */
  run(argv: readonly string[], options?: { readonly input?: string }): Promise<CommandResult>;
  /**
   * Starts a program that goes on while it is wanted, and waits for its first line; null when it ends
   * before it says one. Its input ends when it is let go, and when this process or the line to the
   * machine is gone; until then it gets a line every ten seconds. `onLine` gets every line.
   */
  hold(argv: readonly string[], onLine?: (line: string) => void): Promise<Held | null>;
  /** Makes missing directories; the file appears complete or not at all, readable by its owner. */
  writeFile(path: string, content: Uint8Array): Promise<void>;
  /** Null when there is no such file. */
  readFile(path: string): Promise<Uint8Array | null>;
  /** Removes a file; none there is no error. */
  remove(path: string): Promise<void>;
}

/** A program that goes on. */
export interface Held {
  /** Its first line. */
  readonly line: string;
  /** Settles when it has ended, for whatever reason. */
  readonly ended: Promise<void>;
  /** Ends its input and waits for its end. */
  release(): Promise<void>;
}

/** Milliseconds between two signs of life. */
const SIGN_OF_LIFE = 10_000;

/** Holds a program by its input and output; see `Transport.hold`. */
export function holdStream(
  input: Writable,
  output: Readable,
  onLine: (line: string) => void = () => {},
): Promise<Held | null> {
  const alive = setInterval(() => input.write('\n'), SIGN_OF_LIFE);
  alive.unref();
  input.on('error', () => {}); // its output ends as well
  const ended = new Promise<void>((resolve) => output.once('close', resolve));
  const release = async (): Promise<void> => {
    clearInterval(alive);
    input.end();
    await ended;
  };
  return new Promise((resolve) => {
    let said = '';
    output.on('data', (data: Buffer) => {
      const lines = (said + data.toString('utf8')).split('\n');
      said = lines.pop() ?? '';
      for (const line of lines) {
        resolve({ line, ended, release });
        onLine(line);
      }
    });
    void ended.then(() => {
      clearInterval(alive);
      resolve(null);
    });
  });
}

export interface LocalTransportOptions {
  /** Put before every program: `nsenter --net=/run/netns/NAME` works in another network namespace. */
  readonly prefix?: readonly string[];
}

/** Exit status for a program that is not there, as a shell has it (POSIX sh, 2.8.2). */
export const NOT_FOUND = 127;

/** The largest output that is read: a dump of a million counters on many CPUs. */
const MAX_OUTPUT = 1 << 28;

/** This machine. */
export function openLocalTransport(options: LocalTransportOptions = {}): Transport {
  const prefix = options.prefix ?? [];
  return {
    async run(argv, { input } = {}) {
      const [program = '', ...args] = [...prefix, ...argv];
      const env = { LC_ALL: 'C' };
      const ended = await runProcess(program, args, { input, env, mostOutput: MAX_OUTPUT });
      const { started, status, stdout, stderr } = ended;
      if (status !== null) return { code: status, stdout, stderr };
      const reason = stderr || `${program} did not end by itself`;
      return { code: started ? 1 : NOT_FOUND, stdout, stderr: reason };
    },
    async hold(argv, onLine) {
      const [program = '', ...args] = [...prefix, ...argv];
      const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'ignore'] });
      child.on('error', () => {}); // its output closes
      return holdStream(child.stdin, child.stdout, onLine);
    },
    async writeFile(path, content) {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      const temporary = `${path}.${process.pid}.tmp`;
      try {
        await writeFile(temporary, content, { mode: 0o600 });
        await rename(temporary, path);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
    },
    async readFile(path) {
      try {
        return await readFile(path);
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
        throw error;
      }
    },
    async remove(path) {
      await rm(path, { force: true });
    },
  };
}
