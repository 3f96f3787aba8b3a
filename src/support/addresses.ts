/** The number of an IPv4 address in dotted form, or null. */
export function parseIpv4(text: string): bigint | null {
  let value = 0;
  let octet = -1;
  let octets = 0;
  for (let index = 0; index <= text.length; index += 1) {
    const code = index === text.length ? 46 : text.charCodeAt(index);
    if (code === 46) {
      if (octet < 0 || octets === 4) return null;
      value = value * 256 + octet;
      octets += 1;
      octet = -1;
    } else if (code >= 48 && code <= 57) {
      octet = Math.max(octet, 0) * 10 + code - 48;
      if (octet > 255) return null;
    } else {
      return null;
    }
  }
  return octets === 4 ? BigInt(value) : null;
}

function parseGroups(text: string): readonly string[] | null {
  if (text === '') return [];
  const groups: string[] = [];
  const parts = text.split(':');
  for (const [index, part] of parts.entries()) {
    if (part.includes('.')) {
      const tail = index === parts.length - 1 ? parseIpv4(part) : null;
      if (tail === null) return null;
      const hex = tail.toString(16).padStart(8, '0');
      groups.push(hex.slice(0, 4), hex.slice(4));
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return null;
      groups.push(part);
    }
  }
  return groups;
}

/** The number of an IPv6 address (RFC 4291 section 2.2, with `::` and a dotted tail), or null. */
export function parseIpv6(text: string): bigint | null {
  const halves = text.split('::');
  if (halves.length > 2) return null;
  const head = parseGroups(halves[0] ?? '');
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? '') : [];
  if (head === null || tail === null) return null;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 0 : missing !== 0) return null;
  const groups = [...head, ...Array<string>(missing).fill('0'), ...tail];
  return BigInt(`0x${groups.map((group) => group.padStart(4, '0')).join('')}`);
}
