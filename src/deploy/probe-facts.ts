import { z } from 'zod';
import { type Facts, type LocalAddress, nothingKnown } from '../ir/facts.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { inspectDevice } from './attachment.ts';
import { isFresh } from './conntrack.ts';
import { parseFeatures } from './ethtool-features.ts';
import { parseJson, readSysctls, warning } from './machine.ts';
import { parseAddress } from './parse-address.ts';
import {
  BRIDGES_HAND_UP,
  handsUp,
  type Link,
  linksSchema,
  readBridgePlain,
  readGroup,
  readMac,
  readMaster,
  readVlans,
} from './probe-links.ts';
import type { Transport } from './transport.ts';

const routesSchema = z.array(z.object({ type: z.string().default('unicast'), dst: z.string() }));

/** Strict: a rule with more keys (`iif`, `fwmark`...) does not hold for every packet. */
const firstRuleSchema = z.tuple(
  [z.strictObject({ priority: z.literal(0), src: z.literal('all'), table: z.literal('local') })],
  z.unknown(),
);
async function readJson<T>(
  transport: Transport,
  schema: z.ZodType<T>,
  argv: readonly string[],
): Promise<T | null> {
  const { code, stdout } = await transport.run(argv);
  return code === 0 ? (schema.safeParse(parseJson(stdout)).data ?? null) : null;
}

/** A device that brings in no packets beside those of `device` and of this machine itself. */
function isQuiet({ ifname, flags }: Link, device: string): boolean {
  return ifname === device || ifname === 'lo' || !flags.includes('UP');
}

/** Whether any packet received on these may be forwarded; null when that is not certain. */
async function readForwarding(
  transport: Transport,
  devices: readonly string[],
): Promise<boolean | null> {
  // IPv4 forwards by the input device's own setting, IPv6 by `all` and, since Linux 6.17, by the
  // device's force_forwarding. Multicast routing and proxies need a program that runs beside.
  const v4 = await readSysctls(
    transport,
    devices.map((device) => `ipv4/conf/${device}/forwarding`),
  );
  const v6 = await readIpv6Forwarding(transport, ['all', ...devices]);
  if (v4 === null || v6 === null) return null;
  return [...v4, ...v6].some((value) => value !== 0);
}

async function readIpv6Forwarding(
  transport: Transport,
  scopes: readonly string[],
): Promise<readonly number[] | null> {
  const { code } = await transport.run(['test', '-e', '/proc/sys/net/ipv6/conf/all']);
  if (code === 1) return [];
  const forwarding = await readSysctls(transport, ['ipv6/conf/all/forwarding']);
  const older = await transport.run(['test', '-e', '/proc/sys/net/ipv6/conf/all/force_forwarding']);
  if (forwarding === null || older.code === 1) return forwarding;
  // Devices with a small MTU or without IPv6 have no directory, and `all` is only a way to set all.
  const listed = await transport.run(['ls', '-1', '/proc/sys/net/ipv6/conf']);
  const present = listed.stdout.split('\n').filter((name) => scopes.includes(name));
  const forced = await readSysctls(
    transport,
    present.map((scope) => `ipv6/conf/${scope}/force_forwarding`),
  );
  return forced === null ? null : [...forwarding, ...forced];
}

/** The one prefix that is local as a whole on every machine. */
const LOOPBACK_PREFIX = '127.0.0.0/8';

/** Every address of the machine, or null when more destinations than these are local. */
async function readLocalAddresses(
  transport: Transport,
  links: readonly Link[],
): Promise<readonly LocalAddress[] | null> {
  const texts = links.flatMap(({ addr_info }) => addr_info.flatMap(({ local }) => local ?? []));
  const addresses = new Map(texts.map((text) => [text, parseAddress(text)] as const));
  for (const family of ['-4', '-6']) {
    const show = ['ip', '-j', family, 'route', 'show', 'table', 'local'];
    const routes = await readJson(transport, routesSchema, show);
    // A prefix routed to this machine (AnyIP) makes addresses local that no device has.
    const unexpected = routes?.some(
      ({ type, dst }) => type === 'local' && dst !== LOOPBACK_PREFIX && !addresses.has(dst),
    );
    if (unexpected !== false) return null;
    // `ip` lists rules by priority.
    const rules = await readJson(transport, firstRuleSchema, ['ip', '-j', family, 'rule']);
    if (rules === null) return null;
  }
  const values = [...addresses.values()].filter((address) => address !== null);
  return values.length === addresses.size ? values : null;
}

