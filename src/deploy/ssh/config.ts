import { readdirSync, readFileSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { matchesAny } from './pattern.ts';

/** What ssh_config(5) says of one host, as far as it is heeded here. */
export interface SshSettings {
  readonly hostName: string;
  readonly user: string;
  readonly port: number;
  readonly identityFiles: readonly string[];
  /** Only the keys of `identityFiles`, also of those that the agent holds. */
  readonly identitiesOnly: boolean;
  /** The agent's socket; null when there is none. */
  readonly agent: string | null;
  /** Hosts to go through, first one first. */
  readonly jumps: readonly string[];
  readonly knownHosts: readonly string[];
  /** The name the host's key is known by. */
  readonly hostKeyAlias: string | null;
}

/** Keys in lower case, each with the values given for it, first one first. */
type Options = Map<string, string[]>;

/** ssh_config(5): the key files that are tried without any being named. */
const DEFAULT_IDENTITIES = ['id_rsa', 'id_ecdsa', 'id_ed25519'];
/** ssh_config(5): more includes than that inside each other are refused (readconf.c). */
const INCLUDE_DEPTH = 16;

function splitWords(text: string): string[] {
  return [...text.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '');
}

function expandHome(path: string): string {
  return path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path;
}

/** Files that an `Include` names; only the last part of a path may have wildcards. */
function includedFiles(pattern: string, from: string): string[] {
  const path = expandHome(pattern);
  const whole = isAbsolute(path) ? path : join(from, path);
  if (!/[*?]/.test(basename(whole))) return [whole];
  try {
    const names = readdirSync(dirname(whole)).filter((name) => matchesAny(name, [basename(whole)]));
    return names.sort().map((name) => join(dirname(whole), name));
  } catch {
    return [];
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Takes what a file says of `host`; the first value of a key counts, files to try add up. */
function collect(
  path: string,
  host: string,
  options: Options,
  within: readonly string[] = [],
): void {
  if (within.includes(path) || within.length > INCLUDE_DEPTH) return;
  let applies = true;
  for (const line of readText(path).split('\n')) {
    const match = /^\s*([A-Za-z]+)(?:\s*=\s*|\s+)(.*?)\s*$/.exec(line);
    const key = match?.[1]?.toLowerCase();
    if (key === undefined) continue;
    const words = splitWords(match?.[2] ?? '');
    if (key === 'host') applies = matchesAny(host, words);
    // Conditions on the user or the network are not looked at: such a block says nothing here.
    else if (key === 'match') applies = words.length === 1 && words[0]?.toLowerCase() === 'all';
    else if (!applies) continue;
    else if (key === 'include') {
      const files = words.flatMap((word) => includedFiles(word, join(homedir(), '.ssh')));
      for (const file of files) collect(file, host, options, [...within, path]);
    } else if (key === 'identityfile') {
      options.set(key, [...(options.get(key) ?? []), ...words]);
    } else if (!options.has(key)) options.set(key, words);
  }
}

/** ssh_config(5), TOKENS: those that say where a file or a host is. */
function expandTokens(text: string, tokens: Readonly<Record<string, string>>): string {
  return text.replace(/%(.)/g, (whole, token: string) =>
    token === '%' ? '%' : (tokens[token] ?? whole),
  );
}

/** What is given on the command line for the host. */
export interface GivenTarget {
  readonly user: string | null;
  readonly host: string;
  readonly port: number | null;
}

/**
 * Looks a host up as ssh does: what is given, then `file`, then the system's file. Heeded are HostName,
 * User, Port, IdentityFile, IdentitiesOnly, IdentityAgent, ProxyJump, UserKnownHostsFile,
 * GlobalKnownHostsFile, HostKeyAlias, Include, Host and `Match all`.
 */
export function resolveSettings(
  { user, host, port }: GivenTarget,
  files: readonly string[] = [join(homedir(), '.ssh/config'), '/etc/ssh/ssh_config'],
): SshSettings {
  const options: Options = new Map();
  for (const file of files) collect(file, host, options);
  const first = (key: string): string | null => options.get(key)?.[0] ?? null;
  const remoteUser = user ?? first('user') ?? userInfo().username;
  const remotePort = port ?? Number(first('port') ?? 22);
  const hostName = expandTokens(first('hostname') ?? host, { h: host });
  const tokens = {
    ...{ d: homedir(), h: hostName, n: host, p: `${remotePort}`, r: remoteUser },
    u: userInfo().username,
  };
  const toPath = (text: string): string => expandTokens(expandHome(text), tokens);
  const identities = options.get('identityfile')?.filter((path) => path.toLowerCase() !== 'none');
  const socket = first('identityagent') ?? 'SSH_AUTH_SOCK';
  const agent = socket === 'SSH_AUTH_SOCK' ? (process.env['SSH_AUTH_SOCK'] ?? null) : socket;
  const jump = first('proxyjump');
  return {
    hostName,
    user: remoteUser,
    port: remotePort,
    identityFiles: (
      identities ?? DEFAULT_IDENTITIES.map((name) => join(homedir(), '.ssh', name))
    ).map(toPath),
    identitiesOnly: first('identitiesonly')?.toLowerCase() === 'yes',
    agent: agent === null || agent === 'none' || agent === '' ? null : toPath(agent),
    jumps: jump === null || jump === 'none' ? [] : jump.split(','),
    knownHosts: [
      ...(options.get('userknownhostsfile') ?? ['~/.ssh/known_hosts', '~/.ssh/known_hosts2']),
      ...(options.get('globalknownhostsfile') ?? ['/etc/ssh/ssh_known_hosts']),
    ].map(toPath),
    hostKeyAlias: first('hostkeyalias'),
  };
}
