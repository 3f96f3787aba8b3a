import { ones, writeUint } from '../support/bits.ts';
import type { Classifier, Counter, Entry, Target } from './classifier.ts';
import type { LocalAddress } from './facts.ts';
import { type Field, META } from './fields.ts';
import { splitKey } from './operand.ts';
import {
  type BaseChain,
  type Chain,
  type ElementSet,
  formatRuleId,
  type Operand,
  type Rule,
  type Ruleset,
  type Step,
  type Table,
  type Test,
  type Verdict,
} from './ruleset.ts';

/** Elements of a set that are written out. */
const SHOWN_ELEMENTS = 8;

function formatIp(value: bigint): string {
  return writeUint(value, 4).join('.');
}

/** RFC 5952: the longest run of two or more zero groups becomes `::`, the first of equal ones. */
function formatIp6(value: bigint): string {
  const groups = splitKey(Array(8).fill(16), value).map((group) => group.toString(16));
  let [start, length] = [0, 1];
  for (let from = 0; from < 8; from += 1) {
    let to = from;
    while (groups[to] === '0') to += 1;
    if (to - from > length) [start, length] = [from, to - from];
  }
  if (length < 2) return groups.join(':');
  return `${groups.slice(0, start).join(':')}::${groups.slice(start + length).join(':')}`;
}

