/**
 * How much of what rulesets drop a tier drops before them, on a stated mix of traffic, without
 * concessions, with each, and with all; and what holds the rest back:
 * `npx tsx bench/yield.ts [DIRECTORY] [--frames N] [--seed N] [--profile NAME] [--write]`.
 * Without a directory of .nft files, the examples. Nothing is timed. Exits 1 when a tier drops a frame
 * that the ruleset accepts. `--write` puts the tables into bench/RESULTS.md.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CONCESSIONS, type Concession } from '../src/ir/concede.ts';
import { type Evaluator, type Outcome, prepare } from '../src/ir/evaluate.ts';
import type { Facts } from '../src/ir/facts.ts';
import { flatten } from '../src/ir/flatten.ts';
import { type Packet, parsePacket } from '../src/ir/packet.ts';
import type { Ruleset } from '../src/ir/ruleset.ts';
import { readRuleset } from '../src/nft/read.ts';
import { type PlacedTier, placeTier } from '../src/plan/place.ts';
import { loadProfile } from '../src/profile/load.ts';
import type { Profile } from '../src/profile/schema.ts';
import { formatDiagnostic, type Result } from '../src/support/diagnostics.ts';
import { reverseFrame } from '../test/support/flow-frames.ts';
import { createFlowModel } from '../test/support/flow-model.ts';
import { writeSection } from './results.ts';
import { type FlowState, imagineMachine, type Machine, rulesetFor } from './yield-machine.ts';
import { MIX, makeTraffic } from './yield-mix.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    frames: { type: 'string', default: '5000' },
    seed: { type: 'string', default: '1' },
    profile: { type: 'string', default: 'xdp-native' },
    write: { type: 'boolean', default: false },
  },
});

const REPLY_PORTS = [{ from: 32_768, to: 60_999 }];
const NAMES = Object.keys(CONCESSIONS) as Concession[]; // the keys of a const object
/** What is granted, by name: none, each alone, all but one, all. */
const GRANTS: readonly (readonly [string, readonly Concession[]])[] = [
  ['none', []],
  ...NAMES.map((name) => [name, [name]] as const),
  ...NAMES.map((name) => [`all but ${name}`, NAMES.filter((other) => other !== name)] as const),
  ['all', NAMES],
];
const COLUMNS = ['none', 'syn-is-new', 'reply-ports', 'all'] as const;
const MOST_REASONS = 12;

function need<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(formatDiagnostic).join('\n'));
}

/** A frame with what the ruleset does with it, as far as that can be told. */
interface Judged {
  readonly kind: string;
  readonly packet: Packet;
  readonly outcome: Outcome;
}

/** Where a flow can come from: every device that the ruleset names, and one that it does not. */
function devicesOf(ruleset: Ruleset, outside: string): readonly string[] {
  const texts = ruleset.tables.flatMap(({ chains }) =>
    chains.flatMap(({ rules }) => rules.map(({ text }) => text)),
  );
  const named = texts.flatMap((text) =>
    [...text.matchAll(/"([^"\s*]{1,15})"/g)].map((found) => found[1] ?? ''),
  );
  return [...new Set([...named, 'other'])].filter((name) => name !== outside && name !== 'lo');
}

/**
 * Whether this machine, or one behind it, may have sent the first packet of the flow that a frame
 * from outside is an answer of; what nobody can tell may be so.
 */
function canBeAsked(
  ruleset: Ruleset,
  facts: Facts,
  devices: readonly string[],
  frame: Uint8Array,
): boolean {
  const own = (facts.localAddresses ?? []).map(({ version, value }) =>
    value.toString(16).padStart(version === 4 ? 8 : 32, '0'),
  );
  const asked = reverseFrame(frame);
  return [true, false].some((luck) =>
    devices.some((device) =>
      (['inside', 'outside'] as const).some((from) =>
        createFlowModel(ruleset, new Set(own), facts.role === 'router', () => luck).pass(
          asked,
          from,
          device,
          facts.device,
        ),
      ),
    ),
  );
}

