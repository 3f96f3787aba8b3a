import { ones } from '../../../support/bits.ts';
import { fail, type Result, succeed } from '../../../support/diagnostics.ts';
import type { TableSet } from '../table.ts';
import { type Acl, type AclEntry, type AclPorts, aclsOf, ICMP, TCP } from './acl.ts';
import { refuseEntry } from './acl-text.ts';
import { formatIp, formatIp6 } from './text.ts';

/** The items that transport protocols have, testpmd's flow rules. */
const ITEMS: Readonly<Record<string, ReadonlyMap<number, string>>> = {
  ip: new Map([
    [TCP, 'tcp'],
    [17, 'udp'],
    [ICMP.ip, 'icmp'],
  ]),
  ip6: new Map([
    [TCP, 'tcp'],
    [17, 'udp'],
    [ICMP.ip6, 'icmp6'],
  ]),
};

function ternary(name: string, value: string, mask: string): string {
  return ` ${name} spec ${value} ${name} mask ${mask}`;
}

/** A port, a prefix of ports, or a range, for which few drivers take `last`. */
function spellPorts(name: string, ports: AclPorts | null): string {
  if (ports === null) return '';
  const size = ports.hi - ports.lo + 1;
  const isPrefix = Number.isInteger(Math.log2(size)) && ports.lo % size === 0;
  const mask = isPrefix ? 0x10000 - size : 0xffff;
  const last = isPrefix ? '' : ` ${name} last ${ports.hi}`;
  return ` ${name} spec ${ports.lo}${last} ${name} mask 0x${mask.toString(16)}`;
}

function patternOf(version: Acl['version'], entry: AclEntry): string {
  const { protocol, saddr, daddr, sport, dport, flags, type, code, dscp } = entry;
  const width = version === 'ip' ? 32 : 128;
  const format = version === 'ip' ? formatIp : formatIp6;
  const address = (name: string, { value, length }: AclEntry['saddr']): string =>
    length === 0 ? '' : ternary(name, format(value), format(ones(width) ^ ones(width - length)));
  const item = protocol === null ? undefined : ITEMS[version]?.get(protocol);
  const number = (name: string, value: number | null, mask: string): string =>
    value === null ? '' : ternary(name, String(value), mask);
  // DSCP is the upper six bits of the byte, RFC 2474.
  const tos = number(version === 'ip' ? 'tos' : 'tc', dscp === null ? null : dscp << 2, '0xfc');
  const next = number('proto', item === undefined ? protocol : null, '0xff');
  const kind = number('type', type, '0xff') + number('code', code, '0xff');
  const bits =
    flags === null ? '' : ternary('flags', String(flags.value), `0x${flags.mask.toString(16)}`);
  const ports = spellPorts('src', sport) + spellPorts('dst', dport);
  const ip = `${version === 'ip' ? 'ipv4' : 'ipv6'}${address('src', saddr)}${address('dst', daddr)}${tos}${next}`;
  return ['eth', ip, ...(item === undefined ? [] : [`${item}${ports}${bits}${kind}`]), 'end'].join(
    ' / ',
  );
}

/** Commands of dpdk-testpmd for port 0; the lowest priority number wins, what passes is spread by RSS. */
export function writeRteFlow(tables: TableSet): Result<string> {
  const acls = aclsOf('rte_flow', tables);
  if (!acls.ok) return acls;
  const lines: string[] = [];
  for (const { version, entries } of acls.value) {
    for (const [priority, entry] of entries.entries()) {
      if (entry.protocol === 0) return fail(refuseEntry('rte_flow', entry, 'protocol 0'));
      const action = entry.drops ? 'drop' : 'rss';
      const pattern = patternOf(version, entry);
      lines.push(
        `flow create 0 ingress priority ${priority} pattern ${pattern} actions ${action} / end`,
      );
    }
  }
  return succeed(`${lines.join('\n')}\n`);
}
