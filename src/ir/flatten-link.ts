import type { Reason } from '../support/diagnostics.ts';
import { deviceSignature } from './device-groups.ts';
import type { Facts, Vlan } from './facts.ts';
import { pushBridge } from './flatten-bridge.ts';
import { pushBaseChain, pushConditions } from './flatten-chain.ts';
import { noteChange } from './flatten-rules.ts';
import { HIDDEN_TAGS, NO_VLAN_DEVICE, ofVlan, STACKED, TAGGED } from './link-conditions.ts';
import { type HookPath, OTHER_DEVICE } from './path.ts';
import type { Link } from './resolve-test.ts';
import type { Ruleset } from './ruleset.ts';
import { type Builder, bind, type Label, push, to } from './walk-builder.ts';

/** Walks of layer 3 at most, for devices that rules tell apart. */
const MOST_WALKS = 16;

/** Where frames are when they come from the wire. */
export function arrival({ device, mac }: Facts): Link {
  const hostMacs = mac === null ? null : [mac];
  return { device, hostMacs, tagRemoved: false, addressed: false };
}

/** One walk of the layer-3 hooks, for devices that no rule there tells apart. */
interface Walk {
  readonly device: string;
  readonly label: Label;
  /** What the ways to it may have rewritten. */
  readonly changes: Builder['changed'][];
}

interface Receiver {
  readonly builder: Builder;
  readonly ruleset: Ruleset;
  readonly path: HookPath;
  /** Null where no chain stands at a layer-3 hook. */
  readonly layer3: (() => void) | null;
  /** By `deviceSignature`. */
  readonly walks: Map<string, Walk>;
}

/** Goes on to the layer-3 hooks of `device`, which are written later. */
function goUp({ builder, ruleset, layer3, walks }: Receiver, device: string): void {
  const view = 'ingress';
  if (layer3 === null) {
    push(builder, { label: `end on ${device}`, view, then: { kind: 'accept' } });
    return;
  }
  const signature = deviceSignature(ruleset, device, builder.facts);
  const known = walks.get(signature);
  if (known === undefined && walks.size === MOST_WALKS) {
    const message = `rules tell more than ${MOST_WALKS} VLAN devices apart`;
    const reason = { code: 'path/many-devices', message };
    push(builder, { label: `up to ${device}`, view, then: { kind: 'unknown', reason } });
    return;
  }
  const walk = known ?? { device, label: { index: -1 }, changes: [] };
  walks.set(signature, walk);
  walk.changes.push(builder.changed);
  push(builder, { label: `up to ${device}`, view, then: to(walk.label) });
}

function pushWalks({ builder, layer3, walks }: Receiver, tagRemoved: boolean): void {
  for (const { device, label, changes } of walks.values()) {
    bind(builder, label);
    builder.changed = [];
    for (const change of changes) noteChange(builder, change);
    builder.link = { ...arrival(builder.facts), device, tagRemoved };
    layer3?.();
    push(builder, { label: `end on ${device}`, view: 'ingress', then: { kind: 'accept' } });
  }
}

/** The ingress hook of a VLAN device, then layer 3 there. */
function pushVlan(receiver: Receiver, { id, device }: Vlan): void {
  const { builder, path } = receiver;
  if (device === null) {
    const reason = {
      code: 'path/vlan-device',
      message: `what takes VLAN ${id} is no plain device`,
    };
    push(builder, { label: `VLAN ${id}`, view: 'ingress', then: { kind: 'unknown', reason } });
    return;
  }
  builder.link = { ...arrival(builder.facts), device, tagRemoved: true };
  for (const chain of path.ingress.get(device) ?? []) pushBaseChain(builder, chain);
  goUp(receiver, device);
}

