import type { AttachHook, Structure } from '../../src/backends/backend.ts';
import type { XdpArtifact } from '../../src/backends/ebpf-offload/compile.ts';
import { HOOKS } from '../../src/backends/ebpf-offload/hook.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { type Outcome, prepare } from '../../src/ir/evaluate.ts';
import type { Facts } from '../../src/ir/facts.ts';
import { type Packet, parsePacket } from '../../src/ir/packet.ts';
import { toHex } from '../../src/support/bits.ts';
import { compareNftCounters, compareProgramCounters, readSlots } from './compare-counters.ts';
import { withElfFile } from './elf-file.ts';
import { hookVerdict, type KernelLab, type Observation, type XdpMode } from './kernel-lab.ts';
import { LAB_HOOKS } from './lab-oracle.ts';
import { fillXdp, type LoadedXdp } from './lab-xdp.ts';
import { type Pipeline, readLabRuleset, runPipeline } from './pipeline.ts';

/**
 * What is checked. sound: the program drops only what the kernel does not deliver. interpreter: ours
 * and the kernel's run of the program agree. tier: so does the specialised classifier, except that
 * the program may hand on what `isLeftToKernel`, and in a crowded one anything. reference: what the full classifier says for certain
 * is what nftables did. exact: nothing that could be decided is handed on. program-counters: the
 * program counted what the specialised classifier counts. counters: nftables alone counts as much as
 * the program and nftables together. attached: with the program on the device, every packet comes as
 * far as without it.
 */
export type Law =
  | 'sound'
  | 'interpreter'
  | 'tier'
  | 'reference'
  | 'exact'
  | 'program-counters'
  | 'counters'
  | 'attached';

export const LAWS: readonly Law[] = [
  ...(['sound', 'interpreter', 'tier', 'reference', 'exact'] as const),
  ...(['program-counters', 'counters', 'attached'] as const),
];

export interface Difference {
  readonly law: Law;
  /** As it was sent; null when the difference is not one frame's. */
  readonly frame: Uint8Array | null;
  readonly detail: string;
}

/** One ruleset seen from one set of facts. */
export interface Comparison {
  readonly pipeline: Pipeline;
  /** Frames that nothing refused to send. */
  readonly frames: number;
  readonly kernelDrops: number;
  readonly programDrops: number;
  /** Frames of which the law `exact` could be checked. */
  readonly exact: number;
  readonly differences: readonly Difference[];
}

export interface CompareOptions {
  readonly facts: Facts;
  /** At most 20,000. Their source addresses are replaced. */
  readonly frames: readonly Uint8Array[];
  /** The ruleset has rules that depend on more than the packet; `xdp-native` when left out. */
  readonly unknowns?: boolean;
  /** All that can be known is in the facts, so what can be decided must be. */
  readonly complete?: boolean;
  /** Name of a profile; `xdp-native` when left out. */
  readonly profile?: string;
  /** What kind of program it is; `xdp` when left out. */
  readonly hook?: AttachHook;
  /** Of the instructions that the whole program takes, the share that the tier has room for. */
  readonly share?: number;
  /** How rules are asked; `auto` when left out. */
  readonly structure?: Structure;
}

/** Turns off reassembly, so that fragments of one run do not meet those of an earlier one. */
export async function stopReassembly(lab: KernelLab): Promise<void> {
  // inet_frag_find, net/ipv4/inet_fragment.c: no queue is made while the threshold is 0.
  const thresholds = ['ipfrag_low_thresh', 'ipfrag_high_thresh'].map(
    (name) => `net.ipv4.${name}=0`,
  );
  await lab.run('sysctl', '-qw', ...thresholds);
}

/** The frames as the lab sends them: the source address is the frame's number (see `observe`). */
export function stampFrames(frames: readonly Uint8Array[]): readonly Uint8Array[] {
  if (frames.length > 20_000) throw new Error('bug: more frames than the lab numbers');
  return frames.map((frame, index) => {
    const stamped = frame.slice();
    if (frame.length < 14) return stamped;
    stamped.set([6, 0, 0, 0, index >> 8, index & 0xff], 6);
    return stamped;
  });
}

