import { spawnSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { checkMachine } from '../../src/deploy/machine.ts';
import { openSshSession } from '../../src/deploy/ssh/transport.ts';
import type { Transport } from '../../src/deploy/transport.ts';
import { unwrap } from '../support/pipeline.ts';
import { openSshLab, probeSshLab, type SshLab } from '../support/ssh-lab.ts';

const obstacle =
  probeSshLab() ?? (spawnSync('sudo', ['-V']).error === undefined ? null : 'needs sudo');
const sshIt = it.skipIf(obstacle !== null);

/** May become root without a password, and may not. */
const USERS = { trusted: 'nfo-trusted', plain: 'nfo-plain' } as const;

// Two users that only this sshd knows: the files are its own, in a mount namespace.
const OWN_USERS = `mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && cd /mnt
for file in passwd shadow sudoers; do cp -p /etc/$file $file; done
echo '${USERS.trusted}:x:65531:65531::/tmp:/bin/sh
${USERS.plain}:x:65530:65530::/tmp:/bin/sh' >>passwd
echo '${USERS.trusted}:*:19000::::::
${USERS.plain}:*:19000::::::' >>shadow
echo '${USERS.trusted} ALL=(ALL) NOPASSWD: ALL' >>sudoers
for file in passwd shadow sudoers; do mount --bind $file /etc/$file; done
cd / && exec "$@"`;

let lab: SshLab;
const home = process.env['HOME'];

beforeAll(async () => {
  if (obstacle !== null) return;
  const prefix = ['unshare', '--mount', 'sh', '-c', OWN_USERS, 'sh'];
  lab = await openSshLab({ prefix, address: '127.0.0.1', port: null });
  // sshd reads the keys that it takes as the user.
  chmodSync(dirname(lab.home), 0o755);
  process.env['HOME'] = lab.home;
  writeFileSync(lab.file('known_hosts'), lab.knownHost);
  writeFileSync(lab.file('config'), 'IdentityFile ~/.ssh/plain\n');
});

afterAll(() => {
  if (obstacle !== null) return;
  lab.close();
  if (home === undefined) delete process.env['HOME'];
  else process.env['HOME'] = home;
});

async function asUser<T>(user: string, work: (transport: Transport) => Promise<T>): Promise<T> {
  const options = { acceptNew: false, ask: async () => null, configFiles: [lab.file('config')] };
  const target = { user, host: '127.0.0.1', port: lab.port };
  const session = unwrap(await openSshSession(target, options));
  try {
    return await work(session.transport);
  } finally {
    session.close();
  }
}

sshIt('a user who may use sudo without a password works as root', async () => {
  await asUser(USERS.trusted, async (transport) => {
    expect(await checkMachine(transport, ['ip', 'bpftool'])).toEqual([]);
    const words = ["a'b", '$(id)', '-n', 'x\ny', '', ';reboot'];
    const echoed = await transport.run(['printf', '%s|', ...words]);
    expect(echoed.stdout).toBe(words.map((word) => `${word}|`).join(''));
    const path = '/mnt/root only/state';
    await transport.writeFile(path, new TextEncoder().encode('kept'));
    const owner = await transport.run(['stat', '-c', '%u %a', path]);
    expect(owner.stdout).toBe('0 600\n');
    expect((await transport.run(['cat'], { input: 'in' })).stdout).toBe('in');
    const held = await transport.hold(['sh', '-c', 'id -u; cat >/dev/null']);
    expect(held?.line).toBe('0');
    await held?.release();
  });
});

sshIt('a user who may not is told so before anything is done', async () => {
  await asUser(USERS.plain, async (transport) => {
    const said = await checkMachine(transport, ['ip']);
    expect(said).toMatchObject([{ code: 'deploy/not-root' }]);
  });
});
