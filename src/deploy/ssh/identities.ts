import { readFile } from 'node:fs/promises';
import ssh2, {
  type AgentAuthMethod,
  type ParsedKey,
  type PublicKeyAuthMethod,
  type SignCallback,
  type SigningRequestOptions,
} from 'ssh2';
import type { SshSettings } from './config.ts';

const { BaseAgent, createAgent, utils } = ssh2;

/** Asks the user for a secret; null when there is nobody to ask or nothing is given. */
export type AskSecret = (prompt: string) => Promise<string | null>;

/** An agent that shows only some of its keys (IdentitiesOnly). */
class FilteredAgent extends BaseAgent<ParsedKey> {
  readonly #agent: InstanceType<typeof BaseAgent>;
  readonly #isWanted: (key: ParsedKey) => boolean;

  constructor(socket: string, isWanted: (key: ParsedKey) => boolean) {
    super();
    this.#agent = createAgent(socket);
    this.#isWanted = isWanted;
  }

  override getIdentities(callback: (error?: Error | null, keys?: ParsedKey[]) => void): void {
    this.#agent.getIdentities((error, keys) => {
      const parsed = (keys ?? []).flatMap((key) => {
        const one = utils.parseKey(key as ParsedKey); // agents give parsed keys
        return one instanceof Error || !this.#isWanted(one) ? [] : [one];
      });
      callback(error, parsed);
    });
  }

  override sign(
    key: ParsedKey,
    data: Buffer,
    options: SigningRequestOptions | SignCallback,
    callback?: SignCallback,
  ): void {
    if (typeof options === 'function') this.#agent.sign(key, data, options);
    else this.#agent.sign(key, data, options, callback);
  }
}

async function readOptional(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return null;
  }
}

/** The public half of an identity, from `FILE.pub` or the file itself. */
async function publicKey(path: string): Promise<ParsedKey | null> {
  for (const text of [await readOptional(`${path}.pub`), await readOptional(path)]) {
    const key = text === null ? null : utils.parseKey(text);
    if (key !== null && !(key instanceof Error)) return key;
  }
  return null;
}

/** One way to log in. */
export type LoginMethod = AgentAuthMethod | PublicKeyAuthMethod;

/** What can be tried to log in, and what could not be. */
export interface Credentials {
  readonly methods: readonly LoginMethod[];
  /** Files with a key that could not be used, and why. */
  readonly unusable: readonly string[];
}

const ENCRYPTED = /encrypted|passphrase/i;

/** Reads a private key; `ask` is asked for the passphrase of an encrypted one. */
async function readKey(path: string, ask: AskSecret): Promise<ParsedKey | string | null> {
  const text = await readOptional(path);
  if (text === null) return null;
  const key = utils.parseKey(text);
  if (!(key instanceof Error)) return key.isPrivateKey() ? key : null;
  if (!ENCRYPTED.test(key.message)) return `${path} cannot be read as a key`;
  const passphrase = await ask(`Passphrase for ${path}: `);
  if (passphrase === null) return `${path} is encrypted: add it to the agent (ssh-add)`;
  const opened = utils.parseKey(text, passphrase);
  return opened instanceof Error ? `the passphrase for ${path} is wrong` : opened;
}

/** The keys held by the agent come first, as in OpenSSH, so that no passphrase is asked for these. */
export async function readCredentials(
  { user, agent, identityFiles, identitiesOnly }: SshSettings,
  ask: AskSecret,
): Promise<Credentials> {
  const methods: LoginMethod[] = [];
  const unusable: string[] = [];
  const publics = await Promise.all(identityFiles.map(publicKey));
  const held = new Set<string>();
  if (agent !== null) {
    const wanted = new Set(
      publics.flatMap((key) => (key === null ? [] : [key.getPublicSSH().toString('base64')])),
    );
    const filtered = new FilteredAgent(agent, (key) => {
      const text = key.getPublicSSH().toString('base64');
      return !identitiesOnly || wanted.has(text);
    });
    const keys = await new Promise<readonly ParsedKey[]>((resolve) => {
      filtered.getIdentities((_, found) => resolve(found ?? []));
    });
    for (const key of keys) held.add(key.getPublicSSH().toString('base64'));
    if (keys.length > 0) methods.push({ type: 'agent', username: user, agent: filtered });
  }
  for (const [index, path] of identityFiles.entries()) {
    const known = publics[index]?.getPublicSSH().toString('base64');
    if (known !== undefined && held.has(known)) continue;
    const key = await readKey(path, ask);
    if (typeof key === 'string') unusable.push(key);
    else if (key !== null) methods.push({ type: 'publickey', username: user, key });
  }
  return { methods, unusable };
}
