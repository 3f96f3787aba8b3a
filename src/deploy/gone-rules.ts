import { readNftCounts } from './nft-counters.ts';
import { type CounterOwner, indexOwners, type OwnerCount, sumByOwner } from './owner-counts.ts';
import type { Transport } from './transport.ts';

/** What a chain's deleted rules counted, together. */
function chainOwner(owner: CounterOwner): CounterOwner {
  return { ...owner, name: null, handle: null, index: null };
}

/**
 * Counts of rules that neither the program nor the live ruleset has any more become one line a chain:
 * every reload gives new handles, and the list must not grow with each. Where the ruleset cannot be
 * read nothing is folded.
 */
export async function foldGoneRules(
  transport: Transport,
  counts: readonly OwnerCount[],
  owners: readonly CounterOwner[],
): Promise<readonly OwnerCount[]> {
  const inProgram = indexOwners(owners.map((owner) => ({ owner })));
  const retired = counts.filter(({ owner }) => owner.name === null && inProgram(owner) === null);
  if (retired.length === 0) return counts;
  const live = await readNftCounts(transport);
  if (!live.ok) return counts;
  const inNft = indexOwners(live.value);
  const gone = new Set(retired.filter(({ owner }) => inNft(owner) === null));
  return sumByOwner(
    counts.map((item) =>
      gone.has(item) ? { owner: chainOwner(item.owner), count: item.count } : item,
    ),
  );
}
