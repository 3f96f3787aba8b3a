/** Runs vitest and ends with one plain line: `N passed, N failed, N skipped`. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, sep } from 'node:path';
import { execa } from 'execa';
import { z } from 'zod';

/** What is read of vitest's JSON report. */
const report = z.object({
  success: z.boolean(),
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      assertionResults: z.array(z.object({ fullName: z.string(), status: z.string() })),
    }),
  ),
});

const folder = mkdtempSync(join(tmpdir(), 'nft-offload-tests-'));
const file = join(folder, 'report.json');
const run = await execa(
  'vitest',
  [
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
    ...process.argv.slice(2),
  ],
  { preferLocal: true, stdio: 'inherit', reject: false },
);

let passed = 0;
let failed = 0;
let skipped = 0;
const skippedKernelTests: string[] = [];
try {
  for (const suite of report.parse(JSON.parse(readFileSync(file, 'utf8'))).testResults) {
    const inKernel = relative(process.cwd(), suite.name).split(sep).includes('kernel');
    let failedHere = 0;
    for (const test of suite.assertionResults) {
      if (test.status === 'passed') passed += 1;
      else if (test.status === 'failed') failedHere += 1;
      else {
        skipped += 1;
        if (inKernel) skippedKernelTests.push(test.fullName);
      }
    }
    // A file that cannot even be loaded, or whose hooks fail, has no failed test of its own.
    failed += failedHere === 0 && suite.status === 'failed' ? 1 : failedHere;
  }
} catch (error) {
  console.error(`run-tests: no usable report from vitest: ${String(error)}`);
  failed += 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}

let exitCode = run.exitCode ?? 1;
if (failed > 0 && exitCode === 0) exitCode = 1;
const onCi = !['', '0', 'false'].includes(process.env['CI'] ?? '');
if (onCi && skippedKernelTests.length > 0) {
  console.error('run-tests: skipped tests of the kernel are failures here (CI):');
  for (const name of skippedKernelTests) console.error(`  ${name}`);
  exitCode = exitCode === 0 ? 1 : exitCode;
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = exitCode;
