import { expect, it } from 'vitest';
import { probeDeployLab } from '../support/deploy-lab.ts';
import { type FaultLab, openFaultLab } from '../support/fault-lab.ts';
import { FAULTS, meetFault, prepareFaults } from '../support/meet-faults.ts';
import { runCommand } from '../support/run-command.ts';
import { probeSshLab } from '../support/ssh-lab.ts';

/** Where each fault is met, all with real processes; scripts/check-faults.ts does so at every step. */
const MEETINGS: Readonly<Record<(typeof FAULTS)[number], RegExp>> = {
  'controller killed': /^bpftool -- net attach/,
  'line cut': /^bpftool -- net attach/,
  'shell killed': /^bpftool -- net attach/,
  'session killed': /^bpftool -- prog load/,
  'program fails': /^bpftool -- net attach/,
  'disk full': /^mv .*\.history/,
  'device gone': /^mv .*eth0\.json/,
  'second deployment': /^bpftool -- prog load/,
};

it.skipIf(probeDeployLab() !== null || probeSshLab() !== null)(
  'real faults of every kind leave old or new, and one command brings order',
  async () => {
    const faults: FaultLab = await openFaultLab(true);
    const { state } = faults.host.paths;
    await runCommand('mkdir', ['-p', state]);
    await runCommand('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', state]);
    try {
      const prepared = await prepareFaults(faults, false);
      let before = prepared.policy;
      for (const fault of FAULTS) {
        const at = prepared.steps.findIndex((step) => MEETINGS[fault].test(step)) + 1;
        expect(at, fault).toBeGreaterThan(0);
        try {
          before = (await meetFault(prepared, fault, at, before)).policy;
        } catch (error) {
          throw new Error(`${fault} at step ${at}`, { cause: error });
        }
      }
    } finally {
      await faults.close();
    }
  },
);
