import { isIPv4, isIPv6 } from 'node:net';
import { checkDeviceName } from '../deploy/device-name.ts';
import {
  type Facts,
  type LocalAddress,
  type Master,
  MOST_VLAN_ID,
  nothingKnown,
  type Vlan,
} from '../ir/facts.ts';
import { parseIpv4, parseIpv6 } from '../support/addresses.ts';
import type { Result } from '../support/diagnostics.ts';
import { errorAt, fail, succeed } from '../support/diagnostics.ts';

/** One fact as it is written. */
export interface GivenFact {
  readonly name: string;
  readonly value: string;
}

/** What can be given, for help and error messages. */
export const FACT_FORMS = [
  'role=host|router',
  'local-address=ADDRESS (repeatable)',
  'mac=aa:bb:cc:dd:ee:ff',
  'gro=off',
  'rp-filter=off',
  'rx-vlan=off',
  'routed=yes',
  'conntrack=fresh',
  'sole-device=yes',
  'vlan=ID:NAME (repeatable; 802.1ad:ID:NAME; ID alone: no plain device; none)',
  'master=NAME[:KIND]',
  'master-mac=aa:bb:cc:dd:ee:ff',
  'bridge=plain',
  'br-nf=on|off',
  'group=NUMBER',
] as const;

function refuse(code: string, message: string, help: string): Result<never> {
  return fail(errorAt(`usage/${code}`, message, { help }));
}

function splitFact(text: string): Result<GivenFact> {
  const [name, ...rest] = text.split('=');
  if (name === undefined || name === '' || rest.length === 0) {
    const help = `write NAME=VALUE: ${FACT_FORMS.join(', ')}`;
    return refuse('fact-form', `\`--fact ${text}\` is not NAME=VALUE`, help);
  }
  return succeed({ name, value: rest.join('=') });
}

function parseAddress(text: string): Result<LocalAddress> {
  const value = isIPv4(text) ? parseIpv4(text) : isIPv6(text) ? parseIpv6(text) : null;
  if (value === null) {
    const help = 'write one IPv4 or IPv6 address without prefix length or zone';
    return refuse('fact-address', `local-address: \`${text}\` is not an address`, help);
  }
  return succeed({ version: isIPv4(text) ? 4 : 6, value });
}

function parseMac(text: string): Result<bigint> {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    return refuse('fact-mac', `\`${text}\` is not an Ethernet address`, 'as aa:bb:cc:dd:ee:ff');
  }
  return succeed(BigInt(`0x${text.replaceAll(':', '')}`));
}

function parseVlan(text: string): Result<Vlan> {
  const parts = text.split(':');
  const isAd = parts[0] === '802.1ad';
  if (isAd || parts[0] === '802.1q') parts.shift();
  const [id = '', device = null, ...rest] = parts;
  const known = /^\d{1,4}$/.test(id) && Number(id) <= MOST_VLAN_ID && rest.length === 0;
  if (!known || (device !== null && checkDeviceName(device) !== null)) {
    const help =
      'write ID:NAME, 802.1ad:ID:NAME, ID alone for what is no plain VLAN device, or none';
    return refuse('fact-vlan', `vlan: \`${text}\` is no VLAN device`, help);
  }
  return succeed({ protocol: isAd ? 0x88a8 : 0x8100, id: Number(id), device });
}

function addVlan(facts: Facts, value: string): Result<Facts> {
  const vlans = facts.vlans ?? [];
  if (value === 'none' && vlans.length === 0) return succeed({ ...facts, vlans });
  const vlan = parseVlan(value);
  if (!vlan.ok) return vlan;
  const same = vlans.find(
    ({ protocol, id }) => protocol === vlan.value.protocol && id === vlan.value.id,
  );
  if (same !== undefined && same.device !== vlan.value.device) {
    const message = `vlan: ${vlan.value.id} is given twice, differently`;
    return refuse('fact-twice', message, 'a VLAN has one device');
  }
  return succeed({ ...facts, vlans: same === undefined ? [...vlans, vlan.value] : vlans });
}

function parseMaster(text: string): Result<Master> {
  const [name = '', kind = 'bridge', ...rest] = text.split(':');
  if (checkDeviceName(name) === null && /^\w+$/.test(kind) && rest.length === 0) {
    return succeed({ name, kind });
  }
  const help = 'write NAME for a bridge, NAME:KIND for any other (bond, team, vrf, macvlan...)';
  return refuse('fact-value', `master: \`${text}\` is no device`, help);
}

