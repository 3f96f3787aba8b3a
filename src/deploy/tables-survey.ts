import { createHash } from 'node:crypto';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { inspectDevice } from './attachment.ts';
import { withDevice } from './deploy.ts';
import { checkDeviceName } from './device-name.ts';
import { warning } from './machine.ts';
import { carryCounts, NOTHING, type OwnerCount, sumByOwner } from './owner-counts.ts';
import type { DeployPaths } from './paths.ts';
import {
  chainOf,
  emptyArgv,
  enteredChain,
  type ListedFilter,
  listFilters,
} from './tables-filters.ts';
import {
  readTables,
  readTablesState,
  type TablesDeployment,
  type TablesState,
  writeTablesState,
} from './tables-state.ts';
import type { Transport } from './transport.ts';

/** A device, the filters at its ingress, and which of them were deployed. */
export interface TablesSurvey {
  /** 0: the device is gone. */
  readonly ifindex: number;
  readonly bootId: string;
  /** Null when no filters were deployed since the machine started. */
  readonly state: TablesState | null;
  /** State that describes an earlier boot, or another device of that name. */
  readonly isOutdated: boolean;
  readonly filters: readonly ListedFilter[];
  /** Frames are led to what the state says. */
  readonly isEntered: boolean;
}

/** A switch that was begun and not finished did not happen when frames are led to the filters before. */
function resolveTables(state: TablesState, chain: number | null): TablesState {
  const { previous } = state;
  if (previous === null || chain !== chainOf(previous.generation)) return state;
  return { ...state, current: previous, previous: state.current, isTrial: false };
}

/** An id that changes with every boot; state of another boot describes nothing that still is. */
async function readBootId(transport: Transport): Promise<string> {
  const { stdout } = await transport.run(['cat', '/proc/sys/kernel/random/boot_id']);
  return stdout.trim();
}

/** Looks at everything and changes nothing. */
export async function surveyTables(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  force: boolean,
): Promise<Result<TablesSurvey>> {
  const inspected = await inspectDevice(transport, device);
  const isGone =
    !inspected.ok && inspected.diagnostics.every(({ code }) => code === 'deploy/no-device');
  if (!inspected.ok && !isGone) return inspected;
  const ifindex = inspected.ok ? inspected.value.ifindex : 0;
  const read = await readTablesState(transport, paths, device);
  if (!read.ok && !force) return read;
  const bootId = await readBootId(transport);
  const recorded = read.ok ? read.value : null;
  const isOutdated =
    recorded !== null && (recorded.bootId !== bootId || (!isGone && recorded.ifindex !== ifindex));
  const listed = isGone ? succeed([]) : await listFilters(transport, device);
  if (!listed.ok) return listed;
  const filters = listed.value;
  const chain = enteredChain(filters);
  const state = recorded === null || isOutdated ? null : resolveTables(recorded, chain);
  const isEntered = state !== null && chain === chainOf(state.current.generation);
  return succeed({ ifindex, bootId, state, isOutdated, filters, isEntered });
}

/** What a deployment's filters have counted, by owner. */
export async function readTableCounts(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  { generation, origin }: TablesDeployment,
  filters: readonly ListedFilter[],
): Promise<Result<readonly OwnerCount[]>> {
  const record = await readTables(transport, paths, device, origin);
  if (!record.ok) return record;
  const chain = chainOf(generation);
  const own = new Map(
    filters.flatMap((one) => (one.chain === chain ? [[`${one.pref} ${one.handle}`, one]] : [])),
  );
  const counts = record.value.filters.flatMap(({ pref, handle, owner: index }): OwnerCount[] => {
    const owner = index === null ? undefined : record.value.owners[index];
    const count = own.get(`${pref} ${handle}`)?.count ?? NOTHING;
    return owner === undefined ? [] : [{ owner, count }];
  });
  return succeed(sumByOwner(counts));
}

/** Takes over the counts of the filters before, and takes these away; what cannot be read is said. */
export async function finishTables(
  transport: Transport,
  paths: DeployPaths,
  state: TablesState,
): Promise<Result<TablesState>> {
  const { device, current, previous } = state;
  if (previous === null && !state.isTrial) return succeed(state);
  let carried: readonly OwnerCount[] = state.carried;
  const notices = [];
  if (previous !== null) {
    const listed = await listFilters(transport, device);
    if (!listed.ok) return listed;
    const counts = await readTableCounts(transport, paths, device, previous, listed.value);
    notices.push(
      ...counts.diagnostics.map(({ message }) => warning('deploy/counts-lost', message)),
    );
    const record = await readTables(transport, paths, device, current.origin);
    const owners = record.ok ? record.value.owners : [];
    carried = carryCounts([...carried, ...(counts.ok ? counts.value : [])], owners);
  }
  const finished = { ...state, carried: [...carried], previous: null, isTrial: false };
  // Counts first: filters that are left over are found by whatever comes next.
  await writeTablesState(transport, paths, device, finished);
  if (previous !== null) await transport.run(emptyArgv(device, previous.generation));
  return succeed(finished, notices);
}

/** Tells whether a device is still as it was: its filters, and what was deployed to it. */
export function tablesBasis({ bootId, ifindex, state, filters }: TablesSurvey): string {
  const listed = filters.map(({ pref, chain, handle }) => [pref, chain, handle]);
  const text = JSON.stringify([bootId, ifindex, listed, state?.current.generation ?? null]);
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** Runs `work` on a machine that can do it, while nobody else deploys to the device. */
export async function withTables<T>(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  work: () => Promise<Result<T>>,
): Promise<Result<T>> {
  if (checkDeviceName(device) === null && !/^[A-Za-z0-9_.@-]+$/.test(device)) {
    const message = `${JSON.stringify(device)} cannot be written in a batch of tc`;
    return fail(errorAt('deploy/bad-device-name', message, { help: 'rename it: `ip link set`' }));
  }
  return withDevice(transport, paths, device, work, ['ip']);
}
