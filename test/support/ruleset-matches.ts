import type { Random } from './random.ts';
import {
  type FieldGroup,
  pickBroadMatch,
  pickFieldGroup,
  type RuleField,
  type RulePlace,
} from './ruleset-fields.ts';
import {
  formatInterval,
  type Interval,
  type PoolBuilder,
  pickDisjoint,
  pickInterval,
  pickValue,
  VALUE_KINDS,
  type ValueKind,
} from './ruleset-values.ts';

/** What a table gets beside its chains while its rules are written. */
export interface TableScope {
  readonly random: Random;
  readonly pool: PoolBuilder;
  /** Declarations of sets, maps and counters, in nft's syntax. */
  readonly declarations: string[];
  /** Verdicts that a rule at this place may end with, for verdict maps. */
  pickVerdict(): string;
}

/** Text of a match; `broad` when most packets pass it. */
export interface MatchText {
  readonly text: string;
  readonly broad: boolean;
  /** The match is a verdict map, and nothing may follow. */
  readonly final: boolean;
}

function narrow(text: string): MatchText {
  return { text, broad: false, final: false };
}

function broad(text: string): MatchText {
  return { text, broad: true, final: false };
}

function kindOf(field: RuleField): ValueKind {
  return VALUE_KINDS[field.values];
}

function note(scope: TableScope, kind: ValueKind, intervals: readonly Interval[]): void {
  for (const { lo, hi } of intervals) scope.pool.add(kind, lo, hi);
}

function pickElements(scope: TableScope, field: RuleField, ranges: boolean): readonly string[] {
  const kind = kindOf(field);
  const intervals = pickDisjoint(scope.random, kind, 1 + scope.random.below(6), ranges);
  note(scope, kind, intervals);
  return intervals.map((interval) => formatInterval(scope.random, kind, interval));
}

function declare(scope: TableScope, word: string, body: string): string {
  const name = `${word}${scope.declarations.length}`;
  scope.declarations.push(`${word} ${name} { ${body} }`);
  return `@${name}`;
}

function compareField(scope: TableScope, field: RuleField): MatchText {
  const { random } = scope;
  const kind = kindOf(field);
  const interval = pickInterval(random, kind);
  note(scope, kind, [interval]);
  const text = formatInterval(random, kind, interval);
  if (random.chance(0.12)) return broad(`${field.name} != ${text}`);
  const ordered = kind.bits >= 8 && kind.bits <= 20 && field.values !== 'tcpFlags';
  if (ordered && random.chance(0.1)) {
    const value = kind.format(interval.hi === 0n ? 1n : interval.hi);
    return broad(`${field.name} ${random.pick(['<', '<=', '>='])} ${value}`);
  }
  return narrow(`${field.name} ${text}`);
}

function maskField(scope: TableScope, field: RuleField): MatchText {
  const { random } = scope;
  const kind = kindOf(field);
  if (field.values === 'tcpFlags') {
    return narrow(
      random.pick([
        'tcp flags & (syn | ack) == syn',
        'tcp flags & (fin | syn | rst | ack) == syn',
        'tcp flags & (syn | fin) == (syn | fin)',
        'tcp flags & rst != 0',
        'tcp flags & (ack | rst) == 0',
        'tcp flags syn',
        'tcp flags & (fin | syn | rst | psh | ack | urg) == 0',
      ]),
    );
  }
  const value = pickValue(random, kind);
  scope.pool.add(kind, value);
  const all = (1n << BigInt(kind.bits)) - 1n;
  const hole = 0xffn << BigInt(8 * random.below(Math.max(1, kind.bits / 8)));
  const mask = kind.bits <= 8 ? all & ~1n : all & ~hole;
  const operator = random.chance(0.85) ? '==' : '!=';
  const text = `${field.name} & ${kind.format(mask)} ${operator} ${kind.format(value & mask)}`;
  return operator === '==' ? narrow(text) : broad(text);
}

