import type { Reason } from '../support/diagnostics.ts';
import type { Counter, Entry, Stage, Target } from './classifier.ts';
import type { Facts } from './facts.ts';
import type { Field } from './fields.ts';
import type { FlowStates, Link } from './resolve-test.ts';

/** A place later in the list, known once everything before it is written. */
export interface Label {
  index: number;
}

export type Draft =
  | Target
  | { readonly kind: 'label'; readonly label: Label; readonly uncertain: boolean };

export interface DraftEntry extends Omit<Entry, 'then' | 'otherwise'> {
  readonly then: Draft;
  readonly otherwise: Draft;
}

/** Why a rule takes no part in the walk, by `formatRuleId`. */
export type LeftOut = ReadonlyMap<string, Reason>;

export interface Builder {
  readonly entries: DraftEntry[];
  readonly stages: Stage[];
  readonly counters: Counter[];
  readonly counterIndex: Map<string, number>;
  readonly leftOut: Map<string, Reason>;
  readonly emitted: Set<string>;
  /** Rules that may match on one of the devices, by `formatRuleId`. */
  readonly possible: Set<string>;
  /** Why nothing behind some hook is written, or null. */
  stopped: Reason | null;
  readonly facts: Facts;
  /** Where the frames are at this point of the walk. */
  link: Link;
  /** What is assumed of the flows of the frames that come this way. */
  states: FlowStates;
  /** What earlier statements on the path may have rewritten. */
  changed: Field[] | 'everything';
}

export function to(label: Label, uncertain = false): Draft {
  return { kind: 'label', label, uncertain };
}

export function bind(builder: Builder, label: Label): void {
  label.index = builder.entries.length;
}

export function push(
  builder: Builder,
  entry: Partial<DraftEntry> & Pick<DraftEntry, 'label' | 'view'>,
) {
  const next: Label = { index: builder.entries.length + 1 };
  builder.entries.push({
    rule: null,
    tests: [],
    counts: [],
    effects: [],
    then: to(next),
    otherwise: to(next),
    ...entry,
  });
}
