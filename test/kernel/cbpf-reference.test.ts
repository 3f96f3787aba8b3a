import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { compareReference } from '../support/cbpf-reference.ts';

const obstacle =
  process.platform === 'linux' && spawnSync('cc', ['--version']).status === 0
    ? null
    : 'needs Linux and cc';

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

/** The million is asked by scripts/cbpf-million.ts. */
const RULESETS = 24;
const FRAMES = 400;

it.skipIf(obstacle !== null)('agrees with the kernel and the reference', async () => {
  const size = { rulesets: RULESETS, frames: FRAMES, seed: 4 };
  const { frames, dropped, exceptions } = await compareReference(size);
  expect(exceptions).toEqual([]);
  expect(frames).toBe(RULESETS * FRAMES);
  expect(dropped).toBeGreaterThan(0);
});
