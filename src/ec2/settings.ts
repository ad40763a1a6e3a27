/**
 * Encryption by default: per account and region, whether all new volumes are encrypted, and under which key when none is
 * named. Source: EBS user guide, "Enable Amazon EBS encryption by default".
 */
import {
  DisableEbsEncryptionByDefault$,
  type DisableEbsEncryptionByDefaultRequest,
  type DisableEbsEncryptionByDefaultResult,
  EnableEbsEncryptionByDefault$,
  GetEbsDefaultKmsKeyId$,
  type GetEbsDefaultKmsKeyIdRequest,
  type GetEbsDefaultKmsKeyIdResult,
  GetEbsEncryptionByDefault$,
  type GetEbsEncryptionByDefaultResult,
  ModifyEbsDefaultKmsKeyId$,
  type ModifyEbsDefaultKmsKeyIdRequest,
  type ModifyEbsDefaultKmsKeyIdResult,
  ResetEbsDefaultKmsKeyId$,
} from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { missingParameter, stopIfDryRun } from './errors.ts';
import { managedKeyAlias, usableKey } from './keys.ts';
import { type Flag, preparedQuery, tables } from './records.ts';

interface Settings {
  readonly encryption_by_default: Flag;
  readonly default_key_arn: string | null;
}

const readSettings = preparedQuery<Settings>((db) =>
  db
    .selectFrom('ec2_settings')
    .select(['encryption_by_default', 'default_key_arn'])
    .where('account', '=', '')
    .where('region', '=', ''),
);

export async function settingsOf(call: Call): Promise<Settings> {
  const { rows } = await readSettings(call, [call.account, call.region]);
  return rows[0] ?? { encryption_by_default: 0, default_key_arn: null };
}

async function change(call: Call, change: Partial<Settings>): Promise<void> {
  await tables(call)
    .insertInto('ec2_settings')
    .values({ account: call.account, region: call.region, encryption_by_default: 0, default_key_arn: null, ...change })
    .onConflict((conflict) => conflict.columns(['account', 'region']).doUpdateSet(change))
    .execute();
}

/** The key that is used when none is named: as it was set, or the alias of the AWS managed key. */
export async function defaultKey(call: Call): Promise<string> {
  return (await settingsOf(call)).default_key_arn ?? managedKeyAlias;
}

export const getEbsEncryptionByDefault = operation<GetEbsDefaultKmsKeyIdRequest, GetEbsEncryptionByDefaultResult>({
  name: 'GetEbsEncryptionByDefault',
  schema: GetEbsEncryptionByDefault$,
  effect: 'reads',
  access: (call) => [allow(call, 'GetEbsEncryptionByDefault')],
  async handle(call, input) {
    stopIfDryRun(input);
    const { encryption_by_default } = await settingsOf(call);
    return { EbsEncryptionByDefault: encryption_by_default === 1, SseType: encryption_by_default ? 'sse-kms' : 'none' };
  },
});

function switchEncryption(name: 'EnableEbsEncryptionByDefault' | 'DisableEbsEncryptionByDefault', value: Flag) {
  return operation<DisableEbsEncryptionByDefaultRequest, DisableEbsEncryptionByDefaultResult>({
    name,
    schema: value ? EnableEbsEncryptionByDefault$ : DisableEbsEncryptionByDefault$,
    effect: 'writes',
    access: (call) => [allow(call, name)],
    async handle(call, input) {
      stopIfDryRun(input);
      await change(call, { encryption_by_default: value });
      return { EbsEncryptionByDefault: value === 1 };
    },
    record: (_call, _input, output) => ({
      requestParameters: { [`${name}Request`]: '' },
      responseElements: output ? { [`${name}Response`]: { ebsEncryptionByDefault: value === 1 } } : null,
    }),
  });
}
export const enableEbsEncryptionByDefault = switchEncryption('EnableEbsEncryptionByDefault', 1);
export const disableEbsEncryptionByDefault = switchEncryption('DisableEbsEncryptionByDefault', 0);

export const getEbsDefaultKmsKeyId = operation<GetEbsDefaultKmsKeyIdRequest, GetEbsDefaultKmsKeyIdResult>({
  name: 'GetEbsDefaultKmsKeyId',
  schema: GetEbsDefaultKmsKeyId$,
  effect: 'reads',
  access: (call) => [allow(call, 'GetEbsDefaultKmsKeyId')],
  async handle(call, input) {
    stopIfDryRun(input);
    return { KmsKeyId: await defaultKey(call) };
  },
});

export const modifyEbsDefaultKmsKeyId = operation<ModifyEbsDefaultKmsKeyIdRequest, ModifyEbsDefaultKmsKeyIdResult>({
  name: 'ModifyEbsDefaultKmsKeyId',
  schema: ModifyEbsDefaultKmsKeyId$,
  effect: 'writes',
  access: (call) => [allow(call, 'ModifyEbsDefaultKmsKeyId')],
  async handle(call, input) {
    if (!input.KmsKeyId) throw missingParameter('KmsKeyId');
    stopIfDryRun(input);
    const keyArn = await usableKey(call, input.KmsKeyId);
    await change(call, { default_key_arn: keyArn });
    return { KmsKeyId: keyArn };
  },
  record: (_call, input, output) => ({
    requestParameters: { ModifyEbsDefaultKmsKeyIdRequest: { KmsKeyId: input.KmsKeyId ?? null } },
    responseElements: output ? { ModifyEbsDefaultKmsKeyIdResponse: { kmsKeyId: output.KmsKeyId } } : null,
  }),
});

export const resetEbsDefaultKmsKeyId = operation<GetEbsDefaultKmsKeyIdRequest, ModifyEbsDefaultKmsKeyIdResult>({
  name: 'ResetEbsDefaultKmsKeyId',
  schema: ResetEbsDefaultKmsKeyId$,
  effect: 'writes',
  access: (call) => [allow(call, 'ResetEbsDefaultKmsKeyId')],
  async handle(call, input) {
    stopIfDryRun(input);
    await change(call, { default_key_arn: null });
    return { KmsKeyId: managedKeyAlias };
  },
  record: (_call, _input, output) => ({
    requestParameters: { ResetEbsDefaultKmsKeyIdRequest: '' },
    responseElements: output ? { ResetEbsDefaultKmsKeyIdResponse: { kmsKeyId: output.KmsKeyId } } : null,
  }),
});
