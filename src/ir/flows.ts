import { bits } from '../support/bits.ts';
import type { Facts } from './facts.ts';
import { type Field, findField, META } from './fields.ts';
import { equals, not, oneOf, plain } from './operand.ts';
import type { FamilyStates } from './path.ts';
import { NO_FLOW, type Tracking } from './resolve-test.ts';
import type { ElementSet, Ruleset, Test } from './ruleset.ts';

/** Ports from..to, both included. */
export interface PortRange {
  readonly from: number;
  readonly to: number;
}

/** What an operator gives up about flows; see docs/stateful.md. */
export interface FlowConcessions {
  /** A TCP SYN without ACK belongs to no known flow. */
  readonly synIsNew: boolean;
  /** This machine opens connections from these local ports only; null: from any. */
  readonly replyPorts: readonly PortRange[] | null;
}

export const NO_FLOW_CONCESSIONS: FlowConcessions = { synIsNew: false, replyPorts: null };

/** Packets that certainly belong to no flow that connection tracking knows, and how to tell. */
export interface FlowKind {
  readonly label: string;
  /** Any list of tests that all hold is enough. */
  readonly conditions: readonly (readonly Test[])[];
  readonly tracking: Tracking;
}

const TCP = 6n;
const UDP = 17n;
const FLAGS: Field = { name: 'tcp flags', base: 'th', offset: bits(104), width: bits(8) };
const FIN_SYN_RST_ACK = 0x17n;
const SYN = 0x02n;

function fieldOf(protocol: string, name: string): Field {
  const field = findField(protocol, name);
  if (field === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return field;
}

/** A rule hands the flow to a helper, whose expectations make packets of other flows `related`. */
function hasHelper(ruleset: Ruleset): boolean {
  return ruleset.tables.some(({ chains }) =>
    chains.some(({ rules }) =>
      rules.some(({ steps }) =>
        steps.some(
          (step) =>
            step.kind === 'effect' &&
            (step.name.startsWith('ct helper') || step.name.startsWith('ct expectation')),
        ),
      ),
    ),
  );
}

function outsideOf(field: Field, ranges: readonly PortRange[]): Test {
  const set: ElementSet = {
    name: null,
    elements: {
      parts: [16],
      lo: ranges.map(({ from }) => BigInt(from)),
      hi: ranges.map(({ to }) => BigInt(to)),
      verdicts: null,
    },
    unknown: null,
  };
  return { kind: 'lookup', key: [plain(field)], set, negated: true };
}

/** From somebody else to one of our own addresses, by IP version. */
function toUsFromOthers(
  facts: Facts,
): readonly (readonly [version: 4 | 6, tests: readonly Test[]])[] {
  return ([4, 6] as const).flatMap((version) => {
    const own = (facts.localAddresses ?? [])
      .filter((address) => address.version === version)
      .map(({ value }) => value);
    if (own.length === 0) return [];
    const protocol = version === 4 ? 'ip' : 'ip6';
    const etherType = version === 4 ? 0x0800n : 0x86ddn;
    const tests = [
      equals(META.protocol, etherType),
      oneOf(fieldOf(protocol, 'daddr'), own),
      not(oneOf(fieldOf(protocol, 'saddr'), own)),
    ];
    return [[version, tests] as const];
  });
}

/** SYNs; given up: simultaneous open, and SYNs sent again on a flow that is already known. */
function newConnections(): FlowKind {
  const tests = [equals(META.l4proto, TCP), equals(FLAGS, SYN, FIN_SYN_RST_ACK)];
  return {
    label: 'TCP SYN: new by concession',
    conditions: [tests],
    tracking: { ...NO_FLOW, tupleOnly: false },
  };
}

/**
 * Packets to ports that no reply comes to. A flow with this tuple can only have begun with a packet
 * like this one; where the rules drop every such packet by its tuple alone, none ever began.
 */
function unsolicited(facts: Facts, ports: readonly PortRange[] | null): FlowKind | null {
  const base = toUsFromOthers(facts);
  const echo = base.map(([version, tests]) => {
    const [protocol, type] = version === 4 ? [1n, 8n] : [58n, 128n]; // echo request
    const name = version === 4 ? 'icmp' : 'icmpv6';
    return [
      ...tests,
      equals(META.l4proto, protocol ?? 0n),
      equals(fieldOf(name, 'type'), type ?? 0n),
    ];
  });
  const transport = base.flatMap(([, tests]) =>
    ports === null
      ? []
      : [
          [...tests, equals(META.l4proto, TCP), outsideOf(fieldOf('tcp', 'dport'), ports)],
          [...tests, equals(META.l4proto, UDP), outsideOf(fieldOf('udp', 'dport'), ports)],
        ],
  );
  const conditions = [...transport, ...echo];
  if (conditions.length === 0) return null;
  return {
    label: 'no reply: nothing here can have asked for it',
    conditions,
    tracking: { ...NO_FLOW, tupleOnly: true },
  };
}

/**
 * The kinds of packets whose `ct state` is known not to be established or related. None where
 * addresses are translated (tuples change) or helpers make flows related.
 */
export function flowKinds(
  ruleset: Ruleset,
  states: FamilyStates,
  facts: Facts,
  concessions: FlowConcessions,
): readonly FlowKind[] {
  const tracks = states.ip.tracks || states.ip6.tracks;
  if (!tracks || states.ip.nat || states.ip6.nat || hasHelper(ruleset)) return [];
  const kinds: FlowKind[] = [];
  if (facts.conntrackFresh) {
    const kind = unsolicited(facts, concessions.replyPorts);
    if (kind !== null) kinds.push(kind);
  }
  if (concessions.synIsNew) kinds.push(newConnections());
  return kinds;
}
