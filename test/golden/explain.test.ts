import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import type { Facts } from '../../src/ir/facts.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { type Explanation, explainRule, type Move } from '../../src/plan/explain.ts';
import { rulesOf } from '../../src/plan/plan.ts';
import { positionOf, withoutCounts } from '../../src/plan/report.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { Profile } from '../../src/profile/schema.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

// What explain says of every rule of test/explain/NAME.nft, a few lines each.
const DIRECTORY = join(import.meta.dirname, '../explain');

let native: Profile;
let generic: Profile;

beforeAll(async () => {
  native = unwrap(await loadProfile('xdp-native'));
  generic = unwrap(await loadProfile('xdp-generic'));
});

/** nft 1.0.6 lists ingress chains without their device; table `other` is on another one. */
function readExample(name: string): Ruleset {
  const file = join(DIRECTORY, `${name}.nft.json`);
  const { tables } = unwrap(readJsonText(readFileSync(file, 'utf8'), file));
  return {
    tables: tables.map((table) =>
      table.name === 'other'
        ? {
            ...table,
            chains: table.chains.map((chain) => ({
              ...chain,
              base: chain.base === null ? null : { ...chain.base, devices: ['eth1'] },
            })),
          }
        : table,
    ),
  };
}

function nothingKnown(role: Facts['role']): Facts {
  return {
    ...labFacts(role),
    mac: null,
    localAddresses: role === 'router' ? labFacts(role).localAddresses : null,
    groOff: false,
    rpFilterOff: false,
    routed: false,
    rxVlanOff: false,
  };
}

function showMove({ change, tier, partly, equivalent, conflicts }: Move): string {
  const how =
    equivalent === false
      ? ` (not the same: ${conflicts.map(({ rule }) => positionOf(rule)).join(' ')})`
      : '';
  return `    ${partly ? 'part to' : 'to'} ${tier}: ${withoutCounts(change)}${how}`;
}

function showTakers(takenBy: Explanation['takenBy']): string {
  const named = takenBy.slice(0, 4).map(({ rule, all }) => {
    return `${rule.table} ${positionOf(rule)}${all ? ' (all)' : ''}`;
  });
  return named.join(', ') + (takenBy.length > 4 ? `, ${takenBy.length - 4} more` : '');
}

function show(explanation: Explanation): string {
  const { rule, text, tier, tiers, path, takenBy, moves, stays, findings } = explanation;
  const [view] = tiers;
  const way = path?.chains.map(({ chain }) => chain.replace(/ \S+$/, '')) ?? [];
  const calls = path?.calls.map((call) => positionOf(call.rule)) ?? [];
  return [
    `${rule.table} ${rule.chain} ${positionOf(rule)}: ${withoutCounts(text)}`,
    `  ${tier}${view?.reasons.map(({ code }) => ` ${code}`).join('') ?? ''}`,
    `  way: ${[...way, ...calls.map((call) => `by ${call}`)].join(' > ')}`,
    `  taken by: ${showTakers(takenBy)}`,
    ...(moves.length === 0 ? [] : ['  moves', ...moves.map(showMove)]),
    ...(stays ?? []).map(({ code, message }) => `  stays: ${code}: ${withoutCounts(message)}`),
    ...findings.map(({ code }) => `  ${code}`),
  ]
    .map((line) => line.trimEnd())
    .join('\n');
}

it.each([
  ['station', 'host'],
  ['router', 'router'],
] as const)(
  'explains every rule: %s',
  async (name, role) => {
    const ruleset = readExample(name);
    const facts = nothingKnown(role);
    const situation = { ruleset, facts, concessions: [], replyPorts: null };
    const texts = rulesOf(ruleset).map((rule) =>
      show(unwrap(explainRule(situation, [native], [generic], rule))),
    );
    await expect(`${texts.join('\n')}\n`).toMatchFileSnapshot(join(DIRECTORY, `${name}.golden`));
  },
  120_000,
);
