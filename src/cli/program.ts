import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { OutputConfiguration } from 'commander';
import { Command } from 'commander';
import { z } from 'zod';
import { addCompileCommand } from './compile.ts';
import { addConfirmCommand, addRollbackCommand } from './confirm.ts';
import { addDeployCommand } from './deploy.ts';
import { addExplainCommand } from './explain.ts';
import { addPlanCommand } from './plan.ts';
import { addProfilesCommand } from './profiles.ts';
import { addStatusCommand } from './status.ts';
import { addTraceCommand } from './trace.ts';
import { addUndeployCommand } from './undeploy.ts';

function readVersion(): string {
  const file = join(import.meta.dirname, '..', '..', 'package.json');
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(file, 'utf8'))).version;
}

/** The whole command line; wrong usage throws a CommanderError instead of ending the process. */
export function createProgram(output: OutputConfiguration = {}): Command {
  const program = new Command('nft-offload')
    .description('nftables rulesets on hardware: what can move, why the rest cannot, and moving it')
    .version(readVersion())
    .exitOverride()
    .configureOutput(output)
    .showHelpAfterError('(--help shows the usage)');
  // Subcommands inherit the settings above, so they come last.
  addPlanCommand(program);
  addExplainCommand(program);
  addCompileCommand(program);
  addTraceCommand(program);
  addDeployCommand(program);
  addStatusCommand(program);
  addConfirmCommand(program);
  addRollbackCommand(program);
  addUndeployCommand(program);
  addProfilesCommand(program);
  return program;
}
