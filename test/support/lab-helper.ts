import { createHash } from 'node:crypto';
import { access, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runCommand } from './run-command.ts';

const SOURCE = fileURLToPath(new URL('./kernel-lab.c', import.meta.url));

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}

/** Path of the compiled `kernel-lab.c`; compiled once for each content of the source. */
export async function buildLabHelper(): Promise<string> {
  const hash = createHash('sha256').update(await readFile(SOURCE));
  const program = join(tmpdir(), `nfo-kernel-lab-${hash.digest('hex').slice(0, 16)}`);
  if (await exists(program)) return program;
  const scratch = await mkdtemp(join(tmpdir(), 'nfo-cc-'));
  try {
    const fresh = join(scratch, 'kernel-lab');
    await runCommand('cc', ['-O2', '-Wall', '-o', fresh, SOURCE]);
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
