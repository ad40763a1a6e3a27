import { blockBytes } from '../../blocks/store.ts';
import type { Slab } from '../../crypto/native.ts';
import { dataUnitBytes, type Xts } from '../../crypto/xts.ts';

const unitsPerBlock = blockBytes / dataUnitBytes;
const zeroUnit = Buffer.alloc(dataUnitBytes);

/**
 * Puts block `index` of a volume, in the first 512 KiB of `slab`, from one cipher under another; undefined: plain. Units of
 * zeros were never written, and stay zeros.
 */
export function reencryptBlock(slab: Slab, index: number, from: Xts | undefined, to: Xts | undefined): void {
  const firstUnit = index * unitsPerBlock;
  let run = 0;
  const change = (end: number) => {
    if (end === run) return;
    from?.decrypt(slab, run * dataUnitBytes, firstUnit + run, end - run);
    to?.encrypt(slab, run * dataUnitBytes, firstUnit + run, end - run);
  };
  for (let unit = 0; unit < unitsPerBlock; unit++) {
    if (!isZero(slab.bytes, unit * dataUnitBytes)) continue;
    change(unit);
    run = unit + 1;
  }
  change(unitsPerBlock);
}

// Ciphertext begins with a zero byte once in 256 units, so the full comparison is rare.
function isZero(bytes: Buffer, at: number): boolean {
  return bytes[at] === 0 && bytes.compare(zeroUnit, 0, dataUnitBytes, at, at + dataUnitBytes) === 0;
}
