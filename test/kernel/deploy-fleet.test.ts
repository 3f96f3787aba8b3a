import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { probeDeployLab } from '../support/deploy-lab.ts';
import { type FleetLab, openFleetLab } from '../support/fleet-lab.ts';
import type { CliRun } from '../support/run-cli.ts';
import { probeSshLab } from '../support/ssh-lab.ts';

const obstacle = probeDeployLab() ?? probeSshLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: FleetLab;
let ruleset: string;

beforeAll(async () => {
  if (obstacle !== null) return;
  lab = await openFleetLab(3);
  ruleset = `${lab.inventory}.nft`;
  const rules = 'udp dport 1 counter drop; udp dport 2 drop';
  writeFileSync(
    ruleset,
    `table netdev t { chain c { type filter hook ingress device "eth0" priority 0; ${rules}; }; }\n`,
  );
}, 60_000);

afterAll(async () => {
  if (obstacle === null) await lab.close();
});

/** One JSON value a line. */
function lines(run: CliRun): readonly Record<string, unknown>[] {
  return run.stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

function states(run: CliRun): Readonly<Record<string, unknown>> {
  return Object.fromEntries(lines(run).map(({ host, state }) => [host, state]));
}

const hostArgs = (...hosts: readonly string[]): string[] =>
  hosts.flatMap((host) => ['--host', host]);

async function attached(index: number, device = 'eth0'): Promise<boolean> {
  const listed = await lab.run(index, 'ip', '-j', 'link', 'show', 'dev', device);
  return JSON.parse(listed)[0].xdp !== undefined;
}

onKernel(
  'deploys to a fleet, tells of each host, and takes it all back',
  async () => {
    const fleet = ['--dev', 'eth0', '--inventory', lab.inventory];
    const deployed = await lab.cli('deploy', ruleset, ...fleet, '--confirm', '600', '--json');
    expect(deployed.exitCode, deployed.stderr).toBe(0);
    expect(states(deployed)).toEqual({ h0: 'done', h1: 'done', h2: 'done' });
    expect(await Promise.all([0, 1, 2].map((index) => attached(index)))).toEqual([
      true,
      true,
      true,
    ]);
    const waiting = await lab.cli('status', ...fleet);
    expect(waiting.stdout).toContain('deploy/unconfirmed');
    expect(waiting.stdout).toContain('3 of 3 hosts done');
    expect((await lab.cli('confirm', ...fleet)).exitCode).toBe(0);
    const again = await lab.cli('deploy', ruleset, ...fleet, '--canary', '1', '--canary-wait', '0');
    expect(again.stdout).toContain('3 of 3 hosts done');
    const back = await lab.cli('rollback', ...fleet, '--json');
    expect(lines(back).map(({ report }) => report)).toMatchObject([
      { to: 1 },
      { to: 1 },
      { to: 1 },
    ]);
    expect((await lab.cli('undeploy', ...fleet)).exitCode).toBe(0);
    expect(await attached(0)).toBe(false);
  },
  240_000,
);

onKernel(
  'leaves the others alone when a host fails',
  async () => {
    await lab.run(1, 'ip', 'link', 'delete', 'eth0');
    const order = hostArgs('h1', 'h0', 'h2');
    const stopped = await lab.cli(
      ...['deploy', ruleset, '--dev', 'eth0', '--json', '--canary', '1', '--canary-wait', '0'],
      ...order,
    );
    expect(stopped.exitCode).toBe(1);
    expect(states(stopped)).toEqual({ h0: 'untouched', h1: 'failed', h2: 'untouched' });
    expect(await attached(0)).toBe(false);
    const partly = await lab.cli(
      ...['deploy', ruleset, '--dev', 'eth0', '--parallel', '1'],
      ...hostArgs('h0', 'h1', 'h2'),
    );
    expect(partly.exitCode).toBe(3);
    expect(partly.stdout).toContain('1 of 3 hosts done, 1 failed, 1 untouched');
    expect(partly.stderr).toContain('h1: error[');
    expect(await attached(2)).toBe(false);
    expect((await lab.cli('undeploy', '--dev', 'eth0', ...hostArgs('h0', 'h2'))).exitCode).toBe(0);
  },
  240_000,
);

onKernel(
  'a ruleset that locks everybody out comes back by itself',
  async () => {
    const lockout = `${lab.inventory}.lockout.nft`;
    writeFileSync(
      lockout,
      'table netdev t { chain c { type filter hook ingress device "mgmt" priority 0; ip protocol tcp drop; }; }\n',
    );
    const deploying = lab.cli(
      ...['deploy', lockout, '--dev', 'mgmt', '--confirm', '5'],
      ...hostArgs('h2'),
    );
    let sawIt = false;
    for (let tries = 0; tries < 600 && !sawIt; tries += 1) {
      sawIt = await attached(2, 'mgmt');
      await sleep(50);
    }
    expect(sawIt).toBe(true);
    for (let tries = 0; tries < 600 && (await attached(2, 'mgmt')); tries += 1) await sleep(50);
    expect(await attached(2, 'mgmt')).toBe(false);
    expect((await deploying).stderr).toContain('taken back by the machine itself');
    const status = await lab.cli('status', '--dev', 'mgmt', ...hostArgs('h2'));
    expect(status.exitCode, status.stderr).toBe(0);
    expect(status.stdout).toContain('nobody confirmed it');
  },
  240_000,
);
