import type { Entry } from '../../ir/classifier.ts';
import { type Field, FRAME, fieldKey, findField } from '../../ir/fields.ts';
import { equals, not, oneOf } from '../../ir/operand.ts';
import type { Test } from '../../ir/ruleset.ts';

/** What kind of frame a table is for. */
export type Version = 'ip' | 'ip6' | 'other';

/** The field of that name; every name here is one of nft's. */
export function needField(protocol: string, name: string): Field {
  const field = findField(protocol, name);
  if (field === null) throw new Error(`bug: nft has no field ${protocol} ${name}`);
  return field;
}

const ETHER_TYPE = needField('ether', 'type');
const FRAG_OFF = needField('ip', 'frag-off');
const NEXTHDR = needField('ip6', 'nexthdr');
/** 802.1Q and 802.1ad, include/uapi/linux/if_ether.h. */
const TAG_TYPES = [0x8100n, 0x88a8n];
const TYPES = { ip: 0x0800n, ip6: 0x86ddn } as const;
/** MF and the offset, RFC 791 section 3.1. */
const FRAGMENT_MASK = 0x3fffn;
/** Extension headers that may hide a fragment header, include/net/ipv6.h. */
const EXTENSIONS = [0n, 43n, 44n, 51n, 60n];

function untagged(version: Version): Test {
  return version === 'other'
    ? not(oneOf(ETHER_TYPE, TAG_TYPES))
    : equals(ETHER_TYPE, TYPES[version]);
}

function wholeTest(version: Version, leadsAway: boolean): Test | null {
  if (version === 'ip') return equals(FRAG_OFF, 0n, FRAGMENT_MASK);
  // More than the fragments is handed on, which is right; the other way round would not be.
  return version === 'ip6' && leadsAway ? not(oneOf(NEXTHDR, EXTENSIONS)) : null;
}

function rewriteTest(test: Test, entry: Entry, version: Version): Test {
  if (test.kind !== 'compare' || test.lo !== 0n || test.hi !== 0n) return test;
  const key = fieldKey(test.operand.field);
  const isWhole = test.operand.mask === 0xffn && test.operand.xor === 0n;
  if (!isWhole) return test;
  if (key === FRAME.tags.name) return test.negated ? not(untagged(version)) : untagged(version);
  if (key !== FRAME.fragment.name) return test;
  const whole = wholeTest(version, test.negated && entry.then.kind === 'unknown');
  if (whole === null) return test;
  return test.negated ? not(whole) : whole;
}

/**
 * The kernel's own conditions on tags and fragments as tests on fields that a key can have, for
 * frames of one version.
 */
export function rewriteFrameTests(entry: Entry, version: Version): Entry {
  const tests = entry.tests.map((test) => rewriteTest(test, entry, version));
  return tests.every((test, index) => test === entry.tests[index]) ? entry : { ...entry, tests };
}
