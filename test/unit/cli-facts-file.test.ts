import { expect, it } from 'vitest';
import { addFacts, parseFacts } from '../../src/cli/facts.ts';
import { parseFactsFile } from '../../src/cli/facts-file.ts';
import { type Facts, nothingKnown } from '../../src/ir/facts.ts';
import { describeFacts } from '../../src/plan/facts.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

const EVERYTHING: Facts = {
  ...labFacts('router'),
  conntrackFresh: true,
  soleDevice: true,
  vlans: [
    { protocol: 0x8100, id: 5, device: 'eth0.5' },
    { protocol: 0x88a8, id: 7, device: 'eth0.7' },
    { protocol: 0x8100, id: 9, device: null },
  ],
  master: { name: 'br0', kind: 'bridge' },
  masterMac: 0x020000000301n,
  bridgePlain: true,
  brNetfilter: false,
  group: 3,
};

it.each<[string, Facts]>([
  ['all of them', EVERYTHING],
  ['no VLAN device', { ...nothingKnown('eth0'), vlans: [], brNetfilter: true }],
  ['none', nothingKnown('eth0')],
])('the facts of a plan are read back from a file: %s', (_, facts) => {
  const text = JSON.stringify(describeFacts(facts));
  expect({ ...unwrap(parseFactsFile(text, 'facts.json')), device: 'eth0' }).toEqual(facts);
});

it('--fact adds to a file and overrides it', () => {
  const text = '{ "role": "host", "gro": "off", "local-address": ["10.0.0.1"] }';
  const base = unwrap(parseFactsFile(text, 'facts.json'));
  const facts = unwrap(parseFacts('eth0', ['role=router', 'local-address=10.0.0.2'], base));
  expect(facts).toMatchObject({ device: 'eth0', role: 'router', groOff: true });
  expect(facts.localAddresses?.map(({ value }) => value)).toEqual([0x0a000001n, 0x0a000002n]);
});

it.each([
  ['facts/json-syntax', '{ "role": "host", }', 1, 19],
  ['facts/not-an-object', '["role"]', 1, 1],
  ['facts/unknown', '{\n  "colour": "red"\n}', 2, 3],
  ['facts/not-text', '{ "role": true }', 1, 11],
  ['facts/not-text', '{ "vlan": ["5", 7] }', 1, 11],
  ['usage/fact-value', '{ "role": "switch" }', 1, 11],
  ['usage/fact-twice', '{ "mac": ["02:00:00:00:00:01", "02:00:00:00:00:02"] }', 1, 10],
  ['usage/fact-vlan', '{ "vlan": "4095:eth0.4095" }', 1, 11],
])('a wrong facts file is refused as %s: %s', (code, text, line, column) => {
  const { ok, diagnostics } = parseFactsFile(text, 'facts.json');
  expect(ok).toBe(false);
  expect(diagnostics[0]).toMatchObject({ code, place: { file: 'facts.json', line, column } });
});

it.each([
  ['usage/fact-vlan', 'vlan', '5:a/b'],
  ['usage/fact-vlan', 'vlan', '802.1ad'],
  ['usage/fact-vlan', 'vlan', '5:eth0.5:x'],
  ['usage/fact-value', 'master', ''],
  ['usage/fact-value', 'master', 'br0:bridge:x'],
  ['usage/fact-value', 'group', '-1'],
  ['usage/fact-value', 'br-nf', 'perhaps'],
])('%s: %s=%s', (code, name, value) => {
  const { ok, diagnostics } = addFacts(nothingKnown('eth0'), [{ name, value }]);
  expect(ok).toBe(false);
  expect(diagnostics[0]).toMatchObject({ code });
});

it('a VLAN has one device', () => {
  const given = [
    { name: 'vlan', value: '5:eth0.5' },
    { name: 'vlan', value: '5:other' },
  ];
  expect(addFacts(nothingKnown('eth0'), given).ok).toBe(false);
});
