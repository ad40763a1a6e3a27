/** Principals for tests that ask as someone else than the administrator. */
import { CreateAccessKeyCommand, CreateUserCommand, IAMClient } from '@aws-sdk/client-iam';
import type { Client } from './client.ts';

/** A new IAM user in the account of `administrator`, who may do nothing yet. */
export async function newUser(administrator: Client, UserName: string): Promise<Client> {
  const iam = administrator.sdk(IAMClient);
  await iam.send(new CreateUserCommand({ UserName }));
  const { AccessKey } = await iam.send(new CreateAccessKeyCommand({ UserName }));
  return administrator.as({ accessKeyId: AccessKey!.AccessKeyId!, secretAccessKey: AccessKey!.SecretAccessKey! });
}
