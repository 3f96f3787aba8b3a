import type { Ruleset } from '../ir/ruleset.ts';
import { type Diagnostic, type Result, succeed } from '../support/diagnostics.ts';
import {
  type Bytecode,
  createBytecodeParser,
  JSON_START,
  parseBytecode,
  splitListing,
} from './bytecode.ts';
import { confirmRuleset, type Finding, followAhead } from './confirm.ts';
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
  /** What the JSON says, not confirmed yet. */
  readonly listed: Result<Ruleset>;
  /** What was printed behind it. */
  readonly rest: string;
}

/** Reads the output of `nft -j --debug=netlink list ruleset` as it comes, or when it is whole. */
export interface ListingReader {
  /** The next part of the output. nft works on the listing for long, so most is read meanwhile. */
  readonly take: (text: string) => void;
  /** All of the output, whether parts of it have been taken or not. */
  readonly finish: (output: string) => Listing;
}

/** `file` is only for diagnostics. */
export function createListingReader(file: string): ListingReader {
  const parser = createBytecodeParser();
  /** Of the line that is not whole yet. */
  let open = '';
  let bytecode: Bytecode | null = null;
  let early: { readonly json: string; readonly listed: Result<Ruleset> } | null = null;
  const readJson = (json: string) => readJsonText(json, file, { isComplete: true });

  const takeLine = (line: string): void => {
    if (bytecode === null) parser.take(line);
    else early ??= { json: line, listed: readJson(line) };
  };
  const take = (text: string): void => {
    const lines = text.split('\n');
    for (const [index, part] of lines.entries()) {
      open += part;
      // The JSON is long in coming.
      if (bytecode === null && open.startsWith(JSON_START)) {
        bytecode = parser.finish();
        followAhead(bytecode);
      }
      if (index === lines.length - 1) return;
      takeLine(open);
      open = '';
    }
  };
  const finish = (output: string): Listing => {
    const { bytecode: lines, json, rest } = splitListing(output);
    // A comment may have a line that begins as the JSON does: known only when all is there.
    if (bytecode !== null && early?.json === json) return { bytecode, listed: early.listed, rest };
    return { bytecode: parseBytecode(lines), listed: readJson(json), rest };
  };
  return { take, finish };
}

/** Reads the whole output of `nft -j --debug=netlink list ruleset`. */
export function openListing(output: string, file: string): Listing {
  return createListingReader(file).finish(output);
}

// Seconds; growing a table of 100,000 elements was over after less than half a second (measured).
const WAITS = [0, 0.2, 1];

/**
 * Lists again, after a while, as long as the kernel is changing the tables of sets just loaded: it then
 * leaves elements out. `list` gets the seconds to wait before it lists, and whom to tell what is printed.
 */
export async function listWhole(
  file: string,
  list: (wait: number, onOutput: (text: string) => void) => Promise<Finished>,
): Promise<{ readonly run: Finished; readonly listing: Listing }> {
  for (const [attempt, wait] of WAITS.entries()) {
    const reader = createListingReader(file);
    const run = await list(wait, reader.take);
    const listing = reader.finish(run.stdout);
    const isTorn = run.status === 0 && listing.bytecode.torn.size > 0;
    if (!isTorn || attempt === WAITS.length - 1) return { run, listing };
  }
  throw new Error('bug: no attempt at a listing was the last');
}

/** Reads a listing: its rules are checked one by one. `chains` is the text of `nft list chains`. */
export function readOpened({ listed, bytecode }: Listing, chains: string): Result<Ruleset> {
  if (!listed.ok) return listed;
  const { ruleset, findings } = confirmRuleset(listed.value, bytecode);
  return succeed(addDevices(ruleset, chains), [...listed.diagnostics, ...warnOf(findings)]);
}

/** Reads the output of `nft -j --debug=netlink list ruleset` as it is. */
export function readListing(output: string, chains: string, file: string): Result<Ruleset> {
  return readOpened(openListing(output, file), chains);
}
