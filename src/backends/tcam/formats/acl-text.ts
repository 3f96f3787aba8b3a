import { parseIpv4, parseIpv6 } from '../../../support/addresses.ts';
import { type Diagnostic, errorAt, type Place } from '../../../support/diagnostics.ts';
import type { AclEntry, AclPrefix } from './acl.ts';
import { formatIp, formatIp6 } from './text.ts';

/** `10.0.0.0/8`, `2001:db8:0:0:0:0:0:0/32`. */
export function spellPrefix(version: 'ip' | 'ip6', { value, length }: AclPrefix): string {
  return `${version === 'ip' ? formatIp(value) : formatIp6(value)}/${length}`;
}

/** The inverse of `spellPrefix`; an address alone is a prefix of all its bits. Null when it is neither. */
export function parsePrefix(version: 'ip' | 'ip6', text: string): AclPrefix | null {
  const width = version === 'ip' ? 32 : 128;
  const [address = '', digits = String(width), ...more] = text.split('/');
  const value = version === 'ip' ? parseIpv4(address) : parseIpv6(address);
  const length = Number(digits);
  if (value === null || more.length > 0 || !/^\d{1,3}$/.test(digits) || length > width) return null;
  const host = (1n << BigInt(width - length)) - 1n;
  return (value & host) === 0n ? { value, length } : null;
}

/** What a format cannot say of an entry, for whoever wrote the rule. */
export function refuseEntry(format: string, { rules: [path] }: AclEntry, what: string): Diagnostic {
  const place: Place | null = path === undefined ? null : { kind: 'ruleset', path };
  return errorAt('tcam/format', `${format} cannot say ${what}`, {
    help: 'use another format, or a profile of the device so that such rules are left to nftables',
    ...(place === null ? {} : { place }),
  });
}

/** What is wrong with a file that was read. */
export function refuseText(message: string, file: string | null = null): Diagnostic {
  if (file === null) return errorAt('tcam/format', message);
  return errorAt('tcam/table-file', message, {
    place: { kind: 'file', file, line: null, column: null },
  });
}
