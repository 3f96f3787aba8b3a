import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Field, PROTOCOLS } from '../../src/ir/fields.ts';
import { compareWithKernel, formatDifferences } from '../support/compare.ts';
import { fieldsOf, makeFieldFrames } from '../support/field-frames.ts';
import { matchesOf, valuesAround } from '../support/field-rules.ts';
import { type KernelLab, openKernelLab, probeKernelLab } from '../support/kernel-lab.ts';
import { labFacts } from '../support/pipeline.ts';
import { createRandom } from '../support/random.ts';

const obstacle = probeKernelLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: KernelLab;

beforeAll(async () => {
  if (obstacle === null) lab = await openKernelLab();
});

afterAll(async () => {
  await lab?.close();
});

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

/** All rules count and the chain drops, so that the counters tell every match of every frame. */
function writeRuleset(place: string, rules: readonly string[]): string {
  return `table ${place.startsWith('ingress') ? 'netdev' : 'inet'} t {
  chain called {
    counter
  }
  chain c {
    type filter hook ${place} priority 0; policy drop;
    ${rules.join('\n    ')}
    meta length > 30 counter drop
  }
}`;
}

/** The rules, each by name where nft takes and lists that, else by position, else not at all. */
async function writeRules(place: string, field: Field): Promise<string> {
  const choices = matchesOf(field);
  const use = choices.map(() => 0);
  const write = (): string => {
    const rules = choices.map((choice, index) => {
      const text = choice[use[index] ?? 0];
      return text === undefined ? '' : `${text}${text.includes('vmap') ? '' : ' counter'}`;
    });
    return writeRuleset(place, rules);
  };
  for (let round = 0; round < ROUNDS; round += 1) {
    try {
      await lab.loadRuleset(write());
      break;
    } catch (error) {
      // nft names the line of ten rules that it refuses; they begin at the eighth of the file.
      const lines = [...String(error).matchAll(/^\/dev\/stdin:(\d+):|stdin:(\d+):/gm)];
      const refused = new Set(lines.map(([, first, second]) => Number(first ?? second) - 8));
      // It names none where it dies.
      if (refused.size === 0 && use.some((form) => form > 0)) throw error;
      for (const index of refused.size === 0 ? use.keys() : refused) {
        use[index] = (use[index] ?? 0) + 1;
      }
    }
  }
  try {
    await lab.run('nft', '-j', 'list', 'ruleset');
  } catch {
    // It dies over some of what it takes.
    use.forEach((form, index) => {
      use[index] = Math.max(form, 1);
    });
  }
  return write();
}

/** More than the times that nft can name ten of a ruleset's rules. */
const ROUNDS = 40;
const AT_INGRESS = 'ingress device "eth0"';
const AT_PREROUTING = 'prerouting';

onKernel.each(
  PROTOCOLS.flatMap((protocol) => {
    const isLink = protocol.name === 'arp' || protocol.base === 'll';
    const places = isLink ? [AT_INGRESS] : [AT_INGRESS, AT_PREROUTING];
    return places.map((place) => [protocol.name, place, protocol] as const);
  }),
)('matches every field of %s at %s as the kernel does', async (_, place, protocol) => {
  let programDrops = 0;
  for (const [part, field] of fieldsOf(protocol).entries()) {
    const text = await writeRules(place, field);
    const frames = makeFieldFrames(createRandom(part), protocol, [field], valuesAround);
    const profile = ['xdp-native', 'netdevsim', 'agilio'][part % 3] ?? '';
    const options = { facts: labFacts(null), frames, complete: true, profile };
    const comparison = await compareWithKernel(lab, text, options);
    expect(formatDifferences(comparison.differences), text).toBe('');
    programDrops += comparison.programDrops;
  }
  expect(programDrops).toBeGreaterThan(0);
});
