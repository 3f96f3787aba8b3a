import { isIPv4, isIPv6 } from 'node:net';
import type { Facts, LocalAddress } from '../ir/facts.ts';
import { parseIpv4, parseIpv6 } from '../nft/constants.ts';
import type { Result } from '../support/diagnostics.ts';
import { errorAt, fail, succeed } from '../support/diagnostics.ts';

/** One `--fact NAME=VALUE`, split. */
interface GivenFact {
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
    return refuse(
      'fact-mac',
      `mac: \`${text}\` is not an Ethernet address`,
      'as aa:bb:cc:dd:ee:ff',
    );
  }
  return succeed(BigInt(`0x${text.replaceAll(':', '')}`));
}

/** Adds one fact to what is known. */
function addFact(facts: Facts, { name, value }: GivenFact): Result<Facts> {
  const only = (expected: string, known: Facts): Result<Facts> => {
    if (value === expected) return succeed(known);
    const help = `only \`${name}=${expected}\` says something; leave the fact out otherwise`;
    return refuse('fact-value', `${name}: \`${value}\` is not a value it takes`, help);
  };
  switch (name) {
    case 'role': {
      if (value !== 'host' && value !== 'router') {
        const help = 'host: forwarding is off; router: forwarding is on';
        return refuse('fact-value', `role: \`${value}\` is neither host nor router`, help);
      }
      if (facts.role !== null && facts.role !== value) {
        return refuse('fact-twice', 'role is given twice, differently', 'give one of the two');
      }
      return succeed({ ...facts, role: value });
    }
    case 'local-address': {
      const address = parseAddress(value);
      if (!address.ok) return address;
      const localAddresses = [...(facts.localAddresses ?? []), address.value];
      return succeed({ ...facts, localAddresses });
    }
    case 'mac': {
      const mac = parseMac(value);
      if (!mac.ok) return mac;
      if (facts.mac !== null && facts.mac !== mac.value) {
        return refuse('fact-twice', 'mac is given twice, differently', 'give one of the two');
      }
      return succeed({ ...facts, mac: mac.value });
    }
    case 'gro':
      return only('off', { ...facts, groOff: true });
    case 'rp-filter':
      return only('off', { ...facts, rpFilterOff: true });
    case 'rx-vlan':
      return only('off', { ...facts, rxVlanOff: true });
    case 'routed':
      return only('yes', { ...facts, routed: true });
    case 'conntrack':
      return only('fresh', { ...facts, conntrackFresh: true });
    case 'sole-device':
      return only('yes', { ...facts, soleDevice: true });
    default:
      return refuse('fact-unknown', `there is no fact \`${name}\``, FACT_FORMS.join(', '));
  }
}

/** The facts given by `--dev` and every `--fact`; what is not given is not known. */
export function parseFacts(device: string, given: readonly string[]): Result<Facts> {
  let facts: Facts = {
    device,
    role: null,
    localAddresses: null,
    mac: null,
    groOff: false,
    rpFilterOff: false,
    routed: false,
    rxVlanOff: false,
    conntrackFresh: false,
    soleDevice: false,
  };
  for (const text of given) {
    const fact = splitFact(text);
    if (!fact.ok) return fact;
    const added = addFact(facts, fact.value);
    if (!added.ok) return added;
    facts = added.value;
  }
  if (facts.role === 'router' && facts.localAddresses === null) {
    const help = 'add --fact local-address=ADDRESS for every address of this machine';
    return refuse('fact-missing', "role=router needs the machine's addresses", help);
  }
  return succeed(facts);
}
