import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommanderError } from 'commander';
import { expect, it } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { runCli } from '../support/run-cli.ts';

const EDGE = 'examples/edge.nft.json';

const wrongUsage: readonly (readonly [said: string, ...args: string[]])[] = [
  ['unknown command', 'bogus'],
  ['unknown option', 'plan', EDGE, '--bogus'],
  ['Usage:'],
  ['is not NAME=VALUE', 'plan', EDGE, '--fact', 'role'],
  ['Known are', 'plan', EDGE, '--concede', 'everything'],
  ['cannot name a network device', 'plan', EDGE, '--dev', 'eth0/1'],
  ["--target <TARGET>' not specified", 'compile', EDGE],
  ['Allowed choices', 'compile', EDGE, '--target', 'p4'],
  ["no format 'elf'", 'compile', EDGE, '--target', 'tcam', '--format', 'elf'],
  ['belongs to --target cbpf', 'compile', EDGE, '--target', 'ebpf', '--return-drop', '1'],
  ['0xffffffff', 'compile', EDGE, '--target', 'cbpf', '--return-drop', '-1'],
  ['leave -o out', 'compile', EDGE, '--target', 'ebpf', '--emit', 'ruleset', '-o', 'x'],
  ['--frame HEX or by --pcap FILE', 'trace', EDGE],
  ['A whole number of seconds', 'deploy', EDGE, '--dev', 'eth0', '--wait-fresh', 'soon'],
  ['does not take rows by tc', 'deploy', EDGE, '--dev', 'eth0', '--profile', 'e810'],
  [
    'offload (in the device)',
    ...['deploy', EDGE, '--dev', 'eth0', '--profile', 'spectrum'],
    '--mode=native',
  ],
  ['even number of hex digits', 'trace', EDGE, '--frame', 'abc'],
];

for (const [said, ...args] of wrongUsage) {
  it(`\`nft-offload ${args.join(' ')}\` is wrong usage`, async () => {
    let printed = '';
    let complained = '';
    const program = await createProgram(args, {
      writeOut: (text) => {
        printed += text;
      },
      writeErr: (text) => {
        complained += text;
      },
    });
    const parsing = program.parseAsync(args, { from: 'user' });
    await expect(parsing).rejects.toThrow(CommanderError);
    expect(complained).toContain(said);
    expect(printed).toBe('');
  });
}

it('wrong usage ends with 2', async () => {
  const run = await runCli(['plan', EDGE, '--bogus']);
  expect(run.stderr).toContain('unknown option');
  expect(run.exitCode).toBe(2);
  expect(run.stdout).toBe('');
});

it('a ruleset without ingress chains needs --dev', async () => {
  const input = JSON.stringify({ nftables: [{ metainfo: { json_schema_version: 1 } }] });
  const run = await runCli(['plan', '-'], { input });
  expect(run.stderr).toContain('Give --dev IF');
  expect(run.exitCode).toBe(2);
});

it('a ruleset file that is not there is refused', async () => {
  const run = await runCli(['plan', 'not-there.json', '--dev', 'eth0']);
  expect(run.stderr).toContain('not-there.json');
  expect(run.stderr).not.toContain('bug:');
  expect(run.exitCode).toBe(1);
});

it('a concession that cannot help is refused', async () => {
  const input = JSON.stringify({ nftables: [{ metainfo: { json_schema_version: 1 } }] });
  const run = await runCli(['plan', '-', '--dev', 'eth0', '--concede', 'log'], { input });
  expect(run.stderr).toContain('--concede log: no rule logs');
  expect(run.exitCode).toBe(1);
  expect(run.stdout).toBe('');
});

it('a bad profile is refused with its place', async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'nft-offload-')), 'mine.json');
  writeFileSync(file, '{\n  "kind": "xdp"\n}\n');
  const run = await runCli(['profiles', 'check', file]);
  expect(run.stderr).toContain(`${file}:2:11: `);
  expect(run.exitCode).toBe(1);
});

it('help and version are not errors', async () => {
  expect((await runCli(['--help'])).exitCode).toBe(0);
  expect((await runCli(['plan', '--help'])).stdout).toContain('--concede <NAME>');
  expect((await runCli(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+$/);
});

it('profiles print as JSON', async () => {
  const { stdout } = await runCli(['profiles', 'show', 'netdevsim', '--json']);
  expect(JSON.parse(stdout)).toMatchObject({ name: 'netdevsim', kind: 'xdp-offload' });
});