// SHORTEST_HEADER in src/ir/decision.ts, with the same sources.
const SHORTEST: Readonly<Record<number, number>> = {
  ...{ 1: 8, 6: 20, 17: 8, 33: 12, 58: 8, 132: 12, 136: 8 },
};

/** Where an IPv6 header says what follows, and what is an extension header: RFC 8200. */
const NEXT_HEADER = 6;
const EXTENSIONS: readonly number[] = [0, 43, 44, 51, 60];

function hasExtension({ ingress }: Packet): boolean {
  const next = ingress.frame[ingress.network + NEXT_HEADER] ?? -1;
  return ingress.protocol === ETH_P_IPV6 && EXTENSIONS.includes(next);
}

/**
 * A cut transport header or a later fragment: a program may leave it to the kernel; one for a device
 * with few instructions also IPv6 extension headers.
 */
export function isLeftToKernel(packet: Packet, isScarce: boolean): boolean {
  if (isScarce && hasExtension(packet)) return true;
  const { ingress, l3 } = packet;
  return [ingress, l3].some((view) => {
    if (view === null || view.transport === null) return false;
    if (view.fragment === 'later') return true;
    return view.end - view.transport < (SHORTEST[view.l4proto ?? -1] ?? 0);
  });
}

/** What nftables did with a frame in the end. */
type Fate = 'dropped' | 'delivered' | 'neither';

/** A frame with everybody's opinion of it. */
interface Sample {
  readonly packet: Packet;
  /** The program may hand it on although it could be decided. */
  readonly isExcused: boolean;
  readonly hooks: string;
  readonly kernel: Fate;
  readonly program: boolean;
  readonly interpreter: boolean;
  readonly tier: Outcome;
  readonly reference: Outcome;
}

const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;

const BRIDGE = LAB_HOOKS.indexOf('bridge'); // it and what is behind it

function fateOf(
  observation: Observation,
  index: number,
  { ingress, tags, frame }: Packet,
  { vlans, master, mac, masterMac }: Facts,
  stages: Classifier['stages'],
): Fate {
  const verdicts = LAB_HOOKS.map((hook) => hookVerdict(observation, index, hook));
  if (verdicts.slice(0, BRIDGE).includes('dropped')) return 'dropped';
  // A bridge drops some by itself, as br_netfilter does what is too short for it.
  if (verdicts.slice(BRIDGE).includes('dropped')) {
    return stages.some(({ family }) => family === 'bridge') ? 'dropped' : 'neither';
  }
  // Nobody but the rules at ingress would stop these: a VLAN device or a protocol may want them.
  const isIp = ingress.protocol === ETH_P_IP || ingress.protocol === ETH_P_IPV6;
  if (!isIp || tags > (vlans === null ? 0 : 1)) return 'delivered';
  // A bridge hands on what is not for itself alone.
  const own = [mac, masterMac].includes(BigInt(`0x${toHex(frame.subarray(0, 6))}`));
  if (master !== null && !own) return 'delivered';
  return verdicts[2] === 'accepted' || verdicts[3] === 'accepted' ? 'delivered' : 'neither';
}

function describe(outcome: Outcome): string {
  return `${outcome.verdict} at ${outcome.decidedBy} ${outcome.reason?.code ?? ''}`.trim();
}

