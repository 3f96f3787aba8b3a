import {
  type CompileOptions,
  compileXdp,
  isXdpProfile,
  type XdpArtifact,
} from '../../src/backends/ebpf-offload/compile.ts';
import { dialectOf } from '../../src/backends/ebpf-offload/dialect.ts';
import { fillMemory } from '../../src/backends/ebpf-offload/fill.ts';
import { HOOKS } from '../../src/backends/ebpf-offload/hook.ts';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { type Facts, nothingKnown } from '../../src/ir/facts.ts';
import { flatten } from '../../src/ir/flatten.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { readListing } from '../../src/nft/read-listing.ts';
import { placeXdp } from '../../src/plan/place.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { XdpProfile } from '../../src/profile/schema.ts';
import { formatDiagnostic, type Result } from '../../src/support/diagnostics.ts';
import { parseIp, parseIp6 } from './addresses.ts';
import type { KernelLab } from './kernel-lab.ts';
import { LAB_ADDRESSES, LAB_MAC } from './lab-network.ts';
import { ORACLE_TABLE } from './lab-oracle.ts';

function toInteger(bytes: Uint8Array): bigint {
  return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

/** The value, or an error that shows every diagnostic. */
export function unwrap<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(formatDiagnostic).join('\n'));
}

/** What is true of the lab's receiver. */
export function labFacts(role: Facts['role']): Facts {
  const addresses = Object.values(LAB_ADDRESSES);
  return {
    ...nothingKnown('eth0'),
    role,
    localAddresses: addresses.flatMap(({ ip, ip6 }) => [
      { version: 4 as const, value: toInteger(parseIp(ip)) },
      { version: 6 as const, value: toInteger(parseIp6(ip6)) },
    ]),
    mac: toInteger(LAB_MAC),
    groOff: true,
    rpFilterOff: true,
    routed: true,
    rxVlanOff: true,
  };
}

/** The ruleset that the lab has loaded, as our own reader sees it, without the oracle's tables. */
export async function readLabRuleset(lab: KernelLab): Promise<Ruleset> {
  const listing = await lab.run('nft', '-j', '--debug=netlink', 'list', 'ruleset');
  const chains = await lab.run('nft', 'list', 'chains');
  const ruleset = unwrap(readListing(listing, chains, 'lab'));
  return { tables: ruleset.tables.filter(({ name }) => name !== ORACLE_TABLE) };
}

export interface Pipeline {
  readonly classifier: Classifier;
  readonly artifact: XdpArtifact;
  /** Some frames continue only because too many counters stand before what decides them. */
  readonly isCrowded: boolean;
  /** The tier had not room for all that it could decide. */
  readonly isCut: boolean;
  /** Instructions are scarce: IPv6 packets with extension headers continue. */
  readonly isScarce: boolean;
  /** Runs our interpreter on a frame; true is a drop. */
  readonly drops: (frame: Uint8Array) => boolean;
  /** Packets and bytes of the program's counters so far, by slot. */
  readonly counted: () => readonly (readonly [packets: bigint, bytes: bigint])[];
}

/** The profile with room for whatever is tested: what fits is another question. */
function withRoom(profile: XdpProfile): XdpProfile {
  const { deviceInsns, stack } = profile.limits;
  if (deviceInsns === undefined) return profile;
  const limits = {
    ...profile.limits,
    deviceInsns: { ...deviceInsns, value: 1_000_000 },
    stack: { ...stack, value: 512 },
  };
  return { ...profile, limits };
}

/** The whole program, or what `plan` takes where there is room for a share of its instructions only. */
/** What else a program may be compiled for. */
type How = Pick<CompileOptions, 'hook' | 'structure'>;

async function compileShare(
  ruleset: Ruleset,
  facts: Facts,
  profileName: string,
  share: number,
  how: How,
): Promise<Pick<Pipeline, 'classifier' | 'artifact' | 'isCrowded' | 'isCut' | 'isScarce'>> {
  const { classifier } = flatten(ruleset, facts);
  const profile = unwrap(await loadProfile(profileName));
  if (!isXdpProfile(profile)) throw new Error(`${profileName} is no XDP profile`);
  const compiled = compileXdp(classifier, withRoom(profile), how);
  const artifact = unwrap(compiled);
  const isCrowded = ({ diagnostics }: Result<unknown>): boolean =>
    diagnostics.some(({ code }) => code === 'ebpf/pending-counters');
  const isScarce = !dialectOf(profile).walksExtensions;
  if (share === 1) {
    return { classifier, artifact, isCrowded: isCrowded(compiled), isCut: false, isScarce };
  }
  const value = Math.floor(share * (artifact.usage[0]?.used ?? 0));
  const limits = { ...profile.limits, insns: { ...profile.limits.insns, value } };
  const situation = { ruleset, facts, concessions: [], replyPorts: null, ...how };
  const placed = placeXdp(situation, { ...profile, limits });
  const { flattened, artifact: cut, choice } = unwrap(placed);
  const isCut = choice !== null;
  const whole = flattened.classifier;
  return { classifier: whole, artifact: cut, isCrowded: isCrowded(placed), isCut, isScarce };
}

/** Ruleset to program, with our interpreter around it. */
export async function runPipeline(
  ruleset: Ruleset,
  facts: Facts,
  profileName = 'xdp-native',
  share = 1,
  how: How = {},
): Promise<Pipeline> {
  const compiled = await compileShare(ruleset, facts, profileName, share, how);
  const { artifact } = compiled;
  const memory = createMemory(artifact.object.maps, artifact.object.data);
  const machine = loadProgram(artifact.assembly, memory);
  fillMemory(memory, artifact.sets);
  return {
    ...compiled,
    drops: (frame) => machine.run(frame).action === HOOKS[how.hook ?? 'xdp'].drop,
    counted: () => {
      const { counters } = artifact;
      if (counters === null) return [];
      const map = memory.maps.get(counters.map);
      return Array.from({ length: counters.slots }, (_, slot) => {
        const key = new Uint8Array(4);
        new DataView(key.buffer).setUint32(0, Math.floor(slot / counters.slotsPerEntry), true);
        const value = map?.read(key) ?? new Uint8Array(0);
        const view = new DataView(
          value.buffer,
          value.byteOffset + (slot % counters.slotsPerEntry) * 16,
        );
        return [view.getBigUint64(0, true), view.getBigUint64(8, true)] as const;
      });
    },
  };
}
