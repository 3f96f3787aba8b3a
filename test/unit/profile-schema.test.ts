import { readdirSync, readFileSync } from 'node:fs';
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
  const files = readdirSync(folder).filter((file) => file !== 'schema.json');
  expect(names.map((name) => `${name}.json`).sort()).toEqual(files.sort());
  expect(names).toHaveLength(new Set(names).size);
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
  expect(diagnostic?.help).toContain('netdevsim, openvswitch');
});

it('a file that is not there is refused, not thrown', async () => {
  const [diagnostic] = (await loadProfile('./not-there.json')).diagnostics;
  expect(diagnostic?.code).toBe('profile/unreadable');
});

it('a number that nobody has checked is never given as certain', async () => {
  const loaded = await loadProfile('agilio');
  const limits = loaded.ok && loaded.value.kind === 'xdp-offload' ? loaded.value.limits : null;
  expect(limits?.deviceInsns).toMatchObject({ value: 2800, unit: 'device-insns' });
  for (const told of [limits?.deviceInsns, limits?.stack, limits?.packetDepth]) {
    expect(told?.source).toContain('unverified');
  }
});

it('the devices of the issue are all there', async () => {
  for (const name of [
    'agilio',
    'cbpf',
    'connectx',
    'e810',
    'lan966x',
    'openvswitch',
    'sparx5',
    'spectrum',
    'tofino',
    'tomahawk',
    'trident3',
  ]) {
    expect((await loadProfile(name)).diagnostics).toEqual([]);
  }
});
