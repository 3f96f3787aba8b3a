import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
  send(count: number): Promise<number>;
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

// Says `ready`, counts the test frames that arrive (not those it sends itself) until its input ends.
const RECEIVER = `
import select, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(${TEST_ETHERTYPE}))
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
s.bind(('eth0', ${TEST_ETHERTYPE}))
print('ready', flush=True)
seen = 0
ended = False
while True:
    ready = select.select([s] if ended else [s, 0], [], [], 0.1 if ended else None)[0]
    if s in ready:
        s.recv(64)
        seen += 1
    elif ended:
        break
    if 0 in ready and not sys.stdin.buffer.read(1):
        ended = True
print(seen)
`;

// Sends argv[1] frames, or (0) until its input ends.
const SENDER = `
import select, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
frame = bytes.fromhex('020000000001020000000002${TEST_ETHERTYPE.toString(16)}').ljust(60, b'\\0')
print('ready', flush=True)
sent = 0
limit = int(sys.argv[1])
while limit == 0 or sent < limit:
    if limit == 0 and sent % 64 == 0 and select.select([0], [], [], 0)[0]:
        break
    try:
        s.send(frame)
        sent += 1
    except OSError:
        pass  # the queue is full
print(sent)
`;

interface Script {
  /** Ends its input, waits for its end, gives the number it printed last. */
  finish(): Promise<number>;
}

async function startScript(namespace: string, script: string, ...args: string[]): Promise<Script> {
  const argv = [`--net=/run/netns/${namespace}`, 'python3', '-c', script, ...args];
  const child: ChildProcess = spawn('nsenter', argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  let output = '';
  const ready = new Promise<void>((resolve, reject) => {
    child.stdout?.on('data', (data) => {
      output += String(data);
      if (output.startsWith('ready\n')) resolve();
    });
    child.on('error', reject);
    child.on('exit', () => reject(new Error(`the script ended early: ${output}`)));
  });
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  await ready;
  return {
    async finish() {
      child.stdin?.end();
      await ended;
      return Number(output.trim().split('\n').at(-1));
    },
  };
}

/** Lays out the namespaces; nothing outside them and a temporary directory is touched. */
export async function openDeployLab(): Promise<DeployLab> {
  const near = `nfo-dep-${process.pid}-a`;
  const far = `nfo-dep-${process.pid}-b`;
  const directory = await mkdtemp(join(tmpdir(), 'nfo-dep-'));
  const paths = { bpffs: join(directory, 'bpf'), state: join(directory, 'state') };
  await runCommand('ip', ['netns', 'add', near]);
  await runCommand('ip', ['netns', 'add', far]);
  const link = ['link', 'add', 'eth0', 'address', '02:00:00:00:00:01', 'type', 'veth'];
  const peer = ['peer', 'name', 'eth0', 'address', '02:00:00:00:00:02', 'netns', far];
  await runCommand('ip', ['-n', near, ...link, ...peer]);
  await runCommand('ip', ['-n', near, 'link', 'set', 'eth0', 'up']);
  await runCommand('ip', ['-n', far, 'link', 'set', 'eth0', 'up']);

  const prefix = ['nsenter', `--net=/run/netns/${near}`];
  const [enter = '', ...where] = prefix;
  const sendDuring: DeployLab['sendDuring'] = async (work) => {
    const receiver = await startScript(near, RECEIVER);
    const sender = await startScript(far, SENDER, '0');
    let failure: unknown = null;
    await work().catch((error: unknown) => {
      failure = error;
    });
    const sent = await sender.finish();
    const seen = await receiver.finish();
    if (failure !== null) throw failure;
    return { sent, seen };
  };
  return {
    transport: openLocalTransport({ prefix }),
    paths,
    async run(...argv) {
      return (await runCommand(enter, [...where, ...argv])).toString();
    },
    async send(count) {
      const receiver = await startScript(near, RECEIVER);
      const sender = await startScript(far, SENDER, String(count));
      await sender.finish();
      return receiver.finish();
    },
    sendDuring,
    async close() {
      await runCommand('ip', ['netns', 'del', near]);
      await runCommand('ip', ['netns', 'del', far]);
      // Not mounted where every deployment was refused.
      await runCommand('umount', [paths.bpffs]).catch(() => {});
      await rm(directory, { recursive: true, force: true });
    },
  };
}
