import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { SshOptions } from '../../src/deploy/ssh/connect.ts';
import { openSshSession, type SshSession } from '../../src/deploy/ssh/transport.ts';
import { toHex } from '../../src/support/bits.ts';
import { MAIN } from '../support/run-cli.ts';
import { runCommand } from '../support/run-command.ts';
import { openSshLab, probeSshLab, type SshLab } from '../support/ssh-lab.ts';

const obstacle = probeSshLab();
let lab: SshLab;
const before = { HOME: process.env['HOME'], SSH_AUTH_SOCK: process.env['SSH_AUTH_SOCK'] };

beforeAll(async () => {
  if (obstacle !== null) return;
  lab = await openSshLab();
  process.env['HOME'] = lab.home;
});

beforeEach(() => {
  if (obstacle !== null) return;
  delete process.env['SSH_AUTH_SOCK'];
  configure('IdentityFile ~/.ssh/plain');
  writeFileSync(lab.file('known_hosts'), lab.knownHost);
});

afterAll(() => {
  if (obstacle !== null) return;
  lab.close();
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

function configure(...lines: readonly string[]): void {
  const own = [`Host box`, 'HostName 127.0.0.1', `Port ${lab.port}`, 'User root', ...lines];
  writeFileSync(lab.file('config'), `${own.join('\n')}\n`);
}

const PLAIN: SshOptions = { acceptNew: false, ask: async () => null };

/** Connects to `box`; the codes of what stood in the way. */
async function connect(options: Partial<SshOptions> = {}): Promise<SshSession | readonly string[]> {
  const files = { configFiles: [lab.file('config')] };
  const target = { user: null, host: 'box', port: null };
  const opened = await openSshSession(target, { ...PLAIN, ...files, ...options });
  return opened.ok ? opened.value : opened.diagnostics.map(({ code }) => code);
}

/** Runs something on the host. */
async function withHost<T>(
  work: (session: SshSession) => Promise<T>,
  options: Partial<SshOptions> = {},
): Promise<T> {
  const session = await connect(options);
  if (!('transport' in session)) throw new Error(session.join());
  try {
    return await work(session);
  } finally {
    session.close();
  }
}

const sshIt = it.skipIf(obstacle !== null);

sshIt('runs programs with exactly their arguments, input and exit status', async () => {
  const words = ["a'b", '$(id)', '-n', 'x\ny', '', '"', '`id`', '\\', '*', ';reboot', 'ü'];
  await withHost(async ({ transport }) => {
    const echoed = await transport.run(['printf', '%s|', ...words]);
    expect(echoed).toEqual({
      code: 0,
      stdout: words.map((word) => `${word}|`).join(''),
      stderr: '',
    });
    const input = 'line\n'.repeat(200_000);
    expect((await transport.run(['cat'], { input })).stdout).toBe(input);
    expect((await transport.run(['sh', '-c', 'echo no >&2; exit 7'])).code).toBe(7);
    expect((await transport.run(['no-such-program'])).code).toBe(127);
    expect((await transport.run(['/bin/sh', '-c', 'kill -9 $$'])).code).toBeGreaterThan(127);
    const many = await Promise.all(
      Array.from({ length: 40 }, (_, index) => transport.run(['echo', `${index}`])),
    );
    expect(many.map(({ stdout }) => Number(stdout))).toEqual([...many.keys()]);
  });
});

sshIt('writes, reads and removes files whole', async () => {
  const path = join(lab.home, "new dir/it's; $(id)", 'state');
  const content = Uint8Array.from({ length: 70_000 }, (_, index) => index * 7);
  await withHost(async ({ transport }) => {
    expect(await transport.readFile(path)).toBeNull();
    await transport.writeFile(path, content);
    expect(toHex((await transport.readFile(path)) ?? new Uint8Array())).toBe(toHex(content));
    await transport.writeFile(path, new Uint8Array());
    expect(await transport.readFile(path)).toHaveLength(0);
    await transport.remove(path);
    await transport.remove(path);
    expect(await transport.readFile(path)).toBeNull();
    await expect(transport.writeFile('/proc/none/file', content)).rejects.toMatchObject({
      code: 'EIO',
      message: expect.stringContaining('cannot write'),
    });
  });
});

sshIt('says that the line broke, during a command and after it', async () => {
  await withHost(async ({ transport }) => {
    const running = transport.run(['sleep', '60']);
    await transport.run(['true']);
    await lab.cut();
    const ends = [await running, await transport.run(['true'])];
    expect(ends.map(({ code }) => code)).toEqual([255, 255]);
    expect(ends.every(({ stderr }) => stderr !== '')).toBe(true);
  });
});

sshIt('trusts only host keys that are known', async () => {
  const known = lab.file('known_hosts');
  writeFileSync(known, '');
  expect(await connect()).toEqual(['ssh/unknown-host']);
  expect(readFileSync(known, 'utf8')).toBe('');
  await withHost(async () => {}, { acceptNew: true });
  expect(readFileSync(known, 'utf8')).toBe(lab.knownHost);
  await withHost(async () => {});
  const other = readFileSync(lab.file('plain.pub'), 'utf8').trim();
  writeFileSync(known, `[127.0.0.1]:${lab.port} ${other}\n`);
  expect(await connect()).toEqual(['ssh/changed-host-key']);
  expect(await connect({ acceptNew: true })).toEqual(['ssh/changed-host-key']);
  writeFileSync(known, `@revoked ${lab.knownHost}${lab.knownHost}`);
  expect(await connect()).toEqual(['ssh/revoked-host-key']);
  await runCommand('ssh-keygen', ['-H', '-f', known]).catch(() => {});
  writeFileSync(known, lab.knownHost);
  await runCommand('ssh-keygen', ['-H', '-f', known]);
  expect(readFileSync(known, 'utf8')).toMatch(/^\|1\|/);
  await withHost(async () => {});
});

sshIt('logs in by files, by passphrase and by the agent', async () => {
  configure('IdentityFile ~/.ssh/none');
  expect(await connect()).toEqual(['ssh/refused']);
  configure('IdentityFile ~/.ssh/locked');
  expect(await connect()).toEqual(['ssh/refused']);
  const asked: string[] = [];
  const answer = (secret: string) => async (prompt: string) => {
    asked.push(prompt);
    return secret;
  };
  expect(await connect({ ask: answer('wrong') })).toEqual(['ssh/refused']);
  await withHost(async () => {}, { ask: answer('secret') });
  expect(asked).toEqual(Array(2).fill(`Passphrase for ${lab.file('locked')}: `));
  const socket = join(lab.home, 'agent');
  const agent = spawn('ssh-agent', ['-D', '-a', socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await once(agent.stdout, 'data');
    process.env['SSH_AUTH_SOCK'] = socket;
    await runCommand('ssh-add', ['-q', lab.file('plain')]);
    configure('IdentityFile ~/.ssh/none');
    await withHost(async () => {});
    configure('IdentityFile ~/.ssh/none', 'IdentitiesOnly yes');
    expect(await connect()).toEqual(['ssh/refused']);
    configure('IdentityFile ~/.ssh/plain', 'IdentitiesOnly yes');
    await withHost(async () => {});
  } finally {
    agent.kill();
  }
});

sshIt('goes through hosts on the way, and says where it ends', async () => {
  configure('IdentityFile ~/.ssh/plain', `ProxyJump root@127.0.0.1:${lab.port}`);
  writeFileSync(
    lab.file('config'),
    `Host box\nProxyJump way\nHost box way\nHostName 127.0.0.1\nPort ${lab.port}\nUser root\nIdentityFile ~/.ssh/plain\n`,
  );
  await withHost(async ({ transport }) => {
    expect((await transport.run(['echo', 'there'])).stdout).toBe('there\n');
  });
  configure('IdentityFile ~/.ssh/plain', 'ProxyJump 127.0.0.1:1');
  expect(await connect()).toEqual(['ssh/unreachable']);
});

sshIt('plans for the ruleset and the facts of another machine', async () => {
  const namespace = `nfo-ssh-${process.pid}`;
  await runCommand('ip', ['netns', 'add', namespace]);
  const enter = ['nsenter', `--net=/run/netns/${namespace}`];
  const [program = '', ...inside] = enter;
  let there: SshLab | null = null;
  try {
    const run = async (...argv: readonly string[]) => runCommand(program, [...inside, ...argv]);
    await run('ip', 'link', 'set', 'lo', 'up');
    await run('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'wire');
    await run('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'eth0');
    await run('ip', 'link', 'set', 'eth0', 'up');
    await run(
      'nft',
      'add table inet t { chain in { type filter hook input priority 0; tcp dport 23 drop; }; }',
    );
    there = await openSshLab({ prefix: enter, address: '127.0.0.1', port: null });
    writeFileSync(there.file('known_hosts'), there.knownHost);
    writeFileSync(there.file('config'), 'IdentityFile ~/.ssh/plain\n');
    const host = `root@127.0.0.1:${there.port}`;
    const asked = ['plan', '--host', host, '--dev', 'eth0', '--json'];
    const env = ['env', `HOME=${there.home}`, 'SSH_AUTH_SOCK='];
    const plan = JSON.parse(String(await run(...env, process.execPath, ...MAIN, ...asked)));
    expect(plan.rules).toMatchObject([{ text: 'tcp dport 23 drop', tier: 'xdp-native' }]);
    expect(plan.facts).toMatchObject({ role: 'host' });
    expect(plan.facts['local-address']).toContain('192.0.2.1');
  } finally {
    there?.close();
    await runCommand('ip', ['netns', 'del', namespace]);
  }
});
