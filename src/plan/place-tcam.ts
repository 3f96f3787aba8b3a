import { bindBackend } from '../backends/backend.ts';
import {
  compileTcam,
  readTables,
  type TcamArtifact,
  type TcamFormat,
} from '../backends/tcam/artifact.ts';
import { tcamBackendFor } from '../backends/tcam/backend.ts';
import type { Effort } from '../backends/tcam/minimise.ts';
import type { Classifier } from '../ir/classifier.ts';
import { specialise } from '../ir/specialise.ts';
import type { TcamProfile } from '../profile/schema.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
import { type Choice, fitTier } from './choose.ts';
import { flattenSituation, type Situation } from './place.ts';
import { NOTHING_SETTLED } from './settle.ts';
import { weighRules } from './weights.ts';

export interface TcamRequest {
  readonly format: TcamFormat;
  readonly profile: TcamProfile | null;
  readonly effort: Effort;
  /** The device forwards by itself, and nothing behind it runs the ruleset. */
  readonly final: boolean;
  /** Generic JSON of the tables that are loaded: only what changes is written. */
  readonly since: { readonly path: string; readonly text: string } | null;
}

/** A ruleset as tables. */
export interface PlacedTables {
  readonly artifact: TcamArtifact;
  /** What was chosen where not all fitted, else null. */
  readonly choice: Choice | null;
}

/** The ruleset as it looks in front of a table: the kernel's whole path, or only what chains say. */
export function classifierForTables(situation: Situation, final: boolean): Classifier {
  return flattenSituation(situation, { loopedCopies: false, forwards: final }).classifier;
}

/**
 * Compiles a ruleset to tables: everything that can be decided or, in front of nftables on a device that is
 * too small, what is worth most.
 */
export function placeTables(situation: Situation, request: TcamRequest): Result<PlacedTables> {
  const { format, profile, effort, final, since } = request;
  const options = { mayMiscount: situation.concessions.includes('counters') };
  const classifier = classifierForTables(situation, final);
  const old =
    since === null ? succeed(null) : readTables('json', since.text, since.path, 'continue');
  if (!old.ok) return old;
  if (profile === null || final) {
    const made = compileTcam(classifier, format, { profile, effort, final, ...options }, old.value);
    return made.ok ? { ...made, value: { artifact: made.value, choice: null } } : made;
  }
  const tier = bindBackend(tcamBackendFor({ format, effort, since: old.value }), profile);
  if (tier === null) throw new Error('bug: a TCAM profile that tables do not serve');
  const fitted = fitTier(tier, {
    classifier,
    specialised: specialise(classifier, { ...tier.capabilities, ...options }),
    weights: weighRules(situation.ruleset),
    settled: NOTHING_SETTLED,
    options,
  });
  if (!fitted.ok) return fitted;
  const { compiled, choice } = fitted.value;
  return { ...fitted, value: { artifact: compiled.artifact, choice } };
}