function parseGroup(text: string): Result<number> {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= 0xffffffff) return succeed(value);
  return refuse('fact-value', `group: \`${text}\` is no number`, 'ip link names 0 `default`');
}

function map<T>(result: Result<T>, change: (value: T) => Facts): Result<Facts> {
  return result.ok ? succeed(change(result.value)) : result;
}

type AddFact = (facts: Facts, value: string) => Result<Facts>;

/** A fact with one value to say, or a few. */
function choice(name: string, values: Readonly<Record<string, Partial<Facts>>>): AddFact {
  return (facts, value) => {
    const known = Object.hasOwn(values, value) ? values[value] : undefined;
    if (known !== undefined) return succeed({ ...facts, ...known });
    const forms = Object.keys(values).map((one) => `\`${name}=${one}\``);
    const help = `only ${forms.join(' and ')} say something; leave the fact out otherwise`;
    return refuse('fact-value', `${name}: \`${value}\` is not a value it takes`, help);
  };
}

/** What each fact adds to what is known. */
const FACTS: Readonly<Record<string, AddFact>> = {
  role: choice('role', { host: { role: 'host' }, router: { role: 'router' } }),
  'local-address': (facts, value) =>
    map(parseAddress(value), (address) => ({
      ...facts,
      localAddresses: [...(facts.localAddresses ?? []), address],
    })),
  mac: (facts, value) => map(parseMac(value), (mac) => ({ ...facts, mac })),
  gro: choice('gro', { off: { groOff: true } }),
  'rp-filter': choice('rp-filter', { off: { rpFilterOff: true } }),
  'rx-vlan': choice('rx-vlan', { off: { rxVlanOff: true } }),
  routed: choice('routed', { yes: { routed: true } }),
  conntrack: choice('conntrack', { fresh: { conntrackFresh: true } }),
  'sole-device': choice('sole-device', { yes: { soleDevice: true } }),
  vlan: addVlan,
  master: (facts, value) => map(parseMaster(value), (master) => ({ ...facts, master })),
  'master-mac': (facts, value) => map(parseMac(value), (masterMac) => ({ ...facts, masterMac })),
  bridge: choice('bridge', { plain: { bridgePlain: true } }),
  'br-nf': choice('br-nf', { on: { brNetfilter: true }, off: { brNetfilter: false } }),
  group: (facts, value) => map(parseGroup(value), (group) => ({ ...facts, group })),
};

const REPEATABLE: ReadonlySet<string> = new Set(['local-address', 'vlan']);

/** Whether there is a fact of this name. */
export function isFactName(name: string): boolean {
  return Object.hasOwn(FACTS, name);
}

/** Adds facts from one source to what is known; of two values from one source neither counts. */
export function addFacts(base: Facts, given: readonly GivenFact[]): Result<Facts> {
  let facts = base;
  const seen = new Map<string, string>();
  for (const { name, value } of given) {
    const add = Object.hasOwn(FACTS, name) ? FACTS[name] : undefined;
    if (add === undefined) {
      return refuse('fact-unknown', `there is no fact \`${name}\``, FACT_FORMS.join(', '));
    }
    const before = seen.get(name);
    if (!REPEATABLE.has(name) && before !== undefined && before !== value) {
      return refuse('fact-twice', `${name} is given twice, differently`, 'give one of the two');
    }
    seen.set(name, value);
    const added = add(facts, value);
    if (!added.ok) return added;
    facts = added.value;
  }
  return succeed(facts);
}

/** The facts of every `--fact` beside those of `base`; what is not given is not known. */
export function parseFacts(
  device: string,
  given: readonly string[],
  base: Facts = nothingKnown(device),
): Result<Facts> {
  const split: GivenFact[] = [];
  for (const text of given) {
    const fact = splitFact(text);
    if (!fact.ok) return fact;
    split.push(fact.value);
  }
  const facts = addFacts({ ...base, device }, split);
  if (facts.ok && facts.value.role === 'router' && facts.value.localAddresses === null) {
    const help = 'add --fact local-address=ADDRESS for every address of this machine';
    return refuse('fact-missing', "role=router needs the machine's addresses", help);
  }
  return facts;
}