function judge(
  ruleset: Ruleset,
  machine: Machine,
  frames: number,
  seed: number,
): readonly Judged[] {
  // The state is known, so nothing is to be reasoned about it.
  const facts = { ...machine.facts, conntrackFresh: false };
  const known = new Map<FlowState, Evaluator>();
  const evaluatorFor = (state: FlowState): Evaluator => {
    const made =
      known.get(state) ??
      prepare(flatten(rulesetFor(ruleset, state, facts), facts).classifier, { mac: facts.mac });
    known.set(state, made);
    return made;
  };
  const decide = (frame: Uint8Array, state: FlowState): Outcome =>
    evaluatorFor(state)(parsePacket(frame));
  const devices = devicesOf(ruleset, facts.device);
  return makeTraffic(machine, frames, seed).flatMap(({ kind, frame, state, opener }) => {
    if (opener !== undefined && decide(opener, 'new').verdict !== 'accept') return [];
    const isReply = state === 'established' && opener === undefined;
    if (isReply && !canBeAsked(ruleset, facts, devices, frame)) return [];
    return [{ kind, packet: parsePacket(frame), outcome: decide(frame, state) }];
  });
}

/** Counts by name. */
type Tally = Map<string, number>;

function count(tally: Tally, name: string, by = 1): void {
  tally.set(name, (tally.get(name) ?? 0) + by);
}

interface Yield {
  /** Frames that the ruleset drops and the tier drops, by class. */
  readonly dropped: Tally;
  /** Why the others are handed on. */
  readonly reasons: Tally;
  /** By the rule or condition that hands them on. */
  readonly rules: Tally;
  /** Frames that the ruleset accepts and the tier drops, by class. */
  readonly wrong: Tally;
}

/** What hands a frame on that could have been dropped: why, and the rule or condition. */
function holderOf({ flattened }: PlacedTier, outcome: Outcome): readonly [string, string] {
  if (outcome.verdict !== 'unknown') {
    return [`decided (${outcome.verdict}), but not in the program`, 'the program'];
  }
  const { code = '', message = '' } = outcome.reason ?? {};
  const entry = flattened.classifier.entries[outcome.decidedBy ?? -1];
  return [`\`${code}\`: ${message}`, entry?.label ?? 'the frame itself'];
}

function measure(judged: readonly Judged[], tier: PlacedTier, mac: bigint | null): Yield {
  const drops = prepare(tier.artifact.classifier, { mode: 'tier', mac });
  const full = prepare(tier.flattened.classifier, { mode: 'tier', mac });
  const result: Yield = {
    dropped: new Map(),
    reasons: new Map(),
    rules: new Map(),
    wrong: new Map(),
  };
  for (const { kind, packet, outcome } of judged) {
    const { verdict } = outcome;
    const isDropped = drops(packet).verdict === 'drop';
    if (isDropped && verdict === 'accept') count(result.wrong, kind);
    if (verdict !== 'drop') continue;
    if (isDropped) count(result.dropped, kind);
    else {
      const [reason, rule] = holderOf(tier, full(packet));
      count(result.reasons, reason);
      count(result.rules, rule);
    }
  }
  return result;
}

/** One ruleset with everything that was measured of it. */
interface Line {
  readonly name: string;
  readonly machine: Machine;
  readonly frames: number;
  readonly judged: readonly Judged[];
  readonly yields: ReadonlyMap<string, Yield>;
}

function sum(tally: Tally | undefined): number {
  return [...(tally?.values() ?? [])].reduce((total, part) => total + part, 0);
}

