import { expect, it } from 'vitest';
import { parseFacts } from '../../src/cli/facts.ts';

it('nothing given is nothing known', () => {
  expect(parseFacts('eth0', [])).toMatchObject({
    ok: true,
    value: {
      device: 'eth0',
      role: null,
      localAddresses: null,
      mac: null,
      groOff: false,
      rpFilterOff: false,
      rxVlanOff: false,
      routed: false,
    },
  });
});

it('every fact reaches its place', () => {
  const given = [
    'role=router',
    'local-address=10.0.0.1',
    'local-address=2001:db8::1',
    'mac=02:00:00:00:00:0A',
    'gro=off',
    'rp-filter=off',
    'rx-vlan=off',
    'routed=yes',
  ];
  expect(parseFacts('eth0', given)).toMatchObject({
    ok: true,
    value: {
      role: 'router',
      localAddresses: [
        { version: 4, value: 0x0a000001n },
        { version: 6, value: 0x20010db8000000000000000000000001n },
      ],
      mac: 0x02000000000an,
      groOff: true,
      rpFilterOff: true,
      rxVlanOff: true,
      routed: true,
    },
  });
});

const refused: readonly (readonly [code: string, ...given: string[]])[] = [
  ['usage/fact-form', 'role'],
  ['usage/fact-form', '=host'],
  ['usage/fact-unknown', 'colour=red'],
  ['usage/fact-value', 'role=switch'],
  ['usage/fact-value', 'gro=on'],
  ['usage/fact-address', 'local-address=10.0.0.0/8'],
  ['usage/fact-address', 'local-address=10.0.0.256'],
  ['usage/fact-address', 'local-address=fe80::1%eth0'],
  ['usage/fact-mac', 'mac=02-00-00-00-00-01'],
  ['usage/fact-mac', 'mac=02:00:00:00:00'],
  ['usage/fact-twice', 'role=host', 'role=router'],
  ['usage/fact-twice', 'mac=02:00:00:00:00:01', 'mac=02:00:00:00:00:02'],
  ['usage/fact-missing', 'role=router'],
];

for (const [code, ...given] of refused) {
  it(`${given.join(' ')} is refused as ${code}`, () => {
    const { ok, diagnostics } = parseFacts('eth0', given);
    expect(ok).toBe(false);
    expect(diagnostics.map((diagnostic) => diagnostic.code)).toEqual([code]);
    expect(diagnostics[0]?.help).not.toBeNull();
  });
}
