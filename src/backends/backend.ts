import type { Classifier } from '../ir/classifier.ts';

/** Something a backend wrote for the user: `suffix` is empty for the main file, `.maps` beside it... */
export interface OutputFile {
  readonly suffix: string;
  readonly content: Uint8Array;
}

/** What an artifact takes of one resource; `limit` is null where the profile sets none. */
export interface Usage {
  readonly resource: string;
  readonly used: number;
  readonly limit: number | null;
}

/** A compiled tier: what to write, what it costs, and how people read it. */
export interface Artifact {
  readonly files: readonly OutputFile[];
  readonly usage: readonly Usage[];
  /** What each rule takes, by `formatRuleId` and resource; rules that cost nothing are not there. */
  readonly costs?: ReadonlyMap<string, Readonly<Record<string, number>>>;
  /** One line an instruction or row, each with the rule it comes from; made when asked for. */
  readonly listing: () => string;
  /** The classifier it implements: every frame gets this verdict or is handed on. */
  readonly classifier: Classifier;
}

/**
 * Where a loaded program keeps its counters. Counter `i` of the classifier is two 64-bit native
 * words, packets then bytes, at byte `(i % slotsPerEntry) * 16` of entry `floor(i / slotsPerEntry)`.
 */
export interface CounterLayout {
  /** The map's name, at most 15 characters. */
  readonly map: string;
  /** One copy a CPU: add them up. */
  readonly perCpu: boolean;
  readonly slotsPerEntry: number;
  readonly slots: number;
}
