import { isIPv4, isIPv6 } from 'node:net';
import type { LocalAddress } from '../ir/facts.ts';

/** Groups of 16 bits in one half of an IPv6 address; an IPv4 tail is two. */
function groups(half: string): readonly bigint[] {
  if (half === '') return [];
  return half.split(':').flatMap((group) => {
    if (!group.includes('.')) return [BigInt(`0x${group}`)];
    const tail = parseIpv4(group);
    return [tail >> 16n, tail & 0xffffn];
  });
}

function parseIpv4(text: string): bigint {
  return text.split('.').reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

/** An address as `ip` prints it (RFC 5952), or null when it is none. */
export function parseAddress(text: string): LocalAddress | null {
  if (isIPv4(text)) return { version: 4, value: parseIpv4(text) };
  if (!isIPv6(text) || text.includes('%')) return null;
  const [head = '', tail] = text.split('::');
  const front = groups(head);
  const back = groups(tail ?? '');
  const gap = Array.from({ length: 8 - front.length - back.length }, () => 0n);
  const value = [...front, ...gap, ...back].reduce((sum, group) => (sum << 16n) | group, 0n);
  return { version: 6, value };
}
