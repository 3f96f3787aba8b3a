import type { LiveProgram, ProgramPatch } from '../backends/ebpf-offload/live-program.ts';
import type { Diagnostic } from '../support/diagnostics.ts';
import { findChanges } from './changes.ts';
import type { DeployReport, DeployRequest } from './deploy.ts';
import { keepGeneration, readKept, readKeptLive } from './history.ts';
import { warning } from './machine.ts';
import { type DeployPaths, deployPaths } from './paths.ts';
import { type DeployState, readState, writeState } from './state.ts';
import { MOST_WORDS, storePatch } from './store-words.ts';
import type { Survey } from './survey.ts';
import type { Transport } from './transport.ts';

/** The deployment whose tables a request was compiled to change. */
export interface InPlaceBase {
  /** See `Deployment`. */
  readonly origin: number;
  readonly tables: number;
}

/** A deployment that can be changed. */
export interface DeployedBase {
  readonly base: InPlaceBase;
  readonly live: LiveProgram;
}

/** How a request can be carried out without another program. */
export interface InPlaceUpdate {
  readonly base: InPlaceBase;
  readonly patch: ProgramPatch;
}

/** What was done in place; can be written as JSON. */
export interface InPlaceReport {
  readonly words: number;
  readonly rulesIn: number;
  readonly rulesOut: number;
}

/** What runs on a device with what it takes to change it; null where nothing does that can be changed. */
export async function readBase(
  transport: Transport,
  device: string,
  paths: DeployPaths = deployPaths(),
): Promise<DeployedBase | null> {
  const state = await readState(transport, paths, device);
  const current = state.ok ? (state.value?.current ?? null) : null;
  if (current === null || current.tables === null || current.changing) return null;
  const { origin, tables } = current;
  const live = await readKeptLive(transport, paths, device, origin);
  return live === null || live.generation !== tables ? null : { base: { origin, tables }, live };
}

/** Whether a request changes the program that is on the device and known there, and nothing else. */
export function fitsInPlace(
  request: DeployRequest,
  survey: Survey,
  state: DeployState | null,
): boolean {
  const { update, mode, confirm, origin } = request;
  if (update === undefined || state === null || state.previous !== null) return false;
  if (confirm !== null || origin !== null || update.patch.words.length > MOST_WORDS) return false;
  const { current } = state;
  return (
    survey.ours?.id === current.programId &&
    current.mode === mode &&
    !current.changing &&
    current.origin === update.base.origin &&
    current.tables === update.base.tables
  );
}

/** What came of it. */
interface InPlaceOutcome {
  /** Null where it takes another program, or where the change failed: the tables are not changed again then. */
  readonly report: DeployReport | null;
  /** As it is recorded now. */
  readonly state: DeployState | null;
  readonly diagnostics: readonly Diagnostic[];
}

/**
 * Changes the tables of the program that runs, where that is all that a request takes, and records it
 * as `generation`.
 */
export async function changeInPlace(
  transport: Transport,
  paths: DeployPaths,
  request: DeployRequest,
  survey: Survey,
  state: DeployState | null,
  generation: number,
): Promise<InPlaceOutcome> {
  const { device, mode, rulesetChecksum, owners, update } = request;
  if (update === undefined || state === null || !fitsInPlace(request, survey, state)) {
    return { report: null, state, diagnostics: [] };
  }
  const { current } = state;
  const before = await readKept(transport, paths, device, current.origin);
  await keepGeneration(transport, paths, request, generation);
  // Slots are never given away again, so the new owners are right for what was counted before too.
  const begun = { ...state, current: { ...current, owners: [...owners], changing: true } };
  await writeState(transport, paths, begun);
  const { patch } = update;
  const stored = await storePatch(transport, paths, device, current.generation, patch);
  if (!stored.ok) {
    const why = stored.diagnostics.map(({ message }) => message).join('; ');
    const said = warning('deploy/not-in-place', `another program takes its place: ${why}`);
    return { report: null, state: begun, diagnostics: [said] };
  }
  const tables = patch.generation;
  const done = { ...begun.current, origin: generation, rulesetChecksum, tables, changing: false };
  const ended = { ...begun, current: done };
  await writeState(transport, paths, ended);
  const { rulesIn = [], rulesOut = [] } = before.ok ? findChanges(before.value, request) : {};
  const report: DeployReport = {
    format: 'nft-offload/deploy@1',
    ...{ device, mode, programId: current.programId, generation, rulesetChecksum, tested: 0 },
    ...{ replaced: [], atomic: true, confirm: null },
    inPlace: { words: patch.words.length, rulesIn: rulesIn.length, rulesOut: rulesOut.length },
  };
  return { report, state: ended, diagnostics: [] };
}
