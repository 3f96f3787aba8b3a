import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { compileTables, isTcamProfile } from '../../src/backends/tcam/compile.ts';
import { writeOpenflow } from '../../src/backends/tcam/formats/openflow.ts';
import { formatIp6 } from '../../src/backends/tcam/formats/text.ts';
import { interpretTables, keyOf } from '../../src/backends/tcam/interpret.ts';
import { keyBits, type TcamTable } from '../../src/backends/tcam/table.ts';
import { verifyTables } from '../../src/backends/tcam/verify.ts';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { type Packet, parsePacket } from '../../src/ir/packet.ts';
import { readRuleset } from '../../src/nft/read.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { ones, toHex } from '../../src/support/bits.ts';
import { type OpenVswitch, startOpenVswitch } from '../support/open-vswitch.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { ARBITRARY_POOL } from '../support/ruleset-arbitrary.ts';

let ovs: OpenVswitch;
beforeAll(async () => {
  ovs = await startOpenVswitch();
}, 60_000);
afterAll(() => ovs.close());

async function read(body: string) {
  const directory = await mkdtemp(join(tmpdir(), 'nfo-tcam-'));
  try {
    const path = join(directory, 'rules.nft');
    const head = 'type filter hook ingress device "eth0" priority 0; policy accept;';
    await writeFile(path, `table netdev t {\nchain c {\n${head}\n${body}\n}\n}\n`);
    return unwrap(await readRuleset({ kind: 'file', path }));
  } finally {
    await rm(directory, { recursive: true });
  }
}

const RULESETS: readonly (readonly [string, string])[] = [
  [
    'ports and prefixes',
    `ip saddr 10.0.0.3 accept
     ip saddr 10.0.0.0/24 tcp dport 54-442 drop
     ip daddr 10.0.0.1 udp sport != 53 drop
     tcp flags & (syn|ack) == syn tcp dport 443 drop
     icmp type echo-request drop`,
  ],
  [
    'sets and concatenations',
    `ip saddr . tcp dport { 10.0.0.2 . 80, 10.0.0.3 . 443 } drop
     meta l4proto { udp, icmp } ip saddr != { 10.0.0.2, 10.0.0.254 } drop
     ip6 saddr 2001:db8::/32 udp dport { 53, 443 } drop
     icmpv6 type 128 drop`,
  ],
];

/** Bytes of a transport header at least, and where it says its length. */
const SHORTEST: Readonly<Record<number, number>> = { 1: 8, 6: 20, 17: 8, 58: 8, 132: 12 };

/** The switch looks at no transport header that is cut or lies about its length. */
function isCut({ odd, ingress, l3 }: Packet): boolean {
  if (odd !== null || l3 === null || ingress.transport === null) return true;
  // An IPv6 fragment that is all there is none to the switch.
  if (ingress.nfproto === 10 && ingress.fragment !== 'whole') return true;
  const { frame, transport, network, l4proto } = ingress;
  const length = network + l3.length - transport;
  if (length < (SHORTEST[l4proto ?? 0] ?? 0)) return true;
  const at = (offset: number): number => frame[transport + offset] ?? 0;
  const u16 = (offset: number): number => at(offset) * 256 + at(offset + 1);
  if (l4proto === 6 && ((at(12) >> 4) * 4 < 20 || (at(12) >> 4) * 4 > length)) return true;
  if (l4proto === 17 && (u16(4) < 8 || u16(4) > length)) return true;
  return u16(0) === 0 && (l4proto === 1 || l4proto === 58 || u16(2) === 0);
}

/** Every row's number as the destination address, so that it comes back on the wire. */
function numbered(row: number): string {
  const number = (row + 2) & 0xffff;
  const hex = number.toString(16).padStart(4, '0');
  return `set_field:06:00:00:00:${hex.slice(0, 2)}:${hex.slice(2)}->eth_dst,output:2`;
}

it.each(RULESETS)(
  'Open vSwitch finds the row that we find: %s',
  async (_, body) => {
    const ruleset = await read(body);
    const facts = labFacts(null);
    const profile = unwrap(await loadProfile('openvswitch'));
    if (!isTcamProfile(profile)) throw new Error('bug: openvswitch is no TCAM profile');
    const { classifier } = flatten(ruleset, facts);
    const options = {
      profile,
      effort: 'normal',
      stage: 'ternary',
      final: false,
      mayMiscount: false,
    } as const;
    const { tables } = unwrap(compileTables(classifier, options));
    await ovs.load(unwrap(writeOpenflow(tables, (_action, row) => numbered(row))));
    const frames = makeFrames(41, 1500, ARBITRARY_POOL).filter(({ length }) => length >= 34);
    const seen = await ovs.send(frames);
    const reference = prepare(classifier, { mode: 'kernel', mac: facts.mac });
    let drops = 0;
    const starts: number[] = [];
    let next = 0;
    for (const table of tables.tables) {
      starts.push(next);
      next += table.rows.length + 1;
    }
    for (const [index, frame] of frames.entries()) {
      const packet = parsePacket(frame);
      const ours = interpretTables(tables, packet);
      const out = seen[index];
      const hex = toHex(frame);
      const row = out === null || out === undefined ? -1 : ((out[4] ?? 0) << 8) + (out[5] ?? 0) - 2;
      const place = tables.tables.findLastIndex((_table, at) => row >= (starts[at] ?? 0));
      const decides = row >= 0 && row !== 0xffff && actionOf(tables, starts, place, row) === 'drop';
      // Malformed IP that a chain at ingress lets pass is discarded by the IP stack all the same.
      if (decides && packet.noL3 !== 'malformed') {
        expect(['drop', 'lost'], hex).toContain(reference(packet).verdict);
      }
      if (isCut(packet) || out === null) continue;
      expect(decides, `${hex} row ${row}`).toBe(ours.action === 'drop');
      if (!decides) continue;
      drops += 1;
      expect([place, row - (starts[place] ?? 0)], hex).toEqual([ours.table, ours.row]);
    }
    expect(drops).toBeGreaterThan(20);
  },
  120_000,
);

