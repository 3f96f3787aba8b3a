import type { Reason } from '../support/diagnostics.ts';
import { isObject, numberMember, textMember } from './json.ts';

/** Why one kind of expression cannot be decided from the packet alone, in words. */
const EXPRESSION_WORDS: Readonly<Record<string, string>> = {
  fib: 'depends on a route look-up',
  rt: 'depends on the route of the packet',
  socket: 'depends on local sockets',
  osf: 'guesses the operating system of the sender',
  numgen: 'counts packets or draws numbers',
  jhash: 'is a hash of packet fields',
  symhash: 'is a hash that the kernel chooses',
  exthdr: 'walks the IPv6 extension headers',
  'ip option': 'walks the IPv4 options',
  'tcp option': 'walks the TCP options',
  'sctp chunk': 'walks the SCTP chunks',
  'dccp option': 'walks the DCCP options',
  ipsec: 'depends on the IPsec state of the packet',
  tunnel: 'looks inside a tunnel',
};

const META_WORDS: Readonly<Record<string, readonly [code: string, words: string]>> = {
  time: ['match/time', 'depends on the clock'],
  day: ['match/time', 'depends on the clock'],
  hour: ['match/time', 'depends on the clock'],
  cgroup: ['match/cgroup', 'depends on a local process'],
  skuid: ['match/socket-owner', 'depends on a local process'],
  skgid: ['match/socket-owner', 'depends on a local process'],
  cpu: ['match/cpu', 'depends on the processor that handles the packet'],
  random: ['match/random', 'is drawn by chance'],
  rtclassid: ['match/rt', 'depends on the route of the packet'],
  nftrace: ['match/trace', 'depends on tracing'],
};

/** `match/ct-state`, `match/fib`...: why a match on this expression cannot be evaluated. */
export function expressionReason(key: string, body: unknown): Reason {
  if (key === 'meta') {
    const name = textMember(body, 'key') ?? '?';
    const [code, words] = META_WORDS[name] ?? [`match/meta-${name}`, 'is not in the packet'];
    return { code, message: `meta ${name} ${words}` };
  }
  if (key === 'ct') {
    const name = textMember(body, 'key') ?? '?';
    const code = `match/ct-${name.replaceAll(' ', '-')}`;
    return { code, message: `ct ${name} depends on connection tracking` };
  }
  if (key === 'payload') return payloadReason(body);
  if (key === 'map') {
    return { code: 'match/map', message: 'a value looked up in a map is compared' };
  }
  if (key === 'invalid') return { code: 'match/form', message: 'the expression is not understood' };
  const code = key.replaceAll(' ', '-');
  const words = EXPRESSION_WORDS[key] ?? 'is an expression that is not understood';
  return { code: `match/${code}`, message: `${key} ${words}` };
}

function payloadReason(body: unknown): Reason {
  const tunnel = textMember(body, 'tunnel');
  if (tunnel !== null) return { code: 'match/tunnel', message: `${tunnel} looks inside a tunnel` };
  const protocol = textMember(body, 'protocol');
  if (protocol === null) {
    const base = textMember(body, 'base') ?? '?';
    const offset = isObject(body) ? numberMember(body, 'offset') : null;
    return { code: 'match/payload', message: `@${base},${offset ?? '?'} is not a known payload` };
  }
  if (protocol === 'vxlan' || protocol === 'geneve') {
    return { code: 'match/tunnel', message: `${protocol} is a tunnel header` };
  }
  const field = textMember(body, 'field') ?? '?';
  return { code: 'match/payload', message: `${protocol} ${field} is not a known header field` };
}

/** What a statement that neither tests, counts nor decides does, in words. */
const STATEMENT_WORDS: Readonly<Record<string, string>> = {
  log: 'writes to the log',
  reject: 'sends an answer to the sender',
  queue: 'hands the packet to a program',
  dnat: 'rewrites the destination and tracks the connection',
  snat: 'rewrites the source and tracks the connection',
  masquerade: 'rewrites the source and tracks the connection',
  redirect: 'rewrites the destination and tracks the connection',
  tproxy: 'hands the packet to a local socket',
  synproxy: 'answers in the name of a server',
  dup: 'sends a copy elsewhere',
  fwd: 'sends the packet out of another device',
  flow: 'hands the connection to a flow table',
  notrack: 'keeps the packet out of connection tracking',
  'ct helper': 'assigns a connection tracking helper',
  'ct timeout': 'assigns connection tracking timeouts',
  'ct expectation': 'expects another connection',
  'ct set': 'changes the tracked connection',
  secmark: 'sets a security mark',
  last: 'remembers when it last matched',
  set: 'changes the elements of a set',
  map: 'changes the elements of a map',
  meter: 'keeps state for every key',
  limit: 'counts packets over time',
  quota: 'counts bytes',
  'ct count': 'counts connections',
  mangle: 'rewrites the packet',
  xt: 'is an extension of iptables',
  'meta set': 'changes metadata of the packet',
  reset: 'removes a TCP option',
  counter: 'chooses the counter by a map',
};

/** `effect/log`, `effect/reject`...: what stands in the way of doing this statement elsewhere. */
export function statementReason(key: string, name = key): Reason {
  const words = STATEMENT_WORDS[key] ?? 'is a statement that is not understood';
  return { code: `effect/${key.replaceAll(' ', '-')}`, message: `${name} ${words}` };
}

/** `match/limit`, `match/quota`...: a statement that lets only some packets pass. */
export function gateReason(key: string): Reason {
  const words = STATEMENT_WORDS[key] ?? 'keeps state';
  return { code: `match/${key.replaceAll(' ', '-')}`, message: `${key} ${words}` };
}
