import type { Artifact } from '../backends/backend.ts';
import type { Facts } from '../ir/facts.ts';
import type { RuleId, Ruleset } from '../ir/ruleset.ts';
import type { PlanReport } from '../plan/report.ts';
import type { Profile } from '../profile/schema.ts';
import type { Reason, Result } from '../support/diagnostics.ts';

/** What every command that looks at a ruleset hands to the core. */
export interface Situation {
  readonly ruleset: Ruleset;
  readonly facts: Facts;
  /** Names granted by `--concede`, each once. */
  readonly concessions: readonly string[];
}

/** The compilers `--target` names. */
export const TARGETS = ['ebpf', 'cbpf', 'tcam'] as const;
export type TargetName = (typeof TARGETS)[number];

/** `--format` of each target, the first one is the default. */
export const FORMATS: Readonly<Record<TargetName, readonly string[]>> = {
  ebpf: ['elf'],
  cbpf: ['ddd', 'dd', 'asm', 'bytecode', 'json'],
  tcam: ['json'],
};

/** What `--emit` prints instead of compiling to the end. */
export const STAGES = ['ruleset', 'classifier', 'decision', 'listing'] as const;
export type StageName = (typeof STAGES)[number];

/** Behaviour an operator can give up by `--concede`. */
export const CONCESSIONS: Readonly<Record<string, string>> = {
  log: 'packets dropped early are not logged',
  'reject-as-drop': 'packets dropped early get no answer',
  'syn-is-new': 'a TCP SYN without ACK is never established or related',
  counters: 'packets dropped early are not counted',
};

export interface CompileRequest extends Situation {
  readonly target: TargetName;
  readonly format: string;
  /** Null when the target needs none and none was given. */
  readonly profile: Profile | null;
  /** What a cBPF program returns. */
  readonly returns: { readonly drop: number; readonly continue: number };
}

export interface PlanRequest extends Situation {
  readonly profiles: readonly Profile[];
}

export interface TraceRequest extends PlanRequest {
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

function notLinked(what: string): never {
  throw new Error(`bug: not linked yet: ${what}`);
}

/** Compiles for one target. */
export function compileRuleset(_request: CompileRequest): Result<Artifact> {
  return notLinked('compile');
}

/** The text of one stage on the way, for `--emit`. */
export function emitStage(_request: CompileRequest, _stage: StageName): Result<string> {
  return notLinked('compile --emit');
}

/** Places every rule. */
export function planRuleset(_request: PlanRequest): Result<PlanReport> {
  return notLinked('plan');
}

/** Says for each frame which rule decides. */
export function traceFrames(_request: TraceRequest): Result<TraceReport> {
  return notLinked('trace');
}
