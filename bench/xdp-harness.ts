import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Assembly, assemble } from '../src/backends/ebpf-offload/assemble.ts';
import { type BpfObject, writeElf } from '../src/backends/ebpf-offload/elf.ts';
import {
  add,
  and,
  exit,
  type Insn,
  jle,
  label,
  ldMapValue,
  ldx,
  lsh,
  mov,
  r0,
  r1,
  r2,
  r3,
  r4,
  r5,
  r9,
  rsh,
  stx,
  xor,
} from '../src/backends/ebpf-offload/insn.ts';
import { median } from './results.ts';

/** Distinct frames of one run; a power of two. */
export const FRAMES = 16_384;
const DATA = '.data.bench';
/** Bytes in front of the frames; the first word is the state of the generator. */
const HEAD = 64;
const RUNS = 7;
const REPEAT = 300_000;
const BPFFS = '/sys/fs/bpf';

/** Every frame `stride` bytes (a power of two, a multiple of 8), short ones filled up with zeros. */
function frameData(frames: readonly Uint8Array[], stride: number): Uint8Array {
  const data = new Uint8Array(HEAD + FRAMES * stride);
  new DataView(data.buffer).setBigUint64(0, 0x9e3779b97f4a7c15n, true);
  for (let index = 0; index < FRAMES; index += 1) {
    data.set(
      (frames[index % frames.length] ?? new Uint8Array(0)).subarray(0, stride),
      HEAD + index * stride,
    );
  }
  return data;
}

/** Writes one of the frames into the packet (Marsaglia's xorshift picks it), then goes on behind. */
function pickFrame(stride: number): Insn[] {
  const words = Array.from({ length: stride / 8 }, (_, index) => index * 8);
  return [
    ...[mov(r9, r1), ldMapValue(r2, DATA, 0), ldx(8, r3, r2, 0)],
    ...[mov(r4, r3), lsh(r4, 13), xor(r3, r4), mov(r4, r3), rsh(r4, 7), xor(r3, r4)],
    ...[mov(r4, r3), lsh(r4, 17), xor(r3, r4), stx(8, r2, 0, r3)],
    ...[rsh(r3, 20), and(r3, FRAMES - 1), lsh(r3, Math.log2(stride)), add(r2, HEAD), add(r2, r3)],
    ...[ldx(4, r4, r1, 4), ldx(4, r5, r1, 0), mov(r3, r5), add(r3, stride)],
    ...[jle(r3, r4, 'fits'), mov(r0, 2), exit(), label('fits')],
    ...words.flatMap((at) => [ldx(8, r3, r2, at), stx(8, r5, at, r3)]),
    mov(r1, r9),
  ];
}

function assembled(insns: readonly Insn[]): Assembly {
  const result = assemble(insns, { farJumps: 'gotol' });
  if (!result.ok) throw new Error('bug: the harness does not assemble');
  return result.value;
}

/** An object whose program meets a frame of its own every time it runs. */
function withFrames(object: BpfObject, frames: readonly Uint8Array[], stride: number): BpfObject {
  const prefix = assembled(pickFrame(stride));
  const programs = object.programs.map((program) => {
    const { code, relocations } = program.assembly;
    const joined = new Uint8Array(prefix.code.length + code.length);
    joined.set(prefix.code);
    joined.set(code, prefix.code.length);
    const moved = relocations.map((relocation) => ({
      ...relocation,
      insnIndex: relocation.insnIndex + prefix.lines.length,
    }));
    return {
      ...program,
      assembly: { code: joined, relocations: [...prefix.relocations, ...moved] },
    };
  });
  const data = [...object.data, { name: DATA, content: frameData(frames, stride) }];
  return { ...object, programs, data };
}

/** An object of one program, for hand-written ones. */
export function objectOf(insns: readonly Insn[], maps: BpfObject['maps'] = []): BpfObject {
  const programs = [{ section: 'xdp', name: 'hand', assembly: assembled(insns) }];
  return { programs, license: 'GPL', maps, data: [] };
}

export interface Measured {
  /** Nanoseconds a packet, harness included: median, least and most. */
  readonly ns: readonly [median: number, least: number, most: number];
  /** Milliseconds that bpftool takes to load, create maps and fill data. */
  readonly load: number;
}

