import type { Rule, RuleId } from '../ir/ruleset.ts';
import { startContext } from './dependencies.ts';
import { isObject, type Json, soleEntry } from './json.ts';
import { pushUnknown, type RuleState } from './lower-expression.ts';
import { lowerStatement } from './lower-statement.ts';
import { renderRule } from './render.ts';

/** `xt` is an extension of iptables, whose kind the listing may not tell: it may be any of them. */
const NAT_STATEMENTS: ReadonlySet<string> = new Set([
  'snat',
  'dnat',
  'masquerade',
  'redirect',
  'xt',
]);

/**
 * Keys whose presence anywhere in a rule turns on connection tracking for the family (measured; `flow`
 * by nft_flow_offload_init of the kernel). `notrack` alone does not.
 */
const TRACKING_KEYS: ReadonlySet<string> = new Set([
  ...NAT_STATEMENTS,
  'ct',
  'ct helper',
  'ct timeout',
  'ct expectation',
  'ct count',
  'synproxy',
  'tproxy',
  'flow',
]);

/** Whether `value` has one of `keys` at any depth. */
function holdsKey(value: unknown, keys: ReadonlySet<string>): boolean {
  if (Array.isArray(value)) return value.some((part) => holdsKey(part, keys));
  if (!isObject(value)) return false;
  for (const key in value) {
    if (keys.has(key)) return true;
    // Elements of a set are constants, however many there are.
    if (key !== 'set' && key !== 'right' && holdsKey(value[key], keys)) return true;
    if (key === 'right' && isObject(value[key]) && !('set' in value[key])) {
      if (holdsKey(value[key], keys)) return true;
    }
  }
  return false;
}

// nft's own expressions nest a handful of levels; anything beyond is not from nft.
const DEEPEST = 64;

function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (levels === 0) return true;
  if (Array.isArray(value)) return value.some((part) => isDeeper(part, levels - 1));
  // Neither null nor an array: a plain object of the JSON parser.
  const parts = value as Json;
  for (const key in parts) {
    if (isDeeper(parts[key], levels - 1)) return true;
  }
  return false;
}

/** Whether nft 1.0.6 may have left a protocol test out when it listed this rule. */
function mayLackProtocol(statements: readonly unknown[]): boolean {
  const text = JSON.stringify(statements);
  if (!/"(protocol|base)":"th"/.test(text)) return false;
  return !/"key":"l4proto"|"field":"(protocol|nexthdr)"/.test(text);
}

const LISTING_REASON = {
  code: 'match/listing',
  message:
    'nft leaves `meta l4proto` out when it lists a rule on `th` behind a protocol without a name of its own, so the protocol is not known',
};

/** Lowers one rule of a listing to the steps the kernel runs, in the kernel's order. */
export function lowerRule(
  id: RuleId,
  listed: readonly unknown[],
  comment: string | null,
  { sets, pool }: Pick<RuleState, 'sets' | 'pool'>,
  isLossy: boolean,
): Rule {
  const statements = isDeeper(listed, DEEPEST) ? [{ 'too deeply nested': null }] : listed;
  const state: RuleState = { context: startContext(id.family), sets, pool, steps: [] };
  if (isLossy && mayLackProtocol(statements)) {
    pushUnknown(state, LISTING_REASON, 'meta l4proto ?');
  }
  for (const [index, statement] of statements.entries()) {
    lowerStatement(state, statement, index === statements.length - 1);
  }
  return {
    id,
    text: renderRule(statements, comment),
    comment,
    steps: state.steps,
    tracks: holdsKey(statements, TRACKING_KEYS),
    nat: statements.some((statement) => NAT_STATEMENTS.has(soleEntry(statement)?.[0] ?? '')),
  };
}
