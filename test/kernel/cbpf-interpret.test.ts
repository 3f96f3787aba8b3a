import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ANCILLARY, type Insn } from '../../src/backends/cbpf/insn.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import { validate } from '../../src/backends/cbpf/validate.ts';
import { insns, programs } from '../support/cbpf-arbitrary.ts';
import { createRandom } from '../support/random.ts';
import { runSocketFilter } from '../support/socket-filter.ts';

const obstacle =
  process.platform === 'linux' && spawnSync('cc', ['--version']).status === 0
    ? null
    : 'needs Linux and cc';
const onKernel = it.skipIf(obstacle !== null);

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

const random = createRandom(77);
const PACKETS = Array.from({ length: 60 }, () => random.bytes(1 + random.below(90)));

/** Ancillary data of a datagram are not what the interpreter is told. */
function isPlain(program: readonly Insn[]): boolean {
  return program.every((insn) => insn.kind !== 'ld_abs' || insn.k < ANCILLARY);
}

onKernel('runs programs as the kernel does', async () => {
  const plain = programs.filter(isPlain);
  await fc.assert(
    fc.asyncProperty(plain, async (program) => {
      const kept = await runSocketFilter(program, PACKETS);
      const machine = loadProgram(program);
      // A datagram is cut to what the filter keeps.
      const wanted = PACKETS.map((packet) => Math.min(machine(packet).value, packet.length));
      expect([...kept]).toEqual(wanted);
    }),
    { numRuns: 80 },
  );
});

onKernel('refuses what the kernel refuses and nothing else', async () => {
  const any = fc.array(insns, { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(fc.oneof(any, programs), async (program) => {
      const taken = await runSocketFilter(program, []).then(
        () => true,
        (error: Error) => {
          if (!error.message.includes('SO_ATTACH_FILTER')) throw error;
          return false;
        },
      );
      expect(taken).toBe(validate(program) === null);
    }),
    { numRuns: 120 },
  );
});
