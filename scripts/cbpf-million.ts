/**
 * Classic BPF programs of random rulesets, run by the kernel, by our interpreter and by the reference
 * over the same frames: `npx tsx scripts/cbpf-million.ts [--rulesets 200] [--frames 5000] [--seed 4]`.
 * Needs Linux and cc, no privileges. Exits 1 when they disagree, with the frames.
 */
import { parseArgs } from 'node:util';
import { compareReference } from '../test/support/cbpf-reference.ts';

const { values } = parseArgs({
  options: {
    rulesets: { type: 'string', default: '200' },
    frames: { type: 'string', default: '5000' },
    seed: { type: 'string', default: '4' },
  },
});
const MOST_SHOWN = 10;

const size = {
  rulesets: Number(values.rulesets),
  frames: Number(values.frames),
  seed: Number(values.seed),
};
const { frames, dropped, exceptions } = await compareReference(size, (done) => {
  if (done % 20 === 0) console.error(`${done} of ${size.rulesets} rulesets`);
});
for (const exception of exceptions.slice(0, MOST_SHOWN)) console.log(exception);
console.log(
  `${exceptions.length} exceptions in ${frames} frames over ${size.rulesets} rulesets, ${dropped} dropped`,
);
if (exceptions.length > 0) process.exitCode = 1;
