import type { Ruleset } from '../ir/ruleset.ts';
import { type Diagnostic, errorAt, fail, type Result } from '../support/diagnostics.ts';
import { missingDevices, scanDevices } from './devices.ts';
import { listWhole, readOpened } from './read-listing.ts';
import { diedBySignal, nftCrashed, nftMissing, runProgram } from './read-process.ts';
import type { Finished } from './run-process.ts';
import { splitText } from './split-text.ts';

/** nft text, where its relative includes are looked up, and what messages call it. */
export interface NftText {
  readonly text: string;
  readonly directory: string;
  readonly file: string;
}

/** Turns nft text into a ruleset; the seam for a reader that needs no nft. */
export type TextReader = (source: NftText) => Promise<Result<Ruleset>>;

// Exit codes of the script below; nft itself uses 1.
const NO_NFT = 91;
const NOT_LOADED = 92;
const NOT_LISTED = 93;

/**
 * Runs in the private namespace: devices that the text names, the load, both listings. The kinds of
 * device are tried in turn because not every kernel has every one.
 */
const SCRIPT = `
command -v nft >/dev/null || exit ${NO_NFT}
directory=$1; wait=$2; lengths=$3; shift 3
for name in "$@"; do
  for kind in dummy ifb bridge; do
    ip link add "$name" type $kind 2>/dev/null && break
  done
done
for length in $lengths; do
  head -c "$length" | nft -I "$directory" -f - || exit ${NOT_LOADED}
done
sleep "$wait"
nft -j --debug=netlink list ruleset || exit ${NOT_LISTED}
nft list chains
`;

const MOST_ATTEMPTS = 8;

/** The system does not let this user make the namespace. */
function isRefused(run: Finished): boolean {
  return !run.started || /unshare: .*(not permitted|failed)/.test(run.stderr);
}

/** How the loaded text is listed: after so many seconds, and who is told what nft prints. */
interface Listing {
  readonly wait: number;
  readonly onOutput: (text: string) => void;
}

async function load(
  source: NftText,
  pieces: readonly string[],
  devices: readonly string[],
  { wait, onOutput }: Listing,
): Promise<Finished> {
  const lengths = pieces.map((piece) => Buffer.byteLength(piece)).join(' ');
  const args = ['--', 'sh', '-c', SCRIPT, 'sh', source.directory, `${wait}`, lengths, ...devices];
  const options = { input: pieces.join(''), cwd: source.directory, onOutput };
  // Root does without a user namespace: only there nft may enlarge its socket buffers.
  if (process.geteuid?.() === 0) {
    const run = await runProgram('unshare', ['-n', ...args], options);
    if (!isRefused(run)) return run;
  }
  return runProgram('unshare', ['-rn', ...args], options);
}

const KERNEL_HELP =
  'the kernel of this machine refuses it (an option it was built without, or a part that is missing); JSON (nft -j list ruleset) from a machine that runs the ruleset needs no kernel';

function syntaxDiagnostics(source: NftText, stderr: string): readonly Diagnostic[] {
  const found: Diagnostic[] = [];
  const seen = new Set<string>();
  for (const match of stderr.matchAll(/^(.+?):(\d+):(\d+)-\d+: Error: (.*)$/gm)) {
    const named = match[1] ?? '';
    const file = /^(\/dev\/stdin|<stdin>|-)$/.test(named) ? source.file : named;
    const place = {
      kind: 'file',
      file,
      line: Number(match[2]),
      column: Number(match[3]),
    } as const;
    const message = match[4] ?? '';
    const help = /Operation not supported|No such file/.test(message) ? { help: KERNEL_HELP } : {};
    const at = `${file}:${place.line}:${place.column}`;
    // What depends on a refused object is refused as well, at the same place.
    if (seen.has(at)) continue;
    seen.add(at);
    found.push(errorAt('read/nft', message, { place, ...help }));
  }
  if (found.length > 0) return found.slice(0, 10);
  const first = stderr.trim().split('\n')[0] ?? 'no message';
  const place = { kind: 'file', file: source.file, line: null, column: null } as const;
  return [errorAt('read/nft', `nft does not load the file: ${first.slice(0, 300)}`, { place })];
}

