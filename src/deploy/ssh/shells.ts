import { randomBytes } from 'node:crypto';
import type { ClientChannel } from 'ssh2';

/** How a command on the host ended; `code` is null when nobody can say: the shell or the line went. */
export interface ShellResult {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** A shell on the host that runs one command after the other. */
export interface Shell {
  /** `task`: a command that reads none of what the shell reads (see `formatTask`). */
  run(task: string): Promise<ShellResult>;
  isOpen(): boolean;
}

const NEWLINE = 10;

/** What a stream said up to the mark, and the line of the mark behind it. */
function splitAtMark(said: Buffer, mark: string): { text: Buffer; rest: string } | null {
  const at = said.lastIndexOf(mark);
  if (at < 0 || said.indexOf('\n', at + 1) < 0) return null;
  return { text: said.subarray(0, at), rest: said.toString('utf8', at + mark.length).trim() };
}

/**
 * A shell at the far end of a channel. Reads a command's output up to marks that no output can hold: they are random, and written
 * behind it to both streams.
 */
export function openShell(channel: ClientChannel): Shell {
  let isOpen = true;
  let answer: (() => void) | null = null;
  let out: Buffer[] = [];
  let err: Buffer[] = [];
  channel.on('data', (data: Buffer) => {
    out.push(data);
    if (data.at(-1) === NEWLINE) answer?.();
  });
  channel.stderr.on('data', (data: Buffer) => {
    err.push(data);
    if (data.at(-1) === NEWLINE) answer?.();
  });
  channel.on('error', () => {}); // `close` follows
  channel.once('close', () => {
    isOpen = false;
    answer?.();
  });
  return {
    isOpen: () => isOpen,
    run(task) {
      const mark = `\n${randomBytes(16).toString('hex')}`;
      const word = mark.trim();
      [out, err] = [[], []];
      return new Promise((resolve) => {
        answer = () => {
          const [stdout, stderr] = [Buffer.concat(out), Buffer.concat(err)];
          [out, err] = [[stdout], [stderr]];
          const [ended, complained] = [splitAtMark(stdout, mark), splitAtMark(stderr, mark)];
          if (ended !== null && complained !== null) {
            answer = null;
            const code = Number(ended.rest);
            resolve({ code, stdout: ended.text, stderr: complained.text.toString('utf8') });
          } else if (!isOpen) {
            answer = null;
            resolve({ code: null, stdout, stderr: stderr.toString('utf8') });
          }
        };
        channel.write(`${task}; printf '\\n%s %s\\n' ${word} $?; printf '\\n%s\\n' ${word} >&2\n`);
        if (!isOpen) answer();
      });
    },
  };
}

/** Shells on one host, each opened when all others are at work. */
export interface ShellPool {
  run(task: string): Promise<ShellResult>;
}

/** `first` is open already; `open` gives another shell, null when there is no line. */
export function createShellPool(
  open: () => Promise<Shell | null>,
  first: Shell | null = null,
): ShellPool {
  const idle: Shell[] = first === null ? [] : [first];
  return {
    async run(task) {
      let shell = idle.pop();
      while (shell !== undefined && !shell.isOpen()) shell = idle.pop();
      if (shell === undefined) {
        const opened = await open();
        if (opened === null) return { code: null, stdout: Buffer.alloc(0), stderr: '' };
        shell = opened;
      }
      const result = await shell.run(task);
      if (shell.isOpen()) idle.push(shell);
      return result;
    },
  };
}
