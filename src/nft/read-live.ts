import { setTimeout } from 'node:timers/promises';
import type { Ruleset } from '../ir/ruleset.ts';
import { errorAt, fail, type Result } from '../support/diagnostics.ts';
import { listWhole, readOpened } from './read-listing.ts';
import {
  diedBySignal,
  nftCrashed,
  nftMissing,
  type RunProgram,
  runProgram,
} from './read-process.ts';

/**
 * Reads the ruleset that the kernel runs now: in the network namespace of this process, or wherever
 * `run` runs programs.
 */
export async function readLive(run: RunProgram = runProgram): Promise<Result<Ruleset>> {
  const { run: listed, listing } = await listWhole('live ruleset', async (wait, onOutput) => {
    await setTimeout(wait * 1000);
    return run('nft', ['-j', '--debug=netlink', 'list', 'ruleset'], { onOutput });
  });
  if (!listed.started) return fail(nftMissing());
  if (listed.status !== 0) {
    if (diedBySignal(listed.status)) return fail(nftCrashed('listed the ruleset', listed.stderr));
    const message = listed.stderr.trim().split('\n')[0] ?? '';
    return fail(
      errorAt('read/live', `the live ruleset cannot be listed: ${message}`, {
        help: 'run as root, or give a ruleset file',
      }),
    );
  }
  const chains = await run('nft', ['list', 'chains']);
  return readOpened(listing, chains.stdout);
}
