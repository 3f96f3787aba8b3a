import type { Command } from 'commander';
import { renderStatus } from '../deploy/render-status.ts';
import { statusXdp } from '../deploy/status.ts';
import { openLocalTransport } from '../deploy/transport.ts';
import { unwrapResult } from './exit.ts';
import { addDeviceOption } from './options.ts';

interface StatusOptions {
  readonly dev: string;
  readonly json?: boolean;
}

async function runStatus({ dev, json }: StatusOptions): Promise<void> {
  const report = unwrapResult(await statusXdp(openLocalTransport(), { device: dev }));
  if (report === null) return;
  console.log(json ? JSON.stringify(report, null, 2) : renderStatus(report));
}

/** `status`: what is attached, and counters of hardware and nftables added up. */
export function addStatusCommand(program: Command): void {
  addDeviceOption(program.command('status'))
    .description('say what is attached, and add up the counters of hardware and nftables')
    .option('--json', 'machine-readable output')
    .action(runStatus);
}
