import type { Entry } from '../../ir/classifier.ts';
import type { Test } from '../../ir/ruleset.ts';
import type { XdpProfile } from '../../profile/schema.ts';
import type { Backend } from '../backend.ts';
import { capabilitiesOf, compileXdp, isXdpProfile, type XdpArtifact } from './compile.ts';
import { dialectOf, mergesRules } from './dialect.ts';
import { fillMemory } from './fill.ts';
import { HOOKS } from './hook.ts';
import { loadProgram } from './interpret.ts';
import { createMemory } from './memory.ts';

/** Instructions of a look-up in a set that stands in read-only data, whatever its size (measured). */
const INSNS_IN_DATA = 40;
/** Elements up to which a set is code in any case; see lookup.ts. */
const CODE_ELEMENTS = 16;

function estimateTest(test: Test, hasData: boolean): number {
  if (test.kind === 'unknown') return 0;
  if (test.kind === 'lookup') {
    const { length } = test.set.elements.lo;
    return hasData && length > CODE_ELEMENTS ? INSNS_IN_DATA : 4 + 2 * length;
  }
  const { field } = test.operand;
  // Protocols are asked once for many rules.
  if (field.base === 'meta') return 1;
  return (test.lo === test.hi ? 2 : 3) * Math.ceil(field.width / 64);
}

/** Instructions for an entry, where it shares what it asks with as many others as usual (measured). */
function estimateInsns({ tests, counts }: Entry, hasData: boolean): number {
  return tests.reduce((sum, test) => sum + estimateTest(test, hasData), 1 + 4 * counts.length);
}

/** A rule that shares a look-up with many others takes such a part of an NFP instruction (measured). */
const SHARES = 16;
/** NFP instructions of one BPF instruction, about: bench/NFP.md. */
const NFP_INSNS = 2;

/** NFP instructions for an entry, in parts of one, where rules become one look-up unless they count. */
function estimateShares(entry: Entry): number {
  const alone = SHARES * NFP_INSNS * estimateInsns(entry, true);
  return entry.counts.length > 0 || entry.tests.some(({ kind }) => kind === 'unknown') ? alone : 1;
}

/** XDP, in the driver, before the stack or on the NIC. */
export const xdpBackend: Backend<XdpProfile, XdpArtifact> = {
  serves: isXdpProfile,
  receivePath: ({ receive }) => ({
    loopedCopies: receive.loopedCopies.value,
    switchesGroOff: receive.gro.value === 'switched-off',
  }),
  decidesAlike: true,
  capabilitiesOf,
  estimatesOf: (profile) => {
    const { limits, instructions } = profile;
    const { deviceInsns } = limits;
    if (deviceInsns !== undefined && mergesRules(dialectOf(profile))) {
      const room = [{ resource: 'device-insns', limit: deviceInsns.value * SHARES }];
      return { room, costOf: (entry) => [estimateShares(entry)], isExact: false };
    }
    return {
      room: [{ resource: 'insns', limit: limits.insns.value }],
      costOf: (entry) => [estimateInsns(entry, instructions.dataSections.value)],
      isExact: false,
    };
  },
  compile: compileXdp,
  isTooBig: (diagnostics) =>
    diagnostics.every(({ code }) => code === 'ebpf/too-big' || code === 'ebpf/jump-too-far'),
  interpret: ({ object, assembly, sets }) => {
    const memory = createMemory(object.maps, object.data);
    fillMemory(memory, sets);
    const machine = loadProgram(assembly, memory);
    const isTc = object.programs.some(({ section }) => section === HOOKS.tc.section);
    const { drop } = isTc ? HOOKS.tc : HOOKS.xdp;
    return (frame) => (machine.run(frame).action === drop ? 'drop' : 'continue');
  },
};
