import type { Chain, Ruleset, Table } from '../ir/ruleset.ts';
import { type Diagnostic, errorAt } from '../support/diagnostics.ts';
import { readChainDevices } from './devices.ts';
import { type Finished, type ProcessOptions, runProcess } from './run-process.ts';

/** A listing of 10,000 rules is about 5 MB; this is far beyond what the reader takes. */
const MOST_OUTPUT = 512 * 1024 * 1024;

/** Runs a program with its arguments somewhere, to its end; what it says may be told only then. */
export type RunProgram = (
  program: string,
  args: readonly string[],
  options?: Pick<ProcessOptions, 'onOutput'>,
) => Promise<Finished>;

/** Runs a program to its end; failures are in the result. */
export async function runProgram(
  program: string,
  args: readonly string[],
  options: Pick<ProcessOptions, 'input' | 'cwd' | 'onOutput'> = {},
): Promise<Finished> {
  const path = `${process.env['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`;
  const env = { PATH: path, LC_ALL: 'C' };
  return runProcess(program, args, { ...options, env, mostOutput: MOST_OUTPUT });
}

/** nft is not installed. */
export function nftMissing(): Diagnostic {
  return errorAt('read/nft-missing', 'the program nft is not installed or not in PATH', {
    help: 'install nftables, or give the ruleset as JSON (nft -j list ruleset)',
  });
}

/** nft was killed by an assertion of its own. */
export function nftCrashed(what: string, stderr: string): Diagnostic {
  const detail = stderr.trim().split('\n')[0] ?? '';
  return errorAt('read/nft-crash', `nft crashed when it ${what}: ${detail.slice(0, 200)}`, {
    help: 'this is a bug of the installed nft: take a newer one, or give the ruleset as JSON',
  });
}

/** Whether a shell reports that a program died by a signal. */
export function diedBySignal(status: number | null): boolean {
  // POSIX shells report 128 plus the signal's number.
  return status === null || status > 128;
}

function withChainDevices(table: Table, devices: ReadonlyMap<string, readonly string[]>): Table {
  const chains = table.chains.map((chain): Chain => {
    const found = devices.get(`${table.family} ${table.name} ${chain.name}`);
    if (chain.base === null || chain.base.devices !== null || found === undefined) return chain;
    return { ...chain, base: { ...chain.base, devices: found } };
  });
  return { ...table, chains };
}

/** Adds the devices of ingress and egress chains from the text of `nft list chains`. */
export function addDevices(ruleset: Ruleset, listing: string): Ruleset {
  const devices = readChainDevices(listing);
  return { tables: ruleset.tables.map((table) => withChainDevices(table, devices)) };
}
