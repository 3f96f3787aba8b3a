import fc from 'fast-check';
import { expect, it } from 'vitest';
import { inspectDevice } from '../../src/deploy/attachment.ts';
import { countFlows, isFresh } from '../../src/deploy/conntrack.ts';
import { checkDeviceName, deviceKey } from '../../src/deploy/device-name.ts';
import { foldGoneRules } from '../../src/deploy/gone-rules.ts';
import { bindMaps, type LoadRequest, loadGeneration } from '../../src/deploy/load.ts';
import { checkMachine, mountBpffs, readSysctls } from '../../src/deploy/machine.ts';
import { collectNftCounts } from '../../src/deploy/nft-counters.ts';
import { type CounterOwner, carryCounts, type OwnerCount } from '../../src/deploy/owner-counts.ts';
import { parseAddress } from '../../src/deploy/parse-address.ts';
import { type DeployPaths, generationPaths } from '../../src/deploy/paths.ts';
import { readCounters } from '../../src/deploy/read-counters.ts';
import { renderUndeploy } from '../../src/deploy/render-report.ts';
import { renderStatus } from '../../src/deploy/render-status.ts';
import { readState } from '../../src/deploy/state.ts';
import type { CommandResult, Transport } from '../../src/deploy/transport.ts';

const PATHS: DeployPaths = { bpffs: '/sys/fs/bpf', state: '/run/nft-offload' };

/** A machine that answers every command with the same; what was run is in `log`. */
function fakeTransport(
  answer: (argv: readonly string[]) => Partial<CommandResult>,
  file: string | null = null,
): { readonly transport: Transport; readonly log: string[] } {
  const log: string[] = [];
  const transport: Transport = {
    async run(argv) {
      log.push(argv.join(' '));
      return { code: 0, stdout: '', stderr: '', ...answer(argv) };
    },
    async hold() {
      return { line: 'locked', ended: Promise.resolve(), release: async () => {} };
    },
    async writeFile(path) {
      log.push(`write ${path}`);
    },
    async readFile() {
      return file === null ? null : new TextEncoder().encode(file);
    },
    async remove(path) {
      log.push(`remove ${path}`);
    },
  };
  return { transport, log };
}

const RULE: CounterOwner = {
  family: 'inet',
  table: 't',
  name: null,
  chain: 'c',
  handle: 7,
  index: 0,
};

function owned(changes: Partial<CounterOwner>, packets: number): OwnerCount {
  return { owner: { ...RULE, ...changes }, count: { packets: BigInt(packets), bytes: 0n } };
}

it('gives every device a name of its own that is one component of a path', () => {
  const name = fc.string({ unit: 'binary', minLength: 1, maxLength: 15 });
  fc.assert(
    fc.property(name, name, (a, b) => {
      if (checkDeviceName(a) !== null || checkDeviceName(b) !== null) return;
      expect(deviceKey(a)).toMatch(/^[A-Za-z0-9_%-]+$/);
      expect(deviceKey(a) === deviceKey(b)).toBe(
        Buffer.from(a).equals(Buffer.from(b)), // lone surrogates are one character in UTF-8
      );
    }),
  );
});

it('reads every address that ip prints', () => {
  fc.assert(
    fc.property(fc.ipV6(), (text) => {
      const halves = new URL(`http://[${text}]`).hostname.slice(1, -1);
      expect(parseAddress(text)).toEqual(parseAddress(halves));
    }),
  );
  expect(parseAddress('192.0.2.255')).toEqual({ version: 4, value: 0xc00002ffn });
  expect(parseAddress('2001:db8::ffff:1')).toEqual({
    version: 6,
    value: 0x20010db80000000000000000ffff0001n,
  });
  expect(parseAddress('::ffff:192.0.2.1')).toEqual({ version: 6, value: 0xffffc0000201n });
  expect(parseAddress('::')).toEqual({ version: 6, value: 0n });
  expect(parseAddress('default')).toBeNull();
  expect(parseAddress('10.0.0.0/8')).toBeNull();
});

it('binds map updates to the maps of one generation and refuses anything else', () => {
  const target = generationPaths(PATHS, 'eth0.5', 3);
  const batch = '# sets\n\nmap update name a.b key  hex 0a 00  value 1 0 noexist\n';
  expect(bindMaps(batch, target)).toMatchObject({
    value:
      'map update pinned /sys/fs/bpf/nft-offload/eth0%2e5/3/maps/a_b key hex 0a 00 value 1 0 noexist\n',
  });
  for (const line of [
    'map delete name a key 0',
    'map update id 7 key 0 value 0',
    'map update name a key 0 value 0 # x',
    'map update name ../a key 0 value 0',
    'prog load a b',
    'batch file x',
  ]) {
    expect(bindMaps(line, target)).toMatchObject({ diagnostics: [{ code: 'deploy/bad-maps' }] });
  }
});

