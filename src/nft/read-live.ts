import type { Ruleset } from '../ir/ruleset.ts';
import { errorAt, fail, type Result } from '../support/diagnostics.ts';
import { readListing } from './read-listing.ts';
import { diedBySignal, nftCrashed, nftMissing, runProgram } from './read-process.ts';

/** Reads the ruleset that the kernel runs now, in the network namespace of this process. */
export async function readLive(): Promise<Result<Ruleset>> {
  const listing = await runProgram('nft', ['-j', '--debug=netlink', 'list', 'ruleset']);
  if (!listing.started) return fail(nftMissing());
  if (listing.status !== 0) {
    if (diedBySignal(listing.status)) return fail(nftCrashed('listed the ruleset', listing.stderr));
    const message = listing.stderr.trim().split('\n')[0] ?? '';
    return fail(
      errorAt('read/live', `the live ruleset cannot be listed: ${message}`, {
        help: 'run as root, or give a ruleset file',
      }),
    );
  }
  const chains = await runProgram('nft', ['list', 'chains']);
  return readListing(listing.stdout, chains.stdout, 'live ruleset');
}
