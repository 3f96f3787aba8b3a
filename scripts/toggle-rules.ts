/**
 * Rules come, go and are exchanged in the program that runs while packets come without a pause:
 * `npx tsx scripts/toggle-rules.ts [PACKETS]`, 1,000,000 when left out. Ends with an error when a packet
 * met neither the old nor the new ruleset, or was not counted exactly once. Needs root; works in
 * namespaces of its own.
 */
import { openDeployLab, probeDeployLab } from '../test/support/deploy-lab.ts';
import { countsOf, deployRules, OTHERS, type Rules, TEST } from '../test/support/toggled-rules.ts';

/** All of these drop the test packets: nothing may come through. */
const DROPPING: readonly Rules[] = [
  [[50, TEST], ...OTHERS],
  [...OTHERS, [60, TEST]],
  [...OTHERS.slice(0, 3), [50, TEST], ...OTHERS.slice(3)],
  [[60, TEST], [50, TEST], ...OTHERS],
];
/** And some that do not. */
const MIXED: readonly Rules[] = [...DROPPING, OTHERS, OTHERS.slice(1)];

interface Round {
  readonly sent: number;
  readonly seen: number;
  readonly changes: number;
}

async function toggle(rules: readonly Rules[], packets: number): Promise<Round> {
  const lab = await openDeployLab();
  let changes = 0;
  try {
    await deployRules(lab, rules[0] ?? []);
    let [sent, seen] = [0, 0];
    while (sent < packets) {
      const part = await lab.sendDuring(async () => {
        for (const wanted of rules) {
          const { inPlace } = await deployRules(lab, wanted);
          if (inPlace === null) throw new Error('another program took its place');
          changes += 1;
        }
      });
      sent += part.sent;
      seen += part.seen;
    }
    const counted = await countsOf(lab, 50, 60);
    if (counted + seen !== sent) {
      throw new Error(`${sent} sent, ${seen} came through, but ${counted} were counted`);
    }
    return { sent, seen, changes };
  } finally {
    await lab.close();
  }
}

const obstacle = probeDeployLab();
if (obstacle !== null) throw new Error(obstacle);
const packets = Number(process.argv[2] ?? 1_000_000);
const dropping = await toggle(DROPPING, packets / 2);
if (dropping.seen > 0) throw new Error(`${dropping.seen} packets met no rule of either ruleset`);
console.log(
  `${dropping.sent} packets, ${dropping.changes} changes: none came through, all were counted`,
);
const mixed = await toggle(MIXED, packets / 2);
console.log(
  `${mixed.sent} packets, ${mixed.changes} changes: ${mixed.seen} came through, the others were counted`,
);