function lookUpField(scope: TableScope, field: RuleField): MatchText {
  const { random } = scope;
  const ranges = field.settable && random.chance(0.5);
  const elements = pickElements(scope, field, ranges);
  const negated = random.chance(0.12);
  const operator = negated ? ' != ' : ' ';
  const named = field.settable && random.chance(0.4);
  const flags = ranges ? 'flags interval; ' : '';
  const set = named
    ? declare(scope, 'set', `typeof ${field.name}; ${flags}elements = { ${elements.join(', ')} }`)
    : `{ ${elements.join(', ')} }`;
  const text = `${field.name}${operator}${set}`;
  return negated ? broad(text) : narrow(text);
}

function mapField(scope: TableScope, field: RuleField): MatchText {
  const { random } = scope;
  const ranges = field.settable && random.chance(0.4);
  const elements = pickElements(scope, field, ranges).map(
    (element) => `${element} : ${scope.pickVerdict()}`,
  );
  const flags = ranges ? 'flags interval; ' : '';
  const map =
    field.settable && random.chance(0.3)
      ? declare(
          scope,
          'map',
          `typeof ${field.name} : verdict; ${flags}elements = { ${elements.join(', ')} }`,
        )
      : `{ ${elements.join(', ')} }`;
  return { text: `${field.name} vmap ${map}`, broad: false, final: true };
}

function concatenate(scope: TableScope, fields: readonly RuleField[]): MatchText {
  const { random } = scope;
  const names = fields.map((field) => field.name).join(' . ');
  const ranges = random.chance(0.4);
  const columns = fields.map((field) => pickDisjoint(random, kindOf(field), 4, ranges));
  const rows = Math.min(...columns.map((column) => column.length));
  // Column values are disjoint, so rows cannot overlap.
  const elements = Array.from({ length: rows }, (_, row) =>
    fields
      .map((field, index) => {
        const interval = columns[index]?.[row] ?? { lo: 0n, hi: 0n };
        note(scope, kindOf(field), [interval]);
        return formatInterval(random, kindOf(field), interval);
      })
      .join(' . '),
  );
  const roll = random.below(10);
  if (roll < 3) {
    const mapped = elements.map((element) => `${element} : ${scope.pickVerdict()}`);
    return { text: `${names} vmap { ${mapped.join(', ')} }`, broad: false, final: true };
  }
  if (roll < 6) {
    const flags = ranges ? 'flags interval; ' : '';
    const body = `typeof ${names}; ${flags}elements = { ${elements.join(', ')} }`;
    return narrow(`${names} ${declare(scope, 'set', body)}`);
  }
  if (roll < 7) return broad(`${names} != { ${elements.join(', ')} }`);
  return narrow(`${names} { ${elements.join(', ')} }`);
}

function pickMatch(scope: TableScope, field: RuleField, mayEnd: boolean): MatchText {
  const roll = scope.random.below(20);
  if (roll < 10) return compareField(scope, field);
  if (roll < 12 && field.values !== 'mac') return maskField(scope, field);
  if (roll < 17 || !mayEnd) return lookUpField(scope, field);
  return mapField(scope, field);
}

/** The matches of one rule, and the IP version that they imply. */
export interface RuleMatches {
  readonly version: FieldGroup['version'];
  readonly matches: readonly MatchText[];
}

/** One to three matches that do not contradict each other; only the last can be a verdict map. */
export function pickMatches(scope: TableScope, place: RulePlace): RuleMatches {
  const { random } = scope;
  const { version, lead, fields: choices } = pickFieldGroup(random, place);
  const wanted = random.pick([1, 1, 1, 1, 2, 2, 3]);
  const fields: RuleField[] = [];
  for (let tries = 0; fields.length < wanted && tries < 8; tries += 1) {
    const next = random.pick(choices);
    if (fields.every((field) => field.name !== next.name)) fields.push(next);
  }
  const first = lead.map(broad);
  if (random.chance(0.12)) first.push(broad(pickBroadMatch(random, place, version)));
  const settable = fields.filter((field) => field.settable);
  if (settable.length >= 2 && random.chance(0.4)) {
    return { version, matches: [...first, concatenate(scope, settable)] };
  }
  const matches = fields.map((field, index) =>
    pickMatch(scope, field, index === fields.length - 1),
  );
  return { version, matches: [...first, ...matches] };
}
