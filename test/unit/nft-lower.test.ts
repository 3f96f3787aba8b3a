import { expect, it } from 'vitest';
import type { Family, Rule, Ruleset, Step, Test } from '../../src/ir/ruleset.ts';
import { readJsonValue } from '../../src/nft/ruleset-json.ts';

const match = (left: unknown, right: unknown, op = '=='): unknown => ({
  match: { op, left, right },
});
const payload = (protocol: string, field: string): unknown => ({ payload: { protocol, field } });
const meta = (key: string): unknown => ({ meta: { key } });

function read(objects: readonly unknown[]): Ruleset {
  const result = readJsonValue({ nftables: objects }, 'test');
  if (!result.ok) throw new Error(result.diagnostics.map(({ message }) => message).join('\n'));
  return result.value;
}

function lower(family: Family, expr: readonly unknown[], sets: readonly object[] = []): Rule {
  const place = { family, table: 't' };
  const declared = sets.map((set) => ({ set: { ...place, ...set } }));
  const ruleset = read([...declared, { rule: { ...place, chain: 'c', expr } }]);
  const rule = ruleset.tables[0]?.chains[0]?.rules[0];
  if (rule === undefined) throw new Error('no rule');
  return rule;
}

function showTest(test: Test): string {
  if (test.kind === 'unknown') return `? ${test.reason.code}${test.stateful ? ' stateful' : ''}`;
  const not = test.negated ? '!' : '';
  if (test.kind === 'lookup') {
    const { lo, hi } = test.set.elements;
    const items = lo.map((low, index) => `${low.toString(16)}-${(hi[index] ?? 0n).toString(16)}`);
    const key = test.key.map(({ field }) => field.name).join(' . ');
    return `${key} ${not}in ${test.set.name ?? ''}{${items.join(' ')}}`;
  }
  const { field, mask, xor, shift } = test.operand;
  const full = mask === (1n << BigInt(field.width)) - 1n;
  const how = `${full ? '' : `&${mask.toString(16)}`}${xor === 0n ? '' : `^${xor.toString(16)}`}`;
  const where = `${field.name}${how}${shift === 0 ? '' : `<<${shift}`}`;
  const value =
    test.lo === test.hi ? test.lo.toString(16) : `${test.lo.toString(16)}-${test.hi.toString(16)}`;
  return `${test.implicit ? '+' : ''}${where} ${not}= ${value}`;
}

function showStep(step: Step): string {
  switch (step.kind) {
    case 'test':
      return showTest(step.test);
    case 'count':
      return 'count';
    case 'verdict':
      return step.verdict.kind;
    case 'vmap': {
      const { lo, hi, verdicts } = step.map.elements;
      const items = lo.map(
        (low, index) =>
          `${low.toString(16)}-${(hi[index] ?? 0n).toString(16)}:${verdicts?.[index]?.kind}`,
      );
      return `vmap ${items.join(' ')}`;
    }
    case 'effect':
      return `${step.name} -> ${step.outcome}`;
  }
}

const show = (family: Family, ...expr: readonly unknown[]): readonly string[] =>
  lower(family, expr).steps.map(showStep);

const tcpPort = match(payload('tcp', 'dport'), 22);
const source = match(payload('ip', 'saddr'), '10.0.0.1');
const icmpEcho = match(payload('icmp', 'type'), 'echo-request');

it.each<[Family, readonly unknown[], readonly string[]]>([
  ['ip', [source], ['ip saddr = a000001']],
  ['inet', [source], ['+meta nfproto = 2', 'ip saddr = a000001']],
  ['netdev', [source], ['+meta protocol = 800', 'ip saddr = a000001']],
  ['bridge', [source], ['+meta protocol = 800', 'ip saddr = a000001']],
  ['inet', [tcpPort], ['+meta l4proto = 6', 'tcp dport = 16']],
  ['inet', [tcpPort, tcpPort], ['+meta l4proto = 6', 'tcp dport = 16', 'tcp dport = 16']],
  ['inet', [match(meta('l4proto'), 'tcp'), tcpPort], ['meta l4proto = 6', 'tcp dport = 16']],
  [
    'inet',
    [match(payload('ip', 'protocol'), 'tcp'), tcpPort],
    ['+meta nfproto = 2', 'ip protocol = 6', 'tcp dport = 16'],
  ],
  [
    'netdev',
    [match(payload('ether', 'type'), 'ip'), source],
    ['+meta iiftype = 1', 'ether type = 800', 'ip saddr = a000001'],
  ],
  ['bridge', [icmpEcho], ['+ether type = 800', '+meta l4proto = 1', 'icmp type = 8']],
  ['ip6', [icmpEcho], ['+meta l4proto = 1', 'icmp type = 8']],
  [
    'netdev',
    [match(payload('vlan', 'id'), 5), source],
    [
      '+meta iiftype = 1',
      '+ether type = 8100',
      'vlan id = 5',
      '+vlan type = 800',
      'ip saddr = a000001',
    ],
  ],
  ['inet', [match(payload('th', 'dport'), 53)], ['th dport = 35']],
])('puts the tests of nft in front of loads in %s tables (%#)', (family, expr, expected) => {
  expect(show(family, ...expr)).toEqual(expected);
});

