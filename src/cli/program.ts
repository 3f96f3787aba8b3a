import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { OutputConfiguration } from 'commander';
import { Command } from 'commander';
import { z } from 'zod';

/** Adds one command to the program. */
type AddCommand = (program: Command) => void;

/** Every command, in the order of the help; a run loads the code of its own command only. */
const COMMANDS: Readonly<Record<string, () => Promise<AddCommand>>> = {
  plan: async () => (await import('./plan.ts')).addPlanCommand,
  explain: async () => (await import('./explain.ts')).addExplainCommand,
  compile: async () => (await import('./compile.ts')).addCompileCommand,
  trace: async () => (await import('./trace.ts')).addTraceCommand,
  verify: async () => (await import('./verify.ts')).addVerifyCommand,
  deploy: async () => (await import('./deploy.ts')).addDeployCommand,
  status: async () => (await import('./status.ts')).addStatusCommand,
  confirm: async () => (await import('./confirm.ts')).addConfirmCommand,
  rollback: async () => (await import('./confirm.ts')).addRollbackCommand,
  undeploy: async () => (await import('./undeploy.ts')).addUndeployCommand,
  watch: async () => (await import('./watch.ts')).addWatchCommand,
  profiles: async () => (await import('./profiles.ts')).addProfilesCommand,
};

function readVersion(): string {
  const file = join(import.meta.dirname, '..', '..', 'package.json');
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(file, 'utf8'))).version;
}

/** The command that the words begin with, or all of them: for the help, and for what is misspelt. */
async function loadCommands(words: readonly string[]): Promise<readonly AddCommand[]> {
  const [first = ''] = words;
  const named = Object.hasOwn(COMMANDS, first) ? COMMANDS[first] : undefined;
  const loads = named === undefined ? Object.values(COMMANDS) : [named];
  return Promise.all(loads.map((load) => load()));
}

/**
 * The command line for these words (without the program's name); wrong usage throws a CommanderError
 * instead of ending the process.
 */
export async function createProgram(
  words: readonly string[],
  output: OutputConfiguration = {},
): Promise<Command> {
  const program = new Command('nft-offload')
    .description('nftables rulesets on hardware: what can move, why the rest cannot, and moving it')
    .version(readVersion())
    .exitOverride()
    .configureOutput(output)
    .showHelpAfterError('(--help shows the usage)');
  // Subcommands inherit the settings above, so they come last.
  for (const add of await loadCommands(words)) add(program);
  return program;
}
