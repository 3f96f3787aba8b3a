import type { PortRange } from '../ir/flows.ts';
import type { Transport } from './transport.ts';

/** Files of /proc/net with the sockets of one protocol, a line each behind a head line. */
const SOCKETS = { udp: ['udp', 'udp6'], tcp: ['tcp', 'tcp6'] } as const;

const LISTEN = '0A'; // TCP_LISTEN, include/net/tcp_states.h

interface Socket {
  /** Hexadecimal, in words of the machine's byte order. */
  readonly address: string;
  readonly port: number;
  readonly listens: boolean;
}

/** `sl local_address rem_address st ...` (net/ipv4/udp.c, udp4_format_sock; tcp_ipv4.c, get_tcp4_sock). */
function parseSockets(text: string): readonly Socket[] {
  return text.split('\n').flatMap((line) => {
    const found = /^\s*\d+: ([0-9A-F]{8,32}):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) /.exec(line);
    const [, address = '', port = '', state = ''] = found ?? [];
    if (found === null) return [];
    return [{ address, port: Number.parseInt(port, 16), listens: state === LISTEN }];
  });
}

/** 127/8 and ::1, which nothing outside can answer; known of little-endian machines only. */
function isLoopback({ address }: Socket): boolean {
  return /^[0-9A-F]{6}7F$/.test(address) || address === '00000000000000000000000001000000';
}

async function read(transport: Transport, path: string): Promise<string | null> {
  const { code, stdout } = await transport.run(['cat', '--', path]);
  return code === 0 ? stdout : null;
}

async function readSockets(
  transport: Transport,
  protocol: keyof typeof SOCKETS,
): Promise<readonly Socket[]> {
  const order = await read(transport, '/sys/kernel/cpu_byteorder');
  const texts = await Promise.all(
    SOCKETS[protocol].map((file) => read(transport, `/proc/net/${file}`)),
  );
  const sockets = texts.flatMap((text) => parseSockets(text ?? ''));
  return order?.trim() === 'little' ? sockets.filter((socket) => !isLoopback(socket)) : sockets;
}

/** Ranges in order, those that touch joined. */
function joinRanges(ranges: readonly PortRange[]): readonly PortRange[] {
  const joined: { from: number; to: number }[] = [];
  for (const { from, to } of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = joined.at(-1);
    if (last !== undefined && from <= last.to + 1) last.to = Math.max(last.to, to);
    else joined.push({ from, to });
  }
  return joined;
}

/** Ports from which the kernel's own clients connect (NFS), where that is in use. */
async function readKernelClients(transport: Transport): Promise<readonly PortRange[]> {
  const texts = await Promise.all(
    ['min_resvport', 'max_resvport'].map((file) => read(transport, `/proc/sys/sunrpc/${file}`)),
  );
  const [from, to] = texts.map((text) => Number(text ?? Number.NaN));
  return from !== undefined && to !== undefined && from <= to ? [{ from, to }] : [];
}

/**
 * The local ports from which this machine opens flows, as far as it shows: the range for sockets
 * that choose none, ports of UDP sockets (they may send first), local ports of TCP connections that
 * no socket listens on. Null where the range cannot be read. A proposal: programs that run only now and
 * then do not show.
 */
export async function probeReplyPorts(transport: Transport): Promise<readonly PortRange[] | null> {
  const text = await read(transport, '/proc/sys/net/ipv4/ip_local_port_range');
  const found = /^(\d+)\s+(\d+)\s*$/.exec(text ?? '');
  if (found === null) return null;
  const udp = await readSockets(transport, 'udp');
  const tcp = await readSockets(transport, 'tcp');
  const served = new Set(tcp.filter(({ listens }) => listens).map(({ port }) => port));
  const opened = [...udp, ...tcp.filter(({ port }) => !served.has(port))].filter(
    ({ port }) => port !== 0,
  );
  return joinRanges([
    { from: Number(found[1]), to: Number(found[2]) },
    ...(await readKernelClients(transport)),
    ...opened.map(({ port }) => ({ from: port, to: port })),
  ]);
}

/** As `--concede reply-ports=` takes them: `123,32768-60999`. */
export function formatPorts(ranges: readonly PortRange[]): string {
  return ranges.map(({ from, to }) => (from === to ? `${from}` : `${from}-${to}`)).join(',');
}
