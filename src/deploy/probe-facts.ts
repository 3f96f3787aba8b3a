import { z } from 'zod';
import type { Facts, LocalAddress } from '../ir/facts.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { inspectDevice } from './attachment.ts';
import { isFresh } from './conntrack.ts';
import { parseFeatures } from './ethtool-features.ts';
import { parseJson, readSysctls, warning } from './machine.ts';
import { parseAddress } from './parse-address.ts';
import type { Transport } from './transport.ts';

const linksSchema = z.array(
  z.object({
    ifname: z.string().optional(),
    /** The device below, or a veth's other end. */
    link: z.string().optional(),
    link_type: z.string().default(''),
    address: z.string().default(''),
    master: z.string().optional(),
    flags: z.array(z.string()).default([]),
    linkinfo: z.object({ info_kind: z.string().default('') }).optional(),
    addr_info: z.array(z.object({ local: z.string().optional() })).default([]),
  }),
);
type Link = z.output<typeof linksSchema>[number];

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

/** Whether any packet may be forwarded; null when that is not certain. */
async function readForwarding(
  transport: Transport,
  devices: readonly string[],
): Promise<boolean | null> {
  const scopes = ['all', ...devices];
  // IPv4 forwards by the input device's own setting, IPv6 by `all` and, since Linux 6.17, by the
  // device's force_forwarding. Multicast routing and proxies need a program that runs beside.
  const v4 = await readSysctls(
    transport,
    scopes.map((scope) => `ipv4/conf/${scope}/forwarding`),
  );
  const v6 = await readIpv6Forwarding(transport, scopes);
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

/** Kinds of device that take frames of the device below before its own hooks. */
const TAKES_FRAMES = ['macvlan', 'macvtap', 'ipvlan', 'ipvtap', 'hsr'];

/** Frames of this device are the machine's own: no bridge, bond, VRF or MACVLAN takes them. */
function isPlain(device: Link, links: readonly Link[]): boolean {
  const kind = ({ linkinfo }: Link): string => linkinfo?.info_kind ?? '';
  const taken = links.some(
    (link) => link.link === device.ifname && TAKES_FRAMES.includes(kind(link)),
  );
  return device.master === undefined && !taken && !links.some((link) => kind(link) === 'vrf');
}

function parseMac(link: Link): bigint | null {
  const hex = link.address.replaceAll(':', '');
  return link.link_type === 'ether' && /^[0-9a-f]{12}$/.test(hex) ? BigInt(`0x${hex}`) : null;
}

/**
 * What is true of this machine for frames received on `device`, as far as it can be read without
 * changing anything; what is not certain is left open. Routes are not looked at (`routed`).
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
  const names = links.flatMap(({ ifname }) => ifname ?? []);
  const forwarding = await readForwarding(transport, names);
  const localAddresses = await readLocalAddresses(transport, links);
  const filters = await readSysctls(transport, [
    'ipv4/conf/all/rp_filter',
    `ipv4/conf/${device}/rp_filter`,
  ]);
  const listed = await transport.run(['ethtool', '-k', device]);
  const features = parseFeatures(listed.code === 0 ? listed.stdout : '');
  const off = (...all: readonly string[]): boolean =>
    features.size > 0 && all.every((name) => features.get(name) !== true);
  const certain = forwarding !== null && localAddresses !== null && isPlain(link, links);
  const role = certain ? (forwarding ? 'router' : 'host') : null;
  const facts: Facts = {
    device,
    role,
    localAddresses,
    mac: parseMac(link),
    groOff: off('generic-receive-offload', 'large-receive-offload', 'rx-gro-hw'),
    rpFilterOff: filters?.every((value) => value === 0) ?? false,
    routed: false,
    conntrackFresh: await isFresh(transport),
    soleDevice: links.every((other) => isQuiet(other, device)),
    rxVlanOff: off('rx-vlan-offload', 'rx-vlan-stag-hw-parse'),
  };
  const noEthtool = warning(
    'deploy/no-tool',
    `\`ethtool -k ${device}\` does not work here, so receive offloads count as on`,
    'install it: apt-get install ethtool',
  );
  return succeed(facts, features.size === 0 ? [noEthtool] : []);
}
