import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type StatusReport, statusXdp } from '../../src/deploy/status.ts';
import { type FaultLab, type Run, sessionOf } from './fault-lab.ts';
import { unwrap } from './pipeline.ts';

/** What befalls a deployment while a program on the host is about to run. */
export const FAULTS = [
  'controller killed',
  'line cut',
  'shell killed',
  'session killed',
  'program fails',
  'disk full',
  'device gone',
  'second deployment',
] as const;
export type FaultKind = (typeof FAULTS)[number];

/** Rulesets that differ in the frames they drop. */
const ETHER_TYPES = { a: 0x88b5, b: 0x88b6 } as const;
export type Policy = keyof typeof ETHER_TYPES;

export function otherPolicy(policy: Policy): Policy {
  return policy === 'a' ? 'b' : 'a';
}

/** How a deployment ended, and what the host was like then and after one more command. */
export interface Outcome {
  readonly ended: 'done' | 'refused' | 'killed';
  readonly device: 'old' | 'new' | 'gone';
  readonly status: string;
  readonly order: string;
  readonly policy: Policy;
}

const FRAMES = 2;

function rulesetFile({ host }: FaultLab, policy: string): string {
  return join(host.paths.state, '..', `${policy}.nft`);
}

/** Which policy live frames meet; null: none. */
async function livePolicy({ host }: FaultLab): Promise<Policy | null> {
  const seen = {
    a: await host.send(FRAMES, ETHER_TYPES.a),
    b: await host.send(FRAMES, ETHER_TYPES.b),
  };
  for (const policy of ['a', 'b'] as const) {
    if (seen[policy] === 0 && seen[otherPolicy(policy)] === FRAMES) return policy;
  }
  if (seen.a === FRAMES && seen.b === FRAMES) return null;
  throw new Error(`neither one policy nor the other: ${JSON.stringify(seen)}`);
}

async function statusOf({ host }: FaultLab): Promise<StatusReport> {
  return unwrap(await statusXdp(host.transport, { device: 'eth0' }, host.paths));
}

const driftOf = ({ drift }: StatusReport): readonly string[] => drift.map(({ code }) => code);

function startDeploy(lab: FaultLab, policy: Policy, ...more: readonly string[]): Run {
  return lab.start(
    'deploy',
    rulesetFile(lab, policy),
    '--fact',
    'role=host',
    '--fact',
    'rx-vlan=off',
    '--json',
    ...more,
  );
}

async function mustSucceed(what: string, { ended }: Run): Promise<void> {
  const { code, stderr } = await ended;
  if (code !== 0) throw new Error(`${what} ends with ${code}: ${stderr}`);
}

/** A host with one of the policies, and what is known of both. */
export interface Prepared {
  readonly lab: FaultLab;
  readonly checksums: Readonly<Record<Policy, string>>;
  /** Programs that a deployment in place of another starts, with `--confirm` where that is asked for. */
  readonly steps: readonly string[];
  readonly isTrial: boolean;
  /** What is deployed now. */
  readonly policy: Policy;
}

const TRIAL = ['--confirm', '600'];

/** Deploys both, `b` last; `isTrial`: what is to come are deployments with `--confirm`. */
export async function prepareFaults(lab: FaultLab, isTrial: boolean): Promise<Prepared> {
  for (const [policy, type] of Object.entries(ETHER_TYPES)) {
    const rules = `ether type ${type} counter drop;`;
    const chain = `chain c { type filter hook ingress device "eth0" priority 0; ${rules} };`;
    writeFileSync(rulesetFile(lab, policy), `table netdev t { ${chain} }\n`);
  }
  const checksum = async (): Promise<string> => {
    const { attachment } = await statusOf(lab);
    return attachment.kind === 'ours' ? attachment.rulesetChecksum : '';
  };
  await mustSucceed('deploy', startDeploy(lab, 'a'));
  const a = await checksum();
  lab.arm(0, 'stops');
  await mustSucceed('deploy', startDeploy(lab, 'b', ...(isTrial ? TRIAL : [])));
  const steps = lab.started();
  if (isTrial) await mustSucceed('confirm', lab.start('confirm'));
  return { lab, isTrial, steps, checksums: { a, b: await checksum() }, policy: 'b' };
}

