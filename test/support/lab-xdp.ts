import { mkdir, mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AttachHook } from '../../src/backends/backend.ts';
import { runLabHelper } from './lab-helper.ts';
import { runCommand } from './run-command.ts';

/** A program for XDP or cls_bpf in the kernel, pinned together with its maps. */
export interface LoadedXdp {
  readonly pin: string;
  /** Each map is pinned in here under its name in the ELF file (dots become underscores). */
  readonly mapDirectory: string;
}

/** One element of a map; `values` has one part for each CPU where the map is per-CPU. */
export interface MapElement {
  readonly key: Uint8Array;
  readonly values: readonly Uint8Array[];
}

/** Loaded programs on a BPF file system of their own. */
export interface XdpStore {
  load(elfPath: string, hook: AttachHook): Promise<LoadedXdp>;
  close(): Promise<void>;
}

/** Mounts a BPF file system on a fresh directory; `close` unmounts it, which frees all it holds. */
export async function openXdpStore(): Promise<XdpStore> {
  const directory = await mkdtemp(join(tmpdir(), 'nfo-bpf-'));
  await runCommand('mount', ['-t', 'bpf', 'bpf', directory]);
  let count = 0;
  return {
    async load(elfPath, hook) {
      const pin = join(directory, `program${count}`);
      const mapDirectory = join(directory, `maps${count}`);
      count += 1;
      await mkdir(mapDirectory);
      const type = hook === 'tc' ? 'classifier' : 'xdp';
      const where = [elfPath, pin, 'type', type, 'pinmaps', mapDirectory];
      await runCommand('bpftool', ['prog', 'load', ...where]);
      return { pin, mapDirectory };
    },
    async close() {
      await runCommand('umount', [directory]);
      await rmdir(directory);
    },
  };
}

/**
 * What the program returns for every frame (XDP_DROP is 1, TC_ACT_SHOT 2), by BPF_PROG_TEST_RUN, the
 * lowest byte of it; 255 for a frame below 14 bytes, which the kernel refuses there.
 */
export function runLoadedXdp(
  helper: string,
  program: LoadedXdp,
  frames: readonly Uint8Array[],
): Promise<Uint8Array> {
  return runLabHelper(helper, ['run', program.pin], frames, 1);
}

/** Runs a `FILE.maps` batch on the maps of one program. */
export async function fillXdp({ mapDirectory }: LoadedXdp, batch: Uint8Array): Promise<void> {
  const lines = new TextDecoder().decode(batch);
  const bound = lines.replace(/^map update name (\S+)/gm, `map update pinned ${mapDirectory}/$1`);
  // bpftool 7.1 may end a good batch with a bad status (see fillMaps in src/deploy/load.ts).
  await runCommand('bpftool', ['batch', 'file', '-'], bound).catch((error: unknown) => {
    if (!String(error).includes('reading batch file failed')) throw error;
  });
}

interface DumpedElement {
  readonly key: readonly string[];
  readonly value?: readonly string[];
  readonly values?: readonly { readonly cpu: number; readonly value: readonly string[] }[];
}

function toBytes(hex: readonly string[]): Uint8Array {
  return Uint8Array.from(hex, (byte) => Number.parseInt(byte, 16));
}

/** All elements of the program's map `name`. */
export async function readXdpMap(program: LoadedXdp, name: string): Promise<readonly MapElement[]> {
  const pin = join(program.mapDirectory, name);
  const json = (await runCommand('bpftool', ['-j', 'map', 'dump', 'pinned', pin])).toString();
  // bpftool-map(8) gives the shape; an absent element has `error` in place of its value.
  const elements = JSON.parse(json) as readonly DumpedElement[];
  return elements.map((element) => ({
    key: toBytes(element.key),
    values: element.values?.map((part) => toBytes(part.value)) ?? [toBytes(element.value ?? [])],
  }));
}
