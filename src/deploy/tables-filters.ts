import { z } from 'zod';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { parseJson, runStep } from './machine.ts';
import type { Count } from './owner-counts.ts';
import type { Transport } from './transport.ts';

/** Where filters of tc are run: by the device alone, or by the host alone. */
export type TablesMode = 'offload' | 'generic';

/** One filter of tc flower, in the words of tc. */
export interface FlowerFilter {
  readonly protocol: 'ip' | 'ipv6';
  readonly pref: number;
  /** Different from all others of the same preference. */
  readonly handle: number;
  readonly keys: string;
  readonly action: 'drop' | 'pass';
  /** Whose counts it adds to; null for what drops nothing, and for policies. */
  readonly owner: number | null;
}

/**
 * A chain of tc for each generation, named after it: `nft` in the upper half of the 28 bits that an
 * action leaves for it (TC_ACT_EXT_VAL_MASK, include/uapi/linux/pkt_cls.h).
 */
const CHAIN_BASE = 0x6e00000;

/** What leads from chain 0 to ours: behind what others have there, which usually begin at 49152. */
const ENTRY = { pref: 65_000, handle: 1 } as const;

/** The chain that holds a generation's filters. */
export function chainOf(generation: number): number {
  return CHAIN_BASE + (generation % 0x100000);
}

const FLAG: Readonly<Record<TablesMode, string>> = { offload: 'skip_sw', generic: 'skip_hw' };

function ingress(verb: string, device: string): readonly string[] {
  return ['tc', 'filter', verb, 'dev', device, 'ingress'];
}

/** Lines for `tc -batch` that put a generation's filters into its chain, which nothing leads to yet. */
export function batchOf(
  device: string,
  mode: TablesMode,
  generation: number,
  filters: readonly FlowerFilter[],
): string {
  const head = `filter add dev ${device} ingress chain ${chainOf(generation)}`;
  const lines = filters.map(({ protocol, pref, handle, keys, action }) => {
    const asked = keys === '' ? '' : ` ${keys}`;
    const where = `protocol ${protocol} pref ${pref} handle ${handle}`;
    return `${head} ${where} flower ${FLAG[mode]}${asked} action ${action}\n`;
  });
  return lines.join('');
}

/**
 * Leads all frames to a generation's chain. One netlink message (RTM_NEWTFILTER) either way; the kernel
 * puts the new filter in before it takes the old one out (fl_change, net/sched/cls_flower.c), so that
 * every frame meets all of the old filters or all of the new ones.
 */
export function enterArgv(device: string, mode: TablesMode, generation: number): readonly string[] {
  const entry = ['protocol', 'all', 'pref', `${ENTRY.pref}`, 'handle', `${ENTRY.handle}`];
  const action = ['action', 'goto', 'chain', `${chainOf(generation)}`];
  return [...ingress('replace', device), ...entry, 'flower', FLAG[mode], ...action];
}

/** Leads no frame to a chain of ours any more. */
export function leaveArgv(device: string): readonly string[] {
  return [...ingress('del', device), 'protocol', 'all', 'pref', `${ENTRY.pref}`];
}

/** Takes a generation's filters away; none there is no error. */
export function emptyArgv(device: string, generation: number): readonly string[] {
  const script = 'tc filter del dev "$1" ingress chain "$2" 2>/dev/null || true';
  return ['sh', '-c', script, 'sh', device, `${chainOf(generation)}`];
}

const statsSchema = z.object({ bytes: z.number(), packets: z.number() });
const filterSchema = z.object({
  protocol: z.string(),
  pref: z.number(),
  kind: z.string(),
  chain: z.number().default(0),
  options: z
    .object({
      handle: z.number().optional(),
      in_hw: z.boolean().default(false),
      actions: z
        .array(
          z.object({
            control_action: z.object({ type: z.string(), chain: z.number().optional() }).optional(),
            stats: statsSchema.optional(),
          }),
        )
        .default([]),
    })
    .optional(),
});

/** A filter as tc lists it. */
export interface ListedFilter {
  readonly pref: number;
  readonly chain: number;
  readonly handle: number;
  readonly isInHardware: boolean;
  /** The chain that it leads to, or null. */
  readonly leadsTo: number | null;
  readonly count: Count;
}

