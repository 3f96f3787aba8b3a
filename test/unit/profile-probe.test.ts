import { expect, it } from 'vitest';
import {
  type DeviceDescription,
  describeDevice,
  matchProfiles,
  parseDriverInfo,
} from '../../src/deploy/probe-profile.ts';
import type { CommandResult, Transport } from '../../src/deploy/transport.ts';
import { loadShippedProfiles } from '../../src/profile/load.ts';

const LINK = {
  ifname: 'eth0',
  ifindex: 2,
  mtu: 9000,
  num_rx_queues: 63,
  xdp: { attached: [{ mode: 1, prog: { id: 7, name: 'filter' } }] },
};
const DRIVER = `driver: mlx5_core
version: 6.12.0
firmware-version: 22.36.1010 (MT_0000000359)
expansion-rom-version:
bus-info: 0000:01:00.0
supports-statistics: yes
`;
const HANDLE = 'pci/0000:01:00.0';

/** Programs by their whole command line; one that is not here is not installed. */
type Answers = Readonly<Record<string, string | CommandResult>>;

const ANSWERS: Answers = {
  'ip -j -d link show dev eth0': JSON.stringify([LINK]),
  'ethtool -i eth0': DRIVER,
  'devlink -j port show': JSON.stringify({
    port: {
      [`${HANDLE}/65535`]: { type: 'eth', netdev: 'eth0', flavour: 'physical' },
      'pci/0000:01:00.1/131071': { type: 'eth', netdev: 'eth1' },
    },
  }),
  [`devlink -j dev info ${HANDLE}`]: JSON.stringify({
    info: {
      [HANDLE]: { driver: 'mlx5_core', versions: { running: { 'fw.version': '22.36.1010' } } },
    },
  }),
  [`devlink -j resource show ${HANDLE}`]: JSON.stringify({
    resources: {
      [HANDLE]: [
        { name: 'kvd', size: 64, unit: 'entry', resources: [{ name: 'linear', size: 8, occ: 3 }] },
      ],
    },
  }),
};

function answer(answers: Answers): { readonly transport: Transport; readonly asked: string[] } {
  const asked: string[] = [];
  const refuse = async (): Promise<never> => {
    throw new Error('a probe touches no file');
  };
  const transport: Transport = {
    async run(argv) {
      asked.push(argv.join(' '));
      const found = answers[argv.join(' ')];
      if (found === undefined) return { code: 127, stdout: '', stderr: '' };
      return typeof found === 'string' ? { code: 0, stdout: found, stderr: '' } : found;
    },
    hold: refuse,
    writeFile: refuse,
    readFile: refuse,
    remove: refuse,
  };
  return { transport, asked };
}

it('describes a device by ip, ethtool and devlink', async () => {
  const described = await describeDevice(answer(ANSWERS).transport, 'eth0');
  expect(described).toEqual({
    ok: true,
    diagnostics: [],
    value: {
      device: 'eth0',
      driver: 'mlx5_core',
      firmware: '22.36.1010 (MT_0000000359)',
      bus: '0000:01:00.0',
      linkKind: null,
      mtu: 9000,
      receiveQueues: 63,
      attached: ['xdpdrv'],
      devlink: {
        handle: HANDLE,
        versions: ['fw.version 22.36.1010'],
        resources: [
          { name: 'kvd', size: 64, used: null },
          { name: 'kvd/linear', size: 8, used: 3 },
        ],
      },
    },
  });
});

it('asks only for what changes nothing', async () => {
  const { transport, asked } = answer(ANSWERS);
  await describeDevice(transport, 'eth0');
  for (const command of asked) expect(command).toMatch(/ show\b| info\b|^ethtool -i /);
});

it('a machine without devlink is described without it', async () => {
  const answers = Object.entries(ANSWERS).filter(([command]) => !command.startsWith('devlink'));
  const described = await describeDevice(answer(Object.fromEntries(answers)).transport, 'eth0');
  expect(described).toMatchObject({ ok: true, diagnostics: [], value: { devlink: null } });
});

