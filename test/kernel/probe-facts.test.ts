import { afterEach, beforeEach, expect, it } from 'vitest';
import { probeFacts } from '../../src/deploy/probe-facts.ts';
import type { Facts } from '../../src/ir/facts.ts';
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

it('says why no facts can be read here', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

async function facts(): Promise<Facts> {
  const result = await probeFacts(lab.transport, 'eth0');
  if (!result.ok) throw new Error(result.diagnostics.map(({ message }) => message).join('\n'));
  return result.value;
}

onKernel('facts are read off the machine', async () => {
  await lab.run('sysctl', '-w', 'net.ipv4.conf.all.rp_filter=0', 'net.ipv4.conf.eth0.rp_filter=0');
  await lab.run('ip', 'address', 'add', '10.0.0.1/24', 'dev', 'eth0');
  await lab.run('ip', 'address', 'add', '2001:db8::a:1/64', 'dev', 'eth0', 'nodad');
  await lab.run('ethtool', '-K', 'eth0', 'rxvlan', 'off', 'rx-vlan-stag-hw-parse', 'off');
  const host = await facts();
  expect(host).toMatchObject({ role: 'host', mac: 0x020000000001n, routed: false });
  expect(host).toMatchObject({ groOff: true, rpFilterOff: true, rxVlanOff: true });
  expect(host.localAddresses).toContainEqual({ version: 4, value: 0x0a000001n });
  expect(host.localAddresses).toContainEqual({
    version: 6,
    value: 0x20010db80000000000000000000a0001n,
  });
  await lab.run('ethtool', '-K', 'eth0', 'gro', 'on', 'rxvlan', 'on');
  await lab.run('sysctl', '-w', 'net.ipv4.conf.all.rp_filter=2');
  expect(await facts()).toMatchObject({ groOff: false, rpFilterOff: false, rxVlanOff: false });
});

onKernel.each([
  ['forwarding of the device', ['sysctl', '-w', 'net.ipv4.conf.eth0.forwarding=1'], 'router'],
  ['forwarding of another device', ['sysctl', '-w', 'net.ipv4.conf.lo.forwarding=1'], 'host'],
  ['IPv6 forwarding', ['sysctl', '-w', 'net.ipv6.conf.all.forwarding=1'], 'router'],
  ['a prefix that is local', ['ip', 'route', 'add', 'local', '10.9.0.0/16', 'dev', 'lo'], null],
  ['no rule for the local table', ['ip', 'rule', 'del', 'pref', '0'], null],
] as const)('the role with %s', async (_what, argv, role) => {
  await lab.run('ip', 'link', 'set', 'lo', 'up');
  expect((await facts()).role).toBe('host');
  await lab.run(...argv);
  expect((await facts()).role).toBe(role);
});

onKernel('the bridge that a device is a port of', async () => {
  await lab.run('ip', 'link', 'set', 'lo', 'up');
  await lab.run('ip', 'link', 'set', 'eth0', 'up');
  await lab.run('ip', 'link', 'add', 'br0', 'address', '02:00:00:00:03:01', 'type', 'bridge');
  await lab.run('ip', 'link', 'set', 'dev', 'eth0', 'master', 'br0');
  await lab.run('ip', 'link', 'set', 'br0', 'up');
  for (const version of ['iptables', 'ip6tables']) {
    await lab.run('sysctl', '-w', `net.bridge.bridge-nf-call-${version}=0`);
  }
  expect(await facts()).toMatchObject({
    ...{ role: 'host', vlans: [], group: 0, bridgePlain: true, brNetfilter: false },
    ...{ master: { name: 'br0', kind: 'bridge' }, masterMac: 0x020000000301n },
  });
  await lab.run('sysctl', '-w', 'net.bridge.bridge-nf-call-iptables=1');
  await lab.run('sysctl', '-w', 'net.ipv4.conf.br0.forwarding=1');
  await lab.run('ip', 'link', 'set', 'br0', 'type', 'bridge', 'stp_state', '1');
  expect(await facts()).toMatchObject({ role: 'router', bridgePlain: false, brNetfilter: true });
});

onKernel('a MACVLAN takes frames', async () => {
  await lab.run('ip', 'link', 'set', 'eth0', 'up');
  expect((await facts()).master).toBeNull();
  await lab.run('ip', 'link', 'add', 'mv0', 'link', 'eth0', 'type', 'macvlan');
  await lab.run('ip', 'link', 'set', 'mv0', 'up');
  expect((await facts()).master).toEqual({ name: 'mv0', kind: 'macvlan' });
});

onKernel('what listens to another address is seen by it', async () => {
  await lab.run('bridge', 'fdb', 'add', '02:00:00:00:09:09', 'dev', 'eth0', 'self');
  expect((await facts()).master).toEqual({ name: 'elsewhere', kind: 'macvlan' });
});