async function measureFile(path: string, name: string, profile: Profile): Promise<Line | string> {
  const read = await readRuleset({ kind: 'file', path });
  if (!read.ok) return `${name}: ${read.diagnostics[0]?.message ?? 'not read'}`;
  const ruleset = read.value;
  const machine = imagineMachine(ruleset);
  const judged = judge(ruleset, machine, Number(values.frames), Number(values.seed));
  const yields = new Map<string, Yield>();
  for (const [column, concessions] of GRANTS) {
    const replyPorts = concessions.includes('reply-ports') ? REPLY_PORTS : null;
    const tier = need(
      placeTier({ ruleset, facts: machine.facts, concessions, replyPorts }, profile),
    );
    yields.set(column, measure(judged, tier, machine.facts.mac));
  }
  return { name, machine, frames: judged.length, judged, yields };
}

function percent(part: number, whole: number): string {
  return whole === 0 ? '-' : `${((100 * part) / whole).toFixed(1)}`;
}

function row(...cells: readonly (string | number)[]): string {
  return `| ${cells.join(' | ')} |`;
}

function head(...cells: readonly string[]): string {
  return `${row(...cells)}\n${row(...cells.map(() => '---'))}`;
}

function droppedBy({ judged }: Line): number {
  return judged.filter(({ outcome }) => outcome.verdict === 'drop').length;
}

function allDrops(lines: readonly Line[]): number {
  return lines.reduce((total, line) => total + droppedBy(line), 0);
}

function totalOf(lines: readonly Line[], column: string): number {
  return lines.reduce((total, { yields }) => total + sum(yields.get(column)?.dropped), 0);
}

/** What each concession gives alone, and what the others lose without it. */
function concessionTable(lines: readonly Line[]): string {
  const all = allDrops(lines);
  const rows = NAMES.map((name) =>
    row(
      name,
      percent(totalOf(lines, name) - totalOf(lines, 'none'), all),
      percent(totalOf(lines, 'all') - totalOf(lines, `all but ${name}`), all),
    ),
  );
  return [head('concession', 'alone', 'as the last one'), ...rows].join('\n');
}

/** The two rules or conditions of each ruleset that hold most back. */
function holderTable(lines: readonly Line[], column: string): string {
  const rows = lines.flatMap((line) =>
    sorted(line.yields.get(column)?.rules ?? new Map())
      .slice(0, 2)
      .map(([rule, part]) =>
        row(line.name, percent(part, droppedBy(line)), `\`${shorten(rule)}\``),
      ),
  );
  return [head('ruleset', '% of its drops', 'held back by'), ...rows].join('\n');
}

function sorted(tally: Tally): readonly (readonly [string, number])[] {
  return [...tally].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
}

function shorten(rule: string): string {
  const line = rule.replaceAll('|', '\\|');
  return line.length > 100 ? `${line.slice(0, 97)}...` : line;
}

function rulesetTable(lines: readonly Line[]): string {
  const rows = lines.map((line) => {
    const dropped = droppedBy(line);
    const open = line.judged.filter(({ outcome }) => outcome.verdict === 'unknown').length;
    const cells = COLUMNS.map((column) => percent(sum(line.yields.get(column)?.dropped), dropped));
    const { role, device } = line.machine.facts;
    const shares = [percent(dropped, line.frames), percent(open, line.frames)];
    return row(line.name, `${role} ${device}`, ...shares, ...cells);
  });
  const all = allDrops(lines);
  const totals = COLUMNS.map((column) => percent(totalOf(lines, column), all));
  const title = head('ruleset', 'machine', 'drops', 'open', ...COLUMNS);
  return [title, ...rows, row('**all**', '', '', '', ...totals)].join('\n');
}

function classTable(lines: readonly Line[]): string {
  const rows = MIX.map(({ name, share, why }) => {
    const dropped = lines
      .flatMap(({ judged }) => judged)
      .filter(({ kind, outcome }) => kind === name && outcome.verdict === 'drop').length;
    const part = (column: string): string => {
      const counts = lines.map(({ yields }) => yields.get(column)?.dropped.get(name) ?? 0);
      return percent(
        counts.reduce((total, one) => total + one, 0),
        dropped,
      );
    };
    return row(name, share, why, ...COLUMNS.map(part));
  });
  return [head('class', 'share', 'what', ...COLUMNS), ...rows].join('\n');
}

