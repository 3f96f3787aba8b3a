import type { Classifier, Counter } from '../../ir/classifier.ts';
import { buildDecision, type Decision, type DecisionOptions } from '../../ir/decision.ts';
import type { DecisionNode } from '../../ir/decision-nodes.ts';
import type { Field } from '../../ir/fields.ts';
import type { Test } from '../../ir/ruleset.ts';
import { type Capabilities, type Specialised, specialise } from '../../ir/specialise.ts';
import type { Profile, XdpProfile } from '../../profile/schema.ts';
import {
  type Diagnostic,
  errorAt,
  fail,
  type Reason,
  type Result,
  succeed,
} from '../../support/diagnostics.ts';
import type { Artifact, CounterLayout, Usage } from '../backend.ts';
import { isLoadable } from './ask.ts';
import { type Assembly, assemble } from './assemble.ts';
import { type BpfObject, writeElf } from './elf.ts';
import { formatListing } from './format.ts';
import { lookupProblem } from './lookup.ts';
import { RODATA } from './lookup-data.ts';
import type { MapDefinition } from './maps.ts';
import { inOrder, selectProgram } from './select.ts';
import { removeUnreachable, threadJumps } from './tidy.ts';

/** The section and program name that loaders go by. */
export const SECTION = 'xdp';
export const PROGRAM = 'nft_offload';
const COUNTER_MAP = 'counters';
/** Counters in one map entry: costs nothing at run time, and creates the map 500 times faster. */
const SLOTS_PER_ENTRY = 512;
const SLOT_BYTES = 16;

/** An XDP program for one device, with all that loads, explains and checks it. */
export interface XdpArtifact extends Artifact {
  readonly elf: Uint8Array;
  readonly object: BpfObject;
  readonly assembly: Assembly;
  readonly decision: Decision;
  readonly specialised: Specialised;
  /** Null when the program counts nothing. */
  readonly counters: CounterLayout | null;
  /** Which counter stands in slot `i` of the layout. */
  readonly owners: readonly Counter[];
}

/** Profiles of XDP tiers; others are not for this backend. */
export function isXdpProfile(profile: Profile): profile is XdpProfile {
  return ['xdp-offload', 'xdp-native', 'xdp-generic'].includes(profile.kind);
}

function reason(code: string, message: string): Reason {
  return { code, message };
}

function wideProblem(test: Test): string | null {
  if (test.kind !== 'compare') return null;
  const { field, mask, xor, shift } = test.operand;
  if (field.width <= 64 || test.lo === test.hi) {
    return field.width > 64 && (xor !== 0n || shift !== 0)
      ? `${field.name} is computed with`
      : null;
  }
  const whole = mask === (1n << BigInt(field.width)) - 1n && xor === 0n && shift === 0;
  return field.width === 128 && whole ? null : `${field.name} is compared masked or odd-sized`;
}

/** What programs of this backend can evaluate under a profile. */
export function capabilitiesOf(profile: XdpProfile): Capabilities {
  const { packetDepth } = profile.limits;
  return {
    field: (field: Field) => {
      if (!isLoadable(field)) {
        return reason('ebpf/field', `${field.name} is not in the frame`);
      }
      const end = Math.ceil((field.offset + field.width) / 8);
      return field.base !== 'meta' && end > packetDepth.value
        ? reason('ebpf/packet-depth', `${field.name} lies deeper than ${packetDepth.value} bytes`)
        : null;
    },
    test: (test: Test) => {
      const problem =
        test.kind === 'lookup' ? lookupProblem(test.key, test.set) : wideProblem(test);
      return problem === null ? null : reason('ebpf/operand', problem);
    },
    counters: null,
    mayMiscount: false,
  };
}

/** Counters a decision can count, those at ingress first, and where each goes. */
function placeCounters(order: readonly DecisionNode[], classifier: Classifier) {
  const used = new Set(order.flatMap((node) => (node.kind === 'count' ? node.counters : [])));
  const sorted = [...used].sort((a, b) => a - b);
  const isIngress = (index: number): boolean => classifier.counters[index]?.view === 'ingress';
  const placed = [...sorted.filter(isIngress), ...sorted.filter((index) => !isIngress(index))];
  return { placed, ingress: sorted.filter(isIngress).length };
}

function layoutOf(profile: XdpProfile, slots: number): CounterLayout {
  const perCpu = profile.limits.maps.kinds.some(({ kind }) => kind === 'percpu_array');
  const whole = 2 ** Math.ceil(Math.log2(slots));
  const slotsPerEntry = perCpu ? Math.min(SLOTS_PER_ENTRY, whole) : whole;
  return { map: COUNTER_MAP, perCpu, slotsPerEntry, slots };
}

