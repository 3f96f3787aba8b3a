import {
  compileTcam,
  readTables,
  type TcamArtifact,
  type TcamFormat,
} from '../backends/tcam/artifact.ts';
import type { Effort } from '../backends/tcam/minimise.ts';
import type { Classifier } from '../ir/classifier.ts';
import type { TcamProfile } from '../profile/schema.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
import { flattenSituation, type Situation } from './place.ts';

export interface TcamRequest {
  readonly format: TcamFormat;
  readonly profile: TcamProfile | null;
  readonly effort: Effort;
  /** The device forwards by itself, and nothing behind it runs the ruleset. */
  readonly final: boolean;
  /** Generic JSON of the tables that are loaded: only what changes is written. */
  readonly since: { readonly path: string; readonly text: string } | null;
}

/** The ruleset as it looks in front of a table: the kernel's whole path, or only what chains say. */
export function classifierForTables(situation: Situation, final: boolean): Classifier {
  return flattenSituation(situation, { loopedCopies: false, forwards: final }).classifier;
}

/** Compiles a ruleset to tables. */
export function placeTables(situation: Situation, request: TcamRequest): Result<TcamArtifact> {
  const { format, profile, effort, final, since } = request;
  const mayMiscount = situation.concessions.includes('counters');
  const classifier = classifierForTables(situation, final);
  const old =
    since === null ? succeed(null) : readTables('json', since.text, since.path, 'continue');
  if (!old.ok) return old;
  return compileTcam(classifier, format, { profile, effort, final, mayMiscount }, old.value);
}