/** Filters at the device's ingress, of all chains. */
export async function listFilters(
  transport: Transport,
  device: string,
): Promise<Result<readonly ListedFilter[]>> {
  const argv = ['tc', '-s', '-j', 'filter', 'show', 'dev', device, 'ingress'];
  const { code, stdout } = await transport.run(argv);
  // Without a qdisc there are none.
  const parsed = z
    .array(filterSchema)
    .safeParse(code === 0 && stdout.trim() !== '' ? parseJson(stdout) : []);
  if (!parsed.success) {
    const message = `\`tc -j filter\` says nothing that is understood about ${device}`;
    return fail(errorAt('deploy/strange-output', message));
  }
  return succeed(
    parsed.data.flatMap(({ pref, chain: own, options }): ListedFilter[] => {
      // Every preference is listed once by itself; what has no handle is a filter of another kind.
      if (options === undefined) return [];
      const { handle = 0, in_hw: isInHardware, actions } = options;
      const [first] = actions;
      const { packets, bytes } = first?.stats ?? { packets: 0, bytes: 0 };
      const leadsTo = first?.control_action?.chain ?? null;
      const count = { packets: BigInt(packets), bytes: BigInt(bytes) };
      return [{ pref, chain: own, handle, isInHardware, leadsTo, count }];
    }),
  );
}

/** The generation's chain that frames are led to, by its number; null: to none of ours. */
export function enteredChain(filters: readonly ListedFilter[]): number | null {
  const entry = filters.find(({ chain, pref }) => chain === 0 && pref === ENTRY.pref);
  const to = entry?.leadsTo ?? null;
  return to !== null && to >= CHAIN_BASE && to < CHAIN_BASE + 0x100000 ? to : null;
}

/** Whether somebody else has a filter where ours has to be, or behind it, where frames would not get. */
export function isTaken(filters: readonly ListedFilter[]): boolean {
  const isOurs = enteredChain(filters) !== null;
  return filters.some(
    ({ chain, pref }) => chain === 0 && (isOurs ? pref > ENTRY.pref : pref >= ENTRY.pref),
  );
}

const REFUSED: readonly (readonly [said: RegExp, code: string, help: string])[] = [
  [
    /TC offload is disabled/,
    'deploy/nic-tc-off',
    'the device takes no filters as it is: `ethtool -K IF hw-tc-offload on`',
  ],
  [
    /classifier not found|Unknown classifier|Specified (filter|TC) kind/i,
    'deploy/no-flower',
    'the kernel needs CONFIG_NET_CLS_FLOWER (module cls_flower)',
  ],
  [
    /supported|Invalid argument/i,
    'deploy/nic-unsupported',
    'the driver takes no such filters: `profiles probe` tells which device this is; --mode generic runs them in the host',
  ],
  [
    /No space left|Cannot allocate memory/i,
    'deploy/nic-full',
    'the device has fewer rows than the profile says: lower limits.rows in a copy of the profile',
  ],
];

/** What went wrong in tc, and what to do about it. */
export function explainTc(refused: Extract<Result<unknown>, { ok: false }>): Result<never> {
  return fail(
    ...refused.diagnostics.map((diagnostic) => {
      const found = REFUSED.find(([said]) => said.test(diagnostic.message));
      if (found === undefined) return diagnostic;
      return { ...diagnostic, code: found[1], help: `nothing was changed; ${found[2]}` };
    }),
  );
}

/** Loads a generation's filters; where one is refused none stays. */
export async function loadFilters(
  transport: Transport,
  device: string,
  mode: TablesMode,
  generation: number,
  filters: readonly FlowerFilter[],
): Promise<Result<null>> {
  await transport.run(emptyArgv(device, generation));
  const what = `load ${filters.length} filters for ${device}`;
  const input = batchOf(device, mode, generation, filters);
  const done = await runStep(transport, 'deploy/load-failed', what, ['tc', '-batch', '-'], {
    input,
    help: 'nothing was changed',
  });
  if (done.ok) return succeed(null);
  await transport.run(emptyArgv(device, generation));
  return explainTc(done);
}
