import type { Command } from 'commander';
import { renderUndeploy } from '../deploy/render-report.ts';
import { openLocalTransport } from '../deploy/transport.ts';
import { undeployXdp } from '../deploy/undeploy.ts';
import { unwrapResult } from './exit.ts';
import { addDeviceOption } from './options.ts';

interface UndeployOptions {
  readonly dev: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

async function runUndeploy({ dev, force, json }: UndeployOptions): Promise<void> {
  const request = { device: dev, force: force === true };
  const report = unwrapResult(await undeployXdp(openLocalTransport(), request));
  if (report === null) return;
  console.log(json ? JSON.stringify(report, null, 2) : renderUndeploy(report));
}

/** `undeploy`: take our program off a device and leave it as it was. */
export function addUndeployCommand(program: Command): void {
  addDeviceOption(program.command('undeploy'))
    .description('take our program off a device, which is then as it was before')
    .option('--force', 'also when the record of the deployment cannot be read')
    .option('--json', 'machine-readable output')
    .action(runUndeploy);
}
