import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { readRuleset } from '../../src/nft/read.ts';
import { moveProtocols, prepareTables } from '../../src/nft/read-text.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { splitText } from '../../src/nft/split-text.ts';

const directory = mkdtempSync(join(tmpdir(), 'nft-read-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function file(name: string, content: string | Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
}

const listing = '{"nftables": [{"table": {"family": "ip", "name": "t", "handle": 1}}]}';

async function codes(path: string): Promise<readonly string[]> {
  const result = await readRuleset({ kind: 'file', path });
  return result.ok ? ['read'] : result.diagnostics.map(({ code }) => code);
}

it.each<[string, string | Uint8Array, string]>([
  ['empty', '', 'read/empty'],
  ['blank', ' \n\t\n', 'read/empty'],
  ['object', '{}', 'read/json-kind'],
  ['array', '[1]', 'read/json-kind'],
  ['number', '{"nftables": 5}', 'read/json-kind'],
  ['entries', '{"nftables": [5]}', 'read/object'],
  ['chain', '{"nftables": [{"chain": {"family": "ip", "table": "t"}}]}', 'read/object'],
  ['truncated', listing.slice(0, 40), 'read/json-truncated'],
  ['syntax', listing.replace('"name":', '"name"'), 'read/json-syntax'],
  ['binary', new Uint8Array([0x7f, 0x45, 0x4c, 0x46, 0, 0]), 'read/binary'],
  ['latin1', new Uint8Array([0x23, 0x20, 0xe9, 0x0a]), 'read/binary'],
  [
    'commands',
    '{"nftables": [{"delete": {"chain": {"family": "ip", "table": "t", "name": "c"}}}]}',
    'read',
  ],
  [
    'flush',
    `{"nftables": [{"flush": {"ruleset": null}}, {"add": ${listing.slice(14, -2)}}]}`,
    'read',
  ],
])('reads or refuses a file with one code: %s', async (name, content, code) => {
  expect(await codes(file(name, content))).toEqual([code]);
});

it('names missing files, directories and files without rights', async () => {
  expect(await codes(join(directory, 'none'))).toEqual(['read/missing']);
  const folder = join(directory, 'folder');
  mkdirSync(folder);
  expect(await codes(folder)).toEqual(['read/directory']);
  const secret = file('secret', listing);
  chmodSync(secret, 0);
  expect(await codes(secret)).toEqual([process.geteuid?.() === 0 ? 'read' : 'read/no-permission']);
});

it('refuses a file beyond the limit without reading it', async () => {
  const path = file('long', '{');
  truncateSync(path, 200_000_000);
  expect(await codes(path)).toEqual(['read/too-long']);
});

it('tells line and column of a JSON error', () => {
  const result = readJsonText('{\n  "nftables": [\n    {"table" 5}\n  ]\n}', 'f.json');
  expect(result.ok ? null : result.diagnostics[0]?.place).toEqual({
    kind: 'file',
    file: 'f.json',
    line: 3,
    column: 14,
  });
});

it('survives nesting that no ruleset has', () => {
  const deep = `${'[{"&":'.repeat(2000)}1${'}]'.repeat(2000)}`;
  const rule = `{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"match": ${deep}}]}}`;
  const result = readJsonText(`{"nftables": [${rule}]}`, 'f.json');
  expect(result.ok && result.value.tables[0]?.chains[0]?.rules[0]?.steps[0]?.kind).toBe('effect');
});

it('warns about objects it does not know and reads the rest', () => {
  const text = listing.replace('[', '[{"newthing": {"family": "ip"}}, ');
  const result = readJsonText(text, 'f.json');
  expect(result.ok).toBe(true);
  expect(result.diagnostics.map(({ code }) => code)).toEqual(['read/unknown-object']);
});

it('reads commands that build a ruleset, and inserted rules first', () => {
  const place = { family: 'ip', table: 't' };
  const rule = (target: string): object => ({
    rule: { ...place, chain: 'c', expr: [{ jump: { target } }] },
  });
  const base = { type: 'filter', hook: 'ingress', prio: -5, policy: 'drop', dev: 'eth0' };
  const commands = [
    { add: { table: { family: 'ip', name: 't', flags: 'dormant' } } },
    { add: { chain: { ...place, name: 'c', ...base } } },
    { add: rule('b') },
    { insert: rule('a') },
    { add: { set: { ...place, name: 's', type: 'inet_service', elem: [22] } } },
    { add: { element: { ...place, name: 's', elem: [80] } } },
    { add: { counter: { ...place, name: 'n', packets: 3, bytes: 4 } } },
  ];
  const result = readJsonText(JSON.stringify({ nftables: commands }), 'f.json');
  const table = result.ok ? result.value.tables[0] : undefined;
  expect(table?.dormant).toBe(true);
  expect(table?.chains[0]?.base).toEqual({
    type: 'filter',
    hook: 'ingress',
    priority: -5,
    policy: 'drop',
    devices: ['eth0'],
  });
  expect(table?.chains[0]?.rules.map(({ text }) => text)).toEqual(['jump a', 'jump b']);
  expect(table?.sets[0]?.elements.lo).toEqual([22n, 80n]);
  expect(table?.counters).toEqual([{ name: 'n', packets: 3, bytes: 4 }]);
});

it('reads 10,000 rules and 100,000 elements', () => {
  const place = { family: 'ip', table: 't' };
  const elem = Array.from(
    { length: 100_000 },
    (_, n) => `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`,
  );
  const rules = Array.from({ length: 10_000 }, (_, n) => ({
    rule: {
      ...place,
      chain: 'c',
      handle: n + 1,
      expr: [
        { match: { op: '==', left: { payload: { protocol: 'ip', field: 'saddr' } }, right: '@s' } },
        { match: { op: '==', left: { payload: { protocol: 'tcp', field: 'dport' } }, right: n } },
        { drop: null },
      ],
    },
  }));
  const set = { set: { ...place, name: 's', type: 'ipv4_addr', elem } };
  const result = readJsonText(JSON.stringify({ nftables: [set, ...rules] }), 'f.json');
  const table = result.ok ? result.value.tables[0] : undefined;
  expect(table?.sets[0]?.elements.lo.length).toBe(100_000);
  expect(table?.chains[0]?.rules.length).toBe(10_000);
});

it('rewrites only what nft would lose when it lists', () => {
  expect(moveProtocols('meta l4proto 8 th sport 5-9 th dport { 80, 81 } accept')).toBe(
    ' th sport 5-9 th dport { 80, 81 } meta l4proto 8 accept',
  );
  const kept = 'meta l4proto { tcp, udp } th dport 53 accept';
  expect(moveProtocols(kept)).toBe(kept);
  expect(prepareTables('delete table filter')).toBe('add table filter; delete table filter');
});

const lab = spawnSync('unshare', [
  '-rn',
  'sh',
  '-c',
  'PATH=$PATH:/usr/sbin:/sbin nft list ruleset',
]);
const noNft = lab.status === 0 ? false : 'nft cannot run in a private namespace here';

async function readText(name: string, text: string): Promise<Ruleset> {
  const result = await readRuleset({ kind: 'file', path: file(name, text) });
  if (!result.ok) throw new Error(result.diagnostics.map(({ message }) => message).join('\n'));
  return result.value;
}

it.skipIf(noNft)('reads nft text with devices, defines and includes', async () => {
  file('inner.nft', 'define ports = { 22, 80 }\n');
  const ruleset = await readText(
    'outer.nft',
    `include "inner.nft"
define uplink = eth7
table netdev n {
  chain c {
    type filter hook ingress device $uplink priority 0; policy drop;
    tcp dport $ports accept
  }
}
table inet t {
  chain i {
    type filter hook input priority 5;
    iif { wlan3, "br-lan" } accept
  }
}
`,
  );
  expect(ruleset.tables.map(({ chains }) => chains[0]?.base?.devices)).toEqual([['eth7'], null]);
  expect(ruleset.tables[0]?.chains[0]?.rules[0]?.text).toBe('tcp dport { 22, 80 } accept');
});

it.skipIf(noNft)('reads what this nft loses or crashes on when it lists', async () => {
  const ruleset = await readText(
    'ports.nft',
    'table inet t {\n  chain c {\n    meta l4proto 7 th sport 1024-65535 th dport 25 drop\n  }\n}\n',
  );
  const steps = ruleset.tables[0]?.chains[0]?.rules[0]?.steps ?? [];
  const fields = steps.flatMap((step) =>
    step.kind === 'test' && step.test.kind === 'compare' ? [step.test.operand.field.name] : [],
  );
  expect(fields.sort()).toEqual(['meta l4proto', 'th dport', 'th sport']);
});

it.skipIf(noNft)('gives the place of an error in nft text', async () => {
  const path = file(
    'wrong.nft',
    'table inet t {\n  chain c {\n    tcp dport nonsense accept\n  }\n}\n',
  );
  const result = await readRuleset({ kind: 'file', path });
  expect(result.ok ? [] : result.diagnostics.map(({ code, place }) => [code, place])).toEqual([
    ['read/nft', { kind: 'file', file: path, line: 3, column: 15 }],
  ]);
});

it('cuts long text into pieces that declare first and keep the order of rules', () => {
  const rules = Array.from({ length: 900 }, (_, n) => `tcp dport ${n} accept comment "a { b; # c"`);
  const text = `define a = 5 # five
table inet t {
  set s { type inet_service; elements = { 1, 2 } }
  chain c {
    type filter hook input priority 0; policy drop;
    ${rules.join('\n    ')}
  }
}
`;
  const pieces = splitText(text) ?? [];
  expect(pieces[0]).not.toContain('dport');
  expect(pieces[0]).toContain('policy drop');
  expect(pieces[1]).toContain('add element inet t s { 1, 2 }');
  expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThan(13_000);
  const found = pieces.join('').match(/^tcp dport .*$/gm);
  expect(found).toEqual(rules);
  expect(splitText('include "other.nft"\n')).toBe(null);
});
