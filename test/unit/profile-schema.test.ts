import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { renderProfileSchema } from '../../src/profile/json-schema.ts';
import { loadProfile, loadShippedProfiles } from '../../src/profile/load.ts';
import { PROJECT } from '../support/run-cli.ts';

const folder = join(PROJECT, 'hw-profiles');

it('hw-profiles/schema.json is what the checks say (npm run schema)', () => {
  const written: unknown = JSON.parse(readFileSync(join(folder, 'schema.json'), 'utf8'));
  expect(written).toEqual(JSON.parse(renderProfileSchema()));
});

it('every shipped profile is good and named like its file', async () => {
  const loaded = await loadShippedProfiles();
  expect(loaded.diagnostics).toEqual([]);
  const names = loaded.ok ? loaded.value.map(({ name }) => name) : [];
  expect(names).toEqual(['netdevsim', 'xdp-generic', 'xdp-native']);
});

it('a path loads a file, a name a shipped profile', async () => {
  const byPath = await loadProfile(join(folder, 'netdevsim.json'));
  const byName = await loadProfile('netdevsim');
  expect(byPath).toEqual(byName);
  expect(byName.ok).toBe(true);
});

it('an unknown name lists the known ones', async () => {
  const [diagnostic] = (await loadProfile('netdevsin')).diagnostics;
  expect(diagnostic?.code).toBe('profile/unknown-name');
  expect(diagnostic?.help).toContain('netdevsim, xdp-generic, xdp-native');
});

it('a file that is not there is refused, not thrown', async () => {
  const [diagnostic] = (await loadProfile('./not-there.json')).diagnostics;
  expect(diagnostic?.code).toBe('profile/unreadable');
});
