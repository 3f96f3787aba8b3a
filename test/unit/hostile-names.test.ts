import { expect, it } from 'vitest';
import { findChanges } from '../../src/deploy/changes.ts';
import { checkDeviceName, deviceKey } from '../../src/deploy/device-name.ts';
import { bindMaps } from '../../src/deploy/load.ts';
import { generationPaths } from '../../src/deploy/paths.ts';
import { renderPreview } from '../../src/deploy/render-report.ts';
import { quoteWords } from '../../src/deploy/shell.ts';
import { parseTarget } from '../../src/deploy/ssh/target.ts';
import { errorAt, formatDiagnostic } from '../../src/support/diagnostics.ts';
import { deployRequest } from '../support/deploy-requests.ts';
import { runCommand } from '../support/run-command.ts';

/** Names as somebody would choose them who wants more than a name. */
const HOSTILE = [
  ...[
    'a b',
    "a'b",
    'a"b',
    '$(id)',
    '`id`',
    'a\nb',
    '-x',
    '--help',
    ';id',
    'a|b',
    '\u001b[2J',
    '../a',
  ],
];

it.each(HOSTILE)('the name %j is refused or harmless wherever one is given', async (name) => {
  // A device: refused, or one component of a path that nothing gives a meaning.
  if (checkDeviceName(name) === null) expect(deviceKey(name)).toMatch(/^[A-Za-z0-9_%-]+$/);
  // A host, also as one that an inventory names.
  expect(parseTarget(name).ok).toBe(false);
  expect(parseTarget(`${name}@host`).ok).toBe(false);
  // A set, which is a map of the program.
  const target = generationPaths({ bpffs: '/b', state: '/s' }, 'eth0', 1);
  expect(bindMaps(`map update name ${name} key 0 value 0`, target).ok).toBe(false);
  // A file, a device, anything that becomes a word of a command.
  const said = await runCommand('sh', ['-c', `printf '%s|' ${quoteWords([name, name])}`]);
  expect(said.toString()).toBe(`${name}|${name}|`);
  // A table, chain, rule or comment, and what a machine complains of: on a terminal.
  const changes = findChanges(deployRequest(), deployRequest({ rules: [`t c: ${name}`] }));
  const preview = { format: 'nft-offload/deploy-preview@1', device: 'eth0', steps: [] } as const;
  const shown = renderPreview({ ...preview, changes, basis: '' });
  expect(shown.split('\n')).toHaveLength(3);
  expect(shown + formatDiagnostic(errorAt('a/b', name, { help: name }))).not.toContain('\u001b');
});
