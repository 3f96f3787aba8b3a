import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { quoteWords } from '../../src/deploy/shell.ts';
import {
  type CommandResult,
  openLocalTransport,
  type Transport,
} from '../../src/deploy/transport.ts';
import { type LabRun, runInLab } from './lab.ts';

/** The lab's kernel as a machine that is deployed to, until `close`. */
export interface LabMachine {
  readonly transport: Transport;
  /** One line of shell, which has to succeed; its standard output. */
  sh(script: string): Promise<string>;
  close(): Promise<LabRun>;
}

/** Milliseconds between two looks for an answer. */
const PAUSE = 10;

/**
 * Runs `N.ask` with `N.in` as input as soon as `N.go` is there, one after the other, until `end` is;
 * the answer is in `N.out`, `N.err` and, complete when it appears, `N.code`. In perl, since starting
 * a process takes long in there, and a shell needs one to wait.
 */
const SERVE = `perl -e '
for (my $n = 0; !-e "end"; ) {
  if (!-e "$n.go") { select undef, undef, undef, 0.01; next }
  my $code = system("/bin/sh", "-c", "exec <$n.in >$n.out 2>$n.err; . ./$n.ask") >> 8;
  open my $file, ">", "$n.tmp";
  print $file $code;
  close $file;
  rename "$n.tmp", "$n.code";
  $n++;
}'`;

/** Boots the lab's kernel and prepares it by a script; commands and answers are files in `folder`. */
export function openLabMachine(folder: string, prepare: string): LabMachine {
  const local = openLocalTransport();
  let isOver = false;
  const booted = runInLab(`${prepare}\n${SERVE}`, folder).finally(() => {
    isOver = true;
  });
  let count = 0;
  const ask = async (script: string, input: string): Promise<CommandResult> => {
    const file = (suffix: string): string => join(folder, `${count}.${suffix}`);
    writeFileSync(file('in'), input);
    writeFileSync(file('ask'), script);
    writeFileSync(file('tmp'), '');
    renameSync(file('tmp'), file('go'));
    while (!existsSync(file('code'))) {
      if (isOver) throw new Error(`the lab ended: ${(await booted).stderr}`);
      await sleep(PAUSE);
    }
    const read = (suffix: string): string => readFileSync(file(suffix), 'utf8');
    const result = { code: Number(read('code')), stdout: read('out'), stderr: read('err') };
    count += 1;
    return result;
  };
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = (script: string, input: string): Promise<CommandResult> => {
    const answer = last.then(() => ask(script, input));
    last = answer.catch(() => {});
    return answer;
  };
  return {
    transport: {
      ...local, // files are the same here and there
      run: (argv, { input = '' } = {}) => inTurn(`exec ${quoteWords(argv)}\n`, input),
    },
    async sh(script) {
      const { code, stdout, stderr } = await inTurn(script, '');
      if (code !== 0) throw new Error(`${script}: ${stderr}`);
      return stdout;
    },
    async close() {
      await last;
      writeFileSync(join(folder, 'end'), '');
      return booted;
    },
  };
}
