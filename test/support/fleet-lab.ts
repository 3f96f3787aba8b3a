import { appendFileSync, writeFileSync } from 'node:fs';
import { threadId } from 'node:worker_threads';
import { execa } from 'execa';
import { type CliRun, MAIN, PROJECT } from './run-cli.ts';
import { runCommand } from './run-command.ts';
import { openSshLab, type SshLab } from './ssh-lab.ts';

/** Hosts with an sshd each, and a machine that reaches them. */
export interface FleetLab {
  /** What `--host` says for each. */
  readonly hosts: readonly string[];
  /** A file with one host a line. */
  readonly inventory: string;
  /** Runs the command line on the machine that deploys. */
  cli(...args: readonly string[]): Promise<CliRun>;
  /** Runs a command on host `index`; throws when it fails. */
  run(index: number, ...argv: readonly string[]): Promise<string>;
  close(): Promise<void>;
}

const PORT = 2200;

// A host has what is below /run and the BPF file system for itself.
const OWN_FILES = `mount --make-rprivate / && mount -t tmpfs tmpfs /run/nft-offload && mount -t bpf bpf /sys/fs/bpf && exec "$@"`;

/**
 * Makes so many hosts: each a network namespace with an sshd at \`mgmt\` and a device \`eth0\` that
 * leads to nobody.
 */
export async function openFleetLab(count: number): Promise<FleetLab> {
  const base = `nfo-fleet-${process.pid}-${threadId}`;
  const controller = `${base}-c`;
  const names = Array.from({ length: count }, (_, index) => `${base}-${index}`);
  const sshds: SshLab[] = [];
  const close = async (): Promise<void> => {
    for (const sshd of sshds) sshd.close();
    for (const name of [controller, ...names]) {
      await runCommand('ip', ['netns', 'delete', name]).catch(() => {});
    }
  };
  const inNamespace = (name: string): readonly string[] => ['nsenter', `--net=/run/netns/${name}`];
  try {
    await runCommand('mkdir', ['-p', '/run/nft-offload']);
    await runCommand('ip', ['netns', 'add', controller]);
    for (const [index, name] of names.entries()) {
      await runCommand('ip', ['netns', 'add', name]);
      await runCommand(
        'sh',
        ['-eu'],
        `ip link add mgmt netns ${name} type veth peer name host${index} netns ${controller}
ip -n ${name} link add eth0 type veth peer name far
ip -n ${name} link set lo up
ip -n ${name} link set eth0 up
ip -n ${name} link set far up
ip -n ${name} link set mgmt up
ip -n ${name} address add 10.77.${index}.2/24 dev mgmt
ip -n ${controller} link set host${index} up
ip -n ${controller} address add 10.77.${index}.1/24 dev host${index}
`,
      );
      const unshare = ['unshare', '--mount', 'sh', '-c', OWN_FILES, 'sh'];
      const prefix = [...inNamespace(name), ...unshare];
      sshds.push(await openSshLab({ prefix, address: `10.77.${index}.2`, port: PORT }));
    }
  } catch (error) {
    await close();
    throw error;
  }
  const [first] = sshds;
  if (first === undefined) throw new Error('no host');
  const hosts = names.map((_, index) => `h${index}`);
  const blocks = sshds.map(({ file }, index) =>
    [
      `Host h${index}`,
      `HostName 10.77.${index}.2`,
      `Port ${PORT}`,
      'User root',
      `IdentityFile ${file('plain')}`,
    ].join('\n'),
  );
  writeFileSync(first.file('config'), `${blocks.join('\n')}\n`);
  for (const { knownHost } of sshds) appendFileSync(first.file('known_hosts'), knownHost);
  const inventory = first.file('inventory');
  writeFileSync(inventory, `${hosts.join('\n')}\n`);
  return {
    hosts,
    inventory,
    async cli(...args) {
      const [program = '', ...prefix] = inNamespace(controller);
      const argv = [...prefix, process.execPath, ...MAIN, ...args];
      const env = { HOME: first.home, SSH_AUTH_SOCK: '' };
      const { exitCode, stdout, stderr } = await execa(program, argv, {
        ...{ cwd: PROJECT, reject: false, input: '', env },
      });
      return { exitCode, stdout, stderr };
    },
    async run(index, ...argv) {
      const [program = '', ...prefix] = inNamespace(names[index] ?? '');
      return (await runCommand(program, [...prefix, ...argv])).toString();
    },
    close,
  };
}
