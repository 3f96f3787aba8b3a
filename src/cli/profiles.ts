import type { Command } from 'commander';
import { type DeviceDescription, describeDevice, matchProfiles } from '../deploy/probe-profile.ts';
import { openLocalTransport } from '../deploy/transport.ts';
import { describeCapacity } from '../profile/describe.ts';
import { loadProfile, loadShippedProfiles, readProfileFile } from '../profile/load.ts';
import type { Profile } from '../profile/schema.ts';
import { unwrapResult } from './exit.ts';
import { addDeviceOption } from './machine.ts';
import { describeTerminal, paint, renderTable } from './output.ts';

interface ProfilesOptions {
  readonly json?: boolean;
}

interface ProbeOptions extends ProfilesOptions {
  readonly dev: string;
}

const PROBE_FORMAT = 'nft-offload/probe@1';

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

/** `ip saddr 32 ternary` of a key, `meta protocol 2048` of what a key set is only for. */
function formatField(field: unknown): string {
  if (!isRecord(field)) return '';
  const { field: name, bits, match, values } = field;
  return Array.isArray(values)
    ? `${String(name)} ${values.join('/')}`
    : `${String(name)} ${String(bits)} ${String(match)}`;
}

/** Everything below `value` that carries a source, in file order. */
function listLeaves(value: unknown, path: string): readonly Leaf[] {
  if (Array.isArray(value)) {
    const parts: unknown[] = value;
    return parts.flatMap((part, index) => {
      const name = isRecord(part) ? (part['kind'] ?? part['name'] ?? part['mode'] ?? index) : index;
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

/** Keys are too long for a table: what is compared on one line, its source on the next. */
function renderKeys(profile: Profile): readonly string[] {
  if (profile.kind !== 'tcam') return [];
  const sets = profile.keySets.flatMap(({ name, key, fixed = [], source }) => {
    const only = fixed.map(formatField).join(', ');
    const fields = key.map(formatField).join(', ');
    return [`key ${name}: ${fields}${only === '' ? '' : `; only ${only}`}`, `  ${source}`];
  });
  return ['', ...sets];
}

/** A number or property whose source says so has been checked by nobody. */
function isUnverified(source: string): boolean {
  return /\bunverified\b/.test(source);
}

/** `9 of 20`, numbers, properties and keys; nothing where all were checked. */
function formatUnverified(profile: Profile): string {
  const keys = profile.kind === 'tcam' ? profile.keySets.map(({ source }) => source) : [];
  const sources = [...listLeaves(profile, '').map(([, , source]) => source), ...keys];
  const count = sources.filter(isUnverified).length;
  return count === 0 ? '' : `${count} of ${sources.length}`;
}

function formatAttach(profile: Profile): readonly string[][] {
  if (profile.kind === 'tcam') return [];
  const places = 'mode' in profile.attach ? [profile.attach] : profile.attach;
  return [['attach', places.map(({ mode }) => mode).join(', ')]];
}

function formatDriver({ kind, driver }: Profile): string {
  if (driver !== null) return formatValue(driver);
  return kind === 'tcam' ? 'none in Linux' : 'any';
}

function renderProfile(profile: Profile): string {
  const terminal = describeTerminal(process.stdout);
  const unverified = formatUnverified(profile);
  const head: readonly (readonly string[])[] = [
    ['kind', profile.kind],
    ['driver', formatDriver(profile)],
    ...formatAttach(profile),
    ['match', formatValue(profile.match)],
    ['verdicts', formatValue(profile.verdicts)],
    ['capacity', describeCapacity(profile)],
    ...(unverified === '' ? [] : [['unverified', unverified]]),
  ];
  const leaves = listLeaves(profile, '').map(([path, value, source]) => [path, value, source]);
  return [
    `${paint(terminal, 'bold', profile.name)}: ${profile.description}`,
    '',
    renderTable(head, terminal.width),
    ...renderKeys(profile),
    '',
    // Sources are what this command is for: they are never cut.
    renderTable(leaves, Number.POSITIVE_INFINITY),
  ].join('\n');
}

async function runList(options: ProfilesOptions): Promise<void> {
  const profiles = unwrapResult(await loadShippedProfiles());
  if (profiles === null) return;
  if (options.json) {
    const list = profiles.map((profile) => {
      const { name, kind, driver, description } = profile;
      return { name, kind, driver, capacity: describeCapacity(profile), description };
    });
    console.log(JSON.stringify(list, null, 2));
    return;
  }
  const rows = profiles.map((profile) => [
    profile.name,
    profile.kind,
    formatUnverified(profile),
    describeCapacity(profile),
  ]);
  const head = ['NAME', 'KIND', 'UNVERIFIED', 'CAPACITY'];
  // Capacities are short, and half of one would mislead: they are never cut.
  console.log(renderTable([head, ...rows], Number.POSITIVE_INFINITY));
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

function renderDevice(device: DeviceDescription): readonly (readonly string[])[] {
  const rows: readonly (readonly [name: string, value: string | number | null])[] = [
    ['device', device.device],
    ['driver', device.driver],
    ['firmware', device.firmware],
    ['bus', device.bus],
    ['kind', device.linkKind],
    ['mtu', device.mtu],
    ['receive queues', device.receiveQueues],
    ['programs', device.attached.length === 0 ? 'none' : device.attached.join(', ')],
    ['devlink', device.devlink?.handle ?? null],
    ...(device.devlink?.versions ?? []).map((version) => ['', version] as const),
    ...(device.devlink?.resources ?? []).map(
      ({ name, size, used }) =>
        [`table ${name}`, used === null ? size : `${used} of ${size}`] as const,
    ),
  ];
  return rows.flatMap(([name, value]) => (value === null ? [] : [[name, String(value)]]));
}

async function runProbe(options: ProbeOptions): Promise<void> {
  const profiles = unwrapResult(await loadShippedProfiles());
  if (profiles === null) return;
  const device = unwrapResult(await describeDevice(openLocalTransport(), options.dev));
  if (device === null) return;
  const fitting = unwrapResult(matchProfiles(device, profiles));
  if (fitting === null) return;
  if (options.json) {
    console.log(JSON.stringify({ format: PROBE_FORMAT, ...device, profiles: fitting }, null, 2));
    return;
  }
  const { width } = describeTerminal(process.stdout);
  const found = fitting.map(({ name, kind, why }) => [name, kind, why]);
  console.log(renderTable(renderDevice(device), width));
  console.log(`\nprofiles that fit, nearest to the wire first:\n${renderTable(found, width)}`);
}

/** `profiles`: what hardware is known, and checking one's own. */
export function addProfilesCommand(program: Command): void {
  const profiles = program
    .command('profiles')
    .description('what tiers can do: list, show, check, probe');
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
  addDeviceOption(profiles.command('probe'))
    .description('say what is behind a device and which profiles describe it; changes nothing')
    .option('--json', 'machine-readable output')
    .action(runProbe);
}
