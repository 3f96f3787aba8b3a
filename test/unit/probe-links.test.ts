import { expect, it } from 'vitest';
import {
  type Link,
  linksSchema,
  readBridgePlain,
  readMaster,
  readVlans,
} from '../../src/deploy/probe-links.ts';

const MAC = '02:00:00:00:00:01';

function links(...given: readonly object[]): Link[] {
  return linksSchema.parse([{ ifname: 'eth0', link_type: 'ether', address: MAC }, ...given]);
}

function vlan(name: string, id: number, more: object = {}, data: object = {}): object {
  const info_data = { protocol: '802.1Q', id, flags: ['REORDER_HDR'], ...data };
  return {
    ...{ ifname: name, link: 'eth0', address: MAC, flags: ['UP'] },
    linkinfo: { info_kind: 'vlan', info_data },
    ...more,
  };
}

function first(all: readonly Link[]): Link {
  const [port] = all;
  if (port === undefined) throw new Error('bug: no device');
  return port;
}

it('VLAN devices on top of the device are found', () => {
  const all = links(vlan('eth0.5', 5), vlan('stag', 7, {}, { protocol: '802.1ad' }));
  expect(readVlans(first(all), all)).toEqual([
    { protocol: 0x8100, id: 5, device: 'eth0.5' },
    { protocol: 0x88a8, id: 7, device: 'stag' },
  ]);
});

it.each([
  ['another address', vlan('eth0.5', 5, { address: '02:00:00:00:00:09' })],
  ['down', vlan('eth0.5', 5, { flags: [] })],
  ['in a bridge', vlan('eth0.5', 5, { master: 'br0' })],
  ['the header left in', vlan('eth0.5', 5, {}, { flags: [] })],
])('a VLAN device that does more than take its tag off has no name: %s', (_, device) => {
  const all = links(device);
  expect(readVlans(first(all), all)).toEqual([{ protocol: 0x8100, id: 5, device: null }]);
});

it('VLAN devices of another device are not this one’s', () => {
  const all = links(vlan('eth1.5', 5, { link: 'eth1' }));
  expect(readVlans(first(all), all)).toEqual([]);
});

it('a master is named with its kind', () => {
  const bond = { ifname: 'bond0', linkinfo: { info_kind: 'bond' } };
  const all = linksSchema.parse([{ ifname: 'eth0', master: 'bond0' }, bond]);
  expect(readMaster(first(all), all)).toEqual({ name: 'bond0', kind: 'bond' });
  const macvlan = links({ ifname: 'mv0', link: 'eth0', linkinfo: { info_kind: 'macvlan' } });
  expect(readMaster(first(macvlan), macvlan)).toEqual({ name: 'mv0', kind: 'macvlan' });
  expect(readMaster(first(links()), links())).toBeNull();
});

it.each([
  [true, {}, {}],
  [false, { stp_state: 1 }, {}],
  [false, { vlan_filtering: 1 }, {}],
  [false, {}, { state: 'blocking' }],
  [false, {}, { locked: true }],
  [false, {}, { vlan_tunnel: true }],
])('a bridge is plain: %s with %o, %o', (plain, data, slave) => {
  const all = linksSchema.parse([
    {
      ...{ ifname: 'eth0', master: 'br0' },
      linkinfo: { info_slave_data: { state: 'forwarding', locked: false, ...slave } },
    },
    {
      ifname: 'br0',
      linkinfo: { info_kind: 'bridge', info_data: { stp_state: 0, vlan_filtering: 0, ...data } },
    },
  ]);
  const [port, bridge] = all;
  if (port === undefined || bridge === undefined) throw new Error('bug: no device');
  expect(readBridgePlain(port, bridge, all)).toBe(plain);
});