async function befall(
  lab: FaultLab,
  fault: FaultKind,
  victim: Run,
  pid: number,
  before: Policy,
): Promise<void> {
  const { state } = lab.host.paths;
  switch (fault) {
    case 'controller killed':
      victim.child.kill('SIGKILL');
      await victim.ended;
      return;
    case 'line cut':
      return lab.cutLine();
    case 'shell killed':
      process.kill(pid, 'SIGKILL');
      return;
    case 'session killed':
      process.kill(await sessionOf(pid, 'sshd'), 'SIGKILL');
      return;
    case 'disk full':
      spawnSync('sh', ['-c', 'cat /dev/zero >"$1" 2>/dev/null', 'sh', join(state, 'filler')]);
      return;
    case 'device gone':
      await lab.host.run('ip', 'link', 'delete', 'eth0');
      return;
    case 'second deployment':
      await startDeploy(lab, before).ended;
      return;
    case 'program fails':
      return;
  }
}

/** Undoes what the fault did to the machine itself, not to the deployment. */
async function mend(lab: FaultLab, fault: FaultKind): Promise<void> {
  if (fault === 'disk full') rmSync(join(lab.host.paths.state, 'filler'), { force: true });
  if (fault === 'line cut') await lab.host.run('nft', 'delete', 'table', 'inet', 'cut');
  if (fault === 'device gone') await lab.host.plug();
}

/** Whether `status` says what live frames meet. */
function checkStatus(
  report: StatusReport,
  checksums: Prepared['checksums'],
  live: Policy | null,
): void {
  const { attachment } = report;
  const said = attachment.kind === 'ours' ? attachment.rulesetChecksum : null;
  if (said !== (live === null ? null : checksums[live])) {
    throw new Error(`frames meet ${live}, but status says ${JSON.stringify(report)}`);
  }
}

/** Drift that an unfinished deployment may leave; anything else would be between old and new. */
const FINE = ['deploy/unconfirmed', 'deploy/rolled-back', 'deploy/device-gone'];

/**
 * Deploys the other policy than `before`, lets that befall it when it starts its `at`-th program, and then
 * gives one more command. Throws where frames meet neither the old policy nor the new one, where
 * `status` says otherwise, or where the one command does not bring order.
 */
export async function meetFault(
  { lab, checksums, isTrial }: Prepared,
  fault: FaultKind,
  at: number,
  before: Policy,
): Promise<Outcome> {
  const wanted = otherPolicy(before);
  lab.arm(at, fault === 'program fails' ? 'fails' : 'stops');
  const victim = startDeploy(lab, wanted, ...(isTrial ? TRIAL : []));
  if (fault !== 'program fails') {
    const pid = await lab.stopped(victim);
    if (pid === null) throw new Error(`step ${at} was not met: ${(await victim.ended).stderr}`);
    await befall(lab, fault, victim, pid, before);
    lab.goOn();
  }
  if (fault === 'line cut' && lab.isAlert) {
    // It would notice by itself, later.
    await lab.unlocked();
    victim.child.kill('SIGKILL');
  }
  const { code } = await victim.ended;
  await lab.unlocked();
  lab.arm(0, 'stops');
  const isGone = fault === 'device gone';
  const live = isGone ? null : await livePolicy(lab);
  if (!isGone && live === null) throw new Error('frames meet no policy');
  const report = await statusOf(lab);
  checkStatus(report, checksums, live);
  const drift = driftOf(report);
  const strange = drift.filter((one) => !FINE.includes(one));
  if (strange.length > 0) throw new Error(`status says ${JSON.stringify(report.drift)}`);
  await mend(lab, fault);
  const goesBack = drift.includes('deploy/unconfirmed') && !isGone;
  const order = goesBack ? 'rollback' : isGone ? 'undeploy, deploy' : 'deploy';
  if (isGone) await mustSucceed('undeploy', lab.start('undeploy'));
  await mustSucceed(order, goesBack ? lab.start('rollback') : startDeploy(lab, wanted));
  const policy = goesBack ? before : wanted;
  const after = await statusOf(lab);
  checkStatus(after, checksums, await livePolicy(lab));
  checkStatus(after, checksums, policy);
  if (after.drift.length > 0) throw new Error(`${order} leaves ${JSON.stringify(after.drift)}`);
  return {
    ended: code === null ? 'killed' : code === 0 ? 'done' : 'refused',
    device: isGone ? 'gone' : live === wanted ? 'new' : 'old',
    status: drift.length === 0 ? 'ours' : drift.join(', '),
    ...{ order, policy },
  };
}
