import { readsCutAsZero, readTables, type TcamFormat } from '../backends/tcam/artifact.ts';
import { type Finding, verifyClassifiers, verifyTables } from '../backends/tcam/verify.ts';
import { type Outcome, prepare } from '../ir/evaluate.ts';
import { parsePacket } from '../ir/packet.ts';
import { toHex } from '../support/bits.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
import type { Situation } from './place.ts';
import { classifierForTables } from './place-tcam.ts';

/** What `verify` found about one table. */
export interface VerifiedTable extends Omit<Finding, 'frame'> {
  /** The frame that shows the difference, as hex. */
  readonly frame: string | null;
  /** What the reference says about that frame, for the ruleset and (against another) for both. */
  readonly reference: readonly Outcome['verdict'][];
}

export interface VerifyReport {
  readonly format: 'nft-offload/verify@1';
  /** Nothing is wrong; tables may drop less than the ruleset. */
  readonly holds: boolean;
  readonly tables: readonly VerifiedTable[];
}

function reportOf(
  findings: readonly Finding[],
  references: readonly ((frame: Uint8Array) => Outcome)[],
): VerifyReport {
  const tables = findings.map(
    ({ frame, ...rest }): VerifiedTable => ({
      ...rest,
      frame: frame === null ? null : toHex(frame),
      reference: frame === null ? [] : references.map((ask) => ask(frame).verdict),
    }),
  );
  const holds = tables.every(({ kind }) => kind === 'equal' || kind === 'less');
  return { format: 'nft-offload/verify@1', holds, tables };
}

function referenceOf(situation: Situation, final: boolean) {
  const classifier = classifierForTables(situation, final);
  const evaluate = prepare(classifier, { mode: 'kernel', mac: situation.facts.mac });
  return { classifier, ask: (frame: Uint8Array) => evaluate(parsePacket(frame)) };
}

function optionsOf({ concessions }: Situation, final: boolean) {
  return { final, mayMiscount: concessions.includes('counters') };
}

/** A file of tables. */
export interface TableFile {
  readonly path: string;
  readonly text: string;
  /** The file beside it, where the format has one and it is there. */
  readonly beside: string | null;
  readonly format: TcamFormat;
}

/** Proves a file of tables against a ruleset. */
export function verifyTableFile(
  situation: Situation,
  { path, text, beside, format }: TableFile,
  final: boolean,
): Result<VerifyReport> {
  const tables = readTables(format, text, path, final ? 'permit' : 'continue', beside);
  if (!tables.ok) return tables;
  const { classifier, ask } = referenceOf(situation, final);
  const options = { ...optionsOf(situation, final), readsCutAsZero: readsCutAsZero(format) };
  return succeed(reportOf(verifyTables(classifier, tables.value, options), [ask]));
}

/** Proves that two rulesets decide the same, as far as a frame alone decides. */
export function verifyRulesets(a: Situation, b: Situation, final: boolean): Result<VerifyReport> {
  const first = referenceOf(a, final);
  const second = referenceOf(b, final);
  const findings = verifyClassifiers(first.classifier, second.classifier, optionsOf(a, final));
  return succeed(reportOf(findings, [first.ask, second.ask]));
}
