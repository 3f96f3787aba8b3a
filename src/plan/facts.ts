import type { Facts, Vlan } from '../ir/facts.ts';
import { formatAddress, formatMac } from '../ir/print.ts';

function formatVlan({ protocol, id, device }: Vlan): string {
  const name = device === null ? `${id}` : `${id}:${device}`;
  return protocol === 0x88a8 ? `802.1ad:${name}` : name;
}

/** The facts that are known, by name, as `--fact` and `--facts` take them. */
export function describeFacts(facts: Facts): Record<string, string | string[]> {
  const { role, localAddresses, mac, groOff, rpFilterOff, rxVlanOff, routed } = facts;
  const { vlans, master, masterMac, brNetfilter, group } = facts;
  const noVlan = vlans?.length === 0 ? 'none' : null;
  return {
    ...(role === null ? {} : { role }),
    ...(localAddresses === null ? {} : { 'local-address': localAddresses.map(formatAddress) }),
    ...(mac === null ? {} : { mac: formatMac(mac) }),
    ...(groOff ? { gro: 'off' } : {}),
    ...(rpFilterOff ? { 'rp-filter': 'off' } : {}),
    ...(rxVlanOff ? { 'rx-vlan': 'off' } : {}),
    ...(routed ? { routed: 'yes' } : {}),
    ...(facts.conntrackFresh ? { conntrack: 'fresh' } : {}),
    ...(facts.soleDevice ? { 'sole-device': 'yes' } : {}),
    ...(vlans === null ? {} : { vlan: noVlan ?? vlans.map(formatVlan) }),
    ...(master === null ? {} : { master: `${master.name}:${master.kind}` }),
    ...(masterMac === null ? {} : { 'master-mac': formatMac(masterMac) }),
    ...(facts.bridgePlain ? { bridge: 'plain' } : {}),
    ...(brNetfilter === null ? {} : { 'br-nf': brNetfilter ? 'on' : 'off' }),
    ...(group === null ? {} : { group: `${group}` }),
  };
}
