import { z } from 'zod';
import type { Profile } from '../profile/schema.ts';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { ATTACH_TYPE, inspectDevice } from './attachment.ts';
import { complaint, missingTool, parseJson, warning } from './machine.ts';
import { NOT_FOUND, type Transport } from './transport.ts';

/** What `ethtool -i` says; null what it leaves empty. */
export interface DriverInfo {
  readonly driver: string | null;
  readonly firmware: string | null;
  readonly bus: string | null;
}

/** A table of the device as `devlink resource show` counts it; `used` is null where it does not. */
export interface DeviceResource {
  readonly name: string;
  readonly size: number;
  readonly used: number | null;
}

/** What devlink knows of the device behind an interface. */
export interface DevlinkInfo {
  /** `pci/0000:01:00.0`. */
  readonly handle: string;
  /** `fw.version 16.35.2000`, those that run. */
  readonly versions: readonly string[];
  readonly resources: readonly DeviceResource[];
}

/** An interface and what is behind it, as far as it can be read without changing anything. */
export interface DeviceDescription extends DriverInfo {
  readonly device: string;
  /** `veth`, `tun`, `bond`; null for hardware. */
  readonly linkKind: string | null;
  readonly mtu: number | null;
  readonly receiveQueues: number | null;
  /** Modes in which a program is attached, as `ip link set dev IF MODE` spells them. */
  readonly attached: readonly string[];
  readonly devlink: DevlinkInfo | null;
}

/** A profile that describes the device, and why it was chosen. */
export interface FittingProfile {
  readonly name: string;
  readonly kind: Profile['kind'];
  readonly why: string;
}

/**
 * Drivers, as `ethtool -i` calls them, whose net_device_ops has ndo_bpf for XDP in Linux 6.12; from
 * memory of that tree, unverified one by one: a driver that is missing here gets xdp-generic.
 */
const NATIVE_XDP: ReadonlySet<string> = new Set([
  'am65-cpsw-nuss',
  'atlantic',
  'bnxt_en',
  'bonding',
  'cpsw',
  'ena',
  'fec',
  'fsl_dpa',
  'fsl_dpaa2_eth',
  'fsl_enetc',
  'gve',
  'hv_netvsc',
  'i40e',
  'ice',
  'igb',
  'igc',
  'ixgbe',
  'ixgbevf',
  'lan966x-switch',
  'mana',
  'mlx4_en',
  'mlx5_core',
  'mvneta',
  'mvpp2',
  'netdevsim',
  'netsec',
  'nfp',
  'nicvf',
  'qede',
  'rvu_nicpf',
  'rvu_nicvf',
  'sfc',
  'st_gmac',
  'tsnep',
  'tun',
  'veth',
  'virtio_net',
  'vif',
  'vmxnet3',
]);

const linkSchema = z
  .array(
    z.object({
      mtu: z.number().optional(),
      num_rx_queues: z.number().optional(),
      linkinfo: z.object({ info_kind: z.string().optional() }).optional(),
    }),
  )
  .length(1);

const portsSchema = z.object({
  port: z.record(z.string(), z.object({ netdev: z.string().optional() })),
});

const infoSchema = z.object({
  info: z.record(
    z.string(),
    z.object({
      versions: z.object({ running: z.record(z.string(), z.string()).optional() }).optional(),
    }),
  ),
});

interface RawResource {
  readonly name: string;
  readonly size: number;
  readonly occ?: number | undefined;
  readonly resources?: readonly RawResource[] | undefined;
}
const resourceSchema: z.ZodType<RawResource> = z.object({
  name: z.string(),
  size: z.number(),
  occ: z.number().optional(),
  get resources() {
    return z.array(resourceSchema).optional();
  },
});
const resourcesSchema = z.object({ resources: z.record(z.string(), z.array(resourceSchema)) });

/** Reads `name: value` lines of `ethtool -i`. */
export function parseDriverInfo(text: string): DriverInfo {
  const value = (name: string): string | null => {
    const line = text.split('\n').find((candidate) => candidate.startsWith(`${name}: `));
    const found = line?.slice(name.length + 2).trim() ?? '';
    return found === '' || found === 'N/A' ? null : found;
  };
  return {
    driver: value('driver'),
    firmware: value('firmware-version'),
    bus: value('bus-info'),
  };
}

const NO_DRIVER: DriverInfo = { driver: null, firmware: null, bus: null };

async function readDriver(transport: Transport, device: string): Promise<Result<DriverInfo>> {
  const result = await transport.run(['ethtool', '-i', device]);
  if (result.code === NOT_FOUND) return fail(missingTool('ethtool'));
  if (result.code === 0) return succeed(parseDriverInfo(result.stdout));
  const message = `${device} does not tell its driver: ${complaint(result)}`;
  return succeed(NO_DRIVER, [warning('deploy/no-driver', message)]);
}

