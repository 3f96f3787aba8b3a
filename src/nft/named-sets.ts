import { type Field, findField, META } from '../ir/fields.ts';
import type { ElementSet } from '../ir/ruleset.ts';
import type { Reason } from '../support/diagnostics.ts';
import { readElements, type SetContent } from './elements.ts';

/** A named set or map as the listing declares it; elements are still JSON. */
export interface SetDeclaration {
  readonly name: string;
  /** nft's type names, one a key part; null where the declaration does not say. */
  readonly types: readonly string[] | null;
  readonly content: SetContent;
  readonly flags: readonly string[];
  /** Carries statements (counter, limit...) for every element. */
  readonly statements: boolean;
  readonly elements: readonly unknown[];
}

/** Looks named sets up; contents are read once, when the first rule shows the key's fields. */
export interface NamedSets {
  /** The set read for a key of these fields; null when there is none of this name. */
  readonly find: (name: string, fields: readonly Field[]) => ElementSet | null;
  /** All sets in declaration order, also those that no rule uses. */
  readonly all: () => readonly ElementSet[];
}

const TYPE_FIELDS: Readonly<Record<string, Field | null>> = {
  ipv4_addr: findField('ip', 'saddr'),
  ipv6_addr: findField('ip6', 'saddr'),
  ether_addr: findField('ether', 'saddr'),
  ether_type: findField('ether', 'type'),
  inet_proto: META.l4proto,
  inet_service: findField('th', 'dport'),
  mark: META.mark,
  ifname: META.iifname,
  iface_index: META.iif,
  iface_type: META.iiftype,
  devgroup: META.iifgroup,
  pkt_type: META.pkttype,
  nf_proto: META.nfproto,
  dscp: findField('ip', 'dscp'),
  ecn: findField('ip', 'ecn'),
  tcp_flag: findField('tcp', 'flags'),
  icmp_type: findField('icmp', 'type'),
  icmp_code: findField('icmp', 'code'),
  icmpv6_type: findField('icmpv6', 'type'),
  icmpv6_code: findField('icmpv6', 'code'),
  igmp_type: findField('igmp', 'type'),
  arp_op: findField('arp', 'operation'),
};

function declaredFields(declaration: SetDeclaration): readonly Field[] | null {
  if (declaration.types === null) return null;
  const fields: Field[] = [];
  for (const type of declaration.types) {
    const field = TYPE_FIELDS[type] ?? null;
    if (field === null) return null;
    fields.push(field);
  }
  return fields;
}

function declaredReason(declaration: SetDeclaration, dynamic: boolean): Reason | null {
  const { name } = declaration;
  if (dynamic || declaration.flags.includes('dynamic')) {
    return { code: 'set/dynamic', message: `rules change the elements of @${name} by themselves` };
  }
  if (declaration.flags.includes('timeout')) {
    return { code: 'set/timeout', message: `elements of @${name} disappear after a time` };
  }
  if (declaration.statements) {
    return { code: 'set/element-state', message: `elements of @${name} carry statements` };
  }
  return null;
}

function readSet(
  declaration: SetDeclaration,
  fields: readonly Field[],
  dynamic: boolean,
): ElementSet {
  const read = readElements(fields, declaration.elements, declaration.content);
  const unknown = declaredReason(declaration, dynamic) ?? read.unknown;
  return { name: declaration.name, elements: read.elements, unknown };
}

function emptySet(declaration: SetDeclaration, dynamic: boolean): ElementSet {
  const verdicts = declaration.content === 'verdicts' ? [] : null;
  const reason = declaredReason(declaration, dynamic);
  const types = (declaration.types ?? ['?']).join(' . ');
  return {
    name: declaration.name,
    elements: { parts: [32], lo: [], hi: [], verdicts },
    unknown: reason ?? {
      code: 'set/type',
      message: `no rule shows how the keys of @${declaration.name} (${types}) are to be read`,
    },
  };
}

/** Prepares the sets of one table; `dynamic` names those that rules add to or delete from. */
export function openNamedSets(
  declarations: readonly SetDeclaration[],
  dynamic: ReadonlySet<string>,
): NamedSets {
  const byName = new Map(declarations.map((declaration) => [declaration.name, declaration]));
  // Keyed by set and key shape: a set matched through fields of different kinds is read for each.
  const read = new Map<string, ElementSet>();
  const first = new Map<string, ElementSet>();

  const find = (name: string, fields: readonly Field[]): ElementSet | null => {
    const declaration = byName.get(name);
    if (declaration === undefined) return null;
    const declared = declaredFields(declaration);
    const usable =
      declared !== null &&
      declared.length === fields.length &&
      declared.every((field, index) => field.width === fields[index]?.width);
    const keyFields = usable ? declared : fields;
    const key = `${name}\n${keyFields.map(({ name: part, width }) => `${part}/${width}`).join('\n')}`;
    const known = read.get(key);
    if (known !== undefined) return known;
    const set = readSet(declaration, keyFields, dynamic.has(name));
    read.set(key, set);
    if (!first.has(name)) first.set(name, set);
    return set;
  };

  const all = (): readonly ElementSet[] =>
    declarations.map((declaration) => {
      const known = first.get(declaration.name);
      if (known !== undefined) return known;
      const fields = declaredFields(declaration);
      const isDynamic = dynamic.has(declaration.name);
      return fields === null
        ? emptySet(declaration, isDynamic)
        : readSet(declaration, fields, isDynamic);
    });

  return { find, all };
}
