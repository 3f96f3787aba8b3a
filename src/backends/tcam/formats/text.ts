import { formatAddress } from '../../../ir/print.ts';

/** IPv4 address of 32 bits. */
export function formatIp(value: bigint): string {
  return formatAddress({ version: 4, value });
}

/** IPv6 address of 128 bits, all eight groups written, so that no reader has to guess. */
export function formatIp6(value: bigint): string {
  return Array.from({ length: 8 }, (_, group) =>
    ((value >> BigInt((7 - group) * 16)) & 0xffffn).toString(16),
  ).join(':');
}

/** Length of the prefix that a mask is, or null when it is none. */
export function prefixLength(mask: bigint, width: number): number | null {
  const inverse = mask ^ ((1n << BigInt(width)) - 1n);
  if ((inverse & (inverse + 1n)) !== 0n) return null;
  return width - inverse.toString(2).replace(/^0$/, '').length;
}
