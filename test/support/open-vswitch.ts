import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';

/** A switch in user space with two ports, in processes of our own. */
export interface OpenVswitch {
  /** Replaces all flows; what the switch does not understand throws. */
  readonly load: (flows: string) => Promise<void>;
  /** For every frame the bytes that came out of the other port, or null when none did. */
  readonly send: (frames: readonly Uint8Array[]) => Promise<readonly (Uint8Array | null)[]>;
  readonly close: () => Promise<void>;
}

function start(program: string, args: readonly string[], directory: string): ChildProcess {
  const env = {
    ...process.env,
    OVS_RUNDIR: directory,
    OVS_LOGDIR: directory,
    OVS_DBDIR: directory,
  };
  return spawn(program, [...args], { cwd: directory, env, stdio: 'ignore' });
}

async function until<T>(what: string, attempt: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (tries > 100) throw new Error(`${what}: ${String(error)}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function connect(path: string): Promise<Socket> {
  return until(path, () => {
    return new Promise<Socket>((resolve, reject) => {
      const socket = createConnection(path);
      socket.once('connect', () => resolve(socket));
      socket.once('error', reject);
    });
  });
}

/** Calls back for every frame of a stream: two bytes of length, then the frame. */
function readFrames(socket: Socket, onFrame: (frame: Uint8Array) => void): void {
  let rest = Buffer.alloc(0);
  socket.on('data', (data: Buffer) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 2) {
      const length = rest.readUInt16BE(0);
      if (rest.length < 2 + length) break;
      onFrame(new Uint8Array(rest.subarray(2, 2 + length)));
      rest = rest.subarray(2 + length);
    }
  });
}

/** EtherType of the frames that say that all before them have passed (local experimental, IEEE 802). */
const MARKER = 0x88b5;

function marker(): Uint8Array {
  const frame = new Uint8Array(60);
  frame.set([2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 0xfd, MARKER >> 8, MARKER & 0xff]);
  return frame;
}

function isMarker(frame: Uint8Array): boolean {
  return frame[12] === MARKER >> 8 && frame[13] === (MARKER & 0xff);
}

/** Starts a switch whose bridge `br0` has the ports p1 (1) and p2 (2). */
export async function startOpenVswitch(): Promise<OpenVswitch> {
  const directory = await mkdtemp(join(tmpdir(), 'nfo-ovs-'));
  const at = (name: string): string => join(directory, name);
  const db = `unix:${at('db.sock')}`;
  await run('ovsdb-tool', ['create', at('conf.db'), SCHEMA]);
  const server = start('ovsdb-server', [at('conf.db'), `--remote=p${db}`], directory);
  const vsctl = (...args: string[]) => run('ovs-vsctl', [`--db=${db}`, '--timeout=20', ...args]);
  await until('ovsdb-server', () => vsctl('--no-wait', 'init'));
  const options = ['--enable-dummy=override', '--disable-system', `--unixctl=${at('v.ctl')}`];
  const daemon = start('ovs-vswitchd', [db, ...options], directory);
  const bridge = ['datapath_type=dummy', 'fail_mode=secure', 'protocols=OpenFlow10,OpenFlow14'];
  await vsctl('add-br', 'br0', '--', 'set', 'bridge', 'br0', ...bridge);
  for (const port of ['p1', 'p2']) {
    const number = `ofport_request=${port.slice(1)}`;
    const stream = `options:pstream=punix:${at(`${port}.sock`)}`;
    await vsctl(
      'add-port',
      'br0',
      port,
      '--',
      'set',
      'interface',
      port,
      'type=dummy',
      number,
      stream,
    );
  }
  const input = await connect(at('p1.sock'));
  const output = await connect(at('p2.sock'));
  let onFrame: (frame: Uint8Array) => void = () => {};
  readFrames(output, (frame) => onFrame(frame));

  const write = (frame: Uint8Array): void => {
    input.write(Buffer.from([frame.length >> 8, frame.length & 0xff]));
    input.write(frame);
  };

  return {
    load: async (flows) => {
      const file = at('flows');
      const all = `${flows}table=0,priority=65535,dl_type=0x88b5,actions=output:2\n`;
      await writeFile(file, all);
      const target = `unix:${at('br0.mgmt')}`;
      const { stderr } = await run('ovs-ofctl', [
        '-O',
        'OpenFlow14',
        '--bundle',
        'replace-flows',
        target,
        file,
      ]);
      if (stderr !== '') throw new Error(stderr);
    },
    send: async (frames) => {
      const results: (Uint8Array | null)[] = [];
      for (let from = 0; from < frames.length; from += 1) {
        const frame = frames[from];
        if (frame === undefined) continue;
        // One frame, then a marker: whatever came before the marker belongs to the frame.
        const seen = await new Promise<Uint8Array | null>((resolve) => {
          let got: Uint8Array | null = null;
          onFrame = (out) => {
            if (isMarker(out)) resolve(got);
            else got = out;
          };
          write(frame);
          write(marker());
        });
        results.push(seen);
      }
      return results;
    },
    close: async () => {
      input.destroy();
      output.destroy();
      daemon.kill();
      server.kill();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
