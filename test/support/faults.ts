import type { CommandResult, Transport } from '../../src/deploy/transport.ts';

/** One thing that is done on the machine, in words. */
export type StepName = string;

/** What becomes of one step. `dies`: it is done, and nothing after it. `fails`: the machine refuses it. */
export type Fault = 'dies' | 'fails';

/** Programs that only look, by how their command line begins. Whatever is not here changes something. */
const LOOKS = [
  /^(ls|cat|stat|date|dmesg) /,
  /^sh -c (: looks|while read -r key)/,
  /^(ip|tc|bpftool|nft) -j (?!batch)/,
];

const LOST = { code: 255, stdout: '', stderr: 'connection lost' } as const;

function lost(): Error {
  return Object.assign(new Error('connection lost'), { code: 'ECONNRESET' });
}

/** A transport that names each step to `meet`, which says what becomes of it. */
function intercept(
  transport: Transport,
  meet: (step: StepName, looks: boolean) => Fault | 'dead' | null,
): Transport {
  const file = (verb: string, path: string, looks: boolean) => meet(`${verb} ${path}`, looks);
  let kill: (() => Promise<void>) | null = null;
  const after = async <T>(fault: Fault | 'dead' | null, result: T): Promise<T> => {
    if (fault !== 'dies') return result;
    // The kernel lets go of what a dead process, or the end of a broken line, had locked.
    await kill?.();
    throw lost();
  };
  const onFile = async <T>(fault: Fault | 'dead' | null, work: () => Promise<T>): Promise<T> => {
    if (fault === 'dead') throw lost();
    if (fault === 'fails') throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
    return after(fault, await work());
  };
  return {
    async run(argv, options): Promise<CommandResult> {
      const words = argv.join(' ');
      const fault = meet(
        words,
        LOOKS.some((look) => look.test(words)),
      );
      if (fault === 'dead') return LOST;
      if (fault === 'fails') return { code: 1, stdout: '', stderr: 'made to fail' };
      const result = await transport.run(argv, options);
      if (fault !== 'dies') return result;
      await kill?.();
      return LOST;
    },
    async hold(argv, onLine) {
      const held = await transport.hold(argv, onLine);
      kill = held === null ? null : () => held.release();
      return held;
    },
    writeFile: (path, content) =>
      onFile(file('write', path, false), () => transport.writeFile(path, content)),
    readFile: (path) => onFile(file('read', path, true), () => transport.readFile(path)),
    remove: (path) => onFile(file('remove', path, false), () => transport.remove(path)),
  };
}

/** The step of any generation and any program. */
export function anyNumber(step: StepName): StepName {
  return step.replace(/\d+/g, 'N');
}

/** Runs `work` and lists its steps that change something. */
export async function listSteps(
  transport: Transport,
  work: (transport: Transport) => Promise<unknown>,
): Promise<readonly StepName[]> {
  const steps: StepName[] = [];
  const noting = intercept(transport, (step, looks) => {
    if (!looks) steps.push(step);
    return null;
  });
  await work(noting);
  return steps;
}

/** A transport on which that fault befalls the first step of that kind (see `anyNumber`). */
export function faultyAt(transport: Transport, fault: Fault, kind: StepName): Transport {
  let isOver = false;
  return intercept(transport, (step) => {
    if (isOver) return fault === 'dies' ? 'dead' : null;
    isOver = anyNumber(step) === kind;
    return isOver ? fault : null;
  });
}
