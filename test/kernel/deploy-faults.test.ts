import { spawnSync } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { rollbackXdp } from '../../src/deploy/rollback.ts';
import { type StatusReport, statusXdp } from '../../src/deploy/status.ts';
import type { Transport } from '../../src/deploy/transport.ts';
import { undeployXdp } from '../../src/deploy/undeploy.ts';
import { type DeployLab, openDeployLab, probeDeployLab } from '../support/deploy-lab.ts';
import { COUNTING_SLOT, testObject } from '../support/deploy-objects.ts';
import { deployRequest, refusalOf } from '../support/deploy-requests.ts';
import { type Fault, faultyAt, listSteps } from '../support/faults.ts';
import { unwrap } from '../support/pipeline.ts';

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

/** How the device treats frames now. */
async function behaviour(): Promise<Behaviour> {
  const seen = await lab.send(FRAMES);
  expect([0, FRAMES]).toContain(seen);
  return seen === 0 ? 'drop' : 'pass';
}

/** What the status says that the device does; it must be what it does. */
async function statedBehaviour(): Promise<string> {
  const { attachment } = await status();
  return attachment.kind === 'ours' ? attachment.rulesetChecksum.replace('sha256:', '') : 'none';
}

/** Seconds that no test takes. */
const LONG = 600;

/** A deployment and the one command that brings order after whatever befell it. */
interface Case {
  readonly name: string;
  readonly confirm: number | null;
  readonly mend: (wanted: Behaviour) => Promise<unknown>;
}

const deployTo = async (
  wanted: Behaviour,
  confirm: number | null,
  transport: Transport = lab.transport,
) => deployXdp(transport, requestTo(wanted, confirm), lab.paths);

const CASES: readonly Case[] = [
  { name: 'deploy', confirm: null, mend: (wanted) => deployTo(wanted, null) },
  {
    name: 'deploy --confirm',
    confirm: LONG,
    // Where it got as far as to wait, `rollback` takes it back; before, there is nothing to take back.
    mend: async (wanted) => {
      const { drift } = await status();
      if (drift.some(({ code }) => code === 'deploy/unconfirmed')) {
        const back = { device: 'eth0', to: null, force: false };
        unwrap(await rollbackXdp(lab.transport, back, lab.paths));
      }
      return unwrap(await deployTo(wanted, null));
    },
  },
];

const FAULTS: readonly Fault[] = ['dies', 'fails'];

onKernel.each(CASES)('$name: whatever step it dies or fails at, old or new', async (one) => {
  unwrap(await deployTo('pass', null));
  // The steps are those of a deployment like the ones to come, so that a new step is covered by itself.
  const steps = await listSteps(lab.transport, (noting) => deployTo('pass', one.confirm, noting));
  if (one.confirm !== null) await one.mend('pass');
  expect(steps.join('\n')).toContain('net attach');
  let before: Behaviour = 'pass';
  for (const fault of FAULTS) {
    for (const [index, step] of steps.entries()) {
      const said = `${fault} at ${step.slice(0, 120)}`;
      const wanted: Behaviour = before === 'drop' ? 'pass' : 'drop';
      const done = await deployTo(wanted, one.confirm, faultyAt(lab.transport, fault, index));
      if (fault === 'dies' && index < steps.length - 1) expect(done.ok, said).toBe(false);
      const now = await behaviour();
      // Nothing was half done: what is said to run runs, and a refusal left what was there.
      expect(await statedBehaviour(), said).toBe(now);
      if (done.ok) expect(now, said).toBe(wanted);
      else if (fault === 'fails') expect(now, said).toBe(before);
      await one.mend(wanted);
      expect(await behaviour(), said).toBe(wanted);
      expect((await status()).drift, said).toEqual([]);
      before = wanted;
    }
  }
});
