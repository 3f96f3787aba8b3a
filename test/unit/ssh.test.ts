import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { quoteWord } from '../../src/deploy/shell.ts';
import { resolveSettings } from '../../src/deploy/ssh/config.ts';
import { checkHostKey, knownHostName, knownKeyTypes } from '../../src/deploy/ssh/known-hosts.ts';
import { parseTarget } from '../../src/deploy/ssh/target.ts';
import { formatCommand } from '../../src/deploy/ssh/transport.ts';

const directory = mkdtempSync(join(tmpdir(), 'nfo-ssh-unit-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

it.each([
  ['host', { user: null, host: 'host', port: null }],
  ['root@10.0.0.1:2222', { user: 'root', host: '10.0.0.1', port: 2222 }],
  ['2001:db8::1', { user: null, host: '2001:db8::1', port: null }],
  ['a@[fe80::1%eth0]:22', { user: 'a', host: 'fe80::1%eth0', port: 22 }],
])('reads where a host is: %s', (text, target) => {
  expect(parseTarget(text)).toMatchObject({ ok: true, value: target });
});

it.each(['', '-oProxyCommand=x', 'a@-x', 'a b', 'x;id', '$(id)', 'a@b@c', 'h:0', 'h:99999', 'h\n'])(
  'refuses what is no host: %j',
  (text) => {
    const parsed = parseTarget(text);
    expect(parsed.ok).toBe(false);
    expect(parsed.diagnostics.map(({ code }) => code)).toEqual(['ssh/target']);
  },
);

/** A public key in SSH's wire form with that type and body. */
function keyOf(type: string, body: string): Buffer {
  const parts = [type, body].map((text) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    return Buffer.concat([length, Buffer.from(text)]);
  });
  return Buffer.concat(parts);
}

const KEY = keyOf('ssh-ed25519', 'one');
const KEY64 = KEY.toString('base64');
const OTHER64 = keyOf('ssh-rsa', 'two').toString('base64');

function hashed(name: string): string {
  const salt = Buffer.from('0123456789abcdefghij');
  const hash = createHmac('sha1', salt).update(name).digest('base64');
  return `|1|${salt.toString('base64')}|${hash}`;
}

it.each([
  ['empty', '', 'unknown'],
  ['its own', `box ssh-ed25519 ${KEY64} comment`, 'known'],
  ['in a list', `a,box,c ssh-ed25519 ${KEY64}`, 'known'],
  ['by a pattern', `b?* ssh-ed25519 ${KEY64}`, 'known'],
  ['negated', `*,!box ssh-ed25519 ${KEY64}`, 'unknown'],
  ['hashed', `${hashed('box')} ssh-ed25519 ${KEY64}`, 'known'],
  ['another hash', `${hashed('fox')} ssh-ed25519 ${KEY64}`, 'unknown'],
  ['of another port', `[box]:2222 ssh-ed25519 ${KEY64}`, 'unknown'],
  ['a comment', `# box ssh-ed25519 ${KEY64}`, 'unknown'],
  ['another key', `box ssh-rsa ${OTHER64}`, 'changed'],
  ['both', `box ssh-rsa ${OTHER64}\nbox ssh-ed25519 ${KEY64}`, 'known'],
  ['revoked', `box ssh-ed25519 ${KEY64}\n@revoked * ssh-ed25519 ${KEY64}`, 'revoked'],
  ['an authority', `@cert-authority * ssh-ed25519 ${KEY64}`, 'unknown'],
])('judges a host key by known_hosts: %s', (_, text, verdict) => {
  expect(checkHostKey(text, knownHostName('Box', 22), KEY)).toBe(verdict);
});

it('names hosts as known_hosts does and lists the types known of them', () => {
  expect(knownHostName('h', 2222)).toBe('[h]:2222');
  const text = `h ssh-rsa ${OTHER64}\nh ssh-ed25519 ${KEY64}\n@revoked h ssh-dss AAAA\n`;
  expect(knownKeyTypes(text, 'h')).toEqual(['ssh-rsa', 'ssh-ed25519']);
});

function settingsOf(text: string, host = 'box') {
  const file = join(directory, 'config');
  writeFileSync(file, text);
  return resolveSettings({ user: null, host, port: null }, [file]);
}

it('reads the settings of a host: the first value counts, files of keys add up', () => {
  const settings = settingsOf(`# comment
Host other
  Port 1
Host b* !bad
  HostName = "%h.example"
  Port 2222
  User "an admin"
  IdentityFile ~/.ssh/%r-key
  ProxyJump one,root@two:22
Match user nobody
  Port 3
Match all
  Port 4
  IdentityFile /keys/%n
  IdentitiesOnly yes
  UserKnownHostsFile /a /b
`);
  expect(settings).toMatchObject({
    hostName: 'box.example',
    port: 2222,
    user: 'an admin',
    identityFiles: [join(homedir(), '.ssh/an admin-key'), '/keys/box'],
    identitiesOnly: true,
    jumps: ['one', 'root@two:22'],
    knownHosts: ['/a', '/b', '/etc/ssh/ssh_known_hosts'],
  });
  expect(settingsOf('Host bad\nPort 9\nHost *\nProxyJump none\n', 'bad')).toMatchObject({
    hostName: 'bad',
    port: 9,
    jumps: [],
  });
});

it('follows includes, also by wildcard, and stops at those that include themselves', () => {
  for (const name of ['1.inc', '2.inc']) {
    writeFileSync(join(directory, name), `User from-${name}\nInclude ${directory}/config\n`);
  }
  expect(settingsOf(`Include ${directory}/*.inc\nInclude none\nUser last\n`).user).toBe(
    'from-1.inc',
  );
});

it('quotes every word for the shell of the host', () => {
  expect(quoteWord(`a'b $(c)`)).toBe(`'a'\\''b $(c)'`);
  expect(formatCommand(['ip', "it's"])).toMatch(/ 'sh' 'ip' 'it'\\''s'$/);
});