function counterMap(layout: CounterLayout): MapDefinition {
  return {
    name: layout.map,
    type: layout.perCpu ? 'percpu_array' : 'array',
    keySize: 4,
    valueSize: layout.slotsPerEntry * SLOT_BYTES,
    maxEntries: Math.ceil(layout.slots / layout.slotsPerEntry),
    flags: 0,
  };
}

export interface CompileOptions {
  readonly decision?: DecisionOptions;
  /** The concession `counters`; see `Capabilities`. */
  readonly mayMiscount?: boolean;
  /** See `TierOptions`. */
  readonly specialised?: Specialised;
}

/**
 * Compiles a classifier for an XDP tier: specialise, decide, select, assemble, write. The program
 * drops a frame only where the classifier does, counts exactly what the classifier counts for it,
 * and hands on every other frame (XDP_PASS).
 */
export function compileXdp(
  classifier: Classifier,
  profile: XdpProfile,
  options: CompileOptions = {},
): Result<XdpArtifact> {
  const mayMiscount = options.mayMiscount ?? false;
  const specialised =
    options.specialised ?? specialise(classifier, { ...capabilitiesOf(profile), mayMiscount });
  const decision = buildDecision(specialised.classifier, options.decision);
  const order = inOrder(decision);
  const { placed, ingress } = placeCounters(order, classifier);
  const layout = placed.length > 0 ? layoutOf(profile, placed.length) : null;
  const slotOf = new Map(placed.map((counter, index) => [counter, index]));
  const dataSections = profile.instructions.dataSections.value;
  const selected = selectProgram(decision, {
    dataSections,
    counters: layout === null ? null : { layout, ingress, slotOf },
  });
  const tidy = removeUnreachable(threadJumps(selected.insns));
  const farJumps = profile.instructions.gotol.value.allowed ? 'gotol' : 'islands';
  const assembled = assemble(tidy, { farJumps });
  if (!assembled.ok) return assembled;
  const assembly = assembled.value;
  const maps = layout === null ? [] : [counterMap(layout)];
  const object: BpfObject = {
    programs: [{ section: SECTION, name: PROGRAM, assembly }],
    license: 'GPL',
    maps,
    data: selected.rodata.length > 0 ? [{ name: RODATA, content: selected.rodata }] : [],
  };
  const usage = usageOf(profile, assembly, maps, selected);
  const over = usage.filter(({ used, limit }) => limit !== null && used > limit);
  if (over.length > 0) {
    return fail(
      ...over.map(({ resource, used, limit }) =>
        errorAt('ebpf/too-big', `${resource}: ${used} needed, ${profile.name} has ${limit}`, {
          help: 'use a profile with more room, or fewer rules',
        }),
      ),
    );
  }
  const elf = writeElf(object);
  return succeed(
    {
      files: [{ suffix: '', content: elf }],
      usage,
      costs: costsByRule(assembly),
      listing: () => formatListing(assembly),
      classifier: specialised.classifier,
      elf,
      object,
      assembly,
      decision,
      specialised,
      counters: layout,
      owners: placed.flatMap((index) => classifier.counters[index] ?? []),
    },
    uncountedWarnings(selected.uncounted),
  );
}

function costsByRule({ lines }: Assembly): Artifact['costs'] {
  const costs = new Map<string, { insns: number }>();
  for (const { rule } of lines) {
    if (rule === null) continue;
    const cost = costs.get(rule);
    if (cost === undefined) costs.set(rule, { insns: 1 });
    else cost.insns += 1;
  }
  return costs;
}

function uncountedWarnings(rules: ReadonlySet<string>): Diagnostic[] {
  return [...rules].map((rule) => ({
    code: 'ebpf/pending-counters',
    severity: 'warning',
    message: 'too many rules before it count without deciding; its packets are left to the kernel',
    help: 'name one counter instead of many, or count behind the decision',
    place: { kind: 'ruleset', path: rule },
  }));
}

function usageOf(
  { limits }: XdpProfile,
  assembly: Assembly,
  maps: readonly MapDefinition[],
  selected: { readonly rodata: Uint8Array; readonly stackBytes: number },
): Usage[] {
  const data = selected.rodata.length > 0 ? 1 : 0;
  return [
    { resource: 'insns', used: assembly.lines.length, limit: limits.insns.value },
    { resource: 'stack', used: selected.stackBytes, limit: limits.stack.value },
    { resource: 'maps', used: maps.length + data, limit: limits.maps.maxMaps.value },
    { resource: 'data bytes', used: selected.rodata.length, limit: null },
  ];
}
