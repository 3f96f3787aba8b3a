import { join } from 'node:path';
import { expect, it } from 'vitest';
import { PROJECT, runCli } from '../support/run-cli.ts';

it('lists every shipped profile in one line that is not cut', async () => {
  const { stdout } = await runCli(['profiles', 'list']);
  const [head, ...rows] = stdout.split('\n');
  expect(head).toMatch(/^NAME +KIND +UNVERIFIED +CAPACITY$/);
  expect(rows.length).toBeGreaterThan(12);
  expect(stdout).not.toContain('…');
  expect(stdout).toMatch(/^tofino +tcam +\d+ of \d+ +49,152 ipv4 or 21,065 ipv6 rows$/m);
});

it('lists as JSON', async () => {
  const list: unknown = JSON.parse((await runCli(['profiles', 'list', '--json'])).stdout);
  expect(list).toContainEqual(
    expect.objectContaining({ name: 'e810', kind: 'tcam', driver: 'ice', capacity: '512 rows' }),
  );
});

it('shows keys, numbers and their sources', async () => {
  const { stdout } = await runCli(['profiles', 'show', 'lan966x']);
  expect(stdout).toContain('key smac-sip4: ether saddr 48 ternary, ip saddr 32 ternary');
  expect(stdout).toMatch(/^limits rows +256 rows +lan966x_vcaps in /m);
  const cbpf = await runCli(['profiles', 'show', 'cbpf']);
  expect(cbpf.stdout).toMatch(/^attach +socket, xt_bpf, cls_bpf$/m);
  expect(cbpf.stdout).toMatch(/^attach xt_bpf insns +64 insns +XT_BPF_MAX_NUM_INSTR/m);
});

it('checks a file', async () => {
  const file = join(PROJECT, 'hw-profiles/trident3.json');
  const run = await runCli(['profiles', 'check', file]);
  expect(run).toMatchObject({ exitCode: 0, stderr: '', stdout: `${file}: good: trident3, tcam` });
});

it('a probe needs a device, and one that is there', async () => {
  expect((await runCli(['profiles', 'probe'])).exitCode).toBe(2);
  const run = await runCli(['profiles', 'probe', '--dev', 'no-such-dev']);
  expect(run.exitCode).toBe(1);
  expect(run.stdout).toBe('');
  expect(run.stderr).toMatch(/deploy\/no-(device|tool)/);
});
