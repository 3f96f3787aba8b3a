import { expect, it } from 'vitest';
import type { Classifier, Entry } from '../../src/ir/classifier.ts';
import { type Field, findField, META, rawField } from '../../src/ir/fields.ts';
import { equals, not, plain, within } from '../../src/ir/operand.ts';
import { formatTest, printClassifier, printRuleset } from '../../src/ir/print.ts';
import type { ElementSet, Operand, RuleId, Ruleset, Test } from '../../src/ir/ruleset.ts';

function field(protocol: string, name: string): Field {
  const found = findField(protocol, name);
  if (found === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return found;
}

const SADDR = field('ip', 'saddr');
const SADDR6 = field('ip6', 'saddr');
const DPORT = field('tcp', 'dport');
const FLAGS = field('tcp', 'flags');
const V6 = 0x20010db8n << 96n;
const ETH0 = 0x65746830n << 96n;

function setOf(
  name: string | null,
  parts: readonly number[],
  lo: readonly bigint[],
  hi: readonly bigint[] = lo,
  unknown: ElementSet['unknown'] = null,
): ElementSet {
  return { name, elements: { parts, lo, hi, verdicts: null }, unknown };
}

function lookup(key: readonly Field[], set: ElementSet): Test {
  return { kind: 'lookup', key: key.map(plain), set, negated: false };
}

function compare(operand: Operand, value: bigint): Test {
  return { kind: 'compare', operand, lo: value, hi: value, negated: false, implicit: false };
}

const PORTS = setOf(null, [16], [22n, 80n], [22n, 90n]);
const BLOCKED = setOf('blocked', [32], [1n]);
const MANY = setOf(
  null,
  [16],
  Array.from({ length: 9 }, (_, port) => BigInt(port)),
);
const PAIRS = setOf(null, [32, 16], [(0x0a000000n << 16n) | 80n], [(0x0a0000ffn << 16n) | 80n]);
const DYNAMIC = setOf('seen', [32], [], [], { code: 'set/dynamic', message: 'filled by packets' });
const REASON = { code: 'test/limit', message: 'a limit' };

it.each([
  [equals(SADDR, 0x0a000001n), 'ip saddr 10.0.0.1'],
  [equals(SADDR, 0x0a000000n, 0xff000000n), 'ip saddr 10.0.0.0/8'],
  [not(equals(SADDR, 0x0a000000n, 0xff000000n)), 'ip saddr != 10.0.0.0/8'],
  [within(SADDR, 0x0a000000n, 0x0a0000ffn), 'ip saddr 10.0.0.0/24'],
  [within(SADDR, 0x0a000001n, 0x0a0000ffn), 'ip saddr 10.0.0.1-10.0.0.255'],
  [equals(SADDR, 1n, 0xff0000ffn), 'ip saddr & 255.0.0.255 == 0.0.0.1'],
  [equals(SADDR6, V6 | 1n), 'ip6 saddr 2001:db8::1'],
  [equals(SADDR6, 0n), 'ip6 saddr ::'],
  [equals(SADDR6, 1n << 64n), 'ip6 saddr 0:0:0:1::'],
  [equals(SADDR6, V6 | (1n << 64n) | 1n), 'ip6 saddr 2001:db8:0:1::1'],
  [
    equals(SADDR6, (V6 >> 96n) * 0x1_0000_0000n ** 3n + 0x1000200030004n),
    'ip6 saddr 2001:db8::1:2:3:4',
  ],
  [equals(SADDR6, V6, ((1n << 32n) - 1n) << 96n), 'ip6 saddr 2001:db8::/32'],
  [equals(field('ether', 'saddr'), 0x0200000000abn), 'ether saddr 02:00:00:00:00:ab'],
  [equals(field('ether', 'type'), 0x0800n), 'ether type 0x0800'],
  [equals(field('arp', 'daddr ip'), 0x0a000001n), 'arp daddr ip 10.0.0.1'],
  [equals(META.protocol, 0x86ddn), 'meta protocol 0x86dd'],
  [equals(META.l4proto, 6n), 'meta l4proto 6'],
  [equals(field('ip', 'protocol'), 17n), 'ip protocol 17'],
  [equals(META.iifname, ETH0), 'meta iifname "eth0"'],
  [not(within(DPORT, 80n, 90n)), 'tcp dport != 80-90'],
  [equals(FLAGS, 2n, 0x12n), 'tcp flags & 0x12 == 0x02'],
  [not(equals(FLAGS, 2n, 0x12n)), 'tcp flags & 0x12 != 0x02'],
  [equals(DPORT, 0n, 1n), 'tcp dport & 0x0001 == 0'],
  [compare({ ...plain(FLAGS), xor: 3n, shift: 2 }, 8n), '((tcp flags) ^ 0x03) << 2 == 0x08'],
  [compare({ ...plain(FLAGS), shift: -2 }, 8n), '(tcp flags) >> 2 == 0x08'],
  [equals(rawField('nh', 96, 32), 0xa000001n), '@nh,96,32 0x0a000001'],
  [lookup([SADDR], BLOCKED), 'lookup ip saddr @blocked'],
  [not(lookup([SADDR], BLOCKED)), 'lookup ip saddr != @blocked'],
  [lookup([DPORT], PORTS), 'lookup tcp dport { 22, 80-90 }'],
  [lookup([DPORT], MANY), 'lookup tcp dport { 0, 1, 2, 3, 4, 5, 6, 7, ... 9 elements }'],
  [lookup([SADDR, DPORT], PAIRS), 'lookup ip saddr . tcp dport { 10.0.0.0/24 . 80 }'],
  [lookup([SADDR], DYNAMIC), 'lookup ip saddr @seen unknown(set/dynamic)'],
  [
    { kind: 'unknown', reason: REASON, stateful: true, text: 'limit rate 1/second' },
    'unknown(test/limit, stateful) limit rate 1/second',
  ],
] satisfies [Test, string][])('writes a test in words', (test, text) => {
  expect(formatTest(test)).toBe(text);
});

const RULE: RuleId = { family: 'inet', table: 'filter', chain: 'input', handle: 7, index: 0 };

function entry(changes: Partial<Entry>): Entry {
  return {
    rule: null,
    label: 'policy drop',
    view: 'l3',
    tests: [],
    counts: [],
    effects: [],
    then: { kind: 'drop' },
    otherwise: { kind: 'accept' },
    ...changes,
  };
}

it('prints a classifier, a line each entry and counter', () => {
  const classifier: Classifier = {
    device: 'eth0',
    stages: [],
    counters: [
      { family: 'inet', table: 'filter', rule: RULE, name: null, view: 'l3' },
      { family: 'inet', table: 'filter', rule: null, name: 'hits', view: 'ingress' },
    ],
    entries: [
      entry({
        rule: RULE,
        tests: [equals(META.l4proto, 6n), equals(DPORT, 22n)],
        counts: [0, 1],
        effects: [{ name: 'log', reason: REASON, external: true }],
        otherwise: { kind: 'entry', index: 1, uncertain: true },
      }),
      entry({
        view: 'ingress',
        label: 'who knows',
        tests: [equals(SADDR, 1n)],
        then: { kind: 'unknown', reason: REASON },
        otherwise: { kind: 'entry', index: 2, uncertain: false },
      }),
      entry({}),
    ],
  };
  expect(printClassifier(classifier)).toBe(
    [
      '0 l3 [inet filter input handle 7] meta l4proto 6  tcp dport 22  counts 0,1' +
        '  effect(log, external)  -> drop  else 1 uncertain',
      '1 ingress [who knows] ip saddr 0.0.0.1  -> unknown(test/limit)  else 2',
      '2 l3 [policy drop] -> drop',
      'counter 0 l3 [inet filter input handle 7]',
      'counter 1 ingress [inet filter counter hits]',
      '',
    ].join('\n'),
  );
});

it('prints a ruleset in its own order', () => {
  const map: ElementSet = {
    ...PORTS,
    elements: {
      ...PORTS.elements,
      verdicts: [{ kind: 'accept' }, { kind: 'jump', chain: 'web' }],
    },
  };
  const ruleset: Ruleset = {
    tables: [
      {
        family: 'inet',
        name: 'filter',
        handle: 1,
        dormant: false,
        sets: [BLOCKED],
        counters: [{ name: 'hits', packets: 0, bytes: 0 }],
        chains: [
          {
            name: 'input',
            handle: 1,
            base: { type: 'filter', hook: 'input', priority: 0, policy: 'drop', devices: null },
            rules: [
              {
                id: RULE,
                text: 'ip saddr @blocked counter drop',
                comment: 'bad ones',
                tracks: false,
                nat: false,
                steps: [
                  { kind: 'test', test: lookup([SADDR], BLOCKED) },
                  { kind: 'count', counter: { kind: 'named', name: 'hits' } },
                  { kind: 'verdict', verdict: { kind: 'drop' } },
                ],
              },
              {
                id: { ...RULE, index: 1 },
                text: 'tcp dport vmap { 22 : accept, 80-90 : jump web }',
                comment: null,
                tracks: false,
                nat: false,
                steps: [{ kind: 'vmap', key: [plain(DPORT)], map }],
              },
            ],
          },
          { name: 'web', handle: 2, base: null, rules: [] },
        ],
      },
      {
        family: 'netdev',
        name: 'early',
        handle: 2,
        dormant: true,
        sets: [],
        counters: [],
        chains: [
          {
            name: 'in',
            handle: 1,
            base: {
              type: 'filter',
              hook: 'ingress',
              priority: -500,
              policy: 'accept',
              devices: ['eth0', 'eth1'],
            },
            rules: [],
          },
        ],
      },
    ],
  };
  expect(printRuleset(ruleset)).toBe(
    [
      'table inet filter',
      '  counter hits',
      '  set blocked { 0x00000001 }',
      '  chain input type filter hook input priority 0 policy drop',
      '    0 lookup ip saddr @blocked counter hits drop # bad ones',
      '    1 tcp dport vmap { 22 : accept, 80-90 : jump web }',
      '  chain web',
      'table netdev early dormant',
      '  chain in type filter hook ingress devices eth0, eth1 priority -500 policy accept',
      '',
    ].join('\n'),
  );
});
