import type { Classifier, Counter } from '../../ir/classifier.ts';
import {
  buildDecision,
  DEFAULT_DECISION,
  type Decision,
  type DecisionOptions,
} from '../../ir/decision.ts';
import { type Field, FRAME, fieldKey } from '../../ir/fields.ts';
import { mergeAlternatives } from '../../ir/merge-alternatives.ts';
import { isPlain } from '../../ir/operand.ts';
import type { Test } from '../../ir/ruleset.ts';
import { type Capabilities, type Specialised, specialise } from '../../ir/specialise.ts';
import type { Profile, XdpProfile } from '../../profile/schema.ts';
import {
  type Diagnostic,
  fail,
  type Reason,
  type Result,
  succeed,
} from '../../support/diagnostics.ts';
import type { Artifact, AttachHook, CounterLayout, OutputFile, Structure } from '../backend.ts';
import { isLoadable } from './ask.ts';
import { TREES } from './ask-table.ts';
import { type Assembly, assemble } from './assemble.ts';
import { checkDialect } from './check-dialect.ts';
import { type CounterSlots, counterMap, countersIn, placeCounters } from './counter-slots.ts';
import { type Dialect, dialectOf, mergesRules } from './dialect.ts';
import { type BpfObject, writeElf } from './elf.ts';
import { writeBatch } from './fill.ts';
import { formatListing } from './format.ts';
import { HOOKS } from './hook.ts';
import {
  type ChangedProgram,
  hasSameCode,
  isLiveProgram,
  type LiveProgram,
  liveProgram,
  openChange,
  type ProgramPatch,
} from './live-program.ts';
import { lookupProblem } from './lookup.ts';
import { RODATA } from './lookup-data.ts';
import { nfpCosts } from './nfp-cost.ts';
import { READY } from './ready.ts';
import { inOrder, selectProgram } from './select.ts';
import type { SetMap } from './set-map.ts';
import { chooseStructure, structureProblem } from './structure.ts';
import { removeUnreachable, threadJumps } from './tidy.ts';
import { formatTables, tableCosts, tableUsage } from './tree-format.ts';
import { findHopeless, findTooBig, ruleCosts, usageOf } from './usage.ts';

/** The program's name. */
export const PROGRAM = 'nft_offload';

/** An XDP program for one device, with all that loads, explains and checks it. */
export interface XdpArtifact extends Artifact {
  readonly elf: Uint8Array;
  readonly costs: NonNullable<Artifact['costs']>;
  readonly object: BpfObject;
  readonly assembly: Assembly;
  readonly decision: Decision;
  readonly specialised: Specialised;
  /** Null when the program counts nothing. */
  readonly counters: CounterLayout | null;
  /** Which counter stands in slot `i` of the layout. */
  readonly owners: readonly Counter[];
  /** Sets that are hash maps, with what has to be in them; see `files`. */
  readonly sets: readonly SetMap[];
  /** What it takes to change the program while it runs; null where that is not possible. */
  readonly live: LiveProgram | null;
  /** Stores that make this program of `base`; null where it is a program of its own. */
  readonly patch: ProgramPatch | null;
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
  const { field, xor, shift } = test.operand;
  if (field.width <= 64 || test.lo === test.hi) {
    return field.width > 64 && (xor !== 0n || shift !== 0)
      ? `${field.name} is computed with`
      : null;
  }
  return field.width === 128 && isPlain(test.operand)
    ? null
    : `${field.name} is compared masked or odd-sized`;
}

/** IPv4 with all options, which its checksum is made of: RFC 791. */
const LONGEST_IP = 60;

/** Bytes of a frame in front of the headers at most: Ethernet and one tag, then IP. */
function headerStarts({ walksExtensions }: Dialect) {
  const network = 18;
  // IPv4 with all options; where IPv6 extension headers are walked, OFFSET_MASK in prologue.ts.
  return { ll: 0, nh: network, th: network + (walksExtensions ? 0x3fff : LONGEST_IP) };
}

/** Bytes of a frame that asking for a field reaches. */
function fieldDepth(field: Field, starts: ReturnType<typeof headerStarts>): number {
  if (fieldKey(field) === FRAME.checksum.name) return starts.nh + LONGEST_IP;
  if (field.base === 'meta') return 0;
  return starts[field.base] + Math.ceil((field.offset + field.width) / 8);
}