/** Loads an object without the harness; milliseconds. */
function timeLoad(directory: string, pin: string, object: BpfObject): number {
  const file = join(directory, 'plain.o');
  writeFileSync(file, writeElf(object));
  const times: number[] = [];
  for (let run = 0; run < 3; run += 1) {
    const start = performance.now();
    execFileSync('bpftool', ['prog', 'load', file, pin, 'type', 'xdp'], { stdio: 'pipe' });
    times.push(performance.now() - start);
    rmSync(pin);
  }
  return median(times);
}

/** Frames whose verdict is looked at: a program of bpftool each. */
const LOOKED_AT = 64;

/** XDP_DROP, include/uapi/linux/bpf.h. */
const XDP_DROP = 1;

/** How many of a sample of frames a program decides as `expected` says (true: dropped). */
export function countAgreed(
  object: BpfObject,
  frames: readonly Uint8Array[],
  expected: (frame: Uint8Array) => boolean,
  fill: string | null = null,
): { readonly agreed: number; readonly dropped: number; readonly looked: number } {
  const directory = mkdtempSync(join(tmpdir(), 'nft-offload-bench-'));
  const pins = join(BPFFS, `nft-offload-bench-${process.pid}`);
  const pin = join(pins, 'program');
  mkdirSync(join(pins, 'maps'), { recursive: true });
  try {
    const file = join(directory, 'plain.o');
    const packet = join(directory, 'packet');
    writeFileSync(file, writeElf(object));
    loadAndFill(file, pins, fill);
    const sample = frames.slice(0, LOOKED_AT);
    let [agreed, dropped] = [0, 0];
    for (const frame of sample) {
      writeFileSync(packet, frame);
      const argv = ['-j', 'prog', 'run', 'pinned', pin, 'data_in', packet];
      const reply = execFileSync('bpftool', argv, { encoding: 'utf8' });
      const { retval } = JSON.parse(reply) as { readonly retval: number }; // bpftool's own format
      if ((retval === XDP_DROP) === expected(frame)) agreed += 1;
      if (retval === XDP_DROP) dropped += 1;
    }
    return { agreed, dropped, looked: sample.length };
  } finally {
    rmSync(directory, { recursive: true });
    rmSync(pins, { recursive: true });
  }
}

/** Loads an object, pins it and its maps below `pins`, and fills these. */
function loadAndFill(file: string, pins: string, fill: string | null): void {
  const maps = join(pins, 'maps');
  const load = ['prog', 'load', file, join(pins, 'program'), 'type', 'xdp', 'pinmaps', maps];
  execFileSync('bpftool', load, { stdio: 'pipe' });
  if (fill === null) return;
  const input = fill.replaceAll('MAPS', maps);
  execFileSync('bpftool', ['batch', 'file', '-'], { input, stdio: 'pipe' });
}

/**
 * Runs a program on random ones of the frames, with BPF_PROG_TEST_RUN. `fill` is bpftool batch
 * commands for its maps, which are pinned at `MAPS/NAME`.
 */
export function measure(
  object: BpfObject,
  frames: readonly Uint8Array[],
  stride: number,
  fill: string | null = null,
): Measured {
  const directory = mkdtempSync(join(tmpdir(), 'nft-offload-bench-'));
  const pins = join(BPFFS, `nft-offload-bench-${process.pid}`);
  const pin = join(pins, 'program');
  mkdirSync(join(pins, 'maps'), { recursive: true });
  try {
    const load = timeLoad(directory, pin, object);
    const file = join(directory, 'object.o');
    const packet = join(directory, 'packet');
    writeFileSync(file, writeElf(withFrames(object, frames, stride)));
    writeFileSync(packet, new Uint8Array(stride));
    loadAndFill(file, pins, fill);
    const times: number[] = [];
    for (let run = 0; run < RUNS; run += 1) {
      const reply = execFileSync(
        'bpftool',
        [
          ...['-j', 'prog', 'run', 'pinned', pin, 'data_in', packet],
          ...['repeat', String(run === 0 ? REPEAT / 10 : REPEAT)],
        ],
        { encoding: 'utf8' },
      );
      const { duration } = JSON.parse(reply) as { readonly duration: number }; // bpftool's own format
      if (run > 0) times.push(duration);
    }
    return { ns: [median(times), Math.min(...times), Math.max(...times)], load };
  } finally {
    rmSync(directory, { recursive: true });
    rmSync(pins, { recursive: true });
  }
}
