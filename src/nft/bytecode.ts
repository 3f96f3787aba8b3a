/**
 * What the kernel runs, as `nft --debug=netlink` prints it: per rule its instructions, per set its
 * elements. Unlike the listing in nft's own language nothing in it has been guessed back.
 */
export interface Bytecode {
  /** By `ruleKey`; null where a rule cannot be told apart or a line is not understood. */
  readonly rules: ReadonlyMap<string, readonly string[] | null>;
  /** Element lines by `setKey`, also of anonymous sets (`__set0`). */
  readonly sets: ReadonlyMap<string, readonly string[]>;
}

/** How a rule is found in the bytecode; handles are unique in a table. */
export function ruleKey(family: string, table: string, chain: string, handle: number): string {
  return `${family} ${table} ${chain} ${handle}`;
}

/** How a set is found in the bytecode. */
export function setKey(family: string, table: string, name: string): string {
  return `${family} ${table} @${name}`;
}

const RULE_HEAD = /^(?:ip6?|inet|arp|bridge|netdev) \S+ [^\s@]\S* \d+(?: \d+)?$/;
const SET_HEAD = /^(?:ip6?|inet|arp|bridge|netdev) \S+ @\S+$/;

/** The key of a rule's head line, `family table chain handle [handle of the rule before]`. */
function keyOfHead(line: string): string {
  return line.split(' ').slice(0, 4).join(' ');
}

/** Reads what nft prints in front of the listing when it is called with `--debug=netlink`. */
export function parseBytecode(text: string): Bytecode {
  const rules = new Map<string, string[] | null>();
  const sets = new Map<string, string[]>();
  let items: string[] | null = null;
  let key: string | null = null;
  const spoil = (): void => {
    if (key !== null) rules.set(key, null);
  };
  for (const line of text.split('\n')) {
    if (line.startsWith('\telement')) {
      items?.push(line);
    } else if (line.startsWith('  [ ') && line.endsWith(' ]')) {
      if (key !== null) rules.get(key)?.push(line.slice(4, -2));
    } else if (line === '' || line.startsWith('  userdata = ')) {
      if (line === '') key = null;
    } else if (SET_HEAD.test(line)) {
      items = [];
      key = null;
      sets.set(line, items);
    } else if (RULE_HEAD.test(line)) {
      key = keyOfHead(line);
      items = null;
      rules.set(key, rules.has(key) ? null : []);
    } else {
      spoil();
    }
  }
  return { rules, sets };
}

const JSON_START = '{"nftables":';

/** Splits the output of `nft -j --debug=netlink list ruleset`: the JSON is the last line. */
export function splitListing(output: string): { readonly bytecode: string; readonly json: string } {
  if (output.startsWith(JSON_START)) return { bytecode: '', json: output };
  const at = output.lastIndexOf(`\n${JSON_START}`);
  return at < 0
    ? { bytecode: '', json: output }
    : { bytecode: output.slice(0, at + 1), json: output.slice(at + 1) };
}
