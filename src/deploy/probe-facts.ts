import { z } from 'zod';
import { type Facts, type LocalAddress, nothingKnown } from '../ir/facts.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { inspectDevice } from './attachment.ts';
import { FLOW_COUNT, knowsNoFlow } from './conntrack.ts';
import { checkDeviceName } from './device-name.ts';
import { parseFeatures } from './ethtool-features.ts';
import { lookAt, parseSettings, program, readJson, settings } from './looks.ts';
import { sysctlPath, warning } from './machine.ts';
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
import type { CommandResult, Transport } from './transport.ts';

const routesSchema = z.array(z.object({ type: z.string().default('unicast'), dst: z.string() }));

/** Strict: a rule with more keys (`iif`, `fwmark`...) does not hold for every packet. */
const firstRuleSchema = z.tuple(
  [z.strictObject({ priority: z.literal(0), src: z.literal('all'), table: z.literal('local') })],
  z.unknown(),
);
/** A device that brings in no packets beside those of `device` and of this machine itself. */
function isQuiet({ ifname, flags }: Link, device: string): boolean {
  return ifname === device || ifname === 'lo' || !flags.includes('UP');
}

const IPV4 = '/proc/sys/net/ipv4/conf';
const IPV6 = '/proc/sys/net/ipv6/conf';

/** What decides whether packets received on these devices are forwarded, or asked for their way back. */
function deviceSettings(devices: readonly string[]): readonly string[] {
  return devices.flatMap((device) => [
    `${IPV4}/${device}/forwarding`,
    `${IPV4}/${device}/rp_filter`,
    `${IPV6}/${device}/force_forwarding`,
  ]);
}

/** All that is looked at, by one script. */
function factLooks(device: string) {
  return {
    links: program('ip', '-j', '-d', 'addr', 'show'),
    fdb: program('bridge', '-j', 'fdb', 'show', 'dev', device),
    routes4: program('ip', '-j', '-4', 'route', 'show', 'table', 'local'),
    rules4: program('ip', '-j', '-4', 'rule'),
    routes6: program('ip', '-j', '-6', 'route', 'show', 'table', 'local'),
    rules6: program('ip', '-j', '-6', 'rule'),
    features: program('ethtool', '-k', device),
    settings: settings([
      ...deviceSettings(['all', device]),
      `${IPV6}/all/forwarding`,
      ...[...BRIDGES_HAND_UP, FLOW_COUNT].map(sysctlPath),
    ]),
  };
}

type Seen = Readonly<Record<keyof ReturnType<typeof factLooks>, CommandResult>>;

/** Settings that exist, by file. */
type Settings = ReadonlyMap<string, number>;

/** Settings of everything in `seen`, and of the devices above; null where one cannot be read. */
async function readSettings(
  transport: Transport,
  seen: Seen,
  above: readonly string[],
): Promise<Settings | null> {
  const first = parseSettings(seen.settings);
  if (first === null || above.length === 0) return first;
  const more = await lookAt(transport, { settings: settings(deviceSettings(above)) });
  const second = parseSettings(more.settings);
  return second === null ? null : new Map([...first, ...second]);
}

/** Whether any packet received on these may be forwarded; null when that is not certain. */
function readForwarding(found: Settings, devices: readonly string[]): boolean | null {
  // IPv4 forwards by the input device's own setting, IPv6 by `all` and, since Linux 6.17, by the
  // device's force_forwarding. Multicast routing and proxies need a program that runs beside.
  const v4 = devices.map((device) => found.get(`${IPV4}/${device}/forwarding`));
  if (v4.some((value) => value === undefined)) return null;
  // Devices with a small MTU or without IPv6 have no directory, and `all` is only a way to set all.
  const forced = ['all', ...devices].map((scope) => found.get(`${IPV6}/${scope}/force_forwarding`));
  const v6 = [found.get(`${IPV6}/all/forwarding`), ...forced];
  return [...v4, ...v6].some((value) => value !== undefined && value !== 0);
}

/** The one prefix that is local as a whole on every machine. */
const LOOPBACK_PREFIX = '127.0.0.0/8';

