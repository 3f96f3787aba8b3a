import type { Ruleset } from '../ir/ruleset.ts';
import { type Diagnostic, type Result, succeed } from '../support/diagnostics.ts';
import { type Bytecode, parseBytecode, splitListing } from './bytecode.ts';
import { confirmRuleset, type Finding } from './confirm.ts';
import { addDevices } from './read-process.ts';
import { readJsonText } from './ruleset-json.ts';
import type { Finished } from './run-process.ts';

function warnOf(findings: readonly Finding[]): readonly Diagnostic[] {
  const wrong = findings.filter(({ isWeaker }) => !isWeaker);
  const [first] = wrong;
  if (first === undefined) return [];
  const others = wrong.length === 1 ? '' : ` (and ${wrong.length - 1} more)`;
  const message = `nft lists this rule${others} differently from what the kernel runs; what the kernel runs is taken`;
  const place = { kind: 'ruleset', path: first.rule } as const;
  return [{ code: 'read/listing', severity: 'warning', message, help: null, place }];
}

/** What `nft -j --debug=netlink list ruleset` printed: JSON and the bytecode in front of it. */
export interface Listing {
  readonly bytecode: Bytecode;
  readonly json: string;
  /** What was printed behind it. */
  readonly rest: string;
}

/** Takes the output of `nft -j --debug=netlink list ruleset` apart. */
export function openListing(output: string): Listing {
  const { bytecode, ...others } = splitListing(output);
  return { bytecode: parseBytecode(bytecode), ...others };
}

// Seconds; growing a table of 100,000 elements was over after less than half a second (measured).
const WAITS = [0.2, 1];

/**
 * Lists again, after a while, as long as the kernel is changing the tables of sets just loaded: it then
 * leaves elements out. `list` gets the seconds to wait before it lists.
 */
export async function listWhole(list: (wait: number) => Promise<Finished>): Promise<{
  readonly run: Finished;
  readonly listing: Listing;
}> {
  let run = await list(0);
  let listing = openListing(run.stdout);
  for (const wait of WAITS) {
    if (run.status !== 0 || listing.bytecode.torn.size === 0) break;
    run = await list(wait);
    listing = openListing(run.stdout);
  }
  return { run, listing };
}

/** Reads a listing: its rules are checked one by one. `chains` is the text of `nft list chains`. */
export function readOpened(listing: Listing, chains: string, file: string): Result<Ruleset> {
  const result = readJsonText(listing.json, file, { isComplete: true });
  if (!result.ok) return result;
  const { ruleset, findings } = confirmRuleset(result.value, listing.bytecode);
  return succeed(addDevices(ruleset, chains), [...result.diagnostics, ...warnOf(findings)]);
}

/** Reads the output of `nft -j --debug=netlink list ruleset` as it is. */
export function readListing(output: string, chains: string, file: string): Result<Ruleset> {
  return readOpened(openListing(output), chains, file);
}
