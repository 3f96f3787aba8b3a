/**
 * Loads what `compile --target tcam --format tc-flower` writes into a kernel that has cls_flower (the lab's,
 * test/lab/build.sh) and compares what it drops with the reference, frame by frame:
 * `npx tsx scripts/check-tc-flower.ts`. Says what it lacks.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compileTcam } from '../src/backends/tcam/artifact.ts';
import { prepare } from '../src/ir/evaluate.ts';
import { nothingKnown } from '../src/ir/facts.ts';
import { flatten } from '../src/ir/flatten.ts';
import { type Packet, parsePacket } from '../src/ir/packet.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { toHex } from '../src/support/bits.ts';
import { formatDiagnostic, type Result } from '../src/support/diagnostics.ts';
import { makeFrames } from '../test/support/random-frames.ts';
import { ARBITRARY_POOL } from '../test/support/ruleset-arbitrary.ts';

const PROJECT = join(import.meta.dirname, '..');
const LAB = join(PROJECT, 'test/lab/run.sh');

function need<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(formatDiagnostic).join('\n'));
}

/** Bytes of a transport header at least: flower reads what is cut as 0. */
const SHORTEST: Readonly<Record<number, number>> = { 1: 8, 6: 20, 17: 8, 58: 8, 132: 12 };

/** Whether the switch can know all that the rules ask of it. */
function isWhole({ odd, fragment, tags, ingress, l3 }: Packet): boolean {
  if (odd !== null || fragment !== 'whole' || tags !== 0 || l3 === null) return false;
  const { transport, network, l4proto } = ingress;
  if (transport === null || ingress.fragment !== 'whole') return false;
  return network + l3.length - transport >= (SHORTEST[l4proto ?? 0] ?? 0);
}

/** Which of the frames come in behind the filters, by number; what the lab says when it cannot tell. */
function passedInLab(batch: string, frames: readonly Uint8Array[]): ReadonlySet<number> | string {
  const directory = mkdtempSync(join(tmpdir(), 'nfo-flower-'));
  try {
    const batchFile = join(directory, 'batch');
    const frameFile = join(directory, 'frames');
    writeFileSync(batchFile, batch.replaceAll('@DEV', 'far'));
    writeFileSync(frameFile, `${frames.map(toHex).join('\n')}\n`);
    const script = join(PROJECT, 'scripts/tc-flower-frames.pl');
    const command = `set -e
ip link add near type veth peer name far
ip link set near up
ip link set far up
tc qdisc add dev far clsact
tc -batch ${batchFile}
perl ${script} near far <${frameFile}`;
    const { status, stdout, stderr } = spawnSync(LAB, [command], {
      cwd: directory,
      encoding: 'utf8',
    });
    if (status !== 0) return stderr.trim();
    return new Set(stdout.split('\n').flatMap((line) => (line === '' ? [] : Number(line))));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const frames = makeFrames(47, 3000, ARBITRARY_POOL).filter(({ length }) => length >= 34);
const packets = frames.map(parsePacket);
let failures = 0;
for (const name of ['filter', 'addresses']) {
  const file = join(PROJECT, `test/tcam/${name}.nft.json`);
  const ruleset = need(readJsonText(readFileSync(file, 'utf8'), file));
  const { classifier } = flatten(ruleset, nothingKnown('eth0'));
  const options = { profile: null, effort: 'normal', final: false, mayMiscount: true } as const;
  const artifact = need(compileTcam(classifier, 'tc-flower', options));
  const batch = Buffer.from(artifact.files[0]?.content ?? '').toString();
  const passed = passedInLab(batch, frames);
  if (typeof passed === 'string') {
    console.error(`check-tc-flower: the lab cannot load ${name}: ${passed}`);
    failures += 1;
    break;
  }
  const reference = prepare(classifier, { mode: 'kernel', mac: null });
  let drops = 0;
  let wrong = 0;
  for (const [index, packet] of packets.entries()) {
    const etherType = ((packet.frame[12] ?? 0) << 8) | (packet.frame[13] ?? 0);
    if (etherType !== 0x0800 && etherType !== 0x86dd) continue;
    const isDropped = !passed.has(index);
    const { verdict } = reference(packet);
    const mustDrop = verdict === 'drop';
    const mayDrop = mustDrop || verdict === 'lost' || packet.noL3 === 'malformed';
    if (isDropped) drops += 1;
    if (isDropped ? mayDrop : !(mustDrop && isWhole(packet))) continue;
    wrong += 1;
    if (wrong <= 5)
      console.error(`${name}: ${isDropped ? 'dropped' : 'passed'} ${toHex(packet.frame)}`);
  }
  if (wrong > 0 || drops === 0) failures += 1;
  const lines = batch.split('\n').length - 1;
  console.log(
    `${wrong > 0 || drops === 0 ? 'FAILED' : 'ok    '}  ${name}: ${lines} filters, ${drops} of ${frames.length} frames dropped, ${wrong} otherwise than the reference`,
  );
}
process.exitCode = failures === 0 ? 0 : 1;
