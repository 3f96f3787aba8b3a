import { z } from 'zod';

/** nft's address families. */
export const familySchema = z.enum(['ip', 'ip6', 'inet', 'arp', 'bridge', 'netdev']);

const strings = z.union([z.string().transform((one) => [one]), z.array(z.string())]);
const handle = z.number().int().nullish();

/** `{"table": ...}` of libnftables-json(5). */
export const tableSchema = z.object({
  family: familySchema,
  name: z.string().min(1),
  handle,
  flags: strings.nullish(),
});

/** `{"chain": ...}`; a base chain has `hook` and the members around it. */
export const chainSchema = z.object({
  family: familySchema,
  table: z.string().min(1),
  name: z.string().min(1),
  handle,
  type: z.enum(['filter', 'nat', 'route']).nullish(),
  hook: z
    .enum(['ingress', 'egress', 'prerouting', 'input', 'forward', 'output', 'postrouting'])
    .nullish(),
  prio: z.number().int().nullish(),
  policy: z.enum(['accept', 'drop']).nullish(),
  dev: strings.nullish(),
  devs: strings.nullish(),
});

/** `{"rule": ...}`; the expressions are looked at one by one when they are lowered. */
export const ruleSchema = z.object({
  family: familySchema,
  table: z.string().min(1),
  chain: z.string().min(1),
  handle,
  index: z.number().int().nullish(),
  comment: z.string().nullish(),
  expr: z.custom<readonly unknown[]>((value) => Array.isArray(value), 'expected an array'),
});

/** `{"set": ...}` and `{"map": ...}`; elements are looked at one by one when they are read. */
export const setSchema = z.object({
  family: familySchema,
  table: z.string().min(1),
  name: z.string().min(1),
  type: z.unknown().optional(),
  map: z.unknown().optional(),
  flags: strings.nullish(),
  stmt: z.unknown().optional(),
  elem: z
    .custom<readonly unknown[]>((value) => Array.isArray(value), 'expected an array')
    .nullish(),
});

/** `{"element": ...}`: more elements of a set or map. */
export const elementSchema = z.object({
  family: familySchema,
  table: z.string().min(1),
  name: z.string().min(1),
  elem: z.unknown().optional(),
});

/** `{"counter": ...}`, a counter the table names. */
export const counterSchema = z.object({
  family: familySchema,
  table: z.string().min(1),
  name: z.string().min(1),
  packets: z.number().nonnegative().nullish(),
  bytes: z.number().nonnegative().nullish(),
});
