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

it('refuses what does not fit a device, with the numbers', async () => {
  const out = join(directory, 'x.json');
  const small = join(directory, 'small.json');
  const profile = JSON.parse(
    await readFile(join(PROJECT, 'hw-profiles/spectrum.json'), 'utf8'),
  ) as { keySets: { rows?: { value: number } }[] };
  for (const set of profile.keySets) if (set.rows !== undefined) set.rows.value = 2;
  await writeFile(small, JSON.stringify({ ...profile, name: 'small' }));
  const args = ['--target', 'tcam', '--profile', small, '-o', out];
  const { exitCode, stderr } = await runCli(['compile', RULES, ...args]);
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/rows of ipv4: \d+ needed, small has \d/);
});