/** What programs of this backend can evaluate under a profile. */
export function capabilitiesOf(profile: XdpProfile): Capabilities {
  const { packetDepth } = profile.limits;
  const starts = headerStarts(dialectOf(profile));
  return {
    field: (field: Field) => {
      if (!isLoadable(field)) {
        return reason('ebpf/field', `${field.name} is not in the frame`);
      }
      const end = fieldDepth(field, starts);
      return end > packetDepth.value
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

export interface CompileOptions {
  readonly decision?: DecisionOptions;
  /** The concession `counters`; see `Capabilities`. */
  readonly mayMiscount?: boolean;
  /** See `TierOptions`. */
  readonly specialised?: Specialised;
  /** Where the program is attached, `xdp` when left out. */
  readonly hook?: AttachHook;
  /** How rules are asked, `auto` when left out. */
  readonly structure?: Structure;
  /** The program that runs: `live` of an artifact. See `TierOptions`. */
  readonly base?: object;
}

/** What is compiled, for what. */
interface Task {
  readonly classifier: Classifier;
  readonly profile: XdpProfile;
  readonly options: CompileOptions;
  readonly dialect: Dialect;
  readonly specialised: Specialised;
  /** What the program decides. */
  readonly decided: Classifier;
  /** Rules that became one, by its name. */
  readonly members: ReturnType<typeof mergeAlternatives>['members'] | null;
}

/**
 * Compiles a classifier for an XDP tier: specialise, decide, select, assemble, write. The program
 * drops a frame only where the classifier does, counts exactly what the classifier counts for it,
 * and hands on every other frame (XDP_PASS). Where `base` is given and its code would do, it is that
 * program with other tables; see `patch`.
 */
export function compileXdp(
  classifier: Classifier,
  profile: XdpProfile,
  options: CompileOptions = {},
): Result<XdpArtifact> {
  const mayMiscount = options.mayMiscount ?? false;
  const specialised =
    options.specialised ?? specialise(classifier, { ...capabilitiesOf(profile), mayMiscount });
  const dialect = dialectOf(profile);
  const merged = mergesRules(dialect) ? mergeAlternatives(specialised.classifier) : null;
  const decided = merged?.classifier ?? specialised.classifier;
  const hopeless = findHopeless(profile, decided);
  if (hopeless.length > 0) return fail(...hopeless);
  const problem = structureProblem(profile, dialect, options.structure ?? 'auto');
  if (problem !== null) return fail(problem);
  const members = merged?.members ?? null;
  const task: Task = { classifier, profile, options, dialect, specialised, decided, members };
  const { base } = options;
  const patched = isLiveProgram(base) ? patchProgram(task, base) : null;
  return patched ?? makeProgram(task);
}

function decisionOptions({ decided, dialect, options }: Task): DecisionOptions {
  return {
    ...DEFAULT_DECISION,
    ...chooseStructure(decided, dialect, options.structure ?? 'auto'),
    ...options.decision,
  };
}

function makeProgram(task: Task): Result<XdpArtifact> {
  const { classifier, profile, dialect } = task;
  const decision = buildDecision(task.decided, decisionOptions(task));
  const counters = placeCounters(inOrder(decision), classifier, profile, dialect);
  return finishProgram(task, decision, counters, null);
}

/** The program in use with its tables changed; null where it takes another one. */
function patchProgram(task: Task, base: LiveProgram): Result<XdpArtifact> | null {
  const change = openChange(base, task.classifier);
  const options = decisionOptions(task);
  if ((options.tableRules ?? null) === null) return null;
  const decision = buildDecision(task.decided, { ...options, tableSource: change.tableSource });
  const changed = change.finish(countersIn(inOrder(decision)));
  if (changed === null) return null;
  const made = finishProgram(task, decision, changed.counters, changed);
  if (!made.ok || made.value.live === null) return null;
  return hasSameCode(base, made.value.live) ? made : null;
}

function finishProgram(
  task: Task,
  decision: Decision,
  counters: CounterSlots | null,
  changed: ChangedProgram | null,
): Result<XdpArtifact> {
  const { profile, dialect, specialised } = task;
  const hook = HOOKS[task.options.hook ?? 'xdp'];
  const layout = counters?.layout ?? null;
  const selected = selectProgram(decision, {
    dialect,
    hook,
    counters,
    ...(changed === null ? {} : { tables: changed }),
  });
  const tidy = removeUnreachable(threadJumps(selected.insns));
  const farJumps = profile.instructions.gotol.value.allowed ? 'gotol' : 'islands';
  const assembled = assemble(tidy, { farJumps });
  if (!assembled.ok) return assembled;
  const assembly = assembled.value;
  const { sets } = selected;
  const maps = [
    ...(layout === null ? [] : [counterMap(layout)]),
    ...(sets.length === 0 ? [] : [READY, ...sets.map(({ definition }) => definition)]),
  ];
  const object: BpfObject = {
    programs: [{ section: hook.section, name: PROGRAM, assembly }],
    license: 'GPL',
    maps,
    data: [
      { name: RODATA, content: selected.rodata },
      { name: TREES, content: selected.trees },
    ].filter(({ content }) => content.length > 0),
  };
  const costs = dialect.scarceInsns ? nfpCosts(tidy, selected.stackBytes) : null;
  const { tables } = selected;
  const usage = [
    ...usageOf(profile, assembly, object, selected.stackBytes, costs, hook),
    ...tableUsage(tables),
  ];
  const refusals = [
    ...findTooBig(profile, tidy, usage, maps),
    ...checkDialect(assembly, profile, hook),
  ];
  if (refusals.length > 0) return fail(...refusals);
  const elf = writeElf(object);
  return succeed(
    {
      files: [{ suffix: '', content: elf }, ...(sets.length === 0 ? [] : [batchOf(sets)])],
      usage,
      costs: ruleCosts(tidy, costs, task.members, tableCosts(tables)),
      listing: () => formatListing(assembly) + formatTables(tables),
      classifier: specialised.classifier,
      elf,
      object,
      assembly,
      decision,
      specialised,
      counters: layout,
      owners: counters?.owners ?? [],
      sets,
      live: tables.length === 0 ? null : liveProgram(object, tables, counters, changed),
      patch: changed?.patchFor(tables) ?? null,
    },
    uncountedWarnings(selected.uncounted),
  );
}

/** Written when it is asked for: most programs are only looked at, to see whether they fit. */
function batchOf(sets: readonly SetMap[]): OutputFile {
  return {
    suffix: '.maps',
    get content() {
      return writeBatch(sets);
    },
  };
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
