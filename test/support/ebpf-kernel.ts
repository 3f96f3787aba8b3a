import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BpfObject, writeElf } from '../../src/backends/ebpf-offload/elf.ts';

const BPFFS = '/sys/fs/bpf';

function commandFails(program: string, ...args: readonly string[]): boolean {
  try {
    execFileSync(program, args, { stdio: 'ignore' });
    return false;
  } catch {
    return true;
  }
}

/** Why programs cannot be loaded into this kernel, or null. */
export function probeBpf(): string | null {
  if (process.getuid?.() !== 0) return 'needs root';
  if (commandFails('bpftool', 'version')) return 'needs bpftool';
  const isMounted = readFileSync('/proc/mounts', 'utf8').includes(` ${BPFFS} bpf `);
  if (!isMounted && commandFails('mount', '-t', 'bpf', 'bpf', BPFFS))
    return 'needs a bpf file system';
  return commandFails('bpftool', 'prog', 'list') ? 'the kernel refuses bpf()' : null;
}

/** Runs a command and gives its standard output; a failure throws with its standard error. */
export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** A program in the kernel. */
export interface LoadedProgram {
  /** XDP action and packet afterwards, as `bpftool prog run` gives them. */
  readonly run: (packet: Uint8Array) => { readonly action: number; readonly packet: Uint8Array };
  readonly updateMap: (map: string, key: Uint8Array, value: Uint8Array) => void;
  /** The value's bytes; for per-CPU maps those of all CPUs, one after the other. */
  readonly lookupMap: (map: string, key: Uint8Array) => Uint8Array;
  readonly close: () => void;
}

function hexWords(data: Uint8Array): readonly string[] {
  return [...data].map((byte) => byte.toString(16).padStart(2, '0'));
}

/** What `bpftool -j map lookup` says of one value. */
interface LookupReply {
  readonly value?: readonly string[];
  readonly values?: readonly { readonly value: readonly string[] }[];
}

let serial = 0;

/** Writes, loads and pins an object; `close` takes everything away again. */
export function loadObject(object: BpfObject): LoadedProgram {
  serial += 1;
  const pins = `${BPFFS}/nft-offload-test-${process.pid}-${serial}`;
  const scratch = mkdtempSync(join(tmpdir(), 'nft-offload-test-'));
  const program = `${pins}/program`;
  const file = join(scratch, 'object.o');
  const close = (): void => {
    rmSync(scratch, { recursive: true });
    rmSync(pins, { recursive: true });
  };
  writeFileSync(file, writeElf(object));
  mkdirSync(`${pins}/maps`, { recursive: true });
  try {
    run('bpftool', 'prog', 'load', file, program, 'type', 'xdp', 'pinmaps', `${pins}/maps`);
  } catch (error) {
    close();
    throw error;
  }
  return {
    run: (packet) => {
      const input = join(scratch, 'in');
      const output = join(scratch, 'out');
      writeFileSync(input, packet);
      const reply = run(
        ...(['bpftool', '-j', 'prog', 'run', 'pinned', program] as const),
        ...(['data_in', input, 'data_out', output] as const),
      );
      const { retval } = JSON.parse(reply) as { readonly retval: number }; // bpftool's own format
      return { action: retval, packet: new Uint8Array(readFileSync(output)) };
    },
    updateMap: (map, key, value) => {
      const pinned = ['map', 'update', 'pinned', `${pins}/maps/${map}`];
      run('bpftool', ...pinned, 'key', 'hex', ...hexWords(key), 'value', 'hex', ...hexWords(value));
    },
    lookupMap: (map, key) => {
      const pinned = ['-j', 'map', 'lookup', 'pinned', `${pins}/maps/${map}`];
      const reply = JSON.parse(run('bpftool', ...pinned, 'key', 'hex', ...hexWords(key)));
      const { value, values } = reply as LookupReply; // bpftool's own format
      const words = values?.flatMap((each) => each.value) ?? value ?? [];
      return Uint8Array.from(words, (word) => Number.parseInt(word, 16));
    },
    close,
  };
}