/** The laws that one frame breaks. */
function brokenLaws(sample: Sample, options: CompareOptions): [Law, string][] {
  const { packet, isExcused, kernel, program, interpreter, tier, reference } = sample;
  const broken: [Law, string][] = [];
  if (program && kernel === 'delivered') broken.push(['sound', sample.hooks]);
  if (program !== interpreter) {
    broken.push(['interpreter', `kernel's run ${program}, ours ${interpreter}`]);
  }
  const wanted = tier.verdict === 'drop';
  if (interpreter !== wanted && (interpreter || !isExcused)) {
    broken.push(['tier', `program ${interpreter}, classifier ${describe(tier)}`]);
  }
  if (options.unknowns === true) return broken;
  const { verdict } = reference;
  const isCertain = !packet.odd?.startsWith('packet/ipv6-ext');
  // Lost is gone, one way or the other: what may drop before need not be told apart.
  const isSurelyFirst = options.complete === true && packet.fragment !== 'later';
  const mayDrop = verdict !== 'accept' && (verdict !== 'lost' || !isSurelyFirst);
  const isWrong =
    (verdict === 'drop' && kernel === 'delivered') ||
    (isCertain && !mayDrop && kernel === 'dropped');
  if (isWrong) broken.push(['reference', `${describe(reference)}, kernel ${sample.hooks}`]);
  if (isExact(sample, options) && !program && kernel === 'dropped') {
    broken.push(['exact', `kernel ${sample.hooks}, ${describe(tier)}`]);
  }
  return broken;
}

/** Whether the program has to drop the frame if the kernel does. */
function isExact(
  { packet, isExcused, reference }: Sample,
  { complete, unknowns }: CompareOptions,
): boolean {
  if (complete !== true || unknowns === true) return false;
  return packet.odd === null && !isExcused && reference.verdict !== 'unknown';
}

/** Loads the object and, as deploying does, fills its sets before it decides anything. */
async function loadFilled(
  lab: KernelLab,
  { elf, files }: XdpArtifact,
  hook: AttachHook,
): Promise<LoadedXdp> {
  return withElfFile(elf, async (path) => {
    const loaded = await lab.loadXdp(path, hook);
    const batch = files.find(({ suffix }) => suffix === '.maps');
    if (batch !== undefined) await fillXdp(loaded, batch.content);
    return loaded;
  });
}

const NOTHING = new Uint8Array(0);

/** Whether nft lists a rule otherwise than the kernel has it, so that it is not fully known. */
function hidesRules({ classifier }: Pipeline): boolean {
  return classifier.entries.some(({ tests }) =>
    tests.some((test) => test.kind === 'unknown' && test.reason.code === 'match/listing'),
  );
}

/** Loads a ruleset, compiles it, and asks everybody about every frame. */
export async function compareWithKernel(
  lab: KernelLab,
  text: string,
  given: CompareOptions,
): Promise<Comparison> {
  const { facts, unknowns = false, hook = 'xdp' } = given;
  await lab.loadRuleset(text);
  const ruleset = await readLabRuleset(lab);
  const { profile, share, structure = 'auto' } = given;
  const pipeline = await runPipeline(ruleset, facts, profile, share, { hook, structure });
  const options = { ...given, complete: given.complete === true && !hidesRules(pipeline) };
  const stamped = stampFrames(options.frames);
  const observation = await lab.observe(stamped);
  const alone = unknowns ? [] : await lab.counters();
  const sent = stamped.flatMap((frame, index) =>
    hookVerdict(observation, index, 'ingress') === 'unsent' ? [] : { frame, index },
  );
  const loaded = await loadFilled(lab, pipeline.artifact, hook);
  const actions = await lab.runXdp(
    loaded,
    sent.map(({ frame }) => frame),
  );
  const tier = prepare(pipeline.artifact.classifier, { mode: 'tier', mac: facts.mac });
  const reference = prepare(pipeline.classifier, { mode: 'kernel', mac: facts.mac });
  const differences: Difference[] = [];
  const passed: Uint8Array[] = stamped.map(() => NOTHING);
  const dropped: Outcome[] = [];
  const totals = { kernelDrops: 0, programDrops: 0, exact: 0 };
  for (const [at, { frame, index }] of sent.entries()) {
    const packet = parsePacket(frame);
    const sample: Sample = {
      packet,
      isExcused: pipeline.isCrowded || isLeftToKernel(packet, pipeline.isScarce),
      hooks: LAB_HOOKS.map((hook) => hookVerdict(observation, index, hook)).join(' '),
      kernel: fateOf(observation, index, packet, facts, pipeline.classifier.stages),
      program: actions[at] === HOOKS[hook].drop,
      interpreter: pipeline.drops(frame),
      tier: tier(packet),
      reference: reference(packet),
    };
    if (sample.kernel === 'dropped') totals.kernelDrops += 1;
    if (sample.program) totals.programDrops += 1;
    if (isExact(sample, options)) totals.exact += 1;
    if (sample.program) dropped.push(sample.tier);
    else passed[index] = frame;
    for (const [law, detail] of brokenLaws(sample, options)) {
      differences.push({ law, frame, detail });
    }
  }
  const { artifact } = pipeline;
  const slots = artifact.counters === null ? [] : await readSlots(lab, loaded, artifact.counters);
  const wrong = compareProgramCounters(pipeline, slots, dropped);
  differences.push(...wrong.map((detail) => counterDifference('program-counters', detail)));
  if (!unknowns) {
    await lab.resetCounters();
    await lab.observe(passed);
    const rest = await lab.counters();
    const uneven = compareNftCounters(alone, rest, artifact.owners, slots);
    differences.push(...uneven.map((detail) => counterDifference('counters', detail)));
  }
  return { pipeline, frames: sent.length, ...totals, differences };
}

