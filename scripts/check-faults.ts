/**
 * Lets every fault befall a deployment at every program that it starts on the host, and prints what
 * came of it: `npx tsx scripts/check-faults.ts [--fault NAME] [--lanes N] [--trial] [--all]`, as root. The
 * host is a network namespace with a real sshd; the command line is a process of its own. `--trial`: deployments with --confirm; `--all`: also programs that only look.
 * Ends with 1 where something was neither old nor new, or one command did not bring order.
 */
import { parseArgs } from 'node:util';
import { changesSomething, openFaultLab } from '../test/support/fault-lab.ts';
import {
  FAULTS,
  type FaultKind,
  meetFault,
  type Policy,
  prepareFaults,
} from '../test/support/meet-faults.ts';

const { values } = parseArgs({
  options: {
    fault: { type: 'string' },
    lanes: { type: 'string', default: '4' },
    trial: { type: 'boolean', default: false },
    all: { type: 'boolean', default: false },
  },
});

/** One fault at one program. */
interface Case {
  readonly fault: FaultKind;
  readonly at: number;
  readonly step: string;
}

const isTrial = values.trial;
const rows: (readonly [order: number, row: string])[] = [];
let failed = 0;
let cases: Case[] | null = null;

/** Paths, ids and generations left aside. */
function nameStep(step: string): string {
  return step
    .replace(/\S*\/([^/\s]+)/g, '$1')
    .replace(/\d+(\.\d+)+\.tmp|\b\d+\b/g, 'N')
    .slice(0, 60);
}

async function work(): Promise<void> {
  let lab = await openFaultLab(false);
  // Small, so that it can be filled.
  const mount = async () =>
    lab.host.run(
      'sh',
      '-c',
      'mkdir -p "$1" && mount -t tmpfs -o size=512k tmpfs "$1"',
      'sh',
      lab.host.paths.state,
    );
  await mount();
  try {
    let prepared = await prepareFaults(lab, isTrial);
    let before: Policy = prepared.policy;
    const { steps } = prepared;
    const faults = FAULTS.filter((fault) => values.fault === undefined || fault === values.fault);
    cases ??= faults.flatMap((fault) =>
      steps
        .map((step, index) => ({ fault, at: index + 1, step }))
        .filter(({ step }) => values.all || changesSomething(step)),
    );
    const all = cases;
    for (let next = all.shift(); next !== undefined; next = all.shift()) {
      const { fault, at, step } = next;
      const order = FAULTS.indexOf(fault) * 1000 + at;
      try {
        const outcome = await meetFault(prepared, fault, at, before);
        before = outcome.policy;
        const { ended, device, status, order: by } = outcome;
        rows.push([
          order,
          `| ${fault} | ${at} \`${nameStep(step)}\` | ${ended} | ${device} | ${status} | ${by} |`,
        ]);
      } catch (error) {
        failed += 1;
        rows.push([
          order,
          `| ${fault} | ${at} \`${nameStep(step)}\` | **${error instanceof Error ? error.message.slice(0, 600) : String(error)}** | | | |`,
        ]);
        // Begins afresh: what it left says nothing about the next case.
        await lab.close();
        lab = await openFaultLab(false);
        await mount();
        prepared = await prepareFaults(lab, isTrial);
        before = prepared.policy;
      }
    }
  } finally {
    await lab.close();
  }
}

await Promise.all(Array.from({ length: Number(values.lanes) }, work));
console.log(
  '| fault | as the host starts | the command | device | `status` | order by |\n|---|---|---|---|---|---|',
);
for (const [, row] of rows.sort(([a], [b]) => a - b)) console.log(row);
console.log(`\n${rows.length} cases, ${failed} not as they should be`);
process.exit(failed === 0 ? 0 : 1);
