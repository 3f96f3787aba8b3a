/**
 * Checks what `compile --target tcam` writes against the models of those who read it, by yanglint (Debian:
 * libyang2-tools) and protoc (protobuf-compiler,
 * libprotobuf-dev): `npx tsx scripts/check-tcam-formats.ts [MODELS]`. MODELS
 * holds sonic/, openconfig/ and p4runtime/ with the published models. Says what it lacks.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compileTcam, type TcamFormat } from '../src/backends/tcam/artifact.ts';
import { nothingKnown } from '../src/ir/facts.ts';
import { flatten } from '../src/ir/flatten.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { formatDiagnostic } from '../src/support/diagnostics.ts';

const PROJECT = join(import.meta.dirname, '..');
const models = process.argv[2] ?? join(PROJECT, '../shared/data/models');
const directory = mkdtempSync(join(tmpdir(), 'nfo-formats-'));
let failures = 0;

function compile(ruleset: string, format: TcamFormat): readonly Buffer[] {
  const read = readJsonText(readFileSync(ruleset, 'utf8'), ruleset);
  if (!read.ok) throw new Error(read.diagnostics.map(formatDiagnostic).join('\n'));
  const { classifier } = flatten(read.value, nothingKnown('eth0'));
  const options = { profile: null, effort: 'normal', final: false, mayMiscount: true } as const;
  const compiled = compileTcam(classifier, format, options);
  if (!compiled.ok) throw new Error(compiled.diagnostics.map(formatDiagnostic).join('\n'));
  return compiled.value.files.map(({ content }) => Buffer.from(content));
}

/** config_db as YANG has it: tables are lists whose keys are leaves. */
function asYang(text: string): string {
  interface Database {
    readonly ACL_TABLE_TYPE: Record<string, object>;
    readonly ACL_TABLE: Record<string, { readonly ports: readonly string[] }>;
    readonly ACL_RULE: Record<string, Record<string, string>>;
  }
  const db = JSON.parse(text) as Database; // our own output
  const numbers = /^(PRIORITY|IP_PROTOCOL|L4_(SRC|DST)_PORT|ICMP(V6)?_(TYPE|CODE)|DSCP)$/;
  const types = Object.entries(db.ACL_TABLE_TYPE);
  const tables = Object.entries(db.ACL_TABLE);
  const rules = Object.entries(db.ACL_RULE).map(([key, rule]) => {
    const [ACL_TABLE_NAME, RULE_NAME] = key.split('|');
    const leaves = Object.entries(rule).map(([name, value]) => [
      name,
      numbers.test(name) ? Number(value) : value,
    ]);
    return { ACL_TABLE_NAME, RULE_NAME, ...Object.fromEntries(leaves) };
  });
  const list = (name: string, entries: unknown): object => ({
    [`sonic-acl:${name}`]: { [`${name}_LIST`]: entries },
  });
  const acl = {
    ...list(
      'ACL_TABLE_TYPE',
      types.map(([ACL_TABLE_TYPE_NAME, rest]) => ({ ACL_TABLE_TYPE_NAME, ...rest })),
    ),
    ...list(
      'ACL_TABLE',
      tables.map(([ACL_TABLE_NAME, rest]) => ({ ACL_TABLE_NAME, ...rest })),
    ),
    ...list('ACL_RULE', rules),
  };
  return JSON.stringify({ 'sonic-acl:sonic-acl': acl });
}

function check(what: string, program: string, args: readonly string[], input?: Buffer): void {
  const { status, stderr, error } = spawnSync(program, [...args], input ? { input } : {});
  if (error !== undefined) throw error;
  // Warnings are about modules that the models name and nobody gave.
  const isGood = status === 0 && !/libyang err/.test(String(stderr));
  if (!isGood) failures += 1;
  console.log(`${isGood ? 'ok     ' : 'REFUSED'} ${what}${isGood ? '' : `\n${stderr.toString()}`}`);
}

function yanglint(what: string, model: string, modules: readonly string[], text: string): void {
  const file = join(directory, 'data.json');
  writeFileSync(file, text);
  const paths = modules.map((name) => join(models, model, `${name}.yang`));
  check(what, 'yanglint', ['-p', join(models, model), '-t', 'config', ...paths, file]);
}

const lacking = [
  ...['sonic', 'openconfig', 'p4runtime']
    .map((name) => join(models, name))
    .filter((p) => !existsSync(p)),
  ...['yanglint', 'protoc'].filter((program) => spawnSync(program, ['--version']).error),
];
if (lacking.length > 0) {
  console.error(`check-tcam-formats: not here: ${lacking.join(', ')}`);
  process.exit(1);
}

try {
  const full = join(PROJECT, 'test/tcam/filter.nft.json');
  const plain = join(PROJECT, 'test/tcam/addresses.nft.json');
  const sonic = ['sonic-acl', 'sonic-device_metadata'];
  const openconfig = ['openconfig-acl', 'openconfig-packet-match-types'];
  for (const file of [full, plain]) {
    const name = file.slice(PROJECT.length + 1);
    yanglint(`SONiC ${name}`, 'sonic', sonic, asYang(String(compile(file, 'sonic')[0])));
    const [request, info] = compile(file, 'p4runtime');
    const proto = join(models, 'p4runtime');
    const encode = (type: string, at: string) => [
      '-I',
      proto,
      '-I',
      '/usr/include',
      `--encode=${type}`,
      join(proto, at),
    ];
    check(
      `P4Runtime ${name}`,
      'protoc',
      encode('p4.v1.WriteRequest', 'p4/v1/p4runtime.proto'),
      request,
    );
    check(
      `P4Info ${name}`,
      'protoc',
      encode('p4.config.v1.P4Info', 'p4/config/v1/p4info.proto'),
      info,
    );
  }
  yanglint('OpenConfig', 'openconfig', openconfig, String(compile(plain, 'openconfig')[0]));
} finally {
  rmSync(directory, { recursive: true });
}
process.exitCode = failures === 0 ? 0 : 1;
