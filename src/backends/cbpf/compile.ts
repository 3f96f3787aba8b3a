import type { Classifier } from '../../ir/classifier.ts';
import { buildDecision, type Decision, type DecisionOptions } from '../../ir/decision.ts';
import { testedFields } from '../../ir/operand.ts';
import { type Specialised, specialise } from '../../ir/specialise.ts';
import type { CbpfProfile } from '../../profile/schema.ts';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import type { Artifact, Usage } from '../backend.ts';
import { askOnce } from './ask-once.ts';
import { capabilitiesOf } from './capabilities.ts';
import { type CbpfFormat, writeProgram } from './file-formats.ts';
import type { Insn } from './insn.ts';
import { formatListing } from './listing.ts';
import type { Dialect, LinkType, Meaning } from './meaning.ts';
import { type Line, orderCode, type Returns } from './order.ts';
import { compileRules, linkPieces } from './per-rule.ts';
import { meaningOf, shorten } from './shorten.ts';
import { threadDecision } from './thread-decision.ts';
import { describeProblem, validate } from './validate.ts';

/** How to compile; see `Meaning` for the first three. */
export interface CbpfOptions {
  readonly dialect: Dialect;
  readonly linkType: LinkType;
  readonly frames: Meaning['frames'];
  readonly returns: Returns;
  readonly format: CbpfFormat;
  /** Put together from one piece of code for each rule, instead of one whole. */
  readonly perRule: boolean;
  /** The concession `counters`; see `Capabilities`. */
  readonly mayMiscount: boolean;
}

export const CBPF_DEFAULTS: CbpfOptions = {
  dialect: 'portable',
  linkType: 'EN10MB',
  frames: 'any',
  returns: { drop: 0, continue: 0xffff_ffff },
  format: 'ddd',
  perRule: false,
  mayMiscount: false,
};

/** A classic BPF program with all that explains and checks it. */
export interface CbpfArtifact extends Artifact {
  readonly insns: readonly Insn[];
  readonly returns: Returns;
  readonly decision: Decision;
  readonly specialised: Specialised;
}

/**
 * Ways to build the decision: one after the other, each rule asking for what it needs; and with
 * regions for each kind of packet, which are faster to walk and may need copies of rules.
 */
const DECISIONS: readonly DecisionOptions[] = [
  { leafRules: 16, copies: 1, regions: false },
  { leafRules: 16, copies: 2 },
];

/** Lists beyond this are compiled in the first way only: trying takes time. */
const FEW_ENTRIES = 200;

interface Candidate {
  readonly decision: Decision;
  readonly lines: readonly Line[];
}

function compileDecision(decision: Decision, meaning: Meaning, returns: Returns): Candidate {
  return { decision, lines: orderCode(shorten(decision, meaning), returns) };
}

/** All candidates, and the shortest of them. */
function compileShortest(classifier: Classifier, options: CbpfOptions): Candidate {
  const meaning = meaningOf(classifier, options);
  const isSmall = classifier.entries.length <= FEW_ENTRIES;
  const decisions = isSmall ? DECISIONS : DECISIONS.slice(0, 1);
  const readsTransport = classifier.entries.some(({ tests }) =>
    tests.some((test) => testedFields(test).some(({ base }) => base === 'th')),
  );
  let best: Candidate | null = null;
  for (const how of decisions) {
    const built = threadDecision(buildDecision(classifier, how));
    const once = isSmall ? askOnce(built) : null;
    for (const decision of once === null ? [built] : [built, threadDecision(once)]) {
      for (const indexIp6 of readsTransport ? [false, true] : [false]) {
        const candidate = compileDecision(decision, { ...meaning, indexIp6 }, options.returns);
        if (best === null || candidate.lines.length < best.lines.length) best = candidate;
      }
    }
  }
  if (best === null) throw new Error('bug: there is no way to build a decision');
  return best;
}

function compilePieces(classifier: Classifier, options: CbpfOptions): Candidate {
  const { pieces } = compileRules(classifier, options, new Map());
  return {
    decision: threadDecision(buildDecision(classifier)),
    lines: linkPieces(classifier, pieces, options.returns),
  };
}

/**
 * Compiles a classifier to one classic BPF program: specialise, decide, lower, thread, order. The
 * program drops a frame only where the classifier does, as far as its `frames` are met, and hands on
 * every other one.
 */
export function compileCbpf(
  classifier: Classifier,
  profile: CbpfProfile,
  options: CbpfOptions = CBPF_DEFAULTS,
): Result<CbpfArtifact> {
  const capabilities = capabilitiesOf(options, options.mayMiscount);
  const specialised = specialise(classifier, capabilities);
  const compileLines = options.perRule ? compilePieces : compileShortest;
  const { decision, lines } = compileLines(specialised.classifier, options);
  const insns = lines.map(({ insn }) => insn);
  const limit = profile.limits.insns.value;
  if (insns.length > limit) {
    return fail(
      errorAt('cbpf/too-big', `insns: ${insns.length} needed, ${profile.name} has ${limit}`, {
        help: 'fewer rules, or --target ebpf',
      }),
    );
  }
  const problem = validate(insns, limit);
  if (problem !== null) throw new Error(`bug: ${describeProblem(problem, insns)}`);
  const usage: Usage[] = [{ resource: 'insns', used: insns.length, limit }];
  const text = writeProgram(insns, options.format);
  return succeed(
    {
      files: [{ suffix: '', content: new TextEncoder().encode(text) }],
      usage,
      costs: costsByRule(lines),
      listing: () => formatListing(lines),
      classifier: specialised.classifier,
      insns,
      returns: options.returns,
      decision,
      specialised,
    },
    lengthWarnings(insns.length, profile, options.format),
  );
}

function costsByRule(lines: readonly Line[]): Artifact['costs'] {
  const costs = new Map<string, { insns: number }>();
  for (const { rule } of lines) {
    if (rule === null) continue;
    costs.set(rule, { insns: (costs.get(rule)?.insns ?? 0) + 1 });
  }
  return costs;
}

/** Bytecode is for places that differ in how long a program they take. */
function lengthWarnings(length: number, { attach }: CbpfProfile, format: CbpfFormat): Diagnostic[] {
  if (format !== 'bytecode') return [];
  const short = attach.filter(({ insns }) => length > insns.value);
  return short.map(({ mode, insns }) => ({
    code: 'cbpf/too-long',
    severity: 'warning',
    message: `${mode} takes ${insns.value} insns at most, this program has ${length}`,
    help: 'fewer rules, or another place to attach it',
    place: null,
  }));
}