it.each<[unknown, string]>([
  [
    match(payload('ip', 'saddr'), { prefix: { addr: '10.1.0.0', len: 16 } }),
    'ip saddr&ffff0000 = a010000',
  ],
  [match(payload('ip', 'ttl'), 5, '<'), 'ip ttl = 0-4'],
  [match(payload('ip', 'ttl'), 5, '>='), 'ip ttl = 5-ff'],
  [match(payload('ip', 'ttl'), 255, '>'), 'ip ttl != 0-ff'],
  [match(payload('ip', 'ttl'), { range: [1, 9] }, '!='), 'ip ttl != 1-9'],
  [match(payload('ip', 'dscp'), 'cs1'), 'ip dscp = 8'],
  [match({ '&': [meta('mark'), 255] }, 5), 'meta mark&ff = 5'],
  [match({ '|': [meta('mark'), 1] }, 5), 'meta mark&fffffffe^1 = 5'],
  [match({ '<<': [meta('mark'), 8] }, 256), 'meta mark&ffffff<<8 = 100'],
  [match({ '&': [payload('ip', 'saddr'), payload('ip', 'daddr')] }, 5), '? match/arithmetic'],
  [match(meta('iifname'), 'lo'), `meta iifname = ${'6c6f'.padEnd(32, '0')}`],
  [
    match(meta('iifname'), 'eth*'),
    `meta iifname&${'ffffff'.padEnd(32, '0')} = ${'657468'.padEnd(32, '0')}`,
  ],
  [match(meta('priority'), '1:10'), 'meta priority = 10010'],
  [match({ payload: { base: 'nh', offset: 96, len: 32 } }, 1), '@nh,96,32 = 1'],
  [match(payload('ip', 'ttl'), 300), '? match/value'],
  [match(meta('mark'), 2 ** 60), '? match/value'],
  [match(payload('ip', 'nothing'), 1), '? match/payload'],
  [match({ ct: { key: 'state' } }, ['established'], 'in'), 'ct state&2 != 0'],
  [match({ meta: { key: 'hour' } }, 1), '? match/time'],
  [match({ 'tcp option': { name: 'maxseg' } }, true), '? match/tcp-option'],
  [match({ fib: { result: 'oif' } }, 1), '? match/fib'],
  [match({ strange: 1 }, 1), '? match/strange'],
  [match(payload('ip', 'saddr'), '@gone'), '? match/set'],
  [{ limit: { rate: 5, per: 'second' } }, '? match/limit stateful'],
  [{ reject: null }, 'reject -> drop'],
  [{ log: null }, 'log -> next'],
  [{ masquerade: null }, 'masquerade -> accept'],
  [{ queue: null }, 'queue -> unknown'],
  [{ neverseen: { a: 1 } }, 'neverseen -> unknown'],
  [{}, 'unknown -> unknown'],
  [17, 'unknown -> unknown'],
])('lowers one statement of an ip table (%#)', (statement, expected) => {
  expect(show('ip', statement)).toEqual([expected]);
});

it('reads flags as nft does', () => {
  const flags = payload('tcp', 'flags');
  const masked = { '&': [flags, ['syn', 'ack']] };
  const tests = show(
    'ip',
    match(flags, ['syn', 'ack'], 'in'),
    match(flags, 'syn', '!'),
    match(flags, 'syn'),
    match(masked, 'syn'),
  );
  expect(tests.slice(1)).toEqual([
    'tcp flags&12 != 0',
    'tcp flags&2 = 0',
    'tcp flags = 2',
    'tcp flags&12 = 2',
  ]);
});

it('finds the second of two VLAN tags', () => {
  const rule = lower('bridge', [
    match(payload('ether', 'type'), '8021ad'),
    match(payload('vlan', 'type'), '8021q'),
    match(payload('vlan', 'id'), 6),
  ]);
  const last = rule.steps.at(-1);
  expect(
    last?.kind === 'test' && last.test.kind === 'compare' && last.test.operand.field,
  ).toMatchObject({
    offset: 148,
    width: 12,
  });
});

it('adds the ICMP type that a field belongs to', () => {
  const id = match(payload('icmp', 'id'), 5);
  expect(show('ip', id)).toEqual(['+meta l4proto = 1', 'icmp type in {8-8 0-0}', 'icmp id = 5']);
  expect(show('ip', icmpEcho, id)).toEqual(['+meta l4proto = 1', 'icmp type = 8', 'icmp id = 5']);
});

it('splits ports that nft merged when it listed them', () => {
  const merged = match({ payload: { base: 'th', offset: 0, len: 32 } }, 0x00350202);
  expect(show('ip', merged)).toEqual(['th sport = 35', 'th dport = 202']);
});

it('joins concatenations with ranges and prefixes into one integer', () => {
  const key = { concat: [payload('ip', 'saddr'), payload('tcp', 'dport')] };
  const element = { concat: [{ prefix: { addr: '10.0.0.0', len: 8 } }, { range: [80, 90] }] };
  expect(show('ip', match(key, { set: [element] }))).toEqual([
    '+meta l4proto = 6',
    'ip saddr . tcp dport in {a0000000050-affffff005a}',
  ]);
});

