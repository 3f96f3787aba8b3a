import { createHash } from 'node:crypto';
import type { DeployRequest } from './deploy.ts';
import { indexOwners } from './owner-counts.ts';
import type { Survey } from './survey.ts';

/** How a program's rules, counters and sets differ from those of the one before. */
export interface Changes {
  /** Rules that the program decides from now on, and those that it does not any more. */
  readonly rulesIn: readonly string[];
  readonly rulesOut: readonly string[];
  /** Counters that go on, begin at zero, and keep what they have without counting on. */
  readonly counters: { readonly kept: number; readonly begun: number; readonly ended: number };
  /** Maps whose elements differ. */
  readonly maps: readonly {
    readonly name: string;
    readonly added: number;
    readonly removed: number;
  }[];
}

/** Items of `a` that `b` has not, as often as they are there. */
function without(a: readonly string[], b: readonly string[]): readonly string[] {
  const left = new Map<string, number>();
  for (const item of b) left.set(item, (left.get(item) ?? 0) + 1);
  return a.filter((item) => {
    const count = left.get(item) ?? 0;
    left.set(item, count - 1);
    return count <= 0;
  });
}

/** The elements of each map in a batch of updates. */
function elementsOf(batch: string | null): ReadonlyMap<string, readonly string[]> {
  const maps = new Map<string, string[]>();
  for (const line of (batch ?? '').split('\n')) {
    const [, name, element] = /^map update name (\S+) (key .*)$/.exec(line.trim()) ?? [];
    if (name === undefined || element === undefined) continue;
    const elements = maps.get(name);
    if (elements === undefined) maps.set(name, [element]);
    else elements.push(element);
  }
  return maps;
}

type Compared = Pick<DeployRequest, 'rules' | 'owners' | 'maps'>;

/** What deploying `after` in place of `before` changes. */
export function findChanges(before: Compared, after: Compared): Changes {
  const [old, now] = [elementsOf(before.maps), elementsOf(after.maps)];
  const maps = [...new Set([...old.keys(), ...now.keys()])].map((name) => {
    const [was, is] = [old.get(name) ?? [], now.get(name) ?? []];
    return { name, added: without(is, was).length, removed: without(was, is).length };
  });
  const inOld = indexOwners(before.owners.map((owner) => ({ owner })));
  const inNew = indexOwners(after.owners.map((owner) => ({ owner })));
  const kept = after.owners.filter((owner) => inOld(owner) !== null).length;
  return {
    rulesIn: without(after.rules, before.rules),
    rulesOut: without(before.rules, after.rules),
    counters: {
      kept,
      begun: after.owners.length - kept,
      ended: before.owners.filter((owner) => inNew(owner) === null).length,
    },
    maps: maps.filter(({ added, removed }) => added + removed > 0),
  };
}

/** Tells whether a device is still as it was: its programs, and what was deployed to it. */
export function basisOf({ device, state, generations, bootId }: Survey): string {
  const programs = device.programs.map(({ id, mode }) => [id, mode]);
  const deployed =
    state === null
      ? null
      : [state.current.programId, state.current.generation, state.current.tables];
  const text = JSON.stringify([bootId, device.ifindex, programs, deployed, generations]);
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
