import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { PROJECT, runCli } from '../support/run-cli.ts';

const readme = readFileSync(join(PROJECT, 'README.md'), 'utf8');

/** Lines of every sh block. */
const lines = [...readme.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block = '']) =>
  block.trim().split('\n'),
);

/** Calls of the command line; the installing half of a line was done to get here. */
const calls = lines.flatMap((line) => line.match(/npx nft-offload .*/)?.[0] ?? []);

it('has examples to run', () => {
  expect(calls.length).toBeGreaterThan(2);
});

for (const call of calls) {
  it(`runs \`${call}\``, async () => {
    const run = await runCli(call.split(' ').slice(2));
    expect(run.stderr).toBe('');
    expect(run.stdout).not.toBe('');
    expect(run.exitCode).toBe(0);
  });
}

it('names the command that CI runs', () => {
  expect(lines).toContain('scripts/test.sh');
  expect(readFileSync(join(PROJECT, '.ci/run'), 'utf8')).toContain('exec scripts/test.sh\n');
});