it('gives the element * of a verdict map all other keys', () => {
  const data = {
    set: [
      [{ range: [1, 5] }, { accept: null }],
      ['*', { drop: null }],
    ],
  };
  expect(show('ip', { vmap: { key: payload('th', 'dport'), data } })).toEqual([
    'vmap 1-5:accept 0-0:drop 6-ffff:drop',
  ]);
});

it('shares one named set between rules and says why one cannot be relied on', () => {
  const place = { family: 'ip', table: 't' };
  const rule = (set: string): unknown => ({
    rule: { ...place, chain: 'c', expr: [match(payload('ip', 'saddr'), set), { drop: null }] },
  });
  const add = { set: { op: 'add', elem: payload('ip', 'saddr'), set: '@dynamic' } };
  const ruleset = read([
    { set: { ...place, name: 'static', type: 'ipv4_addr', elem: ['10.0.0.1'] } },
    { set: { ...place, name: 'aging', type: 'ipv4_addr', flags: ['timeout'] } },
    { set: { ...place, name: 'dynamic', type: 'ipv4_addr', size: 9 } },
    {
      set: {
        ...place,
        name: 'counting',
        type: 'ipv4_addr',
        elem: [{ elem: { val: '10.0.0.1', counter: { packets: 0, bytes: 0 } } }],
      },
    },
    rule('@static'),
    rule('@static'),
    { rule: { ...place, chain: 'c', expr: [add] } },
  ]);
  const table = ruleset.tables[0];
  expect(table?.sets.map(({ name, unknown }) => [name, unknown?.code ?? null])).toEqual([
    ['static', null],
    ['aging', 'set/timeout'],
    ['dynamic', 'set/dynamic'],
    ['counting', 'set/element-state'],
  ]);
  const used = table?.chains[0]?.rules
    .slice(0, 2)
    .map(({ steps: [first] }) =>
      first?.kind === 'test' && first.test.kind === 'lookup' ? first.test.set : null,
    );
  expect(used?.[0]).toBe(used?.[1]);
  expect(used?.[0]).toBe(table?.sets[0]);
});

it('keeps what a mangled field changes and the load it needs', () => {
  const statement = { mangle: { key: payload('ip', 'ttl'), value: 5 } };
  const rule = lower('inet', [statement]);
  expect(rule.steps.map(showStep)).toEqual([
    '+meta nfproto = 2',
    '+ip ttl = 0-ff',
    'ip ttl set -> next',
  ]);
  const effect = rule.steps[2];
  expect(
    effect?.kind === 'effect' && effect.changes !== 'everything' && effect.changes[0]?.name,
  ).toBe('ip ttl');
});

it('needs the key of a map that a statement looks up', () => {
  const map = { map: { key: payload('ip', 'saddr'), data: { set: [['10.0.0.1', 5]] } } };
  expect(show('ip', { mangle: { key: meta('mark'), value: map } })).toEqual([
    'ip saddr in {a000001-a000001}',
    'meta mark set -> next',
  ]);
});

it.each<[unknown, boolean, boolean]>([
  [match({ ct: { key: 'state' } }, 'new'), true, false],
  [{ vmap: { key: { ct: { key: 'state' } }, data: { set: [] } } }, true, false],
  [{ dnat: { addr: '10.0.0.1' } }, true, true],
  [{ tproxy: { port: 80 } }, true, false],
  [{ notrack: null }, false, false],
  [{ log: null }, false, false],
])('tells tracking and NAT (%#)', (statement, tracks, nat) => {
  const rule = lower('ip', [statement]);
  expect([rule.tracks, rule.nat]).toEqual([tracks, nat]);
});

it('doubts a listed rule whose protocol nft may have left out, but not a written one', () => {
  const rule = {
    rule: { family: 'ip', table: 't', chain: 'c', expr: [match(payload('th', 'dport'), 80)] },
  };
  const steps = (objects: readonly unknown[]): readonly string[] =>
    (read(objects).tables[0]?.chains[0]?.rules[0]?.steps ?? []).map(showStep);
  expect(steps([{ metainfo: {} }, rule])).toEqual(['? match/listing', 'th dport = 50']);
  expect(steps([rule])).toEqual(['th dport = 50']);
});

it('renders a rule as nft writes it', () => {
  const rule = lower('inet', [
    match(meta('iifname'), 'eth*'),
    match(payload('tcp', 'dport'), { set: [22, { range: [80, 90] }] }),
    match(payload('ip', 'saddr'), { prefix: { addr: '10.0.0.0', len: 8 } }, '!='),
    { counter: { packets: 1, bytes: 2 } },
    { jump: { target: 'other' } },
  ]);
  expect(rule.text).toBe(
    'iifname "eth*" tcp dport { 22, 80-90 } ip saddr != 10.0.0.0/8 counter packets 1 bytes 2 jump other',
  );
});
