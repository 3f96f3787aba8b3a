import { createHash } from 'node:crypto';
import { appendFileSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import ssh2, { type Client, type ConnectConfig } from 'ssh2';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import { resolveSettings, type SshSettings } from './config.ts';
import { type AskSecret, type LoginMethod, readCredentials } from './identities.ts';
import { checkHostKey, formatKnownHost, knownHostName, knownKeyTypes } from './known-hosts.ts';
import { parseTarget, type SshTarget } from './target.ts';

/** How connections are made. */
export interface SshOptions {
  /** Keys of hosts never seen before are taken and remembered, as OpenSSH's `accept-new`. */
  readonly acceptNew: boolean;
  readonly ask: AskSecret;
  /** Files of settings instead of the user's and the system's. */
  readonly configFiles?: readonly string[];
}

/** Milliseconds until a host that does not answer is given up. */
const CONNECT_TIMEOUT = 20_000;
/** Milliseconds between signs of life, and how many may go unanswered. */
const KEEPALIVE = { keepaliveInterval: 5_000, keepaliveCountMax: 3 };

/** What ssh2 offers for host keys, the strongest first; SHA-1 signatures of RSA keys are not taken. */
const HOST_KEY_ALGORITHMS = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'rsa-sha2-512',
  'rsa-sha2-256',
] as const;

function readAll(paths: readonly string[]): string {
  return paths
    .map((path) => {
      try {
        return readFileSync(path, 'utf8');
      } catch {
        return '';
      }
    })
    .join('\n');
}

/** As `ssh-keygen -l` shows it. */
function fingerprint(key: Uint8Array): string {
  return `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`;
}

function keyName({ hostKeyAlias, hostName, port }: SshSettings): string {
  return hostKeyAlias ?? knownHostName(hostName, port);
}

/** Why a host's key is not trusted, or null when it is; a new one is remembered where that is wanted. */
function judgeHostKey(
  settings: SshSettings,
  key: Uint8Array,
  acceptNew: boolean,
): Diagnostic | null {
  const name = keyName(settings);
  const verdict = checkHostKey(readAll(settings.knownHosts), name, key);
  const print = fingerprint(key);
  switch (verdict) {
    case 'known':
      return null;
    case 'revoked':
      return errorAt('ssh/revoked-host-key', `${name}: its key ${print} is marked as revoked`);
    case 'changed':
      return errorAt(
        'ssh/changed-host-key',
        `${name}: its key ${print} is not the one in known_hosts; somebody may be listening in`,
        { help: `if the host was set up anew: ssh-keygen -R '${name}', then connect by ssh once` },
      );
    case 'unknown': {
      const [file] = settings.knownHosts;
      if (!acceptNew || file === undefined) {
        return errorAt('ssh/unknown-host', `${name}: its key ${print} is not in known_hosts`, {
          help: 'compare the fingerprint and connect by ssh once, or give --accept-new',
        });
      }
      mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
      appendFileSync(file, formatKnownHost(name, key), { mode: 0o600 });
      return null;
    }
  }
}

/** Types of key that are known of the host are asked for first, so that these can be compared. */
function hostKeyAlgorithms(settings: SshSettings): string[] {
  const known = knownKeyTypes(readAll(settings.knownHosts), keyName(settings));
  const isKnown = (algorithm: string): boolean =>
    known.includes(algorithm.startsWith('rsa-') ? 'ssh-rsa' : algorithm);
  const rest = HOST_KEY_ALGORITHMS.filter((algorithm) => !isKnown(algorithm));
  return [...HOST_KEY_ALGORITHMS.filter(isKnown), ...rest];
}

