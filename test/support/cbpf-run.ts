import { CBPF_DEFAULTS, type CbpfOptions, compileCbpf } from '../../src/backends/cbpf/compile.ts';
import type { Ancillary } from '../../src/backends/cbpf/interpret.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import type { Dialect, LinkType } from '../../src/backends/cbpf/meaning.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { pkttypeOf } from '../../src/ir/prepare-test.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { CbpfProfile } from '../../src/profile/schema.ts';
import { readUint } from '../../src/support/bits.ts';
import { joinBytes } from './frames.ts';
import { LAB_MAC } from './lab-network.ts';
import { unwrap } from './pipeline.ts';

/** The shipped profile of classic BPF. */
export async function loadCbpfProfile(): Promise<CbpfProfile> {
  const profile = unwrap(await loadProfile('cbpf'));
  if (profile.kind !== 'cbpf') throw new Error('bug: cbpf is no cbpf profile');
  return profile;
}

/** What a program gets to see of a frame that came over the wire; null when it never does. */
export interface Sight {
  readonly packet: Uint8Array;
  readonly beside: Ancillary;
}

/** As a packet socket: the kernel has taken one tag out and keeps it beside (skb_vlan_untag()). */
function untag(frame: Uint8Array, mac: bigint | null): Sight {
  const packet = parsePacket(frame);
  const { ingress, tags } = packet;
  const type = Math.max(0, pkttypeOf(packet, mac));
  const whole = frame.length >= 20;
  if (tags === 0 || !whole) return { packet: frame, beside: { type, proto: ingress.protocol } };
  const word = (at: number): number => ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0);
  return {
    packet: joinBytes(frame.subarray(0, 12), frame.subarray(16)),
    beside: {
      ...{ type, proto: ingress.protocol, vlan_avail: 1 },
      ...{ vlan_tci: word(14), vlan_tpid: word(12) },
    },
  };
}

/** `struct sll2_header` of libpcap (pcap/sll.h) in front of the network header. */
function cook(frame: Uint8Array): Uint8Array {
  const header = new Uint8Array(20);
  header.set(frame.subarray(12, 14), 0);
  return joinBytes(header, frame.subarray(14));
}

/** `mac` is the receiving device's own address. */
export function sightOf(
  frame: Uint8Array,
  linkType: LinkType,
  dialect: Dialect,
  mac: bigint | null = readUint(LAB_MAC, 0, 6),
): Sight | null {
  if (frame.length < 14) return null;
  switch (linkType) {
    case 'EN10MB':
      return dialect === 'linux' ? untag(frame, mac) : { packet: frame, beside: {} };
    case 'LINUX_SLL2':
      return { packet: cook(frame), beside: {} };
    case 'RAW': {
      // Where IP packets are looked at, the kernel has checked and trimmed them.
      const { l3, tags } = parsePacket(frame);
      return l3 === null || tags > 0 ? null : { packet: l3.frame.subarray(l3.network), beside: {} };
    }
  }
}

/** Compiles and gives a function that says whether the program drops a frame. */
export function compileDropper(
  classifier: Classifier,
  profile: CbpfProfile,
  options: Partial<CbpfOptions> = {},
): (frame: Uint8Array) => boolean | null {
  const all = { ...CBPF_DEFAULTS, ...options };
  const artifact = unwrap(compileCbpf(classifier, profile, all));
  const machine = loadProgram(artifact.insns);
  return (frame) => {
    const sight = sightOf(frame, all.linkType, all.dialect);
    if (sight === null) return null;
    const { value } = machine(sight.packet, sight.beside);
    if (value !== all.returns.drop && value !== all.returns.continue && value !== 0) {
      throw new Error(`bug: the program returned ${value}`);
    }
    return value === all.returns.drop;
  };
}
