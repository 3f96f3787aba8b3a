import type { Command } from 'commander';
import { loadProfile, loadShippedProfiles, readProfileFile } from '../profile/load.ts';
import type { Profile } from '../profile/schema.ts';
import { unwrapResult } from './exit.ts';
import { describeTerminal, paint, renderTable } from './output.ts';

interface ProfilesOptions {
  readonly json?: boolean;
}

/** One leaf of a profile: where it is, what it says, its source. */
type Leaf = readonly [path: string, value: string, source: string];

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function formatValue(value: unknown): string {
  if (Array.isArray(value)) {
    const parts: unknown[] = value;
    return parts.length === 0 ? 'none' : parts.map((part) => formatValue(part)).join(', ');
  }
  if (isRecord(value)) {
    const parts = Object.entries(value).filter(([, part]) => part !== null);
    return parts.map(([name, part]) => `${name} ${formatValue(part)}`).join(', ');
  }
  return typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value);
}

/** Everything below `value` that carries a source, in file order. */
function listLeaves(value: unknown, path: string): readonly Leaf[] {
  if (Array.isArray(value)) {
    const parts: unknown[] = value;
    return parts.flatMap((part, index) => {
      const name = isRecord(part) ? (part['kind'] ?? part['name'] ?? index) : index;
      return listLeaves(part, `${path} ${String(name)}`);
    });
  }
  if (!isRecord(value)) return [];
  if ('source' in value && 'value' in value) {
    const unit = 'unit' in value ? ` ${String(value['unit'])}` : '';
    return [[path, `${formatValue(value['value'])}${unit}`, String(value['source'])]];
  }
  return Object.entries(value).flatMap(([key, part]) =>
    listLeaves(part, path === '' ? key : `${path} ${key}`),
  );
}

function renderProfile(profile: Profile): string {
  const terminal = describeTerminal(process.stdout);
  const head: readonly string[][] = [
    ['kind', profile.kind],
    ['driver', profile.driver ?? 'any'],
    ...(profile.kind === 'tcam' ? [] : [['attach', profile.attach.mode]]),
    ['match', formatValue(profile.match)],
    ['verdicts', formatValue(profile.verdicts)],
  ];
  const leaves = listLeaves(profile, '').map(([path, value, source]) => [path, value, source]);
  return [
    `${paint(terminal, 'bold', profile.name)}: ${profile.description}`,
    '',
    renderTable(head, terminal.width),
    '',
    // Sources are what this command is for: they are never cut.
    renderTable(leaves, Number.POSITIVE_INFINITY),
  ].join('\n');
}

async function runList(options: ProfilesOptions): Promise<void> {
  const profiles = unwrapResult(await loadShippedProfiles());
  if (profiles === null) return;
  if (options.json) {
    const list = profiles.map(({ name, kind, description }) => ({ name, kind, description }));
    console.log(JSON.stringify(list, null, 2));
    return;
  }
  const rows = profiles.map(({ name, kind, description }) => [name, kind, description]);
  console.log(renderTable(rows, describeTerminal(process.stdout).width));
}

async function runShow(name: string, options: ProfilesOptions): Promise<void> {
  const profile = unwrapResult(await loadProfile(name));
  if (profile === null) return;
  console.log(options.json ? JSON.stringify(profile, null, 2) : renderProfile(profile));
}

async function runCheck(file: string, options: ProfilesOptions): Promise<void> {
  const profile = unwrapResult(await readProfileFile(file, file));
  if (profile === null) return;
  const { name, kind } = profile;
  console.log(
    options.json ? JSON.stringify({ file, name, kind }) : `${file}: good: ${name}, ${kind}`,
  );
}

/** `profiles`: what hardware is known, and checking one's own. */
export function addProfilesCommand(program: Command): void {
  const profiles = program.command('profiles').description('what tiers can do: list, show, check');
  profiles
    .command('list', { isDefault: true })
    .description('list the profiles that come with nft-offload')
    .option('--json', 'machine-readable output')
    .action(runList);
  profiles
    .command('show')
    .argument('<NAME|FILE>')
    .description('show one profile with the source of every number')
    .option('--json', 'machine-readable output')
    .action(runShow);
  profiles
    .command('check')
    .argument('<FILE>')
    .description('check a profile file')
    .option('--json', 'machine-readable output')
    .action(runCheck);
}
