import { parsePacket } from '../../ir/packet.ts';
import type { TcamProfile } from '../../profile/schema.ts';
import type { Backend } from '../backend.ts';
import { compileTcam, type TcamArtifact, type TcamFormat, usualFormat } from './artifact.ts';
import { deviceCapabilities } from './capabilities.ts';
import { isTcamProfile } from './compile.ts';
import { estimateRows } from './estimate.ts';
import { interpretTables } from './interpret.ts';
import type { Effort } from './minimise.ts';
import type { TableSet } from './table.ts';

/** How tables are made. */
export interface TcamMade {
  readonly format: TcamFormat;
  /** Rows are counted as the device's usual format has them, whatever is written. */
  readonly asUsual?: true;
  readonly effort: Effort;
  /** Tables that are loaded: only what changes is written. */
  readonly since: TableSet | null;
}

/** Tables in front of nftables; their interpreter takes frames as they are on the wire. */
export function tcamBackendFor({
  format,
  asUsual,
  effort,
  since,
}: TcamMade): Backend<TcamProfile, TcamArtifact> {
  return {
    serves: isTcamProfile,
    receivePath: () => ({ loopedCopies: false, switchesGroOff: false }),
    // Each table looks at its own frames, with its own key.
    decidesAlike: false,
    capabilitiesOf: deviceCapabilities,
    estimatesOf: estimateRows,
    compile: (classifier, profile, { mayMiscount }) => {
      const counted = asUsual === true ? (usualFormat(profile) ?? format) : format;
      const options = { profile, effort, final: false, mayMiscount };
      return compileTcam(classifier, format, options, since, counted);
    },
    isTooBig: (diagnostics) => diagnostics.every(({ code }) => code === 'tcam/too-big'),
    interpret: ({ compiled: { tables } }) => {
      // Tables in front of nftables either drop or continue.
      return (frame) =>
        interpretTables(tables, parsePacket(frame)).action === 'drop' ? 'drop' : 'continue';
    },
  };
}

/** What `plan` counts: rows as the device is usually given them. */
export const tcamBackend = tcamBackendFor({
  format: 'json',
  asUsual: true,
  effort: 'normal',
  since: null,
});
