import { type Result, succeed } from '../support/diagnostics.ts';
import { type DeployReport, type DeployRequest, deployLocked, withDevice } from './deploy.ts';
import { readKept } from './history.ts';
import { mountBpffs } from './machine.ts';
import { type DeployPaths, deployPaths } from './paths.ts';
import { writeState } from './state.ts';
import { surveyDevice } from './survey.ts';
import type { Transport } from './transport.ts';

/** How what is deployed came into step with a ruleset. */
export type AppliedChange =
  /** The program that runs is what the ruleset compiles to. */
  | { readonly kind: 'unchanged'; readonly rulesetChecksum: string }
  /** Its tables were changed, or another program took its place and the counts were carried over. */
  | {
      readonly kind: 'in-place' | 'replaced';
      readonly rulesetChecksum: string;
      readonly report: DeployReport;
    };

/** What makes two programs the same: they decide alike and count for the same owners. */
function isSame(a: DeployRequest, b: DeployRequest): boolean {
  const key = ({ mode, maps, counters, owners }: DeployRequest): string =>
    JSON.stringify([mode, maps, counters, owners]);
  // What changes tables is not compared: storing a few words is cheaper.
  return b.update === undefined && Buffer.compare(a.elf, b.elf) === 0 && key(a) === key(b);
}

/** Whether that program runs already; if so, the record says which ruleset it stands for now. */
async function isRunning(
  transport: Transport,
  request: DeployRequest,
  paths: DeployPaths,
): Promise<boolean> {
  const { device, rulesetChecksum } = request;
  const survey = await surveyDevice(transport, paths, device, {
    force: false,
    missingDevice: false,
  });
  if (!survey.ok || survey.value.ours === null || survey.value.state === null) return false;
  const { state } = survey.value;
  if (state.previous !== null || survey.value.ours.mode !== request.mode) return false;
  const kept = await readKept(transport, paths, device, state.current.origin);
  if (!kept.ok || !isSame(kept.value, request)) return false;
  if (state.current.rulesetChecksum !== rulesetChecksum) {
    await writeState(transport, paths, {
      ...state,
      current: { ...state.current, rulesetChecksum },
    });
  }
  return true;
}

/**
 * Brings what is deployed to a device into step with what its ruleset compiles to now: nothing where that
 * runs already, else its tables are changed, or the program is exchanged in one step and its counts are carried over.
 */
export async function applyChange(
  transport: Transport,
  request: DeployRequest,
  paths: DeployPaths = deployPaths(),
): Promise<Result<AppliedChange>> {
  const { rulesetChecksum } = request;
  return withDevice<AppliedChange>(transport, paths, request.device, async () => {
    const mounted = await mountBpffs(transport, paths.bpffs);
    if (!mounted.ok) return mounted;
    if (await isRunning(transport, request, paths)) {
      return succeed({ kind: 'unchanged', rulesetChecksum });
    }
    const done = await deployLocked(transport, request, paths);
    if (!done.ok) return done;
    const kind = done.value.inPlace === null ? 'replaced' : 'in-place';
    return succeed({ kind, rulesetChecksum, report: done.value }, done.diagnostics);
  });
}
