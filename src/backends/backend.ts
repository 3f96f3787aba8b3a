import type { Classifier, Entry } from '../ir/classifier.ts';
import type { Capabilities, Specialised } from '../ir/specialise.ts';
import type { Profile } from '../profile/schema.ts';
import type { Diagnostic, Result } from '../support/diagnostics.ts';

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
  readonly costs: ReadonlyMap<string, Readonly<Record<string, number>>>;
  /** One line an instruction or row, each with the rule it comes from; made when asked for. */
  readonly listing: () => string;
  /** The classifier it implements: every frame gets this verdict or is handed on. */
  readonly classifier: Classifier;
}

/** Bytes of one counter: packets and bytes, 64 bits each. */
export const COUNTER_BYTES = 16;

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

/** How frames come to a tier. */
export interface ReceivePath {
  /** See `FlattenOptions`. */
  readonly loopedCopies: boolean;
  /** What is attached switches the merging of segments behind it off. */
  readonly switchesGroOff: boolean;
}

/** Where programs are attached. */
export type AttachHook = 'xdp' | 'tc';

/** How a tier asks many rules: as code, by trees as data, or by whichever is cheaper. */
export const STRUCTURES = ['auto', 'code', 'tree'] as const;
export type Structure = (typeof STRUCTURES)[number];

/** What the operator chose that a backend has to know. */
export interface TierOptions {
  /** The concession `counters`; see `Capabilities`. */
  readonly mayMiscount: boolean;
  /** `xdp` when left out; backends that attach nothing need not look. */
  readonly hook?: AttachHook;
  /** `auto` when left out; backends that have one structure only need not look. */
  readonly structure?: Structure;
  /** What `specialise` makes of the classifier for this tier, where that is known already. */
  readonly specialised?: Specialised;
  /** What runs already, as its artifact says (`live`): the backend may change it instead of replacing it. */
  readonly base?: object;
}

/** What entries of a classifier will take, before anything is compiled. */
export interface Estimates {
  /** What the costs are counted in, and how much of it a profile has. */
  readonly room: readonly { readonly resource: string; readonly limit: number }[];
  /** One whole number for each of `room`. */
  readonly costOf: (entry: Entry) => readonly number[];
  /** The estimates are what is used in the end; else they are right up to a factor. */
  readonly isExact: boolean;
}

/** What a tier answers for a frame. */
export type Answer = 'drop' | 'permit' | 'continue';

/** What every backend gives; profiles of kind P become artifacts of kind A. */
export interface Backend<P extends Profile, A extends Artifact> {
  readonly serves: (profile: Profile) => profile is P;
  readonly receivePath: (profile: P) => ReceivePath;
  /** Whether all frames are decided as `capabilitiesOf` says; else some are handed on beside these. */
  readonly decidesAlike: boolean;
  readonly capabilitiesOf: (profile: P) => Capabilities;
  readonly estimatesOf: (profile: P) => Estimates;
  /** Refuses what is beyond the profile's limits; makes nothing that is. */
  readonly compile: (classifier: Classifier, profile: P, options: TierOptions) => Result<A>;
  /** Whether a refusal only means that less would do. */
  readonly isTooBig: (diagnostics: readonly Diagnostic[]) => boolean;
  /** Runs the artifact as the device would. */
  readonly interpret: (artifact: A) => (frame: Uint8Array) => Answer;
}

/** An artifact with its backend's way to run it. */
export interface Compiled<A extends Artifact> {
  readonly artifact: A;
  readonly interpret: () => (frame: Uint8Array) => Answer;
}

/** A backend for one profile. */
export interface Tier<A extends Artifact> {
  readonly profile: Profile;
  readonly receivePath: ReceivePath;
  readonly decidesAlike: boolean;
  readonly capabilities: Capabilities;
  readonly estimates: Estimates;
  readonly compile: (classifier: Classifier, options: TierOptions) => Result<Compiled<A>>;
  readonly isTooBig: Backend<Profile, A>['isTooBig'];
}

/** The backend for this profile; null when it serves others. */
export function bindBackend<P extends Profile, A extends Artifact>(
  backend: Backend<P, A>,
  profile: Profile,
): Tier<A> | null {
  if (!backend.serves(profile)) return null;
  return {
    profile,
    receivePath: backend.receivePath(profile),
    decidesAlike: backend.decidesAlike,
    capabilities: backend.capabilitiesOf(profile),
    estimates: backend.estimatesOf(profile),
    isTooBig: backend.isTooBig,
    compile: (classifier, options) => {
      const compiled = backend.compile(classifier, profile, options);
      if (!compiled.ok) return compiled;
      const artifact = compiled.value;
      return { ...compiled, value: { artifact, interpret: () => backend.interpret(artifact) } };
    },
  };
}
