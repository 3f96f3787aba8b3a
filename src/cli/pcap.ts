import type { Result } from '../support/diagnostics.ts';
import { errorAt, fail, succeed } from '../support/diagnostics.ts';

/**
 * File header, draft-ietf-opsawg-pcap section 4 (in the writer's byte order):
 *
 *   0 magic (a1b2c3d4 microseconds, a1b23c4d nanoseconds)   4 version   8 reserved
 *   16 snaplen   20 link type (16 bits; the rest are flags)
 *
 * then packets, section 5: 0 seconds   4 fraction   8 captured length   12 original length   16 data
 */
const HEADER_BYTES = 24;
const RECORD_BYTES = 16;
const MAGICS = [0xa1b2c3d4, 0xa1b23c4d];
const LINKTYPE_ETHERNET = 1;

/** The frames of a capture file; cut frames are refused, since their verdict could be another. */
export function readPcap(data: Uint8Array, file: string): Result<readonly Uint8Array[]> {
  const refuse = (what: string, help: string): Result<never> =>
    fail(
      errorAt('trace/pcap', what, {
        help,
        place: { kind: 'file', file, line: null, column: null },
      }),
    );
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const tooShort = data.length < HEADER_BYTES;
  const little = !tooShort && MAGICS.includes(view.getUint32(0, true));
  if (tooShort || !(little || MAGICS.includes(view.getUint32(0, false)))) {
    return refuse('this is not a pcap file', 'write it by `tcpdump -w`; pcapng: `editcap -F pcap`');
  }
  const linkType = view.getUint32(20, little) & 0xffff;
  if (linkType !== LINKTYPE_ETHERNET) {
    return refuse(`link type ${linkType} is not Ethernet (1)`, 'capture on an Ethernet device');
  }
  const frames: Uint8Array[] = [];
  for (let at = HEADER_BYTES; at < data.length; ) {
    const start = at + RECORD_BYTES;
    const length = start <= data.length ? view.getUint32(at + 8, little) : 0;
    if (start + length > data.length) {
      return refuse(`packet ${frames.length + 1} ends behind the end of the file`, 'capture again');
    }
    if (length !== view.getUint32(at + 12, little)) {
      return refuse(`packet ${frames.length + 1} is cut`, 'capture whole frames: tcpdump -s 0');
    }
    frames.push(data.subarray(start, start + length));
    at = start + length;
  }
  return succeed(frames);
}
