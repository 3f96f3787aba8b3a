import type { Classifier } from '../../ir/classifier.ts';
import { buildDecision, type Decision, type DecisionOptions } from '../../ir/decision.ts';
import { testedFields } from '../../ir/operand.ts';
import { type Specialised, specialise } from '../../ir/specialise.ts';
import type { CbpfProfile } from '../../profile/schema.ts';
import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import type { Artifact, Usage } from '../backend.ts';
import { isBehindExtensions } from './ask.ts';
import { capabilitiesOf } from './capabilities.ts';
import { createCodeTable } from './code.ts';
import { lowerDecision } from './dispatch.ts';
import { type CbpfFormat, writeProgram } from './file-formats.ts';
import type { Insn } from './insn.ts';
import { formatListing } from './listing.ts';
import { type Dialect, LINK_HEADER, type LinkType, type Meaning } from './meaning.ts';
import { meetNeeds } from './meet-needs.ts';
import { type Line, orderCode, type Returns } from './order.ts';
import { threadCode } from './thread-code.ts';
import { threadDecision } from './thread-decision.ts';
import { describeProblem, validate } from './validate.ts';

/** How to compile; see `Meaning` for the first three. */
export interface CbpfOptions {
  readonly dialect: Dialect;
  readonly linkType: LinkType;
  readonly frames: Meaning['frames'];
  readonly returns: Returns;
  readonly format: CbpfFormat;
  /** The concession `counters`; see `Capabilities`. */
  readonly mayMiscount: boolean;
}

export const CBPF_DEFAULTS: CbpfOptions = {
  dialect: 'portable',
  linkType: 'EN10MB',
  frames: 'any',
  returns: { drop: 0, continue: 0xffff_ffff },
  format: 'ddd',
  mayMiscount: false,
};

/** A classic BPF program with all that explains and checks it. */
export interface CbpfArtifact extends Artifact {
  readonly insns: readonly Insn[];
  readonly returns: Returns;
  readonly decision: Decision;
  readonly specialised: Specialised;
}

/** Rules of a list that are asked in turn before they are cut by values. */
const LEAF_RULES = 64;

/**
 * Ways to build the decision: one after the other, each rule asking for what it needs; and with
 * regions for each kind of packet, which are faster to walk and may need copies of rules.
 */
const DECISIONS: readonly DecisionOptions[] = [
  { leafRules: LEAF_RULES, copies: 1, regions: false },
  { leafRules: 16, copies: 2 },
];

/** Lists beyond this are compiled in the first way only: trying takes time. */
const FEW_ENTRIES = 200;

/** What rules at ingress read, which decides what of a frame must be checked. */
function ingressOf({ entries }: Classifier): Meaning['ingress'] {
  const fields = entries
    .filter(({ view }) => view === 'ingress')
    .flatMap(({ tests }) => tests.flatMap(testedFields));
  return {
    reads: fields.some(({ base }) => base !== 'meta') || fields.some(isBehindExtensions),
    transport: fields.some(isBehindExtensions),
  };
}

interface Candidate {
  readonly decision: Decision;
  readonly lines: readonly Line[];
}

function compileDecision(decision: Decision, meaning: Meaning, returns: Returns): Candidate {
  const code = lowerDecision(createCodeTable(), meaning, decision);
  const shortest = LINK_HEADER[meaning.linkType];
  const threaded = threadCode(meetNeeds(threadCode(code, shortest)), shortest);
  return { decision, lines: orderCode(threaded, returns) };
}

/** All candidates, and the shortest of them. */
function compileShortest(classifier: Classifier, options: CbpfOptions): Candidate {
  const { dialect, linkType, frames, returns } = options;
  const base = {
    ...{ dialect, linkType, frames, leaf: SINGLES },
    failedLoad: returns.continue === 0 ? 'continue' : 'reject',
    ingress: ingressOf(classifier),
  } as const;
  const isSmall = classifier.entries.length <= FEW_ENTRIES;
  const decisions = isSmall ? DECISIONS : DECISIONS.slice(0, 1);
  let best: Candidate | null = null;
  for (const how of decisions) {
    const decision = threadDecision(buildDecision(classifier, how));
    for (const indexIp6 of [false, true]) {
      const candidate = compileDecision(decision, { ...base, indexIp6 }, returns);
      if (best === null || candidate.lines.length < best.lines.length) best = candidate;
    }
  }
  if (best === null) throw new Error('bug: there is no way to build a decision');
  return best;
}

/** Single values asked in turn before they are halved; each halving costs one comparison. */
const SINGLES = 56;

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
  const { decision, lines } = compileShortest(specialised.classifier, options);
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
  return succeed({
    files: [{ suffix: '', content: new TextEncoder().encode(text) }],
    usage,
    listing: () => formatListing(lines),
    classifier: specialised.classifier,
    insns,
    returns: options.returns,
    decision,
    specialised,
  });
}
