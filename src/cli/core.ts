import type { Artifact } from '../backends/backend.ts';
import { CBPF_FORMATS, type CbpfFormat } from '../backends/cbpf/file-formats.ts';
import { isTcamFormat, TCAM_FORMATS } from '../backends/tcam/artifact.ts';
import { isTcamProfile } from '../backends/tcam/compile.ts';
import type { Effort } from '../backends/tcam/minimise.ts';
import type { Entry } from '../ir/classifier.ts';
import { type Outcome, prepare } from '../ir/evaluate.ts';
import { parsePacket } from '../ir/packet.ts';
import { printClassifier, printRuleset } from '../ir/print.ts';
import { printDecision } from '../ir/print-decision.ts';
import type { RuleId } from '../ir/ruleset.ts';
import { type PlacedTier, placeRuleset, placeTier, type Situation } from '../plan/place.ts';
import { type CbpfRequest, type PlacedCbpf, placeCbpf } from '../plan/place-cbpf.ts';
import { type PlacedTables, placeTables } from '../plan/place-tcam.ts';
import type { Profile } from '../profile/schema.ts';
import type { Reason, Result } from '../support/diagnostics.ts';
import { errorAt, fail, succeed } from '../support/diagnostics.ts';

/** The compilers `--target` names. */
export const TARGETS = ['ebpf', 'cbpf', 'tcam'] as const;
export type TargetName = (typeof TARGETS)[number];

/** `--format` of each target, the first one is the default. */
export const FORMATS: Readonly<Record<TargetName, readonly string[]>> = {
  ebpf: ['elf', 'elf-tc'],
  cbpf: CBPF_FORMATS,
  tcam: TCAM_FORMATS,
};

/** What `--emit` prints instead of compiling to the end. */
export const STAGES = ['ruleset', 'classifier', 'decision', 'listing'] as const;
export type StageName = (typeof STAGES)[number];

export interface CompileRequest extends Situation {
  readonly target: TargetName;
  readonly format: string;
  /** Null when the target needs none and none was given. */
  readonly profile: Profile | null;
  readonly cbpf: Omit<CbpfRequest, 'format'>;
  /** How hard the tcam backend looks for fewer rows. */
  readonly effort: Effort;
  /** The device forwards by itself: tables decide everything. */
  readonly final: boolean;
  /** Tables that are loaded already, as JSON. */
  readonly since: { readonly path: string; readonly text: string } | null;
}

export interface TraceRequest extends Situation {
  readonly profiles: readonly Profile[];
  readonly frames: readonly Uint8Array[];
}

/** What one evaluator (the reference or a tier's own interpreter) says about a frame. */
export interface TraceAnswer {
  /** `reference`, or the tier. */
  readonly by: string;
  readonly verdict: 'drop' | 'accept' | 'continue' | 'lost' | 'unknown';
  /** The deciding rule; null for policies and the kernel's own conditions. */
  readonly rule: RuleId | null;
  readonly text: string;
  readonly reason: Reason | null;
}

export interface TraceReport {
  readonly format: 'nft-offload/trace@1';
  readonly device: string;
  readonly frames: readonly {
    readonly bytes: number;
    readonly answers: readonly TraceAnswer[];
  }[];
}

function isCbpfFormat(format: string): format is CbpfFormat {
  return CBPF_FORMATS.some((known) => known === format);
}

function place(request: CompileRequest): Result<PlacedTier | PlacedCbpf> {
  const { target, profile, format, cbpf, ...situation } = request;
  if (target === 'cbpf' && profile !== null && isCbpfFormat(format)) {
    if (profile.kind === 'cbpf') return placeCbpf(situation, profile, { ...cbpf, format });
    const help = 'use --profile cbpf, or one of your own of that kind';
    const message = `profile ${profile.name} is of kind ${profile.kind}, not cbpf`;
    return fail(errorAt('compile/profile-kind', message, { help }));
  }
  if (target !== 'ebpf' || profile === null) {
    return fail(
      errorAt('compile/no-backend', `there is no ${target} backend yet`, {
        help: 'use --target ebpf or --target cbpf',
      }),
    );
  }
  if (format !== 'elf-tc') return placeTier(situation, profile);
  // In the host, tc sees frames without their VLAN tag; on a card they are as on the wire.
  if (profile.kind === 'xdp-offload') return placeTier({ ...situation, hook: 'tc' }, profile);
  return fail(
    errorAt('compile/tc-offload', `format elf-tc is for cards, and ${profile.name} is none`, {
      help: 'use a profile of kind xdp-offload, or --format elf',
    }),
  );
}

