import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';

/** Where `--host` points: null is what ~/.ssh/config or the default says. */
export interface SshTarget {
  readonly user: string | null;
  readonly host: string;
  readonly port: number | null;
}

const MOST_PORT = 65_535;
const FORM =
  /^(?:(?<user>[^@\s]+)@)?(?:\[(?<address>[0-9a-fA-F:.]+(?:%\w+)?)\]|(?<name>[^@\s:[\]]+))(?::(?<port>\d{1,5}))?$/;
/** Names that neither a shell, a program's options nor a log could take for something else. */
const SAFE = /^[A-Za-z0-9_][A-Za-z0-9._:%-]*$/;
const SAFE_USER = /^[A-Za-z0-9_][A-Za-z0-9._\\-]*\$?$/;

/** Reads `[user@]host[:port]`; an IPv6 address stands in brackets where a port follows. */
export function parseTarget(text: string): Result<SshTarget> {
  const bare = /^[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%\w+)?$/.test(text)
    ? `[${text}]`
    : text;
  const { user = null, address, name, port } = FORM.exec(bare)?.groups ?? {};
  const host = address ?? name ?? '';
  const number = port === undefined ? null : Number(port);
  const isGood =
    (address !== undefined || SAFE.test(host)) &&
    (user === null || SAFE_USER.test(user)) &&
    (number === null || (number > 0 && number <= MOST_PORT));
  if (isGood) return succeed({ user, host, port: number });
  return fail(
    errorAt('ssh/target', `${JSON.stringify(text)} names no host`, {
      help: 'write user@host, host, user@host:port or user@[IPv6 address]:port',
    }),
  );
}
