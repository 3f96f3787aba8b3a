import { isXdpProfile } from '../src/backends/ebpf-offload/compile.ts';
import { nothingKnown } from '../src/ir/facts.ts';
import { loadProfile } from '../src/profile/load.ts';
import type { XdpProfile } from '../src/profile/schema.ts';
import type { Result } from '../src/support/diagnostics.ts';

/** The value of a result; what is wrong ends the benchmark. */
export function need<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(({ message }) => message).join('\n'));
}

/** What programs of the host are compiled for. */
export async function loadNative(): Promise<XdpProfile> {
  const loaded = need(await loadProfile('xdp-native'));
  if (!isXdpProfile(loaded)) throw new Error('xdp-native is no XDP profile');
  return loaded;
}

/** The device of the benchmarks' rulesets. */
export const FACTS = { ...nothingKnown('eth0'), groOff: true, rxVlanOff: true };
