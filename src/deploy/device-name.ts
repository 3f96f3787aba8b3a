import { type Diagnostic, errorAt } from '../support/diagnostics.ts';

/** IFNAMSIZ, include/uapi/linux/if.h, with the final zero byte. */
const NAME_BYTES = 16;

/**
 * Null when the kernel could have a device of this name: dev_valid_name(), net/core/dev.c. Control
 * characters are refused as well, which it would take.
 */
export function checkDeviceName(name: string): Diagnostic | null {
  const length = Buffer.byteLength(name);
  // isspace() of the kernel's lib/ctype.c also takes 0xa0, which UTF-8 has inside other characters.
  const forbidden = [...Buffer.from(name)].some(
    (byte) => byte <= 0x20 || byte === 0x7f || byte === 0x2f || byte === 0x3a || byte === 0xa0,
  );
  if (length > 0 && length < NAME_BYTES && name !== '.' && name !== '..' && !forbidden) return null;
  return errorAt('deploy/bad-device-name', `${JSON.stringify(name)} cannot name a network device`, {
    help: 'a name has 1 to 15 bytes without blanks, `/` and `:`; see `ip link`',
  });
}

/**
 * The name as one component of a path. A BPF file system takes no dots in names (bpf_lookup(),
 * kernel/bpf/inode.c), so all but letters, digits, `_` and `-` becomes `%` and two hex digits.
 */
export function deviceKey(name: string): string {
  return [...Buffer.from(name)]
    .map((byte) => {
      const text = String.fromCharCode(byte);
      return /[A-Za-z0-9_-]/.test(text) ? text : `%${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}
