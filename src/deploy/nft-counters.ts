import { z } from 'zod';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { complaint, parseJson } from './machine.ts';
import { addCounts, type Count, NOTHING, type OwnerCount } from './owner-counts.ts';
import type { Transport } from './transport.ts';

const family = z.enum(['ip', 'ip6', 'inet', 'arp', 'bridge', 'netdev']);
const countSchema = z.object({ packets: z.number(), bytes: z.number() });

/** The objects of libnftables-json(5) that matter here; others are passed over. */
const ruleSchema = z.object({
  rule: z.object({
    family,
    table: z.string(),
    chain: z.string(),
    handle: z.number(),
    expr: z.array(z.unknown()),
  }),
});
const counterSchema = z.object({
  counter: z.object({ family, table: z.string(), name: z.string(), ...countSchema.shape }),
});
const statementSchema = z.object({ counter: countSchema });
const listingSchema = z.object({ nftables: z.array(z.unknown()) });

function toCount({ packets, bytes }: z.output<typeof countSchema>): Count {
  return { packets: BigInt(packets), bytes: BigInt(bytes) };
}

/** A rule's own counters in one sum; null for a rule that has none. */
function ruleCount(expr: readonly unknown[]): Count | null {
  const counts = expr
    .map((statement) => statementSchema.safeParse(statement).data)
    .filter((statement) => statement !== undefined)
    .map(({ counter }) => toCount(counter));
  return counts.length === 0 ? null : counts.reduce(addCounts, NOTHING);
}

/** Every counter in a listing of `nft -j list ruleset`, or null when it is none. */
export function collectNftCounts(listing: unknown): readonly OwnerCount[] | null {
  const parsed = listingSchema.safeParse(listing);
  if (!parsed.success) return null;
  const next = new Map<string, number>();
  return parsed.data.nftables.flatMap((item): readonly OwnerCount[] => {
    const named = counterSchema.safeParse(item).data?.counter;
    if (named !== undefined) {
      const { table, name } = named;
      const owner = { family: named.family, table, name, chain: null, handle: null, index: null };
      return [{ owner, count: toCount(named) }];
    }
    const rule = ruleSchema.safeParse(item).data?.rule;
    if (rule === undefined) return [];
    const place = JSON.stringify([rule.family, rule.table, rule.chain]);
    const index = next.get(place) ?? 0;
    next.set(place, index + 1);
    const count = ruleCount(rule.expr);
    if (count === null) return [];
    const { table, chain, handle } = rule;
    return [{ owner: { family: rule.family, table, name: null, chain, handle, index }, count }];
  });
}

/** The counters of the live ruleset. */
export async function readNftCounts(transport: Transport): Promise<Result<readonly OwnerCount[]>> {
  const result = await transport.run(['nft', '-j', 'list', 'ruleset']);
  const counts = result.code === 0 ? collectNftCounts(parseJson(result.stdout)) : null;
  if (counts !== null) return succeed(counts);
  const why = result.code === 0 ? 'not a listing' : complaint(result);
  return fail(errorAt('deploy/no-nft-counters', `cannot read nftables' counters: ${why}`));
}
