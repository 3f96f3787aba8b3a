import type { DeployRequest } from '../../src/deploy/deploy.ts';
import { ownerOf } from '../../src/deploy/owner-counts.ts';
import type { Counter } from '../../src/ir/classifier.ts';
import type { Result } from '../../src/support/diagnostics.ts';
import { TEST_LAYOUT, testObject } from './deploy-objects.ts';

/** A counter of a rule in the chain that the tests of deployments are about. */
export function ruleCounter(handle: number | null, index: number): Counter {
  const rule = { family: 'netdev', table: 't', chain: 'c', handle, index } as const;
  return { family: 'netdev', table: 't', rule, name: null, view: 'ingress' };
}

/** The second owner is the one that the test programs count for. */
const OWNERS = [ruleCounter(11, 0), ruleCounter(12, 1)].map(ownerOf);

/** To `eth0`, natively; drops all test frames. */
export function deployRequest(changes: Partial<DeployRequest> = {}): DeployRequest {
  return {
    device: 'eth0',
    mode: 'native',
    elf: testObject(),
    program: 'filter',
    maps: null,
    counters: TEST_LAYOUT,
    owners: OWNERS,
    rulesetChecksum: 'sha256:1',
    frames: [],
    rules: [],
    basis: null,
    force: false,
    origin: null,
    confirm: null,
    ...changes,
  };
}

/** Codes of what a refusal says; none where it was done. */
export function refusalOf(result: Result<unknown>): readonly string[] {
  return result.ok ? [] : result.diagnostics.map(({ code }) => code);
}
