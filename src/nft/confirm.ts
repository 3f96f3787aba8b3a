import type {
  Chain,
  ElementSet,
  Rule,
  Ruleset,
  SetElements,
  Step,
  Table,
  Verdict,
} from '../ir/ruleset.ts';
import { formatRuleId } from '../ir/ruleset.ts';
import { type Bytecode, familyOfKey, ruleKey, setKey } from './bytecode.ts';
import { type BytecodeElements, keyWords, readBytecodeElements } from './bytecode-elements.ts';
import { type BytecodeSets, createSeen, LISTING_REASON, noSets } from './bytecode-machine.ts';
import {
  AMBIGUOUS,
  type ComparedSteps,
  compareSteps,
  isDevice,
  type KeyedSet,
  prepareSteps,
  type SameSet,
  widen,
} from './compare-steps.ts';
import { closeSteps, followBytecode } from './lower-bytecode.ts';

/** What became of one rule whose listing is not what the kernel runs. */
export interface Finding {
  readonly rule: string;
  readonly text: string;
  /** Read from the bytecode instead, or (in part) not evaluable. */
  readonly outcome: 'bytecode' | 'unknown';
  /** The listing says nothing wrong, only less than the bytecode. */
  readonly isWeaker: boolean;
  readonly ours: readonly string[];
  readonly theirs: readonly string[];
}

/** A ruleset that says what the kernel runs, and what had to be done for it. */
export interface Confirmed {
  readonly ruleset: Ruleset;
  readonly findings: readonly Finding[];
}

// Reasons of a set that come from reading its listed elements; the bytecode's are another chance.
const READING = /^set\/(type|element|overlap|catchall|bytecode)$/;
const TRACKING = /^(ct|nat|masq|redir|tproxy|synproxy|flow_offload|connlimit) |^(masq|redir)$/;

const TORN = {
  code: 'set/torn',
  message: 'the kernel was changing its table while it listed the elements, so some are missing',
} as const;

function hasIntervals({ lo, hi }: SetElements): boolean {
  return lo !== hi && lo.some((low, index) => low !== hi[index]);
}

function setsOf(steps: readonly Step[]): readonly ElementSet[] {
  return steps.flatMap((step) => {
    if (step.kind === 'vmap') return [step.map];
    return step.kind === 'test' && step.test.kind === 'lookup' ? [step.test.set] : [];
  });
}

interface Columns {
  readonly lo: readonly bigint[];
  readonly hi: readonly bigint[];
}

/** The borders of all elements as the kernel has them. */
function wideColumns({ key, set }: KeyedSet): Columns {
  const { parts, lo, hi } = set.elements;
  if (key.every(({ field, shift }) => field.width % 8 === 0 && shift === 0)) return { lo, hi };
  const wide = (value: bigint): bigint => widen(key, parts, value);
  return { lo: lo.map(wide), hi: hi.map(wide) };
}

/** Whether two readings of one set hold the same, in whatever order. */
function haveSameElements(ours: KeyedSet, theirs: KeyedSet): boolean {
  const own = wideColumns(ours);
  const real = wideColumns(theirs);
  const count = own.lo.length;
  if (count !== real.lo.length || ours.key.length !== theirs.key.length) return false;
  // Names of devices are numbers in the kernel.
  if (ours.key.some(({ field }) => isDevice(field))) return true;
  const order = sortedOrder(own.lo);
  const other = sortedOrder(real.lo);
  for (let rank = 0; rank < count; rank += 1) {
    const a = order === null ? rank : (order[rank] ?? 0);
    const b = other === null ? rank : (other[rank] ?? 0);
    if (own.lo[a] !== real.lo[b] || own.hi[a] !== real.hi[b]) return false;
    const said = ours.set.elements.verdicts?.[a];
    const done = theirs.set.elements.verdicts?.[b];
    if (!isSameVerdict(said, done)) return false;
  }
  return true;
}

function isSameVerdict(a: Verdict | undefined, b: Verdict | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  const chain = 'chain' in a ? a.chain : null;
  return a.kind === b.kind && chain === ('chain' in b ? b.chain : null);
}

/** The order of ascending keys; null when they stand in it. */
function sortedOrder(keys: readonly bigint[]): readonly number[] | null {
  let isSorted = true;
  for (let index = 1; index < keys.length && isSorted; index += 1) {
    isSorted = (keys[index - 1] ?? 0n) <= (keys[index] ?? 0n);
  }
  if (isSorted) return null;
  return keys.map((_, index) => index).sort((a, b) => ((keys[a] ?? 0n) < (keys[b] ?? 0n) ? -1 : 1));
}

/** The bytecode's sets of one table. */
interface TableSets {
  /** For one rule; `intervals` tells how to read its anonymous sets where that is open. */
  readonly ofRule: (intervals: boolean) => BytecodeSets;
  readonly sameSet: SameSet;
}

/** Names of the sets that rules of the table change, as their bytecode shows. */
function dynamicSets(bytecode: Bytecode, table: Table): ReadonlySet<string> {
  const names = new Set<string>();
  const start = `${table.family} ${table.name} `;
  for (const [key, instructions] of bytecode.rules) {
    if (!key.startsWith(start)) continue;
    for (const line of instructions ?? []) {
      const name = /^dynset .*? set (\S+)/.exec(line)?.[1];
      if (name !== undefined) names.add(name);
    }
  }
  return names;
}

/** Instructions that look sets up. */
const USES_SETS = /^(lookup|objref|dynset) /;

/** Of rules that look up no set, what their bytecode does, by instructions. */
const followedAlone = new WeakMap<readonly string[], ComparedSteps>();

/**
 * Works out ahead what `confirmRuleset` will ask of the bytecode; of rules that look sets up it depends on
 * their listing.
 */
