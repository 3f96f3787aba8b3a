import type { Entry } from '../../ir/classifier.ts';
import type { Test } from '../../ir/ruleset.ts';
import type { CbpfProfile, Profile } from '../../profile/schema.ts';
import type { Backend } from '../backend.ts';
import { capabilitiesOf } from './capabilities.ts';
import { CBPF_DEFAULTS, type CbpfArtifact, type CbpfOptions, compileCbpf } from './compile.ts';
import { loadProgram } from './interpret.ts';

function isCbpfProfile(profile: Profile): profile is CbpfProfile {
  return profile.kind === 'cbpf';
}

function estimateTest(test: Test): number {
  if (test.kind === 'unknown') return 0;
  if (test.kind === 'lookup') return 2 + test.set.elements.lo.length;
  return (test.lo === test.hi ? 1 : 2) * Math.ceil(test.operand.field.width / 32);
}

/** Instructions for an entry that shares its loads with others. */
function estimateInsns({ tests }: Entry): number {
  return tests.reduce((sum, test) => sum + estimateTest(test), 1);
}

/** Classic BPF compiled with these options. */
export function createCbpfBackend(given: CbpfOptions): Backend<CbpfProfile, CbpfArtifact> {
  return {
    serves: isCbpfProfile,
    receivePath: () => ({ loopedCopies: false, switchesGroOff: false }),
    capabilitiesOf: () => capabilitiesOf(given, false),
    estimatesOf: ({ limits }) => ({
      room: [{ resource: 'insns', limit: limits.insns.value }],
      costOf: (entry) => [estimateInsns(entry)],
      isExact: false,
    }),
    compile: (classifier, profile, { mayMiscount, specialised }) =>
      compileCbpf(classifier, profile, { ...given, mayMiscount }, specialised),
    isTooBig: (diagnostics) => diagnostics.every(({ code }) => code === 'cbpf/too-big'),
    interpret: ({ insns, returns }) => {
      const run = loadProgram(insns);
      return (frame) => (run(frame).value === returns.drop ? 'drop' : 'continue');
    },
  };
}

/** Programs that see frames as they are on the wire: portable, Ethernet. */
export const cbpfBackend = createCbpfBackend(CBPF_DEFAULTS);
