declare const brand: unique symbol;

/** A number of bits. */
export type Bits = number & { readonly [brand]: 'bits' };
/** A number of bytes. */
export type Bytes = number & { readonly [brand]: 'bytes' };

export function bits(count: number): Bits {
  return count as Bits;
}

export function bytes(count: number): Bytes {
  return count as Bytes;
}

/** By width; every number made anew is garbage. */
const ONES = Array.from({ length: 257 }, (_, width) => (1n << BigInt(width)) - 1n);

/** The `width` lowest bits set. */
export function ones(width: number): bigint {
  return ONES[width] ?? (1n << BigInt(width)) - 1n;
}

/** A big-endian unsigned integer from `length` bytes at `offset`; the caller has checked the bounds. */
export function readUint(data: Uint8Array, offset: number, length: number): bigint {
  let value = 0n;
  for (let index = 0; index < length; index += 1) {
    value = (value << 8n) | BigInt(data[offset + index] ?? 0);
  }
  return value;
}

/** `value` as `length` bytes, big-endian; bits beyond are cut off. */
export function writeUint(value: bigint, length: number): Uint8Array {
  const data = new Uint8Array(length);
  let rest = value;
  for (let index = length - 1; index >= 0; index -= 1) {
    data[index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return data;
}

/** Lower-case hex of the whole array. */
export function toHex(data: Uint8Array): string {
  return Buffer.from(data).toString('hex');
}

/** The bytes of a hex string (blanks and colons ignored), or null when it is not one. */
export function fromHex(text: string): Uint8Array | null {
  const plain = text.replace(/[\s:]/g, '');
  if (plain.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(plain)) return null;
  return new Uint8Array(Buffer.from(plain, 'hex'));
}
