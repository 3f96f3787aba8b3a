import { expect, it } from 'vitest';
import { explainDriver, watchKernelLog } from '../../src/deploy/driver-errors.ts';
import type { Transport } from '../../src/deploy/transport.ts';
import { errorAt } from '../../src/support/diagnostics.ts';

function refusal(message: string) {
  return { ok: false, diagnostics: [errorAt('deploy/load-failed', message)] } as const;
}

// As nfp and netdevsim of Linux 6.1 say it: measured in test/lab and behind nfpsim.
it.each([
  ['Error: nfp: program too long.', 'deploy/nic-too-long', 'limits.deviceInsns'],
  ['[nfp] stack too large: program 320B > FW stack 256B', 'deploy/nic-stack', 'limits.stack'],
  [
    'Error: nfp: BPF offload not supported with potential packet access beyond HW packet split boundary.',
    'deploy/nic-packet-depth',
    'mtu 1500',
  ],
  ['Error: nfp: FW does not support live reload.', 'deploy/nic-no-replace', 'undeploy'],
  ['[nfp] map_lookup: not supported by FW', 'deploy/nic-firmware', 'firmware'],
  [
    "libbpf: map 'counters': failed to create: Cannot allocate memory(-12)",
    'deploy/nic-maps',
    'limits.maps',
  ],
  ['[nfp] multiplier is not within u32 value range', 'deploy/nic-refused', 'profile'],
  ['Error: bpftool: Device or resource busy', 'deploy/nic-busy', 'take it off'],
  ['failed to load object: Operation not supported', 'deploy/nic-unsupported', 'profiles probe'],
])('explains what a driver says: %s', (said, code, help) => {
  const [explained] = explainDriver(refusal(said), []).diagnostics;
  expect(explained).toMatchObject({ code });
  expect(explained?.help).toContain(help);
  expect(explained?.message).toContain(said);
});

it('leaves alone what it does not know', () => {
  const { diagnostics } = explainDriver(refusal('no space left'), []);
  expect(diagnostics).toEqual(refusal('no space left').diagnostics);
});

it('reads what was added to the log of the kernel meanwhile', async () => {
  const logs = ['[1] nfp: old\n', '[1] nfp: old\n[2] eth0: up\n[3] NFP net bpf: map key size 60\n'];
  const transport = {
    run: async () => ({ code: 0, stdout: logs.shift() ?? '', stderr: '' }),
  } as unknown as Transport; // only `run` is used
  const added = await (await watchKernelLog(transport))();
  expect(added).toEqual(['[3] NFP net bpf: map key size 60']);
  const [explained] = explainDriver(refusal('Invalid argument'), added).diagnostics;
  expect(explained).toMatchObject({ code: 'deploy/nic-maps' });
});
