import { readdir } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { pinDirectory } from '../../src/deploy/paths.ts';
import type { SelfTestFrame } from '../../src/deploy/self-test.ts';
import { statusXdp } from '../../src/deploy/status.ts';
import { type DeployLab, openDeployLab, probeDeployLab } from '../support/deploy-lab.ts';
import { COUNTING_SLOT, testObject } from '../support/deploy-objects.ts';
import { deployRequest } from '../support/deploy-requests.ts';
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

const ADDRESSES = '020000000001020000000002';
const counts = [{ slot: COUNTING_SLOT, packets: 1, bytes: 60 }];
/** The test program counts and drops the first, and passes the second. */
const DROPPED: SelfTestFrame = {
  ...{ frame: `${ADDRESSES}88b5`.padEnd(120, '0'), drops: true, rule: 'first' },
  counts,
};
const PASSED: SelfTestFrame = {
  ...{ frame: `${ADDRESSES}0800`.padEnd(120, '0'), drops: false, rule: 'second', counts: [] },
};

async function deploy(changes: Partial<DeployRequest>) {
  return deployXdp(lab.transport, deployRequest(changes), lab.paths);
}

onKernel('a program that does as it should is attached, and has counted nothing', async () => {
  const done = unwrap(await deploy({ frames: [DROPPED, PASSED, DROPPED] }));
  expect(done.tested).toBe(3);
  await lab.send(2);
  const { counters } = unwrap(await statusXdp(lab.transport, { device: 'eth0' }, lab.paths));
  expect(counters.map(({ total }) => total.packets)).toEqual([0, 2]);
  expect(await readdir(lab.paths.state)).not.toContain('eth0.frames');
});

onKernel.each([
  ['passes what is to be dropped', { elf: testObject({ action: 'pass' }) }, /returns 2 for frame/],
  ['drops what is to be passed', { frames: [{ ...DROPPED, drops: false }] }, /returns 1 for frame/],
  ['counts less', { frames: [{ ...DROPPED, counts: [...counts, ...counts] }] }, /1 packets, 60 b/],
  [
    'counts elsewhere',
    { frames: [{ ...DROPPED, counts: [{ ...counts[0], slot: 0 }] }] },
    /has 0 p/,
  ],
] as readonly (readonly [string, Partial<DeployRequest>, RegExp])[])(
  'a program that %s is not attached',
  async (_, changes, said) => {
    const before = await lab.run('ip', '-d', 'link', 'show', 'dev', 'eth0');
    const pinned = await readdir(pinDirectory(lab.paths, 'eth0')).catch(() => []);
    expect(await deploy({ frames: [DROPPED, PASSED], ...changes })).toMatchObject({
      ok: false,
      diagnostics: [{ code: 'deploy/self-test', message: expect.stringMatching(said) }],
    });
    expect(await lab.run('ip', '-d', 'link', 'show', 'dev', 'eth0')).toBe(before);
    expect(await readdir(pinDirectory(lab.paths, 'eth0')).catch(() => [])).toEqual(pinned);
  },
);
