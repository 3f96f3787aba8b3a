import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { threadId } from 'node:worker_threads';
import { PROGRAM } from '../../src/backends/ebpf-offload/compile.ts';
import { deployXdp } from '../../src/deploy/deploy.ts';
import { ownerOf } from '../../src/deploy/owner-counts.ts';
import { probeFacts } from '../../src/deploy/probe-facts.ts';
import { type StatusReport, statusXdp } from '../../src/deploy/status.ts';
import { openLocalTransport } from '../../src/deploy/transport.ts';
import type { Facts } from '../../src/ir/facts.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { readListing } from '../../src/nft/read-listing.ts';
import { placeXdp, type Situation } from '../../src/plan/place.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { unwrap } from './pipeline.ts';
import { runCommand } from './run-command.ts';

const FLOWS = fileURLToPath(new URL('./socket-flows.py', import.meta.url));

/** What `socket-flows.py` found, by scenario and IP version: `ok`, or what went wrong first. */
export type Outcomes = Readonly<Record<string, string>>;

/** Who `far` talks to: a host; a router itself; a machine behind a router, with or without NAT. */
export type Scene = 'host' | 'router' | 'behind' | 'behind NAT';

/** Where the program runs: in the driver, or in the stack. */
export type SocketMode = 'native' | 'generic';

/** A connection that outlives rulesets and programs. */
export interface HeldConnection {
  /** Sends both ways; `ok`, or what went wrong. */
  talk(): Promise<string>;
  close(): Promise<void>;
}

/**
 * Namespaces in a row: the machine with the rules and our program on its `eth0`, `far` at the other
 * end, `beyond` one hop behind that; behind a router also `near`, on its `eth1`.
 */
export interface SocketLab {
  /** Commands on the machine with the rules; throws when one fails. */
  run(...argv: readonly string[]): Promise<string>;
  loadRuleset(text: string): Promise<Ruleset>;
  probe(): Promise<Facts>;
  /** Compiles for `eth0` and attaches, as `deploy` does; natively unless told. */
  deploy(situation: Situation, mode?: SocketMode): Promise<void>;
  status(): Promise<StatusReport>;
  /** Frames that eth0's driver says XDP dropped; it counts for native programs alone. */
  xdpDrops(): Promise<number>;
  /** Runs all flows at once, or those with these names. */
  flows(only?: readonly string[]): Promise<Outcomes>;
  /** Opens a connection from `far` to port 5000 and keeps it. */
  hold(): Promise<HeldConnection>;
  close(): Promise<void>;
}

interface Addresses {
  readonly near: string;
  /** What `far` calls it. */
  readonly reach: string;
  readonly far: string;
  readonly beyond: string;
}

function addressesIn(scene: Scene): Readonly<Record<4 | 6, Addresses>> {
  const inside = scene.startsWith('behind');
  const both = (near: string, behind: string, far: string, beyond: string): Addresses => ({
    near: inside ? behind : near,
    reach: scene === 'behind' ? behind : near,
    far,
    beyond,
  });
  return {
    4: both('10.0.0.1', '10.0.5.2', '10.0.0.2', '10.0.9.2'),
    6: both('2001:db8::1', '2001:db8:5::2', '2001:db8::2', '2001:db8:9::2'),
  };
}

const QUIET = ['all', 'default'].flatMap((scope) => [
  `ipv4/conf/${scope}/rp_filter 0`,
  `ipv4/conf/${scope}/send_redirects 0`,
  `ipv6/conf/${scope}/accept_dad 0`,
  `ipv6/conf/${scope}/accept_ra 0`,
  `ipv6/conf/${scope}/router_solicitations 0`,
]);
// The kernel's own answers (port unreachable, resets) are not to be counted out.
const ANSWERS = ['ipv4/icmp_ratelimit 0', 'ipv6/icmp/ratelimit 0'];
const FORWARDING = ['ipv4/ip_forward 1', 'ipv6/conf/all/forwarding 1'];

/** One packet on the wire is one packet for every hook, and no tag is taken out of it. */
const OFFLOADS = 'gro off gso off tso off tx off rxvlan off rx-vlan-stag-hw-parse off txvlan off';

