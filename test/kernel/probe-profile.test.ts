import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeDevice, matchProfiles } from '../../src/deploy/probe-profile.ts';
import { loadShippedProfiles } from '../../src/profile/load.ts';
import { type DeployLab, openDeployLab, probeDeployLab } from '../support/deploy-lab.ts';

const obstacle = probeDeployLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: DeployLab;

beforeEach(async () => {
  if (obstacle === null) lab = await openDeployLab();
});

afterEach(async () => {
  if (obstacle === null) await lab.close();
});

it('says why no device can be probed here', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

async function probe(device: string): Promise<unknown> {
  const described = await describeDevice(lab.transport, device);
  if (!described.ok) return described.diagnostics.map(({ code }) => code);
  const profiles = await loadShippedProfiles();
  const found = matchProfiles(described.value, profiles.ok ? profiles.value : []);
  const { driver, linkKind, attached } = described.value;
  const names = found.ok ? found.value.map(({ name }) => name) : [];
  return { driver, linkKind, attached, names };
}

onKernel('a veth device runs XDP in its driver', async () => {
  expect(await probe('eth0')).toEqual({
    driver: 'veth',
    linkKind: 'veth',
    attached: [],
    names: ['xdp-native'],
  });
});

onKernel('a bridge has generic XDP only', async () => {
  await lab.run('ip', 'link', 'add', 'br0', 'type', 'bridge');
  expect(await probe('br0')).toMatchObject({ driver: 'bridge', names: ['xdp-generic'] });
});

onKernel('the loopback device tells no driver', async () => {
  expect(await probe('lo')).toMatchObject({ driver: null, names: ['xdp-generic'] });
});

onKernel('a device that is not there', async () => {
  expect(await probe('eth9')).toEqual(['deploy/no-device']);
});
