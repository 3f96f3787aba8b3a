import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parseIp } from '../support/addresses.ts';
import { EMPTY_POOL } from '../support/frame-pool.ts';
import { internetChecksum } from '../support/frames.ts';
import { ODD_KINDS, oddFrameOf } from '../support/odd-frames.ts';
import { createRandom } from '../support/random.ts';
import { makeFrames, oddFrames, wellFormedFrames } from '../support/random-frames.ts';

const POOL = { ...EMPTY_POOL, ip: [parseIp('192.0.2.7')], ports: [4711] };

it('makes the same frames from the same seed and others from another', () => {
  expect(makeFrames(7, 500, POOL)).toEqual(makeFrames(7, 500, POOL));
  expect(makeFrames(7, 500, POOL)).not.toEqual(makeFrames(8, 500, POOL));
});

it('uses the values of the pool often', () => {
  const hex = makeFrames(1, 1000, POOL, { odd: 0 }).map((frame) => Buffer.from(frame));
  expect(hex.filter((frame) => frame.includes(Buffer.of(192, 0, 2, 7))).length).toBeGreaterThan(
    200,
  );
  expect(hex.filter((frame) => frame.includes(Buffer.of(0x12, 0x67))).length).toBeGreaterThan(300);
});

it('makes well-formed frames whose IPv4 header and length are right', () => {
  fc.assert(
    fc.property(wellFormedFrames(POOL), (frame) => {
      const view = new DataView(frame.buffer);
      if (view.getUint16(12) === 0x86dd) return view.getUint16(18) + 54 <= frame.length;
      return view.getUint16(16) + 14 <= frame.length && internetChecksum(frame.slice(14, 34)) === 0;
    }),
  );
});

it('keeps odd frames between 14 bytes and what an Ethernet device takes', () => {
  fc.assert(
    fc.property(oddFrames(POOL), (frame) => frame.length >= 14 && frame.length <= 1514),
    { numRuns: 1000 },
  );
});

it.each(ODD_KINDS)('makes different frames of the kind %s', (kind) => {
  const random = createRandom(5);
  const frames = Array.from({ length: 20 }, () => oddFrameOf(kind, random, POOL));
  expect(new Set(frames.map((frame) => Buffer.from(frame).toString('hex'))).size).toBeGreaterThan(
    5,
  );
});
