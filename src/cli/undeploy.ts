import type { Command } from 'commander';
import { renderUndeploy } from '../deploy/render-report.ts';
import { undeployTables } from '../deploy/tables-undo.ts';
import { undeployXdp } from '../deploy/undeploy.ts';
import { addFleetOptions, type FleetCliOptions, runOnMachines } from './fleet.ts';
import { addDeviceOption } from './machine.ts';

interface UndeployOptions extends FleetCliOptions {
  readonly dev: string;
  readonly force?: boolean;
}

async function runUndeploy(options: UndeployOptions, command: Command): Promise<void> {
  const request = { device: options.dev, force: options.force === true };
  await runOnMachines(command, options, {
    run: async ({ transport }) =>
      (await undeployTables(transport, request)) ?? undeployXdp(transport, request),
    render: renderUndeploy,
  });
}

/** `undeploy`: take our program off a device and leave it as it was. */
export function addUndeployCommand(program: Command): void {
  addFleetOptions(addDeviceOption(program.command('undeploy')), false)
    .description('take our program off a device, which is then as it was before')
    .option('--force', 'also when the record of the deployment cannot be read')
    .option('--json', 'machine-readable output')
    .action(runUndeploy);
}
