/** Grows a little-endian byte string. */
export interface ByteWriter {
  /** Bytes written so far. */
  readonly length: () => number;
  readonly u8: (...values: readonly number[]) => void;
  readonly u16: (...values: readonly number[]) => void;
  readonly u32: (...values: readonly number[]) => void;
  readonly u64: (...values: readonly number[]) => void;
  readonly bytes: (data: Uint8Array) => void;
  /** Zeros up to a multiple of `boundary`. */
  readonly align: (boundary: number) => void;
  /** A copy of what was written. */
  readonly finish: () => Uint8Array;
}

export function createByteWriter(): ByteWriter {
  let buffer = new Uint8Array(256);
  let view = new DataView(buffer.buffer);
  let length = 0;

  function reserve(count: number): number {
    const at = length;
    length += count;
    if (length > buffer.length) {
      const larger = new Uint8Array(Math.max(length, buffer.length * 2));
      larger.set(buffer);
      buffer = larger;
      view = new DataView(buffer.buffer);
    }
    return at;
  }

  function u32(...values: readonly number[]): void {
    for (const value of values) {
      const at = reserve(4);
      view.setUint32(at, value, true);
    }
  }

  return {
    length: () => length,
    u8: (...values) => {
      for (const value of values) {
        const at = reserve(1);
        view.setUint8(at, value);
      }
    },
    u16: (...values) => {
      for (const value of values) {
        const at = reserve(2);
        view.setUint16(at, value, true);
      }
    },
    u32,
    u64: (...values) => {
      for (const value of values) u32(value % 2 ** 32, Math.floor(value / 2 ** 32));
    },
    bytes: (data) => {
      const at = reserve(data.length);
      buffer.set(data, at);
    },
    align: (boundary) => {
      reserve((boundary - (length % boundary)) % boundary);
    },
    finish: () => buffer.slice(0, length),
  };
}

/** A string table: offset 0 is the empty string, each text ends with a zero byte. */
export interface StringTable {
  /** Offset of `text`, added when it is new. */
  readonly offset: (text: string) => number;
  readonly finish: () => Uint8Array;
}

export function createStringTable(): StringTable {
  const writer = createByteWriter();
  const offsets = new Map<string, number>([['', 0]]);
  writer.u8(0);
  return {
    offset: (text) => {
      const known = offsets.get(text);
      if (known !== undefined) return known;
      const at = writer.length();
      offsets.set(text, at);
      writer.bytes(new TextEncoder().encode(`${text}\0`));
      return at;
    },
    finish: writer.finish,
  };
}
