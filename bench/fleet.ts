/**
 * How long a deployment to many hosts takes, all on this machine: each host a network namespace with
 * an sshd of its own. `npx tsx bench/fleet.ts [--hosts N] [--parallel N] [--write]`, as root; `--write`
 * puts the figures into bench/RESULTS.md. Setting the hosts up is not timed.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { openFleetLab } from '../test/support/fleet-lab.ts';
import { PROJECT } from '../test/support/run-cli.ts';
import { writeSection } from './results.ts';

const { values } = parseArgs({
  options: {
    hosts: { type: 'string', default: '50' },
    parallel: { type: 'string', default: '10' },
    write: { type: 'boolean', default: false },
  },
});

/** Seconds of CPU that this machine has spent: /proc/stat, proc(5), at USER_HZ 100. */
function cpuSeconds(): number {
  const [, ...words] = (readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? '').split(/\s+/);
  const [user = 0, nice = 0, system = 0] = words.map(Number);
  return (user + nice + system) / 100;
}

const count = Number(values.hosts);
const lab = await openFleetLab(count);
const rows: string[] = [];
try {
  const ruleset = `${lab.inventory}.nft`;
  writeFileSync(ruleset, readFileSync(`${PROJECT}/examples/edge.nft`));
  const where = ['--dev', 'eth0', '--inventory', lab.inventory, '--parallel', values.parallel];
  for (const [name, ...words] of [
    ['deploy', 'deploy', ruleset, '--fact', 'role=host'],
    ['deploy again', 'deploy', ruleset, '--fact', 'role=host'],
    ['status', 'status'],
    ['undeploy', 'undeploy'],
  ] as const) {
    const cpu = cpuSeconds();
    const from = performance.now();
    const run = await lab.cli(...words, ...where, '--json');
    const seconds = (performance.now() - from) / 1000;
    const spent = cpuSeconds() - cpu;
    if (run.exitCode !== 0) throw new Error(`${name}: ${run.stderr}`);
    rows.push(`| ${name} | ${seconds.toFixed(1)} | ${spent.toFixed(1)} |`);
    console.log(rows.at(-1));
  }
} finally {
  await lab.close();
}
const table = ['| command | seconds | CPU seconds, all processes |', '|---|---|---|', ...rows];
const title = `${count} hosts on one machine, ${values.parallel} at a time`;
if (values.write) writeSection('fleet', `${title}:\n\n${table.join('\n')}`);
else console.log(`${title}\n${table.join('\n')}`);
