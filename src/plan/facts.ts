import type { Facts } from '../ir/facts.ts';
import { formatAddress, formatMac } from '../ir/print.ts';

/** The facts that are known, by name, as `--fact` takes them. */
export function describeFacts(facts: Facts): Record<string, string | string[]> {
  const { role, localAddresses, mac, groOff, rpFilterOff, rxVlanOff, routed } = facts;
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
  };
}
