import { z } from 'zod';
import { type Master, MOST_VLAN_ID, type Vlan } from '../ir/facts.ts';

/** Other kinds of device use the same names for other things. */
function field<T>(schema: z.ZodType<T>) {
  return schema.optional().catch(undefined);
}

/** `ip -j -d addr show`, as far as it matters; numbers that older kernels leave out are optional. */
export const linksSchema = z.array(
  z.object({
    ifname: z.string().optional(),
    /** The device below, or a veth's other end. */
    link: z.string().optional(),
    link_type: z.string().default(''),
    address: z.string().default(''),
    master: z.string().optional(),
    /** `default`, a name of /etc/iproute2/group, or a number. */
    group: z.string().optional(),
    flags: z.array(z.string()).default([]),
    linkinfo: z
      .object({
        info_kind: z.string().default(''),
        info_data: z
          .object({
            protocol: field(z.string()),
            id: field(z.number()),
            flags: field(z.array(z.string())),
            stp_state: field(z.number()),
            vlan_filtering: field(z.number()),
            nf_call_iptables: field(z.number()),
            nf_call_ip6tables: field(z.number()),
          })
          .optional(),
        info_slave_data: z
          .object({
            state: field(z.string()),
            locked: field(z.boolean()),
            vlan_tunnel: field(z.boolean()),
          })
          .optional(),
      })
      .optional(),
    addr_info: z.array(z.object({ local: z.string().optional() })).default([]),
  }),
);

/** One device. */
export type Link = z.output<typeof linksSchema>[number];

function kindOf({ linkinfo }: Link): string {
  return linkinfo?.info_kind ?? '';
}

/** Kinds of device that take frames of the device below before its own hooks. */
const TAKES_FRAMES = ['macvlan', 'macvtap', 'ipvlan', 'ipvtap', 'hsr'];

/** What takes all or some of the device's frames behind its ingress hook, or null. */
export function readMaster(device: Link, links: readonly Link[]): Master | null {
  if (device.master !== undefined) {
    const above = links.find(({ ifname }) => ifname === device.master);
    const kind = above === undefined ? '' : kindOf(above);
    return { name: device.master, kind: kind === '' ? 'other' : kind };
  }
  const taker = links.find(
    (link) => link.link === device.ifname && TAKES_FRAMES.includes(kindOf(link)),
  );
  return taker?.ifname === undefined ? null : { name: taker.ifname, kind: kindOf(taker) };
}

/** A VLAN device that only takes its tag off: the port's address, up, nothing above it. */
function isPlainVlan(vlan: Link, port: Link, links: readonly Link[]): boolean {
  const flags = vlan.linkinfo?.info_data?.flags ?? [];
  return (
    vlan.address === port.address &&
    vlan.flags.includes('UP') &&
    flags.includes('REORDER_HDR') &&
    readMaster(vlan, links) === null
  );
}

/** The VLAN devices on top of a device. */
export function readVlans(port: Link, links: readonly Link[]): readonly Vlan[] {
  return links.flatMap((vlan) => {
    const data = vlan.linkinfo?.info_data;
    if (kindOf(vlan) !== 'vlan' || vlan.link !== port.ifname || data === undefined) return [];
    const { id = -1 } = data;
    if (!Number.isInteger(id) || id < 0 || id > MOST_VLAN_ID) return [];
    const protocol = data.protocol?.toLowerCase() === '802.1ad' ? 0x88a8 : 0x8100;
    const device = isPlainVlan(vlan, port, links) ? (vlan.ifname ?? null) : null;
    return [{ protocol, id, device }];
  });
}

/**
 * Whether a bridge hands up what is for its own addresses and forwards the rest by its table:
 * nothing above it, no spanning tree, no VLAN filter, an ordinary port that forwards.
 */
export function readBridgePlain(port: Link, bridge: Link, links: readonly Link[]): boolean {
  const data = bridge.linkinfo?.info_data;
  const slave = port.linkinfo?.info_slave_data;
  return (
    data?.stp_state === 0 &&
    (data.vlan_filtering ?? 0) === 0 &&
    slave?.state === 'forwarding' &&
    slave.locked !== true &&
    slave.vlan_tunnel !== true &&
    readMaster(bridge, links) === null
  );
}

/** Settings under net/ that make every bridge hand its packets to layer 3 (br_netfilter). */
export const BRIDGES_HAND_UP = [
  'bridge/bridge-nf-call-iptables',
  'bridge/bridge-nf-call-ip6tables',
] as const;

/** Whether this bridge does so by a setting of its own. */
export function handsUp({ linkinfo }: Link): boolean {
  const { nf_call_iptables: v4 = 0, nf_call_ip6tables: v6 = 0 } = linkinfo?.info_data ?? {};
  return v4 !== 0 || v6 !== 0;
}

/** The device's own Ethernet address, 48 bits. */
export function readMac(link: Link): bigint | null {
  const hex = link.address.replaceAll(':', '');
  return link.link_type === 'ether' && /^[0-9a-f]{12}$/.test(hex) ? BigInt(`0x${hex}`) : null;
}

/** The device's group where `ip` shows its number. */
export function readGroup({ group }: Link): number | null {
  if (group === 'default') return 0;
  return group !== undefined && /^\d+$/.test(group) ? Number(group) : null;
}
