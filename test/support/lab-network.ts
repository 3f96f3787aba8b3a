import { execFileSync } from 'node:child_process';
import { threadId } from 'node:worker_threads';
import { runCommand } from './run-command.ts';

/** MAC of the receiving device, `eth0` in the lab's receiver; frames go here by default. */
export const LAB_MAC = new Uint8Array([0x02, 0, 0, 0, 0, 0x01]);

/** The receiver's addresses (facts of the lab, as in its set-up script). */
export const LAB_ADDRESSES = {
  eth0: { ip: '10.0.0.1', ip6: '2001:db8::1' },
  eth1: { ip: '10.0.1.1', ip6: '2001:db8:1::1' },
} as const;

const PAIRS = [
  { name: 'eth0', receiver: '02:00:00:00:00:01', sender: '02:00:00:00:00:02' },
  { name: 'eth1', receiver: '02:00:00:00:01:01', sender: '02:00:00:00:01:02' },
  { name: 'sync0', receiver: '02:00:00:00:02:01', sender: '02:00:00:00:02:02' },
] as const;

// Switching off what does not exist on some kernels is not an error.
function quietDevice(name: string): string {
  const features = 'gro gso tso rx tx sg rxvlan txvlan rx-udp-gro-forwarding rx-gro-list'.split(
    ' ',
  );
  return features.map((feature) => `ethtool -K ${name} ${feature} off 2>/dev/null || :`).join('\n');
}

/** Shell lines (inside the sender's namespace) that make the veth pairs and silence the sender. */
function senderSetup(receiver: string): string {
  const pairs = PAIRS.map(
    (pair) => `ip link add ${pair.name} address ${pair.sender} type veth \\
  peer name ${pair.name} address ${pair.receiver} netns ${receiver}
${quietDevice(pair.name)}
ip link set ${pair.name} up`,
  );
  return `echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
${pairs.join('\n')}
`;
}

/**
 * Shell lines (inside the receiver's namespace): addresses, no reverse path filter, no duplicate
 * address detection, nothing sent unasked that could show up in a counter.
 */
function receiverSetup(router: boolean): string {
  const forward = router ? 1 : 0;
  return `
for scope in all default eth0 eth1 sync0; do
  echo 0 > /proc/sys/net/ipv4/conf/$scope/rp_filter
  echo 0 > /proc/sys/net/ipv4/conf/$scope/send_redirects
  echo 0 > /proc/sys/net/ipv6/conf/$scope/accept_dad
  echo 0 > /proc/sys/net/ipv6/conf/$scope/accept_ra
  echo 0 > /proc/sys/net/ipv6/conf/$scope/router_solicitations
done
echo ${forward} > /proc/sys/net/ipv4/ip_forward
echo ${forward} > /proc/sys/net/ipv6/conf/all/forwarding
echo 1 > /proc/sys/net/ipv6/conf/sync0/disable_ipv6
${PAIRS.map((pair) => quietDevice(pair.name)).join('\n')}
ip link set lo up
ip link set eth0 up
ip link set eth1 arp ${router ? 'off' : 'on'} up
ip link set sync0 arp off up
ip address add 10.0.0.1/24 dev eth0
ip address add 10.0.1.1/24 dev eth1
ip address add 2001:db8::1/64 dev eth0 nodad
ip address add 2001:db8:1::1/64 dev eth1 nodad
${
  router
    ? `ip route add default via 10.0.1.2 dev eth1
ip route add default via 2001:db8:1::2 dev eth1`
    : ''
}
`;
}

/** The lab's two namespaces, by name. */
export interface LabNamespaces {
  readonly receiver: string;
  readonly sender: string;
  close(): Promise<void>;
}

/** Runs a command inside a namespace and gives its standard output. */
export function runInside(
  netns: string,
  args: readonly string[],
  input: string | null = null,
): Promise<Buffer> {
  return runCommand('nsenter', [`--net=/run/netns/${netns}`, ...args], input);
}

let opened = 0;

/** Makes both namespaces; they go with `close`, or when the process exits without it. */
export async function openLabNamespaces(router: boolean): Promise<LabNamespaces> {
  const name = `nfo-${process.pid}-${threadId}-${opened}`;
  opened += 1;
  const receiver = `${name}-K`;
  const sender = `${name}-W`;
  const made: string[] = [];
  const deleteOnExit = () => {
    for (const netns of made) execFileSync('ip', ['netns', 'delete', netns]);
  };
  process.once('exit', deleteOnExit);
  const close = async () => {
    process.removeListener('exit', deleteOnExit);
    for (const netns of made.splice(0)) await runCommand('ip', ['netns', 'delete', netns]);
  };
  try {
    for (const netns of [receiver, sender]) {
      await runCommand('ip', ['netns', 'add', netns]);
      made.push(netns);
    }
    await runInside(sender, ['sh', '-eu'], senderSetup(receiver));
    await runInside(receiver, ['sh', '-eu'], receiverSetup(router));
  } catch (error) {
    await close();
    throw error;
  }
  return { receiver, sender, close };
}
