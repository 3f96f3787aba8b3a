import { bits } from '../support/bits.ts';
import { specialAddresses } from './conditions.ts';
import type { Facts } from './facts.ts';
import { type Field, FRAME, findField, META } from './fields.ts';
import { equals, not, oneOf, overlaps, plain } from './operand.ts';
import type { FamilyStates } from './path.ts';
import type { ElementSet, Ruleset, Step, Test } from './ruleset.ts';
import type { Supposition } from './suppose.ts';

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

/** Packets of which it can be told that they belong to no flow that connection tracking knows. */
export interface FlowClass {
  readonly label: string;
  /**
   * What would have to have begun their flow: where the ruleset drops all of that, there is none.
   * Without any, it is so by concession.
   */
  readonly chain: readonly Supposition[];
  /** How to tell them: all tests hold. The first `without` of the chain need no look. */
  readonly ways: readonly { readonly tests: readonly Test[]; readonly without: number }[];
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

/**
 * Statements after which a flow may begin otherwise than by a packet that passes the rules: helpers
 * expect flows, proxies and copies send with other hosts' addresses, programs rewrite packets.
 */
const BEGINS_FLOWS = /^(ct helper|ct expectation|objref|tproxy|synproxy|fwd|dup|queue)\b/;
/** Statements that change a packet outside of its tuple, though not in a field that is known. */
const KEEPS_TUPLE = /^(tcp option set|reset|exthdr)$/;

const TUPLE_FIELDS: readonly Field[] = [
  fieldOf('ip', 'saddr'),
  fieldOf('ip', 'daddr'),
  fieldOf('ip', 'protocol'),
  fieldOf('ip6', 'saddr'),
  fieldOf('ip6', 'daddr'),
  fieldOf('ip6', 'nexthdr'),
  // Ports; type, code and id of ICMP messages.
  { name: 'th', base: 'th', offset: bits(0), width: bits(48) },
];

function rewritesTuple({ name, changes }: Extract<Step, { kind: 'effect' }>): boolean {
  if (changes === 'everything') return !KEEPS_TUPLE.test(name);
  return changes.some(
    (written) =>
      !written.name.endsWith(' checksum') && TUPLE_FIELDS.some((field) => overlaps(written, field)),
  );
}

/** Every flow begins with a packet that has its tuple and passes the rules that such packets meet. */
export function canTrace(ruleset: Ruleset): boolean {
  return ruleset.tables.every(({ family, chains }) =>
    chains.every(({ rules }) =>
      rules.every(({ tracks, steps }) => {
        // A bridge's connection tracking shares its table with layer 3, and not its hooks.
        if (family === 'bridge' && tracks) return false;
        return steps.every(
          (step) =>
            step.kind !== 'effect' || !(BEGINS_FLOWS.test(step.name) || rewritesTuple(step)),
        );
      }),
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

/** SYNs; given up: simultaneous open, and SYNs sent again on a flow that is already known. */
const NEW_CONNECTIONS: FlowClass = {
  label: 'TCP SYN: new by concession',
  chain: [],
  ways: [{ tests: [equals(META.l4proto, TCP), equals(FLAGS, SYN, FIN_SYN_RST_ACK)], without: 0 }],
};

/** What differs between the IP versions. */
interface Version {
  readonly version: 4 | 6;
  readonly etherType: bigint;
  readonly saddr: Field;
  readonly daddr: Field;
  readonly echo: { readonly protocol: bigint; readonly type: Field };
  readonly request: bigint;
  readonly reply: bigint;
}

const VERSIONS: readonly Version[] = [
  {
    version: 4,
    etherType: 0x0800n,
    saddr: fieldOf('ip', 'saddr'),
    daddr: fieldOf('ip', 'daddr'),
    echo: { protocol: 1n, type: fieldOf('icmp', 'type') },
    request: 8n,
    reply: 0n,
  },
  {
    version: 6,
    etherType: 0x86ddn,
    saddr: fieldOf('ip6', 'saddr'),
    daddr: fieldOf('ip6', 'daddr'),
    echo: { protocol: 58n, type: fieldOf('icmpv6', 'type') },
    request: 128n,
    reply: 129n,
  },
];

/** Protocols whose tuples have more than addresses; IPv6 hides another behind AH (51). */
const OTHERS = not(oneOf(META.l4proto, [1n, TCP, UDP, 51n, 58n]));
const WHOLE = equals(FRAME.fragment, 0n);

/**
 * Packets by what their flow can have begun with: an echo request only with one like itself (a reply
 * begins nothing), all others with one like themselves or with one the other way.
 */
function waysOf(base: readonly Test[], { echo, request, reply }: Version, last: number) {
  const icmp = (type: bigint): readonly Test[] => [
    ...base,
    equals(META.l4proto, echo.protocol),
    equals(echo.type, type),
  ];
  return [
    { tests: icmp(request), without: last },
    { tests: [...base, oneOf(META.l4proto, [TCP, UDP])], without: 0 },
    { tests: icmp(reply), without: 0 },
    { tests: [...base, OTHERS], without: 0 },
  ];
}

/**
 * From others to this machine. Their flow began with one like them or with one that was sent from
 * here; or forwarded with our own source, which only IPv4 refuses (fib_validate_source).
 */
function toThisMachine(
  of: Version,
  own: readonly bigint[],
  { role }: Facts,
  ports: readonly PortRange[] | null,
): FlowClass {
  const { version, etherType, saddr, daddr } = of;
  const base = [equals(META.protocol, etherType), oneOf(daddr, own), not(oneOf(saddr, own)), WHOLE];
  const spoofed = version === 6 && role !== 'host';
  const chain: readonly Supposition[] = [
    { version, reversed: true, way: 'output' },
    ...(spoofed ? [{ version, reversed: true, way: 'forward' } as const] : []),
    { version, reversed: false, way: 'input' },
  ];
  const closed = (ports === null ? [] : ['tcp', 'udp']).map((name) => ({
    tests: [
      ...base,
      equals(META.l4proto, name === 'tcp' ? TCP : UDP),
      outsideOf(fieldOf(name, 'dport'), ports ?? []),
    ],
    without: 1,
  }));
  const label = `IPv${version} from others to this machine`;
  return { label, chain, ways: [...closed, ...waysOf(base, of, chain.length - 1)] };
}

/** From others to others, without the destinations and sources that may be this machine's as well. */
function pastThisMachine(of: Version, own: readonly bigint[], facts: Facts): FlowClass {
  const { version, etherType, saddr, daddr } = of;
  const others = [saddr, daddr].flatMap((field) => elsewhere(field, version, own, facts));
  const base = [equals(META.protocol, etherType), ...others, WHOLE];
  const chain: readonly Supposition[] = [
    { version, reversed: true, way: 'forward' },
    { version, reversed: false, way: 'forward' },
  ];
  return { label: `IPv${version} past this machine`, chain, ways: waysOf(base, of, 1) };
}

/** Tests that an address is certainly not this machine's. */
function elsewhere(
  field: Field,
  version: 4 | 6,
  own: readonly bigint[],
  facts: Facts,
): readonly Test[] {
  const notOwn = own.length > 0 ? [not(oneOf(field, own))] : [];
  return [...notOwn, ...specialAddresses(facts, version, field).map(not)];
}

function classesByProof(
  states: FamilyStates,
  facts: Facts,
  ports: readonly PortRange[] | null,
): readonly FlowClass[] {
  const { localAddresses, role, brNetfilter } = facts;
  // Bridged packets begin flows too, past the routing that the arguments rest on.
  if (localAddresses === null || brNetfilter === true) return [];
  return VERSIONS.flatMap((of) => {
    // Without connection tracking there are no rules on it either.
    if (!states[of.version === 4 ? 'ip' : 'ip6'].tracks) return [];
    const own = localAddresses
      .filter(({ version }) => version === of.version)
      .map(({ value }) => value);
    return [
      ...(own.length > 0 ? [toThisMachine(of, own, facts, ports)] : []),
      ...(role === 'router' ? [pastThisMachine(of, own, facts)] : []),
    ];
  });
}

/**
 * The packets whose `ct state` may be known not to be established or related. None where a flow may
 * begin otherwise than by a packet that the rules let through.
 */
export function flowClasses(
  ruleset: Ruleset,
  states: FamilyStates,
  facts: Facts,
  concessions: FlowConcessions,
): readonly FlowClass[] {
  const tracks = states.ip.tracks || states.ip6.tracks;
  if (!tracks || states.ip.nat || states.ip6.nat || !canTrace(ruleset)) return [];
  return [
    // First: what is given up needs no proof, and the others would hand on what they cannot prove.
    ...(concessions.synIsNew ? [NEW_CONNECTIONS] : []),
    ...(facts.conntrackFresh ? classesByProof(states, facts, concessions.replyPorts) : []),
  ];
}

/** Whether it matters for a ruleset from which ports this machine opens flows. */
export function repliesMatter(ruleset: Ruleset, states: FamilyStates, facts: Facts): boolean {
  const fresh = { ...facts, conntrackFresh: true };
  return flowClasses(ruleset, states, fresh, { synIsNew: false, replyPorts: [] }).some(({ ways }) =>
    ways.some(({ without }) => without > 0),
  );
}