/** Whether br_netfilter hands packets of this bridge to the layer-3 hooks; null: not certain. */
async function readBrNetfilter(
  transport: Transport,
  bridge: Link | undefined,
): Promise<boolean | null> {
  const { code } = await transport.run(['test', '-e', '/proc/sys/net/bridge']);
  if (code === 1) return false;
  const all = await readSysctls(transport, BRIDGES_HAND_UP);
  if (all === null) return null;
  return all.some((value) => value !== 0) || (bridge !== undefined && handsUp(bridge));
}

const fdbSchema = z.array(z.object({ mac: z.string() }));

/**
 * Whether a device of another namespace listens on this one: a MACVLAN there shows only by its
 * address, which the device below has to let in.
 */
async function hasForeignAddress(transport: Transport, link: Link): Promise<boolean | null> {
  const show = ['bridge', '-j', 'fdb', 'show', 'dev', link.ifname ?? ''];
  const entries = await readJson(transport, fdbSchema, show);
  if (entries === null) return null;
  const isGroup = (mac: string): boolean => (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1;
  return entries.some(({ mac }) => mac !== link.address && !isGroup(mac));
}

/** What takes the device's frames, and what is known of a bridge that does. */
async function probeMaster(
  transport: Transport,
  link: Link,
  links: readonly Link[],
): Promise<Pick<Facts, 'master' | 'masterMac' | 'bridgePlain' | 'brNetfilter'> | null> {
  const master = readMaster(link, links);
  const above = links.find(({ ifname }) => ifname === master?.name);
  if (master?.kind === 'bridge') {
    return {
      master,
      masterMac: above === undefined ? null : readMac(above),
      bridgePlain: above !== undefined && readBridgePlain(link, above, links),
      brNetfilter: await readBrNetfilter(transport, above),
    };
  }
  const none = { masterMac: null, bridgePlain: false, brNetfilter: null };
  if (master !== null) return { master, ...none };
  const foreign = await hasForeignAddress(transport, link);
  if (foreign === null) return null;
  return { master: foreign ? { name: 'elsewhere', kind: 'macvlan' } : null, ...none };
}

/**
 * What is true of this machine for frames received on `device`, as far as it can be read without
 * changing anything; what is not certain is left open. Routes are not looked at (`routed`), and a
 * VLAN device of another namespace is not seen.
 */
export async function probeFacts(transport: Transport, device: string): Promise<Result<Facts>> {
  const inspected = await inspectDevice(transport, device);
  if (!inspected.ok) return inspected;
  const links = await readJson(transport, linksSchema, ['ip', '-j', '-d', 'addr', 'show']);
  const link = links?.find(({ ifname }) => ifname === device);
  if (links === null || link === undefined) {
    const message = '`ip -j addr` says nothing that is understood';
    return fail(errorAt('deploy/strange-output', message));
  }
  const above = await probeMaster(transport, link, links);
  const vlans = readVlans(link, links);
  const upper = [
    ...vlans.flatMap((vlan) => vlan.device ?? []),
    ...(above?.master == null ? [] : [above.master.name]),
  ];
  const names = links.flatMap(({ ifname }) => ifname ?? []);
  const receivers = [device, ...upper].filter((name) => names.includes(name));
  const forwarding = await readForwarding(transport, receivers);
  const localAddresses = await readLocalAddresses(transport, links);
  const filters = await readSysctls(
    transport,
    ['all', ...receivers].map((name) => `ipv4/conf/${name}/rp_filter`),
  );
  const listed = await transport.run(['ethtool', '-k', device]);
  const features = parseFeatures(listed.code === 0 ? listed.stdout : '');
  const off = (...all: readonly string[]): boolean =>
    features.size > 0 && all.every((name) => features.get(name) !== true);
  const certain = forwarding !== null && localAddresses !== null && above !== null;
  const hasVrf = links.some(({ linkinfo }) => linkinfo?.info_kind === 'vrf');
  const role = certain && !hasVrf ? (forwarding ? 'router' : 'host') : null;
  const facts: Facts = {
    ...nothingKnown(device),
    ...above,
    role,
    localAddresses,
    mac: readMac(link),
    groOff: off('generic-receive-offload', 'large-receive-offload', 'rx-gro-hw'),
    rpFilterOff: filters?.every((value) => value === 0) ?? false,
    conntrackFresh: await isFresh(transport),
    soleDevice: links.every((other) => isQuiet(other, device)),
    rxVlanOff: off('rx-vlan-offload', 'rx-vlan-stag-hw-parse'),
    vlans,
    group: readGroup(link),
  };
  const noEthtool = warning(
    'deploy/no-tool',
    `\`ethtool -k ${device}\` does not work here, so receive offloads count as on`,
    'install it: apt-get install ethtool',
  );
  return succeed(facts, features.size === 0 ? [noEthtool] : []);
}
