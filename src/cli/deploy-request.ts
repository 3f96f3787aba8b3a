import { createHash } from 'node:crypto';
import { PROGRAM, type XdpArtifact } from '../backends/ebpf-offload/compile.ts';
import type { XdpMode } from '../deploy/attachment.ts';
import type { DeployRequest } from '../deploy/deploy.ts';
import type { DeployedBase, InPlaceBase } from '../deploy/in-place.ts';
import { type CounterOwner, ownerOf } from '../deploy/owner-counts.ts';
import type { SelfTestFrame } from '../deploy/self-test.ts';
import { formatRuleId, type Ruleset } from '../ir/ruleset.ts';
import { makeCheckFrames } from '../plan/check-frames.ts';
import { type PlacedTier, placeXdp, type Situation } from '../plan/place.ts';
import type { Profile } from '../profile/schema.ts';
import { toHex } from '../support/bits.ts';
import { type Result, succeed } from '../support/diagnostics.ts';

/** Options that say what is asked of a machine. */
export interface RequestOptions {
  readonly mode: XdpMode;
  readonly force?: boolean;
  readonly confirm?: number;
  readonly basis?: string;
}

type PlacedXdp = PlacedTier & { readonly artifact: XdpArtifact };

/** Big integers as text. */
function toText(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'bigint' ? part.toString(16) : part,
  );
}

/** Tells rulesets apart; independent of how they were read. */
export function checksumOf(ruleset: Ruleset): string {
  return createHash('sha256').update(toText(ruleset)).digest('hex');
}

/** The batch that fills the program's sets, or null when it is complete by itself. */
function mapsOf({ files }: XdpArtifact): string | null {
  const file = files.find(({ suffix }) => suffix === '.maps');
  return file === undefined ? null : new TextDecoder().decode(file.content);
}

/** Frames that try the program out, what they count by slot of its counters. */
function framesOf(placed: PlacedXdp, { facts, concessions }: Situation): readonly SelfTestFrame[] {
  const { owners } = placed.artifact;
  const { counters } = placed.artifact.classifier;
  const slotOf = new Map(owners.map((owner, slot) => [owner, slot]));
  // With that concession the program may count less.
  const isExact = !concessions.includes('counters');
  return makeCheckFrames(placed, facts).frames.map(({ frame, drops, counts, rule }) => ({
    ...{ frame: toHex(frame), drops, rule },
    counts: [...(isExact ? counts : [])].flatMap(([index, count]) => {
      const owner = counters[index];
      const slot = owner === undefined ? undefined : slotOf.get(owner);
      return slot === undefined ? [] : [{ slot, ...count }];
    }),
  }));
}

/** Rules that the program decides or counts for, in order, each once. */
function rulesOf({ artifact }: PlacedXdp): readonly string[] {
  const lines = artifact.classifier.entries.flatMap(({ rule, label, then, counts }) => {
    if (rule === null || (then.kind !== 'drop' && counts.length === 0)) return [];
    return [[formatRuleId(rule), `${rule.family} ${rule.table} ${rule.chain}: ${label}`] as const];
  });
  return [...new Map(lines).values()];
}

/** Who counts in each slot; what rules counted that are gone and had no handle belongs to their chain. */
function ownersOf({ owners, live }: XdpArtifact): readonly CounterOwner[] {
  return owners.map((counter, slot) => {
    const owner = ownerOf(counter);
    const isGone = live?.counters?.retired.has(slot) === true && owner.name === null;
    return isGone && owner.handle === null ? { ...owner, index: null } : owner;
  });
}

function requestOf(
  placed: PlacedXdp,
  situation: Situation,
  rulesetChecksum: string,
  options: RequestOptions,
  base: InPlaceBase | null,
): DeployRequest {
  const { artifact } = placed;
  const { patch, live } = artifact;
  const { device } = situation.facts;
  return {
    device,
    mode: options.mode,
    elf: artifact.elf,
    program: PROGRAM,
    maps: mapsOf(artifact),
    counters: artifact.counters,
    owners: ownersOf(artifact),
    rulesetChecksum,
    frames: framesOf(placed, situation),
    rules: rulesOf(placed),
    basis: options.basis ?? null,
    force: options.force === true,
    origin: null,
    confirm: options.confirm ?? null,
    ...(patch === null || base === null ? {} : { update: { base, patch } }),
    ...(live === null ? {} : { live: { program: live, tables: live.generation } }),
  };
}

/** The same for situations that compile to the same; with it, the checksum of the ruleset. */
export function keyOfSituation({ ruleset, ...rest }: Situation): string {
  return `${checksumOf(ruleset)} ${toText(rest)}`;
}

/** Compiles for the device of one machine, where it may, as a change of what runs there. */
export type CompileForDevice = (
  situation: Situation,
  running?: DeployedBase | null,
) => Result<DeployRequest>;

/** Compiles for machines; those that have the same ruleset and facts get the same. */
export function createCompiler(profile: Profile, options: RequestOptions): CompileForDevice {
  const known = new Map<string, Result<DeployRequest>>();
  const hook = options.mode === 'offload-tc' ? 'tc' : 'xdp';
  return (situation, running = null) => {
    const { ruleset, ...rest } = situation;
    const checksum = checksumOf(ruleset);
    if (running !== null) {
      const { base, live } = running;
      const changed = placeXdp({ ...situation, hook, base: live }, profile);
      return changed.ok
        ? succeed(requestOf(changed.value, situation, checksum, options, base), changed.diagnostics)
        : changed;
    }
    const key = `${checksum} ${toText(rest)}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    const placed = placeXdp({ ...situation, hook }, profile);
    const compiled = placed.ok
      ? succeed(requestOf(placed.value, situation, checksum, options, null), placed.diagnostics)
      : placed;
    known.set(key, compiled);
    return compiled;
  };
}