function actionOf(
  {
    tables,
  }: {
    readonly tables: readonly {
      readonly rows: readonly { readonly action: string }[];
      readonly default: string;
    }[];
  },
  starts: readonly number[],
  place: number,
  row: number,
): string {
  const table = tables[place];
  return table?.rows[row - (starts[place] ?? 0)]?.action ?? table?.default ?? 'continue';
}

/** Bits of an IPv6 address that hold a key; the first 16 stay the same. */
const KEY_BITS = 112;
const PREFIX = 0xfd00n << BigInt(KEY_BITS);

function address(value: bigint): string {
  return formatIp6(value & ones(128));
}

/** Rows of any key as flows: a switch compares an IPv6 address bit by bit. */
function flowsOf({ rows }: TcamTable): string {
  const mask = 0xffffn << BigInt(KEY_BITS);
  const flows = rows.map((row, index) => {
    const match = `${address(PREFIX | row.value)}/${address(mask | row.mask)}`;
    return `priority=${65_000 - index},ipv6,ipv6_dst=${match},actions=${numbered(index)}`;
  });
  return `${[...flows, `priority=1,actions=${numbered(rows.length)}`].join('\n')}\n`;
}

/** An IPv6 packet without payload (next header 59, RFC 8200) to the address that a key is. */
function carry(key: bigint): Uint8Array {
  const frame = new Uint8Array(60);
  frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 64, 0xfd]);
  frame.set(Buffer.from((PREFIX | key).toString(16).padStart(32, '0'), 'hex'), 38);
  return frame;
}

/** The rows that the switch finds for keys; the number of rows is the default. */
async function rowsFor(table: TcamTable, keys: readonly bigint[]): Promise<readonly number[]> {
  await ovs.load(flowsOf(table));
  const seen = await ovs.send(keys.map(carry));
  return seen.map((out) => ((out?.[4] ?? 0) << 8) + (out?.[5] ?? 0) - 2);
}

it('a generic table decides as the reference, row by row, and planted faults show', async () => {
  const [, body = ''] = RULESETS[0] ?? [];
  const { classifier } = flatten(await read(body), labFacts(null));
  const base = { profile: null, effort: 'normal', stage: 'ternary' } as const;
  const compiled = unwrap(compileTables(classifier, { ...base, final: false, mayMiscount: false }));
  const table = compiled.tables.tables.find(({ name }) => name === 'ipv4-tcp');
  if (table === undefined) throw new Error('bug: no table for TCP');
  const bits = keyBits(table.columns);
  expect(bits).toBeLessThanOrEqual(KEY_BITS);
  const reference = prepare(classifier, { mode: 'kernel', mac: null });
  const isDropped = (packet: Packet): boolean => reference(packet).verdict === 'drop';

  const frames = makeFrames(43, 4000, ARBITRARY_POOL).map(parsePacket);
  const served = frames.flatMap((packet) => {
    const key = isCut(packet) ? null : keyOf(table, packet);
    return key === null ? [] : [{ packet, key }];
  });
  // Keys of every row, one bit beside each of its bits.
  const beside = table.rows.flatMap(({ value, mask }) => [
    value,
    ...Array.from({ length: bits }, (_, bit) => 1n << BigInt(bit))
      .filter((bit) => (mask & bit) !== 0n)
      .map((bit) => value ^ bit),
  ]);
  const keys = [...served.map(({ key }) => key), ...beside];
  const found = await rowsFor(table, keys);
  const actionAt = (row: number): string => table.rows[row]?.action ?? table.default;
  for (const [at, key] of keys.entries()) {
    const first = table.rows.findIndex(({ value, mask }) => ((key ^ value) & mask) === 0n);
    expect(found[at], key.toString(16)).toBe(first < 0 ? table.rows.length : first);
  }
  for (const [at, { packet }] of served.entries()) {
    expect(actionAt(found[at] ?? -1) === 'drop', toHex(packet.frame)).toBe(isDropped(packet));
  }
  expect(new Set(found).size).toBe(table.rows.length + 1);

  const [one, two, ...others] = table.rows;
  if (one === undefined || two === undefined) throw new Error('bug: hardly any rows');
  const lowest = two.mask & -two.mask;
  const faults = [
    [two, one, ...others],
    [one, ...others],
    [one, { ...two, mask: two.mask ^ lowest, value: two.value & ~lowest }, ...others],
  ];
  for (const [fault, rows] of faults.entries()) {
    const broken = { ...table, rows };
    const set = { profile: null, tables: [broken] };
    const [finding] = verifyTables(classifier, set, { final: false, mayMiscount: false });
    expect(['less', 'wrong'], `fault ${fault}`).toContain(finding?.kind);
    const packet = parsePacket(finding?.frame ?? new Uint8Array(0));
    const key = keyOf(broken, packet);
    if (key === null) throw new Error('bug: the table does not serve the frame');
    const [row = -1] = await rowsFor(broken, [key]);
    expect(rows[row]?.action === 'drop', `fault ${fault}`).toBe(!isDropped(packet));
  }
}, 60_000);
