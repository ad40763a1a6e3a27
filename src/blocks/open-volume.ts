/** A volume's files as one thing: image, map and points in time, in step with each other after any crash. */
import { existsSync, statSync } from 'node:fs';
import { createVolumeImage, ImageError, type OpenImage, openVolumeImage } from './images.ts';
import { PointsInTime } from './points-in-time.ts';
import { besideImage, createVolumeMap, readMapHeader, VolumeMap } from './volume-map.ts';

const gib = 1024 ** 3;

/** The snapshot that a volume is made from. */
export interface RestoredFrom {
  readonly snapshotId: string;
  /** The blocks that it has data for; asked only when the volume is made. */
  blocks(): Promise<Iterable<number>>;
}

export interface OpenVolumeFiles {
  readonly image: OpenImage;
  readonly map: VolumeMap;
  readonly points: PointsInTime;
  /** Ends it; `clean`: the image is on stable storage. */
  close(clean: boolean): void;
}

/**
 * Makes a volume's image, and before it the map, unless they are there.
 * @param mustExist the volume has been open before: a missing image is a lost one @throws {ImageError}
 */
export async function ensureVolumeFiles(
  imagePath: string,
  sizeBytes: number,
  mustExist: boolean,
  restore?: RestoredFrom,
): Promise<void> {
  const mapPath = besideImage(imagePath, 'map');
  if (existsSync(imagePath)) {
    if (restore && !existsSync(mapPath)) {
      throw new ImageError(
        'MapMissing',
        `the volume's map ${mapPath} is missing, so nobody knows which blocks of ${restore.snapshotId} its image lacks`,
      );
    }
    return;
  }
  if (mustExist) throw new ImageError('ImageMissing', `the volume image ${imagePath} is missing`);
  // A map from an attempt before, without its image, may say of blocks that they are there.
  if (restore) {
    createVolumeMap(mapPath, sizeBytes, { snapshotId: restore.snapshotId, blocks: await restore.blocks() });
  }
  createVolumeImage(imagePath, sizeBytes);
}

/**
 * Opens a volume for writing, and grows it to `sizeBytes` if it is smaller.
 * @param restore the snapshot that blocks may be taken from @throws {ImageError} and the file system's errors
 */
export function openVolumeFiles(
  imagePath: string,
  sizeBytes: number,
  restore?: { snapshotId: string },
): OpenVolumeFiles {
  const { image, map } = openImageAndMap(imagePath, sizeBytes);
  try {
    const from = map.header.restore;
    if (map.isRestoring && from!.snapshotId !== restore?.snapshotId) {
      throw new ImageError(
        'SourceMissing',
        `the volume image ${imagePath} lacks blocks of ${from!.snapshotId}, which it is to be restored from`,
      );
    }
    if (map.header.sizeBytes < sizeBytes) map.grow(sizeBytes);
    map.begin();
    const points = new PointsInTime(besideImage(imagePath, '').slice(0, -1), map, true);
    return {
      image,
      map,
      points,
      close(clean) {
        try {
          points.close(clean);
          if (clean) map.finish();
        } finally {
          map.close();
          image.close();
        }
      },
    };
  } catch (error) {
    map.close();
    image.close();
    throw error;
  }
}

/**
 * Locks the image and opens the map, which is made for images of earlier versions. An image that is smaller grows to
 * `sizeBytes`, unless it was cut short: it has never less than the map says, and more when growing it was interrupted.
 */
export function openImageAndMap(imagePath: string, sizeBytes: number): { image: OpenImage; map: VolumeMap } {
  const mapPath = besideImage(imagePath, 'map');
  const image = openVolumeImage(imagePath, sizeBytes, false, (actualBytes) => {
    const header = readMapHeader(mapPath);
    // Before there were maps, volumes had whole GiB; what was cut short by accident has not.
    return header ? actualBytes >= header.sizeBytes : actualBytes % gib === 0;
  });
  try {
    if (!existsSync(mapPath)) createVolumeMap(mapPath, sizeBytes);
    return { image, map: new VolumeMap(mapPath) };
  } catch (error) {
    image.close();
    throw error;
  }
}

/** The same without growing anything, for a volume that is only looked at: it may be larger or smaller than is known. */
export function openImageAsItIs(imagePath: string): { image: OpenImage; map: VolumeMap } {
  const { size } = statSync(imagePath);
  const files = openImageAndMap(imagePath, size);
  const { sizeBytes } = files.map.header;
  if (size >= sizeBytes) return files;
  files.map.close();
  files.image.close();
  throw new ImageError('ImageSizeMismatch', `the volume image ${imagePath} has ${size} bytes, not ${sizeBytes}`);
}