/** Loses packet `which` of every `of`, counted for each IP version. */
function lose(match: string, of: number, which: number): string {
  return ['ipv4', 'ipv6']
    .map((version) => `    meta nfproto ${version} ${match} numgen inc mod ${of} ${which} drop`)
    .join('\n');
}

/** What `far` loses: see the scenarios `*_lossy` and `tcp_simultaneous_open`. */
const LOSSES = `table inet losses {
  chain input {
    type filter hook input priority 0;
    tcp dport 6011 tcp flags & (syn | ack) == syn drop
${lose('tcp sport 5010', 4, 0)}
${lose('tcp dport 6010', 4, 0)}
  }
  chain output {
    type filter hook output priority 0;
${lose('tcp dport 5010', 5, 3)}
${lose('tcp sport 6010', 5, 3)}
  }
}`;

interface Names {
  readonly machine: string;
  readonly near: string;
  readonly far: string;
  readonly beyond: string;
}

/** Shell lines for one namespace; `commands` are for `ip -batch`. */
function setUp(
  netns: string,
  sysctls: readonly string[],
  commands: readonly string[],
  plain: readonly string[],
): string {
  const settings = [...QUIET, ...ANSWERS, ...sysctls].map((setting) => {
    const [path, value] = setting.split(' ');
    return `echo ${value} > /proc/sys/net/${path}`;
  });
  return `nsenter --net=/run/netns/${netns} sh -eu <<'END'
${settings.join('\n')}
ip -batch - <<'IP'
link set lo up
${commands.join('\n')}
IP
${plain.map((device) => `ethtool -K ${device} ${OFFLOADS} >/dev/null`).join('\n')}
END
`;
}

/** Brings a device up with both addresses. */
function up(device: string, v4: string, v6: string): readonly string[] {
  return [
    `link set ${device} up`,
    `address add ${v4}/24 dev ${device}`,
    `address add ${v6}/64 dev ${device} nodad`,
  ];
}

function routeBy(v4: string, v6: string): readonly string[] {
  return [`route add default via ${v4}`, `route add default via ${v6}`];
}

function layout(scene: Scene, { machine, near, far, beyond }: Names): string {
  const inside = scene.startsWith('behind');
  const pair = (device: string, peer: string, netns: string): string =>
    `link add ${device} type veth peer name ${peer} netns ${netns}`;
  const machineSide = [
    pair('eth0', 'eth0', far),
    ...up('eth0', '10.0.0.1', '2001:db8::1'),
    ...routeBy('10.0.0.2', '2001:db8::2'),
    ...(inside ? [pair('eth1', 'eth0', near), ...up('eth1', '10.0.5.1', '2001:db8:5::1')] : []),
  ];
  const farSide = [
    pair('eth1', 'eth0', beyond),
    ...up('eth0', '10.0.0.2', '2001:db8::2'),
    ...up('eth1', '10.0.9.1', '2001:db8:9::1'),
    'route replace 10.0.9.0/24 dev eth1 src 10.0.9.1 mtu lock 1400',
    'route replace 2001:db8:9::/64 dev eth1 metric 256 mtu 1400',
    ...(scene === 'behind'
      ? ['route add 10.0.5.0/24 via 10.0.0.1', 'route add 2001:db8:5::/64 via 2001:db8::1']
      : []),
  ];
  const beyondSide = [
    ...up('eth0', '10.0.9.2', '2001:db8:9::2'),
    'address add 10.0.9.3/24 dev eth0',
    'address add 2001:db8:9::3/64 dev eth0 nodad',
    ...routeBy('10.0.9.1', '2001:db8:9::1'),
  ];
  const nearSide = [
    ...up('eth0', '10.0.5.2', '2001:db8:5::2'),
    ...routeBy('10.0.5.1', '2001:db8:5::1'),
  ];
  const forwarding = scene === 'host' ? [] : FORWARDING;
  return `set -eu
${setUp(machine, forwarding, machineSide, inside ? ['eth0', 'eth1'] : ['eth0'])}
${setUp(far, FORWARDING, farSide, ['eth0'])}
${setUp(beyond, [], beyondSide, [])}
${inside ? setUp(near, [], nearSide, ['eth0']) : ''}
nsenter --net=/run/netns/${far} nft -f - <<'EOF'
${LOSSES}
EOF
`;
}

