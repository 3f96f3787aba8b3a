import { ones } from '../support/bits.ts';
import type { Facts } from './facts.ts';
import { type Field, fieldKey, META } from './fields.ts';
import { applyOperand, splitKey } from './operand.ts';
import { nameValue } from './resolve-test.ts';
import type { ElementSet, Operand, Ruleset, Step } from './ruleset.ts';

function isDevice(field: Field): boolean {
  return fieldKey(field) === META.iif.name || fieldKey(field) === META.iifname.name;
}

/** Which elements have the device in part `index` of their key. */
function matching({ elements }: ElementSet, index: number, value: bigint): string {
  const { parts, lo, hi } = elements;
  const found = lo.flatMap((low, at) => {
    const from = splitKey(parts, low)[index] ?? 0n;
    const to = splitKey(parts, hi[at] ?? low)[index] ?? 0n;
    return value >= from && value <= to ? [at] : [];
  });
  return found.join(',');
}

function ofKey(key: readonly Operand[], set: ElementSet, name: bigint): string[] {
  return key.flatMap((operand, index) =>
    isDevice(operand.field) ? [matching(set, index, applyOperand(operand, name))] : [],
  );
}

/** How one step comes out for a device, as far as it asks for it. */
function outcomeOf(step: Step, name: bigint): string[] {
  if (step.kind === 'vmap') return ofKey(step.key, step.map, name);
  if (step.kind !== 'test' || step.test.kind === 'unknown') return [];
  const { test } = step;
  if (test.kind === 'lookup') return ofKey(test.key, test.set, name);
  if (!isDevice(test.operand.field)) return [];
  const value = applyOperand(test.operand, name) & ones(test.operand.field.width);
  return [value >= test.lo && value <= test.hi ? 'y' : 'n'];
}

/**
 * The same text for devices that no layer-3 rule tells apart, so that one walk serves all of them.
 * A known device group is the port's alone.
 */
export function deviceSignature({ tables }: Ruleset, device: string, facts: Facts): string {
  const name = nameValue(device);
  const outcomes = tables
    .filter(({ family }) => family === 'ip' || family === 'ip6' || family === 'inet')
    .flatMap(({ chains }) => chains.flatMap(({ rules }) => rules))
    .flatMap(({ steps }) => steps.flatMap((step) => outcomeOf(step, name)));
  const hasGroup = facts.group !== null && device === facts.device;
  return `${hasGroup ? 'group' : ''} ${outcomes.join(' ')}`;
}
