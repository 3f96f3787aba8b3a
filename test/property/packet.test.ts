import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parsePacket, type View } from '../../src/ir/packet.ts';
import {
  ah,
  arp,
  ethernet,
  extension,
  fragmentHeader,
  ipv4,
  ipv6,
  tcp,
  udp,
} from '../support/frames.ts';

const WHOLE: readonly Uint8Array[] = [
  ethernet({}, ipv4({}, tcp())),
  ethernet({ padTo: 64 }, ipv4({ options: new Uint8Array(8).fill(1) }, udp())),
  ethernet({ tags: [{ vid: 0 }] }, ipv4({ moreFragments: true }, tcp())),
  ethernet({ tags: [{ vid: 5 }, { vid: 6 }] }, ipv4({}, tcp())),
  ethernet({}, ipv6({}, tcp())),
  ethernet({ tags: [{ vid: 0 }] }, ipv6({ extensions: [extension(60), extension(43)] }, udp())),
  ethernet({}, ipv6({ extensions: [extension(0), fragmentHeader(0, true)] }, tcp())),
  ethernet({}, ipv6({ extensions: [fragmentHeader(3)] }, ah(tcp()))),
  ethernet({}, arp()),
];

/** Well-formed frames with up to four bytes behind the addresses changed, or the end cut off. */
const damaged = fc
  .tuple(
    fc.constantFrom(...WHOLE),
    fc.array(fc.tuple(fc.integer({ min: 12, max: 80 }), fc.integer({ min: 0, max: 255 })), {
      maxLength: 4,
    }),
    fc.option(fc.nat({ max: 120 })),
  )
  .map(([whole, changes, length]) => {
    const frame = whole.slice(0, length ?? whole.length);
    for (const [at, value] of changes) if (at < frame.length) frame[at] = value;
    return frame;
  });

const frames = fc.oneof(fc.uint8Array({ maxLength: 200 }), { arbitrary: damaged, weight: 4 });

function expectBounds(view: View): void {
  expect(view.network).toBeLessThanOrEqual(view.end);
  expect(view.end).toBe(view.frame.length);
  expect(view.transport === null).toBe(view.l4proto === null);
  if (view.transport !== null) {
    expect(view.transport).toBeGreaterThanOrEqual(view.network);
    expect(view.transport).toBeLessThanOrEqual(view.end);
  }
  expect(view.length).toBeGreaterThanOrEqual(0);
}

it('reads any bytes, and both views stay inside them', () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const before = frame.slice();
      const packet = parsePacket(frame);
      expect(frame).toEqual(before);
      expectBounds(packet.ingress);
      expect(packet.l3 === null).toBe(packet.noL3 !== null);
      if (packet.l3 === null) return;
      expectBounds(packet.l3);
      expect(packet.l3.end).toBe(packet.l3.network + packet.l3.length);
      expect(packet.l3.length).toBeLessThanOrEqual(packet.ingress.length);
    }),
    { numRuns: 3000 },
  );
});

it('agrees on the transport header in both views of every packet that is not odd', () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const { ingress, l3, odd, tags } = parsePacket(frame);
      if (odd !== null || l3 === null) return;
      expect(l3.l4proto).toBe(ingress.l4proto);
      expect(l3.fragment).toBe(ingress.fragment);
      expect(l3.transport).toBe((ingress.transport ?? 0) - 4 * tags);
    }),
    { numRuns: 3000 },
  );
});

it('has a transport header for every IP packet that is not odd', () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const { ingress, odd } = parsePacket(frame);
      if (odd === null && ingress.nfproto !== 5) expect(ingress.l4proto).not.toBeNull();
    }),
    { numRuns: 3000 },
  );
});