export function followAhead({ rules }: Bytecode): void {
  const sets = noSets();
  for (const [key, lines] of rules) {
    if (lines === null || lines.some((line) => USES_SETS.test(line))) continue;
    followedAlone.set(lines, prepareSteps(familyOfKey(key), followBytecode(lines, sets)));
  }
}

function openTableSets(bytecode: Bytecode, table: Table): TableSets {
  const listed = new Map(table.sets.map((set) => [set.name, set]));
  const dynamic = dynamicSets(bytecode, table);
  const cache = new Map<string, ElementSet | null>();
  const compared = new Map<ElementSet, Map<ElementSet, boolean>>();
  const linesOf = (name: string): readonly string[] | undefined =>
    bytecode.sets.get(setKey(table.family, table.name, name));

  const build = (name: string, read: BytecodeElements): ElementSet => {
    const isNamed = !name.startsWith('__');
    const known = isNamed ? (listed.get(name)?.unknown ?? null) : null;
    const kept = known !== null && !READING.test(known.code) ? known : null;
    const message = `rules change the elements of @${name} by themselves`;
    const changed = dynamic.has(name) ? { code: 'set/dynamic', message } : null;
    const torn = bytecode.torn.has(setKey(table.family, table.name, name)) ? TORN : null;
    const unknown = kept ?? changed ?? torn ?? (read.isAmbiguous ? AMBIGUOUS : null);
    return { name: isNamed ? name : null, elements: read.elements, unknown };
  };

  const seen = createSeen();
  const ofRule = (intervals: boolean): BytecodeSets => ({
    seen,
    keyWords: (name) => keyWords(linesOf(name) ?? []),
    find: (name, parts, content) => {
      const lines = linesOf(name);
      if (lines === undefined) return null;
      const shape = parts.map(({ width, little }) => `${width}${little}`).join();
      const key = `${name} ${shape} ${content}`;
      const found = cache.get(key);
      if (found !== undefined) return found;
      const named = listed.get(name);
      const asIntervals = named === undefined ? intervals : hasIntervals(named.elements);
      const read = readBytecodeElements(parts, lines, content === 'verdicts', asIntervals);
      const set = read === null ? null : build(name, read);
      cache.set(key, set);
      return set;
    },
  });

  const sameSet: SameSet = (ours, theirs) => {
    const known = compared.get(ours.set)?.get(theirs.set);
    if (known !== undefined) return known;
    const isDynamic = theirs.set.unknown !== null && theirs.set.unknown !== AMBIGUOUS;
    const isSame = !isDynamic && haveSameElements(ours, theirs);
    const row = compared.get(ours.set) ?? new Map<ElementSet, boolean>();
    compared.set(ours.set, row.set(theirs.set, isSame));
    return isSame;
  };
  return { ofRule, sameSet };
}

/** A rule of which nothing can be said. */
const NOTHING_KNOWN: readonly Step[] = [
  {
    kind: 'test',
    test: { kind: 'unknown', reason: LISTING_REASON, stateful: true, text: 'not known' },
  },
  {
    kind: 'effect',
    name: 'unknown',
    reason: LISTING_REASON,
    outcome: 'unknown',
    external: true,
    changes: 'everything',
  },
];

function isWhole(steps: readonly Step[]): boolean {
  return steps.every(
    (step) =>
      !(step.kind === 'test' && step.test.kind === 'unknown') &&
      !(step.kind === 'effect' && step.outcome === 'unknown') &&
      !setsOf([step]).some(({ unknown }) => unknown === AMBIGUOUS),
  );
}

function confirmRule(rule: Rule, bytecode: Bytecode, sets: TableSets, findings: Finding[]): Rule {
  const { family, table, chain, handle } = rule.id;
  const instructions =
    handle === null ? undefined : bytecode.rules.get(ruleKey(family, table, chain, handle));
  const report = (parts: Omit<Finding, 'rule' | 'text'>): void => {
    findings.push({ rule: formatRuleId(rule.id), text: rule.text, ...parts });
  };
  if (instructions === undefined || instructions === null) {
    report({ outcome: 'unknown', isWeaker: false, ours: [], theirs: ['no bytecode'] });
    return { ...rule, steps: NOTHING_KNOWN };
  }
  const tracks = rule.tracks || instructions.some((line) => TRACKING.test(line));
  const intervals = setsOf(rule.steps).some(
    ({ name, elements }) => name === null && hasIntervals(elements),
  );
  const followed =
    followedAlone.get(instructions) ??
    prepareSteps(family, followBytecode(instructions, sets.ofRule(intervals)));
  const difference = compareSteps(prepareSteps(family, rule.steps), followed, sets.sameSet);
  const steps = difference === null ? [] : closeSteps(followed.steps);
  // The listing has reasons in its own words; the bytecode is better only where it is known whole.
  if (difference === null || (difference.isWeaker && !isWhole(steps))) {
    return tracks === rule.tracks ? rule : { ...rule, tracks };
  }
  report({ outcome: isWhole(steps) ? 'bytecode' : 'unknown', ...difference });
  return { ...rule, steps, tracks };
}

/**
 * Makes every rule say what the kernel runs: a rule whose listing agrees with its bytecode stays as it
 * was read, any other is lowered from the bytecode. Needs rules with handles.
 */
export function confirmRuleset(ruleset: Ruleset, bytecode: Bytecode): Confirmed {
  const findings: Finding[] = [];
  const tables = ruleset.tables.map((table): Table => {
    const sets = openTableSets(bytecode, table);
    const chains = table.chains.map((chain): Chain => {
      const rules = chain.rules.map((rule) => confirmRule(rule, bytecode, sets, findings));
      return { ...chain, rules };
    });
    return { ...table, chains };
  });
  return { ruleset: { tables }, findings };
}
