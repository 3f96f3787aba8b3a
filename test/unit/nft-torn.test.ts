import { expect, it } from 'vitest';
import {
  createListingReader,
  listWhole,
  openListing,
  readOpened,
} from '../../src/nft/read-listing.ts';

const JSON_LINE = JSON.stringify({
  nftables: [
    { table: { family: 'ip', name: 't', handle: 1 } },
    {
      chain: {
        ...{ family: 'ip', table: 't', name: 'c', handle: 2, type: 'filter' },
        ...{ hook: 'input', prio: 0, policy: 'accept' },
      },
    },
    { set: { family: 'ip', table: 't', name: 's', type: 'inet_service', handle: 3, elem: [1, 2] } },
    {
      rule: {
        ...{ family: 'ip', table: 't', chain: 'c', handle: 4 },
        expr: [
          {
            match: { op: '==', left: { payload: { protocol: 'th', field: 'dport' } }, right: '@s' },
          },
          { drop: null },
        ],
      },
    },
  ],
});

/** What nft prints when it lists a set of two ports, in the kernel's order of elements. */
function output(...ports: readonly string[]): string {
  const elements = ports.map((port) => `\telement ${port}  : 0 [end]`);
  const rule = [
    'ip t c 4',
    '  [ payload load 2b @ transport header + 2 => reg 1 ]',
    '  [ lookup reg 1 set s ]',
    '  [ immediate reg 0 drop ]',
  ];
  return [...['ip t @s', ...elements, '', ...rule, ''], JSON_LINE, 'chains'].join('\n');
}

const WHOLE = output('00000100', '00000200');
const TORN = output('00000100', '00000100');

/** Why the set that the rule looks in cannot be relied on. */
function unknownOf(text: string): string | null {
  const read = readOpened(openListing(text, 'test'), '');
  if (!read.ok) throw new Error(read.diagnostics.map(({ message }) => message).join('\n'));
  const steps = read.value.tables[0]?.chains[0]?.rules[0]?.steps ?? [];
  const tests = steps.flatMap((step) => (step.kind === 'test' ? [step.test] : []));
  const lookup = tests.find(({ kind }) => kind === 'lookup');
  return lookup?.kind === 'lookup' ? (lookup.set.unknown?.code ?? null) : 'no lookup';
}

it('does not rely on a set that was listed while the kernel changed its table', () => {
  expect([WHOLE, TORN].map(unknownOf)).toEqual([null, 'set/torn']);
  expect(openListing(WHOLE, 'test').rest).toBe('chains');
});

it.each([
  ['whole at once', [WHOLE], 1],
  ['whole after a while', [TORN, WHOLE], 2],
  ['never whole', [TORN, TORN, TORN, WHOLE], 3],
])('lists again until a set is whole: %s', async (_, outputs, times) => {
  const waits: number[] = [];
  const { listing } = await listWhole('test', async (wait) => {
    waits.push(wait);
    const stdout = outputs[waits.length - 1] ?? '';
    return { started: true, status: 0, signal: null, stdout, stderr: '' };
  });
  expect(waits).toHaveLength(times);
  expect(waits[0]).toBe(0);
  expect(listing.bytecode.torn.size).toBe(times === 3 ? 1 : 0);
});

const COMMENTED = output('00000100', '00000200').replace(
  'ip t c 4',
  'ip t @other\n  userdata = { comment "a\n{"nftables":" }\n\nip t c 4',
);

it.each([
  ['a listing', WHOLE],
  ['a comment that looks like the beginning of the listing', COMMENTED],
])('reads the same in parts and at once: %s', (_, text) => {
  const whole = openListing(text, 'test');
  expect(whole.listed.ok).toBe(true);
  for (let size = 1; size < text.length; size += 7) {
    const reader = createListingReader('test');
    for (let at = 0; at < text.length; at += size) reader.take(text.slice(at, at + size));
    expect(reader.finish(text)).toEqual(whole);
  }
});
