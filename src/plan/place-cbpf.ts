import { type CbpfArtifact, type CbpfOptions, compileCbpf } from '../backends/cbpf/compile.ts';
import type { Classifier } from '../ir/classifier.ts';
import { concede } from '../ir/concede.ts';
import { type Flattened, flatten } from '../ir/flatten.ts';
import type { CbpfProfile } from '../profile/schema.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
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

/**
 * Compiles a ruleset to classic BPF: everything that can be decided or, where that is too long, the
 * longest beginning of the path that fits, found by halving.
 */
export function placeCbpf(
  situation: Situation,
  profile: CbpfProfile,
  options: Omit<CbpfOptions, 'mayMiscount'>,
): Result<PlacedCbpf> {
  const granted = new Set(situation.concessions);
  // Linux takes the tag out of the frame and tells it beside, whatever the NIC does.
  const hasTags = options.dialect === 'linux';
  const facts = hasTags ? { ...situation.facts, rxVlanOff: true } : situation.facts;
  const flattened = flatten(situation.ruleset, facts, {
    loopedCopies: false,
    flows: { synIsNew: granted.has('syn-is-new'), replyPorts: situation.replyPorts },
  });
  const classifier = concede(flattened.classifier, granted);
  const compile = (part: Classifier) =>
    compileCbpf(part, profile, { ...options, mayMiscount: granted.has('counters') });
  const placed = { profile, flattened: { ...flattened, classifier } };
  const whole = compile(classifier);
  if (whole.ok) {
    return succeed({ ...placed, artifact: whole.value, fitted: null }, whole.diagnostics);
  }
  let fitted = 0;
  let tooMany = classifier.entries.length;
  let best = compile(cutClassifier(classifier, 0));
  while (tooMany - fitted > 1) {
    const middle = (fitted + tooMany) >> 1;
    const tried = compile(cutClassifier(classifier, middle));
    if (tried.ok) {
      fitted = middle;
      best = tried;
    } else tooMany = middle;
  }
  return best.ok ? succeed({ ...placed, artifact: best.value, fitted }, best.diagnostics) : best;
}
