/** Opens one volume for one attachment: data keys, the volume, its socket. */
import type { DesiredAttachment, VolumeEncryption } from '../aws/host-protocol.ts';
import { besideImage, readMapHeader } from '../blocks/volume-map.ts';
import type { ExportFailure, OpenVolumes, VolumeHandle } from './volumes.ts';

export interface OpenAttachmentWorld {
  readonly volumes: OpenVolumes;
  readonly imagePath: string;
  readonly socketPath: string;
  /** The block store's. */
  readonly storeLocation: string;
  readonly storeId: string | undefined;
  dataKey(encryption: VolumeEncryption, sessionName: string, signal: AbortSignal): Promise<Buffer>;
}

/** A volume that an instance has. */
export interface OpenAttachment {
  /** Grows the volume if `sizeBytes` is more than it has. */
  resize(sizeBytes: number): Promise<void>;
  /** Drops the socket (with `force` at once), flushes, and gives the volume up. */
  close(options: { readonly force: boolean }): Promise<void>;
  onFailure(callback: (failure: ExportFailure) => void): void;
}

/** Rejects with why it could not be opened; nothing is open then. */
export async function openAttachment(
  desired: DesiredAttachment,
  world: OpenAttachmentWorld,
  signal: AbortSignal,
): Promise<OpenAttachment> {
  const { volumeId, instanceId, sizeBytes, readOnly, hasImage, encryption, source } = desired;
  const { imagePath, storeLocation, storeId } = world;
  let dataKey: Buffer | undefined;
  let sourceDataKey: Buffer | undefined;
  let volume: VolumeHandle | undefined;
  try {
    dataKey = encryption && (await world.dataKey(encryption, instanceId, signal));
    // The snapshot's key is not asked for without need: it may not be usable for this volume any more.
    const from = source && isRestored(imagePath) ? undefined : source;
    sourceDataKey = from?.encryption && (await world.dataKey(from.encryption, instanceId, signal));
    signal.throwIfAborted();
    const restore = from && { source: from, sourceDataKey, storeLocation, storeId };
    volume = await world.volumes.open({ volumeId, imagePath, sizeBytes, hasImage, dataKey, restore });
    const one = await volume.listen({ socketPath: world.socketPath, readOnly });
    signal.throwIfAborted();
    const { resize, onFailure, release } = volume;
    return {
      resize,
      onFailure,
      async close(options) {
        try {
          await one.close(options);
        } finally {
          await release();
        }
      },
    };
  } catch (error) {
    await volume?.release();
    throw error;
  } finally {
    dataKey?.fill(0);
    sourceDataKey?.fill(0);
  }
}

function isRestored(imagePath: string): boolean {
  return readMapHeader(besideImage(imagePath, 'map'))?.restore?.done ?? false;
}
