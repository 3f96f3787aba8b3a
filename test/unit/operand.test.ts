import { expect, it } from 'vitest';
import { type Field, findField, META } from '../../src/ir/fields.ts';
import { overlaps } from '../../src/ir/operand.ts';
import { bits } from '../../src/support/bits.ts';

function named(protocol: string, name: string): Field {
  const field = findField(protocol, name);
  if (field === null) throw new Error(`no field ${protocol} ${name}`);
  return field;
}

const RAW: Field = { name: '@nh,0,16', base: 'nh', offset: bits(0), width: bits(16) };

it.each([
  ['the same field', named('ip', 'dscp'), named('ip', 'dscp'), true],
  ['a neighbour', named('ip', 'dscp'), named('ip', 'hdrlength'), false],
  ['a field that holds it', named('ip', 'frag-off'), RAW, false],
  ['the same bits of the other IP version', named('ip6', 'dscp'), named('ip', 'hdrlength'), false],
  ['raw bits, which are of any header', RAW, named('ip', 'hdrlength'), true],
  ['raw bits and the other version', named('ip6', 'dscp'), RAW, true],
  ['the same bits behind another base', named('ip', 'saddr'), named('tcp', 'sequence'), false],
  ['metadata', META.mark, META.mark, true],
] as const)('what a write may change: %s', (_what, written, loaded, expected) => {
  expect(overlaps(written, loaded)).toBe(expected);
});
