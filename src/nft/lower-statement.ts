import { type Field, findField, findProtocol, META } from '../ir/fields.ts';
import type { CounterRef, Step } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import { requireProtocol } from './dependencies.ts';
import { parseVerdict } from './elements.ts';
import { isObject, type Json, member, numberMember, soleEntry, textMember } from './json.ts';
import {
  lowerKey,
  lowerOperand,
  pushTest,
  pushUnknown,
  type RuleState,
} from './lower-expression.ts';
import { findSet, lowerMatch, lowerVerdictMap, missingSet } from './lower-match.ts';
import { expressionReason, gateReason, statementReason } from './reasons.ts';
import { renderStatement } from './render.ts';

type Effect = Extract<Step, { kind: 'effect' }>;

interface Statement {
  readonly key: string;
  readonly body: unknown;
  readonly text: string;
  /** Nothing of the rule stands behind it. */
  readonly last: boolean;
}

type Lowerer = (state: RuleState, statement: Statement) => void;

function pushEffect(
  state: RuleState,
  key: string,
  parts: Pick<Effect, 'outcome' | 'external' | 'changes'> & { readonly name?: string },
): void {
  const name = parts.name ?? key;
  state.steps.push({
    kind: 'effect',
    name,
    reason: statementReason(key, name),
    outcome: parts.outcome,
    external: parts.external,
    changes: parts.changes,
  });
}

function pushOpaque(state: RuleState, key: string): void {
  pushEffect(state, key, { outcome: 'unknown', external: true, changes: 'everything' });
}

/** An effect that may end the rule: what stands behind it runs only perhaps. */
function pushPerhaps(state: RuleState, statement: Statement, name = statement.key): void {
  pushEffect(state, statement.key, { name, outcome: 'next', external: true, changes: [] });
  if (!statement.last) {
    pushUnknown(state, statementReason(statement.key, name), statement.text, true);
  }
}

const HEX_COUNTER_LIMIT = Number.MAX_SAFE_INTEGER;

function lowerCounter(state: RuleState, { key, body }: Statement): void {
  let counter: CounterRef;
  if (typeof body === 'string') {
    counter = { kind: 'named', name: body };
  } else if (body === null || (isObject(body) && !('map' in body))) {
    const packets = Math.min(numberMember(body, 'packets') ?? 0, HEX_COUNTER_LIMIT);
    const bytes = Math.min(numberMember(body, 'bytes') ?? 0, HEX_COUNTER_LIMIT);
    counter = { kind: 'anonymous', packets, bytes };
  } else {
    requireLoads(state, body, key);
    pushEffect(state, key, { outcome: 'next', external: true, changes: [] });
    return;
  }
  state.steps.push({ kind: 'count', counter });
}

/**
 * The tests that a value's loads amount to: a payload that is not there, or a map without the key,
 * ends the rule.
 */
function requireLoads(state: RuleState, value: unknown, text: string): void {
  if (Array.isArray(value)) {
    for (const part of value) requireLoads(state, part, text);
    return;
  }
  if (!isObject(value)) return;
  if ('map' in value) {
    requireMapKey(state, member(value, 'map'), text);
    return;
  }
  if ('prefix' in value || 'range' in value || 'set' in value) return;
  const entry = soleEntry(value);
  if (entry === null) {
    for (const part of Object.values(value)) requireLoads(state, part, text);
    return;
  }
  const [key, body] = entry;
  if (/^(&|\||\^|<<|>>|concat)$/.test(key)) {
    requireLoads(state, body, text);
    return;
  }
  if (key !== 'payload' && key !== 'meta' && !isObject(body)) return;
  const operand = lowerOperand(state, value);
  if ('code' in operand) {
    pushUnknown(state, operand, text, key === 'numgen');
  } else if (operand.field.base !== 'meta') {
    const hi = ones(operand.field.width);
    pushTest(state, { kind: 'compare', operand, lo: 0n, hi, negated: false, implicit: true });
  }
}

function requireMapKey(state: RuleState, map: unknown, text: string): void {
  const key = lowerKey(state, member(map, 'key'));
  if ('code' in key) {
    pushUnknown(state, key, text, true);
    return;
  }
  const source = member(map, 'data');
  const fields = key.map(({ field }) => field);
  const set = findSet(state, source, fields, 'data');
  if (set === null) pushUnknown(state, missingSet(source), text);
  else pushTest(state, { kind: 'lookup', key, set, negated: false });
}

/** What changes as well when any header field is rewritten. */
export const CHECKSUMS: readonly Field[] = ['ip', 'tcp', 'udp', 'udplite', 'icmp', 'icmpv6']
  .map((protocol) => findField(protocol, 'checksum'))
  .filter((field) => field !== null);

const META_BY_KEY: ReadonlyMap<string, Field> = new Map(Object.entries(META));

