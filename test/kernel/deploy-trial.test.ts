import { readdir } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { confirmXdp } from '../../src/deploy/confirm.ts';
import { type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { pinDirectory, trialDirectory } from '../../src/deploy/paths.ts';
import { rollbackXdp } from '../../src/deploy/rollback.ts';
import { statusXdp } from '../../src/deploy/status.ts';
import { undeployXdp } from '../../src/deploy/undeploy.ts';
import { type DeployLab, openDeployLab, probeDeployLab } from '../support/deploy-lab.ts';
import { testObject } from '../support/deploy-objects.ts';
import { deployRequest, refusalOf } from '../support/deploy-requests.ts';
import { unwrap } from '../support/pipeline.ts';

const obstacle = probeDeployLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: DeployLab;

beforeEach(async () => {
  if (obstacle === null) lab = await openDeployLab();
});

afterEach(async () => {
  if (obstacle !== null) return;
  await undeployXdp(lab.transport, { device: 'eth0', force: true }, lab.paths);
  await lab.close();
});

/** Seconds that no test takes. */
const LONG = 600;

/** Drops all test frames, or lets them through. */
const DROP = (): Partial<DeployRequest> => ({ elf: testObject() });
const PASS = (): Partial<DeployRequest> => ({ elf: testObject({ action: 'pass' }) });

const deploy = async (changes: Partial<DeployRequest>) =>
  deployXdp(lab.transport, deployRequest(changes), lab.paths);
const confirm = async () => confirmXdp(lab.transport, { device: 'eth0' }, lab.paths);
const rollback = async (to: number | null = null) =>
  rollbackXdp(lab.transport, { device: 'eth0', to, force: false }, lab.paths);
const status = async () => unwrap(await statusXdp(lab.transport, { device: 'eth0' }, lab.paths));

async function drift(): Promise<readonly string[]> {
  return (await status()).drift.map(({ code }) => code);
}

/** Waits until nothing is unconfirmed, ten seconds at most. */
async function waitForEnd(): Promise<readonly string[]> {
  for (let tries = 0; tries < 100; tries += 1) {
    const now = await drift();
    if (!now.includes('deploy/unconfirmed') && !now.includes('deploy/rolling-back')) return now;
    await setTimeout(100);
  }
  throw new Error('the machine did not go back');
}

/** Lets the time of a generation be over now. */
async function endTime(generation: number): Promise<void> {
  const script = `${trialDirectory(lab.paths, 'eth0')}/${generation}.sh`;
  await lab.run('sh', '-c', 'test ! -e "$1" || sh "$1" 0', 'sh', script);
}

async function countedPackets(): Promise<number | undefined> {
  return (await status()).counters.find(({ handle }) => handle === 12)?.total.packets;
}

onKernel('a deployment that is confirmed stays, with its counts', async () => {
  unwrap(await deploy(PASS()));
  await lab.send(5);
  unwrap(await deploy({ ...DROP(), confirm: LONG }));
  expect(await lab.send(10)).toBe(0);
  expect(await drift()).toEqual(['deploy/unconfirmed']);
  expect(refusalOf(await deploy(PASS()))).toEqual(['deploy/unconfirmed']);
  expect(unwrap(await confirm())).toMatchObject({ generation: 2 });
  await endTime(2);
  expect(await drift()).toEqual([]);
  expect(await lab.send(1)).toBe(0);
  expect(await countedPackets()).toBe(16);
  expect(await readdir(pinDirectory(lab.paths, 'eth0'))).toEqual(['2']);
  expect(refusalOf(await confirm())).toEqual(['deploy/nothing-to-confirm']);
});

onKernel('the machine takes back by itself what is not confirmed', async () => {
  unwrap(await deploy(PASS()));
  unwrap(await deploy({ ...DROP(), confirm: 1 }));
  expect(await waitForEnd()).toEqual(['deploy/rolled-back']);
  expect(await lab.send(3)).toBe(3);
  expect((await status()).attachment).toMatchObject({ kind: 'ours', generation: 1 });
  expect(refusalOf(await confirm())).toEqual(['deploy/too-late']);
});

onKernel('what was counted before it was taken back is not lost', async () => {
  unwrap(await deploy(PASS()));
  await lab.send(5);
  unwrap(await deploy({ ...DROP(), confirm: LONG }));
  expect(await lab.send(10)).toBe(0);
  await endTime(2);
  expect(await lab.send(3)).toBe(3);
  expect(await countedPackets()).toBe(18);
  unwrap(await deploy(DROP()));
  expect(await countedPackets()).toBe(18);
  expect(await drift()).toEqual([]);
  expect(await readdir(pinDirectory(lab.paths, 'eth0'))).toEqual(['3']);
});

onKernel('without anything before, the device is free again', async () => {
  unwrap(await deploy({ ...DROP(), confirm: LONG }));
  expect(await lab.send(3)).toBe(0);
  await endTime(1);
  expect(await lab.send(3)).toBe(3);
  expect((await status()).attachment).toEqual({ kind: 'none' });
  unwrap(await deploy(DROP()));
  expect(await lab.send(3)).toBe(0);
});

onKernel('a program of somebody else comes back', async () => {
  const object = `${lab.paths.state}.foreign.o`;
  await lab.transport.writeFile(object, testObject({ action: 'pass' }));
  await lab.run('ip', 'link', 'set', 'dev', 'eth0', 'xdpdrv', 'obj', object, 'sec', 'xdp');
  const id = async () =>
    JSON.parse(await lab.run('ip', '-j', 'link', 'show', 'dev', 'eth0'))[0].xdp.prog.id;
  const foreign = await id();
  unwrap(await deploy({ ...DROP(), confirm: LONG, force: true }));
  expect(await lab.send(3)).toBe(0);
  await endTime(1);
  expect(await id()).toBe(foreign);
  unwrap(await deploy({ ...DROP(), mode: 'generic', confirm: LONG, force: true }));
  expect(await lab.send(3)).toBe(0);
  await endTime(2);
  expect(await id()).toBe(foreign);
});

onKernel('rollback takes back at once what is not confirmed', async () => {
  unwrap(await deploy(PASS()));
  unwrap(await deploy({ ...DROP(), confirm: LONG }));
  expect(unwrap(await rollback())).toMatchObject({ from: 2, to: 1 });
  expect(await lab.send(3)).toBe(3);
  expect(await drift()).toEqual([]);
  expect(await readdir(pinDirectory(lab.paths, 'eth0'))).toEqual(['1']);
});

onKernel('rollback goes back step by step, or to what is named', async () => {
  unwrap(await deploy(PASS()));
  unwrap(await deploy(DROP()));
  unwrap(await deploy({ ...DROP(), rulesetChecksum: 'sha256:3' }));
  await lab.send(4);
  expect((await status()).kept).toEqual([3, 2, 1]);
  expect(unwrap(await rollback())).toMatchObject({ from: 3, to: 2 });
  expect(unwrap(await rollback())).toMatchObject({ from: 2, to: 1 });
  expect(await lab.send(3)).toBe(3);
  expect(refusalOf(await rollback())).toEqual(['deploy/no-generation']);
  expect(unwrap(await rollback(3))).toMatchObject({ from: 1, to: 3 });
  expect((await status()).attachment).toMatchObject({ rulesetChecksum: 'sha256:3' });
  expect(refusalOf(await rollback(9))).toEqual(['deploy/no-generation']);
  const counter = (await status()).counters.find(({ handle }) => handle === 12);
  expect(counter?.total.packets).toBe(7);
  for (let more = 0; more < 4; more += 1) unwrap(await deploy(PASS()));
  expect((await status()).kept).toHaveLength(5);
});
