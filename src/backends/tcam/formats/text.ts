import type { z } from 'zod';
import { formatAddress } from '../../../ir/print.ts';
import { ones } from '../../../support/bits.ts';
import { type Diagnostic, fail, type Result, succeed } from '../../../support/diagnostics.ts';

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
  const inverse = mask ^ ones(width);
  if ((inverse & (inverse + 1n)) !== 0n) return null;
  return width - inverse.toString(2).replace(/^0$/, '').length;
}

type Issue = z.core.$ZodIssue;

function describeIssue({ path, message }: Issue): string {
  return `${path.join('.')}: ${message}`;
}

/** JSON of a certain form; what is wrong with it goes through `refuse`, where in it by `describe`. */
export function parseJsonAs<T>(
  schema: z.ZodType<T>,
  text: string,
  refuse: (message: string) => Diagnostic,
  describe: (issue: Issue) => string = describeIssue,
): Result<T> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return fail(refuse(error instanceof Error ? error.message : String(error)));
  }
  const checked = schema.safeParse(value);
  if (checked.success) return succeed(checked.data);
  return fail(...checked.error.issues.slice(0, 1).map((issue) => refuse(describe(issue))));
}
