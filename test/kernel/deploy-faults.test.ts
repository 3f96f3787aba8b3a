import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { pinDirectory } from '../../src/deploy/paths.ts';
import { rollbackXdp } from '../../src/deploy/rollback.ts';
import { type StatusReport, statusXdp } from '../../src/deploy/status.ts';
import type { Transport } from '../../src/deploy/transport.ts';
import { undeployXdp } from '../../src/deploy/undeploy.ts';
import { type DeployLab, openDeployLab, probeDeployLab } from '../support/deploy-lab.ts';
import { COUNTING_SLOT, testObject } from '../support/deploy-objects.ts';
import { deployRequest } from '../support/deploy-requests.ts';
import { anyNumber, type Fault, faultyAt, listSteps } from '../support/faults.ts';
import { unwrap } from '../support/pipeline.ts';
import { runCommand } from '../support/run-command.ts';

const obstacle = probeDeployLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: DeployLab;

beforeAll(async () => {
  if (obstacle === null) lab = await openDeployLab();
});

afterAll(async () => {
  if (obstacle === null) await lab.close();
});

const FRAMES = 3;
const FRAME = '02000000000102000000000288b5'.padEnd(120, '0');
const OBJECTS = { drop: testObject(), pass: testObject({ action: 'pass' }) } as const;
type Behaviour = keyof typeof OBJECTS;

function requestTo(behaviour: Behaviour, confirm: number | null): DeployRequest {
  const counts = [{ slot: COUNTING_SLOT, packets: 1, bytes: 60 }];
  const frames = [{ frame: FRAME, drops: behaviour === 'drop', counts, rule: '' }];
  const rulesetChecksum = `sha256:${behaviour}`;
  return deployRequest({ elf: OBJECTS[behaviour], rulesetChecksum, frames, confirm });
}

const status = async (): Promise<StatusReport> =>
  unwrap(await statusXdp(lab.transport, { device: 'eth0' }, lab.paths));

/** Frames that the programs on the device have met. */
let sent = 0;

/** How the device treats frames now. */
async function behaviour(): Promise<Behaviour> {
  sent += FRAMES;
  const seen = await lab.send(FRAMES);
  expect([0, FRAMES]).toContain(seen);
  return seen === 0 ? 'drop' : 'pass';
}

/** Seconds that no test takes. */
const LONG = 600;

const deployTo = async (
  wanted: Behaviour,
  confirm: number | null,
  transport: Transport = lab.transport,
) => deployXdp(transport, requestTo(wanted, confirm), lab.paths);

/**
 * One deployment that meets a fault, and the one command after it. The device has the old program or
 * the new one, the status says which, and no frame's count is lost.
 */
async function meetFault(fault: Fault, step: string, before: Behaviour, confirm: number | null) {
  const wanted: Behaviour = before === 'drop' ? 'pass' : 'drop';
  const done = await deployTo(wanted, confirm, faultyAt(lab.transport, fault, step));
  const now = await behaviour();
  const { attachment, drift } = await status();
  expect(attachment).toMatchObject({ kind: 'ours', rulesetChecksum: `sha256:${now}` });
  if (done.ok) expect(now).toBe(wanted);
  else if (fault === 'fails') expect(now).toBe(before);
  const isWaiting = drift.some(({ code }) => code === 'deploy/unconfirmed');
  if (!isWaiting) {
    expect(drift).toEqual([]);
    unwrap(await deployTo(wanted, null));
    expect(await behaviour()).toBe(wanted);
  } else {
    const back = { device: 'eth0', to: null, force: false };
    unwrap(await rollbackXdp(lab.transport, back, lab.paths));
    expect(await behaviour()).toBe(before);
  }
  const after = await status();
  expect(after.drift).toEqual([]);
  expect(after.counters.find(({ handle }) => handle === 12)?.total.packets).toBe(sent);
  return isWaiting ? before : wanted;
}

onKernel('whatever step a deployment dies or fails at, old or new', async () => {
  unwrap(await deployTo('pass', null));
  // The steps are those of deployments like the ones to come, so that a new one is covered by itself.
  const plain = await listSteps(lab.transport, (noting) => deployTo('pass', null, noting));
  const tried = await listSteps(lab.transport, (noting) => deployTo('pass', LONG, noting));
  unwrap(await rollbackXdp(lab.transport, { device: 'eth0', to: null, force: false }, lab.paths));
  const steps = [...new Set(plain.map(anyNumber))];
  const more = [...new Set(tried.map(anyNumber))].filter((step) => !steps.includes(step));
  expect([steps.join('\n'), more.join('\n')]).toEqual([
    expect.stringContaining('net attach'),
    expect.stringContaining('setsid'),
  ]);
  let before: Behaviour = 'pass';
  for (const fault of ['dies', 'fails'] as const) {
    for (const step of [...steps, ...more]) {
      try {
        before = await meetFault(fault, step, before, more.includes(step) ? LONG : null);
      } catch (error) {
        throw new Error(`${fault} at ${step.slice(0, 150)}`, { cause: error });
      }
    }
  }
});

onKernel('without room for its files the old program goes on', async () => {
  const { state } = lab.paths;
  unwrap(await undeployXdp(lab.transport, { device: 'eth0', force: true }, lab.paths));
  await runCommand('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', state]);
  try {
    unwrap(await deployTo('drop', null));
    await runCommand('sh', ['-c', 'cat /dev/zero >"$1" || true', 'sh', `${state}/filler`]);
    const refused = await deployTo('pass', null);
    expect(refused).toMatchObject({ ok: false, diagnostics: [{ code: 'deploy/io' }] });
    expect(await behaviour()).toBe('drop');
    expect((await status()).drift).toEqual([]);
    await runCommand('rm', ['--', `${state}/filler`]);
    unwrap(await deployTo('pass', null));
    expect(await behaviour()).toBe('pass');
  } finally {
    unwrap(await undeployXdp(lab.transport, { device: 'eth0', force: true }, lab.paths));
    await runCommand('umount', [state]);
  }
});

onKernel('a device that goes away just before the switch leaves nothing behind', async () => {
  const { run } = lab.transport;
  const vanishing: Transport = {
    ...lab.transport,
    async run(argv, options) {
      if (argv.includes('attach')) await run(['ip', 'link', 'del', 'dev', 'eth0']);
      return run(argv, options);
    },
  };
  expect(await deployTo('drop', null, vanishing)).toMatchObject({ ok: false });
  const pins = await run(['ls', '-1', pinDirectory(lab.paths, 'eth0')]);
  expect(pins.stdout).toBe('');
});