/** Every address of the machine, or null when more destinations than these are local. */
function readLocalAddresses(seen: Seen, links: readonly Link[]): readonly LocalAddress[] | null {
  const texts = links.flatMap(({ addr_info }) => addr_info.flatMap(({ local }) => local ?? []));
  const addresses = new Map(texts.map((text) => [text, parseAddress(text)] as const));
  for (const [shown, ruled] of [
    [seen.routes4, seen.rules4],
    [seen.routes6, seen.rules6],
  ] as const) {
    const routes = readJson(shown, routesSchema);
    // A prefix routed to this machine (AnyIP) makes addresses local that no device has.
    const unexpected = routes?.some(
      ({ type, dst }) => type === 'local' && dst !== LOOPBACK_PREFIX && !addresses.has(dst),
    );
    if (unexpected !== false) return null;
    // `ip` lists rules by priority.
    if (readJson(ruled, firstRuleSchema) === null) return null;
  }
  const values = [...addresses.values()].filter((address) => address !== null);
  return values.length === addresses.size ? values : null;
}

/** What `BRIDGES_HAND_UP` is set to; null where there is no br_netfilter. */
function readHandUp(found: Settings): readonly number[] | null {
  const values = BRIDGES_HAND_UP.flatMap((setting) => found.get(sysctlPath(setting)) ?? []);
  return values.length === 0 ? null : values;
}

/** Whether br_netfilter hands packets of this bridge to the layer-3 hooks; null: not certain. */
function readBrNetfilter(found: Settings | null, bridge: Link | undefined): boolean | null {
  if (found === null) return null;
  const all = readHandUp(found);
  if (all === null) return false;
  return all.some((value) => value !== 0) || (bridge !== undefined && handsUp(bridge));
}

const fdbSchema = z.array(z.object({ mac: z.string() }));

/**
 * Whether a device of another namespace listens on this one: a MACVLAN there shows only by its
 * address, which the device below has to let in.
 */
function hasForeignAddress(seen: Seen, link: Link): boolean | null {
  const entries = readJson(seen.fdb, fdbSchema);
  if (entries === null) return null;
  const isGroup = (mac: string): boolean => (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1;
  return entries.some(({ mac }) => mac !== link.address && !isGroup(mac));
}

/** What takes the device's frames, and what is known of a bridge that does. */
function probeMaster(
  seen: Seen,
  found: Settings | null,
  link: Link,
  links: readonly Link[],
): Pick<Facts, 'master' | 'masterMac' | 'bridgePlain' | 'brNetfilter'> | null {
  const master = readMaster(link, links);
  const above = links.find(({ ifname }) => ifname === master?.name);
  if (master?.kind === 'bridge') {
    return {
      master,
      masterMac: above === undefined ? null : readMac(above),
      bridgePlain: above !== undefined && readBridgePlain(link, above, links),
      brNetfilter: readBrNetfilter(found, above),
    };
  }
  const none = { masterMac: null, bridgePlain: false, brNetfilter: null };
  if (master !== null) return { master, ...none };
  const foreign = hasForeignAddress(seen, link);
  if (foreign === null) return null;
  return { master: foreign ? { name: 'elsewhere', kind: 'macvlan' } : null, ...none };
}

/**
 * What is true of this machine for frames received on `device`, as far as it can be read without
 * changing anything; what is not certain is left open. Routes are not looked at (`routed`), and a
 * VLAN device of another namespace is not seen.
 */
export async function probeFacts(transport: Transport, device: string): Promise<Result<Facts>> {
  const bad = checkDeviceName(device);
  if (bad !== null) return fail(bad);
  const seen = await lookAt(transport, factLooks(device));
  const links = readJson(seen.links, linksSchema);
  const link = links?.find(({ ifname }) => ifname === device);
  if (links === null || link === undefined) {
    const inspected = await inspectDevice(transport, device);
    if (!inspected.ok) return inspected;
    const message = '`ip -j addr` says nothing that is understood';
    return fail(errorAt('deploy/strange-output', message));
  }
  const vlans = readVlans(link, links);
  const names = links.flatMap(({ ifname }) => ifname ?? []);
  const master = readMaster(link, links);
  const upper = [...vlans.flatMap((vlan) => vlan.device ?? []), master?.name ?? ''];
  const receivers = upper.filter((name) => names.includes(name));
  const found = await readSettings(transport, seen, receivers);
  const above = probeMaster(seen, found, link, links);
  const forwarding = found === null ? null : readForwarding(found, [device, ...receivers]);
  const localAddresses = readLocalAddresses(seen, links);
  const filters = ['all', device, ...receivers].map((name) =>
    found?.get(`${IPV4}/${name}/rp_filter`),
  );
  const features = parseFeatures(seen.features.code === 0 ? seen.features.stdout : '');
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
    rpFilterOff: filters.every((value) => value === 0),
    conntrackFresh:
      found !== null &&
      knowsNoFlow(
        found.get(sysctlPath(FLOW_COUNT)) ?? null,
        links.filter(({ linkinfo }) => linkinfo?.info_kind === 'bridge'),
        readHandUp(found),
      ),
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
