import { CONCESSIONS, type Concession } from '../ir/concede.ts';
import type { Facts } from '../ir/facts.ts';
import type { Situation } from './place.ts';

/** Something that could be told or given up, as an experiment. */
export interface Change {
  readonly kind: 'fact' | 'concession';
  /** As on the command line; capitals stand for what only the operator knows. */
  readonly option: string;
  /** Without a role nothing behind prerouting can be decided. */
  readonly isRole: boolean;
  readonly apply: (situation: Situation) => Situation;
}

/** Addresses nobody has (RFC 5737, RFC 3849) and a locally administered MAC, to try facts with. */
const SOME_ADDRESSES: NonNullable<Facts['localAddresses']> = [
  { version: 4, value: 0xc0000201n },
  { version: 6, value: (0x20010db8n << 96n) | 1n },
];
const SOME_MAC = 0x020000000001n;

/** What Linux has by default in net.ipv4.ip_local_port_range. */
const SOME_PORTS = [{ from: 32_768, to: 60_999 }];

function fact(option: string, told: Partial<Facts>): Change {
  return {
    kind: 'fact',
    option: `--fact ${option}`,
    isRole: told.role !== undefined,
    apply: (situation) => ({ ...situation, facts: { ...situation.facts, ...told } }),
  };
}

const ADDRESSES = 'local-address=ADDRESS...';

/** Facts that say what a bridge does with the frames of its port. */
function aboutBridge({ masterMac, bridgePlain, brNetfilter }: Facts): readonly Change[] {
  return [
    ...(masterMac === null ? [fact('master-mac=ADDRESS', { masterMac: SOME_MAC })] : []),
    ...(bridgePlain ? [] : [fact('bridge=plain', { bridgePlain: true })]),
    ...(brNetfilter === null ? [fact('br-nf=off', { brNetfilter: false })] : []),
  ];
}

/** Every fact that is not known yet but the role. */
function missingFacts(facts: Facts): readonly Change[] {
  return [
    ...(facts.localAddresses === null ? [fact(ADDRESSES, { localAddresses: SOME_ADDRESSES })] : []),
    ...(facts.mac === null ? [fact('mac=ADDRESS', { mac: SOME_MAC })] : []),
    ...(facts.groOff ? [] : [fact('gro=off', { groOff: true })]),
    ...(facts.rpFilterOff ? [] : [fact('rp-filter=off', { rpFilterOff: true })]),
    ...(facts.rxVlanOff ? [] : [fact('rx-vlan=off', { rxVlanOff: true })]),
    ...(facts.routed ? [] : [fact('routed=yes', { routed: true })]),
    ...(facts.conntrackFresh ? [] : [fact('conntrack=fresh', { conntrackFresh: true })]),
    ...(facts.soleDevice ? [] : [fact('sole-device=yes', { soleDevice: true })]),
    ...(facts.vlans === null ? [fact('vlan=none', { vlans: [] })] : []),
    ...(facts.group === null ? [fact('group=N', { group: 0 })] : []),
    ...(facts.master?.kind === 'bridge' ? aboutBridge(facts) : []),
  ];
}

function concession(name: Concession): Change {
  const value = name === 'reply-ports' ? '=32768-60999' : '';
  return {
    kind: 'concession',
    option: `--concede ${name}${value}`,
    isRole: false,
    apply: (situation) => ({
      ...situation,
      concessions: [...situation.concessions, name],
      replyPorts: name === 'reply-ports' ? SOME_PORTS : situation.replyPorts,
    }),
  };
}

/** A machine is a host or a router: each list has changes that can be true together. */
export function listChanges({ facts, concessions }: Situation): readonly (readonly Change[])[] {
  const names = Object.keys(CONCESSIONS) as Concession[]; // the keys of a const object
  const given = names.filter((name) => !concessions.includes(name)).map(concession);
  const changes = [...missingFacts(facts), ...given];
  if (facts.role !== null) return [changes];
  const localAddresses = facts.localAddresses ?? SOME_ADDRESSES;
  const addresses = facts.localAddresses === null ? ` --fact ${ADDRESSES}` : '';
  const router = fact(`role=router${addresses}`, { role: 'router', localAddresses });
  const others = changes.filter(({ option }) => !option.endsWith(ADDRESSES));
  return [
    [fact('role=host', { role: 'host' }), ...changes],
    [router, ...others],
  ];
}