it('removes everything of a generation that cannot be loaded', async () => {
  const refuse = (argv: readonly string[]) =>
    argv.includes('load') ? { code: 255, stderr: 'too complex' } : {};
  const { transport, log } = fakeTransport(refuse);
  const request: LoadRequest = {
    device: 'eth0',
    mode: 'offload',
    elf: new Uint8Array(1),
    program: 'filter',
    maps: null,
  };
  const result = await loadGeneration(transport, PATHS, request, 4);
  expect(result).toMatchObject({
    diagnostics: [{ code: 'deploy/load-failed', message: expect.stringContaining('too complex') }],
  });
  const directory = '/sys/fs/bpf/nft-offload/eth0/4';
  expect(log).toEqual([
    `mkdir -p -m 700 ${directory}/maps`,
    'write /run/nft-offload/eth0.o',
    'dmesg',
    `bpftool -- prog load /run/nft-offload/eth0.o ${directory}/program type xdp dev eth0 pinmaps ${directory}/maps`,
    'remove /run/nft-offload/eth0.o',
    'dmesg',
    `rm -rf --one-file-system -- ${directory}`,
  ]);
});

it.each([
  ['its last command answered, whatever the status', '9: xdp  name filter\n', true],
  ['a command before it failed', '', false],
])('takes the maps for filled when %s', async (_when, stdout, ok) => {
  const { transport } = fakeTransport((argv) => {
    if (argv.includes('batch')) return { code: 255, stdout, stderr: 'reading batch file failed' };
    return { stdout: '{"id":9,"name":"filter","loaded_at":1}' };
  });
  const request: LoadRequest = {
    device: 'eth0',
    mode: 'native',
    elf: new Uint8Array(1),
    program: 'filter',
    maps: 'map update name ready key 0 0 0 0 value 1 0 0 0\n',
  };
  expect((await loadGeneration(transport, PATHS, request, 1)).ok).toBe(ok);
});

it.each(['/tmp/with blank/bpf', '/tmp/a#b', "/tmp/q'", '', '/tmp/x\ny'])(
  'a place for pins that bpftool would take apart is refused: %j',
  async (path) => {
    const { transport, log } = fakeTransport(() => ({}));
    const mounted = await mountBpffs(transport, path);
    expect(mounted.diagnostics.map(({ code }) => code)).toEqual(['deploy/bad-path']);
    expect(log).toEqual([]);
  },
);

it('undeploy lists the counters that counted, and how many did not', () => {
  const owner = { family: 'inet', table: 't', name: null, chain: 'c', index: 0 } as const;
  const counter = (handle: number, packets: number) => ({
    ...{ ...owner, handle },
    hardware: { packets, bytes: packets * 60 },
  });
  const text = renderUndeploy({
    ...{ format: 'nft-offload/undeploy@1', device: 'eth0', removed: null, left: [] },
    counters: [counter(1, 0), counter(2, 3), counter(3, 0)],
  });
  expect(text).toBe(
    'eth0: nothing to remove\ninet t c handle 2: 3 packets, 180 bytes\n2 counters counted nothing\n',
  );
});

it('names the package of a missing tool', async () => {
  const { transport } = fakeTransport(() => ({ stdout: '1000\nbpftool\n' }));
  expect(await checkMachine(transport, ['ip', 'bpftool'])).toMatchObject([
    { code: 'deploy/not-root' },
    { code: 'deploy/no-tool', help: 'install it: apt-get install bpftool' },
  ]);
});

it.each([
  ['not JSON', '{'],
  ['another format', '{"format":"nft-offload/state@2","device":"eth0"}'],
  ['nothing', ''],
])('says where state is that cannot be read: %s', async (_what, text) => {
  const { transport } = fakeTransport(() => ({}), text);
  expect(await readState(transport, PATHS, 'eth0')).toMatchObject({
    ok: false,
    diagnostics: [
      { code: 'deploy/bad-state', place: { kind: 'file', file: '/run/nft-offload/eth0.json' } },
    ],
  });
});

it('adds up the copies of a counter, and finds it in its entry', async () => {
  const hex = (...words: number[]): string[] =>
    words.flatMap((word) => [`0x${word.toString(16).padStart(2, '0')}`, ...Array(7).fill('0x00')]);
  const dump = [
    { key: ['0x00', '0x00', '0x00', '0x00'], values: [{ cpu: 0, value: hex(1, 2, 3, 4) }] },
    {
      key: ['0x01', '0x00', '0x00', '0x00'],
      values: [
        { cpu: 0, value: hex(5, 6, 0, 0) },
        { cpu: 1, value: hex(7, 8, 0, 0) },
      ],
    },
  ];
  const { transport } = fakeTransport(() => ({ stdout: JSON.stringify(dump) }));
  const layout = { map: 'counters', perCpu: true, slotsPerEntry: 2, slots: 3 };
  expect(await readCounters(transport, '/pin', layout)).toMatchObject({
    value: [
      { packets: 1n, bytes: 2n },
      { packets: 3n, bytes: 4n },
      { packets: 12n, bytes: 14n },
    ],
  });
});

