import { parse as parseYaml, YAMLParseError } from 'yaml';
import { z } from 'zod';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { parseTarget, type SshTarget } from './ssh/target.ts';

/** A host of an inventory: what it is called there, and where it is. */
export interface InventoryHost {
  readonly name: string;
  readonly target: SshTarget;
}

/** Ansible's variables, as far as they say how to reach a host. */
type Variables = Readonly<Record<string, string>>;

const MOST_HOSTS = 10_000;
const RANGE = /\[(\w+):(\w+)(?::(\d+))?\]/;

/** `web[01:20]`, `db-[a:c]`: the names that a pattern stands for; null where it is none. */
function expandRange(pattern: string): readonly string[] | null {
  const found = RANGE.exec(pattern);
  if (found === null) return [pattern];
  const [whole, from = '', to = '', step = '1'] = found;
  const isNumber = /^\d+$/.test(from) && /^\d+$/.test(to);
  const isLetter = /^[a-z]$/i.test(from) && /^[a-z]$/i.test(to);
  if (!isNumber && !isLetter) return null;
  const [first, last] = isNumber
    ? [Number(from), Number(to)]
    : [from.charCodeAt(0), to.charCodeAt(0)];
  if (first > last || last - first >= MOST_HOSTS || Number(step) < 1) return null;
  const names: string[] = [];
  for (let at = first; at <= last; at += Number(step)) {
    const part = isNumber ? String(at).padStart(from.length, '0') : String.fromCharCode(at);
    const rest = expandRange(pattern.replace(whole, part));
    if (rest === null) return null;
    names.push(...rest);
  }
  return names;
}

function targetOf(name: string, variables: Variables): Result<SshTarget> {
  const { ansible_host: host = name, ansible_user: user, ansible_port: port } = variables;
  const address = port !== undefined && host.includes(':') ? `[${host}]` : host;
  const withPort = port === undefined ? address : `${address}:${port}`;
  return parseTarget(user === undefined ? withPort : `${user}@${withPort}`);
}

/** Hosts by name, the variables of all the groups a host is in put together. */
type HostTable = Map<string, Variables>;

function addHost(table: HostTable, name: string, variables: Variables): void {
  table.set(name, { ...table.get(name), ...variables });
}

function targetsOf(table: HostTable, file: string): Result<readonly InventoryHost[]> {
  const problems: Diagnostic[] = [];
  const hosts = [...table].flatMap(([name, variables]) => {
    const target = targetOf(name, variables);
    if (target.ok) return [{ name, target: target.value }];
    const said = target.diagnostics.map((one) => ({ ...one, message: `${file}: ${one.message}` }));
    problems.push(...said);
    return [];
  });
  return problems.length > 0 ? fail(...problems) : succeed(hosts);
}

/** A problem at a line of the inventory. */
function atLine(file: string, line: number, message: string, help: string): Diagnostic {
  return errorAt('inventory/line', message, {
    place: { kind: 'file', file, line, column: 1 },
    help,
  });
}

function parseVariables(words: readonly string[]): Variables | null {
  const pairs = words.map((word) => /^(\w+)=(?:"([^"]*)"|'([^']*)'|(.*))$/.exec(word));
  if (pairs.some((pair) => pair === null)) return null;
  return Object.fromEntries(
    pairs.flatMap((pair) =>
      pair === null ? [] : [[pair[1], pair[2] ?? pair[3] ?? pair[4] ?? '']],
    ),
  );
}

