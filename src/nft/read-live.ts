import { setTimeout } from 'node:timers/promises';
import type { Ruleset } from '../ir/ruleset.ts';
import { errorAt, fail, type Result } from '../support/diagnostics.ts';
import { listWhole, readOpened } from './read-listing.ts';
import { diedBySignal, nftCrashed, nftMissing, runProgram } from './read-process.ts';

/** Reads the ruleset that the kernel runs now, in the network namespace of this process. */
export async function readLive(): Promise<Result<Ruleset>> {
  const { run, listing } = await listWhole(async (wait) => {
    await setTimeout(wait * 1000);
    return runProgram('nft', ['-j', '--debug=netlink', 'list', 'ruleset']);
  });
  if (!run.started) return fail(nftMissing());
  if (run.status !== 0) {
    if (diedBySignal(run.status)) return fail(nftCrashed('listed the ruleset', run.stderr));
    const message = run.stderr.trim().split('\n')[0] ?? '';
    return fail(
      errorAt('read/live', `the live ruleset cannot be listed: ${message}`, {
        help: 'run as root, or give a ruleset file',
      }),
    );
  }
  const chains = await runProgram('nft', ['list', 'chains']);
  return readOpened(listing, chains.stdout, 'live ruleset');
}