it.each([
  ['ip', 'deploy/no-tool', 'apt-get install iproute2'],
  ['ethtool', 'deploy/no-tool', 'apt-get install ethtool'],
])('says that %s is missing', async (tool, code, help) => {
  const answers = Object.entries(ANSWERS).filter(([command]) => !command.startsWith(tool));
  const described = await describeDevice(answer(Object.fromEntries(answers)).transport, 'eth0');
  expect(described.ok).toBe(false);
  expect(described.diagnostics.map((found) => found.code)).toEqual([code]);
  expect(described.diagnostics[0]?.help).toContain(help);
});

it('a device that tells no driver is a warning', async () => {
  const stderr = 'Cannot get driver information: Operation not supported\n';
  const silent = { ...ANSWERS, 'ethtool -i eth0': { code: 71, stdout: '', stderr } };
  const described = await describeDevice(answer(silent).transport, 'eth0');
  expect(described).toMatchObject({ ok: true, value: { driver: null, firmware: null } });
  expect(described.diagnostics.map(({ code }) => code)).toEqual(['deploy/no-driver']);
});

it('reads what `ethtool -i` leaves empty as not told', () => {
  expect(parseDriverInfo('driver: veth\nversion: 1.0\nfirmware-version: \nbus-info: \n')).toEqual({
    driver: 'veth',
    firmware: null,
    bus: null,
  });
});

const DEVICE: DeviceDescription = {
  device: 'eth0',
  driver: null,
  firmware: null,
  bus: null,
  linkKind: null,
  mtu: 1500,
  receiveQueues: 1,
  attached: [],
  devlink: null,
};

it.each([
  ['veth', { driver: 'veth' }, ['xdp-native']],
  ['virtio', { driver: 'virtio_net' }, ['xdp-native']],
  ['a driver without XDP', { driver: 'r8169' }, ['xdp-generic']],
  ['no driver told', {}, ['xdp-generic']],
  ['a program in an unknown driver', { driver: 'new', attached: ['xdpdrv'] }, ['xdp-native']],
  ['netdevsim', { driver: 'netdevsim' }, ['netdevsim', 'xdp-native']],
  [
    'Agilio with BPF firmware',
    { driver: 'nfp', firmware: '0.0.3.5 0.25 bpf-2.0.6.124 ebpf' },
    ['agilio', 'xdp-native'],
  ],
  ['ConnectX', { driver: 'mlx5_core' }, ['connectx', 'xdp-native']],
  ['E810', { driver: 'ice' }, ['e810', 'xdp-native']],
  [
    'Spectrum, of which the mode is not told',
    { driver: 'mlxsw_spectrum3' },
    ['spectrum', 'spectrum-acl-heavy', 'spectrum-ip-acl-heavy', 'xdp-generic'],
  ],
  ['LAN966x', { driver: 'lan966x-switch' }, ['lan966x', 'xdp-native']],
  ['Sparx-5', { driver: 'sparx5-switch' }, ['sparx5', 'xdp-generic']],
  ['Open vSwitch', { driver: 'openvswitch' }, ['openvswitch', 'xdp-generic']],
])('profiles for %s', async (_what, known, names) => {
  const profiles = await loadShippedProfiles();
  const found = matchProfiles({ ...DEVICE, ...known }, profiles.ok ? profiles.value : []);
  expect(found.diagnostics).toEqual([]);
  expect(found.ok && found.value.map(({ name }) => name)).toEqual(names);
  for (const { why } of found.ok ? found.value : []) expect(why).not.toBe('');
});

it('a card with other firmware takes no programs', async () => {
  const profiles = await loadShippedProfiles();
  const card = { ...DEVICE, driver: 'nfp', firmware: '0.0.3.5 0.25 nic-2.1.16 nic' };
  const found = matchProfiles(card, profiles.ok ? profiles.value : []);
  expect(found.ok && found.value.map(({ name }) => name)).toEqual(['xdp-native']);
  expect(found.diagnostics.map(({ code }) => code)).toEqual(['deploy/other-firmware']);
});

it('says when there is no profile at all', () => {
  expect(matchProfiles(DEVICE, []).diagnostics.map(({ code }) => code)).toEqual([
    'deploy/no-profile',
  ]);
});
