import { type Diagnostic, fail, type Result } from '../support/diagnostics.ts';
import type { Transport } from './transport.ts';

/** What a NIC's driver says, and what to do about it. */
interface Explanation {
  readonly said: RegExp;
  readonly code: string;
  readonly help: string;
}

const OWN_PROFILE = 'in a copy of the profile (`profiles show NAME --json`) and use that';

/*
 * nfp: drivers/net/ethernet/netronome/nfp/bpf/{verifier,jit,offload,main}.c; netdevsim:
 * drivers/net/netdevsim/bpf.c. The most telling first.
 */
const EXPLANATIONS: readonly Explanation[] = [
  {
    said: /instruction limit reached|program too long/,
    code: 'deploy/nic-too-long',
    help: `this firmware takes fewer instructions than the profile says: lower limits.deviceInsns ${OWN_PROFILE}`,
  },
  {
    said: /stack too large/,
    code: 'deploy/nic-stack',
    help: `this firmware has less stack than the profile says: lower limits.stack ${OWN_PROFILE}`,
  },
  {
    said: /TC offload is disabled/,
    code: 'deploy/nic-tc-off',
    help: 'the device takes no filters as it is: `ethtool -K IF hw-tc-offload on`',
  },
  {
    said: /HW packet split boundary/,
    code: 'deploy/nic-packet-depth',
    help: `lower the device's MTU (\`ip link set dev IF mtu 1500\`), or limits.packetDepth ${OWN_PROFILE}`,
  },
  {
    said: /live reload/,
    code: 'deploy/nic-no-replace',
    help: 'this firmware cannot exchange programs: undeploy, then deploy again',
  },
  {
    said: /not supported by FW|FW requires/,
    code: 'deploy/nic-firmware',
    help: 'load the BPF firmware of the card (agilio-bpf-firmware); `profiles probe` shows what it runs',
  },
  {
    said: /map with too many|map elements too large|map (key|value) size|map (type|flags)|too many maps|failed to create/,
    code: 'deploy/nic-maps',
    help: `the device's maps hold less than the profile says: lower limits.maps ${OWN_PROFILE}`,
  },
  {
    said: /attached to the netdev|netdev has program|already (bound|loaded|attached)|Device or resource busy/,
    code: 'deploy/nic-busy',
    help: 'another program (XDP or cls_bpf) is in the NIC: take it off first',
  },
  {
    said: /\[(nfp|netdevsim)\]/,
    code: 'deploy/nic-refused',
    help: 'the driver refuses an instruction: is the profile the one of this NIC? `profiles probe` tells',
  },
  {
    said: /Operation not supported|not supported|Invalid argument/,
    code: 'deploy/nic-unsupported',
    help: 'the driver or its firmware takes no programs like this one; `profiles probe` tells which device this is',
  },
];

/** Lines of the kernel's log that a driver may have written about a program. */
const OURS = /nfp|netdevsim|bpf|offload|translation/i;
const KEPT_LINES = 6;

async function readKernelLog(transport: Transport): Promise<readonly string[]> {
  const { code, stdout } = await transport.run(['dmesg']);
  return code === 0 ? stdout.split('\n') : [];
}

/** Begins to watch the kernel's log; the result gives what was added since. */
export async function watchKernelLog(
  transport: Transport,
): Promise<() => Promise<readonly string[]>> {
  const before = await readKernelLog(transport);
  const last = before.filter((line) => line !== '').at(-1);
  return async () => {
    const after = await readKernelLog(transport);
    const from = last === undefined ? 0 : after.lastIndexOf(last) + 1;
    return after
      .slice(from)
      .filter((line) => OURS.test(line))
      .slice(-KEPT_LINES);
  };
}

function explain(diagnostic: Diagnostic, log: readonly string[]): Diagnostic {
  const message = [diagnostic.message, ...log].join('\n');
  const explanation = EXPLANATIONS.find(({ said }) => said.test(message));
  if (explanation === undefined) return { ...diagnostic, message };
  const { code, help } = explanation;
  return { ...diagnostic, code, message, help: `nothing was changed; ${help}` };
}

/** A step that the NIC's driver refused, with what it wrote to the kernel's log and what to change. */
export function explainDriver(
  failure: Extract<Result<unknown>, { ok: false }>,
  log: readonly string[],
): Result<never> {
  return fail(...failure.diagnostics.map((diagnostic) => explain(diagnostic, log)));
}
