import type { Random } from './random.ts';
import type { FieldGroup, RulePlace } from './ruleset-fields.ts';

const TRACKED = [
  ...['ct state established,related', 'ct state new', 'ct state invalid', 'ct state untracked'],
  ...[
    'ct mark 5',
    'ct direction original',
    'ct status assured',
    'ct state vmap { new : continue }',
  ],
];

const STATEFUL = [
  ...['limit rate 10/second', 'limit rate over 5/minute burst 3 packets', 'quota over 1000 bytes'],
  ...['limit rate 1 kbytes/second', 'quota 5000 bytes', 'numgen inc mod 3 0'],
  ...['numgen random mod 4 < 2', 'meta mark 0x1', 'meta mark != 0', 'meta mark 1-9', 'meta cpu 0'],
  ...['meta skuid 0', 'meta priority 1:2', 'meta hour "08:00"-"20:00"', 'meta day 0-5'],
  ...['tcp option maxseg exists', 'tcp option sack-perm missing', 'tcp option maxseg size 1-500'],
];

const EFFECTS = [
  ...['log prefix "x "', 'log level debug', 'log group 5', 'meta mark set 0x1'],
  ...['meta mark set meta mark | 0x2', 'meta priority set 1:2', 'meta nftrace set 1'],
];

function fits(place: RulePlace, hooks: string, families = 'netdev inet ip ip6'): boolean {
  return hooks.split(' ').includes(place.hook) && families.split(' ').includes(place.family);
}

/** A match that depends on more than the packet's headers; `version` as in the rule's group. */
export function pickUnknownMatch(
  random: Random,
  place: RulePlace,
  version: FieldGroup['version'],
): string {
  const choices = [...STATEFUL];
  if (!['netdev', 'bridge'].includes(place.family)) choices.push(...TRACKED, 'rt classid 0');
  if (fits(place, 'prerouting input forward', 'inet ip')) {
    choices.push('fib daddr type local', 'fib saddr . iif oif missing');
    if (version === 4) choices.push('ip option rr exists', 'ip option ra missing');
  }
  if (fits(place, 'prerouting input', 'inet ip ip6')) choices.push('socket transparent 1');
  if (version === 6) choices.push('exthdr frag exists', 'exthdr hbh missing');
  if (place.hook === 'forward') choices.push('oifname "eth1"', 'oifname != "eth1"');
  return random.pick(choices);
}

/** A statement with an effect besides the verdict; after one that `ends`, nothing may follow. */
export function pickUnknownEffect(
  random: Random,
  place: RulePlace,
): { readonly text: string; readonly ends: boolean } {
  const ends = (text: string) => ({ text, ends: true });
  const goesOn = (text: string) => ({ text, ends: false });
  const choices = EFFECTS.map(goesOn);
  if (fits(place, 'input forward'))
    choices.push(ends('reject'), ends('meta l4proto 6 reject with tcp reset'));
  if (fits(place, 'prerouting')) choices.push(goesOn('notrack'), goesOn('ct mark set 7'));
  if (fits(place, 'prerouting input', 'ip'))
    choices.push(goesOn('ip ttl set 5'), goesOn('ip dscp set 8'));
  if (fits(place, 'prerouting input', 'ip6')) choices.push(goesOn('ip6 hoplimit set 5'));
  if (fits(place, 'ingress', 'netdev'))
    choices.push(ends('fwd to "eth1"'), goesOn('dup to "eth1"'));
  return random.pick(choices);
}
