import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readStep } from '../../src/deploy/guard.ts';
import { watchDirectory } from '../../src/deploy/paths.ts';
import { undeployXdp } from '../../src/deploy/undeploy.ts';
import { type DeployLab, openDeployLab, probeDeployLab } from '../support/deploy-lab.ts';
import { TEST_ETHERTYPE } from '../support/deploy-objects.ts';
import { PROJECT } from '../support/run-cli.ts';
import { openSshLab, probeSshLab } from '../support/ssh-lab.ts';

const obstacle = probeDeployLab() ?? probeSshLab();
let lab: DeployLab;
let bin: string;
const watchers: ChildProcess[] = [];

const RULE = `meta protocol ${TEST_ETHERTYPE} counter drop`;
const TABLE = 'table netdev t { chain c { type filter hook ingress device eth0 priority 0;\n}\n}';

beforeAll(async () => {
  if (obstacle !== null) return;
  lab = await openDeployLab();
  bin = join(dirname(lab.paths.state), 'bin');
  mkdirSync(bin);
  // nft, but it lists nothing while there is a file `broken` beside it.
  const script = `#!/bin/sh\ncase "$*" in *list*) [ ! -e ${bin}/broken ] || exit 1;; esac\nexec /usr/sbin/nft "$@"\n`;
  writeFileSync(join(bin, 'nft'), script);
  chmodSync(join(bin, 'nft'), 0o755);
  await lab.run('ip', 'link', 'set', 'lo', 'up');
  await nft(TABLE);
});

afterAll(async () => {
  if (obstacle !== null) return;
  for (const watcher of watchers) watcher.kill('SIGKILL');
  await undeployXdp(lab.transport, { device: 'eth0', force: true }, lab.paths);
  await lab.close();
});

async function nft(text: string): Promise<void> {
  await lab.run('sh', '-c', 'echo "$1" | nft -f -', 'sh', text);
}

interface Line {
  readonly event: string;
  readonly change?: string;
  readonly events?: number;
  readonly seconds?: number;
}

/** A running `watch`; `hear` waits for the next line of that kind. */
interface Watcher {
  readonly process: ChildProcess;
  hear(event: string): Promise<Line>;
  end(signal: NodeJS.Signals): Promise<number | null>;
}