function failure(source: NftText, run: Finished): readonly Diagnostic[] {
  if (isRefused(run)) {
    const detail = run.started ? (run.stderr.trim().split('\n')[0] ?? '') : 'unshare is missing';
    return [
      errorAt('read/namespace', `nft text is read in a private network namespace: ${detail}`, {
        help: 'run as root or allow user namespaces, or give the ruleset as JSON (nft -j list ruleset)',
      }),
    ];
  }
  if (run.status === NO_NFT) return [nftMissing()];
  if (run.status === NOT_LISTED) return [nftCrashed('listed the file it had loaded', run.stderr)];
  if (diedBySignal(run.status) || /Aborted|core dumped|Assertion|Segmentation/.test(run.stderr)) {
    return [nftCrashed('loaded the file', run.stderr)];
  }
  if (/Message too long/.test(run.stderr)) {
    return [
      errorAt('read/nft-too-long', 'the file is too long for nft without root (Message too long)', {
        help: 'run as root, or give the ruleset as JSON (nft -j list ruleset)',
      }),
    ];
  }
  return syntaxDiagnostics(source, run.stderr);
}

const PORT_TEST = String.raw`th\s+(?:sport|dport)\s+(?:[!=<>]=?\s*)?(?:\{[^}]*\}|[^\s;{}]+)`;
const PROTOCOL_BEFORE_PORTS = new RegExp(
  String.raw`\bmeta\s+l4proto\s+(?:==\s*)?([\w-]+)((?:[ \t]+${PORT_TEST})+)`,
  'g',
);

/**
 * `meta l4proto 8 th dport 80` with the protocol behind the ports. Both mean the same, but nft 1.0.6
 * leaves the protocol out when it lists the first, or even crashes.
 */
export function moveProtocols(text: string): string {
  return text.replace(PROTOCOL_BEFORE_PORTS, '$2 meta l4proto $1');
}

/** `delete table T` and `flush table T` with the table made first, as it is not in the namespace. */
export function prepareTables(text: string): string {
  return text.replace(
    /^([ \t]*)((?:delete|flush)[ \t]+table[ \t]+((?:\w+[ \t]+)?[\w.-]+))/gm,
    '$1add table $3; $2',
  );
}

/** Loads the text at once, or in pieces when it is too long for nft without privileges. */
async function loadWhole(
  source: NftText,
  text: string,
  devices: readonly string[],
  listing: Listing,
): Promise<Finished> {
  const run = await load(source, [text], devices, listing);
  if (!/Message too long/.test(run.stderr)) return run;
  const pieces = splitText(text);
  return pieces === null ? run : load(source, pieces, devices, listing);
}

async function loadWithDevices(source: NftText, text: string, listing: Listing): Promise<Finished> {
  const devices = new Set(scanDevices(text));
  for (let attempt = 1; ; attempt += 1) {
    const run = await loadWhole(source, text, [...devices], listing);
    if (run.status !== NOT_LOADED || attempt === MOST_ATTEMPTS) return run;
    const before = devices.size;
    for (const name of missingDevices(run.stderr, text)) devices.add(name);
    if (devices.size === before) return run;
  }
}

/** Reads nft text with the installed nft, in a network namespace that ends with it. */
export const readTextWithNft: TextReader = async (source) => {
  const prepared = prepareTables(source.text);
  const text = moveProtocols(prepared);
  const { run, listing } = await listWhole(source.file, async (wait, onOutput) => {
    const first = await loadWithDevices(source, text, { wait, onOutput });
    // Columns of messages must be those of the file.
    if (first.status !== NOT_LOADED || text === prepared) return first;
    return loadWithDevices(source, prepared, { wait, onOutput });
  });
  if (run.status !== 0) return fail(...failure(source, run));
  return readOpened(listing, listing.rest);
};
