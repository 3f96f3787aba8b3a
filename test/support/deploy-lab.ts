import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { DeployPaths } from '../../src/deploy/paths.ts';
import { openLocalTransport, type Transport } from '../../src/deploy/transport.ts';
import { TEST_ETHERTYPE } from './deploy-objects.ts';
import { runCommand } from './run-command.ts';

/** Two namespaces with a veth pair between: programs go on `eth0`, frames come from the far end. */
export interface DeployLab {
  readonly transport: Transport;
  readonly paths: DeployPaths;
  /** Runs a command where the device is; throws when it fails. */
  run(...argv: readonly string[]): Promise<string>;
  /** Sends so many test frames of 60 bytes and tells how many the stack behind XDP saw. */
  send(count: number, etherType?: number): Promise<number>;
  /** What runs a program where the device is. */
  readonly prefix: readonly string[];
  /** Makes the device, with the far end. */
  plug(): Promise<void>;
  /** Sends without a pause while `work` runs; how many were sent, and how many came through. */
  sendDuring(work: () => Promise<void>): Promise<{ readonly sent: number; readonly seen: number }>;
  close(): Promise<void>;
}

/** What is missing on this machine, or null. */
export function probeDeployLab(): string | null {
  if (process.getuid?.() !== 0) return 'needs root';
  for (const [program, flag] of [
    ['ip', '-V'],
    ['bpftool', 'version'],
    ['nft', '--version'],
    ['ethtool', '--version'],
    ['nsenter', '--version'],
    ['python3', '--version'],
  ] as const) {
    if (spawnSync(program, [flag]).status !== 0) return `needs ${program}`;
  }
  return null;
}

/**
 * Reads lines `NEAR FAR COUNT TYPE`: sends so many test frames of that EtherType from namespace FAR, or (0) until the next
 * line, and prints how many it sent and how many came through to NEAR. One process for all labs, since
 * starting Python takes longer than anything else here.
 */
const TRAFFIC = `
import ctypes, os, select, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
home = os.open('/proc/self/ns/net', os.O_RDONLY)
def enter(fd):
    if libc.setns(fd, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), 'setns')
def packet_socket(name, protocol):
    fd = os.open('/run/netns/' + name, os.O_RDONLY)
    enter(fd)
    os.close(fd)
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
    s.bind(('eth0', protocol))
    enter(home)
    return s
def drain(s, patience):
    seen = 0
    while select.select([s], [], [], patience)[0]:
        s.recv(64)
        seen += 1
    return seen
for line in iter(sys.stdin.readline, ''):
    near, far, count, kind = line.split()
    limit = int(count)
    frame = (bytes.fromhex('020000000001020000000002') + int(kind).to_bytes(2, 'big')).ljust(60, b'\\0')
    with packet_socket(near, int(kind)) as into, packet_socket(far, 0) as out:
        print('ready', flush=True)
        sent = seen = 0
        while limit == 0 or sent < limit:
            if sent % 64 == 0:
                seen += drain(into, 0)
                if limit == 0 and select.select([0], [], [], 0)[0]:
                    sys.stdin.readline()
                    break
            try:
                out.send(frame)
                sent += 1
            except OSError:
                pass  # the queue is full
        seen += drain(into, 0.05)
    print(sent, seen, flush=True)
`;

interface Traffic {
  /** Writes a line. */
  say(line: string): void;
  /** The next line that it prints. */
  hear(): Promise<string>;
}

let traffic: Traffic | null = null;

function startTraffic(): Traffic {
  // Not the first one in PATH, which may be a script that looks for the right one every time.
  const python = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';
  const child = spawn(python, ['-c', TRAFFIC], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.unref();
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    say: (line) => child.stdin.write(`${line}\n`),
    async hear() {
      const { done, value } = await lines.next();
      if (done === true) throw new Error('the sender of test frames ended');
      return value;
    },
  };
}

/** The helper answers in order, so there is one conversation at a time. */
let talk: Promise<unknown> = Promise.resolve();

/** Sends; while `work` runs where there is some, else `count` frames. */
function exchange(...wanted: Parameters<typeof converse>): ReturnType<typeof converse> {
  const turn = talk.then(() => converse(...wanted));
  talk = turn.catch(() => {});
  return turn;
}

async function converse(
  near: string,
  far: string,
  count: number,
  etherType: number,
  work: (() => Promise<void>) | null,
): Promise<{ readonly sent: number; readonly seen: number }> {
  traffic ??= startTraffic();
  const { say, hear } = traffic;
  say(`${near} ${far} ${count} ${etherType}`);
  await hear();
  try {
    await work?.();
  } finally {
    if (work !== null) say('stop');
  }
  const [sent = 0, seen = 0] = (await hear()).split(' ').map(Number);
  return { sent, seen };
}

let opened = 0;

/** Lays out the namespaces; nothing outside them and a temporary directory is touched. */
export async function openDeployLab(): Promise<DeployLab> {
  opened += 1;
  const near = `nfo-dep-${process.pid}-${opened}-a`;
  const far = `nfo-dep-${process.pid}-${opened}-b`;
  const directory = await mkdtemp(join(tmpdir(), 'nfo-dep-'));
  const paths = { bpffs: join(directory, 'bpf'), state: join(directory, 'state') };
  await runCommand('ip', ['netns', 'add', near]);
  await runCommand('ip', ['netns', 'add', far]);
  const plug = async (): Promise<void> => {
    const link = ['link', 'add', 'eth0', 'address', '02:00:00:00:00:01', 'type', 'veth'];
    const peer = ['peer', 'name', 'eth0', 'address', '02:00:00:00:00:02', 'netns', far];
    await runCommand('ip', ['-n', near, ...link, ...peer]);
    await runCommand('ip', ['-n', near, 'link', 'set', 'eth0', 'up']);
    await runCommand('ip', ['-n', far, 'link', 'set', 'eth0', 'up']);
  };
  await plug();

  const prefix = ['nsenter', `--net=/run/netns/${near}`];
  const [enter = '', ...where] = prefix;
  return {
    transport: openLocalTransport({ prefix }),
    paths,
    async run(...argv) {
      return (await runCommand(enter, [...where, ...argv])).toString();
    },
    async send(count, etherType = TEST_ETHERTYPE) {
      return (await exchange(near, far, count, etherType, null)).seen;
    },
    prefix,
    plug,
    sendDuring: (work) => exchange(near, far, 0, TEST_ETHERTYPE, work),
    async close() {
      await runCommand('ip', ['netns', 'del', near]);
      await runCommand('ip', ['netns', 'del', far]);
      // Not mounted where every deployment was refused.
      await runCommand('umount', [paths.bpffs]).catch(() => {});
      await rm(directory, { recursive: true, force: true });
    },
  };
}
