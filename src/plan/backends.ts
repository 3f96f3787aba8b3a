import { bindBackend, type Tier } from '../backends/backend.ts';
import { cbpfBackend } from '../backends/cbpf/backend.ts';
import type { CbpfArtifact } from '../backends/cbpf/compile.ts';
import { xdpBackend } from '../backends/ebpf-offload/backend.ts';
import type { XdpArtifact } from '../backends/ebpf-offload/compile.ts';
import type { TcamArtifact } from '../backends/tcam/artifact.ts';
import { tcamBackend } from '../backends/tcam/backend.ts';
import type { Profile } from '../profile/schema.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';

/** What tiers are made of. */
export type TierArtifact = XdpArtifact | CbpfArtifact | TcamArtifact;

/** Every backend, one line each. */
const BACKENDS: readonly ((profile: Profile) => Tier<TierArtifact> | null)[] = [
  (profile) => bindBackend(xdpBackend, profile),
  (profile) => bindBackend(cbpfBackend, profile),
  (profile) => bindBackend(tcamBackend, profile),
];

/** The tier that a profile describes, or why there is none. */
export function openTier(profile: Profile): Result<Tier<TierArtifact>> {
  for (const bind of BACKENDS) {
    const tier = bind(profile);
    if (tier !== null) return succeed(tier);
  }
  const message = `profile ${profile.name}: no backend for kind ${profile.kind} yet`;
  const help = 'use a profile of kind xdp-native, xdp-generic, xdp-offload, cbpf or tcam';
  return fail(errorAt('plan/tier-kind', message, { help }));
}
