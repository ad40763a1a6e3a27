import type { Call } from '../aws/call.ts';
import { deleteDueKeys } from './deletion.ts';
import { removeExpiredWrappingKeys } from './import-parameters.ts';
import { deleteExpiredMaterial } from './material-expiry.ts';
import { rotateDueKeys } from './rotate-key.ts';

/** What the key service does by itself as time goes by. */
export async function housekeeping(call: Call): Promise<void> {
  await deleteDueKeys(call);
  await deleteExpiredMaterial(call);
  await removeExpiredWrappingKeys(call);
  await rotateDueKeys(call);
}
