import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import {
  type AttachedProgram,
  addQdisc,
  attachArgv,
  detachArgv,
  formatProgram,
  inspectDevice,
  isInNic,
  removeQdiscArgv,
  type XdpMode,
} from './attachment.ts';
import { explainDriver, watchKernelLog } from './driver-errors.ts';
import { complaint, runStep } from './machine.ts';
import type { GenerationPaths } from './paths.ts';
import type { CommandResult, Transport } from './transport.ts';

/** How the programs on a device are exchanged. */
export interface SwitchPlan {
  readonly device: string;
  readonly mode: XdpMode;
  /** What the new program replaces in the same step, or null for a free place. */
  readonly replaces: AttachedProgram | null;
  /** What must be taken off before (native and generic exclude each other), so there is a gap. */
  readonly displaces: AttachedProgram | null;
  /** The place for filters of tc has to be made first. */
  readonly makesQdisc: boolean;
}

function excludes(a: XdpMode, b: XdpMode): boolean {
  return isInNic(a) === isInNic(b);
}

/** Which of the programs are in the new one's way. */
export function planSwitch(
  device: string,
  mode: XdpMode,
  programs: readonly AttachedProgram[],
  makesQdisc = false,
): SwitchPlan {
  const inTheWay = programs.filter((program) => excludes(program.mode, mode));
  return {
    device,
    mode,
    replaces: inTheWay.find((program) => program.mode === mode) ?? null,
    displaces: inTheWay.find((program) => program.mode !== mode) ?? null,
    makesQdisc,
  };
}

const HELP: Readonly<Record<XdpMode, string>> = {
  native: 'nothing was changed; where the driver has no native mode, --mode generic works',
  generic: 'nothing was changed',
  offload: 'nothing was changed; dmesg may say more',
  'offload-tc':
    'nothing was changed; the device needs `ethtool -K IF hw-tc-offload on`; dmesg may say more',
};

const DISPLACE_HELP = 'a program attached by a BPF link can only be removed by its owner';

/** Puts back what was displaced, and takes away what was made for the program. */
async function restore(
  transport: Transport,
  plan: SwitchPlan,
  generation: GenerationPaths,
): Promise<void> {
  const { device, displaces, makesQdisc } = plan;
  if (makesQdisc) await transport.run(removeQdiscArgv(device));
  if (displaces === null) return;
  await transport.run(attachArgv(device, displaces.mode, generation.displaced, false));
}

/**
 * Whether a command was cut short: more than a program gives by itself (POSIX sh, 2.8.2) without a word. bpftool
 * exits with an errno below 256, and says which.
 */
function isCutShort({ code, stderr }: CommandResult): boolean {
  return code > 127 && !/^Error: /m.test(stderr);
}

const UNKNOWN_END = 'deploy/attach-unknown';

/** The program may be attached, or may yet be: whoever was told to do it did not answer. */
function unknownEnd(device: string, why: string): Diagnostic {
  const message = `nobody can say whether the program was attached to ${device}: ${why}`;
  const help = '`status` says what is there; the next command for this device ends what was begun';
  return errorAt(UNKNOWN_END, message, { help });
}

/** Whether a switch that failed may have happened all the same; then nothing must be taken back. */
export function mayHaveSwitched(diagnostics: readonly Diagnostic[]): boolean {
  return diagnostics.some(({ code }) => code === UNKNOWN_END);
}

/**
 * Attaches the generation's program; when that fails, the device has what it had. `guard` makes the
 * commands that change the device.
 */
export async function switchProgram(
  transport: Transport,
  plan: SwitchPlan,
  generation: GenerationPaths,
  programId: number,
  guard: (argv: readonly string[]) => readonly string[] = (argv) => argv,
): Promise<Result<null>> {
  const { device, mode, replaces, displaces } = plan;
  if (displaces !== null) {
    const what = `take ${formatProgram(displaces)} off ${device}`;
    // Pinned, it lives on while it is attached nowhere, and can be put back.
    const keep = ['bpftool', 'prog', 'pin', 'id', String(displaces.id), generation.displaced];
    const pinned = await runStep(transport, 'deploy/attach-failed', what, keep);
    if (!pinned.ok) return pinned;
    const argv = guard(detachArgv(device, displaces.mode));
    const detached = await runStep(transport, 'deploy/attach-failed', what, argv, {
      help: DISPLACE_HELP,
    });
    if (!detached.ok) return detached;
  }
  if (plan.makesQdisc) {
    const placed = await addQdisc(transport, device);
    if (!placed.ok) {
      await restore(transport, plan, generation);
      return placed;
    }
  }
  const argv = guard(attachArgv(device, mode, generation.program, replaces !== null));
  const what = `attach the program to ${device} (${mode})`;
  const watch = isInNic(mode) ? await watchKernelLog(transport) : null;
  const ended = await transport.run(argv);
  if (isCutShort(ended)) return fail(unknownEnd(device, complaint(ended)));
  if (ended.code !== 0) {
    await restore(transport, plan, generation);
    const message = `cannot ${what}: ${complaint(ended)}`;
    const refused = errorAt('deploy/attach-failed', message, { help: HELP[mode] });
    if (watch === null) return fail(refused);
    return explainDriver({ ok: false, diagnostics: [refused] }, await watch());
  }
  const after = await inspectDevice(transport, device);
  if (!after.ok) {
    return fail(unknownEnd(device, after.diagnostics.map(({ message }) => message).join('; ')));
  }
  if (after.value.programs.some(({ id, mode: now }) => id === programId && now === mode)) {
    return succeed(null);
  }
  const message = `${device} does not have the program that was just attached to it`;
  const help = 'something else attaches programs to this device at the same time; stop it';
  return fail(errorAt('deploy/attach-failed', message, { help }));
}
