/**
 * Loads what `compile --target tcam --format tc-flower` writes into a kernel that has cls_flower (the lab's,
 * test/lab/build.sh) and compares what it drops with the reference, frame by frame:
 * `npx tsx scripts/check-tc-flower.ts`. Says what it lacks.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compileTcam, readTables } from '../src/backends/tcam/artifact.ts';
import { interpretTables } from '../src/backends/tcam/interpret.ts';
import type { Classifier } from '../src/ir/classifier.ts';
import { prepare } from '../src/ir/evaluate.ts';
import { nothingKnown } from '../src/ir/facts.ts';
import { flatten } from '../src/ir/flatten.ts';
import { type Packet, parsePacket } from '../src/ir/packet.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { toHex } from '../src/support/bits.ts';
import { formatDiagnostic, type Result } from '../src/support/diagnostics.ts';
import { makeFrames } from '../test/support/random-frames.ts';
import { createNumbers, mixFrames, type Numbers } from '../test/support/rule-frames.ts';
import { ARBITRARY_POOL } from '../test/support/ruleset-arbitrary.ts';

const PROJECT = join(import.meta.dirname, '..');
const LAB = join(PROJECT, 'test/lab/run.sh');

function need<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(formatDiagnostic).join('\n'));
}

const ETH_HLEN = 14;
/** Bytes up to and with the addresses: less is no IP packet, and the kernel drops it. */
const SHORTEST = 34;
const CUTS = 300;

/** The frame cut off somewhere behind its network header, sometimes with lengths that say so. */
function cutShort(frame: Uint8Array, next: Numbers): Uint8Array {
  const version = (frame[ETH_HLEN] ?? 0) >> 4;
  const header = ETH_HLEN + (version === 6 ? 40 : 4 * ((frame[ETH_HLEN] ?? 0) & 15));
  const cut = frame.slice(0, Math.max(SHORTEST, header + next(21)));
  if (next(2) === 0) return cut;
  const view = new DataView(cut.buffer);
  if (version === 6) view.setUint16(ETH_HLEN + 4, cut.length - header);
  if (version === 4) view.setUint16(ETH_HLEN + 2, cut.length - ETH_HLEN);
  return cut;
}

/** A TCP header that says it is shorter than any is, or has flags 0. */
function misshapen(frame: Uint8Array, next: Numbers): Uint8Array {
  const changed = frame.slice();
  const tcp = ETH_HLEN + ((frame[ETH_HLEN] ?? 0) >> 4 === 6 ? 40 : 20);
  if (changed.length <= tcp + 13) return changed;
  changed[tcp + 12] = next(6) << 4;
  changed[tcp + 13] = next(3) === 0 ? 0 : next(256);
  if (next(3) === 0) changed.fill(0, tcp, tcp + 4);
  return changed;
}

/** Whole, odd and cut frames, many of them such as the rules ask for. */
function framesFor(classifier: Classifier): readonly Uint8Array[] {
  const next = createNumbers(11);
  const asked = [false, true].flatMap((isIp6) => mixFrames(classifier, CUTS, isIp6));
  const mixed = makeFrames(47, 3000, ARBITRARY_POOL, { odd: 0.4 });
  const wellFormed = [...asked, ...mixed.slice(0, 4 * CUTS)].filter(
    ({ length }) => length >= SHORTEST,
  );
  return [
    ...[...asked, ...mixed],
    ...wellFormed.map((frame) => cutShort(frame, next)),
    ...wellFormed.map((frame) => misshapen(frame, next)),
  ].filter(({ length }) => length >= SHORTEST);
}

/** TCP whose header is said to be shorter than any is: flower reads its flags as 0. */
function isShortTcp({ frame, ingress }: Packet): boolean {
  const { l4proto, transport } = ingress;
  return l4proto === 6 && transport !== null && (frame[transport + 12] ?? 0) >> 4 < 5;
}

/** Whether flower reads all of the headers as they are. */
function isWhole(packet: Packet): boolean {
  const { odd, fragment, tags, ingress, l3, frame } = packet;
  if (odd !== null || fragment !== 'whole' || tags !== 0 || l3 === null) return false;
  if (ingress.transport === null || ingress.fragment !== 'whole') return false;
  const length: Readonly<Record<number, number>> = { 1: 8, 6: 20, 17: 8, 58: 8 };
  const present = frame.length - ingress.transport;
  return present >= (length[ingress.l4proto ?? 0] ?? 0) && !isShortTcp(packet);
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

let failures = 0;
for (const name of ['filter', 'addresses', 'zeros']) {
  const file = join(PROJECT, `test/tcam/${name}.nft.json`);
  const ruleset = need(readJsonText(readFileSync(file, 'utf8'), file));
  const { classifier } = flatten(ruleset, nothingKnown('eth0'));
  const frames = framesFor(classifier);
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
  const tables = need(readTables('tc-flower', batch, file, 'continue'));
  let drops = 0;
  let less = 0;
  let wrong = 0;
  for (const [index, frame] of frames.entries()) {
    const packet = parsePacket(frame);
    const etherType = ((frame[12] ?? 0) << 8) | (frame[13] ?? 0);
    if (etherType !== 0x0800 && etherType !== 0x86dd) continue;
    const isDropped = !passed.has(index);
    const { verdict } = reference(packet);
    const mayDrop = verdict === 'drop' || verdict === 'lost' || packet.noL3 === 'malformed';
    // What the rows say of a whole frame is what the kernel has to do.
    const mustDrop = isWhole(packet) && interpretTables(tables, packet).action === 'drop';
    if (isDropped) drops += 1;
    else if (verdict === 'drop') less += 1;
    if (isDropped ? mayDrop : !mustDrop) continue;
    wrong += 1;
    if (wrong <= 5) console.error(`${name}: ${isDropped ? 'dropped' : 'passed'} ${toHex(frame)}`);
  }
  const isBad = wrong > 0 || drops === 0;
  if (isBad) failures += 1;
  const lines = batch.split('\n').length - 1;
  console.log(
    `${isBad ? 'FAILED' : 'ok    '}  ${name}: ${lines} filters, ${drops} of ${frames.length} frames dropped, ${less} left to nftables, ${wrong} otherwise than the reference`,
  );
}
process.exitCode = failures === 0 ? 0 : 1;
