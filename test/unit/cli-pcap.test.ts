import { expect, it } from 'vitest';
import { readPcap } from '../../src/cli/pcap.ts';

/** A capture with one packet; `original` is its length on the wire. */
function capture(little: boolean, link: number, frame: readonly number[], original: number) {
  const data = new DataView(new ArrayBuffer(40 + frame.length));
  data.setUint32(0, 0xa1b2c3d4, little);
  data.setUint32(20, link, little);
  data.setUint32(32, frame.length, little);
  data.setUint32(36, original, little);
  for (const [index, byte] of frame.entries()) data.setUint8(40 + index, byte);
  return new Uint8Array(data.buffer);
}

for (const little of [true, false]) {
  it(`reads a ${little ? 'little' : 'big'}-endian capture`, () => {
    const frames = readPcap(capture(little, 1, [1, 2, 3], 3), 'x.pcap');
    expect(frames).toMatchObject({ ok: true, value: [new Uint8Array([1, 2, 3])] });
  });
}

const refused: readonly (readonly [what: string, said: string, data: Uint8Array])[] = [
  ['something else', 'not a pcap file', new Uint8Array(24)],
  ['an empty file', 'not a pcap file', new Uint8Array(0)],
  ['another link type', 'not Ethernet', capture(true, 113, [1], 1)],
  ['cut packets', 'is cut', capture(true, 1, [1], 2)],
  ['a cut file', 'behind the end', capture(true, 1, [1, 2], 2).subarray(0, 41)],
];

for (const [what, said, data] of refused) {
  it(`refuses ${what}`, () => {
    const { ok, diagnostics } = readPcap(data, 'x.pcap');
    expect(ok).toBe(false);
    expect(diagnostics[0]?.message).toContain(said);
  });
}
