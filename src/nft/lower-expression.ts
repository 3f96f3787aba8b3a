import { CT_STATE, type Field, findField, findProtocol, META, rawField } from '../ir/fields.ts';
import { plain } from '../ir/operand.ts';
import type { Operand, Step, Test } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import type { Reason } from '../support/diagnostics.ts';
import { applyAnd, applyShift, applyXor } from './arithmetic.ts';
import { parseConstant } from './constants.ts';
import { type ProtocolContext, placeField, requireProtocol } from './dependencies.ts';
import { member, numberMember, soleEntry, textMember } from './json.ts';
import type { NamedSets } from './named-sets.ts';
import { expressionReason } from './reasons.ts';
import type { TestPool } from './test-pool.ts';

/** What the lowering of one rule carries along; steps are added in the order the kernel runs them. */
export interface RuleState {
  readonly context: ProtocolContext;
  readonly sets: NamedSets;
  readonly pool: TestPool;
  readonly steps: Step[];
}

/** Appends one test. */
export function pushTest(state: RuleState, test: Test): void {
  state.steps.push({ kind: 'test', test: state.pool(test) });
}

/** Appends a test that nobody can evaluate, with the text of what it stands for. */
export function pushUnknown(
  state: RuleState,
  reason: Reason,
  text: string,
  stateful = false,
): void {
  pushTest(state, { kind: 'unknown', reason, stateful, text });
}

const META_BY_KEY: ReadonlyMap<string, Field> = new Map(Object.entries(META));

function lowerPayload(state: RuleState, body: unknown): Operand | Reason {
  const base = textMember(body, 'base');
  const offset = numberMember(body, 'offset');
  const length = numberMember(body, 'len');
  if (base !== null && offset !== null && length !== null && length > 0 && length <= 128) {
    if (base !== 'll' && base !== 'nh' && base !== 'th') return expressionReason('payload', body);
    return plain(rawField(base, offset, length));
  }
  const name = textMember(body, 'protocol');
  const fieldName = textMember(body, 'field');
  const tunnel = member(body, 'tunnel');
  if (name === null || fieldName === null || tunnel !== undefined) {
    return expressionReason('payload', body);
  }
  const protocol = findProtocol(name);
  const field = findField(name, fieldName);
  if (protocol === null || field === null) return expressionReason('payload', body);
  const before = requireProtocol(state.context, protocol);
  if ('code' in before) return before;
  for (const test of before) pushTest(state, test);
  const placed = placeField(state.context, protocol, field);
  if ('code' in placed) return placed;
  for (const test of placed.tests) pushTest(state, test);
  return plain(placed.field);
}

function notExact(key: string): Reason {
  return { code: 'match/arithmetic', message: `${key} cannot be expressed as mask, xor and shift` };
}

function lowerArithmetic(
  state: RuleState,
  operator: string,
  args: readonly unknown[],
): Operand | Reason {
  const [first, ...rest] = args;
  let operand = lowerOperand(state, first);
  for (const argument of rest) {
    if ('code' in operand) return operand;
    const c = parseConstant(operand.field, argument);
    if (c === null) return notExact(operator);
    const next = applyOperator(operand, operator, c);
    if (next === null) return notExact(operator);
    operand = next;
  }
  return operand;
}

function applyOperator(operand: Operand, operator: string, c: bigint): Operand | null {
  const all = ones(operand.field.width);
  if (c > all) return null;
  switch (operator) {
    case '&':
      return applyAnd(operand, c);
    case '^':
      return operand.field.width % 8 === 0 ? applyXor(operand, c) : null;
    case '|':
      // nft 1.0.6 computes `|` on fields of less than whole bytes with a wrong mask.
      return operand.field.width % 8 === 0 ? applyXor(applyAnd(operand, all ^ c), c) : null;
    case '<<':
      return c < 128n ? applyShift(operand, Number(c)) : null;
    case '>>':
      return c < 128n ? applyShift(operand, -Number(c)) : null;
    default:
      return null;
  }
}

/**
 * The value an expression loads. Adds the tests nft puts in front of the load; gives the reason when
 * the value cannot be known from the packet.
 */
export function lowerOperand(state: RuleState, expression: unknown): Operand | Reason {
  const entry = soleEntry(expression);
  if (entry === null) return expressionReason('invalid', expression);
  const [key, body] = entry;
  if (key === 'payload') return lowerPayload(state, body);
  if (key === 'meta') {
    const field = META_BY_KEY.get(textMember(body, 'key') ?? '');
    return field === undefined ? expressionReason(key, body) : plain(field);
  }
  if (key === 'ct' && textMember(body, 'key') === 'state') return plain(CT_STATE);
  if (/^(&|\||\^|<<|>>)$/.test(key) && Array.isArray(body)) {
    return lowerArithmetic(state, key, body);
  }
  if (key === 'exthdr') requireNetwork(state, 'ip6');
  if (key === 'ip option') requireNetwork(state, 'ip');
  return expressionReason(key, body);
}

function requireNetwork(state: RuleState, name: string): void {
  const protocol = findProtocol(name);
  const before = protocol === null ? [] : requireProtocol(state.context, protocol);
  if ('code' in before) return;
  for (const test of before) pushTest(state, test);
}

/** The operands of a key, several where it is a concatenation; or the first reason met. */
export function lowerKey(state: RuleState, expression: unknown): readonly Operand[] | Reason {
  const concat = member(expression, 'concat');
  const parts: readonly unknown[] = Array.isArray(concat) ? concat : [expression];
  const operands: Operand[] = [];
  for (const part of parts) {
    const operand = lowerOperand(state, part);
    if ('code' in operand) return operand;
    operands.push(operand);
  }
  return operands;
}
