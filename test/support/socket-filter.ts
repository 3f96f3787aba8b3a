import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeProgram } from '../../src/backends/cbpf/file-formats.ts';
import type { Insn } from '../../src/backends/cbpf/insn.ts';
import { buildLabHelper, runLabHelper, SOCKET_FILTER } from './lab-helper.ts';
import type { LabNamespaces } from './lab-network.ts';

async function runHelper(
  insns: readonly Insn[],
  packets: readonly Uint8Array[],
  ...where: readonly string[]
): Promise<Uint32Array> {
  const helper = await buildLabHelper(SOCKET_FILTER);
  const directory = await mkdtemp(join(tmpdir(), 'nfo-cbpf-'));
  try {
    const path = join(directory, 'program');
    await writeFile(path, writeProgram(insns, 'ddd'));
    const answer = await runLabHelper(helper, [path, ...where], packets, 4);
    return new Uint32Array(answer.buffer);
  } finally {
    await rm(directory, { recursive: true });
  }
}

/**
 * How many bytes of each packet the kernel's own run of a program keeps (SO_ATTACH_FILTER, no
 * privileges needed). Throws with what the kernel said when it refuses the program.
 */
export async function runSocketFilter(
  insns: readonly Insn[],
  packets: readonly Uint8Array[],
): Promise<Uint32Array> {
  return runHelper(insns, packets);
}

/**
 * Whether a packet socket with the program on the lab's eth0 sees each of the frames; null for those
 * that never get there. Source addresses are replaced, as `stampFrames` does.
 */
export async function runPacketFilter(
  insns: readonly Insn[],
  frames: readonly Uint8Array[],
  { receiver, sender }: LabNamespaces,
): Promise<readonly (boolean | null)[]> {
  const answers = await runHelper(insns, frames, receiver, sender);
  return Array.from(answers, (answer) => (answer === 2 ? null : answer === 1));
}