function splitWords(text: string): readonly string[] {
  return text.match(/(?:[^\s"']|"[^"]*"|'[^']*')+/g) ?? [];
}

/** A line without its comment; `#` within a word is none. */
function withoutComment(line: string): string {
  return line.replace(/(^|\s)[#;].*$/, '').trim();
}

interface Group {
  readonly hosts: Set<string>;
  readonly children: Set<string>;
  variables: Variables;
}

/** One host a line, or an inventory of Ansible in INI form: groups, ranges, variables. */
function parseLines(text: string, file: string): Result<readonly InventoryHost[]> {
  const groups = new Map<string, Group>();
  const groupOf = (name: string): Group => {
    const known = groups.get(name);
    if (known !== undefined) return known;
    const group: Group = { hosts: new Set(), children: new Set(), variables: {} };
    groups.set(name, group);
    return group;
  };
  const own = new Map<string, Variables>();
  let section = { group: 'all', kind: 'hosts' };
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const line = withoutComment(raw);
    if (line === '') continue;
    const header = /^\[([^\]:]+)(?::(vars|children))?\]$/.exec(line);
    if (header !== null) {
      section = { group: header[1] ?? 'all', kind: header[2] ?? 'hosts' };
      continue;
    }
    const group = groupOf(section.group);
    const [name = '', ...words] = splitWords(line);
    if (section.kind === 'children') {
      group.children.add(name);
      continue;
    }
    const assigned = section.kind === 'vars' ? line.replace(/\s*=\s*/, '=') : null;
    const variables = parseVariables(assigned === null ? words : [assigned]);
    if (variables === null) {
      const help = 'a host, then NAME=VALUE for each of its variables';
      return fail(atLine(file, index + 1, `${JSON.stringify(line)} is no host`, help));
    }
    if (assigned !== null) {
      group.variables = { ...group.variables, ...variables };
      continue;
    }
    const names = expandRange(name);
    if (names === null) {
      const help = 'write [1:20], [01:20] or [a:f]';
      return fail(atLine(file, index + 1, `${JSON.stringify(name)} is no range of hosts`, help));
    }
    for (const host of names) {
      group.hosts.add(host);
      own.set(host, { ...own.get(host), ...variables });
    }
  }
  const table: HostTable = new Map();
  const put = (name: string, inherited: Variables, above: readonly string[]): void => {
    const group = groups.get(name);
    if (group === undefined || above.includes(name)) return;
    const variables = { ...inherited, ...group.variables };
    for (const host of group.hosts) addHost(table, host, variables);
    for (const child of group.children) put(child, variables, [...above, name]);
  };
  const general = groups.get('all')?.variables ?? {};
  for (const name of groups.keys()) put(name, general, []);
  for (const [host, variables] of own) addHost(table, host, variables);
  return targetsOf(table, file);
}

const scalar = z.union([z.string(), z.number(), z.boolean()]).transform(String);
const variablesSchema = z
  .record(z.string(), z.unknown())
  .nullable()
  .transform((all) =>
    Object.fromEntries(
      Object.entries(all ?? {}).flatMap(([name, value]) => {
        const text = scalar.safeParse(value);
        return text.success ? [[name, text.data]] : [];
      }),
    ),
  );

interface YamlGroup {
  readonly hosts?: Record<string, Variables> | null | undefined;
  readonly vars?: Variables | undefined;
  readonly children?: Record<string, YamlGroup | null> | null | undefined;
}

const groupSchema: z.ZodType<YamlGroup> = z.lazy(() =>
  z.object({
    hosts: z.record(z.string(), variablesSchema).nullable().optional(),
    vars: variablesSchema.optional(),
    children: z.record(z.string(), groupSchema.nullable()).nullable().optional(),
  }),
);

function parseYamlInventory(text: string, file: string): Result<readonly InventoryHost[]> {
  let value: unknown;
  try {
    value = parseYaml(text);
  } catch (error) {
    if (!(error instanceof YAMLParseError)) throw error;
    const { line, col } = error.linePos?.[0] ?? { line: 1, col: 1 };
    const message = error.message.split('\n')[0] ?? 'no YAML';
    return fail(
      errorAt('inventory/yaml', message, { place: { kind: 'file', file, line, column: col } }),
    );
  }
  const parsed = z.record(z.string(), groupSchema.nullable()).safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const message = `${file}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'no inventory'}`;
    const help = 'groups with `hosts`, `vars` and `children`, as Ansible has them';
    return fail(errorAt('inventory/form', message, { help }));
  }
  const table: HostTable = new Map();
  let bad: string | null = null;
  const put = (group: YamlGroup | null, inherited: Variables): void => {
    const variables = { ...inherited, ...group?.vars };
    for (const [pattern, own] of Object.entries(group?.hosts ?? {})) {
      const names = expandRange(pattern);
      if (names === null) bad ??= pattern;
      for (const name of names ?? []) addHost(table, name, { ...variables, ...own });
    }
    for (const child of Object.values(group?.children ?? {})) put(child, variables);
  };
  for (const group of Object.values(parsed.data)) put(group, {});
  if (bad !== null) {
    const help = 'write [1:20], [01:20] or [a:f]';
    return fail(
      errorAt('inventory/range', `${file}: ${JSON.stringify(bad)} is no range`, { help }),
    );
  }
  return targetsOf(table, file);
}

/**
 * The hosts of an inventory: one a line, or Ansible's INI or YAML form (by the file's name). Of the
 * variables, `ansible_host`, `ansible_user` and `ansible_port` count.
 */
export function parseInventory(text: string, file: string): Result<readonly InventoryHost[]> {
  const hosts = /\.ya?ml$/.test(file) ? parseYamlInventory(text, file) : parseLines(text, file);
  if (!hosts.ok || hosts.value.length > 0) return hosts;
  return fail(errorAt('inventory/empty', `${file} names no host`));
}
