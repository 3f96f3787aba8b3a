import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { compileXdp, isXdpProfile } from '../../src/backends/ebpf-offload/compile.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { printClassifier, printRuleset } from '../../src/ir/print.ts';
import { printDecision } from '../../src/ir/print-decision.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

// NAME.nft is for people, NAME.json what `nft -j list ruleset` makes of it, NAME.golden all stages.
const DIRECTORY = import.meta.dirname;
const NAMES = readdirSync(DIRECTORY)
  .filter((file) => file.endsWith('.nft'))
  .map((file) => file.slice(0, -'.nft'.length));

/** A listing without what finds the headers, which is long and the same for all. */
function rulesOnly(listing: string): string {
  const lines = listing.split('\n').filter((line) => line.includes('; '));
  return lines.map((line) => line.trimEnd()).join('\n');
}

it.each(NAMES)('goes through all stages: %s', async (name) => {
  const json = readFileSync(join(DIRECTORY, `${name}.json`), 'utf8');
  const ruleset = unwrap(readJsonText(json, `${name}.json`));
  const profile = unwrap(await loadProfile('xdp-native'));
  if (!isXdpProfile(profile)) throw new Error('bug: xdp-native is no XDP profile');
  const { classifier } = flatten(ruleset, labFacts('host'));
  const artifact = unwrap(compileXdp(classifier, profile));
  const stages: readonly (readonly [string, string])[] = [
    ['ruleset', printRuleset(ruleset)],
    ['classifier', printClassifier(classifier)],
    ['classifier of the tier', printClassifier(artifact.classifier)],
    ['decision', printDecision(artifact.decision)],
    ['program, what the rules became', rulesOnly(artifact.listing())],
  ];
  const text = stages.map(([stage, print]) => `== ${stage}\n${print.trimEnd()}\n`).join('\n');
  await expect(text).toMatchFileSnapshot(join(DIRECTORY, `${name}.golden`));
});
