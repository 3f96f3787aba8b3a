import type { Command } from 'commander';
import { renderStatus } from '../deploy/render-status.ts';
import { statusXdp } from '../deploy/status.ts';
import { statusTables } from '../deploy/tables-status.ts';
import { addFleetOptions, type FleetCliOptions, runOnMachines } from './fleet.ts';
import { addDeviceOption } from './machine.ts';

interface StatusOptions extends FleetCliOptions {
  readonly dev: string;
}

async function runStatus(options: StatusOptions, command: Command): Promise<void> {
  await runOnMachines(command, options, {
    run: async ({ transport }) =>
      (await statusTables(transport, { device: options.dev })) ??
      statusXdp(transport, { device: options.dev }),
    render: renderStatus,
  });
}

/** `status`: what is attached, and counters of hardware and nftables added up. */
export function addStatusCommand(program: Command): void {
  addFleetOptions(addDeviceOption(program.command('status')), false)
    .description('say what is attached, and add up the counters of hardware and nftables')
    .option('--json', 'machine-readable output')
    .action(runStatus);
}
