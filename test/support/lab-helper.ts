import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runCommand } from './run-command.ts';

export const KERNEL_LAB = fileURLToPath(new URL('./kernel-lab.c', import.meta.url));
export const SOCKET_FILTER = fileURLToPath(new URL('./socket-filter.c', import.meta.url));

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}

/** Path of a compiled C program; compiled once for each content of the source and what it includes. */
export async function buildLabHelper(source: string = KERNEL_LAB): Promise<string> {
  const hash = createHash('sha256').update(await runCommand('cc', ['-E', source]));
  const program = join(tmpdir(), `nfo-kernel-lab-${hash.digest('hex').slice(0, 16)}`);
  if (await exists(program)) return program;
  const scratch = await mkdtemp(join(tmpdir(), 'nfo-cc-'));
  try {
    const fresh = join(scratch, 'helper');
    await runCommand('cc', ['-O2', '-Wall', '-o', fresh, source]);
    await rename(fresh, program);
  } finally {
    await rm(scratch, { recursive: true });
  }
  return program;
}

/** Frames as the helper reads them: a little-endian u32 length before each. */
export function packFrames(frames: readonly Uint8Array[]): Uint8Array {
  const size = frames.reduce((sum, frame) => sum + 4 + frame.length, 0);
  const packed = new Uint8Array(size);
  const view = new DataView(packed.buffer);
  let at = 0;
  for (const frame of frames) {
    view.setUint32(at, frame.length, true);
    packed.set(frame, at + 4);
    at += 4 + frame.length;
  }
  return packed;
}

/**
 * Runs the helper over `frames` and gives its answer, `width` bytes for each of them. Does not wait
 * for its end when the answer is complete: closing packet sockets takes the kernel 40 ms (RCU).
 */
export function runLabHelper(
  helper: string,
  args: readonly string[],
  frames: readonly Uint8Array[],
  width: number,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const answer = new Uint8Array(frames.length * width);
    let got = 0;
    let said = '';
    const child = spawn(helper, args);
    child.stdout.on('data', (chunk: Buffer) => {
      answer.set(chunk, got);
      got += chunk.length;
      if (got === answer.length) resolve(answer);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (status) => {
      if (status === 0 && got === answer.length) resolve(answer);
      else reject(new Error(`${helper} ${args.join(' ')}: ${said.trim()} (status ${status})`));
    });
    // A helper that dies early closes its input; its exit status says why.
    child.stdin.on('error', () => {});
    child.stdin.end(packFrames(frames));
  });
}
