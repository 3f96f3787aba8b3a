import type { Reason } from '../support/diagnostics.ts';
import { remember } from '../support/remember.ts';
import type { Field } from './fields.ts';

/** As in nft(8); `arp`, `bridge` and `netdev` tables exist beside the layer-3 ones. */
export type Family = 'ip' | 'ip6' | 'inet' | 'arp' | 'bridge' | 'netdev';

/** Which rule, in words that survive a reload (`index` counts from 0 inside its chain). */
export interface RuleId {
  readonly family: Family;
  readonly table: string;
  readonly chain: string;
  readonly handle: number | null;
  readonly index: number;
}

/** Where a test's value comes from: `((load & mask) ^ xor) << shift`, cut to the field's width. */
export interface Operand {
  readonly field: Field;
  /** All ones when the rule has no `&`. */
  readonly mask: bigint;
  readonly xor: bigint;
  /** Positive is left, negative right. */
  readonly shift: number;
}

/**
 * Set or map contents. Element `i` holds every key between `lo[i]` and `hi[i]`, part by part; the
 * parts of a concatenation stand side by side in one integer, first part most significant, without
 * padding. Elements never overlap (the kernel refuses that). `hi` is `lo` when all are exact.
 */
export interface SetElements {
  /** Bit width of each part of the key; one part unless the key is a concatenation. */
  readonly parts: readonly number[];
  readonly lo: readonly bigint[];
  readonly hi: readonly bigint[];
  /** One verdict an element, for verdict maps. */
  readonly verdicts: readonly Verdict[] | null;
}

/** `name` is null for an anonymous set; `unknown` says why its contents cannot be relied on. */
export interface ElementSet {
  readonly name: string | null;
  readonly elements: SetElements;
  readonly unknown: Reason | null;
}

/** One condition. Every test is total: a load beyond the packet makes it false, negated or not. */
export type Test =
  | {
      readonly kind: 'compare';
      readonly operand: Operand;
      /** Inclusive; `lo === hi` is an exact comparison. */
      readonly lo: bigint;
      readonly hi: bigint;
      readonly negated: boolean;
      /** Put there by nft's own dependency rules, not written by the user. */
      readonly implicit: boolean;
    }
  | {
      readonly kind: 'lookup';
      /** As many operands as the set's key has parts. */
      readonly key: readonly Operand[];
      readonly set: ElementSet;
      readonly negated: boolean;
    }
  | {
      readonly kind: 'unknown';
      readonly reason: Reason;
      /** Evaluating it changes state that later packets see (`limit`, `quota`, `add @set`...). */
      readonly stateful: boolean;
      /** Fields it would load (they must be present for it to match); informative. */
      readonly text: string;
    };

export type Verdict =
  | { readonly kind: 'accept' }
  | { readonly kind: 'drop' }
  | { readonly kind: 'continue' }
  | { readonly kind: 'return' }
  | { readonly kind: 'jump'; readonly chain: string }
  | { readonly kind: 'goto'; readonly chain: string };

/** A counter statement's counter: its own, or one the table names. */
export type CounterRef =
  | { readonly kind: 'anonymous'; readonly packets: number; readonly bytes: number }
  | { readonly kind: 'named'; readonly name: string };

/** One part of a rule, in the order the kernel runs them. */
export type Step =
  | { readonly kind: 'test'; readonly test: Test }
  | { readonly kind: 'count'; readonly counter: CounterRef }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  | {
      /** A verdict map; no element for the key ends the rule without a match. */
      readonly kind: 'vmap';
      readonly key: readonly Operand[];
      readonly map: ElementSet;
    }
  | {
      /** A statement that is neither test, counter nor verdict. */
      readonly kind: 'effect';
      /** nft's word: `log`, `reject`, `dnat`, `meta mark set`... */
      readonly name: string;
      readonly reason: Reason;
      /** What the kernel does with the packet after it. */
      readonly outcome: 'next' | 'accept' | 'drop' | 'unknown';
      /** Something besides this very packet changes or is told (log line, answer, copy, state). */
      readonly external: boolean;
      /** What later tests can no longer rely on, of this packet. */
      readonly changes: readonly Field[] | 'everything';
    };

export interface Rule {
  readonly id: RuleId;
  /** As nft lists it, without the trailing handle; for people. */
  readonly text: string;
  readonly comment: string | null;
  readonly steps: readonly Step[];
  /** Holds an expression that turns on connection tracking (and defragmentation) for its family. */
  readonly tracks: boolean;
  /** Holds a NAT statement. */
  readonly nat: boolean;
}

export type Hook =
  | 'ingress'
  | 'egress'
  | 'prerouting'
  | 'input'
  | 'forward'
  | 'output'
  | 'postrouting';

export interface BaseChain {
  readonly type: 'filter' | 'nat' | 'route';
  readonly hook: Hook;
  readonly priority: number;
  readonly policy: 'accept' | 'drop';
  /** Of ingress and egress chains; null where the listing leaves it out or the hook has none. */
  readonly devices: readonly string[] | null;
}

export interface Chain {
  readonly name: string;
  readonly handle: number | null;
  /** Null for a chain that is only jumped to. */
  readonly base: BaseChain | null;
  readonly rules: readonly Rule[];
}

export interface NamedCounter {
  readonly name: string;
  readonly packets: number;
  readonly bytes: number;
}

export interface Table {
  readonly family: Family;
  readonly name: string;
  readonly handle: number | null;
  /** `flags dormant`: its chains do not run. */
  readonly dormant: boolean;
  readonly chains: readonly Chain[];
  /** Named sets and maps, also those no rule uses. */
  readonly sets: readonly ElementSet[];
  readonly counters: readonly NamedCounter[];
}

/** Tables in listing order, which is the order in which their chains were registered. */
export interface Ruleset {
  readonly tables: readonly Table[];
}

/** `inet filter input 3`: family, table, chain and index (or handle where there is one). */
export const formatRuleId = remember((id: RuleId): string => {
  const position = id.handle === null ? `#${id.index + 1}` : `handle ${id.handle}`;
  return `${id.family} ${id.table} ${id.chain} ${position}`;
});