/** What a command prints as JSON; null when there is no such program or it says something else. */
async function readJson<T>(
  transport: Transport,
  schema: z.ZodType<T>,
  argv: readonly string[],
): Promise<T | null> {
  const { code, stdout } = await transport.run(argv);
  return code === 0 ? (schema.safeParse(parseJson(stdout)).data ?? null) : null;
}

function flattenResources(
  resources: readonly RawResource[],
  above: string,
): readonly DeviceResource[] {
  return resources.flatMap(({ name, size, occ, resources: parts = [] }) => [
    { name: `${above}${name}`, size, used: occ ?? null },
    ...flattenResources(parts, `${above}${name}/`),
  ]);
}

/** devlink knows interfaces as ports of a device: `pci/0000:01:00.0/1`. */
async function readDevlink(transport: Transport, device: string): Promise<DevlinkInfo | null> {
  const ports = await readJson(transport, portsSchema, ['devlink', '-j', 'port', 'show']);
  const port = Object.entries(ports?.port ?? {}).find(([, { netdev }]) => netdev === device);
  if (port === undefined) return null;
  const [name] = port;
  const handle = name.slice(0, name.lastIndexOf('/'));
  const shown = await readJson(transport, infoSchema, ['devlink', '-j', 'dev', 'info', handle]);
  const running = shown?.info[handle]?.versions?.running ?? {};
  const show = ['devlink', '-j', 'resource', 'show', handle];
  const tables = await readJson(transport, resourcesSchema, show);
  return {
    handle,
    versions: Object.entries(running).map(([part, version]) => `${part} ${version}`),
    resources: flattenResources(tables?.resources[handle] ?? [], ''),
  };
}

/** What is behind an interface; nothing is changed. */
export async function describeDevice(
  transport: Transport,
  device: string,
): Promise<Result<DeviceDescription>> {
  const inspected = await inspectDevice(transport, device);
  if (!inspected.ok) return inspected;
  const driver = await readDriver(transport, device);
  if (!driver.ok) return driver;
  const show = ['ip', '-j', '-d', 'link', 'show', 'dev', device];
  const link = (await readJson(transport, linkSchema, show))?.[0];
  const description = {
    device,
    ...driver.value,
    linkKind: link?.linkinfo?.info_kind ?? null,
    mtu: link?.mtu ?? null,
    receiveQueues: link?.num_rx_queues ?? null,
    attached: inspected.value.programs.map(({ mode }) => ATTACH_TYPE[mode]),
    devlink: await readDevlink(transport, device),
  };
  return succeed(description, driver.diagnostics);
}

function hasDriver(profile: Profile, driver: string): boolean {
  const named = profile.driver;
  return typeof named === 'string' ? named === driver : (named?.includes(driver) ?? false);
}

/** Why a profile for this very driver fits; null when the firmware is another one. */
function explainDriver(profile: Profile, device: DeviceDescription): string | null {
  const because = `driver ${device.driver ?? ''}`;
  if (profile.kind === 'cbpf' || profile.kind === 'tcam') return because;
  if (profile.firmware === undefined) return because;
  const wanted = profile.firmware.value;
  if (device.firmware === null) return `${because}; needs firmware \`${wanted}\`, it tells none`;
  return device.firmware.includes(wanted) ? `${because}, firmware ${device.firmware}` : null;
}

/** XDP run by the kernel: in the driver where it can, else behind it. */
function chooseKernelXdp(device: DeviceDescription): Pick<FittingProfile, 'kind' | 'why'> {
  const { driver, attached } = device;
  if (attached.includes('xdpdrv')) {
    return { kind: 'xdp-native', why: 'a program runs in the driver now' };
  }
  if (driver !== null && NATIVE_XDP.has(driver)) {
    return { kind: 'xdp-native', why: `driver ${driver} runs XDP programs` };
  }
  const why =
    driver === null
      ? 'works with every device; the driver is not known'
      : `works with every device; driver ${driver} is not known to run XDP programs`;
  return { kind: 'xdp-generic', why };
}

/** Shipped profiles that describe the device, nearest to the wire first. */
export function matchProfiles(
  device: DeviceDescription,
  profiles: readonly Profile[],
): Result<readonly FittingProfile[]> {
  const noticed: Diagnostic[] = [];
  const own: FittingProfile[] = [];
  for (const profile of profiles) {
    if (device.driver === null || !hasDriver(profile, device.driver)) continue;
    const why = explainDriver(profile, device);
    if (why !== null) own.push({ name: profile.name, kind: profile.kind, why });
    else {
      const message = `profile ${profile.name} is for other firmware than ${device.firmware ?? ''}`;
      noticed.push(warning('deploy/other-firmware', message));
    }
  }
  const chosen = chooseKernelXdp(device);
  const general = profiles
    .filter(({ kind, driver }) => kind === chosen.kind && driver === null)
    .map(({ name }) => ({ name, ...chosen }));
  const found = [...own, ...general];
  if (found.length > 0) return succeed(found, noticed);
  const message = `no profile describes ${device.device}`;
  return fail(...noticed, errorAt('deploy/no-profile', message, { help: 'see docs/profiles.md' }));
}
