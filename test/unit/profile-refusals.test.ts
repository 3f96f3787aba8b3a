import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseProfile } from '../../src/profile/load.ts';
import { PROJECT } from '../support/run-cli.ts';

const good = readFileSync(join(PROJECT, 'hw-profiles/netdevsim.json'), 'utf8');

/** The profile with one piece of its text replaced. */
function change(from: string, to: string): string {
  expect(good).toContain(from);
  return good.replace(from, to);
}

/** Code, line, column and message of every refusal. */
function refusals(text: string): readonly (readonly unknown[])[] {
  return parseProfile(text, 'mine.json').diagnostics.map(({ code, place, message }) => {
    if (place?.kind !== 'file') return [code, null, null, message];
    expect(place.file).toBe('mine.json');
    return [code, place.line, place.column, message];
  });
}

const cases: readonly (readonly [what: string, from: string, to: string, ...found: unknown[]])[] = [
  [
    'an unknown key at its own place',
    '"driver": "netdevsim",',
    '"drivr": "x", "driver": "netdevsim",',
    ['profile/unknown-key', 7, 3, 'unknown key `drivr`'],
  ],
  [
    'a wrong unit',
    '"unit": "maps"',
    '"unit": "entries"',
    ['profile/wrong-unit', 65, 17, '`limits.maps.maxMaps.unit`: the unit here is `maps`'],
  ],
  [
    'more stack than the verifier has',
    '"value": 512',
    '"value": 1024',
    [
      'profile/impossible-number',
      25,
      16,
      '`limits.stack.value`: impossible: at most 512 (MAX_BPF_STACK)',
    ],
  ],
  [
    'a limit of zero',
    '"value": 512',
    '"value": 0',
    ['profile/impossible-number', 25, 16, '`limits.stack.value`: must be at least 1'],
  ],
  [
    'a mode that belongs to another kind',
    '"mode": "xdpoffload"',
    '"mode": "xdpdrv"',
    [
      'profile/wrong-value',
      9,
      13,
      '`attach.mode`: a profile of kind xdp-offload attaches by `xdpoffload`',
    ],
  ],
  [
    'a missing part',
    '"description":',
    '"$schema2":',
    ['profile/wrong-value', 1, 1, '`description` is missing'],
    ['profile/unknown-key', 6, 3, 'unknown key `$schema2`'],
  ],
  [
    'a member written twice',
    '"driver": "netdevsim",',
    '"driver": "netdevsim", "kind": "cbpf",',
    ['profile/json-syntax', 7, 26, 'the member `kind` is written twice'],
  ],
  [
    'a trailing comma',
    '"match": "all",',
    '"match": "all",,',
    ['profile/json-syntax', 11, 18, 'expected a member name in double quotes'],
  ],
];

for (const [what, from, to, ...found] of cases) {
  it(`refuses ${what}`, () => {
    expect(refusals(change(from, to))).toEqual(found);
  });
}

it('refuses an empty file and one that ends early', () => {
  expect(refusals('')).toEqual([
    ['profile/json-syntax', 1, 1, 'expected a JSON value, but the file ends here'],
  ]);
  expect(refusals('{\n  "format": "x"')).toEqual([
    ['profile/json-syntax', 2, 16, 'expected `,` or `}`, but the file ends here'],
  ]);
});

it('refuses more instructions than the verifier walks', () => {
  const text = good.replace(/("verifierInsns": \{\s*"value": )1000000/, '$14096');
  expect(refusals(text).map(([code]) => code)).toEqual(['profile/impossible-number']);
});
