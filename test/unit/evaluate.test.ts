import { expect, it } from 'vitest';
import type { Classifier, Counter, Effect, Entry, Target } from '../../src/ir/classifier.ts';
import {
  type EvaluateOptions,
  evaluate,
  evaluateTest,
  type Outcome,
} from '../../src/ir/evaluate.ts';
import { type Field, FRAME, findField, META, rawField } from '../../src/ir/fields.ts';
import { equals, not, oneOf, plain, within } from '../../src/ir/operand.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import type { Truth } from '../../src/ir/prepare-test.ts';
import type { ElementSet, Operand, Test } from '../../src/ir/ruleset.ts';
import {
  ah,
  arp,
  type EthernetFields,
  ethernet,
  extension,
  fragmentHeader,
  type Ipv4Fields,
  icmp,
  ipv4,
  ipv6,
  raw,
  type TcpFields,
  tcp,
  udp,
} from '../support/frames.ts';

function field(protocol: string, name: string): Field {
  const found = findField(protocol, name);
  if (found === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return found;
}

const SADDR = field('ip', 'saddr');
const SADDR6 = field('ip6', 'saddr');
const DPORT = field('tcp', 'dport');
const FLAGS = field('tcp', 'flags');
const VLAN_ID = field('vlan', 'id');
const IS_TCP = equals(META.l4proto, 6n);

function v4(fields: Ipv4Fields = {}, link: EthernetFields = {}, ports: TcpFields = {}): Uint8Array {
  return ethernet(link, ipv4(fields, tcp(ports)));
}

function truthAt(view: 'ingress' | 'l3', test: Test, frame: Uint8Array, mac?: bigint): Truth {
  const packet = parsePacket(frame);
  const seen = packet[view];
  if (seen === null) throw new Error(`bug: no ${view} view`);
  return evaluateTest(test, seen, packet, mac);
}

const TAG5 = v4({}, { tags: [{ vid: 5 }] });
const TAG7AD = v4({}, { tags: [{ protocol: 0x88a8, vid: 7 }] });
const QINQ = v4({}, { tags: [{ vid: 5 }, { vid: 6 }] });
const LL12 = rawField('ll', 96, 16);
const LL16 = rawField('ll', 128, 16);
const LL20 = rawField('ll', 160, 16);
const TH16 = rawField('th', 16, 16);

it.each([
  ['tag: meta protocol is the inner one', equals(META.protocol, 0x0800n), TAG5, true],
  ['tag: tcp dport', equals(DPORT, 80n), TAG5, true],
  ['tag: ether type 8021q', equals(LL12, 0x8100n), TAG5, true],
  ['tag: ether type ip does not match', equals(LL12, 0x0800n), TAG5, false],
  ['tag: vlan id', equals(VLAN_ID, 5n), TAG5, true],
  ['tag: vlan type', equals(LL16, 0x0800n), TAG5, true],
  ['88a8: ether type', equals(LL12, 0x88a8n), TAG7AD, true],
  ['88a8: vlan id', equals(VLAN_ID, 7n), TAG7AD, true],
  ['88a8: tcp dport', equals(DPORT, 80n), TAG7AD, true],
  ['QinQ: meta protocol is the inner tag', equals(META.protocol, 0x8100n), QINQ, true],
  ['QinQ: ll 16', equals(LL16, 0x8100n), QINQ, true],
  ['QinQ: ll 20', equals(LL20, 0x0800n), QINQ, true],
  ['QinQ: nh 0 is the inner TCI', equals(rawField('nh', 0, 16), 6n), QINQ, true],
  ['QinQ: l4proto breaks', not(equals(META.l4proto, 17n)), QINQ, false],
  ['QinQ: th breaks', not(equals(TH16, 81n)), QINQ, false],
  ['arp: l4proto breaks', not(equals(META.l4proto, 99n)), ethernet({}, arp()), false],
  ['arp: nh by bytes', equals(rawField('nh', 48, 16), 1n), ethernet({}, arp()), true],
  ['ihl 4: nh loads match', equals(SADDR, 0x0a000002n), v4({ ihl: 4 }), true],
  ['ihl 4: l4proto breaks', not(equals(META.l4proto, 17n)), v4({ ihl: 4 }), false],
  ['ihl 4: th breaks', not(equals(DPORT, 81n)), v4({ ihl: 4 }), false],
  ['cut at 19 bytes: saddr is there', equals(SADDR, 0x0a000002n), v4().subarray(0, 33), true],
  [
    'cut at 19 bytes: daddr is not',
    not(equals(field('ip', 'daddr'), 0n)),
    v4().subarray(0, 33),
    false,
  ],
  ['wrong checksum matches', equals(DPORT, 80n), v4({ checksum: 1 }), true],
  ['total length 20: th reads on', equals(DPORT, 80n), v4({ totalLength: 20 }), true],
  ['zero padding is port 0', equals(DPORT, 0n), ethernet({ padTo: 60 }, ipv4({}, raw(6))), true],
  [
    'four bytes of TCP: dport',
    equals(DPORT, 80n),
    ethernet({}, ipv4({}, raw(6, Uint8Array.of(1, 2, 0, 80)))),
    true,
  ],
  [
    'four bytes of TCP: flags break',
    not(equals(FLAGS, 0n)),
    ethernet({}, ipv4({}, raw(6, Uint8Array.of(1, 2, 0, 80)))),
    false,
  ],
  ['th on icmp', not(equals(TH16, 81n)), ethernet({}, ipv4({}, icmp())), true],
  [
    'options: th behind them',
    equals(DPORT, 80n),
    v4({ options: new Uint8Array(40).fill(1) }),
    true,
  ],
  ['length counts padding', equals(META.length, 46n), v4({}, { padTo: 60 }), true],
  ['length of a tagged frame', equals(META.length, 40n), TAG5, true],
  ['length of QinQ', equals(META.length, 44n), QINQ, true],
  ['first fragment: dport', equals(DPORT, 80n), v4({ moreFragments: true }), true],
  ['later fragment: th', equals(DPORT, 81n), v4({ fragmentOffset: 1 }), 'unknown'],
  ['later fragment: th, negated', not(equals(TH16, 81n)), v4({ fragmentOffset: 1 }), 'unknown'],
  ['later fragment: l4proto', IS_TCP, v4({ fragmentOffset: 1 }), true],
  ['later fragment: saddr', equals(SADDR, 0x0a000002n), v4({ fragmentOffset: 1 }), true],
  [
    'ip6 later fragment: th',
    equals(DPORT, 81n),
    ethernet({}, ipv6({ extensions: [fragmentHeader(1)] }, tcp())),
    'unknown',
  ],
  [
    'ip6 later fragment of an extension header: th breaks',
    not(equals(DPORT, 81n)),
    ethernet({}, ipv6({ extensions: [fragmentHeader(1), extension(60)] }, tcp())),
    false,
  ],
  [
    'ip6 chain: dport behind it',
    equals(DPORT, 80n),
    ethernet({}, ipv6({ extensions: [extension(0), extension(60)] }, tcp())),
    true,
  ],
  ['ip6 ah: no tcp', IS_TCP, ethernet({}, ipv6({}, ah(tcp()))), false],
  [
    'ip6 nexthdr is the first',
    equals(field('ip6', 'nexthdr'), 60n),
    ethernet({}, ipv6({ extensions: [extension(60)] }, tcp())),
    true,
  ],
  ['iifname is folded before', equals(META.iifname, 1n), v4(), 'unknown'],
  ['mark', not(equals(META.mark, 1n)), v4(), 'unknown'],
  ['frame tags', equals(FRAME.tags, 2n), QINQ, true],
  ['frame fragment', equals(FRAME.fragment, 2n), v4({ fragmentOffset: 1 }), true],
  ['frame checksum', equals(FRAME.checksum, 0n), v4({ checksum: 1 }), true],
] satisfies [string, Test, Uint8Array, Truth][])('at ingress: %s', (_, test, frame, expected) => {
  expect(truthAt('ingress', test, frame)).toBe(expected);
});

it.each([
  ['total length 20: th breaks', not(equals(DPORT, 81n)), v4({ totalLength: 20 }), false],
  ['length is the IP packet', equals(META.length, 40n), v4({}, { padTo: 60 }), true],
  ['priority tag: ether type ip', equals(LL12, 0x0800n), v4({}, { tags: [{ vid: 0 }] }), true],
  ['nfproto', equals(META.nfproto, 2n), v4(), true],
  ['ip6 nfproto', equals(META.nfproto, 10n), ethernet({}, ipv6({}, udp())), true],
  ['ip6 payload length 0: l4proto', IS_TCP, ethernet({}, ipv6({ payloadLength: 0 }, tcp())), true],
  [
    'ip6 payload length 0: th breaks',
    not(equals(DPORT, 81n)),
    ethernet({}, ipv6({ payloadLength: 0 }, tcp())),
    false,
  ],
] satisfies [string, Test, Uint8Array, Truth][])('at layer 3: %s', (_, test, frame, expected) => {
  expect(truthAt('l3', test, frame)).toBe(expected);
});

const OWN = 0x020000000001n;

it.each([
  ['host', '02:00:00:00:00:01', OWN, 0n, true],
  ['other', '02:00:00:00:00:09', OWN, 3n, true],
  ['broadcast', 'ff:ff:ff:ff:ff:ff', OWN, 1n, true],
  ['multicast', '01:00:5e:00:00:01', OWN, 2n, true],
  ['broadcast without the address', 'ff:ff:ff:ff:ff:ff', null, 1n, true],
  ['unicast without the address', '02:00:00:00:00:01', null, 0n, 'unknown'],
  ['unicast is not broadcast', '02:00:00:00:00:01', null, 1n, false],
] satisfies [string, string, bigint | null, bigint, Truth][])(
  'knows pkttype: %s',
  (_, daddr, mac, type, expected) => {
    const packet = parsePacket(v4({}, { daddr }));
    expect(evaluateTest(equals(META.pkttype, type), packet.ingress, packet, mac)).toBe(expected);
  },
);

function operand(of: Field, changes: Partial<Operand>): Operand {
  return { ...plain(of), ...changes };
}

function compare(changed: Operand, value: bigint): Test {
  return {
    kind: 'compare',
    operand: changed,
    lo: value,
    hi: value,
    negated: false,
    implicit: false,
  };
}

it.each([
  ['mask', operand(SADDR, { mask: 0xff0000ffn }), 0x0a000002n],
  ['xor', operand(SADDR, { xor: 0xffffffffn }), 0xf5fffffdn],
  ['mask and xor', operand(SADDR, { mask: 0xffn, xor: 0x80000000n }), 0x80000002n],
  ['left shift, cut', operand(SADDR, { shift: 8 }), 0x00000200n],
  ['right shift', operand(SADDR, { shift: -24 }), 0x0an],
  ['a bit field', plain(rawField('nh', 4, 4)), 5n],
  ['an unaligned field', plain(rawField('nh', 100, 12)), 0xa00n],
  ['an unaligned field of 32 bits', plain(rawField('nh', 92, 32)), 0x20a00000n & 0xffffffffn],
  ['48 bits', plain(field('ether', 'daddr')), 0x020000000001n],
  ['48 bits masked', operand(field('ether', 'daddr'), { mask: 0xff00000000ffn }), 0x020000000001n],
  ['64 bits', plain(rawField('nh', 96, 64)), 0x0a0000020a000001n],
  ['64 bits masked', operand(rawField('nh', 96, 64), { mask: 0xffn << 56n }), 0x0an << 56n],
  ['60 unaligned bits', plain(rawField('nh', 100, 60)), 0xa0000020a000001n],
])('computes operands: %s', (_, changed, value) => {
  const frame = v4({ checksum: 0x1232 });
  expect(truthAt('ingress', compare(changed, value), frame)).toBe(true);
  expect(truthAt('ingress', compare(changed, value ^ 1n), frame)).toBe(false);
});

it.each([
  ['16 bits', within(DPORT, 80n, 90n), true],
  ['below', within(DPORT, 81n, 90n), false],
  ['128 bits', within(SADDR6, 0x20010db8n << 96n, (0x20010db9n << 96n) - 1n), true],
  ['128 bits, beyond', within(SADDR6, 0x20010db9n << 96n, 0x20010dban << 96n), false],
])('compares ranges: %s', (_, test, expected) => {
  const frame = ethernet({}, ipv6({}, tcp()));
  expect(truthAt('ingress', test, frame)).toBe(expected);
  expect(truthAt('ingress', not(test), frame)).toBe(!expected);
});

function setOf(
  parts: readonly number[],
  lo: readonly bigint[],
  hi: readonly bigint[] = lo,
  unknown: ElementSet['unknown'] = null,
): ElementSet {
  return { name: 's', elements: { parts, lo, hi, verdicts: null }, unknown };
}

function lookup(key: readonly Field[], set: ElementSet): Test {
  return { kind: 'lookup', key: key.map(plain), set, negated: false };
}

const UNRELIABLE = { code: 'set/dynamic', message: 'filled by packets' };
const ADDRESS = 0x0a000002n;
const ADDRESS6 = (0x20010db8n << 96n) | 2n;

it.each([
  ['exact', lookup([SADDR], setOf([32], [1n, ADDRESS])), true],
  ['exact, missing', lookup([SADDR], setOf([32], [1n, ADDRESS + 1n])), false],
  ['empty', lookup([SADDR], setOf([32], [])), false],
  [
    'ranges',
    lookup([SADDR], setOf([32], [ADDRESS + 9n, 1n, 0x0a000000n], [ADDRESS + 9n, 5n, 0x0a0000ffn])),
    true,
  ],
  [
    'between ranges',
    lookup([SADDR], setOf([32], [1n, ADDRESS + 1n], [ADDRESS - 1n, ADDRESS + 9n])),
    false,
  ],
  ['concatenation', lookup([SADDR, DPORT], setOf([32, 16], [(ADDRESS << 16n) | 80n])), true],
  [
    'concatenation, missing',
    lookup([SADDR, DPORT], setOf([32, 16], [(ADDRESS << 16n) | 81n])),
    false,
  ],
  [
    'wide concatenation',
    lookup(
      [SADDR, META.l4proto, DPORT, SADDR],
      setOf([32, 8, 16, 32], [(((((ADDRESS << 8n) | 6n) << 16n) | 80n) << 32n) | ADDRESS]),
    ),
    true,
  ],
  [
    'concatenation with ranges that share a start',
    lookup(
      [SADDR, DPORT],
      setOf(
        [32, 16],
        [1n << 16n, 79n, (ADDRESS << 16n) | 90n],
        [(ADDRESS << 16n) | 10n, (0xffffffffn << 16n) | 81n, (ADDRESS << 16n) | 99n],
      ),
    ),
    true,
  ],
  [
    'concatenation with ranges, one part outside',
    lookup([SADDR, DPORT], setOf([32, 16], [0n], [(0xffffffffn << 16n) | 79n])),
    false,
  ],
  ['unreliable', lookup([SADDR], setOf([32], [], [], UNRELIABLE)), 'unknown'],
  [
    'a load fails',
    lookup([SADDR, rawField('th', 800, 8)], setOf([32, 8], [], [], UNRELIABLE)),
    false,
  ],
  [
    'a load fails and one is unknown',
    lookup([META.mark, rawField('th', 800, 8)], setOf([32, 8], [])),
    false,
  ],
] satisfies [string, Test, Truth][])('looks up: %s', (_, test, expected) => {
  expect(truthAt('ingress', test, v4())).toBe(expected);
});

it('negates a look-up, but not one whose load fails', () => {
  const set = setOf([32], [ADDRESS]);
  expect(truthAt('ingress', not(lookup([SADDR], set)), v4())).toBe(false);
  expect(truthAt('ingress', not(lookup([SADDR], set)), v4({ saddr: '10.0.0.3' }))).toBe(true);
  expect(truthAt('ingress', not(lookup([SADDR], set)), v4().subarray(0, 20))).toBe(false);
});

it('looks up IPv6 addresses, exact and in ranges', () => {
  const frame = ethernet({}, ipv6({}, tcp()));
  const exact = lookup([SADDR6], setOf([128], [1n, ADDRESS6]));
  const ranged = lookup([SADDR6], setOf([128], [1n, ADDRESS6 - 1n], [7n, ADDRESS6 + 1n]));
  expect(truthAt('ingress', exact, frame)).toBe(true);
  expect(truthAt('ingress', ranged, frame)).toBe(true);
});

const DROP: Target = { kind: 'drop' };
const ACCEPT: Target = { kind: 'accept' };
const LOST: Target = { kind: 'lost' };
const REASON = { code: 'test/reason', message: 'not from here' };
const LOG: Effect = { name: 'log', reason: REASON, external: true };

function go(index: number, uncertain = false): Target {
  return { kind: 'entry', index, uncertain };
}

function entry(changes: Partial<Entry>): Entry {
  return {
    rule: null,
    label: 'entry',
    view: 'ingress',
    tests: [],
    counts: [],
    effects: [],
    then: ACCEPT,
    otherwise: ACCEPT,
    ...changes,
  };
}

function counter(view: Counter['view']): Counter {
  return { family: 'inet', table: 't', rule: null, name: 'c', view };
}

function walk(
  entries: readonly Partial<Entry>[],
  frame: Uint8Array = v4({}, { padTo: 60 }),
  options: EvaluateOptions = {},
): Outcome {
  const classifier: Classifier = {
    device: 'eth0',
    entries: entries.map(entry),
    stages: [],
    counters: [counter('ingress'), counter('l3')],
  };
  return evaluate(classifier, parsePacket(frame), options);
}

const HIT = equals(DPORT, 80n);
const MISS = equals(DPORT, 81n);
const UNKNOWN: Test = { kind: 'unknown', reason: REASON, stateful: false, text: 'ct state new' };
const STATEFUL: Test = { ...UNKNOWN, stateful: true, text: 'limit rate 1/second' };
const TIER = { mode: 'tier' } as const;

it('accepts everything when there are no entries', () => {
  expect(walk([])).toEqual({
    verdict: 'accept',
    counts: new Map(),
    decidedBy: null,
    reason: null,
    trail: [],
  });
});

it('follows matches and misses, and names the entry that decides', () => {
  const outcome = walk([
    { tests: [MISS], then: DROP, otherwise: go(1) },
    { tests: [HIT], then: go(3), otherwise: ACCEPT },
    { then: ACCEPT },
    { tests: [MISS], otherwise: DROP },
  ]);
  expect(outcome).toMatchObject({ verdict: 'drop', decidedBy: 3, trail: [1] });
});

it('counts by view, and twice where one counter is passed twice', () => {
  const entries = [
    { counts: [0], then: go(1) },
    { counts: [0], then: go(2) },
    { view: 'l3', counts: [1], then: DROP },
  ] as const;
  expect(walk(entries).counts).toEqual(
    new Map([
      [0, { packets: 2, bytes: 92 }],
      [1, { packets: 1, bytes: 40 }],
    ]),
  );
});

it('counts accepted and lost frames in the kernel, not in a tier', () => {
  for (const then of [ACCEPT, LOST]) {
    expect(walk([{ counts: [0], then }]).counts.size).toBe(1);
    expect(walk([{ counts: [0], then }], v4(), TIER).counts.size).toBe(0);
  }
});

it('ends as unknown where the target is', () => {
  const outcome = walk([{ counts: [0], then: { kind: 'unknown', reason: REASON } }]);
  expect(outcome).toMatchObject({ verdict: 'unknown', reason: REASON, decidedBy: 0, trail: [0] });
  expect(outcome.counts.size).toBe(0);
});

it.each([
  ['a known test before it', [MISS, UNKNOWN]],
  ['a known test behind it', [UNKNOWN, MISS]],
])('ignores an unknown test when another is false: %s', (_, tests) => {
  const outcome = walk([{ tests, then: DROP, otherwise: go(1) }, { then: ACCEPT }]);
  expect(outcome.verdict).toBe('accept');
});

it('goes on behind a drop that may have happened, and drops later', () => {
  const outcome = walk([
    { tests: [UNKNOWN], then: DROP, otherwise: go(1) },
    { tests: [HIT], then: DROP },
  ]);
  expect(outcome).toMatchObject({ verdict: 'drop', decidedBy: 1, trail: [1] });
});

it.each([
  ['accepts', { then: ACCEPT }, 'unknown', 'walk/uncertain-accept'],
  ['counts', { counts: [0], then: DROP }, 'unknown', 'walk/uncertain-count'],
  ['counts, not matched', { tests: [MISS], counts: [0], otherwise: DROP }, 'drop', undefined],
  ['loses', { then: LOST }, 'lost', undefined],
] satisfies [string, Partial<Entry>, string, string | undefined][])(
  'knows what a packet that may be gone can still tell: %s',
  (_, last, verdict, code) => {
    for (const first of [
      { tests: [UNKNOWN], then: DROP, otherwise: go(1) },
      { tests: [UNKNOWN], then: LOST, otherwise: go(1) },
      { then: go(1, true) },
    ] satisfies Partial<Entry>[]) {
      const outcome = walk([first, last]);
      expect([outcome.verdict, outcome.reason?.code]).toEqual([verdict, code]);
    }
  },
);

it.each([
  ['accepts', { then: ACCEPT, otherwise: DROP }],
  ['jumps elsewhere', { then: go(2), otherwise: DROP }],
  ['counts', { counts: [0], then: DROP, otherwise: DROP }],
] satisfies [string, Partial<Entry>][])(
  'is unknown when an entry that may match %s',
  (_, changes) => {
    const outcome = walk([{ tests: [UNKNOWN], ...changes }]);
    expect(outcome).toMatchObject({ verdict: 'unknown', reason: REASON, decidedBy: 0, trail: [] });
  },
);

it('passes an entry that may match when both ways are one', () => {
  const same = { tests: [UNKNOWN], then: go(1), otherwise: go(1) };
  expect(walk([same, { then: ACCEPT }]).verdict).toBe('accept');
  expect(walk([{ ...same, then: go(1, true) }, { then: ACCEPT }]).verdict).toBe('unknown');
});

it.each([
  ['stateful test', { tests: [STATEFUL] }],
  ['external effect', { tests: [UNKNOWN], effects: [LOG] }],
])('leaves a drop behind a doubtful %s to the kernel', (_, changes) => {
  const entries = [{ ...changes, then: DROP, otherwise: go(1) }, { then: DROP }];
  expect(walk(entries).verdict).toBe('drop');
  expect(walk(entries, v4(), TIER)).toMatchObject({ verdict: 'unknown', reason: REASON });
});

it.each([
  ['drop', DROP, 'unknown'],
  ['lost', LOST, 'unknown'],
  ['accept', ACCEPT, 'accept'],
] satisfies [string, Target, string][])(
  'lets a tier skip no external effect before %s',
  (_, then, verdict) => {
    const entries = [{ effects: [LOG], then: go(1) }, { then }];
    expect(walk(entries).verdict).toBe(then.kind);
    expect(walk(entries, v4(), TIER).verdict).toBe(verdict);
  },
);

it('skips effects that nobody else notices', () => {
  const quiet = { ...LOG, external: false };
  expect(walk([{ effects: [quiet], then: DROP }], v4(), TIER).verdict).toBe('drop');
});

it('never decides an odd frame in a tier', () => {
  const outcome = walk([{ then: DROP }], v4({ ihl: 4 }), TIER);
  expect(outcome).toMatchObject({ verdict: 'unknown', decidedBy: null });
  expect(outcome.reason?.code).toBe('packet/ipv4-header-length');
});

it.each([
  ['malformed, at ingress', v4({ ihl: 4 }), 'drop'],
  ['tag cut', TAG5.subarray(0, 19), 'lost'],
  ['short', v4().subarray(0, 13), 'unknown'],
])('decides odd frames as the kernel does: %s', (_, frame, verdict) => {
  expect(walk([{ then: DROP }], frame).verdict).toBe(verdict);
});

it('loses malformed packets before layer 3, with what ingress counted', () => {
  const entries = [
    { counts: [0], then: go(1) },
    { view: 'l3', counts: [1], then: DROP },
  ] as const;
  const outcome = walk(entries, v4({ ihl: 4 }));
  expect(outcome.verdict).toBe('lost');
  expect(outcome.counts).toEqual(new Map([[0, { packets: 1, bytes: 40 }]]));
});

it.each([
  ['arp', ethernet({}, arp())],
  ['two tags', QINQ],
])('is unknown at a layer-3 entry for a frame that does not get there: %s', (_, frame) => {
  const outcome = walk([{ view: 'l3', then: DROP }], frame);
  expect([outcome.verdict, outcome.reason?.code]).toEqual(['unknown', 'packet/no-l3']);
});

it('answers layer-3 conditions on frame properties for every frame', () => {
  const conditions = [
    { view: 'l3', tests: [not(equals(FRAME.tags, 0n))], then: LOST, otherwise: go(1) },
    { view: 'l3', tests: [not(oneOf(META.protocol, [0x0800n, 0x86ddn]))], otherwise: go(2) },
    { view: 'l3', then: DROP },
  ] as const;
  expect(walk(conditions, TAG5).verdict).toBe('lost');
  expect(walk(conditions, ethernet({}, arp())).verdict).toBe('accept');
  expect(walk(conditions, v4()).verdict).toBe('drop');
});

it.each([
  ['nothing fits', ADDRESS + 1n, false, false],
  ['something may fit', ADDRESS, false, 'unknown'],
  ['nothing fits, negated: it may not be there to load', ADDRESS + 1n, true, 'unknown'],
] as const)('a key with a part that nobody knows: %s', (_, saddr, negated, wanted) => {
  const set = setOf([32, 16], [saddr << 16n], [(saddr << 16n) | 99n]);
  const test: Test = { kind: 'lookup', key: [SADDR, DPORT].map(plain), set, negated };
  const outcome = walk(
    [{ tests: [test], then: { kind: 'accept' }, otherwise: DROP }],
    v4({ fragmentOffset: 1 }),
  );
  expect(outcome.verdict).toBe(wanted === false ? 'drop' : 'unknown');
});

it.each([
  ['transport of a later fragment', HIT, 'packet/later-fragment'],
  ['metadata', equals(META.mark, 1n), 'packet/metadata'],
  ['contents of a set', lookup([SADDR], setOf([32], [], [], UNRELIABLE)), 'set/dynamic'],
  ['a test', UNKNOWN, 'test/reason'],
])('says what is unknown: %s', (_, test, code) => {
  const outcome = walk([{ tests: [IS_TCP, test], otherwise: DROP }], v4({ fragmentOffset: 1 }));
  expect(outcome.reason?.code).toBe(code);
});
