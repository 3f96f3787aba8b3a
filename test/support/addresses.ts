/** An IPv4 address as 4 bytes; throws on anything that is not one. */
export function parseIp(text: string): Uint8Array {
  const parts = text.split('.').map(Number);
  const fits = (part: number) => Number.isInteger(part) && part >= 0 && part <= 255;
  if (parts.length !== 4 || !parts.every(fits)) throw new Error(`bug: not IPv4: ${text}`);
  return Uint8Array.from(parts);
}

/** An IPv6 address as 16 bytes (no embedded IPv4); throws on anything that is not one. */
export function parseIp6(text: string): Uint8Array {
  const [head = '', tail] = text.split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':'));
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  const missing = 8 - before.length - after.length;
  if (tail === undefined ? missing !== 0 : missing < 1) throw new Error(`bug: not IPv6: ${text}`);
  const words = [...before, ...Array.from({ length: missing }, () => '0'), ...after];
  const address = new Uint8Array(16);
  for (const [index, word] of words.entries()) {
    if (!/^[0-9a-fA-F]{1,4}$/.test(word)) throw new Error(`bug: not IPv6: ${text}`);
    const value = Number.parseInt(word, 16);
    address[index * 2] = value >> 8;
    address[index * 2 + 1] = value & 0xff;
  }
  return address;
}

/** A MAC address (`aa:bb:cc:dd:ee:ff`) as 6 bytes. */
export function parseMac(text: string): Uint8Array {
  const parts = text.split(':').map((part) => Number.parseInt(part, 16));
  if (parts.length !== 6 || parts.some(Number.isNaN)) throw new Error(`bug: not a MAC: ${text}`);
  return Uint8Array.from(parts);
}

/** `10.0.0.1`. */
export function formatIp(address: Uint8Array): string {
  return address.join('.');
}

/** All eight groups, nothing shortened; nft takes it. */
export function formatIp6(address: Uint8Array): string {
  const groups: string[] = [];
  for (let at = 0; at < 16; at += 2) {
    groups.push((((address[at] ?? 0) << 8) | (address[at + 1] ?? 0)).toString(16));
  }
  return groups.join(':');
}

/** The address `distance` further on, as one big-endian number that wraps. */
export function offsetAddress(address: Uint8Array, distance: number): Uint8Array {
  const moved = address.slice();
  let carry = distance;
  for (let at = moved.length - 1; at >= 0 && carry !== 0; at -= 1) {
    const sum = (moved[at] ?? 0) + carry;
    moved[at] = sum & 0xff;
    carry = sum >> 8;
  }
  return moved;
}
