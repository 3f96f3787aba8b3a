import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { compileXdp, isXdpProfile, PROGRAM } from '../../src/backends/ebpf-offload/compile.ts';
import { attachArgv, detachArgv } from '../../src/deploy/attachment.ts';

import { type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { ownerOf } from '../../src/deploy/owner-counts.ts';
import type { Transport } from '../../src/deploy/transport.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { READY_BATCH, TEST_LAYOUT, testObject } from '../support/deploy-objects.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { makeCorpus } from './corpus.ts';
import { MAKE_DEVICE, probeLab, runInLab } from './lab.ts';

const obstacle = probeLab();
const inLab = it.skipIf(obstacle !== null);

/** What netdevsim's first device is called in the lab. */
const DEVICE = 'eth0';

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nfo-lab-'));
});

afterAll(() => rmSync(folder, { recursive: true }));

function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** A machine that answers as a NIC without a program would, and writes down what is run on it. */
function recordingTransport(program: string): {
  readonly transport: Transport;
  readonly script: string[];
} {
  const script: string[] = [];
  const prog = { id: 7, name: program };
  let attached: object[] = [];
  let filters: object[] = [];
  const link = (): string => JSON.stringify([{ ifname: DEVICE, ifindex: 2, xdp: { attached } }]);
  const answers: readonly (readonly [string, () => string])[] = [
    ['sh -c id -u', () => '0\n'],
    ['stat -f', () => 'bpf_fs\n'],
    ['cat /proc', () => 'boot\n'],
    ['ip -j', link],
    ['tc -j filter', () => JSON.stringify(filters)],
    ['bpftool -j prog show', () => JSON.stringify(prog)],
    ['bpftool -j map dump', () => '[]'],
    ['bpftool batch', () => '7: xdp\n'],
  ];
  const transport: Transport = {
    async run(argv, { input } = {}) {
      const text = argv.join(' ');
      if (text.includes('net attach')) attached = [{ mode: 3, prog }];
      if (text.includes('filter add')) filters = [{ options: { in_hw: true, prog } }];
      const file = `input${script.length}`;
      if (input !== undefined) writeFileSync(join(folder, file), input);
      // The device's own words are asked for before and after, which nothing depends on here.
      if (['mkdir', 'bpftool', 'tc'].includes(argv[0] ?? '')) {
        script.push(`${argv.map(quote).join(' ')} <${input === undefined ? '/dev/null' : file}`);
      }
      const answer = answers.find(([start]) => text.startsWith(start));
      return { code: argv[0] === 'ls' ? 2 : 0, stdout: answer?.[1]() ?? '', stderr: '' };
    },
    async writeFile(path, content) {
      writeFileSync(join(folder, basename(path)), content);
    },
    async readFile() {
      return null;
    },
    async remove() {},
    async hold() {
      return { line: 'locked', release: async () => {} };
    },
  };
  return { transport, script };
}

it('says why the simulated NIC cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

inLab('loads for the device, fills, attaches; counters can be read', async () => {
  const { transport, script } = recordingTransport('filter');
  const request: DeployRequest = {
    mode: 'offload',
    ...{ device: DEVICE, program: 'filter', maps: READY_BATCH, force: false },
    ...{
      elf: testObject({ gated: true, shared: true }),
      owners: [],
      rulesetChecksum: '',
      frames: [],
      rules: [],
      basis: null,
    },
    ...{ counters: { ...TEST_LAYOUT, perCpu: false }, origin: null, confirm: null },
  };
  const paths = { bpffs: '/sys/fs/bpf', state: folder };
  unwrap(await deployXdp(transport, request, paths));
  const order = script.join('\n');
  const places = ['prog load', "'batch'", 'net attach'].map((step) =>
    order.indexOf(step.includes("'") ? step : step.split(' ').map(quote).join(' ')),
  );
  expect(places).toEqual([...places].sort((a, b) => a - b));
  expect(places).not.toContain(-1);
  const check = `
ip -d link show dev ${DEVICE}
bpftool -j map dump pinned /sys/fs/bpf/nft-offload/${DEVICE}/1/maps/ready
bpftool -j map dump pinned /sys/fs/bpf/nft-offload/${DEVICE}/1/maps/counters`;
  const { stdout, stderr } = await runInLab(`${MAKE_DEVICE}\n${order}\n${check}`, folder);
  // bpftool 7.1 says so of every batch; that all of it was done is seen below (see `fillMaps`).
  expect(stderr.replace(/^Error: reading batch file failed: .*$/m, '')).not.toMatch(/rror/);
  expect(stdout).toContain('xdpoffload');
  expect(stdout).toContain('"key":["0x00","0x00","0x00","0x00"],"value":["0x01"');
  expect(stdout.match(/"0x00"/g)?.length).toBeGreaterThan(32);
});

inLab('attaches as a filter of tc, replaces that, and takes it off', async () => {
  const netdevsim = unwrap(await loadProfile('netdevsim'));
  const sample = makeCorpus(DEVICE).find(({ name }) => name === 'counted 1');
  if (!isXdpProfile(netdevsim) || sample === undefined) throw new Error('bug: not in the lab');
  const ruleset = unwrap(readJsonText(sample.json, sample.name));
  const { classifier } = flatten(ruleset, labFacts('host'));
  const { elf, counters, owners } = unwrap(compileXdp(classifier, netdevsim, { hook: 'tc' }));
  const { transport, script } = recordingTransport(PROGRAM);
  const request: DeployRequest = {
    ...{ mode: 'offload-tc', device: DEVICE, program: PROGRAM, maps: null, force: false, elf },
    ...{
      counters,
      owners: owners.map(ownerOf),
      rulesetChecksum: '',
      frames: [],
      rules: [],
      basis: null,
      origin: null,
      confirm: null,
    },
  };
  unwrap(await deployXdp(transport, request, { bpffs: '/sys/fs/bpf', state: folder }));
  const pin = `/sys/fs/bpf/nft-offload/${DEVICE}/1`;
  const words = (argv: readonly string[]): string => argv.map(quote).join(' ');
  const { stdout, stderr } = await runInLab(
    `${MAKE_DEVICE}
ethtool -K ${DEVICE} hw-tc-offload on
${script.join('\n')}
bpftool -j map dump pinned ${pin}/maps/counters
${words(attachArgv(DEVICE, 'offload-tc', `${pin}/program`, true))} && echo replaced
${words(detachArgv(DEVICE, 'offload-tc'))} && echo removed
tc -j filter show dev ${DEVICE} ingress`,
    folder,
  );
  expect(stderr).not.toMatch(/rror/);
  expect(stdout).toMatch(/"skip_sw":true,"in_hw":true/);
  expect(stdout).toContain('"value":["0x00"');
  expect(stdout.trimEnd().split('\n').slice(-3)).toEqual(['replaced', 'removed', '[]']);
});
