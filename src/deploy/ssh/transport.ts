import { dirname } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Client, ClientChannel } from 'ssh2';
import { type Result, succeed } from '../../support/diagnostics.ts';
import { quoteWords } from '../shell.ts';
import { type CommandResult, holdStream, type Transport } from '../transport.ts';
import { connectSsh, type SshOptions } from './connect.ts';
import { createShellPool, openShell, type Shell } from './shells.ts';
import type { SshTarget } from './target.ts';
import { formatTask, MOST_WRITTEN, writeBytes } from './task.ts';

/** A machine reached by SSH. */
export interface SshSession {
  readonly transport: Transport;
  /** `user@host:port`, for people. */
  readonly name: string;
  close(): void;
}

interface RawResult {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** What ssh(1) exits with when the connection fails. */
const LOST = 255;
/** Commands at once on one connection: sshd_config(5), MaxSessions, is 10 unless set, 1 at the least. */
const MOST_CHANNELS = 4;
/** A session that ended a moment ago may still count on the host; milliseconds, and how often. */
const REOPEN = { wait: 50, times: 100 };
/** Shells give 128 plus the signal's number for a program that was ended by one. */
const SIGNALLED = 128;
const MISSING = 66; // EX_NOINPUT, sysexits.h

const ENVIRONMENT = 'PATH=$PATH:/usr/sbin:/sbin LC_ALL=C; export PATH LC_ALL';

/** A command line for the user's shell on the host; programs in sbin are found, messages are English. */
export function formatCommand(argv: readonly string[], prefix: readonly string[] = []): string {
  const script = `${ENVIRONMENT}; exec "$@"`;
  return quoteWords([...prefix, '/bin/sh', '-c', script, 'sh', ...argv]);
}

const NOT_CONNECTED = 'the connection to the host was lost';

/**
 * Runs the command on a channel; null when there is no connection any more. `use` gets the channel at
 * once: its first words, its exit status and its end may all be in the packet that opens it.
 */
async function openChannel<T>(
  client: Client,
  command: string,
  use: (channel: ClientChannel) => T,
): Promise<T | null> {
  for (let tries = 0; tries < REOPEN.times; tries += 1) {
    const opened = await new Promise<{ readonly used: T } | 'busy' | null>((resolve) => {
      // Settled here when the connection ends before there is an answer.
      const onClose = (): void => resolve(null);
      client.once('close', onClose);
      try {
        client.exec(command, (error, channel) => {
          client.off('close', onClose);
          resolve(error === undefined ? { used: use(channel) } : 'busy');
        });
      } catch {
        client.off('close', onClose);
        resolve(null);
      }
    });
    if (opened !== 'busy') return opened?.used ?? null;
    await setTimeout(REOPEN.wait);
  }
  return null;
}

/** All that a channel says, to its end. */
function collect(channel: ClientChannel, input: string | Uint8Array): Promise<RawResult> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  let code: number | null = null;
  channel.on('data', (data: Buffer) => stdout.push(data));
  channel.stderr.on('data', (data: Buffer) => stderr.push(data));
  channel.on('exit', (status: number | null) => {
    code = status ?? SIGNALLED;
  });
  channel.on('error', () => {}); // `close` follows
  channel.end(input);
  return new Promise((resolve) => {
    channel.once('close', () => {
      const said = Buffer.concat(stderr).toString('utf8');
      resolve({
        code: code ?? LOST,
        stdout: Buffer.concat(stdout),
        stderr: said === '' && code === null ? NOT_CONNECTED : said,
      });
    });
  });
}

/** Runs a command line on the host, to its end or that of the connection. */
async function runRaw(
  client: Client,
  command: string,
  input: string | Uint8Array,
): Promise<RawResult> {
  // In an object: a promise would be waited for before the channel is told to be open.
  const opened = await openChannel(client, command, (channel) => ({
    result: collect(channel, input),
  }));
  return opened?.result ?? { code: LOST, stdout: Buffer.alloc(0), stderr: NOT_CONNECTED };
}

/** Lets at most so many tasks run at once. */
function createGate(most: number): <T>(task: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = most;
  return async (task) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    }
  };
}

/** A shell on the host in which programs in sbin are found and messages are English; null: no line. */
async function openHostShell(client: Client, prefix: readonly string[]): Promise<Shell | null> {
  return openChannel(client, quoteWords([...prefix, '/bin/sh']), (channel) => {
    channel.write(`${ENVIRONMENT}\n`);
    return openShell(channel);
  });
}

