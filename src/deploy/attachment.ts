import { z } from 'zod';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { checkDeviceName } from './device-name.ts';
import { program, readJson } from './looks.ts';
import { complaint, missingTool, parseJson, runStep } from './machine.ts';
import { type CommandResult, NOT_FOUND, type Transport } from './transport.ts';

/**
 * Where a program runs: in the driver, in the stack behind it, in the NIC; `offload-tc`: in the NIC as
 * a cls_bpf filter, where XDP is taken.
 */
export type XdpMode = 'native' | 'generic' | 'offload' | 'offload-tc';

/** In the NIC; otherwise in the host. One program of each can be there. */
export function isInNic(mode: XdpMode): boolean {
  return mode === 'offload' || mode === 'offload-tc';
}

/** What bpftool, ip and tc call the modes. */
export const ATTACH_TYPE: Readonly<Record<XdpMode, string>> = {
  native: 'xdpdrv',
  generic: 'xdpgeneric',
  offload: 'xdpoffload',
  'offload-tc': 'tc',
};

/** A program that is attached to a device. */
export interface AttachedProgram {
  readonly mode: XdpMode;
  readonly id: number;
  readonly name: string;
}

/** A device as it is now. */
export interface DeviceState {
  readonly name: string;
  readonly ifindex: number;
  /** At most one a mode; neither native and generic nor the two in a NIC are ever there together. */
  readonly programs: readonly AttachedProgram[];
}

/** XDP_ATTACHED_DRV, _SKB and _HW: include/uapi/linux/if_link.h. */
const MODE_BY_NUMBER = { 1: 'native', 2: 'generic', 3: 'offload' } as const;

const programSchema = z.object({
  mode: z.union([z.literal(1), z.literal(2), z.literal(3)]),
  prog: z.object({ id: z.number(), name: z.string().default('') }),
});

const linkSchema = z
  .array(
    z.object({
      ifname: z.string(),
      ifindex: z.number(),
      xdp: z.object({ attached: z.array(programSchema).default([]) }).optional(),
    }),
  )
  .length(1);

const filterSchema = z.array(
  z.object({
    options: z
      .object({
        in_hw: z.boolean().default(false),
        prog: z.object({ id: z.number(), name: z.string().default('') }).optional(),
      })
      .optional(),
  }),
);

/** What has to be looked at to know a device. */
export function deviceLooks(device: string) {
  return {
    link: program('ip', '-j', '-d', 'link', 'show', 'dev', device),
    filters: program('tc', '-j', 'filter', 'show', 'dev', device, 'ingress'),
  };
}

/** The cls_bpf filters that a NIC runs; none where there is no `tc` or no qdisc for filters. */
function readFilters({ stdout }: CommandResult): readonly AttachedProgram[] {
  const parsed = filterSchema.safeParse(parseJson(stdout));
  return (parsed.data ?? []).flatMap(({ options }): AttachedProgram[] => {
    const { in_hw = false, prog } = options ?? {};
    return in_hw && prog !== undefined ? [{ mode: 'offload-tc', ...prog }] : [];
  });
}

/** The device in what `deviceLooks` saw; altered names are refused, since state goes by the real one. */
export function readDevice(
  device: string,
  seen: Readonly<Record<keyof ReturnType<typeof deviceLooks>, CommandResult>>,
): Result<DeviceState> {
  if (seen.link.code === NOT_FOUND) return fail(missingTool('ip'));
  if (seen.link.code !== 0) {
    const help = '`ip link` lists the devices';
    return fail(errorAt('deploy/no-device', `${device}: ${complaint(seen.link)}`, { help }));
  }
  const link = readJson(seen.link, linkSchema)?.[0];
  if (link === undefined) {
    const message = `\`ip -j link\` says nothing that is understood about ${device}`;
    return fail(errorAt('deploy/strange-output', message));
  }
  if (link.ifname !== device) {
    const message = `${device} is another name of ${link.ifname}`;
    return fail(errorAt('deploy/alternative-name', message, { help: `use ${link.ifname}` }));
  }
  const programs = (link.xdp?.attached ?? []).map(({ mode, prog }): AttachedProgram => {
    return { mode: MODE_BY_NUMBER[mode], id: prog.id, name: prog.name };
  });
  const all = [...programs, ...readFilters(seen.filters)];
  return succeed({ name: device, ifindex: link.ifindex, programs: all });
}

