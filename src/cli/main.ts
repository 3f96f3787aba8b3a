#!/usr/bin/env node
import { CommanderError } from 'commander';
import { EXIT } from './exit.ts';
import { createProgram } from './program.ts';

/** A reader that has seen enough (`| head`) is no error. */
function endQuietlyOnClosedPipe(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(EXIT.done);
    throw error;
  });
}

/** One line for what should never happen; the stack only where it is asked for. */
function reportBug(error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  const line = text.split('\n')[0] ?? '';
  console.error(line.startsWith('bug: ') ? line : `bug: ${line}`);
  if (process.env['NFT_OFFLOAD_DEBUG'] === '1' && error instanceof Error)
    console.error(error.stack);
  process.exitCode = EXIT.refused;
}

endQuietlyOnClosedPipe(process.stdout);
endQuietlyOnClosedPipe(process.stderr);
process.on('uncaughtException', (error) => {
  reportBug(error);
  process.exit();
});

try {
  const words = process.argv.slice(2);
  const program = await createProgram(words);
  await program.parseAsync(words, { from: 'user' });
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has said what is wrong; help and version end with 0.
    process.exitCode = error.exitCode === 0 ? EXIT.done : EXIT.usage;
  } else reportBug(error);
}
