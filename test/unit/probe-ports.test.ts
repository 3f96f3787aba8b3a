import { expect, it } from 'vitest';
import { isFresh, reviewFresh, waitFresh } from '../../src/deploy/conntrack.ts';
import { formatPorts, probeReplyPorts } from '../../src/deploy/probe-ports.ts';
import type { CommandResult, Transport } from '../../src/deploy/transport.ts';

type Files = Readonly<Record<string, string>>;

/** A machine that has these files, and answers `ip` with this. */
function machine(files: () => Files, bridges = '[]'): Transport {
  const refuse = async (): Promise<never> => Promise.reject(new Error('bug: nothing is written'));
  return {
    async run(argv): Promise<CommandResult> {
      const text = argv[0] === 'ip' ? bridges : files()[argv.at(-1) ?? ''];
      return { code: text === undefined ? 1 : 0, stdout: text ?? '', stderr: '' };
    },
    writeFile: refuse,
    readFile: refuse,
    remove: refuse,
    hold: refuse,
  };
}

const RANGE = { '/proc/sys/net/ipv4/ip_local_port_range': '32768\t60999\n' };
const LITTLE = { '/sys/kernel/cpu_byteorder': 'little\n' };
const HEAD = '   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n';

function line(slot: number, local: string, remote: string, state: string): string {
  return `${String(slot).padStart(5)}: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 0\n`;
}

const ANY = '00000000:0000';
const UDP = [
  line(1, '00000000:007B', ANY, '07'), // 123
  line(2, '3500007F:0035', ANY, '07'), // 127.0.0.53:53
  line(3, '0100000A:D431', '0200000A:0035', '01'), // 54321, in the range
].join('');
const ANY6 = '00000000000000000000000000000000';
const UDP6 = [
  line(4, `${ANY6}:007C`, `${ANY6}:0000`, '07'), // 124
  line(5, '00000000000000000000000001000000:0035', `${ANY6}:0000`, '07'),
].join('');
const TCP = [
  line(0, '00000000:0016', ANY, '0A'), // 22 listens
  line(1, '0100000A:0016', '0200000A:9C40', '01'), // so this one came from outside
  line(2, '0100000A:0385', '0200000A:0801', '01'), // 901 did not
].join('');

it.each([
  ['the range alone', RANGE, '32768-60999'],
  [
    'UDP sockets, but not those on loopback',
    { ...RANGE, ...LITTLE, '/proc/net/udp': HEAD + UDP, '/proc/net/udp6': HEAD + UDP6 },
    '123-124,32768-60999',
  ],
  [
    'loopback where the byte order is not known',
    { ...RANGE, '/proc/net/udp': HEAD + UDP },
    '53,123,32768-60999',
  ],
  [
    'TCP connections that nothing here listens for',
    { ...RANGE, ...LITTLE, '/proc/net/tcp': HEAD + TCP },
    '901,32768-60999',
  ],
  [
    "the kernel's NFS client",
    {
      ...RANGE,
      '/proc/sys/sunrpc/min_resvport': '665\n',
      '/proc/sys/sunrpc/max_resvport': '1023\n',
    },
    '665-1023,32768-60999',
  ],
])('proposes reply ports: %s', async (_, files: Files, ports) => {
  const found = await probeReplyPorts(machine(() => files));
  expect(found === null ? null : formatPorts(found)).toBe(ports);
});

it('proposes none where the range cannot be read', async () => {
  expect(await probeReplyPorts(machine(() => ({})))).toBeNull();
});

const COUNT = '/proc/sys/net/netfilter/nf_conntrack_count';
const BRIDGES = '[{"ifname":"br0"}]';
const CALLS = { '/proc/sys/net/bridge/bridge-nf-call-iptables': '1\n' };

it.each([
  ['no flow', { [COUNT]: '0\n' }, '[]', true],
  ['a flow', { [COUNT]: '1\n' }, '[]', false],
  ['nobody knows', {}, '[]', false],
  ['a bridge that calls layer-3 chains', { [COUNT]: '0\n', ...CALLS }, BRIDGES, false],
  ['a bridge that does not', { [COUNT]: '0\n' }, BRIDGES, true],
  ['no bridge', { [COUNT]: '0\n', ...CALLS }, '', true],
] as const)('conntrack=fresh: %s', async (_, files: Files, bridges, fresh) => {
  const transport = machine(() => files, bridges);
  expect(await isFresh(transport)).toBe(fresh);
  const reviewed = await reviewFresh(transport, false);
  expect(reviewed.ok).toBe(fresh);
  if (!fresh) expect(reviewed.diagnostics[0]?.code).toBe('deploy/conntrack-not-fresh');
  const forced = await reviewFresh(transport, true);
  expect([forced.ok, forced.diagnostics.length]).toEqual([true, fresh ? 0 : 1]);
});

it('waits until no flow is left', async () => {
  const counts = ['3', '2', '0'];
  let time = 0;
  const clock = {
    now: () => time,
    sleep: async (duration: number) => {
      time += duration;
      counts.shift();
    },
  };
  const transport = machine(() => ({ [COUNT]: counts[0] ?? '0' }));
  expect((await waitFresh(transport, 10, clock)).ok).toBe(true);
  expect(time).toBeLessThan(1_000);
});

it('does not wait for ever', async () => {
  let time = 0;
  const clock = { now: () => time, sleep: async (duration: number) => (time += duration) };
  const waited = await waitFresh(
    machine(() => ({ [COUNT]: '7' })),
    5,
    clock,
  );
  expect(waited.diagnostics[0]?.message).toBe(
    'after 5 s the flows that connection tracking knows are 7',
  );
  expect(time).toBe(5_000);
});
