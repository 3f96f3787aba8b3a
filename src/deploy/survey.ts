import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { type AttachedProgram, type DeviceState, deviceLooks, readDevice } from './attachment.ts';
import { checkDeviceName } from './device-name.ts';
import { type LoadedProgram, parseProgram, readGenerations } from './load.ts';
import { lookAt, names } from './looks.ts';
import { complaint, warning } from './machine.ts';
import { NOTHING, type OwnerCount } from './owner-counts.ts';
import { type DeployPaths, generationPaths, mapPin, pinDirectory, stateFile } from './paths.ts';
import { readCounters, readSettledCounters } from './read-counters.ts';
import { type Deployment, type DeployState, parseState } from './state.ts';
import type { CommandResult, Transport } from './transport.ts';

/** Changes with every boot: state of another boot describes nothing that still is. */
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** A device, what was deployed to it, and whose the programs on it are. */
export interface Survey {
  readonly device: DeviceState;
  /** Null when nothing was deployed since the machine started. */
  readonly state: DeployState | null;
  /** State that describes an earlier boot: its pins and counters are gone. */
  readonly outdated: DeployState | null;
  /** The program that is attached, recorded and pinned as ours. */
  readonly ours: AttachedProgram | null;
  readonly foreign: readonly AttachedProgram[];
  /** Numbers of the generations that are pinned. */
  readonly generations: readonly number[];
  /** The pinned program of the generation that `state` calls the current one. */
  readonly pinned: LoadedProgram | null;
  readonly bootId: string;
}

/** With `force`, state that cannot be read counts as none, and what is pinned is ours all the same. */
export interface SurveyOptions {
  readonly force: boolean;
  /** The device may be gone (it then has no programs). */
  readonly missingDevice: boolean;
}

/** A switch that was begun and not finished did not happen when the program before is attached. */
function resolveSwitch(state: DeployState, programs: readonly AttachedProgram[]): DeployState {
  const { previous } = state;
  const kept = programs.some(
    ({ id, mode }) => id === previous?.programId && mode === previous.mode,
  );
  return previous !== null && kept ? { ...state, current: previous, previous: null } : state;
}

/** The program that is attached, recorded and pinned as ours. */
function findOurs(
  device: DeviceState,
  state: DeployState | null,
  pins: ReadonlyMap<number, LoadedProgram>,
): AttachedProgram | null {
  // Without state (only asked for when forced) any pinned generation will do.
  const generations = state === null ? [...pins.keys()] : [state.current.generation];
  for (const generation of generations) {
    const attached = device.programs.find(({ id }) => id === pins.get(generation)?.id);
    if (attached === undefined) continue;
    const recorded = state?.current ?? { programId: attached.id, mode: attached.mode };
    if (recorded.programId === attached.id && recorded.mode === attached.mode) return attached;
  }
  return null;
}

/** The boot's id on a line, then the state, where there is some. */
const RECORD = 'test -e "$2" || set -- "$1"; cat -- "$@"';

/** The number of each generation on a line, and on the next its program as bpftool shows it. */
const PINS = `for file in "$1"/*/program; do
  test -e "$file" || continue
  number=\${file%/program}
  printf '%s\\n' "\${number##*/}"
  bpftool -j prog show pinned "$file"
done`;

/** Everything about one device in one look. */
function surveyLooks(paths: DeployPaths, device: string) {
  return {
    ...deviceLooks(device),
    hasState: { script: 'test -e "$1"', words: [stateFile(paths, device)] },
    record: { script: RECORD, words: [BOOT_ID, stateFile(paths, device)] },
    generations: names(pinDirectory(paths, device)),
    pins: { script: PINS, words: [pinDirectory(paths, device)] },
  };
}

function readPins({ stdout }: CommandResult): ReadonlyMap<number, LoadedProgram> {
  const pins = new Map<number, LoadedProgram>();
  let generation: number | null = null;
  for (const line of stdout.split('\n')) {
    if (/^\d{1,9}$/.test(line)) {
      generation = Number(line);
      continue;
    }
    const program = parseProgram(line);
    if (generation !== null && program !== null) pins.set(generation, program);
  }
  return pins;
}

