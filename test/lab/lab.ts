import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { execa } from 'execa';

const HERE = import.meta.dirname;

/** Seconds that one boot may take in all. */
const SECONDS = 900;

/** What one command in the lab's kernel said. */
export interface LabRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Why the lab cannot be asked, or null; `build.sh` makes its kernel. */
export function probeLab(): string | null {
  const { status, stderr } = spawnSync(join(HERE, 'run.sh'), ['true'], { encoding: 'utf8' });
  if (status === 0) return null;
  return stderr.trim().split('\n').at(-1) || 'the lab does not run';
}

/** Boots the lab's kernel for one shell script; `folder` can be written to. */
export async function runInLab(script: string, folder: string): Promise<LabRun> {
  const result = await execa(join(HERE, 'run.sh'), [script], {
    cwd: folder,
    reject: false,
    env: { NFT_OFFLOAD_LAB_SECONDS: String(SECONDS) },
  });
  return { code: result.exitCode ?? 125, stdout: result.stdout, stderr: result.stderr };
}

/** Makes one simulated NIC; its name is in `$dev`. */
export const MAKE_DEVICE = `
echo '1 1' > /sys/bus/netdevsim/new_device
dev=$(ls /sys/bus/netdevsim/devices/netdevsim1/net)
ip link set dev $dev up
`;
