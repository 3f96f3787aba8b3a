import type { Reason } from '../support/diagnostics.ts';
import type { Family, RuleId, Test } from './ruleset.ts';

/**
 * Where the walk goes. `drop`: a rule or a policy discards the packet. `accept`: it leaves the path
 * untouched by any drop. `lost`: the kernel itself discards it before the next hook and counts
 * nothing. `unknown`: nobody can say from here, so a tier hands the packet on.
 */
export type Target =
  | { readonly kind: 'drop' }
  | { readonly kind: 'accept' }
  | { readonly kind: 'lost' }
  | { readonly kind: 'unknown'; readonly reason: Reason }
  | {
      readonly kind: 'entry';
      /** Always greater than the index of the entry that holds the target. */
      readonly index: number;
      /**
       * The packet may be gone already when this way is taken (an undecidable drop was passed, or it
       * may not have reached the hook): a later drop is right, but what is counted on the way there
       * may not have been.
       */
      readonly uncertain: boolean;
    };

/** Which view of the frame a hook has: raw at ingress, trimmed and validated at the layer-3 hooks. */
export type ViewName = 'ingress' | 'l3';

/**
 * A counter on the path. Several can stand for one nft counter (a named one used at two hooks).
 * `bytes` per packet follow the view: at ingress all behind the Ethernet header and one tag, at
 * layer 3 the IP packet's own length.
 */
export interface Counter {
  readonly family: Family;
  readonly table: string;
  /** The rule whose statement it is; null for a named counter. */
  readonly rule: RuleId | null;
  readonly name: string | null;
  readonly view: ViewName;
}

/** A statement that neither tests, counts nor decides, kept because dropping early may skip it. */
export interface Effect {
  readonly name: string;
  readonly reason: Reason;
  /** See the `effect` step of a rule; only external effects bind a tier. */
  readonly external: boolean;
}

/**
 * One step of the walk: when all tests hold, count, run the effects and go to `then`; when one does
 * not, go to `otherwise`. Rules that count in the middle, vmaps and jumps become several entries.
 */
export interface Entry {
  /** Null for what stands between rules: policies and the kernel's own conditions between hooks. */
  readonly rule: RuleId | null;
  /** For people: the rule's text, `policy drop`, or the kernel's condition in words. */
  readonly label: string;
  readonly view: ViewName;
  readonly tests: readonly Test[];
  /** Indices into the classifier's counters, counted when all tests hold. */
  readonly counts: readonly number[];
  readonly effects: readonly Effect[];
  readonly then: Target;
  readonly otherwise: Target;
}

/** A base chain on the path, for people and reports. */
export interface Stage {
  readonly family: Family;
  readonly table: string;
  readonly chain: string;
  readonly hook: string;
  readonly priority: number;
  /** First entry and the one behind the last. */
  readonly from: number;
  readonly to: number;
}

/**
 * What happens to a frame received on one device: THE meaning, as a walk that starts at entry 0 and
 * only goes forward. An empty list accepts everything.
 */
export interface Classifier {
  readonly device: string;
  readonly entries: readonly Entry[];
  readonly stages: readonly Stage[];
  readonly counters: readonly Counter[];
}
