import fc from 'fast-check';
import { expect, it } from 'vitest';
import { makeRules } from '../../bench/xdp-rules.ts';
import { compileXdp, type XdpArtifact } from '../../src/backends/ebpf-offload/compile.ts';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import { readLive, writeLive } from '../../src/deploy/live-record.ts';
import { nothingKnown } from '../../src/ir/facts.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { XdpProfile } from '../../src/profile/schema.ts';
import { unwrap } from '../support/pipeline.ts';
import { mixFrames } from '../support/rule-frames.ts';

interface Rule {
  readonly rule: { readonly handle?: number; readonly expr: readonly object[] };
}

type Edit = readonly [kind: 'add' | 'delete' | 'move' | 'turn', at: number, other: number];

const edits: fc.Arbitrary<readonly (readonly Edit[])[]> = fc.array(
  fc.array(fc.tuple(fc.constantFrom('add', 'delete', 'move', 'turn'), fc.nat(), fc.nat()), {
    minLength: 1,
    maxLength: 4,
  }),
  { minLength: 4, maxLength: 4 },
);

/** Accepts what it dropped, or the other way around. */
function turn({ rule }: Rule): Rule {
  const expr = rule.expr.map((each) => {
    if ('drop' in each) return { accept: null };
    return 'accept' in each ? { drop: null } : each;
  });
  return { rule: { ...rule, expr } };
}

function edit(before: readonly Rule[], list: readonly Edit[], pool: readonly Rule[]): Rule[] {
  const rules = [...before];
  for (const [kind, at, other] of list) {
    const place = at % rules.length;
    const [own, fresh] = [rules[place], pool[other % pool.length]];
    if (own === undefined || fresh === undefined) continue;
    if (kind === 'turn') rules[place] = turn(own);
    else if (kind === 'add') rules.splice(place, 0, fresh);
    else if (rules.length > 10) {
      rules.splice(place, 1);
      if (kind === 'move') rules.splice(other % rules.length, 0, own);
    }
  }
  return rules;
}

/** What a program does with frames, and what its rules have counted then. */
function outcome(artifact: XdpArtifact, frames: readonly Uint8Array[]) {
  const { object, assembly, counters, live } = artifact;
  const memory = createMemory(object.maps, object.data);
  const machine = loadProgram(assembly, memory);
  const actions = frames.map((frame) => machine.run(frame).action);
  const counted = new Map<string, bigint>();
  for (const [slot, { rule }] of (live?.counters?.owners ?? []).entries()) {
    const perEntry = counters?.slotsPerEntry ?? 1;
    const key = new Uint8Array(new Uint32Array([Math.floor(slot / perEntry)]).buffer);
    const value = memory.maps.get('counters')?.read(key) ?? new Uint8Array(0);
    const at = (slot % perEntry) * 16;
    const packets = new DataView(value.buffer, value.byteOffset).getBigUint64(at, true);
    if (packets === 0n) continue;
    expect(live?.counters?.retired.has(slot)).toBe(false);
    const name = `${rule?.handle ?? `#${rule?.index}`}`;
    counted.set(name, (counted.get(name) ?? 0n) + packets);
  }
  return { actions, counted: [...counted].sort() };
}

const facts = { ...nothingKnown('eth0'), groOff: true, rxVlanOff: true };
const profile = unwrap(await loadProfile('xdp-native')) as XdpProfile; // the profile of that name

it('a program that was changed does and counts what a new one does', () => {
  fc.assert(
    fc.property(fc.boolean(), fc.boolean(), edits, (isIp6, hasHandles, changes) => {
      const { nftables } = JSON.parse(makeRules('mixed', 60, isIp6));
      const all: Rule[] = nftables.filter((item: object) => 'rule' in item);
      const named = hasHandles
        ? all.map(({ rule }, at) => ({ rule: { ...rule, handle: 100 + at } }))
        : all;
      const compile = (rules: readonly Rule[], base?: object) => {
        const text = { nftables: [...nftables.slice(0, -all.length), ...rules] };
        const ruleset = unwrap(readJsonText(JSON.stringify(text), 'rules.json'));
        const { classifier } = flatten(ruleset, facts);
        const options = { structure: 'tree', ...(base === undefined ? {} : { base }) } as const;
        return { classifier, artifact: unwrap(compileXdp(classifier, profile, options)) };
      };
      let rules = named.slice(0, 40);
      let { live } = compile(rules).artifact;
      for (const [step, list] of changes.entries()) {
        const pool = named.slice(40 + 5 * step, 45 + 5 * step);
        rules = edit(rules, list, pool);
        if (live === null) throw new Error('bug: a program without tables');
        const changed = compile(rules, readLive(writeLive(live)) ?? undefined).artifact;
        const { classifier, artifact } = compile(rules);
        expect(changed.patch).not.toBeNull();
        const frames = mixFrames(classifier, 100, isIp6);
        expect(outcome(changed, frames)).toEqual(outcome(artifact, frames));
        live = changed.live;
      }
    }),
    { numRuns: 4 },
  );
});
