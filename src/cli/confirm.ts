import { type Command, InvalidArgumentError, Option } from 'commander';
import { confirmXdp } from '../deploy/confirm.ts';
import { renderConfirm, renderRollback } from '../deploy/render-report.ts';
import { rollbackXdp } from '../deploy/rollback.ts';
import { confirmTables, rollbackTables } from '../deploy/tables-undo.ts';
import { addFleetOptions, type FleetCliOptions, runOnMachines } from './fleet.ts';
import { addDeviceOption } from './machine.ts';

interface ConfirmOptions extends FleetCliOptions {
  readonly dev: string;
}

interface RollbackOptions extends ConfirmOptions {
  readonly to?: number;
  readonly force?: boolean;
}

async function runConfirm(options: ConfirmOptions, command: Command): Promise<void> {
  await runOnMachines(command, options, {
    run: async ({ transport }) =>
      (await confirmTables(transport, { device: options.dev })) ??
      confirmXdp(transport, { device: options.dev }),
    render: renderConfirm,
  });
}

async function runRollback(options: RollbackOptions, command: Command): Promise<void> {
  const { dev, to = null, force = false } = options;
  await runOnMachines(command, options, {
    run: async ({ transport }) => {
      const request = { device: dev, to, force };
      return (await rollbackTables(transport, request)) ?? rollbackXdp(transport, request);
    },
    render: renderRollback,
  });
}

function parseGeneration(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('A number that `status` lists.');
}

/** `confirm`: keep a deployment that the machine would take back by itself. */
export function addConfirmCommand(program: Command): void {
  addFleetOptions(addDeviceOption(program.command('confirm')), false)
    .description('keep what `deploy --confirm` put there for a while')
    .option('--json', 'machine-readable output')
    .action(runConfirm);
}

/** `rollback`: out of a deployment that is not confirmed, else to the one before. */
export function addRollbackCommand(program: Command): void {
  addFleetOptions(addDeviceOption(program.command('rollback')), false)
    .description('go back to what was deployed before')
    .addOption(new Option('--to <GENERATION>', 'to that deployment').argParser(parseGeneration))
    .option('--force', 'also over programs of others, and where the mode changes with a gap')
    .option('--json', 'machine-readable output')
    .action(runRollback);
}
