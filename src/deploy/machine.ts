import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import type { CommandResult, Transport } from './transport.ts';

/** Programs that are started on the machine, with Debian's package for each. */
const PACKAGE = {
  ip: 'iproute2',
  bpftool: 'bpftool',
  ethtool: 'ethtool',
  nft: 'nftables',
} as const;

export type Tool = keyof typeof PACKAGE;

/** What to say when a program is not there. */
export function missingTool(tool: Tool): Diagnostic {
  return errorAt('deploy/no-tool', `there is no program \`${tool}\` on this machine`, {
    help: `install it: apt-get install ${PACKAGE[tool]}`,
  });
}

/** Prints who it is run by (the effective user, proc(5)), and which of the programs are not there. */
const LOOK_AROUND = `while read -r key _ user _ && test "$key" != Uid:; do :; done </proc/self/status
echo "$user"
for tool; do command -v "$tool" >/dev/null || echo "$tool"; done`;

/** What is missing for a change of the machine: root, and which of the tools. */
export async function checkMachine(
  transport: Transport,
  tools: readonly Tool[],
): Promise<readonly Diagnostic[]> {
  const { code, stdout, stderr } = await transport.run(['sh', '-c', LOOK_AROUND, 'sh', ...tools]);
  const [user, ...missing] = stdout.trim().split('\n');
  if (user === undefined || !/^\d+$/.test(user)) {
    const message = `the machine does not say who this is: ${stderr.trim() || `exit status ${code}`}`;
    return [errorAt('deploy/io', message)];
  }
  const help = 'run it with sudo; loading and reading BPF programs is for root only';
  const root = user === '0' ? [] : [errorAt('deploy/not-root', 'this needs root', { help })];
  return [...root, ...tools.filter((tool) => missing.includes(tool)).map(missingTool)];
}

/** Lines of a loader's output that are kept: the verifier says what it dislikes at the end. */
const KEPT_LINES = 12;

/** Lines of bpftool and libbpf that say nothing about the program. */
const NOISE =
  /^Warning: bpftool is now|^If it used to work|^-- |PROG LOAD LOG|^processed \d+ insns/;

/** What a program complained about, in one text; of a long complaint the end. */
export function complaint(result: CommandResult): string {
  const lines = `${result.stderr}\n${result.stdout}`
    .split('\n')
    .filter((line) => line.trim() !== '' && !NOISE.test(line));
  const skipped = lines.length > KEPT_LINES ? ['...'] : [];
  const text = [...skipped, ...lines.slice(-KEPT_LINES)].join('\n');
  return text === '' ? `exit status ${result.code}` : text;
}

/** Runs a program that has to succeed; `what` says in the diagnostic what could not be done. */
export async function runStep(
  transport: Transport,
  code: string,
  what: string,
  argv: readonly string[],
  options: { readonly input?: string; readonly help?: string } = {},
): Promise<Result<string>> {
  const { input, help } = options;
  const result = await transport.run(argv, input === undefined ? {} : { input });
  if (result.code === 0) return succeed(result.stdout);
  const message = `cannot ${what}: ${complaint(result)}`;
  return fail(errorAt(code, message, help === undefined ? {} : { help }));
}

/** The value, or null where the text is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The file of a setting: `netfilter/nf_conntrack_count`. */
export function sysctlPath(setting: string): string {
  return `/proc/sys/net/${setting}`;
}

/** The numbers in files of /proc/sys/net, in order; null unless every one could be read. */
export async function readSysctls(
  transport: Transport,
  settings: readonly string[],
): Promise<readonly number[] | null> {
  const { code, stdout } = await transport.run(['cat', '--', ...settings.map(sysctlPath)]);
  // An empty word would be the number 0, and zero is what facts are taken from.
  const words = stdout.split(/\s+/).filter((word) => word !== '');
  const values = words.map(Number);
  return code === 0 && values.length === settings.length && values.every(Number.isInteger)
    ? values
    : null;
}

/** A diagnostic that stops nothing. */
export function warning(code: string, message: string, help: string | null = null): Diagnostic {
  return { code, severity: 'warning', message, help, place: null };
}

/** Makes sure that a BPF file system is mounted at `path`. */
export async function mountBpffs(transport: Transport, path: string): Promise<Result<null>> {
  if (!/^[\w./%+:@-]+$/.test(path)) {
    const message = `${JSON.stringify(path)} cannot be where programs are pinned: bpftool takes its commands apart at blanks and quotes`;
    return fail(
      errorAt('deploy/bad-path', message, { help: 'set NFT_OFFLOAD_BPFFS to a plain path' }),
    );
  }
  const type = await transport.run(['stat', '-f', '-c', '%T', path]);
  if (type.code === 0 && type.stdout.trim() === 'bpf_fs') return succeed(null);
  const made = await runStep(transport, 'deploy/no-bpffs', `make ${path}`, ['mkdir', '-p', path]);
  if (!made.ok) return made;
  const mounted = await runStep(
    transport,
    'deploy/no-bpffs',
    `mount a BPF file system on ${path}`,
    ['mount', '-t', 'bpf', 'bpf', path],
    { help: 'the kernel needs CONFIG_BPF_SYSCALL, and the user CAP_SYS_ADMIN' },
  );
  return mounted.ok ? succeed(null) : mounted;
}
