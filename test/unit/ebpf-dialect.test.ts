import { expect, it } from 'vitest';
import { checkDialect } from '../../src/backends/ebpf-offload/check-dialect.ts';
import { isXdpProfile } from '../../src/backends/ebpf-offload/compile.ts';
import { HOOKS } from '../../src/backends/ebpf-offload/hook.ts';
import {
  add,
  and32,
  atomicAdd,
  call,
  div,
  exit,
  HELPER,
  type Insn,
  ja,
  jeq,
  jgt,
  label,
  ldMap,
  ldMapValue,
  ldx,
  le,
  lsh,
  mod,
  mov,
  mul,
  r0,
  r1,
  r2,
  r3,
  r6,
  r10,
  st,
  stx,
  XDP_MD,
} from '../../src/backends/ebpf-offload/insn.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { XdpProfile } from '../../src/profile/schema.ts';
import { assembled } from '../support/ebpf-programs.ts';
import { unwrap } from '../support/pipeline.ts';

async function loadCard(): Promise<XdpProfile> {
  const profile = unwrap(await loadProfile('agilio'));
  if (!isXdpProfile(profile)) throw new Error('bug: agilio is no card');
  return profile;
}

/** Rules that hold whatever a profile refuses. */
const LIMITS = ['data-sections', 'far-jumps', 'packet-depth', 'returns', 'stack'];

/** The card, refusing one form only. */
function refusing(card: XdpProfile, form: string): XdpProfile {
  const value = (LIMITS.includes(form) ? [] : [form]) as typeof card.instructions.refused.value; // from the table
  const refused = { ...card.instructions.refused, value };
  return { ...card, instructions: { ...card.instructions, refused } };
}

const end: readonly Insn[] = [label('out'), mov(r0, 2), exit()];

function lookUp(map: string, key = -8): readonly Insn[] {
  return [
    mov(r1, 0),
    stx(8, r10, -8, r1),
    stx(8, r10, -16, r1),
    ldMap(r1, map),
    mov(r2, r10),
    add(r2, key),
    call(HELPER.mapLookupElem),
    jeq(r0, 0, 'out'),
  ];
}

const packet: readonly Insn[] = [
  ldx(4, r6, r1, XDP_MD.data),
  ldx(4, r2, r1, XDP_MD.dataEnd),
  mov(r3, r6),
  add(r3, 64),
  jgt(r3, r2, 'out'),
];

const raw = { kind: 'raw', dst: 0, offset: 0, rule: null, note: null } as const;

const violations: readonly (readonly [rule: string, insn: string, insns: readonly Insn[]])[] = [
  ['mod', 'r0 %= 3', [mov(r0, 7), mod(r0, 3), ...end]],
  ['little-endian', 'r0 = le16 r0', [mov(r0, 7), le(16, r0), ...end]],
  ['store-immediate', '*(u32 *)(r10 - 8) = 1', [st(4, r10, -8, 1), ...end]],
  [
    'store-to-map',
    '*(u64 *)(r0 + 0) = r1',
    [...lookUp('m'), mov(r1, 1), stx(8, r0, 0, r1), ...end],
  ],
  [
    'variable-map-offset',
    'r1 = *(u8 *)(r0 + 0)',
    [
      ...packet,
      ldx(1, r6, r6, 0),
      ...lookUp('m'),
      and32(r6, 3),
      add(r0, r6),
      ldx(1, r1, r0, 0),
      ...end,
    ],
  ],
  [
    'variable-stack-offset',
    'r1 = *(u8 *)(r2 - 8)',
    [
      ...packet,
      ldx(1, r3, r6, 0),
      and32(r3, 3),
      mov(r2, r10),
      add(r2, r3),
      ldx(1, r1, r2, -8),
      ...end,
    ],
  ],
  ['wide-multiply', 'r1 *= r1', [...packet, ldx(8, r1, r6, 0), mul(r1, r1), ...end]],
  [
    'divide-by-register',
    'r1 /= r3',
    [...packet, ldx(4, r1, r6, 0), mov(r3, 2), div(r1, r3), ...end],
  ],
  [
    'atomic-other',
    'lock *(u64 *)(r10 - 8) += r1',
    [mov(r1, 0), stx(8, r10, -8, r1), atomicAdd(8, r10, -8, r1), ...end],
  ],
  [
    'read-of-atomic',
    'r1 = *(u32 *)(r0 + 4)',
    [...lookUp('m'), mov(r1, 1), atomicAdd(8, r0, 0, r1), ldx(4, r1, r0, 4), ...end],
  ],
  ['map-key', 'call map_lookup_elem', [...lookUp('m', -10), ...end]],
  ['context-other', 'r1 = *(u32 *)(r1 + 12)', [ldx(4, r1, r1, 12), ...end]],
  ['helper-other', 'call get_prandom_u32', [call(HELPER.getPrandomU32), ...end]],
  [
    'mixed-pointers',
    'r1 = *(u8 *)(r3 - 8)',
    [
      ...packet,
      ldx(1, r1, r6, 0),
      mov(r3, r6),
      jeq(r1, 0, 'read'),
      mov(r3, r10),
      label('read'),
      ldx(1, r1, r3, -8),
      ...end,
    ],
  ],
  ['data-sections', 'r1 = ', [ldMapValue(r1, '.rodata', 0), ...end]],
  [
    'packet-depth',
    'r1 = *(u8 *)(r3 + 15)',
    [
      ...packet,
      ldx(1, r1, r6, 0),
      lsh(r1, 3),
      mov(r3, r6),
      add(r3, r1),
      ldx(1, r1, r3, 15),
      ...end,
    ],
  ],
  ['stack', '*(u64 *)(r10 - 264) = r1', [mov(r1, 0), stx(8, r10, -264, r1), ...end]],
  ['returns', 'exit', [mov(r0, 4), exit()]],
  [
    'far-jumps',
    'goto L32769',
    [ja('out'), ...Array.from({ length: 0x8000 }, () => mov(r0, 0)), ...end],
  ],
  ['loops', 'goto L0', [label('again'), mov(r0, 1), ja('again'), ...end]],
  ['calls', 'raw code=0x85', [{ ...raw, code: 0x85, src: 1, imm: 1 }, ...end]],
];

it.each(violations)('names the rule and the instruction: %s', async (rule, insn, insns) => {
  const card = refusing(await loadCard(), rule);
  const [first, ...others] = checkDialect(assembled(insns), card, HOOKS.xdp);
  expect(others).toEqual([]);
  expect(first).toMatchObject({ code: 'ebpf/dialect' });
  expect(first?.message).toContain(`(${insn}`);
  expect(first?.message).toMatch(new RegExp(`\\(${rule}\\)$`));
});

it('knows every rule that a profile can name', async () => {
  const { instructions } = await loadCard();
  const tested = violations.map(([rule]) => rule);
  expect(instructions.refused.value.filter((rule) => !tested.includes(rule))).toEqual([]);
});

it('takes what the card takes', async () => {
  const insns = [...lookUp('m'), mov(r1, 1), atomicAdd(8, r0, 0, r1), ...end];
  expect(checkDialect(assembled(insns), await loadCard(), HOOKS.xdp)).toEqual([]);
});
