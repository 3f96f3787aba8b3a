import { type Field, findField } from '../ir/fields.ts';
import { isPlain, plain } from '../ir/operand.ts';
import type { ElementSet, Operand } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import type { Reason } from '../support/diagnostics.ts';
import { parseConstant, parseInterval, parseWildcard, prefixMask } from './constants.ts';
import { learnEquality } from './dependencies.ts';
import { readElements, type SetContent } from './elements.ts';
import { type Json, member, numberMember, textMember } from './json.ts';
import { lowerKey, pushTest, pushUnknown, type RuleState } from './lower-expression.ts';
import { isFlagField } from './symbols.ts';

function valueReason(value: unknown): Reason {
  const text = JSON.stringify(value) ?? 'nothing';
  return { code: 'match/value', message: `${text.slice(0, 80)} is not a constant that is known` };
}

function operatorReason(op: string): Reason {
  return { code: 'match/operator', message: `the operator ${op} is not understood here` };
}

interface Range {
  readonly operand: Operand;
  readonly lo: bigint;
  readonly hi: bigint;
  readonly negated: boolean;
}

/** A comparison that holds for no value: outside everything. */
function never(operand: Operand): Range {
  return { operand, lo: 0n, hi: ones(operand.field.width), negated: true };
}

function orderRange(operand: Operand, op: string, value: bigint): Range | null {
  const top = ones(operand.field.width);
  switch (op) {
    case '<':
      return value === 0n ? never(operand) : { operand, lo: 0n, hi: value - 1n, negated: false };
    case '>':
      return value >= top ? never(operand) : { operand, lo: value + 1n, hi: top, negated: false };
    case '<=':
      return { operand, lo: 0n, hi: value, negated: false };
    case '>=':
      return { operand, lo: value, hi: top, negated: false };
    default:
      return null;
  }
}

function maskedEquality(operand: Operand, mask: bigint, value: bigint, negated: boolean): Range {
  const masked = { ...operand, mask: operand.mask & mask, xor: operand.xor & mask };
  return { operand: masked, lo: value & mask, hi: value & mask, negated };
}

function equalRange(operand: Operand, right: unknown, negated: boolean): Range | null {
  const { field } = operand;
  const prefix = member(right, 'prefix');
  if (prefix !== undefined && operand.shift === 0) {
    const mask = prefixMask(field.width, numberMember(prefix, 'len'));
    const address = parseConstant(field, member(prefix, 'addr'));
    return mask === null || address === null
      ? null
      : maskedEquality(operand, mask, address, negated);
  }
  const wild = parseWildcard(field, right);
  if (wild !== null && operand.shift === 0) {
    return maskedEquality(operand, ones(field.width) ^ (wild.lo ^ wild.hi), wild.lo, negated);
  }
  const interval = parseInterval(field, right);
  if (interval === null || interval.hi > ones(field.width)) return null;
  return { operand, ...interval, negated };
}

function flagsRange(operand: Operand, right: unknown, negated: boolean): Range | null {
  const flags = parseConstant(operand.field, right);
  if (flags === null) return null;
  const masked = { ...operand, mask: operand.mask & flags, xor: operand.xor & flags };
  return { operand: masked, lo: 0n, hi: 0n, negated };
}

function toRange(operand: Operand, op: string, right: unknown): Range | null {
  switch (op) {
    case '==':
      return equalRange(operand, right, false);
    case '!=':
      return equalRange(operand, right, true);
    case 'in':
      return isFlagField(operand.field) && isPlain(operand)
        ? flagsRange(operand, right, true)
        : equalRange(operand, right, false);
    case '!':
      return flagsRange(operand, right, false);
    default: {
      const value = parseConstant(operand.field, right);
      return value === null ? null : orderRange(operand, op, value);
    }
  }
}

const SOURCE_PORT = findField('th', 'sport');
const DESTINATION_PORT = findField('th', 'dport');

/** `@th,0,32`, which is how nft lists `th sport A th dport B` after it has merged them. */
function isMergedPorts({ operand, lo, hi, negated }: Range): boolean {
  const { base, offset, width } = operand.field;
  return base === 'th' && offset === 0 && width === 32 && isPlain(operand) && lo === hi && !negated;
}

function pushPort(state: RuleState, range: Range, field: Field | null, value: bigint): void {
  if (field === null) throw new Error('bug: no field th sport or th dport');
  pushTest(state, {
    kind: 'compare',
    operand: plain(field),
    lo: value,
    hi: value,
    negated: range.negated,
    implicit: false,
  });
}

