import { fail, type Reason, type Result, succeed } from '../support/diagnostics.ts';
import { type AttachedProgram, formatProgram } from './attachment.ts';
import { checkDeviceName } from './device-name.ts';
import { readStep, type StepReport } from './guard.ts';
import { listKept } from './history.ts';
import { checkMachine, warning } from './machine.ts';
import { readNftCounts } from './nft-counters.ts';
import {
  addCounts,
  type Count,
  type CounterOwner,
  carryCounts,
  indexOwners,
  NOTHING,
  type OwnerCount,
  sumByOwner,
} from './owner-counts.ts';
import { type DeployPaths, deployPaths } from './paths.ts';
import type { DeployState } from './state.ts';
import { collectCounts, type SplitCounts, type Survey, surveyDevice } from './survey.ts';
import type { TablesMode } from './tables-filters.ts';
import type { Transport } from './transport.ts';
import { describeTrial, readTrial } from './trial.ts';

/** A count for JSON; beyond 2^53 it is rounded, as in nft's own JSON. */
export interface CountJson {
  readonly packets: number;
  readonly bytes: number;
}

/** What one nft counter has counted, wherever its packets went. */
export interface CounterReport extends CounterOwner {
  /** By the attached program; null when it does not count for this owner (any more). */
  readonly hardware: CountJson | null;
  /** By programs that were replaced. */
  readonly carried: CountJson;
  /** By nftables itself; null when it has no such counter. */
  readonly nft: CountJson | null;
  readonly total: CountJson;
}

export type AttachmentReport =
  | { readonly kind: 'none' }
  | { readonly kind: 'foreign'; readonly programs: readonly AttachedProgram[] }
  | {
      readonly kind: 'ours';
      readonly program: AttachedProgram;
      /** When it was loaded, as in RFC 3339 (UTC). */
      readonly since: string;
      readonly rulesetChecksum: string;
      readonly generation: number;
      /** Programs of others in other modes. */
      readonly beside: readonly AttachedProgram[];
    }
  /** Filters of tc, in a chain of their own. */
  | {
      readonly kind: 'tables';
      readonly mode: TablesMode;
      readonly chain: number;
      readonly filters: number;
      /** Of these, so many are in the device. */
      readonly inHardware: number;
      readonly rulesetChecksum: string;
      readonly generation: number;
    };

/** What runs on a device; can be written as JSON. */
export interface StatusReport {
  readonly format: 'nft-offload/status@1';
  readonly device: string;
  readonly attachment: AttachmentReport;
  /** Where the machine is not as it was left by the last deployment. */
  readonly drift: readonly Reason[];
  /** Whether it is in step with the live ruleset; null where nobody watches that. */
  readonly step: StepReport | null;
  /** Generations that `rollback --to` can go back to, the newest first. */
  readonly kept: readonly number[];
  readonly counters: readonly CounterReport[];
}

export function countJson(count: Count): CountJson {
  return { packets: Number(count.packets), bytes: Number(count.bytes) };
}

function describeDrift(survey: Survey, pinned: boolean): readonly Reason[] {
  const { device, state, outdated, ours, foreign } = survey;
  const { name } = device;
  const drift: Reason[] = [];
  const add = (code: string, message: string): void => {
    drift.push({ code: `deploy/${code}`, message });
  };
  if (outdated !== null) {
    const message = 'the machine was restarted after the last deployment, which nothing survives';
    add('restarted', message);
  }
  if (state === null) return drift;
  if (state.current.changing) {
    const message = 'a change of its rules was cut short: the old ones are in use, or the new ones';
    add('changing', `${message}; \`deploy\` again`);
  }
  if (device.ifindex === 0) add('device-gone', `${name} does not exist any more`);
  else if (device.ifindex !== state.ifindex) {
    add('device-replaced', `${name} is not the device that was deployed to: it was made anew`);
  }
  if (!pinned) add('pin-gone', 'the pinned program and its counters were removed');
  // With the device all that was attached to it went.
  if (ours !== null || device.ifindex === 0) return drift;
  const instead = foreign.map(formatProgram).join(' and ');
  if (instead !== '')
    add('replaced', `somebody replaced program ${state.current.programId} by ${instead}`);
  else add('detached', `somebody took program ${state.current.programId} off ${name}`);
  return drift;
}

/** What each owner's parts have counted; `owners`: of what is attached now. */
export function reportCounters(
  current: readonly CounterOwner[],
  { now, before }: SplitCounts,
  nft: readonly OwnerCount[],
): readonly CounterReport[] {
  const carried = carryCounts(before, current);
  const owners = sumByOwner([...current.map((owner) => ({ owner, count: NOTHING })), ...carried]);
  const findHardware = indexOwners(sumByOwner(now));
  const findCarried = indexOwners(carried);
  const findNft = indexOwners(nft);
  return owners.map(({ owner }) => {
    const parts = [findHardware(owner), findCarried(owner), findNft(owner)] as const;
    const [now, before, own] = parts.map((part) => part?.count ?? null);
    const total = [now, before, own].reduce<Count>(
      (sum, part) => addCounts(sum, part ?? NOTHING),
      NOTHING,
    );
    return {
      ...owner,
      hardware: now ? countJson(now) : null,
      carried: countJson(before ?? NOTHING),
      nft: own ? countJson(own) : null,
      total: countJson(total),
    };
  });
}

/** What is attached, where that is not what was deployed, and what was counted, all parts added up. */
export async function statusXdp(
  transport: Transport,
  request: { readonly device: string },
  paths: DeployPaths = deployPaths(),
): Promise<Result<StatusReport>> {
  const { device } = request;
  const bad = checkDeviceName(device);
  if (bad !== null) return fail(bad);
  const missing = await checkMachine(transport, ['ip', 'bpftool']);
  if (missing.length > 0) return fail(...missing);
  const options = { force: false, missingDevice: true };
  const surveyed = await surveyDevice(transport, paths, device, options);
  if (!surveyed.ok) return surveyed;
  const survey = surveyed.value;
  const { state, ours, foreign, pinned: pin } = survey;
  const counts =
    state === null || pin === null
      ? succeed({ now: [], before: state?.current.carried ?? [] })
      : await collectCounts(transport, paths, state, false);
  if (!counts.ok) return counts;
  const nft = state === null ? succeed([]) : await readNftCounts(transport);
  const notices = [
    ...surveyed.diagnostics,
    ...counts.diagnostics,
    ...nft.diagnostics.map(({ code, message }) => warning(code, message)),
  ];
  const trial = describeTrial(await readTrial(transport, paths, device));
  const report: StatusReport = {
    format: 'nft-offload/status@1',
    device,
    attachment: reportAttachment(ours, foreign, state, pin?.loadedAt ?? 0),
    drift: [...describeDrift(survey, pin !== null), ...(trial === null ? [] : [trial])],
    step: await readStep(transport, paths, device),
    kept: await listKept(transport, paths, device),
    counters:
      state === null
        ? []
        : reportCounters(state.current.owners, counts.value, nft.ok ? nft.value : []),
  };
  return succeed(report, notices);
}

function reportAttachment(
  ours: AttachedProgram | null,
  foreign: readonly AttachedProgram[],
  state: DeployState | null,
  loadedAt: number,
): AttachmentReport {
  if (ours !== null && state !== null) {
    const since = new Date(loadedAt * 1000).toISOString();
    const { rulesetChecksum, origin: generation } = state.current;
    return { kind: 'ours', program: ours, since, rulesetChecksum, generation, beside: foreign };
  }
  if (foreign.length > 0) return { kind: 'foreign', programs: foreign };
  return { kind: 'none' };
}
