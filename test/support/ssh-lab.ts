import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { runCommand } from './run-command.ts';

/** A real sshd on the loopback address, with keys of its own, and a home directory to reach it from. */
export interface SshLab {
  readonly port: number;
  /** HOME of the client: `.ssh/config`, `.ssh/known_hosts`, keys. */
  readonly home: string;
  /** A path in the client's `.ssh`. */
  file(name: string): string;
  /** The line that makes the host known. */
  readonly knownHost: string;
  /** Ends every open connection, as a broken line would. */
  cut(): Promise<void>;
  close(): void;
}

/** What is missing on this machine, or null. */
export function probeSshLab(): string | null {
  if (process.getuid?.() !== 0) return 'needs root';
  if (spawnSync('test', ['-x', '/usr/sbin/sshd']).status !== 0) return 'needs sshd';
  return spawnSync('ssh-keygen', ['-?']).error === undefined ? null : 'needs ssh-keygen';
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function makeKey(path: string, passphrase = ''): Promise<void> {
  await runCommand('ssh-keygen', ['-q', '-t', 'ed25519', '-N', passphrase, '-f', path, '-C', '']);
}

/** Children of a process, and theirs: each connection has processes of its own. */
function descendants(pid: number): number[] {
  const listed = spawnSync('ps', ['-o', 'pid=', '--ppid', `${pid}`], { encoding: 'utf8' }).stdout;
  const children = listed.split(/\s+/).filter(Boolean).map(Number);
  return children.flatMap((child) => [child, ...descendants(child)]);
}

/** Where sshd runs, and what it listens on. */
export interface SshdPlace {
  /** Runs it elsewhere, as `nsenter --net=...`. */
  readonly prefix: readonly string[];
  readonly address: string;
  /** Null: any that is free. */
  readonly port: number | null;
  /** Variables of every session. */
  readonly env?: Readonly<Record<string, string>>;
  /** Further lines of sshd_config(5). */
  readonly settings?: readonly string[];
}

const HERE: SshdPlace = { prefix: [], address: '127.0.0.1', port: null };

/** Starts sshd. Keys: `plain` and `locked` (secret). */
export async function openSshLab({
  prefix,
  address,
  port: fixed,
  env = {},
  settings: more = [],
}: SshdPlace = HERE): Promise<SshLab> {
  const root = mkdtempSync(join(tmpdir(), 'nfo-ssh-'));
  const home = join(root, 'home');
  mkdirSync(join(home, '.ssh'), { recursive: true, mode: 0o700 });
  mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  const file = (name: string): string => join(home, '.ssh', name);
  await makeKey(join(root, 'host'));
  await makeKey(file('plain'));
  await makeKey(file('locked'), 'secret');
  const keys = ['plain', 'locked'].map((name) => readFileSync(file(`${name}.pub`), 'utf8'));
  writeFileSync(join(root, 'authorized'), keys.join(''));
  const port = fixed ?? (await freePort());
  const settings = [
    ...more,
    `Port ${port}`,
    `ListenAddress ${address}`,
    `HostKey ${join(root, 'host')}`,
    `AuthorizedKeysFile ${join(root, 'authorized')}`,
    `PidFile ${join(root, 'pid')}`,
    'PasswordAuthentication no',
    'PermitRootLogin prohibit-password',
    'StrictModes no',
    'UsePAM no',
    // So that no start-up file of the machine's own user runs before every command.
    `SetEnv HOME=${root} ${Object.entries(env)
      .map(([name, value]) => `${name}=${value}`)
      .join(' ')}`,
  ];
  writeFileSync(join(root, 'sshd_config'), `${settings.join('\n')}\n`);
  const argv = [...prefix, '/usr/sbin/sshd', '-D', '-e', '-f', join(root, 'sshd_config')];
  const [program = '', ...args] = argv;
  const server: ChildProcess = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  server.stderr?.on('data', (data) => {
    log += String(data);
  });
  for (let tries = 0; !log.includes('Server listening'); tries += 1) {
    if (tries > 200 || server.exitCode !== null) throw new Error(`sshd does not listen: ${log}`);
    await setTimeout(50);
  }
  const [type = '', key = ''] = readFileSync(join(root, 'host.pub'), 'utf8').split(' ');
  return {
    port,
    home,
    file,
    knownHost: `[${address}]:${port} ${type} ${key.trim()}\n`,
    async cut() {
      for (const pid of descendants(server.pid ?? 0)) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It went by itself.
        }
      }
      await setTimeout(50);
    },
    close() {
      for (const pid of [...descendants(server.pid ?? 0), server.pid ?? 0]) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It went by itself.
        }
      }
      rmSync(root, { recursive: true, force: true });
    },
  };
}
