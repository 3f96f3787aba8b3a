import { createCompiler } from '../../src/cli/deploy-request.ts';
import { type DeployReport, type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { readBase } from '../../src/deploy/in-place.ts';
import { statusXdp } from '../../src/deploy/status.ts';
import { nothingKnown } from '../../src/ir/facts.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { DeployLab } from './deploy-lab.ts';
import { unwrap } from './pipeline.ts';

/** A rule at ingress of eth0, by its handle: which EtherType it drops. */
export type Rules = readonly (readonly [handle: number, type: number])[];

/** EtherTypes that no frame of the test has: enough rules for a table. */
export const OTHERS: Rules = Array.from({ length: 6 }, (_, index) => [
  10 + index,
  0x9000 + 2 * index,
]);
/** What all test frames have. */
export const TEST = 0x88b5;

function rulesetOf(rules: Rules) {
  const chain = { family: 'netdev', table: 't', name: 'c', handle: 1, type: 'filter' };
  const hook = { hook: 'ingress', dev: 'eth0', prio: 0, policy: 'accept' };
  const left = { payload: { protocol: 'ether', field: 'type' } };
  const lines = rules.map(([handle, right]) => {
    const expr = [
      { match: { op: '==', left, right } },
      { counter: { packets: 0, bytes: 0 } },
      { drop: null },
    ];
    return { rule: { family: 'netdev', table: 't', chain: 'c', handle, expr } };
  });
  const nftables = [
    { metainfo: { json_schema_version: 1 } },
    { table: { family: 'netdev', name: 't', handle: 1 } },
    { chain: { ...chain, ...hook } },
    ...lines,
  ];
  return unwrap(readJsonText(JSON.stringify({ nftables }), 'rules.json'));
}

/** What a ruleset compiles to for a lab, as a change of what runs there where that will do. */
export async function requestFor(lab: DeployLab, rules: Rules): Promise<DeployRequest> {
  const compile = createCompiler(unwrap(await loadProfile('xdp-native')), { mode: 'native' });
  const facts = { ...nothingKnown('eth0'), groOff: true, rxVlanOff: true };
  const ruleset = rulesetOf(rules);
  const given = { facts, concessions: [], replyPorts: null, structure: 'tree' } as const;
  const running = await readBase(lab.transport, 'eth0', lab.paths);
  return unwrap(compile({ ruleset, ...given }, running));
}

/** Deploys rules to a lab's eth0. */
export async function deployRules(lab: DeployLab, rules: Rules): Promise<DeployReport> {
  return unwrap(await deployXdp(lab.transport, await requestFor(lab, rules), lab.paths));
}

/** Packets that rules counted by now, those of programs before included; null: rules that are gone. */
export async function countsOf(
  lab: DeployLab,
  ...handles: readonly (number | null)[]
): Promise<number> {
  const status = unwrap(await statusXdp(lab.transport, { device: 'eth0' }, lab.paths));
  const lines = status.counters.filter(({ handle }) => handles.includes(handle));
  return lines.reduce((sum, { hardware, carried }) => {
    return sum + Number(hardware?.packets ?? 0n) + Number(carried?.packets ?? 0n);
  }, 0);
}
