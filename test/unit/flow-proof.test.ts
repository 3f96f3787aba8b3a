import { expect, it } from 'vitest';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten, PLAIN } from '../../src/ir/flatten.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { ethernet, ipv4, tcp } from '../support/frames.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

type Json = Readonly<Record<string, unknown>>;

const ACK = 0x10;
const TABLE = { family: 'inet', table: 'filter' };
const STATE = { ct: { key: 'state' } };
const KNOWN = { match: { op: 'in', left: STATE, right: ['established', 'related'] } };
const MARKED = { match: { op: '==', left: { meta: { key: 'mark' } }, right: 1 } };
const [ACCEPT, DROP, RETURN] = [{ accept: null }, { drop: null }, { return: null }];
const [JUMP, GOTO] = [{ jump: { target: 'called' } }, { goto: { target: 'called' } }];

function baseChain(name: string, policy: 'accept' | 'drop'): Json {
  return { chain: { ...TABLE, name, type: 'filter', hook: name, prio: 0, policy } };
}

let handle = 0;
function ruleOf(chain: string, expr: readonly Json[]): Json {
  handle += 1;
  return { rule: { ...TABLE, chain, handle, expr } };
}

type Rules = readonly (readonly Json[])[];

/** Whether an ACK to a closed port is dropped early behind this output chain and the chain it calls. */
function isProven(policy: 'accept' | 'drop', output: Rules, called: Rules): boolean {
  const nftables = [
    { table: { family: 'inet', name: 'filter' } },
    baseChain('input', 'drop'),
    baseChain('output', policy),
    { chain: { ...TABLE, name: 'called' } },
    ruleOf('input', [KNOWN, ACCEPT]),
    ...output.map((expr) => ruleOf('output', expr)),
    ...called.map((expr) => ruleOf('called', expr)),
  ];
  const ruleset = unwrap(readJsonText(JSON.stringify({ nftables }), 'test.json'));
  const facts = { ...labFacts('host'), conntrackFresh: true };
  const { classifier } = flatten(ruleset, facts, PLAIN);
  const frame = ethernet({}, ipv4({}, tcp({ sport: 4000, dport: 7, flags: ACK })));
  return (
    prepare(classifier, { mode: 'tier', mac: facts.mac })(parsePacket(frame)).verdict === 'drop'
  );
}

it.each<[string, 'accept' | 'drop', Rules, Rules, boolean]>([
  ['policy drop', 'drop', [], [], true],
  ['policy accept', 'accept', [], [], false],
  ['a drop that all meet', 'accept', [[DROP]], [], true],
  ['a drop that some meet', 'accept', [[MARKED, DROP]], [], false],
  ['an accept that some meet', 'drop', [[MARKED, ACCEPT]], [], false],
  ['a return that some take to policy accept', 'accept', [[MARKED, RETURN], [DROP]], [], false],
  ['a return that some take to policy drop', 'drop', [[MARKED, RETURN]], [], true],
  ['a jump of all to a drop', 'accept', [[JUMP]], [[DROP]], true],
  ['a jump of some to a drop', 'accept', [[MARKED, JUMP]], [[DROP]], false],
  ['a jump of some to an accept', 'drop', [[MARKED, JUMP]], [[ACCEPT]], false],
  ['a jump of some that comes back to a drop', 'accept', [[MARKED, JUMP], [DROP]], [], true],
  ['a return of all behind a jump', 'accept', [[JUMP], [DROP]], [[RETURN]], true],
  ['a goto of all to a drop', 'accept', [[GOTO]], [[DROP]], true],
  ['a goto of all that ends at policy accept', 'accept', [[GOTO], [DROP]], [], false],
  ['a goto of some to a drop', 'accept', [[MARKED, GOTO]], [[DROP]], false],
  ['a goto of some to an accept', 'drop', [[MARKED, GOTO]], [[ACCEPT]], false],
  ['a goto of some that ends at policy accept', 'accept', [[MARKED, GOTO], [DROP]], [], false],
  ['a goto of some that returns there', 'accept', [[MARKED, GOTO], [DROP]], [[RETURN]], false],
  ['a goto of some that ends at policy drop', 'drop', [[MARKED, GOTO]], [], true],
  ['an accept behind a goto of some', 'drop', [[MARKED, GOTO], [ACCEPT]], [], false],
  ['a return of some to an accept', 'drop', [[JUMP], [ACCEPT]], [[MARKED, RETURN], [DROP]], false],
  ['a drop of some behind a goto of all', 'drop', [[GOTO]], [[MARKED, DROP], [ACCEPT]], false],
])('knows whether a reply can have been asked for: %s', (_, policy, output, called, proven) => {
  expect(isProven(policy, output, called)).toBe(proven);
});
