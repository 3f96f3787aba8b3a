import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { makeCheckFrames } from '../../src/plan/check-frames.ts';
import { placeXdp } from '../../src/plan/place.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

const EDGE = 'examples/edge.nft.json';

/** Its packets never get to the hook: the kernel takes no source of the loopback net from a device. */
const MARTIAN = JSON.stringify({
  nftables: [
    { table: { family: 'inet', name: 't' } },
    {
      chain: {
        ...{ family: 'inet', table: 't', name: 'c', type: 'filter', hook: 'input' },
        ...{ prio: 0, policy: 'accept' },
      },
    },
    {
      rule: {
        ...{ family: 'inet', table: 't', chain: 'c' },
        expr: [
          {
            match: {
              op: '==',
              left: { payload: { protocol: 'ip', field: 'saddr' } },
              right: '127.0.0.1',
            },
          },
          { drop: null },
        ],
      },
    },
  ],
});

it('there are frames for the rules of a program, and frames for none', async () => {
  const ruleset = unwrap(readJsonText(readFileSync(EDGE, 'utf8'), EDGE));
  const profile = unwrap(await loadProfile('xdp-native'));
  const facts = labFacts('host');
  const situation = { ruleset, facts, concessions: [], replyPorts: null };
  const placed = unwrap(placeXdp(situation, profile));
  const { frames, met, rules } = makeCheckFrames(placed, facts);
  // One stands behind another that decides all its packets.
  expect(rules - met).toBeLessThanOrEqual(1);
  const run = placed.compiled.interpret();
  expect(frames.map(({ frame }) => run(frame) === 'drop')).toEqual(
    frames.map(({ drops }) => drops),
  );
  expect(new Set(frames.map(({ drops }) => drops))).toEqual(new Set([true, false]));
  const counted = new Set(frames.flatMap(({ counts }) => [...counts.keys()]));
  const owners = [...counted].map((index) => placed.artifact.classifier.counters[index]);
  expect(counted.size).toBeGreaterThan(0);
  expect(owners.every((owner) => placed.artifact.owners.some((one) => one === owner))).toBe(true);
});

it('a program may drop what the kernel loses before the rule', async () => {
  const ruleset = unwrap(readJsonText(MARTIAN, 'martian'));
  const profile = unwrap(await loadProfile('xdp-native'));
  const facts = labFacts('host');
  const placed = unwrap(placeXdp({ ruleset, facts, concessions: [], replyPorts: null }, profile));
  const { frames, met, rules } = makeCheckFrames(placed, facts);
  expect([met, rules]).toEqual([2, 2]);
  const dropped = frames.filter(({ drops }) => drops);
  expect(dropped.length).toBeGreaterThan(0);
  expect(dropped.every(({ counts }) => counts.size === 0)).toBe(true);
});