const SUDO = ['sudo', '-n', '--'];

interface RootShell {
  /** Comes before every program. */
  readonly prefix: readonly string[];
  readonly shell: Shell | null;
}

/** Root on the host: nothing where the user is root, `sudo` where it asks for no password. */
async function findRoot(client: Client): Promise<RootShell> {
  const own = await openHostShell(client, []);
  const user = await own?.run(formatTask(['id', '-u']));
  if (own === null || user?.stdout.toString().trim() === '0') return { prefix: [], shell: own };
  const raised = await openHostShell(client, SUDO);
  const tried = await raised?.run(formatTask(['true']));
  return tried?.code === 0 ? { prefix: SUDO, shell: raised } : { prefix: [], shell: own };
}

const WRITE = `umask 077
test -d "$1" || mkdir -p -- "$1" || exit 1
{ CONTENT; } >"$2" && mv -f -- "$2" "$3" || { rm -f -- "$2"; exit 1; }`;
const READ = `test -e "$1" || exit ${MISSING}; exec cat -- "$1"`;
const REMOVE = 'test -e "$1" || test -L "$1" || exit 0; exec rm -f -- "$1"';

function createTransport(client: Client, { prefix, shell: first }: RootShell): Transport {
  const gate = createGate(MOST_CHANNELS);
  // Opening a session for every command takes the host longer than most commands do.
  const shells = createShellPool(() => openHostShell(client, prefix), first);
  const inShell = async (argv: readonly string[], input = ''): Promise<RawResult> => {
    const { code, stdout, stderr } = await gate(() => shells.run(formatTask(argv, input)));
    const why = stderr === '' && code === null ? NOT_CONNECTED : stderr;
    return { code: code ?? LOST, stdout, stderr: why };
  };
  const onChannel = (argv: readonly string[], input: string | Uint8Array): Promise<RawResult> =>
    gate(() => runRaw(client, formatCommand(argv, prefix), input));
  const need = async (what: string, work: Promise<RawResult>): Promise<RawResult> => {
    const { code, stderr } = await work;
    if (code !== 0) {
      const message = `cannot ${what}: ${stderr.trim() || `exit status ${code}`}`;
      // With a code, as errors of files and sockets have one: it is the machine's fault, no bug.
      throw Object.assign(new Error(message), { code: 'EIO' });
    }
    return work;
  };
  let files = 0;
  return {
    async run(argv, { input = '' } = {}): Promise<CommandResult> {
      const isShort = Buffer.byteLength(input) <= MOST_WRITTEN;
      const result = await (isShort ? inShell(argv, input) : onChannel(argv, input));
      return { ...result, stdout: result.stdout.toString('utf8') };
    },
    async hold(argv, onLine) {
      // Beside the gate: it stays open while other commands run.
      const opened = await openChannel(client, formatCommand(argv, prefix), (channel) => ({
        held: holdStream(channel, channel, onLine),
      }));
      return opened?.held ?? null;
    },
    async writeFile(path, content) {
      files += 1;
      const temporary = `${path}.${process.pid}.${files}.tmp`;
      const isShort = content.length <= MOST_WRITTEN;
      const script = WRITE.replace('CONTENT', () => (isShort ? writeBytes(content) : 'cat'));
      const argv = ['sh', '-c', script, 'sh', dirname(path), temporary, path];
      await need(`write ${path}`, isShort ? inShell(argv) : onChannel(argv, content));
    },
    async readFile(path) {
      const result = await inShell(['sh', '-c', READ, 'sh', path]);
      if (result.code === MISSING) return null;
      return (await need(`read ${path}`, Promise.resolve(result))).stdout;
    },
    async remove(path) {
      await need(`remove ${path}`, inShell(['sh', '-c', REMOVE, 'sh', path]));
    },
  };
}

/** Opens a session on a host; nothing is needed there but a POSIX shell. */
export async function openSshSession(
  target: SshTarget,
  options: SshOptions,
): Promise<Result<SshSession>> {
  const connected = await connectSsh(target, options);
  if (!connected.ok) return connected;
  const { client, settings, close } = connected.value;
  const { user, hostName, port } = settings;
  const transport = createTransport(client, await findRoot(client));
  return succeed({ transport, name: `${user}@${hostName}:${port}`, close });
}
