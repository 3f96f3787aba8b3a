import { deviceKey } from './device-name.ts';

/** Where things are kept on the machine that is deployed to; neither outlives a reboot. */
export interface DeployPaths {
  /** Mount point of a BPF file system. */
  readonly bpffs: string;
  /** Directory of the state files. */
  readonly state: string;
}

/** The usual places, or what `NFT_OFFLOAD_BPFFS` and `NFT_OFFLOAD_STATE_DIR` say. */
export function deployPaths(env: NodeJS.ProcessEnv = process.env): DeployPaths {
  return {
    bpffs: env['NFT_OFFLOAD_BPFFS'] ?? '/sys/fs/bpf',
    state: env['NFT_OFFLOAD_STATE_DIR'] ?? '/run/nft-offload',
  };
}

/** Holds one directory for each generation of the device's program. */
export function pinDirectory(paths: DeployPaths, device: string): string {
  return `${paths.bpffs}/nft-offload/${deviceKey(device)}`;
}

/** One load of a program: `program`, and its maps in `maps`. */
export interface GenerationPaths {
  readonly directory: string;
  readonly program: string;
  readonly maps: string;
  /** A foreign program that was displaced, kept until the new one is known to work. */
  readonly displaced: string;
}

export function generationPaths(
  paths: DeployPaths,
  device: string,
  generation: number,
): GenerationPaths {
  const directory = `${pinDirectory(paths, device)}/${generation}`;
  return {
    directory,
    program: `${directory}/program`,
    maps: `${directory}/maps`,
    displaced: `${directory}/displaced`,
  };
}

/** Where a map of a generation is pinned: dots become `_` (sanitize_pin_path(), libbpf). */
export function mapPin(generation: GenerationPaths, map: string): string {
  return `${generation.maps}/${map.replaceAll('.', '_')}`;
}

export function stateFile(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.json`;
}

/** The object while it is being loaded (loaders read files only). */
export function objectFile(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.o`;
}

/** A file that is locked while somebody changes the device's program. */
export function lockFile(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.lock`;
}

/** What is kept of deployments, so that they can be deployed again. */
export function historyDirectory(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.history`;
}

/** Frames while a program is tried out. */
export function selfTestDirectory(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.frames`;
}

/** Packets while tables are changed. */
export function patchDirectory(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.patch`;
}

/** What filters of tc were deployed to a device. */
export function tablesFile(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.tables.json`;
}

/** What is kept of deployed filters, so that they can be deployed again. */
export function tablesDirectory(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.tables`;
}

/** Files of the deployment that has to be confirmed. */
export function trialDirectory(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.trial`;
}

/** Files of the guard that follows changes of the ruleset. */
export function watchDirectory(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.watch`;
}

/** What a deployment was made with, so that it can be made again. */
export function optionsFile(paths: DeployPaths, device: string): string {
  return `${paths.state}/${deviceKey(device)}.options`;
}
