/**
 * How long `plan` takes, offers included: `npx tsx bench/plan.ts [RULESET]...`. Without a ruleset,
 * 10,000 generated rules; ClassBench files are good ones too. Three tiers in a row: a NIC that has
 * room for few rules, the driver, the stack. Wall and processor time of one cold run each.
 */
import { readFile } from 'node:fs/promises';
import { parseFacts } from '../src/cli/facts.ts';
import type { Ruleset } from '../src/ir/ruleset.ts';
import { readRuleset } from '../src/nft/read.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { placeRuleset } from '../src/plan/place.ts';
import { planRuleset } from '../src/plan/plan.ts';
import { countTiers } from '../src/plan/report.ts';
import { loadProfile } from '../src/profile/load.ts';
import type { Profile } from '../src/profile/schema.ts';
import type { Result } from '../src/support/diagnostics.ts';
import { generateRules } from './generate.ts';

/** Instructions of the NIC: what an Agilio CX has left of its memory, hw-profiles/agilio.json. */
const NIC_INSNS = 2800;

function need<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(({ message }) => message).join('\n'));
}

async function timed<T>(what: string, work: () => T | Promise<T>): Promise<T> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  const result = await work();
  const wall = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  const spent = ((user + system) / 1000).toFixed(0);
  console.log(
    `  ${what.padEnd(32)} ${wall.toFixed(0).padStart(7)} ms, processor ${spent.padStart(6)} ms`,
  );
  return result;
}

async function readProfiles(): Promise<readonly Profile[]> {
  const names = ['agilio', 'xdp-native', 'xdp-generic'];
  const profiles = await Promise.all(names.map(async (name) => need(await loadProfile(name))));
  return profiles.map((profile) => {
    if (profile.kind !== 'xdp-offload') return profile;
    const insns = { ...profile.limits.insns, value: NIC_INSNS };
    return { ...profile, limits: { ...profile.limits, insns } };
  });
}

async function readFrom(path: string): Promise<Ruleset> {
  if (path.endsWith('.json')) return need(readJsonText(await readFile(path, 'utf8'), path));
  return need(await readRuleset({ kind: 'file', path }));
}

const given = process.argv.slice(2);
const profiles = await readProfiles();
const facts = need(
  parseFacts('eth0', [
    ...['role=router', 'local-address=192.0.2.1', 'mac=02:00:00:00:00:01'],
    ...['gro=off', 'routed=yes'],
  ]),
);
for (const path of given.length > 0 ? given : [null]) {
  console.log(path ?? '10,000 generated rules');
  const ruleset = await timed('read', () =>
    path === null ? need(readJsonText(generateRules(10_000), 'bench')) : readFrom(path),
  );
  const situation = { ruleset, facts, concessions: [], replyPorts: null };
  for (const profile of profiles) {
    await timed(`placed on ${profile.name} alone`, () => need(placeRuleset(situation, [profile])));
  }
  const report = await timed('plan with all three', () => need(planRuleset(situation, profiles)));
  const tiers = [...countTiers(report)].map(([tier, rules]) => `${tier} ${rules}`);
  console.log(`  rules: ${tiers.join(', ')}`);
}