/** The device and the programs on it. */
export async function inspectDevice(
  transport: Transport,
  device: string,
): Promise<Result<DeviceState>> {
  const bad = checkDeviceName(device);
  if (bad !== null) return fail(bad);
  const { link, filters } = deviceLooks(device);
  const seen = {
    link: await transport.run(link.words),
    filters: await transport.run(filters.words),
  };
  return readDevice(device, seen);
}

/** `native program 12 "filter"`. */
export function formatProgram(program: AttachedProgram): string {
  return `${program.mode} program ${program.id} "${program.name}"`;
}

/** Where our filter stands among others: the first. Deleting needs the same words as making. */
const FILTER = ['pref', '1', 'handle', '1', 'protocol', 'all', 'bpf'];

function filterArgv(verb: 'add' | 'replace' | 'del', device: string): readonly string[] {
  return ['tc', 'filter', verb, 'dev', device, 'ingress', ...FILTER];
}

/**
 * Puts a pinned program on a device. One netlink message (RTM_SETLINK with IFLA_XDP) either way:
 * with `overwrite` every frame meets the old program or the new one; without, the kernel refuses
 * when there is a program already (XDP_FLAGS_UPDATE_IF_NOEXIST). The same for filters of tc, which
 * need a qdisc (see `hasQdisc`).
 */
export function attachArgv(
  device: string,
  mode: XdpMode,
  pin: string,
  overwrite: boolean,
): readonly string[] {
  if (mode === 'offload-tc') {
    const program = ['da', 'skip_sw', 'object-pinned', pin];
    return [...filterArgv(overwrite ? 'replace' : 'add', device), ...program];
  }
  const where = ['pinned', pin, 'dev', device];
  return [
    'bpftool',
    '--', // or a device called `-x` would be an option
    'net',
    'attach',
    ATTACH_TYPE[mode],
    ...where,
    ...(overwrite ? ['overwrite'] : []),
  ];
}

/** Takes whatever program has this mode off a device; none there is no error. */
export function detachArgv(device: string, mode: XdpMode): readonly string[] {
  if (mode === 'offload-tc') return filterArgv('del', device);
  return ['ip', 'link', 'set', 'dev', device, ATTACH_TYPE[mode], 'off'];
}

const qdiscSchema = z.array(z.object({ kind: z.string() }));

/** Whether the device has a place for filters of tc. */
export async function hasQdisc(transport: Transport, device: string): Promise<boolean> {
  const { stdout } = await transport.run(['tc', '-j', 'qdisc', 'show', 'dev', device]);
  const parsed = qdiscSchema.safeParse(parseJson(stdout));
  return parsed.data?.some(({ kind }) => kind === 'clsact' || kind === 'ingress') ?? false;
}

/** Makes a place for filters of tc. */
export async function addQdisc(transport: Transport, device: string): Promise<Result<unknown>> {
  const argv = ['tc', 'qdisc', 'add', 'dev', device, 'clsact'];
  return runStep(transport, 'deploy/attach-failed', `make a place for filters on ${device}`, argv);
}

const REMOVE_QDISC = `test -z "$(tc filter show dev "$1" ingress; tc filter show dev "$1" egress)" || exit 0
tc qdisc del dev "$1" clsact`;

/** Takes away the place for filters that `addQdisc` made; stays where somebody else uses it now. */
export function removeQdiscArgv(device: string): readonly string[] {
  return ['sh', '-c', REMOVE_QDISC, 'sh', device];
}