function explainFailure(
  { user, hostName, port }: SshSettings,
  error: Error & { readonly level?: string; readonly code?: string },
  unusable: readonly string[],
): Diagnostic {
  const where = `${user}@${hostName}:${port}`;
  if (error.level === 'client-authentication') {
    const tried = unusable.length === 0 ? '' : ` (${unusable.join('; ')})`;
    return errorAt('ssh/refused', `${where}: the host takes none of the keys offered${tried}`, {
      help: 'put the key into the agent (ssh-add), or name it in ~/.ssh/config (IdentityFile)',
    });
  }
  return errorAt('ssh/unreachable', `${where}: ${error.message}`, {
    help: 'check the name, the port and the network: `ssh` must get there too',
  });
}

/** Connects once; `through` is the way there when it is not the network itself. */
function connectOnce(
  settings: SshSettings,
  methods: readonly LoginMethod[],
  unusable: readonly string[],
  options: SshOptions,
  through: Duplex | null,
): Promise<Result<Client>> {
  const client = new ssh2.Client();
  let distrust: Diagnostic | null = null;
  const config: ConnectConfig = {
    host: settings.hostName,
    port: settings.port,
    username: settings.user,
    authHandler: [...methods],
    algorithms: { serverHostKey: hostKeyAlgorithms(settings) as never }, // names ssh2 knows
    hostVerifier: (key: Buffer) => {
      distrust = judgeHostKey(settings, key, options.acceptNew);
      return distrust === null;
    },
    readyTimeout: CONNECT_TIMEOUT,
    ...KEEPALIVE,
    ...(through === null ? {} : { sock: through as never }), // a Duplex is enough
  };
  return new Promise((resolve) => {
    client.once('ready', () => resolve(succeed(client)));
    client.on('error', (error) => {
      resolve(fail(distrust ?? explainFailure(settings, error, unusable)));
    });
    client.once('close', () => {
      resolve(fail(distrust ?? explainFailure(settings, new Error('it hung up'), unusable)));
    });
    client.connect(config);
  });
}

function forward(client: Client, { hostName, port }: SshSettings): Promise<Result<Duplex>> {
  return new Promise((resolve) => {
    client.forwardOut('127.0.0.1', 0, hostName, port, (error, channel) => {
      if (error === undefined) {
        resolve(succeed(channel));
        return;
      }
      const message = `${hostName}:${port}: the host on the way does not get there: ${error.message}`;
      resolve(fail(errorAt('ssh/unreachable', message)));
    });
  });
}

/** The hosts on the way, then the host itself. */
function routeTo(target: SshTarget, options: SshOptions): Result<readonly SshSettings[]> {
  const settings = resolveSettings(target, options.configFiles);
  const route: SshSettings[] = [];
  for (const jump of settings.jumps) {
    const parsed = parseTarget(jump);
    if (!parsed.ok) return parsed;
    route.push(resolveSettings(parsed.value, options.configFiles));
  }
  return succeed([...route, settings]);
}

/** A connection, and the connections it goes through. */
export interface Connection {
  readonly client: Client;
  readonly settings: SshSettings;
  close(): void;
}

/**
 * Connects to a host as `ssh` would: settings of ~/.ssh/config, keys of the agent and of files, hosts to
 * jump through. A host whose key is not known, or is another one, is refused.
 */
export async function connectSsh(
  target: SshTarget,
  options: SshOptions,
): Promise<Result<Connection>> {
  const route = routeTo(target, options);
  if (!route.ok) return route;
  const clients: Client[] = [];
  const close = (): void => {
    for (const client of clients.toReversed()) client.end();
  };
  for (const settings of route.value) {
    const before = clients.at(-1);
    const through = before === undefined ? succeed(null) : await forward(before, settings);
    const { methods, unusable } = await readCredentials(settings, options.ask);
    const connected = through.ok
      ? await connectOnce(settings, methods, unusable, options, through.value)
      : through;
    if (!connected.ok) {
      close();
      return connected;
    }
    clients.push(connected.value);
  }
  const client = clients.at(-1);
  const settings = route.value.at(-1);
  if (client === undefined || settings === undefined) throw new Error('bug: a route has no end');
  return succeed({ client, settings, close });
}
