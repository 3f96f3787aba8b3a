import { type Field, META, rawField } from '../ir/fields.ts';
import type { Step } from '../ir/ruleset.ts';
import { LISTING_REASON, type Machine, pushGate } from './bytecode-machine.ts';
import { CHECKSUMS } from './lower-statement.ts';

type Effect = Extract<Step, { kind: 'effect' }>;
type Consequences = Pick<Effect, 'outcome' | 'external' | 'changes'>;

const TOLD: Consequences = { outcome: 'next', external: true, changes: [] };
const SILENT: Consequences = { outcome: 'next', external: false, changes: [] };
const TAKEN: Consequences = { outcome: 'unknown', external: true, changes: [] };
const NAT: Consequences = { outcome: 'accept', external: false, changes: 'everything' };
const OPAQUE: Consequences = { outcome: 'unknown', external: true, changes: 'everything' };

/** What an instruction does, by its beginning; the same consequences as the listed statements have. */
const EFFECTS: readonly (readonly [pattern: RegExp, consequences: Consequences])[] = [
  [/^(log|last)\b/, TOLD],
  [/^reject\b/, { outcome: 'drop', external: true, changes: [] }],
  [/^(nat|masq|redir)\b/, NAT],
  [/^(queue|tproxy|synproxy|fwd)\b/, TAKEN],
  [/^dup\b/, TOLD],
  [/^notrack\b/, SILENT],
  [/^ct set\b/, TOLD],
  [/^exthdr (write|reset)\b/, { outcome: 'next', external: false, changes: 'everything' }],
  // NFT_OBJECT_* of include/uapi/linux/netfilter/nf_tables.h: helper, timeout, expectation, secmark.
  [/^objref type (3|7|9|10) /, TOLD],
  [/^objref map\b/, TOLD],
  [/^vmap\b/, { outcome: 'unknown', external: false, changes: [] }],
];

// Limits, quotas and counts of connections, also named ones (NFT_OBJECT_QUOTA, _LIMIT, _CONNLIMIT).
const GATE = /^(limit|quota|connlimit)\b|^objref type (2|4|5) /;
const PERHAPS = /^(dynset|flow_offload|offload)\b/;
const META_SET = /^meta set (\w+) with reg \d+$/;
const PAYLOAD_SET = /^payload write reg \d+ => (\d+)b @ (network|transport|link) header \+ (\d+)\b/;

const META_BY_KEY: ReadonlyMap<string, Field> = new Map(Object.entries(META));
const BASES = { link: 'll', network: 'nh', transport: 'th' } as const;

function changesOf(line: string): Effect['changes'] | null {
  const meta = META_SET.exec(line)?.[1];
  if (meta !== undefined) {
    const field = META_BY_KEY.get(meta);
    if (field !== undefined) return [field];
    return meta === 'nftrace' || meta === 'secmark' ? [] : 'everything';
  }
  const write = PAYLOAD_SET.exec(line);
  if (write === null) return null;
  const [, length, header, offset] = write;
  const base = header === 'link' || header === 'network' ? BASES[header] : BASES.transport;
  return [rawField(base, Number(offset) * 8, Number(length) * 8), ...CHECKSUMS];
}

/** Appends what an instruction does that neither loads, tests, counts nor decides. */
export function runEffect(machine: Machine, line: string): void {
  const push = (consequences: Consequences): void => {
    const name = line.split(' ')[0] ?? line;
    machine.steps.push({ kind: 'effect', name, reason: LISTING_REASON, ...consequences });
  };
  const changes = changesOf(line);
  const row = EFFECTS.find(([pattern]) => pattern.test(line));
  if (changes !== null) {
    push({ outcome: 'next', external: false, changes });
  } else if (row !== undefined) {
    push(row[1]);
  } else if (GATE.test(line)) {
    pushGate(machine, line, true);
  } else if (PERHAPS.test(line)) {
    push(TOLD);
    pushGate(machine, line, true);
  } else {
    push(OPAQUE);
    machine.registers.clear();
  }
}
