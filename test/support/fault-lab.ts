import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DeployLab, openDeployLab } from './deploy-lab.ts';
import { MAIN } from './run-cli.ts';
import { runCommand } from './run-command.ts';
import { openSshLab, type SshLab } from './ssh-lab.ts';

/** Programs that a deployment starts on the host; each start is a step. */
const PROGRAMS = [
  'ip',
  'tc',
  'bpftool',
  'nft',
  'flock',
  'setsid',
  'mkdir',
  'mv',
  'rm',
  'rmdir',
  'mount',
  'date',
];

/** Programs that only look, by how their command line begins. */
const LOOKS = /^((ip|tc|nft) -j|bpftool -j (prog show|map dump)|date )/;

/** A host with a real sshd, on which each program may be stopped at its turn, or fail. */
export interface FaultLab {
  readonly host: DeployLab;
  readonly sshd: SshLab;
  readonly isAlert: boolean;
  /** Starts the command line, as a process of its own, against the host. */
  start(...args: readonly string[]): Run;
  /** From now on programs are counted anew; the one with that number, from 1, meets that. */
  arm(at: number, what: 'stops' | 'fails'): void;
  /** Programs that were started since, each with its arguments. */
  started(): readonly string[];
  /** Waits until the program stops, or `run` has ended; gives the process that started it. */
  stopped(run: Run): Promise<number | null>;
  /** Lets the program that stopped go on. */
  goOn(): void;
  /** Waits until no session holds the lock on the device. */
  unlocked(): Promise<void>;
  /** Drops everything of the connections that there are now, both ways, without a word. */
  cutLine(): Promise<void>;
  close(): Promise<void>;
}

/** The command line at work. */
export interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<{
    readonly code: number | null;
    readonly stdout: string;
    readonly stderr: string;
  }>;
}

/** Whether a program that was started changes the machine. */
export function changesSomething(step: string): boolean {
  return !LOOKS.test(step);
}

// Stands before the program of the same name.
const WRAPPER = `#!/bin/sh
echo "\${0##*/} $*" >>LAB/log
read -r n <LAB/count
n=$((n + 1))
echo "$n" >LAB/count
read -r at what <LAB/at
if [ "$n" = "$at" ]; then
  [ "$what" = stops ] || { echo "made to fail" >&2; exit 1; }
  echo "$PPID" >LAB/stopped
  while [ ! -e LAB/go ]; do /bin/sleep 0.02; done
fi
exec REAL "$@"
`;

function makeWrappers(directory: string): void {
  mkdirSync(join(directory, 'bin'), { recursive: true });
  for (const name of PROGRAMS) {
    const { stdout } = spawnSync(
      'sh',
      ['-c', 'PATH=$PATH:/usr/sbin:/sbin; command -v "$1"', 'sh', name],
      { encoding: 'utf8' },
    );
    if (stdout.trim() === '') throw new Error(`no ${name} here`);
    const file = join(directory, 'bin', name);
    writeFileSync(file, WRAPPER.replaceAll('LAB', directory).replace('REAL', stdout.trim()));
    chmodSync(file, 0o755);
  }
}

