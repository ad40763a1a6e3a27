/** Grants that let hosts decrypt data keys for as long as a task lasts. */
import type { Call } from '../aws/call.ts';
import { grantDecrypt, retireGrant } from './keys.ts';
import { tables } from './records.ts';

/**
 * Lets hosts, as the session `resourceId`, decrypt the data keys of a context until `endTaskGrants`. `call` is in the key's
 * region, and the caller's.
 */
export async function grantForTask(
  call: Call,
  resourceId: string,
  key: { readonly keyArn: string; readonly contextId: string },
): Promise<void> {
  const grantId = await grantDecrypt(call, key.keyArn, key.contextId, resourceId);
  await tables(call)
    .insertInto('ec2_task_grants')
    .values({ resource_id: resourceId, key_arn: key.keyArn, grant_id: grantId })
    .execute();
}

export async function endTaskGrants(call: Call, resourceId: string): Promise<void> {
  const grants = await tables(call)
    .deleteFrom('ec2_task_grants')
    .where('resource_id', '=', resourceId)
    .returningAll()
    .execute();
  for (const grant of grants) await retireGrant(call, grant.key_arn, grant.grant_id);
}
