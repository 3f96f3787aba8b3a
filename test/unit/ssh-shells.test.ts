import { spawn, spawnSync } from 'node:child_process';
import type { ClientChannel } from 'ssh2';
import { expect, it } from 'vitest';
import { createShellPool, openShell, type Shell } from '../../src/deploy/ssh/shells.ts';
import { formatTask, writeBytes } from '../../src/deploy/ssh/task.ts';
import { toHex } from '../../src/support/bits.ts';

/** A shell of this machine, at the end of what a channel is: a stream both ways, and one of errors. */
function localShell(): { readonly shell: Shell; readonly kill: () => unknown } {
  const child = spawn('sh', { stdio: 'pipe', detached: true });
  const channel = Object.assign(child.stdout, {
    stderr: child.stderr,
    write: (text: string) => child.stdin.write(text),
  });
  child.stdin.on('error', () => {});
  // What `openShell` uses of a channel.
  return {
    shell: openShell(channel as unknown as ClientChannel),
    kill: () => process.kill(-(child.pid ?? 0), 'SIGKILL'),
  };
}

const run = (shell: Shell, ...argv: readonly string[]) => shell.run(formatTask(argv));

it('a shell tells output, errors and exit status of one command from the next', async () => {
  const { shell, kill } = localShell();
  const noisy = 'printf "no newline"; printf "bad\\n\\n" >&2; exit 3';
  expect(await run(shell, 'sh', '-c', noisy)).toMatchObject({ code: 3, stderr: 'bad\n\n' });
  const words = ['$(id)', "a'b", '-n', 'x\ny', '', '\\', '*', ';exit 9'];
  const said = await run(shell, 'printf', '%s|', ...words);
  expect(said.stdout.toString()).toBe(words.map((word) => `${word}|`).join(''));
  const bytes = await run(shell, 'sh', '-c', 'head -c 300000 /dev/zero');
  expect(bytes.stdout).toHaveLength(300_000);
  // Its input is empty, not the commands that follow.
  expect((await run(shell, 'cat')).stdout).toHaveLength(0);
  expect((await run(shell, 'exit', '1')).code).toBe(127);
  expect((await run(shell, '/bin/sh', '-c', 'kill -9 $$')).code).toBe(137);
  kill();
});

it('a shell runs scripts itself, with their words and their input', async () => {
  const { shell, kill } = localShell();
  const script = 'cd / && umask 077 && x=1\ncat; printf "%s|" "$@"; exit 5';
  const words = ['$(id)', "a'b", '-n', 'x\ny', '', '\\', '*'];
  const said = await shell.run(formatTask(['sh', '-c', script, 'sh', ...words], 'in %s \\0101\n'));
  expect(said.code).toBe(5);
  expect(said.stdout.toString()).toBe(`in %s \\0101\n${words.map((word) => `${word}|`).join('')}`);
  // It leaves nothing behind in the shell.
  const after = await shell.run(formatTask(['sh', '-c', 'echo "$PWD $# $x."', 'sh', 'one']));
  expect(after.stdout.toString()).toBe(`${process.cwd()} 1 .\n`);
  kill();
});

it.each(['dash', 'bash'])('%s writes bytes as they are', (program) => {
  const all = Uint8Array.from({ length: 20_000 }, (_, index) => (index * 7 + (index >> 8)) & 0xff);
  for (const content of [all, new Uint8Array(), Buffer.from("\\0'%s\n\\c-")]) {
    const { stdout } = spawnSync(program, { input: writeBytes(content) });
    expect(toHex(stdout)).toBe(toHex(content));
  }
});

it('a shell that ends leaves nobody waiting, and another one takes its place', async () => {
  const opened: (() => unknown)[] = [];
  const pool = createShellPool(async () => {
    const { shell, kill } = localShell();
    opened.push(kill);
    return shell;
  });
  expect((await pool.run("'true'")).code).toBe(0);
  const waiting = pool.run("'sleep' '60'");
  const beside = await pool.run("'true'");
  expect([beside.code, opened.length]).toEqual([0, 2]);
  for (const kill of opened) kill();
  expect((await waiting).code).toBeNull();
  // The end of the other one may not have been heard of yet.
  await expect.poll(async () => (await pool.run("'true'")).code).toBe(0);
  expect(opened).toHaveLength(3);
  opened.at(-1)?.();
});