function lowerComparison(
  state: RuleState,
  operand: Operand,
  op: string,
  right: unknown,
  text: string,
): void {
  const range = toRange(operand, op, right);
  if (range === null) {
    const known = ['==', '!=', 'in', '!', '<', '>', '<=', '>='].includes(op);
    pushUnknown(state, known ? valueReason(right) : operatorReason(op), text);
    return;
  }
  if (isMergedPorts(range)) {
    pushPort(state, range, SOURCE_PORT, range.lo >> 16n);
    pushPort(state, range, DESTINATION_PORT, range.lo & 0xffffn);
    return;
  }
  pushTest(state, { kind: 'compare', ...range, implicit: false });
  if (!range.negated && range.lo === range.hi && isPlain(range.operand)) {
    learnEquality(state.context, operand.field, range.lo);
  }
}

/** The set or map a rule names or lists, read for a key of these fields; null when there is none. */
export function findSet(
  state: RuleState,
  source: unknown,
  fields: readonly Field[],
  content: SetContent,
): ElementSet | null {
  if (typeof source === 'string') {
    return source.startsWith('@') ? state.sets.find(source.slice(1), fields) : null;
  }
  const list = member(source, 'set');
  if (typeof list === 'string') return findSet(state, list, fields, content);
  if (!Array.isArray(list)) return null;
  return { name: null, ...readElements(fields, list, content) };
}

/** A set of which nothing can be said, for a name that the table does not have. */
export function missingSet(source: unknown): Reason {
  const name = typeof source === 'string' ? source : 'the set';
  return { code: 'match/set', message: `${name} is not in the table or not understood` };
}

function lowerLookup(
  state: RuleState,
  key: readonly Operand[],
  op: string,
  right: unknown,
  text: string,
): void {
  const fields = key.map(({ field }) => field);
  const set = findSet(state, right, fields, 'set');
  if (set === null) {
    pushUnknown(state, missingSet(right), text);
    return;
  }
  if (set.elements.parts.length !== key.length || !['==', '!=', 'in'].includes(op)) {
    pushUnknown(state, operatorReason(op), text);
    return;
  }
  pushTest(state, { kind: 'lookup', key, set, negated: op === '!=' });
  const [only] = key;
  if (set.name !== null || op === '!=' || key.length !== 1 || only === undefined) return;
  if (!isPlain(only)) return;
  const { lo, hi } = set.elements;
  for (const [index, value] of lo.entries()) {
    if (value === hi[index]) learnEquality(state.context, only.field, value);
  }
}

/** The only element of an anonymous set where nft compares instead of looking up, else null. */
function soleElement(right: unknown): { readonly value: unknown } | null {
  const list = member(right, 'set');
  if (!Array.isArray(list) || list.length !== 1) return null;
  const [value] = list;
  const inner = member(value, 'elem');
  const bare = inner === undefined ? value : member(inner, 'val');
  return bare === '*' || bare === undefined ? null : { value: bare };
}

/** Lowers `{"match": {...}}`, with the tests nft puts in front of it. */
export function lowerMatch(state: RuleState, body: Json, text: string): void {
  const op = textMember(body, 'op') ?? '==';
  const key = lowerKey(state, member(body, 'left'));
  if ('code' in key) {
    const stateful = member(member(body, 'left'), 'numgen') !== undefined;
    pushUnknown(state, key, text, stateful);
    return;
  }
  const right = member(body, 'right');
  const [only] = key;
  if (key.length === 1 && only !== undefined) {
    const sole = soleElement(right);
    const isSet = typeof right === 'string' ? right.startsWith('@') : member(right, 'set');
    if (sole !== null) lowerComparison(state, only, op, sole.value, text);
    else if (isSet !== undefined && isSet !== false) lowerLookup(state, key, op, right, text);
    else lowerComparison(state, only, op, right, text);
    return;
  }
  const list = member(right, 'concat') === undefined ? right : { set: [right] };
  lowerLookup(state, key, op, list, text);
}

/** Lowers `{"vmap": {...}}`. */
export function lowerVerdictMap(state: RuleState, body: Json, text: string): void {
  const key = lowerKey(state, member(body, 'key'));
  const source = member(body, 'data');
  if ('code' in key) {
    // What the map would decide is not known either, so nothing behind it is.
    const stateful = member(member(body, 'key'), 'numgen') !== undefined;
    pushUnknown(state, key, text, stateful);
    pushUnknownVerdict(state, key);
    return;
  }
  const fields = key.map(({ field }) => field);
  const map = findSet(state, source, fields, 'verdicts');
  if (map === null || map.elements.verdicts === null) {
    pushUnknown(state, missingSet(source), text);
    pushUnknownVerdict(state, missingSet(source));
    return;
  }
  state.steps.push({ kind: 'vmap', key, map });
}

function pushUnknownVerdict(state: RuleState, reason: Reason): void {
  state.steps.push({
    kind: 'effect',
    name: 'vmap',
    reason,
    outcome: 'unknown',
    external: false,
    changes: [],
  });
}