function startWatch(args: readonly string[], env: NodeJS.ProcessEnv = {}): Watcher {
  const main = ['--import', 'tsx', join(PROJECT, 'src/cli/main.ts')];
  const [program = '', ...rest] = [...lab.prefix, process.execPath, ...main];
  const argv = [...rest, 'watch', '--dev', 'eth0', '--json', ...args];
  const child = spawn(program, argv, {
    cwd: PROJECT,
    env: {
      ...process.env,
      ...{ PATH: `${bin}:${process.env['PATH']}`, NFT_OFFLOAD_BPFFS: lab.paths.bpffs },
      ...{ NFT_OFFLOAD_STATE_DIR: lab.paths.state, ...env },
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  watchers.push(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = once(child, 'exit');
  return {
    process: child,
    async hear(event) {
      for (;;) {
        const { done, value } = await lines.next();
        if (done === true) throw new Error(`watch ended before it said ${event}`);
        const line: Line = JSON.parse(value);
        if (line.event === event) return line;
      }
    },
    async end(signal) {
      child.kill(signal);
      const [code] = await ended;
      return code;
    },
  };
}

/** Frames of three that come through XDP, and then through nftables. */
const through = (): Promise<number> => lab.send(3);

/** Whether there is a program on the device. */
async function isOn(): Promise<boolean> {
  return (await lab.run('ip', 'link', 'show', 'dev', 'eth0')).includes('prog/xdp');
}

/** Looks until it is so. */
async function until(what: () => Promise<boolean>): Promise<void> {
  while (!(await what())) await sleep(100);
}

/** The guard's `nft monitor`. */
async function findMonitor(): Promise<number> {
  const directory = watchDirectory(lab.paths, 'eth0');
  const script = `for p in $(pgrep -f "^sh ${directory}/guard follow"); do pgrep -P "$p" -x nft; done; true`;
  return Number((await lab.run('sh', '-c', script)).trim().split('\n')[0]);
}

it.skipIf(obstacle !== null)(
  'follows the ruleset through changes, bursts, a flush and the death of what it relies on',
  { timeout: 120_000 },
  async () => {
    const watch = startWatch(['--max-out-of-step', '60']);
    expect(await watch.hear('in-step')).toMatchObject({ change: 'replaced' });
    expect(await through()).toBe(3);

    await nft(`add rule netdev t c ${RULE}`);
    const added = await watch.hear('in-step');
    expect(added).toMatchObject({ change: 'replaced', events: 1 });
    expect(added.seconds).toBeGreaterThan(0);
    expect(await through()).toBe(0);

    // A transaction each, of one process.
    const burst =
      'for i in $(seq 100); do echo "add rule netdev t c ip saddr 10.0.0.$i drop"; done';
    await lab.run('sh', '-c', `(${burst}) | nft -i`);
    let steps = 0;
    for (let events = 0; events < 100; steps += 1) {
      events += (await watch.hear('in-step')).events ?? 0;
    }
    expect(steps).toBeLessThan(50);

    await lab.run('nft', 'flush', 'ruleset');
    await watch.hear('in-step');
    expect(await through()).toBe(3);

    await nft(`${TABLE}\nadd rule netdev t c ${RULE}`);
    await watch.hear('in-step');
    process.kill(await findMonitor(), 'SIGKILL');
    expect(await watch.hear('in-step')).toMatchObject({ change: 'unchanged' });
    expect(await through()).toBe(0);

    // What cannot be read cannot be followed: the program goes, and comes back.
    writeFileSync(join(bin, 'broken'), '');
    await nft('flush chain netdev t c');
    await watch.hear('taken-off');
    expect(await through()).toBe(3);
    expect(await isOn()).toBe(false);
    rmSync(join(bin, 'broken'));
    await nft(`add rule netdev t c ${RULE}`);
    await watch.hear('in-step');
    expect(await isOn()).toBe(true);

    expect(await watch.end('SIGTERM')).toBe(0);
    expect(await isOn()).toBe(true);
  },
);

it.skipIf(obstacle !== null)(
  'has the program taken off by the machine when nobody follows, and puts it back',
  { timeout: 120_000 },
  async () => {
    const watch = startWatch(['--max-out-of-step', '3']);
    await watch.hear('in-step');
    expect(await isOn()).toBe(true);
    expect(await through()).toBe(0);
    await watch.end('SIGKILL');
    await nft('flush chain netdev t c');
    await until(async () => (await through()) === 3);
    expect(await isOn()).toBe(false);
    const step = await readStep(lab.transport, lab.paths, 'eth0');
    expect(step).toMatchObject({ step: 'out', guarded: true });
    expect(step?.off).toContain('nobody followed');

    const again = startWatch(['--max-out-of-step', '60']);
    await again.hear('in-step');
    expect(await isOn()).toBe(true);
    const after = await readStep(lab.transport, lab.paths, 'eth0');
    expect(after).toMatchObject({ step: 'in', off: null, guarded: true });
    await again.end('SIGTERM');
  },
);

it.skipIf(obstacle !== null)(
  'comes back over a line that was cut, and misses nothing',
  { timeout: 120_000 },
  async () => {
    const ssh = await openSshLab({ prefix: lab.prefix, address: '127.0.0.1', port: 2022 });
    try {
      const settings = ['Host box', 'HostName 127.0.0.1', 'Port 2022', 'User root'];
      writeFileSync(
        ssh.file('config'),
        `${[...settings, 'IdentityFile ~/.ssh/plain'].join('\n')}\n`,
      );
      writeFileSync(ssh.file('known_hosts'), ssh.knownHost);
      const watch = startWatch(['--host', 'box', '--max-out-of-step', '60'], { HOME: ssh.home });
      await watch.hear('in-step');
      await nft(`add rule netdev t c ${RULE}`);
      await watch.hear('in-step');
      expect(await through()).toBe(0);
      await ssh.cut();
      await nft('flush chain netdev t c');
      await watch.hear('disconnected');
      await watch.hear('in-step');
      expect(await through()).toBe(3);
      expect(await watch.end('SIGTERM')).toBe(0);
    } finally {
      ssh.close();
    }
  },
);

it.skipIf(obstacle !== null)(
  'leaves nothing when it is taken away',
  { timeout: 60_000 },
  async () => {
    await undeployXdp(lab.transport, { device: 'eth0', force: false }, lab.paths);
    const directory = watchDirectory(lab.paths, 'eth0');
    expect(existsSync(directory)).toBe(false);
    const guards = `pgrep -f "^sh ${directory}/guard follow" || true`;
    await until(async () => (await lab.run('sh', '-c', guards)).trim() === '');
  },
);
