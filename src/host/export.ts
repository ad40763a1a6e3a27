/** One volume on one socket: what most tests and benchmarks need. The host itself opens volumes with src/host/volumes.ts. */
import { createOpenVolumes, type ExportFailure, type ExportLog, type VolumeExport } from './volumes.ts';

export interface ExportOptions {
  readonly volumeId: string;
  /** An image made by src/blocks/images.ts. */
  readonly imagePath: string;
  readonly sizeBytes: number;
  /** 64 bytes, wiped in any case. Undefined: the volume is not encrypted. */
  readonly dataKey: Buffer | undefined;
  readonly socketPath: string;
  readonly exportName?: string;
  readonly readOnly?: boolean;
  readonly log: ExportLog;
}

export interface OneExport extends VolumeExport {
  onFailure(callback: (failure: ExportFailure) => void): void;
}

/** Opens a volume and serves it. Rejects as `OpenVolumes.open` and `VolumeHandle.listen` do; nothing is open then. */
export async function openExport(options: ExportOptions): Promise<OneExport> {
  const { volumeId, imagePath, sizeBytes, dataKey, socketPath, exportName, readOnly, log } = options;
  const volume = await createOpenVolumes({ log }).open({ volumeId, imagePath, sizeBytes, hasImage: true, dataKey });
  try {
    const one = await volume.listen({ socketPath, exportName, readOnly });
    return {
      ...one,
      async close(how) {
        try {
          await one.close(how);
        } finally {
          await volume.release();
        }
      },
      onFailure: (callback) => volume.onFailure(callback),
    };
  } catch (error) {
    await volume.release().catch(() => {});
    throw error;
  }
}
