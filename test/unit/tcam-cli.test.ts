import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PROJECT, runCli } from '../support/run-cli.ts';

const RULES = join(PROJECT, 'test/tcam/filter.nft.json');
let directory = '';
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'nfo-tcam-'));
});
afterAll(() => rm(directory, { recursive: true }));

it('compiles, verifies, finds a fault and says what has changed', async () => {
  const tables = join(directory, 'tables.json');
  const compiled = await runCli(['compile', RULES, '--target', 'tcam', '-o', tables]);
  expect(compiled.exitCode, compiled.stderr).toBe(0);
  const good = await runCli(['verify', RULES, '--table', tables]);
  expect(good.exitCode, good.stdout).toBe(0);

  const broken = join(directory, 'broken.json');
  const text = await readFile(tables, 'utf8');
  await writeFile(broken, text.replace('"action":"drop"', '"action":"continue"'));
  const bad = await runCli(['verify', RULES, '--table', broken, '--json']);
  expect(bad.exitCode).toBe(0);
  expect(bad.stdout).toContain('"less"');
  await writeFile(broken, text.replace('"action":"continue"', '"action":"drop"'));
  const wrong = await runCli(['verify', RULES, '--table', broken]);
  expect(wrong.exitCode).toBe(1);
  expect(wrong.stdout).toMatch(/decides frames otherwise[\s\S]*reference: accept[\s\S]*shows it/);

  const changed = join(directory, 'changed.json');
  await writeFile(changed, (await readFile(RULES, 'utf8')).replace('442', '500'));
  const since = ['--target', 'tcam', '--since', tables];
  const update = await runCli(['compile', changed, ...since]);
  expect(update.exitCode, update.stderr).toBe(0);
  const { tables: steps } = JSON.parse(update.stdout) as { tables: { name: string; steps: [] }[] };
  const touched = steps.filter((table) => table.steps.length > 0).map(({ name }) => name);
  expect(touched).toEqual(['ipv4-tcp']);
}, 60_000);

/** Half of them hold while they change. */
const ROWS = 4;

it('takes what is worth most where a device is too small, and refuses when nothing may be left', async () => {
  const out = join(directory, 'x.json');
  const small = join(directory, 'small.json');
  const profile = JSON.parse(
    await readFile(join(PROJECT, 'hw-profiles/spectrum.json'), 'utf8'),
  ) as { keySets: { rows?: { value: number } }[] };
  for (const set of profile.keySets) if (set.rows !== undefined) set.rows.value = ROWS;
  await writeFile(small, JSON.stringify({ ...profile, name: 'small' }));
  const args = ['--target', 'tcam', '--profile', small, '-o', out];
  const final = await runCli(['compile', RULES, ...args, '--final']);
  expect(final.exitCode).toBe(1);
  expect(final.stderr).toMatch(/rows of ipv4: \d+ needed, small has \d/);

  const partly = await runCli(['compile', RULES, ...args]);
  expect(partly.exitCode, partly.stderr).toBe(0);
  expect(partly.stderr).toMatch(/small has no room for all of it/);
  const proof = await runCli(['verify', RULES, '--table', out]);
  expect(proof.exitCode, proof.stdout).toBe(0);
  const planned = await runCli(['plan', RULES, '--profile', small, '--json']);
  const { usage, rules } = JSON.parse(planned.stdout) as {
    usage: { resource: string; used: number; limit: number | null }[];
    rules: { tier: string; reasons: { code: string }[] }[];
  };
  for (const { used, limit } of usage) expect(used).toBeLessThanOrEqual(limit ?? used);
  const { tables } = JSON.parse(await readFile(out, 'utf8')) as { tables: { rows: [] }[] };
  const total = tables.reduce((sum, { rows: own }) => sum + own.length, 0);
  expect(usage.find(({ resource }) => resource === 'rows of ipv4')?.limit).toBe(ROWS / 2);
  expect(total).toBeGreaterThan(0);
  expect(rules.some(({ tier }) => tier === 'small')).toBe(true);
  const left = rules.filter(({ tier }) => tier === 'host').flatMap(({ reasons }) => reasons);
  expect(left.map(({ code }) => code)).toContain('plan/capacity');
}, 60_000);

it('refuses what a device cannot decide, or traps it where the device can', async () => {
  const rules = join(directory, 'log.json');
  const text = await readFile(RULES, 'utf8');
  const { nftables } = JSON.parse(text) as { nftables: { rule?: { expr: object[] } }[] };
  const rule = nftables.find((one) => one.rule !== undefined)?.rule;
  rule?.expr.splice(-1, 0, { log: null });
  await writeFile(rules, JSON.stringify({ nftables }));
  const out = join(directory, 'trap.json');
  const refused = await runCli(['compile', rules, '--target', 'tcam', '--final', '-o', out]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toMatch(/tcam\/undecided/);
  const profile = ['--profile', 'spectrum'];
  const args = ['compile', rules, '--target', 'tcam', '--final', ...profile];
  const trapped = await runCli([...args, '-o', out]);
  expect(trapped.exitCode, trapped.stderr).toBe(0);
  expect(await readFile(out, 'utf8')).toContain('"action":"trap"');
  const proof = await runCli(['verify', rules, '--table', out, '--final', '--json']);
  expect(proof.exitCode, proof.stdout).toBe(0);
  const permitted = (await readFile(out, 'utf8')).replace('"action":"trap"', '"action":"permit"');
  await writeFile(out, permitted);
  const wrong = await runCli(['verify', rules, '--table', out, '--final']);
  expect(wrong.exitCode, wrong.stdout).toBe(1);
  const sonic = await runCli([...args, '--format', 'sonic', '-o', out]);
  expect(sonic.stderr).toMatch(/SONiC cannot say what goes to the CPU/);
}, 60_000);