function counterDifference(law: Law, detail: string): Difference {
  return { law, frame: null, detail };
}

/**
 * Sends the frames with the program on the device and compares with what became of them without it:
 * what the program drops reaches no hook, everything else comes exactly as far.
 */
export async function compareAttached(
  lab: KernelLab,
  text: string,
  options: CompareOptions & { readonly mode: XdpMode },
): Promise<Comparison> {
  await lab.loadRuleset(text);
  const pipeline = await runPipeline(
    await readLabRuleset(lab),
    options.facts,
    options.profile,
    options.share,
    { hook: options.hook ?? 'xdp', structure: options.structure ?? 'auto' },
  );
  const { stages } = pipeline.classifier;
  const frames = stampFrames(options.frames);
  const without = await lab.observe(frames);
  await lab.resetCounters();
  const loaded = await loadFilled(lab, pipeline.artifact, options.hook ?? 'xdp');
  await lab.attachXdp(loaded, options.mode);
  const attached = await lab.observe(frames).finally(() => lab.detachXdp());
  const differences: Difference[] = [];
  const totals = { frames: 0, kernelDrops: 0, programDrops: 0, exact: 0 };
  for (const [index, frame] of frames.entries()) {
    if (hookVerdict(without, index, 'ingress') === 'unsent') continue;
    const packet = parsePacket(frame);
    const before = fateOf(without, index, packet, options.facts, stages);
    const isDropped = pipeline.drops(frame);
    totals.frames += 1;
    if (before === 'dropped') totals.kernelDrops += 1;
    if (isDropped) totals.programDrops += 1;
    const reached = hookVerdict(attached, index, 'ingress') !== 'unreached';
    const isWrong = isDropped
      ? reached || before === 'delivered'
      : attached[index] !== without[index];
    if (!isWrong) continue;
    const detail = LAB_HOOKS.map((hook) =>
      [without, attached].map((seen) => hookVerdict(seen, index, hook)).join('/'),
    );
    differences.push({ law: 'attached', frame, detail: `${isDropped} ${detail.join(' ')}` });
  }
  return { pipeline, ...totals, differences };
}

/** The first differences of every law, one line each. */
export function formatDifferences(differences: readonly Difference[], most = 3): string {
  const lines = LAWS.flatMap((law) => {
    const own = differences.filter((difference) => difference.law === law);
    const shown = own.slice(0, most).map(({ frame, detail }) => {
      return `  ${frame === null ? '' : `${toHex(frame)} `}${detail}`;
    });
    return own.length === 0 ? [] : [`${law}: ${own.length}`, ...shown];
  });
  return lines.join('\n');
}
