import type { Command } from 'commander';
import { tcFilters } from '../backends/tcam/formats/tc-flower.ts';
import type { XdpMode } from '../deploy/attachment.ts';
import type { CounterOwner } from '../deploy/owner-counts.ts';
import type { TablesRequest } from '../deploy/tables.ts';
import type { FlowerFilter, TablesMode } from '../deploy/tables-filters.ts';
import { formatRuleId, type Ruleset } from '../ir/ruleset.ts';
import type { Situation } from '../plan/place.ts';
import { placeTables } from '../plan/place-tcam.ts';
import type { TcamProfile } from '../profile/schema.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
import { checksumOf, type RequestOptions } from './deploy-request.ts';
import { refuseUsage } from './machine.ts';

/** Where filters for a device are run; wrong usage where they cannot be. */
export function tablesMode(command: Command, profile: TcamProfile, mode: XdpMode): TablesMode {
  const isGiven = command.getOptionValueSource('mode') !== 'default';
  if (mode === 'generic') return 'generic';
  if (isGiven && mode !== 'offload') {
    const modes = '--mode offload (in the device) or generic (in the host)';
    return refuseUsage(command, `profile ${profile.name} is tcam: ${modes}`);
  }
  if (profile.formats?.value.includes('tc-flower') === true) return 'offload';
  const ways = profile.formats?.value.join(', ') || 'no format known';
  return refuseUsage(
    command,
    `profile ${profile.name}: its device does not take rows by tc (${ways}); compile writes them, --mode generic runs them in the host`,
  );
}

/** Every rule of a ruleset, as the owner of what is counted for it, by its name. */
function ownersOf({ tables }: Ruleset): ReadonlyMap<string, CounterOwner> {
  return new Map(
    tables.flatMap(({ chains }) =>
      chains.flatMap(({ rules }) =>
        rules.map(({ id }) => {
          const { family, table, chain, handle, index } = id;
          return [formatRuleId(id), { family, table, name: null, chain, handle, index }] as const;
        }),
      ),
    ),
  );
}

/** Compiles for machines; what a row drops is counted for the first rule it comes from. */
export function createTablesCompiler(
  profile: TcamProfile,
  options: Omit<RequestOptions, 'mode'> & { readonly mode: TablesMode },
): (situation: Situation) => Result<TablesRequest> {
  return (situation) => {
    const { ruleset, facts } = situation;
    const made = { format: 'tc-flower', profile, effort: 'normal', final: false } as const;
    const placed = placeTables(situation, { ...made, since: null });
    if (!placed.ok) return placed;
    const rows = tcFilters(placed.value.artifact.compiled.tables);
    if (!rows.ok) return rows;
    const known = ownersOf(ruleset);
    const owners: CounterOwner[] = [];
    const places = new Map<string, number>();
    const placeOf = (rule: string | undefined): number | null => {
      const owner = rule === undefined ? undefined : known.get(rule);
      if (rule === undefined || owner === undefined) return null;
      const place = places.get(rule) ?? owners.push(owner) - 1;
      places.set(rule, place);
      return place;
    };
    const used = new Map<number, number>();
    const filters = rows.value.map(({ rules, ...filter }): FlowerFilter => {
      const handle = (used.get(filter.pref) ?? 0) + 1;
      used.set(filter.pref, handle);
      return { ...filter, handle, owner: filter.action === 'drop' ? placeOf(rules[0]) : null };
    });
    const request: TablesRequest = {
      ...{ device: facts.device, mode: options.mode, filters, owners },
      rulesetChecksum: checksumOf(ruleset),
      basis: options.basis ?? null,
      origin: null,
      confirm: options.confirm ?? null,
    };
    return succeed(request, placed.diagnostics);
  };
}
