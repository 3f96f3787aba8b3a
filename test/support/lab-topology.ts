import type { Vlan } from '../../src/ir/facts.ts';
import { withElfFile } from './elf-file.ts';
import { type LabNamespaces, runInside } from './lab-network.ts';
import type { OracleTopology } from './lab-oracle.ts';
import { minimalXdpObject } from './minimal-elf.ts';

/** What a lab's receiver has on top of `eth0`. */
export type Topology = 'plain' | 'vlan' | 'bridge';

/** The VLAN devices of topology `vlan`. */
export const LAB_VLANS: readonly Vlan[] = [
  { protocol: 0x8100, id: 5, device: 'eth0.5' },
  { protocol: 0x88a8, id: 7, device: 'eth0.7' },
];

/** MAC of `br0`, which `eth0` is a port of in topology `bridge`. */
export const BRIDGE_MAC = '02:00:00:00:03:01';

/** One struct bpf_insn (include/uapi/linux/bpf.h): opcode 8, registers 4 + 4, offset 16, value 32. */
function insn(opcode: number, dst: number, src: number, offset: number, value: number): bigint {
  const registers = BigInt(dst | (src << 4));
  return (
    BigInt(opcode) |
    (registers << 8n) |
    (BigInt.asUintN(16, BigInt(offset)) << 16n) |
    (BigInt.asUintN(32, BigInt(value)) << 32n)
  );
}

/** Takes four bytes out behind the addresses, as `skb_vlan_untag` does. */
const POP_TAG: readonly bigint[] = [
  insn(0x61, 2, 1, 0, 0), // r2 = data
  insn(0x61, 3, 1, 4, 0), // r3 = data_end
  insn(0xbf, 4, 2, 0, 0), // r4 = r2
  insn(0x07, 4, 0, 0, 18), // r4 += 18
  insn(0x2d, 4, 3, 6, 0), // if r4 > r3 goto pass
  insn(0x79, 5, 2, 0, 0), // r5 = *(u64 *)(r2 + 0)
  insn(0x61, 0, 2, 8, 0), // r0 = *(u32 *)(r2 + 8)
  insn(0x7b, 2, 5, 4, 0), // *(u64 *)(r2 + 4) = r5
  insn(0x63, 2, 0, 12, 0), // *(u32 *)(r2 + 12) = r0
  insn(0xb7, 2, 0, 0, 4), // r2 = 4
  insn(0x85, 0, 0, 0, 44), // bpf_xdp_adjust_head
  insn(0xb7, 0, 0, 0, 2), // pass: r0 = XDP_PASS
  insn(0x95, 0, 0, 0, 0), // exit
];

function matchTag({ protocol, id }: Vlan): string {
  return protocol === 0x8100 ? `vlan id ${id}` : `ether type 8021ad vlan id ${id}`;
}

const LAB_MAC_TEXT = '02:00:00:00:00:01';

const QUIET = [
  ...'gro gso tso rx tx sg rxvlan txvlan rx-udp-gro-forwarding rx-gro-list'.split(' '),
  ...['tx-vlan-stag-hw-insert', 'rx-vlan-stag-hw-parse'],
];

function quiet(device: string): string {
  return QUIET.map((name) => `ethtool -K ${device} ${name} off 2>/dev/null || :`).join('\n');
}

/** Shell lines: no filter, no autoconfiguration, forwarding as on the other devices. */
function settle(device: string, router: boolean): string {
  const forward = router ? 1 : 0;
  return `
echo 0 > /proc/sys/net/ipv4/conf/${device}/rp_filter
echo 0 > /proc/sys/net/ipv4/conf/${device}/send_redirects
echo ${forward} > /proc/sys/net/ipv4/conf/${device}/forwarding
echo 0 > /proc/sys/net/ipv6/conf/${device}/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/${device}/accept_ra
echo 0 > /proc/sys/net/ipv6/conf/${device}/router_solicitations
${quiet(device)}
ip link set ${device} up
`;
}

async function addRealVlan(receiver: string, vlan: Vlan): Promise<boolean> {
  const protocol = vlan.protocol === 0x8100 ? '802.1Q' : '802.1ad';
  const kind = ['type', 'vlan', 'proto', protocol, 'id', `${vlan.id}`];
  const name = vlan.device ?? '';
  try {
    await runInside(receiver, ['ip', 'link', 'add', 'link', 'eth0', 'name', name, ...kind]);
    return true;
  } catch {
    return false;
  }
}

/**
 * Where the kernel has no VLAN devices, a veth of that name plays one: what has the tag and got past
 * the ingress hook of `eth0` is sent to it by nftables, and a program there takes the tag off.
 */
async function addPlayedVlan(receiver: string, vlan: Vlan): Promise<string> {
  const name = vlan.device ?? '';
  const feeder = `to${vlan.id}`;
  await runInside(
    receiver,
    ['sh', '-eu'],
    `ip link add ${name} address ${LAB_MAC_TEXT} type veth peer name ${feeder}
echo 1 > /proc/sys/net/ipv6/conf/${feeder}/disable_ipv6
${quiet(feeder)}
ip link set ${feeder} up
`,
  );
  await withElfFile(minimalXdpObject(POP_TAG), (path) =>
    runInside(receiver, ['ip', 'link', 'set', 'dev', name, 'xdpdrv', 'obj', path, 'sec', 'xdp']),
  );
  return `${matchTag(vlan)} fwd to "${feeder}"`;
}

async function addVlans(receiver: string, router: boolean): Promise<OracleTopology> {
  const lastAtIngress: string[] = [];
  for (const vlan of LAB_VLANS) {
    if (!(await addRealVlan(receiver, vlan))) {
      lastAtIngress.push(await addPlayedVlan(receiver, vlan));
    }
    await runInside(receiver, ['sh', '-eu'], settle(vlan.device ?? '', router));
  }
  const upper = LAB_VLANS.flatMap(({ device }) => device ?? []);
  return { upper, isBridge: false, lastAtIngress };
}

/** `eth0` and a port that leads to the sender, in a bridge that has the addresses of `eth0`. */
async function addBridge(
  { receiver, sender }: LabNamespaces,
  router: boolean,
): Promise<OracleTopology> {
  await runInside(
    receiver,
    ['sh', '-eu'],
    `ip link add br0 address ${BRIDGE_MAC} type bridge mcast_snooping 0
ip address flush dev eth0
echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6
ip link add port1 type veth peer name port1 netns ${sender}
echo 1 > /proc/sys/net/ipv6/conf/port1/disable_ipv6
${quiet('port1')}
ip link set port1 master br0 up
ip link set eth0 master br0
${settle('br0', router)}
ip address add 10.0.0.1/24 dev br0
ip address add 2001:db8::1/64 dev br0 nodad
for name in iptables ip6tables arptables; do
  echo 0 > /proc/sys/net/bridge/bridge-nf-call-$name 2>/dev/null || :
done
`,
  );
  await runInside(sender, ['ip', 'link', 'set', 'port1', 'up']);
  return { upper: ['br0'], isBridge: true, lastAtIngress: [] };
}

/** Puts the devices of a topology on top of the receiver's `eth0`. */
export async function addTopology(
  topology: Topology,
  namespaces: LabNamespaces,
  router: boolean,
): Promise<OracleTopology> {
  switch (topology) {
    case 'plain':
      return { upper: [], isBridge: false, lastAtIngress: [] };
    case 'vlan':
      return addVlans(namespaces.receiver, router);
    case 'bridge':
      return addBridge(namespaces, router);
  }
}