it('finds the counters of rules and names in a listing', () => {
  const rule = { family: 'inet', table: 't', chain: 'c' };
  const count = { packets: 1, bytes: 10 };
  const listing = {
    nftables: [
      { metainfo: { json_schema_version: 1 } },
      { counter: { family: 'inet', table: 't', name: 'n', handle: 2, ...count } },
      { rule: { ...rule, handle: 4, expr: [{ drop: null }] } },
      { rule: { ...rule, handle: 5, expr: [{ counter: count }, { counter: count }] } },
      { rule: { ...rule, handle: 6, expr: [{ counter: 'n' }] } },
    ],
  };
  expect(collectNftCounts(listing)).toEqual([
    {
      owner: { ...RULE, name: 'n', chain: null, handle: null, index: null },
      count: { packets: 1n, bytes: 10n },
    },
    { owner: { ...RULE, handle: 5, index: 1 }, count: { packets: 2n, bytes: 20n } },
  ]);
  expect(collectNftCounts({})).toBeNull();
});

it.each([
  ['by handle, wherever the rule stands now', { handle: 7, index: 4 }, { handle: 7, index: 4 }],
  ['by index from a ruleset without handles', { handle: null }, { handle: null }],
  ['never by index between two handles', { handle: 8 }, {}],
  ['never into another chain', { chain: 'd' }, {}],
] as const)('carries counts over: %s', (_how, next, expected) => {
  const carried = carryCounts([owned({}, 3), owned({}, 4)], [{ ...RULE, ...next }]);
  expect(carried).toEqual([owned(expected, 7)]);
});

it('never loses or invents a count', () => {
  const owner = fc.record({
    chain: fc.constantFrom('c', 'd'),
    handle: fc.option(fc.integer({ min: 1, max: 4 })),
    index: fc.integer({ min: 0, max: 3 }),
  });
  const item = fc.tuple(owner, fc.nat(9)).map(([changes, packets]) => owned(changes, packets));
  const total = (items: readonly OwnerCount[]): bigint =>
    items.reduce((sum, { count }) => sum + count.packets, 0n);
  fc.assert(
    fc.property(fc.array(item), fc.array(item), (counts, next) => {
      const carried = carryCounts(
        counts,
        next.map(({ owner }) => owner),
      );
      expect(total(carried)).toBe(total(counts));
    }),
  );
});

it('keeps deleted rules apart while the ruleset cannot be read', async () => {
  const counts = [owned({ handle: 8 }, 1), owned({ handle: 9 }, 2)];
  const blind = fakeTransport(() => ({ code: 1 })).transport;
  expect(await foldGoneRules(blind, counts, [])).toEqual(counts);
  const empty = fakeTransport(() => ({ stdout: '{"nftables":[]}' })).transport;
  expect(await foldGoneRules(empty, counts, [])).toEqual([owned({ handle: null, index: null }, 3)]);
});

it('prints names without control characters', () => {
  const text = renderStatus({
    format: 'nft-offload/status@1',
    device: 'e\u001b[2Jth',
    attachment: { kind: 'foreign', programs: [{ mode: 'generic', id: 3, name: 'x' }] },
    step: null,
    drift: [{ code: 'deploy/replaced', message: 'somebody replaced it' }],
    kept: [],
    counters: [],
  });
  expect(text).toBe(
    'e?[2Jth: generic program 3 "x", not attached by nft-offload\ndrift[deploy/replaced] somebody replaced it\n',
  );
});

it.each([
  ['0\n1\n', [0, 1]],
  ['\n', null],
  ['0\n', null],
  ['0\nx\n', null],
])('reads as many numbers as it asked for, or none: %j', async (stdout, numbers) => {
  const { transport } = fakeTransport(() => ({ stdout }));
  expect(await readSysctls(transport, ['a', 'b'])).toEqual(numbers);
});

it('does not take an empty answer for a machine that knows no flow', async () => {
  const silent = fakeTransport(() => ({ stdout: '' })).transport;
  expect(await countFlows(silent)).toBeNull();
  expect(await isFresh(silent)).toBe(false);
});

it('sees filters of tc that run in the NIC beside programs of XDP', async () => {
  const link = '[{"ifname":"eth0","ifindex":2}]';
  // What tc 6.1 prints of netdevsim, and of a filter that runs in the host.
  const inNic =
    '{"protocol":"all","pref":1,"kind":"bpf","chain":0,"options":{"handle":"0x1","bpf_name":"p:[*fsobj]","direct-action":true,"skip_sw":true,"in_hw":true,"prog":{"id":5,"name":"nft_offload","tag":"379035281fa5e343","jited":0}}}';
  const head = '{"protocol":"all","pref":1,"kind":"bpf","chain":0}';
  const inHost = inNic.replace('"in_hw"', '"not_in_hw"').replace('"id":5', '"id":6');
  const { transport } = fakeTransport((argv) => ({
    stdout: argv[0] === 'tc' ? `[${head},${inNic},${inHost}]` : link,
  }));
  const device = await inspectDevice(transport, 'eth0');
  expect(device).toMatchObject({
    value: { programs: [{ mode: 'offload-tc', id: 5, name: 'nft_offload' }] },
  });
});