function lowerMangle(state: RuleState, { body, text }: Statement): void {
  const target = soleEntry(member(body, 'key'));
  const before = state.steps.length;
  if (target === null) {
    pushOpaque(state, 'mangle');
    return;
  }
  const [key, what] = target;
  if (key === 'payload') {
    const operand = lowerOperand(state, { [key]: what });
    requireLoads(state, member(body, 'value'), text);
    if ('code' in operand) {
      pushOpaque(state, 'mangle');
      return;
    }
    const hi = ones(operand.field.width);
    pushTest(state, { kind: 'compare', operand, lo: 0n, hi, negated: false, implicit: true });
    const changes = [operand.field, ...CHECKSUMS];
    const name = `${operand.field.name} set`;
    pushEffect(state, 'mangle', { name, outcome: 'next', external: false, changes });
    return;
  }
  requireLoads(state, member(body, 'value'), text);
  const name = textMember(what, 'key') ?? '?';
  if (key === 'meta') {
    const field = META_BY_KEY.get(name);
    const parts = { name: `meta ${name} set`, outcome: 'next', external: false } as const;
    // `broute` and the like change the packet's way, not a field.
    const harmless = name === 'nftrace' || name === 'secmark';
    const changes = field !== undefined ? [field] : harmless ? [] : ('everything' as const);
    pushEffect(state, 'meta set', { ...parts, changes });
    return;
  }
  if (key === 'ct') {
    pushEffect(state, 'ct set', {
      name: `ct ${name} set`,
      outcome: 'next',
      external: true,
      changes: [],
    });
    return;
  }
  if (before === state.steps.length) pushUnknown(state, expressionReason(key, what), text);
  pushEffect(state, 'mangle', {
    name: `${key} set`,
    outcome: 'next',
    external: false,
    changes: 'everything',
  });
}

function lowerReject(state: RuleState, { body }: Statement): void {
  const type = textMember(body, 'type');
  const name = type === 'tcp reset' ? 'tcp' : type === 'icmp' ? 'ip' : 'ip6';
  if (type === 'tcp reset' || type === 'icmp' || type === 'icmpv6') {
    const protocol = findProtocol(name);
    const before = protocol === null ? [] : requireProtocol(state.context, protocol);
    if ('code' in before) pushUnknown(state, before, 'reject');
    else for (const test of before) pushTest(state, test);
  }
  pushEffect(state, 'reject', { outcome: 'drop', external: true, changes: [] });
}

function lowerNat(state: RuleState, { key, body, text }: Statement): void {
  requireLoads(state, member(body, 'addr'), text);
  requireLoads(state, member(body, 'port'), text);
  pushEffect(state, key, { outcome: 'accept', external: false, changes: 'everything' });
}

function lowerTo(outcome: Effect['outcome']): Lowerer {
  return (state, { key, body, text }) => {
    requireLoads(state, body, text);
    pushEffect(state, key, { outcome, external: true, changes: [] });
  };
}

/** A statement that passes only some packets and remembers them. */
const lowerGate: Lowerer = (state, { key, text }) => {
  pushUnknown(state, gateReason(key), text, true);
};

const lowerVerdict: Lowerer = (state, { key, body }) => {
  const verdict = parseVerdict({ [key]: body });
  if (verdict === null) pushOpaque(state, key);
  else state.steps.push({ kind: 'verdict', verdict });
};

const lowerQuiet: Lowerer = (state, { key, body, text }) => {
  if (member(body, 'map') !== undefined) requireLoads(state, body, text);
  pushEffect(state, key, { outcome: 'next', external: true, changes: [] });
};

const lowerSetUpdate: Lowerer = (state, statement) => {
  const key = lowerKey(state, member(statement.body, 'elem'));
  if ('code' in key) pushUnknown(state, key, statement.text, true);
  const operation = textMember(statement.body, 'op') ?? 'update';
  pushPerhaps(state, statement, `${operation} ${textMember(statement.body, statement.key) ?? ''}`);
};

/** One row a statement key; a key that is missing here is opaque. */
const LOWERERS: Readonly<Record<string, Lowerer>> = {
  match: (state, { body, text, key }) => {
    if (isObject(body)) lowerMatch(state, body, text);
    else pushOpaque(state, key);
  },
  vmap: (state, { body, text, key }) => {
    if (isObject(body)) lowerVerdictMap(state, body, text);
    else pushOpaque(state, key);
  },
  accept: lowerVerdict,
  drop: lowerVerdict,
  continue: lowerVerdict,
  return: lowerVerdict,
  jump: lowerVerdict,
  goto: lowerVerdict,
  counter: lowerCounter,
  mangle: lowerMangle,
  reject: lowerReject,
  log: lowerQuiet,
  last: lowerQuiet,
  'ct helper': lowerQuiet,
  'ct timeout': lowerQuiet,
  'ct expectation': lowerQuiet,
  secmark: lowerQuiet,
  notrack: (state, { key }) =>
    pushEffect(state, key, { outcome: 'next', external: false, changes: [] }),
  limit: lowerGate,
  quota: lowerGate,
  'ct count': lowerGate,
  meter: lowerGate,
  snat: lowerNat,
  dnat: lowerNat,
  masquerade: lowerNat,
  redirect: lowerNat,
  queue: lowerTo('unknown'),
  tproxy: lowerTo('unknown'),
  synproxy: lowerTo('unknown'),
  fwd: lowerTo('unknown'),
  dup: lowerTo('next'),
  flow: (state, statement) => pushPerhaps(state, statement),
  set: lowerSetUpdate,
  map: lowerSetUpdate,
  reset: (state, { key }) =>
    pushEffect(state, key, { outcome: 'next', external: false, changes: 'everything' }),
};

/** Lowers one statement of a rule; whatever is not understood becomes an opaque step. */
export function lowerStatement(state: RuleState, value: unknown, last: boolean): void {
  const entry = soleEntry(value);
  if (entry === null) {
    pushOpaque(state, 'unknown');
    return;
  }
  const [key, body] = entry;
  const lowerer = Object.hasOwn(LOWERERS, key) ? LOWERERS[key] : undefined;
  if (lowerer === undefined) pushOpaque(state, key);
  else lowerer(state, { key, body, text: renderStatement(value as Json), last });
}