/** `aa:bb:cc:dd:ee:ff` of 48 bits. */
export function formatMac(value: bigint): string {
  return Array.from(writeUint(value, 6), (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** An address as usually written; IPv6 by RFC 5952. */
export function formatAddress({ version, value }: LocalAddress): string {
  return version === 4 ? formatIp(value) : formatIp6(value);
}

function formatHex(value: bigint, width: number): string {
  return `0x${value.toString(16).padStart(Math.ceil(width / 4), '0')}`;
}

/** Left-aligned in 16 bytes, padded with zeros. */
function formatInterface(value: bigint): string {
  const bytes = Buffer.from(writeUint(value, 16));
  const end = bytes.indexOf(0);
  return JSON.stringify(bytes.subarray(0, end < 0 ? bytes.length : end).toString('latin1'));
}

type Format = (value: bigint, width: number) => string;

const INTERFACES: ReadonlySet<string> = new Set(
  [META.iif, META.iifname, META.oif, META.oifname].map(({ name }) => name),
);
/** Read as hex by custom; raw loads (`@nh,96,32`) are too. */
const HEX: ReadonlySet<string> = new Set([
  META.protocol.name,
  META.mark.name,
  'ether type',
  'vlan type',
  'arp ptype',
  'tcp flags',
  'comp flags',
  'gre flags',
  'gre protocol',
]);

/** How a field's values read: by its name, and by its width where names differ. */
function formatOf({ name, width }: Field): Format {
  if (INTERFACES.has(name)) return formatInterface;
  if (HEX.has(name) || name.startsWith('@')) return formatHex;
  const address = /addr( ip| ether)?$/.test(name);
  if (address && width === 32) return formatIp;
  if (address && width === 48) return formatMac;
  if (address && width === 128) return formatIp6;
  return (value) => value.toString();
}

/** Masks read as what they mask where that is an address, else as hex. */
function formatBits(field: Field, value: bigint): string {
  const format = isAddress(field) ? formatOf(field) : formatHex;
  return format(value, field.width);
}

/** The prefix length when `mask` is one of this width, else null. */
function prefixLength(mask: bigint, width: number): number | null {
  const rest = ones(width) ^ mask;
  if ((rest & (rest + 1n)) !== 0n) return null;
  return width - (rest === 0n ? 0 : rest.toString(2).length);
}

function isAddress(field: Field): boolean {
  const format = formatOf(field);
  return format === formatIp || format === formatIp6;
}

/** One value, `a-b`, or for addresses a prefix. */
function formatRange(field: Field, lo: bigint, hi: bigint): string {
  const format = formatOf(field);
  const { width } = field;
  if (lo === hi) return format(lo, width);
  const length = prefixLength(ones(width) ^ (lo ^ hi), width);
  if (isAddress(field) && length !== null && (lo & (lo ^ hi)) === 0n) {
    return `${format(lo, width)}/${length}`;
  }
  return `${format(lo, width)}-${format(hi, width)}`;
}

function formatOperand({ field, mask, xor, shift }: Operand): string {
  let text = field.name;
  if (mask !== ones(field.width)) text = `${text} & ${formatBits(field, mask)}`;
  if (xor !== 0n) text = `(${text}) ^ ${formatBits(field, xor)}`;
  if (shift !== 0) text = `(${text}) ${shift > 0 ? '<<' : '>>'} ${Math.abs(shift)}`;
  return text;
}

function formatCompare(test: Extract<Test, { kind: 'compare' }>): string {
  const { operand, lo, hi, negated } = test;
  const { field, mask, xor, shift } = operand;
  const length = prefixLength(mask, field.width);
  const plain = xor === 0n && shift === 0;
  if (plain && lo === hi && length !== null && length < field.width && isAddress(field)) {
    return `${field.name} ${negated ? '!= ' : ''}${formatOf(field)(lo, field.width)}/${length}`;
  }
  const bare = plain && length === field.width;
  const operator = negated ? ' !=' : bare ? '' : ' ==';
  return `${formatOperand(operand)}${operator} ${formatRange(field, lo, hi)}`;
}

/** Each part by the field that is looked up, or as a number when the set stands alone. */
function formatElements(set: ElementSet, fields: readonly (Field | undefined)[]): string {
  const { parts, lo, hi, verdicts } = set.elements;
  const shown = lo.slice(0, SHOWN_ELEMENTS).map((key, index) => {
    const low = splitKey(parts, key);
    const high = splitKey(parts, hi[index] ?? key);
    const texts = low.map((from, part) => {
      const to = high[part] ?? from;
      const field = fields[part];
      if (field !== undefined) return formatRange(field, from, to);
      const width = parts[part] ?? 0;
      const start = formatHex(from, width);
      return from === to ? start : `${start}-${formatHex(to, width)}`;
    });
    const verdict = verdicts?.[index];
    return texts.join(' . ') + (verdict === undefined ? '' : ` : ${formatVerdict(verdict)}`);
  });
  if (lo.length > SHOWN_ELEMENTS) shown.push(`... ${lo.length} elements`);
  return shown.length === 0 ? '{ }' : `{ ${shown.join(', ')} }`;
}

function formatSet(set: ElementSet, key: readonly Operand[]): string {
  const fields = key.map(({ field }) => field);
  const text = set.name === null ? formatElements(set, fields) : `@${set.name}`;
  return set.unknown === null ? text : `${text} unknown(${set.unknown.code})`;
}

function formatKey(key: readonly Operand[]): string {
  return key.map(formatOperand).join(' . ');
}

/** One test in nft's words; a look-up is marked as one, what is unknown carries its code. */
export function formatTest(test: Test): string {
  switch (test.kind) {
    case 'compare':
      return formatCompare(test);
    case 'lookup': {
      const set = formatSet(test.set, test.key);
      return `lookup ${formatKey(test.key)} ${test.negated ? '!= ' : ''}${set}`;
    }
    case 'unknown':
      return `unknown(${test.reason.code}${test.stateful ? ', stateful' : ''}) ${test.text}`;
  }
}

function formatVerdict(verdict: Verdict): string {
  switch (verdict.kind) {
    case 'jump':
    case 'goto':
      return `${verdict.kind} ${verdict.chain}`;
    case 'accept':
    case 'drop':
    case 'continue':
    case 'return':
      return verdict.kind;
  }
}

function formatStep(step: Step): string {
  switch (step.kind) {
    case 'test':
      return formatTest(step.test);
    case 'count':
      return step.counter.kind === 'named' ? `counter ${step.counter.name}` : 'counter';
    case 'verdict':
      return formatVerdict(step.verdict);
    case 'vmap':
      return `${formatKey(step.key)} vmap ${formatSet(step.map, step.key)}`;
    case 'effect':
      return formatEffect(step.name, step.external);
  }
}

function formatEffect(name: string, external: boolean): string {
  return external ? `effect(${name}, external)` : `effect(${name})`;
}

function formatBase({ type, hook, devices, priority, policy }: BaseChain): string {
  const on = devices === null ? '' : ` devices ${devices.join(', ')}`;
  return ` type ${type} hook ${hook}${on} priority ${priority} policy ${policy}`;
}

function printRule(rule: Rule): string {
  const steps = rule.steps.map(formatStep).join(' ');
  const comment = rule.comment === null ? '' : ` # ${rule.comment}`;
  return `    ${rule.id.index} ${steps}${comment}`.trimEnd();
}

function printChain(chain: Chain): string[] {
  const base = chain.base === null ? '' : formatBase(chain.base);
  return [`  chain ${chain.name}${base}`, ...chain.rules.map(printRule)];
}

function printTable(table: Table): string[] {
  return [
    `table ${table.family} ${table.name}${table.dormant ? ' dormant' : ''}`,
    ...table.counters.map(({ name }) => `  counter ${name}`),
    ...table.sets.map((set) => {
      const unknown = set.unknown === null ? '' : ` unknown(${set.unknown.code})`;
      return `  set ${set.name ?? ''} ${formatElements(set, [])}${unknown}`;
    }),
    ...table.chains.flatMap(printChain),
  ];
}

/** A ruleset for people and goldens: a line each table, chain, set and rule, in its order. */
export function printRuleset(ruleset: Ruleset): string {
  return ruleset.tables
    .flatMap(printTable)
    .map((line) => `${line}\n`)
    .join('');
}

function formatTarget(target: Target): string {
  switch (target.kind) {
    case 'unknown':
      return `unknown(${target.reason.code})`;
    case 'entry':
      return target.uncertain ? `${target.index} uncertain` : `${target.index}`;
    case 'drop':
    case 'accept':
    case 'lost':
      return target.kind;
  }
}

function printEntry(entry: Entry, index: number): string {
  const name = entry.rule === null ? entry.label : formatRuleId(entry.rule);
  const parts = [
    ...entry.tests.map(formatTest),
    ...(entry.counts.length === 0 ? [] : [`counts ${entry.counts.join(',')}`]),
    ...entry.effects.map((effect) => formatEffect(effect.name, effect.external)),
    `-> ${formatTarget(entry.then)}`,
    // Without a test the other way is never taken.
    ...(entry.tests.length === 0 ? [] : [`else ${formatTarget(entry.otherwise)}`]),
  ];
  return `${index} ${entry.view} [${name}] ${parts.join('  ')}\n`;
}

function formatCounter(counter: Counter, index: number): string {
  const owner =
    counter.rule === null
      ? `${counter.family} ${counter.table} counter ${counter.name}`
      : formatRuleId(counter.rule);
  return `counter ${index} ${counter.view} [${owner}]\n`;
}

/** A classifier for people and goldens: a line each entry, then a line each counter. */
export function printClassifier(classifier: Classifier): string {
  return [...classifier.entries.map(printEntry), ...classifier.counters.map(formatCounter)].join(
    '',
  );
}
