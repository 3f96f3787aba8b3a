import { createHmac, timingSafeEqual } from 'node:crypto';
import { matchesAny } from './pattern.ts';

/**
 * What known_hosts says of a host's key. unknown: no key of this host is known. changed: others are.
 * revoked: this key must not be trusted.
 */
export type HostKeyVerdict = 'known' | 'unknown' | 'changed' | 'revoked';

/** One line of known_hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT). */
interface KnownKey {
  readonly marker: string | null;
  readonly hosts: string;
  readonly type: string;
  readonly key: string;
}

const DEFAULT_PORT = 22;

/** The name a host goes by in known_hosts: with its port where that is not 22. */
export function knownHostName(host: string, port: number): string {
  const name = host.toLowerCase();
  return port === DEFAULT_PORT ? name : `[${name}]:${port}`;
}

function parseLine(line: string): KnownKey | null {
  const words = line.trim().split(/\s+/);
  const marker = words[0]?.startsWith('@') ? (words.shift() ?? null) : null;
  const [hosts, type, key] = words;
  if (hosts === undefined || type === undefined || key === undefined) return null;
  return hosts.startsWith('#') ? null : { marker, hosts, type, key };
}

/** `|1|salt|hash`: the name's HMAC-SHA1, both in base 64. */
function matchesHash(name: string, hosts: string): boolean {
  const [, kind, salt = '', hash = ''] = hosts.split('|');
  if (kind !== '1') return false;
  const expected = Buffer.from(hash, 'base64');
  const actual = createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest();
  return expected.length === actual.length && timingSafeEqual(expected, actual);
}

function isFor({ hosts }: KnownKey, name: string): boolean {
  return hosts.startsWith('|') ? matchesHash(name, hosts) : matchesAny(name, hosts.split(','));
}

/** Lines about the host; certificate authorities are not supported, so their lines say nothing. */
function keysOf(text: string, name: string): readonly KnownKey[] {
  return text
    .split('\n')
    .map(parseLine)
    .filter((line) => line !== null)
    .filter((line) => line.marker !== '@cert-authority' && isFor(line, name));
}

/** The type a public key in SSH's wire form begins with, `ssh-ed25519` (RFC 4253, 6.6). */
export function keyType(key: Uint8Array): string {
  const data = Buffer.from(key);
  return data.subarray(4, 4 + data.readUInt32BE(0)).toString('latin1');
}

/**
 * Looks a host's key (SSH's wire form) up; `name` as of `knownHostName`. Stricter than OpenSSH in one
 * thing: a host of which only keys of other types are known counts as changed.
 */
export function checkHostKey(text: string, name: string, key: Uint8Array): HostKeyVerdict {
  const encoded = Buffer.from(key).toString('base64');
  const lines = keysOf(text, name);
  const same = lines.filter((line) => line.key === encoded);
  if (same.some(({ marker }) => marker === '@revoked')) return 'revoked';
  const trusted = lines.filter(({ marker }) => marker === null);
  if (trusted.some((line) => line.key === encoded)) return 'known';
  return trusted.length === 0 ? 'unknown' : 'changed';
}

/** Types of the keys that are known of a host, to ask it for one of these first. */
export function knownKeyTypes(text: string, name: string): readonly string[] {
  const trusted = keysOf(text, name).filter(({ marker }) => marker === null);
  return [...new Set(trusted.map(({ type }) => type))];
}

/** A line that makes the key known. */
export function formatKnownHost(name: string, key: Uint8Array): string {
  return `${name} ${keyType(key)} ${Buffer.from(key).toString('base64')}\n`;
}
