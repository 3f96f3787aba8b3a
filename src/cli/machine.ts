import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import { checkDeviceName } from '../deploy/device-name.ts';
import { parseTarget, type SshTarget } from '../deploy/ssh/target.ts';
import { openLocalTransport, type Transport } from '../deploy/transport.ts';
import type { Result } from '../support/diagnostics.ts';
import { succeed } from '../support/diagnostics.ts';
import { askSecret } from './ask-secret.ts';

/** `--dev`, for commander. */
export function parseDevice(text: string): string {
  const bad = checkDeviceName(text);
  if (bad === null) return text;
  throw new InvalidArgumentError(`${bad.message}: ${bad.help}.`);
}

/** Adds a `--dev` that must be given. */
export function addDeviceOption(command: Command): Command {
  return command.addOption(
    new Option('--dev <IF>', 'the device').argParser(parseDevice).makeOptionMandatory(),
  );
}

/** Ends the program with exit code 2 and that message. */
export function refuseUsage(command: Command, message: string): never {
  return command.error(`error: ${message}`, { exitCode: 2, code: 'nft-offload.usage' });
}

/** `--host`, for commander. */
export function parseHost(text: string): SshTarget {
  const target = parseTarget(text);
  if (target.ok) return target.value;
  throw new InvalidArgumentError(
    target.diagnostics.map(({ message, help }) => `${message}: ${help}.`).join(' '),
  );
}

/** Adds what goes with any `--host`. */
export function addSshOptions(command: Command): Command {
  return command.option('--accept-new', 'trust and remember the key of a host never seen before');
}

/** Adds `--host` to a command that only looks at a machine. */
export function addHostOption(command: Command): Command {
  const what = 'read the live ruleset and the facts there, by SSH';
  return addSshOptions(
    command.addOption(new Option('--host <USER@HOST>', what).argParser(parseHost)),
  );
}

/** A machine that is worked on, and how to let go of it. */
export interface Machine {
  readonly transport: Transport;
  /** Not this one. */
  readonly isRemote: boolean;
  close(): void;
}

/** This machine, or a host by SSH; `ask` asks for passphrases. */
export async function openMachine(
  host: SshTarget | undefined,
  acceptNew: boolean,
  ask: (prompt: string) => Promise<string | null> = askSecret,
): Promise<Result<Machine>> {
  if (host === undefined) {
    return succeed({ transport: openLocalTransport(), isRemote: false, close: () => {} });
  }
  // Most runs need no SSH, and loading it takes longer than reading a small ruleset.
  const { openSshSession } = await import('../deploy/ssh/transport.ts');
  const session = await openSshSession(host, { acceptNew, ask });
  if (!session.ok) return session;
  const { transport } = session.value;
  return succeed(
    { transport, isRemote: true, close: () => session.value.close() },
    session.diagnostics,
  );
}
