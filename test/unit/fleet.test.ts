import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { type FleetOptions, type HostOutcome, runFleet } from '../../src/deploy/fleet.ts';
import { parseInventory } from '../../src/deploy/inventory.ts';
import { errorAt, fail, type Result, succeed } from '../../src/support/diagnostics.ts';

const ALL: FleetOptions = { parallel: 3, canary: 0, stopOnFailure: true };

/** Runs over these hosts; `bad` ones fail, `ill` ones are not well afterwards. */
async function run(
  hosts: readonly string[],
  options: FleetOptions,
  {
    bad = [],
    ill = [],
  }: { readonly bad?: readonly string[]; readonly ill?: readonly string[] } = {},
) {
  let busy = 0;
  let most = 0;
  const told: HostOutcome<string>[] = [];
  const refuse = (): Result<never> => fail(errorAt('test/bad', 'no'));
  const outcomes = await runFleet<string, string>(hosts, options, {
    nameOf: (host) => host,
    run: async (host) => {
      busy += 1;
      most = Math.max(most, busy);
      await sleep(1);
      busy -= 1;
      if (host === 'throws') throw new Error('thrown');
      return bad.includes(host) ? refuse() : succeed(`done ${host}`);
    },
    isWell: async (host) => (ill.includes(host) ? refuse() : succeed(null)),
    onOutcome: (outcome) => told.push(outcome),
  });
  expect(told).toHaveLength(hosts.length);
  expect(outcomes.map(({ host }) => host).sort()).toEqual([...hosts].sort());
  const states = Object.fromEntries(outcomes.map(({ host, state }) => [host, state]));
  return { states, most, outcomes };
}

const HOSTS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

it('works on so many hosts at a time', async () => {
  const { states, most } = await run(HOSTS, ALL);
  expect(most).toBe(3);
  expect(new Set(Object.values(states))).toEqual(new Set(['done']));
});

it('leaves the rest untouched once one failed', async () => {
  const { states } = await run(HOSTS, { ...ALL, parallel: 1 }, { bad: ['c'] });
  expect(states).toMatchObject({
    a: 'done',
    b: 'done',
    c: 'failed',
    d: 'untouched',
    h: 'untouched',
  });
});

it('goes on where it only looks', async () => {
  const { states } = await run(HOSTS, { ...ALL, stopOnFailure: false }, { bad: ['a', 'b'] });
  expect(Object.values(states).filter((state) => state === 'done')).toHaveLength(6);
});

it('touches nobody else while a canary is not well', async () => {
  const options = { ...ALL, canary: 2 };
  const ill = await run(HOSTS, options, { ill: ['b'] });
  expect(ill.states).toMatchObject({ a: 'done', b: 'failed', c: 'untouched', h: 'untouched' });
  const well = await run(HOSTS, options, { ill: ['c'] });
  expect(new Set(Object.values(well.states))).toEqual(new Set(['done']));
});

it('says what was thrown', async () => {
  const { outcomes } = await run(['throws'], ALL);
  expect(outcomes[0]).toMatchObject({ state: 'failed', diagnostics: [{ message: 'thrown' }] });
});

function hostsOf(text: string, file = 'hosts'): readonly string[] | string {
  const parsed = parseInventory(text, file);
  if (!parsed.ok) return parsed.diagnostics.map(({ code }) => code).join();
  return parsed.value.map(({ name, target: { user, host, port } }) =>
    [name, user ?? '-', host, port ?? '-'].join(' '),
  );
}

it('reads one host a line', () => {
  expect(hostsOf('# routers\nroot@r1\n\nr2:2222   # spare\nadmin@[2001:db8::1]:22\n')).toEqual([
    'root@r1 root r1 -',
    'r2:2222 - r2 2222',
    'admin@[2001:db8::1]:22 admin 2001:db8::1 22',
  ]);
});

it("reads Ansible's INI form", () => {
  const text = `
lone ansible_host=192.0.2.9 ansible_user="admin"

[edge]
r[01:03] ansible_port=2222
b-[a:b].example

[edge:vars]
ansible_user = root
other = "#1"

[site:children]
edge

[site:vars]
ansible_user=nobody
`;
  expect(hostsOf(text)).toEqual([
    'lone admin 192.0.2.9 -',
    'r01 root r01 2222',
    'r02 root r02 2222',
    'r03 root r03 2222',
    'b-a.example root b-a.example -',
    'b-b.example root b-b.example -',
  ]);
});

it("reads Ansible's YAML form", () => {
  const text = `
all:
  vars: { ansible_user: root, ansible_port: 22 }
  hosts:
    lone: { ansible_host: 2001:db8::9 }
  children:
    edge:
      hosts:
        r[1:2]:
        r3: { ansible_port: 2222, weight: [1, 2] }
      vars: { ansible_user: admin }
    empty:
`;
  expect(hostsOf(text, 'hosts.yml')).toEqual([
    'lone root 2001:db8::9 22',
    'r1 admin r1 22',
    'r2 admin r2 22',
    'r3 admin r3 2222',
  ]);
});

it.each([
  ['empty', '# nobody\n', 'hosts', 'inventory/empty'],
  ['a range backwards', 'r[5:1]\n', 'hosts', 'inventory/line'],
  ['too many hosts', 'r[1:999999999]\n', 'hosts', 'inventory/line'],
  ['words behind a host', '[x]\nr1 what\n', 'hosts', 'inventory/line'],
  ['an option for a host', '-oProxyCommand=reboot\n', 'hosts', 'ssh/target'],
  ['a command for a host', '$(reboot)\n', 'hosts', 'ssh/target'],
  ['an address with a command', 'r1 ansible_host="a;reboot"\n', 'hosts', 'ssh/target'],
  ['no YAML', 'all: [\n', 'hosts.yaml', 'inventory/yaml'],
  ['YAML of another kind', '- r1\n- r2\n', 'hosts.yaml', 'inventory/form'],
])('refuses an inventory: %s', (_, text, file, code) => {
  expect(hostsOf(text, file)).toBe(code);
});
