import type { Family } from '../ir/ruleset.ts';
import { familySchema } from './schema.ts';

/**
 * What the kernel runs, as `nft --debug=netlink` prints it: per rule its instructions, per set its
 * elements. Unlike the listing in nft's own language nothing in it has been guessed back.
 */
export interface Bytecode {
  /** By `ruleKey`; null where a rule cannot be told apart or a line is not understood. */
  readonly rules: ReadonlyMap<string, readonly string[] | null>;
  /** Element lines by `setKey`, also of anonymous sets (`__set0`). */
  readonly sets: ReadonlyMap<string, readonly string[]>;
  /**
   * Keys of sets with an element listed twice. The kernel never holds one twice: it was growing the set's
   * hash table while it was listed in parts, and for every element listed twice another is left out.
   */
  readonly torn: ReadonlySet<string>;
}

/** How a rule is found in the bytecode; handles are unique in a table. */
export function ruleKey(family: string, table: string, chain: string, handle: number): string {
  return `${family} ${table} ${chain} ${handle}`;
}

/** The family of the table that a rule with this `ruleKey` is in. */
export function familyOfKey(key: string): Family {
  const family = familySchema.options.find((name) => key.startsWith(`${name} `));
  if (family === undefined) throw new Error('bug: a rule of no family');
  return family;
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

/** Reads line by line what nft prints in front of the listing when it is called with `--debug=netlink`. */
export interface BytecodeParser {
  readonly take: (line: string) => void;
  readonly finish: () => Bytecode;
}

export function createBytecodeParser(): BytecodeParser {
  const rules = new Map<string, string[] | null>();
  const sets = new Map<string, string[]>();
  let items: string[] | null = null;
  let key: string | null = null;
  const take = (line: string): void => {
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
    } else if (key !== null) {
      rules.set(key, null);
    }
  };
  const finish = (): Bytecode => {
    const torn = new Set<string>();
    for (const [name, lines] of sets) if (new Set(lines).size < lines.length) torn.add(name);
    return { rules, sets, torn };
  };
  return { take, finish };
}

export function parseBytecode(text: string): Bytecode {
  const parser = createBytecodeParser();
  for (const line of text.split('\n')) parser.take(line);
  return parser.finish();
}

/** How the line with the listing begins. */
export const JSON_START = '{"nftables":';

/** What `nft -j --debug=netlink list ruleset` printed, and what was printed behind it. */
export interface Output {
  readonly bytecode: string;
  readonly json: string;
  readonly rest: string;
}

/** Splits the output: the JSON is one line, and nothing in it or behind it begins a line so. */
export function splitListing(output: string): Output {
  const at = output.startsWith(JSON_START) ? 0 : output.lastIndexOf(`\n${JSON_START}`) + 1;
  const end = output.indexOf('\n', at);
  if (end < 0) return { bytecode: output.slice(0, at), json: output.slice(at), rest: '' };
  return {
    bytecode: output.slice(0, at),
    json: output.slice(at, end),
    rest: output.slice(end + 1),
  };
}