/** Looks at everything and changes nothing. */
export async function surveyDevice(
  transport: Transport,
  paths: DeployPaths,
  name: string,
  options: SurveyOptions,
): Promise<Result<Survey>> {
  const notices: Diagnostic[] = [];
  const bad = checkDeviceName(name);
  if (bad !== null) return fail(bad);
  const seen = await lookAt(transport, surveyLooks(paths, name));
  const inspected = readDevice(name, seen);
  const gone =
    !inspected.ok && inspected.diagnostics.every(({ code }) => code === 'deploy/no-device');
  if (!inspected.ok && !(gone && options.missingDevice)) return inspected;
  const device = inspected.ok ? inspected.value : { name, ifindex: 0, programs: [] };
  const { code, stdout } = seen.record;
  if (code !== 0) return fail(errorAt('deploy/io', `cannot look: ${complaint(seen.record)}`));
  const bootId = stdout.slice(0, stdout.indexOf('\n'));
  const content = seen.hasState.code === 0 ? stdout.slice(bootId.length + 1) : null;
  const read = parseState(content, stateFile(paths, name), name);
  if (!read.ok) {
    if (!options.force) return read;
    notices.push(...read.diagnostics.map(({ code, message }) => warning(code, message)));
  }
  const recorded = read.ok ? read.value : null;
  const outdated = recorded !== null && recorded.bootId !== bootId ? recorded : null;
  const state =
    recorded === null || outdated !== null ? null : resolveSwitch(recorded, device.programs);
  const generations = readGenerations(seen.generations);
  if (gone && recorded === null && read.ok && generations.length === 0) {
    return inspected.ok ? fail() : inspected;
  }
  if (gone)
    notices.push(warning('deploy/device-gone', `the device ${name} does not exist any more`));
  const pins = readPins(seen.pins);
  const ours = state !== null || !read.ok ? findOurs(device, state, pins) : null;
  const foreign = device.programs.filter((program) => program !== ours);
  const pinned = state === null ? null : (pins.get(state.current.generation) ?? null);
  const survey = { device, state, outdated, ours, foreign, generations, pinned, bootId };
  return succeed(survey, notices);
}

/** What a deployment's slots hold, by owner. */
async function readOwnerCounts(
  transport: Transport,
  paths: DeployPaths,
  device: string,
  deployment: Deployment,
  settled: boolean,
): Promise<Result<readonly OwnerCount[]>> {
  const { layout, owners, generation } = deployment;
  if (layout === null || layout.slots === 0) return succeed([]);
  const pin = mapPin(generationPaths(paths, device, generation), layout.map);
  const counts = await (settled ? readSettledCounters : readCounters)(transport, pin, layout);
  if (!counts.ok) return counts;
  return succeed(owners.map((owner, slot) => ({ owner, count: counts.value[slot] ?? NOTHING })));
}

/** Counts of the attached program, and of those before it. */
export interface SplitCounts {
  readonly now: readonly OwnerCount[];
  readonly before: readonly OwnerCount[];
}

/** What programs before the present one counted; what cannot be read is a warning. */
export async function collectBefore(
  transport: Transport,
  paths: DeployPaths,
  { current, previous, device }: DeployState,
  settled: boolean,
): Promise<Result<readonly OwnerCount[]>> {
  const carried = [...(previous?.carried ?? []), ...current.carried];
  if (previous === null) return succeed(carried);
  const last = await readOwnerCounts(transport, paths, device, previous, settled);
  if (last.ok) return succeed([...carried, ...last.value]);
  return succeed(
    carried,
    last.diagnostics.map(({ message }) => warning('deploy/counts-lost', message)),
  );
}

/** Everything that was counted so far; what cannot be read is a warning. `settled`: not in use now. */
export async function collectCounts(
  transport: Transport,
  paths: DeployPaths,
  state: DeployState,
  settled: boolean,
): Promise<Result<SplitCounts>> {
  const now = await readOwnerCounts(transport, paths, state.device, state.current, settled);
  const before = await collectBefore(transport, paths, state, settled);
  if (!before.ok) return before;
  const lost = now.ok ? [] : now.diagnostics;
  return succeed({ now: now.ok ? now.value : [], before: before.value }, [
    ...lost.map(({ message }) => warning('deploy/counts-lost', message)),
    ...before.diagnostics,
  ]);
}
