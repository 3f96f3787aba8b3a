import { fail, type Reason, type Result, succeed } from '../support/diagnostics.ts';
import { checkMachine, warning } from './machine.ts';
import { readNftCounts } from './nft-counters.ts';
import { type DeployPaths, deployPaths } from './paths.ts';
import { reportCounters, type StatusReport } from './status.ts';
import { chainOf } from './tables-filters.ts';
import { listTables, readTables, readTablesState } from './tables-state.ts';
import { readTableCounts, surveyTables, type TablesSurvey } from './tables-survey.ts';
import type { Transport } from './transport.ts';
import { describeTrial, readTrial } from './trial.ts';

function describeDrift(
  device: string,
  { ifindex, state, isOutdated, isEntered }: TablesSurvey,
  missing: number,
): readonly Reason[] {
  const drift: Reason[] = [];
  const add = (code: string, message: string): void => {
    drift.push({ code: `deploy/${code}`, message });
  };
  if (isOutdated) {
    add(
      'restarted',
      `the machine was restarted, or ${device} made anew, after the last deployment`,
    );
  }
  if (state === null) return drift;
  if (ifindex === 0) add('device-gone', `${device} does not exist any more`);
  else if (!isEntered) add('detached', `somebody took what leads to the filters off ${device}`);
  if (missing > 0) add('filters-gone', `somebody took ${missing} of the filters off ${device}`);
  return drift;
}

/** What filters are deployed to a device, and what they dropped; null where none were. */
export async function statusTables(
  transport: Transport,
  { device }: { readonly device: string },
  paths: DeployPaths = deployPaths(),
): Promise<Result<StatusReport> | null> {
  const recorded = await readTablesState(transport, paths, device);
  if (!recorded.ok) return recorded;
  if (recorded.value === null) return null;
  const missing = await checkMachine(transport, ['ip']);
  if (missing.length > 0) return fail(...missing);
  const surveyed = await surveyTables(transport, paths, device, false);
  if (!surveyed.ok) return surveyed;
  const { state, filters, isEntered } = surveyed.value;
  const current = state?.current ?? null;
  const chain = current === null ? null : chainOf(current.generation);
  const own = filters.filter((one) => one.chain === chain);
  const record =
    current === null ? null : await readTables(transport, paths, device, current.origin);
  const wanted = record?.ok === true ? record.value.filters.length : own.length;
  const counted = async (which: typeof current) =>
    which === null ? succeed([]) : readTableCounts(transport, paths, device, which, filters);
  const now = await counted(current);
  const before = await counted(state?.previous ?? null);
  const nft = state === null ? succeed([]) : await readNftCounts(transport);
  const notices = [...now.diagnostics, ...before.diagnostics, ...nft.diagnostics].map(
    ({ code, message }) => warning(code, message),
  );
  const owners = record?.ok === true ? record.value.owners : [];
  const split = {
    now: now.ok ? now.value : [],
    before: [...(state?.carried ?? []), ...(before.ok ? before.value : [])],
  };
  const trial = describeTrial(await readTrial(transport, paths, device));
  const drift = describeDrift(device, surveyed.value, wanted - own.length);
  const report: StatusReport = {
    format: 'nft-offload/status@1',
    device,
    attachment:
      current === null || chain === null || !isEntered
        ? { kind: 'none' }
        : {
            kind: 'tables',
            ...{ mode: current.mode, chain, filters: own.length },
            inHardware: own.filter(({ isInHardware }) => isInHardware).length,
            ...{ rulesetChecksum: current.rulesetChecksum, generation: current.origin },
          },
    drift: [...drift, ...(trial === null ? [] : [trial])],
    step: null,
    kept: await listTables(transport, paths, device),
    counters: state === null ? [] : reportCounters(owners, split, nft.ok ? nft.value : []),
  };
  return succeed(report, [...surveyed.diagnostics, ...notices]);
}