function reasonTable(lines: readonly Line[], column: string): string {
  const frames: Tally = new Map();
  const rulesets: Tally = new Map();
  for (const { yields } of lines) {
    for (const [reason, part] of yields.get(column)?.reasons ?? []) {
      count(frames, reason, part);
      count(rulesets, reason);
    }
  }
  const all = allDrops(lines);
  const rows = sorted(frames)
    .slice(0, MOST_REASONS)
    .map(([reason, part]) => row(percent(part, all), rulesets.get(reason) ?? 0, reason));
  return [head('% of drops', 'rulesets', 'handed on because of'), ...rows].join('\n');
}

/** Why the reference cannot tell what becomes of a frame. */
function openTable(lines: readonly Line[]): string {
  const reasons: Tally = new Map();
  for (const { outcome } of lines.flatMap(({ judged }) => judged)) {
    if (outcome.reason !== null) {
      count(reasons, `\`${outcome.reason.code}\`: ${outcome.reason.message}`);
    }
  }
  const all = lines.reduce((total, { frames }) => total + frames, 0);
  const rows = sorted(reasons).map(([reason, part]) => row(percent(part, all), reason));
  return [head('% of frames', 'open because of'), ...rows].join('\n');
}

const TITLE = 'Offload yield';

function report(lines: readonly Line[], refused: readonly string[]): string {
  return `Of the frames that a ruleset drops, the share (%) that ${values.profile} drops before it; ${values.frames} frames a ruleset
by \`npx tsx bench/yield.ts DIRECTORY\`. \`drops\`: what the ruleset drops of the mix; \`open\`: what the reference cannot tell.
Facts: all of a plausible machine, conntrack=fresh among them; reply-ports=${REPLY_PORTS.map(({ from, to }) => `${from}-${to}`)}.

Read with care: replies to flows that no first packet can have opened are left out of the mix, by a model that shares its idea of a
flow with the proof; rulesets that drop on the way out as well (the openwrt ones, made for tests) let nearly everything be
proven and weigh as much as the others.

${rulesetTable(lines)}
${refused.length === 0 ? '' : `\nNot read: ${refused.join('; ')}.\n`}
What is open, and why:

${openTable(lines)}

The mix, and the yield of each class over all rulesets:

${classTable(lines)}

What each concession adds (% of all drops), alone and when all others are granted:

${concessionTable(lines)}

What holds the rest back without concessions:

${reasonTable(lines, 'none')}

And with all of them:

${reasonTable(lines, 'all')}

${holderTable(lines, 'all')}
`;
}

const directory = positionals[0] ?? join(import.meta.dirname, '..', 'examples');
const files = readdirSync(directory)
  .filter((name) => name.endsWith('.nft'))
  .sort();
const profile = need(await loadProfile(values.profile));
const lines: Line[] = [];
const refused: string[] = [];
for (const file of files) {
  const line = await measureFile(join(directory, file), file.slice(0, -'.nft'.length), profile);
  if (typeof line === 'string') refused.push(line);
  else lines.push(line);
}
const text = report(
  lines.filter((line) => droppedBy(line) > 0),
  refused,
);
if (values.write) writeSection(TITLE, text);
else console.log(text);
const idle = lines.filter((line) => droppedBy(line) === 0).map(({ name }) => name);
if (idle.length > 0) console.log(`Rulesets that drop nothing of the mix: ${idle.join(', ')}`);
for (const { name, yields } of lines) {
  for (const [column, { wrong }] of yields) {
    if (wrong.size === 0) continue;
    console.error(`${name}, ${column}: drops what is accepted: ${JSON.stringify([...wrong])}`);
    process.exitCode = 1;
  }
}