let opened = 0;

async function makeNamespaces(scene: Scene): Promise<Names> {
  const name = `nfo-flow-${process.pid}-${threadId}-${opened}`;
  opened += 1;
  const names = {
    machine: `${name}-m`,
    near: scene.startsWith('behind') ? `${name}-n` : `${name}-m`,
    far: `${name}-f`,
    beyond: `${name}-b`,
  };
  for (const netns of new Set(Object.values(names))) {
    await runCommand('ip', ['netns', 'add', netns]);
  }
  await runCommand('sh', ['-s'], layout(scene, names));
  return names;
}

async function holdConnection(setup: string): Promise<HeldConnection> {
  const child = spawn('python3', [FLOWS, setup], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error('the connection could not be opened or kept');
    return value;
  };
  await next();
  return {
    talk() {
      child.stdin.write('talk\n');
      return next();
    },
    async close() {
      child.stdin.end();
      await ended;
    },
  };
}

/** Makes the namespaces; `close` removes them with all that is in them. */
export async function openSocketLab(scene: Scene): Promise<SocketLab> {
  const names = await makeNamespaces(scene);
  const { machine, near, far, beyond } = names;
  const directory = await mkdtemp(join(tmpdir(), 'nfo-flow-'));
  const paths = { bpffs: join(directory, 'bpf'), state: join(directory, 'state') };
  const prefix = ['nsenter', `--net=/run/netns/${machine}`];
  const transport = openLocalTransport({ prefix });
  const inMachine = async (argv: readonly string[], input: string | null = null) => {
    const [program = '', ...args] = [...prefix, ...argv];
    return (await runCommand(program, args, input)).toString();
  };
  const setup = (more: object): string =>
    JSON.stringify({
      namespaces: { near, far, beyond },
      addresses: addressesIn(scene),
      hops: scene.startsWith('behind') ? 3 : 2,
      ...more,
    });
  return {
    run: (...argv) => inMachine(argv),
    async loadRuleset(text) {
      await inMachine(['nft', '-f', '-'], `flush ruleset\n${text}`);
      const listing = await inMachine(['nft', '-j', '--debug=netlink', 'list', 'ruleset']);
      const chains = await inMachine(['nft', 'list', 'chains']);
      return unwrap(readListing(listing, chains, scene));
    },
    probe: async () => unwrap(await probeFacts(transport, 'eth0')),
    async deploy(situation, mode = 'native') {
      const profile = unwrap(await loadProfile(`xdp-${mode}`));
      const { artifact } = unwrap(placeXdp(situation, profile));
      const request = {
        device: 'eth0',
        mode,
        elf: artifact.elf,
        program: PROGRAM,
        maps: null,
        counters: artifact.counters,
        owners: artifact.owners.map(ownerOf),
        rulesetChecksum: 'test',
        frames: [],
        rules: [],
        basis: null,
        force: false,
        origin: null,
        confirm: null,
      };
      unwrap(await deployXdp(transport, request, paths));
    },
    status: async () => unwrap(await statusXdp(transport, { device: 'eth0' }, paths)),
    async xdpDrops() {
      const text = await inMachine(['ethtool', '-S', 'eth0']);
      const drops = [...text.matchAll(/rx_queue_\d+_xdp_drops: (\d+)/g)];
      if (drops.length === 0) throw new Error(`ethtool -S says nothing of XDP: ${text}`);
      return drops.reduce((sum, [, count]) => sum + Number(count), 0);
    },
    async flows(only) {
      const printed = await runCommand('python3', [FLOWS, setup({ only: only ?? null })]);
      return JSON.parse(printed.toString());
    },
    hold: () => holdConnection(setup({ hold: true })),
    async close() {
      for (const netns of new Set([machine, near, far, beyond])) {
        await runCommand('ip', ['netns', 'delete', netns]);
      }
      // Not mounted where nothing was deployed.
      await runCommand('umount', [paths.bpffs]).catch(() => {});
      await rm(directory, { recursive: true, force: true });
    },
  };
}
