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

/** A comparison for each 32 bits, and what loads them. */
function estimateTest(test: Test): number {
  if (test.kind === 'unknown') return 0;
  if (test.kind === 'lookup') return 1 + test.set.elements.lo.length;
  const { field } = test.operand;
  return (test.lo === test.hi ? 1 : 2) * Math.ceil(field.width / 32);
}

function estimateInsns({ tests }: Entry): number {
  return tests.reduce((sum, test) => sum + estimateTest(test), 0);
}

/** Classic BPF made in one way; its interpreter takes frames as they are on the wire. */
export function cbpfBackendFor(
  made: Omit<CbpfOptions, 'mayMiscount'>,
): Backend<CbpfProfile, CbpfArtifact> {
  return {
    serves: isCbpfProfile,
    receivePath: () => ({ loopedCopies: false, switchesGroOff: false }),
    decidesAlike: true,
    capabilitiesOf: () => capabilitiesOf(made, false),
    estimatesOf: ({ limits }) => ({
      room: [{ resource: 'insns', limit: limits.insns.value }],
      costOf: (entry) => [estimateInsns(entry)],
      isExact: false,
    }),
    compile: (classifier, profile, { mayMiscount }) =>
      compileCbpf(classifier, profile, { ...made, mayMiscount }),
    isTooBig: (diagnostics) => diagnostics.every(({ code }) => code === 'cbpf/too-big'),
    interpret: ({ insns, returns }) => {
      const machine = loadProgram(insns);
      return (frame) => (machine(frame).value === returns.drop ? 'drop' : 'continue');
    },
  };
}

/** Classic BPF over Ethernet frames. */
export const cbpfBackend = cbpfBackendFor(CBPF_DEFAULTS);
