import { gunzipSync, gzipSync } from 'node:zlib';
import { isLiveProgram, type LiveProgram } from '../backends/ebpf-offload/live-program.ts';

/** Typed arrays and sets as JSON, little-endian. */
function pack(_key: string, value: unknown): unknown {
  if (value instanceof Uint8Array) return { bytes$: Buffer.from(value).toString('base64') };
  if (value instanceof Uint32Array) {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    return { words$: bytes.toString('base64') };
  }
  return value instanceof Set ? { set$: [...value] } : value;
}

function unpack(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if ('bytes$' in value) return new Uint8Array(Buffer.from(String(value.bytes$), 'base64'));
  if ('words$' in value) {
    const bytes = new Uint8Array(Buffer.from(String(value.words$), 'base64'));
    return new Uint32Array(bytes.buffer, 0, bytes.length >> 2);
  }
  return 'set$' in value && Array.isArray(value.set$) ? new Set(value.set$) : value;
}

/** What it takes to change a program, as a file. */
export function writeLive(live: LiveProgram): Uint8Array {
  return gzipSync(JSON.stringify(live, pack), { level: 1 });
}

/** Reads such a file back; null for anything else. */
export function readLive(file: Uint8Array): LiveProgram | null {
  try {
    const value: unknown = JSON.parse(gunzipSync(file).toString('utf8'), unpack);
    const isObject = typeof value === 'object' && value !== null;
    return isObject && isLiveProgram(value) ? value : null;
  } catch {
    return null;
  }
}