/** Why frames that look untagged cannot be told from those of VLAN devices at all, or null. */
function hiddenTags({ vlans, master, rxVlanOff }: Facts, path: HookPath): Reason | null {
  if (rxVlanOff || vlans === null || vlans.length === 0) return null;
  const isPlain = vlans.every(
    ({ device }) => device !== null && (path.ingress.get(device) ?? []).length === 0,
  );
  if (isPlain && master === null) return null;
  const message = 'the NIC may hide VLAN tags, and tagged frames go another way (give rx-vlan=off)';
  return { code: 'fact/rx-vlan', message };
}

/** Frames without a tag that matters, behind the ingress hook of the port. */
function pushUntagged(receiver: Receiver): void {
  const { builder, ruleset, path, layer3 } = receiver;
  const { facts } = builder;
  const { master } = facts;
  const hidden = hiddenTags(facts, path);
  const leave = (label: string, reason: Reason): void => {
    builder.stopped = reason;
    push(builder, { label, view: 'ingress', then: { kind: 'unknown', reason } });
  };
  if (hidden !== null) leave('VLAN tags may be hidden', hidden);
  else if (master?.kind === 'bridge') pushBridge(builder, ruleset, path, master, layer3);
  else if (master !== null) {
    const message = `frames go on on ${master.name} (${master.kind}), which is not followed`;
    leave(`taken by ${master.name}`, { code: 'path/master', message });
  } else if (!facts.rxVlanOff && (facts.vlans ?? []).length > 0) {
    pushConditions(builder, 'ingress', [HIDDEN_TAGS]);
    builder.link = { ...builder.link, device: null };
    layer3?.();
  } else layer3?.();
}

/** VLAN devices that the tags in the frame lead to, each in its place. */
function pushVlans(receiver: Receiver, vlans: readonly Vlan[]): void {
  const { builder } = receiver;
  const { facts, changed } = builder;
  pushConditions(builder, 'ingress', [STACKED]);
  const sections = vlans.map((vlan) => ({ vlan, label: { index: -1 } }));
  for (const { vlan, label } of sections) {
    const name = `VLAN ${vlan.id}: ${vlan.device ?? 'not a plain device'}`;
    push(builder, { label: name, view: 'ingress', tests: ofVlan(vlan), then: to(label) });
  }
  if (facts.master === null) {
    pushConditions(builder, 'ingress', [NO_VLAN_DEVICE]);
    goUp(receiver, facts.device);
  } else {
    pushUntagged(receiver);
    push(builder, { label: `end of ${facts.device}`, view: 'ingress', then: { kind: 'accept' } });
  }
  for (const { vlan, label } of sections) {
    bind(builder, label);
    builder.changed = changed;
    pushVlan(receiver, vlan);
  }
  pushWalks(receiver, true);
}

/** Whether frames may go on on a device that chains stand on, without it being known. */
function mayMeetOthers({ vlans, master }: Facts, { off }: HookPath): boolean {
  const isClosed = vlans?.every(({ device }) => device !== null) && master === null;
  return isClosed !== true && off.some(({ reason }) => reason.code === OTHER_DEVICE);
}

/**
 * From the port's ingress hook up to layer 3 (`layer3` writes its hooks for `builder.link`): frames
 * with a tag go by way of VLAN devices, those of a bridge's port by way of the bridge.
 */
export function pushReceive(
  builder: Builder,
  ruleset: Ruleset,
  path: HookPath,
  layer3: (() => void) | null,
): void {
  const { facts } = builder;
  for (const chain of path.ingress.get(facts.device) ?? []) pushBaseChain(builder, chain);
  const above = [...path.ingress].filter(([device]) => device !== facts.device);
  const chains = [path.bridge.prerouting, path.bridge.input, ...above.map(([, on]) => on)];
  const isEmpty = layer3 === null && chains.every(({ length }) => length === 0);
  if (isEmpty && !mayMeetOthers(facts, path)) return;
  const receiver: Receiver = { builder, ruleset, path, layer3, walks: new Map() };
  if (facts.rxVlanOff && facts.vlans !== null) pushVlans(receiver, facts.vlans);
  else {
    pushConditions(builder, 'ingress', [TAGGED]);
    pushUntagged(receiver);
  }
}
