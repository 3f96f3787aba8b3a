import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import type { AttachHook } from '../../src/backends/backend.ts';
import { buildLabHelper, runLabHelper } from './lab-helper.ts';
import { openLabNamespaces, runInside } from './lab-network.ts';
import {
  type CounterReading,
  LAB_HOOKS,
  type LabHook,
  oracleRuleset,
  readCounters,
} from './lab-oracle.ts';
import { addTopology, type Topology } from './lab-topology.ts';
import {
  type LoadedXdp,
  type MapElement,
  openXdpStore,
  readXdpMap,
  runLoadedXdp,
  type XdpStore,
} from './lab-xdp.ts';
import { runCommand } from './run-command.ts';

/**
 * What became of a frame at one hook. `unreached`: it never got there (an earlier drop, the kernel's
 * own sanity checks, routing, or a fragment taken by reassembly). `unsent`: shorter than 14 bytes or
 * longer than the MTU allows, so AF_PACKET refuses it.
 */
export type HookVerdict = 'accepted' | 'dropped' | 'unreached' | 'unsent';

/** All hooks' verdicts of every frame, two bits a hook; read with `hookVerdict`. */
export type Observation = Uint16Array;

/** `clsact`: a cls_bpf filter with direct action, as a NIC runs it, here in the stack. */
export type XdpMode = 'native' | 'generic' | 'clsact';

/**
 * Two network namespaces: a receiver with the ruleset under test, and a sender at the other end of
 * its `eth0`. Addresses as in `LAB_ADDRESSES`; the receiver's MAC is `LAB_MAC`. The receiver
 * forwards but never answers, so that the same frames give the same counters. Every method that fails
 * throws with what the command said.
 */
export interface KernelLab {
  /** Name of the receiver's namespace (`/run/netns/NAME`). */
  readonly receiver: string;
  /** Replaces the receiver's ruleset; counters start at zero, connection tracking starts empty. */
  loadRuleset(nftText: string): Promise<void>;
  /** The last ruleset again, so all counters and sets are as just loaded. */
  resetCounters(): Promise<void>;
  /** All counters of the ruleset under test, in listing order. */
  counters(): Promise<readonly CounterReading[]>;
  /**
   * Sends the frames in order and tells how far each one came. Bytes 6 to 11 are overwritten (the
   * frame's number, as a locally administered unicast source MAC), so what matches on `ether saddr`
   * cannot be tested. A reassembled packet counts for one of its fragments. Needs a ruleset.
   * A frame with source MAC ff:ff:ff:ff:ff:ff is not sent: the receiver sends its packet (`unsent`).
   */
  observe(frames: readonly Uint8Array[]): Promise<Observation>;
  /** `observe` for one hook. */
  nftVerdicts(frames: readonly Uint8Array[], hook: LabHook): Promise<readonly HookVerdict[]>;
  /** Loads and pins the first program of an ELF object, until `close`. */
  loadXdp(elfPath: string, hook?: AttachHook): Promise<LoadedXdp>;
  /** One action a frame, by BPF_PROG_TEST_RUN; 255 for frames below 14 bytes. */
  runXdp(program: LoadedXdp, frames: readonly Uint8Array[]): Promise<Uint8Array>;
  readMap(program: LoadedXdp, name: string): Promise<readonly MapElement[]>;
  /**
   * Attaches to the receiver's eth0, from the object file (section `xdp`) or as loaded; what `clsact`
   * runs sees tagged frames without their tag.
   */
  attachXdp(program: LoadedXdp | string, mode: XdpMode): Promise<void>;
  detachXdp(): Promise<void>;
  /** A command inside the receiver's namespace; gives its standard output. */
  run(program: string, ...args: readonly string[]): Promise<string>;
  /** Deletes the namespaces and pins that this lab made. */
  close(): Promise<void>;
}

// What the oracle's sets hold without growing.
const MAX_FRAMES_PER_CALL = 20_000;

// Words that can turn on connection tracking, whose entries outlive the ruleset that made them.
const TRACKING = /\b(ct|nat|snat|dnat|masquerade|redirect|synproxy|notrack)\b/;

const PROGRAMS = ['nft', 'ip', 'ethtool', 'bpftool', 'cc', 'nsenter', 'mount', 'umount'] as const;

