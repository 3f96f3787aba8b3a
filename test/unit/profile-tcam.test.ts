import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeCapacity, rowsOfKeySet } from '../../src/profile/describe.ts';
import { loadProfile, parseProfile } from '../../src/profile/load.ts';
import { PROJECT } from '../support/run-cli.ts';

/** A shipped profile with one piece of its text replaced. */
function change(name: string, from: string | RegExp, to: string): string {
  const text = readFileSync(join(PROJECT, 'hw-profiles', `${name}.json`), 'utf8');
  const changed = text.replace(from, to);
  expect(changed).not.toBe(text);
  return changed;
}

function refusals(text: string): readonly (readonly [code: string, message: string])[] {
  const { diagnostics } = parseProfile(text, 'mine.json');
  for (const { place } of diagnostics) expect(place?.kind === 'file' && place.line).toBeTruthy();
  return diagnostics.map(({ code, message }) => [code, message]);
}

const cases: readonly (readonly [
  what: string,
  profile: string,
  from: string | RegExp,
  to: string,
  code: string,
  message: string,
])[] = [
  [
    'a field nft has not',
    'lan966x',
    '"ip saddr"',
    '"ip source"',
    'profile/wrong-value',
    '`keySets[0].key[0].field`: not a field of nft (as `ip saddr`, `th dport`)',
  ],
  [
    'a trap from nowhere',
    'spectrum',
    /"trap": \{[^}]*\},/,
    '',
    'profile/wrong-value',
    '`verdicts`: `trap` is a verdict: `trap` has to say where from',
  ],
  [
    'more bits than a field has',
    'e810',
    '"bits": 32',
    '"bits": 33',
    'profile/impossible-number',
    '`keySets[0].key[0].bits`: impossible: ip saddr has 32 bits',
  ],
  [
    'a key wider than its own width',
    'lan966x',
    '"value": 182',
    '"value": 90',
    'profile/impossible-number',
    '`keySets[0].key`: impossible: this key is 111 bits, its own width allows 90',
  ],
  [
    'a key wider than the device',
    'tofino',
    '"value": 528',
    '"value": 303',
    'profile/impossible-number',
    '`keySets[1].key`: impossible: this key is 304 bits, keyWidth allows 303',
  ],
  [
    'more rows of one key than the device has',
    'e810',
    '"value": 512',
    '"value": 2048',
    'profile/impossible-number',
    '`keySets[0].rows.value`: impossible: they take 10240 rows, the device has 8192',
  ],
  [
    'a range without range units',
    'lan966x',
    '"match": "ternary"',
    '"match": "range"',
    'profile/wrong-value',
    '`keySets[0].key[0].match`: compared as a range, but limits.rangeUnits is missing',
  ],
  [
    'groups that do not add up',
    'sparx5',
    '"value": 6144',
    '"value": 3072',
    'profile/impossible-number',
    '`limits.groups.rows.value`: impossible: all groups have 6144 rows, the device 12288',
  ],
  [
    'more default rows than rows',
    'tomahawk',
    '"value": 292',
    '"value": 1024',
    'profile/impossible-number',
    '`limits.defaultRows.value`: impossible: the device has only 1024 rows',
  ],
  [
    'a number without a source',
    'spectrum',
    /,\s*"source": "MLXSW_SP_ACL_ERP[^"]*"/,
    '',
    'profile/wrong-value',
    '`limits.masks.source` is missing',
  ],
  [
    'a wrong unit of ranges',
    'spectrum',
    '"unit": "ranges"',
    '"unit": "rows"',
    'profile/wrong-unit',
    '`limits.rangeUnits.count.unit`: the unit here is `ranges`',
  ],
  [
    'a key set listed twice',
    'tofino',
    '"name": "ipv6"',
    '"name": "ipv4"',
    'profile/wrong-value',
    '`keySets`: a key set is listed twice',
  ],
];

for (const [what, profile, from, to, code, message] of cases) {
  it(`refuses ${what}`, () => {
    expect(refusals(change(profile, from, to))).toEqual([[code, message]]);
  });
}

it('rows, keyWidth and everything else that is not known may be left out', () => {
  const text = JSON.stringify({
    format: 'nft-offload/profile@1',
    name: 'mine',
    kind: 'tcam',
    description: 'a table',
    driver: null,
    match: ['ipv4'],
    verdicts: ['drop', 'continue'],
    keySets: [
      {
        name: 'ipv4',
        key: [{ field: 'ip saddr', bits: 32, match: 'ternary' }],
        source: 'our own measurement',
      },
    ],
    limits: {},
  });
  expect(parseProfile(text, 'mine.json').diagnostics).toEqual([]);
});

it.each([
  ['lan966x', 'ipv4-l4', 128],
  ['lan966x', 'ipv6-l4', 64],
  ['lan966x', 'smac-sip4', 256],
  ['sparx5', 'ipv4-l4', 2048],
  ['sparx5', 'ipv6-7tuple', 1024],
  ['e810', 'ipv4-tcp', 512],
  ['spectrum-acl-heavy', 'ipv4', 3500],
  ['trident3', 'ipv6', 2304],
  ['openvswitch', 'ipv4', null],
  ['tofino', 'ipv5', null],
])('%s has room for so many rows of %s: %s', async (name, keySet, rows) => {
  const loaded = await loadProfile(name);
  if (!loaded.ok || loaded.value.kind !== 'tcam') throw new Error(`${name} is no TCAM`);
  expect(rowsOfKeySet(loaded.value, keySet)).toBe(rows);
});

it.each([
  ['agilio', '2,800 device instructions, 3,072,000 map entries in all'],
  ['cbpf', '4,096 instructions, 64 in xt_bpf, 2,039 in cls_bpf'],
  ['connectx', '4,194,304 rows, 4 ranges a row'],
  ['netdevsim', '1,000,000 instructions, maps of 2 entries'],
  ['openvswitch', 'rows in memory'],
  ['spectrum', '1,000 ipv4 or 500 ipv6 rows (half if atomic), 16 ranges, 16 masks'],
  ['xdp-native', '1,000,000 instructions, maps of any size'],
])('the capacity of %s in words', async (name, words) => {
  const loaded = await loadProfile(name);
  if (!loaded.ok) throw new Error(name);
  expect(describeCapacity(loaded.value)).toBe(words);
});