async function until(
  what: string,
  seconds: number,
  isSo: () => Promise<boolean> | boolean,
): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${seconds} s`);
    await sleep(30);
  }
}

/** `isAlert`: sshd ends a session whose client says nothing for three seconds; by itself it never does. */
export async function openFaultLab(isAlert: boolean): Promise<FaultLab> {
  const host = await openDeployLab();
  const directory = join(host.paths.state, '..', 'faults');
  makeWrappers(directory);
  const [enter = '', ...where] = host.prefix;
  await host.run('ip', 'link', 'set', 'lo', 'up');
  const env = { PATH: `${directory}/bin:/usr/bin:/bin` };
  const sshd = await openSshLab({
    prefix: host.prefix,
    address: '127.0.0.1',
    port: null,
    env,
    settings: isAlert ? ['ClientAliveInterval 1', 'ClientAliveCountMax 2'] : [],
  });
  writeFileSync(sshd.file('known_hosts'), sshd.knownHost);
  const settings = ['Host box', 'HostName 127.0.0.1', `Port ${sshd.port}`, 'User root'];
  writeFileSync(
    sshd.file('config'),
    `${settings.join('\n')}\nIdentityFile ${sshd.file('plain')}\n`,
  );
  const file = (name: string): string => join(directory, name);
  const arm = (at: number, what: 'stops' | 'fails'): void => {
    for (const name of ['stopped', 'go']) rmSync(file(name), { force: true });
    writeFileSync(file('log'), '');
    writeFileSync(file('count'), '0\n');
    writeFileSync(file('at'), `${at} ${what}\n`);
  };
  arm(0, 'stops');
  return {
    ...{ host, sshd, isAlert, arm },
    start(...args) {
      const places = {
        NFT_OFFLOAD_STATE_DIR: host.paths.state,
        NFT_OFFLOAD_BPFFS: host.paths.bpffs,
      };
      const child = spawn(
        enter,
        [...where, process.execPath, ...MAIN, ...args, '--dev', 'eth0', '--host', 'box'],
        {
          stdio: ['ignore', 'pipe', 'pipe'],
          env: { ...process.env, HOME: sshd.home, SSH_AUTH_SOCK: '', ...places },
        },
      );
      let [stdout, stderr] = ['', ''];
      child.stdout.on('data', (data) => {
        stdout += String(data);
      });
      child.stderr.on('data', (data) => {
        stderr += String(data);
      });
      const ended = once(child, 'close').then(([code]) => ({
        code: typeof code === 'number' ? code : null,
        stdout,
        stderr,
      }));
      return { child, ended };
    },
    started: () =>
      readFileSync(file('log'), 'utf8')
        .split('\n')
        .filter((line) => line !== ''),
    async stopped(run) {
      let isOver = false;
      void run.ended.then(() => {
        isOver = true;
      });
      const said = (): string =>
        existsSync(file('stopped')) ? readFileSync(file('stopped'), 'utf8') : '';
      await until('the step', 60, () => isOver || said().endsWith('\n'));
      return said().endsWith('\n') ? Number(said()) : null;
    },
    goOn: () => appendFileSync(file('go'), ''),
    async unlocked() {
      const lock = join(host.paths.state, 'eth0.lock');
      // Longer than the half minute after which a line without a word counts as broken.
      await until(
        'the lock',
        45,
        () => !existsSync(lock) || spawnSync('flock', ['-n', lock, 'true']).status === 0,
      );
    },
    async cutLine() {
      const listed = await host.run(
        'ss',
        '-Htn',
        'state',
        'established',
        'sport',
        `= :${sshd.port}`,
      );
      const ports = [...listed.matchAll(/:(\d+)\s*$/gm)].map(([, port]) => port);
      if (ports.length === 0) throw new Error('there is no connection to cut');
      const pairs = [`tcp dport ${sshd.port} tcp sport`, `tcp sport ${sshd.port} tcp dport`];
      const rules = pairs.flatMap((pair) => ports.map((port) => `${pair} ${port} drop`));
      await host.run(
        'nft',
        `add table inet cut; add chain inet cut in { type filter hook input priority 0; }; ${rules.map((rule) => `add rule inet cut in ${rule}`).join('; ')}`,
      );
    },
    async close() {
      sshd.close();
      spawnSync('umount', [host.paths.state]);
      await host.close();
    },
  };
}

/** The nearest process above that has this name. */
export async function sessionOf(pid: number, server: string): Promise<number> {
  for (let at = pid; at > 1; ) {
    const name = (await runCommand('ps', ['-o', 'ppid=,comm=', '-p', `${at}`])).toString().trim();
    const [parent = '', comm = ''] = name.split(/\s+/);
    if (comm === server) return at;
    at = Number(parent);
  }
  throw new Error(`no ${server} above ${pid}`);
}
