import {
  buildProgram,
  type CbpfArtifact,
  type CbpfOptions,
  type CbpfProgram,
  packProgram,
} from '../backends/cbpf/compile.ts';
import type { Classifier } from '../ir/classifier.ts';
import { concede } from '../ir/concede.ts';
import { type Flattened, flatten } from '../ir/flatten.ts';
import type { RuleId } from '../ir/ruleset.ts';
import type { CbpfProfile } from '../profile/schema.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
import { captureRule } from './capture.ts';
import type { Situation } from './place.ts';

/** A ruleset as a classic BPF program. */
export interface PlacedCbpf {
  readonly profile: CbpfProfile;
  readonly flattened: Flattened;
  readonly artifact: CbpfArtifact;
  /** Entries of the classifier beyond this one did not fit; null when all did. */
  readonly fitted: number | null;
}

const TOO_BIG = { code: 'plan/capacity', message: 'the program has no room left for it' };

/** The classifier with all entries from `count` on left to the kernel. */
function cutClassifier(classifier: Classifier, count: number): Classifier {
  const unknown = { kind: 'unknown', reason: TOO_BIG } as const;
  const nothing = { tests: [], counts: [], effects: [], then: unknown, otherwise: unknown };
  const entries = classifier.entries.map((entry, index) =>
    index < count ? entry : { ...entry, ...nothing },
  );
  return { ...classifier, entries };
}

/** How a ruleset becomes a program; `rule`: what this one matches is selected, null for what is dropped. */
export interface CbpfRequest extends Omit<CbpfOptions, 'mayMiscount'> {
  readonly rule: RuleId | null;
}

/** Instructions that may be left free rather than look for a longer beginning. */
const ROOM = 16;

/**
 * A beginning of the path whose program fits and has not more than `ROOM` left, or the next longer one
 * does not fit: looked for where length in proportion puts it, and by halving in turn.
 */
function fitBeginning(
  classifier: Classifier,
  limit: number,
  whole: number,
  build: (part: Classifier) => CbpfProgram,
): { readonly program: CbpfProgram; readonly fitted: number } {
  let best = { program: build(cutClassifier(classifier, 0)), fitted: 0 };
  let tooMany = { count: classifier.entries.length, size: whole };
  for (let step = 0; ; step += 1) {
    const { fitted, program } = best;
    const size = program.lines.length;
    const gap = tooMany.count - fitted;
    if (gap <= 1 || (fitted > 0 && limit - size <= ROOM)) return best;
    const share = step % 3 === 2 ? 0.5 : (limit - size) / (tooMany.size - size);
    const count = fitted + Math.min(gap - 1, Math.max(1, Math.floor(gap * share)));
    const tried = build(cutClassifier(classifier, count));
    if (tried.lines.length <= limit) best = { program: tried, fitted: count };
    else tooMany = { count, size: tried.lines.length };
  }
}

/**
 * Compiles a ruleset to classic BPF: everything that can be decided or, where that is too long, a
 * beginning of the path that fits.
 */
export function placeCbpf(
  situation: Situation,
  profile: CbpfProfile,
  request: CbpfRequest,
): Result<PlacedCbpf> {
  const granted = new Set(situation.concessions);
  const { rule, ...given } = request;
  const options: CbpfOptions = { ...given, mayMiscount: granted.has('counters') };
  // Where Linux runs a program it has merged segments and taken the tag out, as for the hooks.
  const isLinux = options.dialect === 'linux';
  const facts = isLinux ? { ...situation.facts, rxVlanOff: true, groOff: true } : situation.facts;
  const flattened = flatten(situation.ruleset, facts, {
    loopedCopies: false,
    flows: { synIsNew: granted.has('syn-is-new'), replyPorts: situation.replyPorts },
  });
  const conceded = concede(flattened.classifier, granted, situation.ruleset);
  const classifier = rule === null ? conceded : captureRule(conceded, rule);
  const build = (part: Classifier): CbpfProgram => buildProgram(part, options);
  const limit = profile.limits.insns.value;
  const whole = build(classifier);
  const size = whole.lines.length;
  const { program, fitted } =
    size <= limit ? { program: whole, fitted: null } : fitBeginning(classifier, limit, size, build);
  const packed = packProgram(program, profile, options);
  if (!packed.ok) return packed;
  const placed = { profile, flattened: { ...flattened, classifier }, artifact: packed.value };
  return succeed({ ...placed, fitted }, packed.diagnostics);
}