function onPath(program: string): boolean {
  const { PATH = '' } = process.env;
  return PATH.split(':').some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

let probed: string | null | undefined;

/** Why a lab cannot be opened here, or null when it can. */
export function probeKernelLab(): string | null {
  probed ??= findObstacle();
  return probed;
}

function findObstacle(): string | null {
  if (process.platform !== 'linux') return 'needs Linux';
  if (process.getuid?.() !== 0) return 'needs root';
  const missing = PROGRAMS.filter((program) => !onPath(program));
  if (missing.length > 0) return `needs ${missing.join(', ')}`;
  const nft = spawnSync('unshare', ['--net', 'nft', 'add', 'table', 'inet', 't']);
  return nft.status === 0 ? null : `no nft in a network namespace: ${nft.stderr}`.trim();
}

/** The verdict of frame `index` at `hook`. */
export function hookVerdict(observation: Observation, index: number, hook: LabHook): HookVerdict {
  const mask = observation[index] ?? 0;
  if ((mask & 1) === 0) return 'unsent';
  const shift = 1 + 2 * LAB_HOOKS.indexOf(hook);
  if (((mask >> shift) & 1) === 0) return 'unreached';
  return ((mask >> (shift + 1)) & 1) === 1 ? 'accepted' : 'dropped';
}

/**
 * Makes the namespaces; `router` turns on forwarding (default routes leave by eth1, without ARP);
 * `speaks` lets the receiver answer and send, what it sends not being told from frames that arrive.
 */
export async function openKernelLab(
  options: {
    readonly router?: boolean;
    readonly speaks?: boolean;
    readonly topology?: Topology;
  } = {},
): Promise<KernelLab> {
  const helper = await buildLabHelper();
  const { router = false, speaks = false, topology = 'plain' } = options;
  const namespaces = await openLabNamespaces(router);
  const { receiver, sender } = namespaces;
  const above = await addTopology(topology, namespaces, router).catch(async (error: unknown) => {
    await namespaces.close();
    throw error;
  });
  let store: XdpStore | null = null;
  let ruleset = '';
  let attached: XdpMode | null = null;

  const loadRuleset = async (nftText: string) => {
    await runInside(
      receiver,
      ['nft', '-f', '-'],
      `flush ruleset\n${nftText}\n${oracleRuleset(above, speaks)}`,
    );
    if (TRACKING.test(nftText)) await runCommand(helper, ['forget', receiver]);
    ruleset = nftText;
  };
  const observe = async (frames: readonly Uint8Array[]) => {
    const observation = new Uint16Array(frames.length);
    for (let from = 0; from < frames.length; from += MAX_FRAMES_PER_CALL) {
      const part = frames.slice(from, from + MAX_FRAMES_PER_CALL);
      const masks = await runLabHelper(helper, ['send', receiver, sender], part, 2);
      observation.set(new Uint16Array(masks.buffer), from);
    }
    return observation;
  };
  const setXdp = (mode: XdpMode, ...source: readonly string[]) => {
    const flag = mode === 'native' ? 'xdpdrv' : 'xdpgeneric';
    return runInside(receiver, ['ip', 'link', 'set', 'dev', 'eth0', flag, ...source]);
  };
  const tc = (...words: readonly string[]) => runInside(receiver, ['tc', ...words]);
  const detachXdp = async () => {
    if (attached === 'clsact') await tc('qdisc', 'del', 'dev', 'eth0', 'clsact');
    else if (attached !== null) await setXdp(attached, 'off');
    attached = null;
  };

  return {
    receiver,
    loadRuleset,
    observe,
    detachXdp,
    resetCounters: () => loadRuleset(ruleset),
    async counters() {
      const listing = await runInside(receiver, ['nft', '-j', '-t', 'list', 'ruleset']);
      return readCounters(listing.toString());
    },
    async nftVerdicts(frames, hook) {
      const observation = await observe(frames);
      return frames.map((_, index) => hookVerdict(observation, index, hook));
    },
    async loadXdp(elfPath, hook = 'xdp') {
      store ??= await openXdpStore();
      return store.load(elfPath, hook);
    },
    runXdp: (program, frames) => runLoadedXdp(helper, program, frames),
    readMap: readXdpMap,
    async attachXdp(program, mode) {
      await detachXdp();
      if (mode === 'clsact') {
        const what =
          typeof program === 'string'
            ? ['obj', program, 'sec', 'tc']
            : ['object-pinned', program.pin];
        await tc('qdisc', 'add', 'dev', 'eth0', 'clsact');
        await tc('filter', 'add', 'dev', 'eth0', 'ingress', 'bpf', 'da', 'skip_hw', ...what);
      } else if (typeof program === 'string') await setXdp(mode, 'obj', program, 'sec', 'xdp');
      else await setXdp(mode, 'pinned', program.pin);
      attached = mode;
    },
    async run(program, ...args) {
      return (await runInside(receiver, [program, ...args])).toString();
    },
    async close() {
      await namespaces.close();
      await store?.close();
      store = null;
    },
  };
}
