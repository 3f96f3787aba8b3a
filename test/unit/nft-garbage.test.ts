import { expect, it } from 'vitest';
import { readJsonValue } from '../../src/nft/ruleset-json.ts';

const payload = { payload: { protocol: 'tcp', field: 'dport' } };
const concat = { concat: [payload, { meta: { key: 'iifname' } }] };
const statements: readonly unknown[] = [
  { match: { op: '==', left: payload, right: { set: [22, { range: [80, 90] }] } } },
  { match: { op: '!=', left: { '&': [{ meta: { key: 'mark' } }, 255] }, right: 5 } },
  { match: { op: '==', left: concat, right: { set: [{ concat: [22, 'eth*'] }] } } },
  { match: { op: '==', left: payload, right: '@s' } },
  { vmap: { key: payload, data: { set: [[22, { accept: null }]] } } },
  { mangle: { key: { meta: { key: 'mark' } }, value: { map: { key: payload, data: '@s' } } } },
  { mangle: { key: payload, value: 5 } },
  { dnat: { addr: { prefix: { addr: '10.0.0.0', len: 8 } }, port: 80 } },
  { reject: { type: 'icmp', expr: 'port-unreachable' } },
  { counter: { packets: 1, bytes: 2 } },
  { set: { op: 'add', elem: payload, set: '@s' } },
  { limit: { rate: 5, per: 'second' } },
  { log: { prefix: 'x' } },
  { jump: { target: 'c' } },
];
const junk: readonly unknown[] = [
  null,
  -1,
  1.5,
  1e300,
  true,
  '',
  '*',
  '@s',
  'eth*',
  [],
  {},
  [[]],
  { set: [] },
  { set: '@s' },
  { range: [5, 1] },
  { prefix: { addr: '::1', len: 999 } },
  { concat: [] },
  { map: {} },
  { elem: {} },
];

/** `value` with each of its parts in turn replaced by `part`. */
function* replaced(value: unknown, part: unknown): Generator<unknown> {
  yield part;
  if (typeof value !== 'object' || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    for (const other of replaced(inner, part)) {
      yield Array.isArray(value)
        ? value.map((item, index) => (String(index) === key ? other : item))
        : { ...value, [key]: other };
    }
  }
}

it('takes anything inside a rule without an exception or a refusal', () => {
  const place = { family: 'inet', table: 't' };
  const set = { ...place, name: 's', type: 'inet_service', elem: [22] };
  const rules = statements.flatMap((statement) =>
    junk.flatMap((part) =>
      [...replaced(statement, part)].map((broken) => ({
        rule: { ...place, chain: 'c', expr: [broken, { accept: null }] },
      })),
    ),
  );
  const result = readJsonValue({ nftables: [{ set }, ...rules] }, 'test');
  expect(result.ok && result.value.tables[0]?.chains[0]?.rules.length).toBe(rules.length);
});

it('takes anything as an element of a named set', () => {
  const set = { family: 'ip', table: 't', name: 's', type: 'ipv4_addr', elem: junk };
  const map = { ...set, name: 'm', map: 'verdict', elem: junk.map((part) => [part, part]) };
  const result = readJsonValue({ nftables: [{ set }, { map }] }, 'test');
  const sets = result.ok ? result.value.tables[0]?.sets : undefined;
  expect(sets?.map(({ unknown }) => unknown?.code)).toEqual(['set/element', 'set/element']);
});