function compileTables(request: CompileRequest): Result<PlacedTables> {
  const { format, profile, effort, final, since } = request;
  if (!isTcamFormat(format)) throw new Error('bug: a format that was not checked');
  if (profile !== null && !isTcamProfile(profile)) {
    const message = `profile ${profile.name} is no TCAM, its kind is ${profile.kind}`;
    return fail(
      errorAt('compile/profile-kind', message, { help: '`profiles list` says which are' }),
    );
  }
  return placeTables(request, { format, profile, effort, final, since });
}

/** Compiles for one target. */
export function compileRuleset(request: CompileRequest): Result<Artifact> {
  const placed = request.target === 'tcam' ? compileTables(request) : place(request);
  if (!placed.ok) return placed;
  const { artifact, choice } = placed.value;
  if (choice === null) return succeed(artifact, placed.diagnostics);
  return succeed(artifact, [
    ...placed.diagnostics,
    {
      code: 'compile/partly',
      severity: 'warning',
      message: `${request.profile?.name} has no room for all of it; what does not fit is left to the kernel`,
      help: '`plan` says which rules those are',
      place: null,
    },
  ]);
}

/** The text of one stage on the way, for `--emit`. */
export function emitStage(request: CompileRequest, stage: StageName): Result<string> {
  if (stage === 'ruleset') return succeed(printRuleset(request.ruleset));
  if (request.target === 'tcam') {
    const compiled = compileTables(request);
    if (!compiled.ok) return compiled;
    if (stage === 'decision') {
      return fail(errorAt('compile/no-stage', 'tables are made without a decision'));
    }
    const { classifier, listing } = compiled.value.artifact;
    return succeed(stage === 'classifier' ? printClassifier(classifier) : listing());
  }
  const placed = place(request);
  if (!placed.ok) return placed;
  const { artifact, flattened } = placed.value;
  if (!('decision' in artifact)) throw new Error('bug: a program without a decision');
  switch (stage) {
    case 'classifier':
      return succeed(printClassifier(flattened.classifier));
    case 'decision':
      return succeed(printDecision(artifact.decision));
    case 'listing':
      return succeed(artifact.listing());
  }
}

function answer(
  by: string,
  verdict: TraceAnswer['verdict'],
  outcome: Outcome,
  entries: readonly Entry[],
): TraceAnswer {
  const entry = outcome.decidedBy === null ? undefined : entries[outcome.decidedBy];
  return {
    by,
    verdict,
    rule: entry?.rule ?? null,
    text: entry?.label ?? '',
    reason: outcome.reason,
  };
}

/** The tier's answer: its program's own, with the rule that its classifier gives for it. */
function traceTier({ artifact, compiled, profile }: PlacedTier, mac: bigint | null) {
  const { classifier } = artifact;
  const run = compiled.interpret();
  const evaluate = prepare(classifier, { mode: 'tier', mac });
  return (frame: Uint8Array): TraceAnswer => {
    const verdict = run(frame) === 'drop' ? 'drop' : 'continue';
    return answer(profile.name, verdict, evaluate(parsePacket(frame)), classifier.entries);
  };
}

/** Says for each frame which rule decides. */
export function traceFrames({ frames, profiles, ...situation }: TraceRequest): Result<TraceReport> {
  const placed = placeRuleset(situation, profiles);
  if (!placed.ok) return placed;
  const [first] = placed.value;
  if (first === undefined) return fail(errorAt('trace/no-profile', 'give at least one --profile'));
  const { facts } = situation;
  const { classifier } = first.flattened;
  const reference = prepare(classifier, { mode: 'kernel', mac: facts.mac });
  const tiers = placed.value.map((tier) => traceTier(tier, facts.mac));
  const traced = frames.map((frame) => {
    const outcome = reference(parsePacket(frame));
    const truth = answer('reference', outcome.verdict, outcome, classifier.entries);
    return { bytes: frame.length, answers: [truth, ...tiers.map((trace) => trace(frame))] };
  });
  return succeed(
    { format: 'nft-offload/trace@1', device: facts.device, frames: traced },
    placed.diagnostics,
  );
}
