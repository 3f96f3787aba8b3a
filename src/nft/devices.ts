// IFNAMSIZ of include/uapi/linux/if.h, without the closing zero.
const LONGEST_NAME = 15;

function isDeviceName(word: string): boolean {
  return (
    word.length > 0 &&
    word.length <= LONGEST_NAME &&
    /^[A-Za-z0-9_][\w.@:+-]*$/.test(word) &&
    !/^\d+$/.test(word) &&
    word !== 'lo'
  );
}

function words(text: string): readonly string[] {
  return text.split(/[\s{},;"]+/).filter((word) => word !== '');
}

/** Text without comments. */
function withoutComments(text: string): string {
  return text.replace(/^((?:[^"#\n]|"[^"\n]*")*)#.*$/gm, '$1');
}

function readDefines(text: string): ReadonlyMap<string, readonly string[]> {
  const defines = new Map<string, readonly string[]>();
  for (const match of text.matchAll(/\bdefine\s+(\w+)\s*=\s*(\{[^}]*\}|[^\n;]+)/g)) {
    defines.set(match[1] ?? '', words(match[2] ?? ''));
  }
  return defines;
}

function expand(
  word: string,
  defines: ReadonlyMap<string, readonly string[]>,
  depth = 8,
): readonly string[] {
  if (!word.startsWith('$')) return [word];
  if (depth === 0) return [];
  return (defines.get(word.slice(1)) ?? []).flatMap((inner) => expand(inner, defines, depth - 1));
}

/**
 * The devices that nft text names where the device has to exist: `iif`, `oif`, `device`, `devices`,
 * also by way of `define`. A light look: what it misses shows up in nft's own messages.
 */
export function scanDevices(text: string): readonly string[] {
  const plain = withoutComments(text);
  const defines = readDefines(plain);
  const uses =
    /\b(?:(?:iif|oif|device)(?:\s+(?:==|!=|vmap))?\s+|devices\s*=\s*)(\{[^}]*\}|"[^"\n]*"|\$?[\w.@:+-]+)/g;
  const names = new Set<string>();
  for (const match of plain.matchAll(uses)) {
    for (const word of words(match[1] ?? '')) {
      for (const name of expand(word, defines)) if (isDeviceName(name)) names.add(name);
    }
  }
  return [...names];
}

/** The device names that nft's messages complain about: the words under `^^^^`. */
export function missingDevices(stderr: string, text: string): readonly string[] {
  const lines = text.split('\n');
  const names = new Set<string>();
  const message =
    /:(\d+):(\d+)-(\d+): Error: (?:Interface does not exist|.*No such file or directory)/g;
  for (const match of stderr.matchAll(message)) {
    const line = lines[Number(match[1]) - 1] ?? '';
    for (const word of words(line.slice(Number(match[2]) - 1, Number(match[3])))) {
      if (isDeviceName(word)) names.add(word);
    }
  }
  // In included files the lines are not at hand; nft quotes them above the carets.
  const quoted = /Error: Interface does not exist\n(.*)\n([ ~]*)(\^+)/g;
  for (const match of stderr.matchAll(quoted)) {
    const from = (match[2] ?? '').length;
    const word = (match[1] ?? '').slice(from, from + (match[3] ?? '').length);
    for (const name of words(word)) if (isDeviceName(name)) names.add(name);
  }
  return [...names];
}

/** `family table chain` to devices, from `nft list chains`; JSON of nft 1.0.6 leaves them out. */
export function readChainDevices(listing: string): ReadonlyMap<string, readonly string[]> {
  const devices = new Map<string, readonly string[]>();
  let table = '';
  let chain = '';
  for (const line of listing.split('\n')) {
    const opened = /^table (\S+ \S+) \{/.exec(line);
    const inner = /^\s+chain (\S+) \{/.exec(line);
    const base = /\bhook \w+ devices? (?:= )?(\{[^}]*\}|\S+)/.exec(line);
    if (opened !== null) table = opened[1] ?? '';
    else if (inner !== null) chain = inner[1] ?? '';
    else if (base !== null) devices.set(`${table} ${chain}`, words(base[1] ?? ''));
  }
  return devices;
}
