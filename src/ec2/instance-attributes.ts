/** ModifyInstanceAttribute and DescribeInstanceAttribute. */
import {
  DescribeInstanceAttribute$,
  type DescribeInstanceAttributeRequest,
  type InstanceAttribute,
  ModifyInstanceAttribute$,
  type ModifyInstanceAttributeRequest,
} from '@aws-sdk/client-ec2';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { allowOnInstance, attributeContext } from './access.ts';
import { attachmentsOf } from './attachment-flow.ts';
import { checkInstanceId, invalidCombination, invalidValue, missingParameter, stopIfDryRun } from './errors.ts';
import { rootDeviceName } from './images.ts';
import { findInstance, instanceView } from './instance-store.ts';
import { instanceTypes } from './instance-type-table.ts';
import { type Echoed, type InstanceRow, tables } from './records.ts';
import { noTags, type Tags, tagsOf } from './tag-store.ts';
import { compact, instanceResources, items } from './trail.ts';

interface OneInstance {
  readonly instance: InstanceRow;
  readonly tags: Tags;
}

async function resolveInstance(call: Call, input: { readonly InstanceId?: string | undefined }): Promise<OneInstance> {
  const instance = await findInstance(call, checkInstanceId(input.InstanceId));
  return { instance, tags: await tagsOf(call, instance.instance_id) };
}

/** What a request sets, by the names of its parameters. */
function attributesOf(input: ModifyInstanceAttributeRequest): Record<string, string | boolean | undefined> {
  const name = input.Attribute && input.Attribute[0]!.toUpperCase() + input.Attribute.slice(1);
  return {
    ...(name ? { [name]: input.Value } : {}),
    DisableApiTermination: input.DisableApiTermination?.Value,
    EbsOptimized: input.EbsOptimized?.Value,
    InstanceType: input.InstanceType?.Value,
    ...(input.BlockDeviceMappings?.length ? { BlockDeviceMapping: 'true' } : {}),
  };
}

/** One attribute a request, by its own parameter or by `Attribute` and `Value`. */
export const modifyInstanceAttribute = operation<ModifyInstanceAttributeRequest, object, OneInstance>({
  name: 'ModifyInstanceAttribute',
  schema: ModifyInstanceAttribute$,
  effect: 'writes',
  resolve: resolveInstance,
  access: (call, input, { instance, tags }) => [
    allowOnInstance(call, 'ModifyInstanceAttribute', instance, tags, attributeContext(attributesOf(input))),
  ],
  async handle(call, input, { instance }) {
    const flag = (own: boolean | undefined, name: string) =>
      own ?? (input.Attribute === name ? input.Value?.toLowerCase() === 'true' : undefined);
    const termination = flag(input.DisableApiTermination?.Value, 'disableApiTermination');
    const optimized = flag(input.EbsOptimized?.Value, 'ebsOptimized');
    const type = input.InstanceType?.Value ?? (input.Attribute === 'instanceType' ? input.Value : undefined);
    stopIfDryRun(input);
    if (input.BlockDeviceMappings?.length) await changeMappings(call, instance, input);
    else if (termination !== undefined) await update(call, instance, { disable_api_termination: termination ? 1 : 0 });
    else if (optimized !== undefined) {
      const echoed: Echoed = { ...(JSON.parse(instance.echoed) as Echoed), ebsOptimized: optimized };
      await update(call, instance, { echoed: JSON.stringify(echoed) });
    } else if (type !== undefined) await changeType(call, instance, type);
    else
      throw invalidCombination(
        "One of the attributes blockDeviceMapping, disableApiTermination, ebsOptimized and instanceType must be given; others can't be changed here.",
      );
    return {};
  },
  record: (call, input, output) => ({
    requestParameters: compact({
      instanceId: input.InstanceId,
      attribute: input.Attribute,
      value: input.Value,
      disableApiTermination: input.DisableApiTermination && { value: input.DisableApiTermination.Value },
      ebsOptimized: input.EbsOptimized && { value: input.EbsOptimized.Value },
      instanceType: input.InstanceType && { value: input.InstanceType.Value },
      blockDeviceMapping: items(input.BlockDeviceMappings, ({ DeviceName, Ebs }) => ({
        deviceName: DeviceName,
        ebs: { deleteOnTermination: Ebs?.DeleteOnTermination, volumeId: Ebs?.VolumeId },
      })),
    }),
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: instanceResources(input.InstanceId),
  }),
});

async function changeMappings(call: Call, instance: InstanceRow, input: ModifyInstanceAttributeRequest): Promise<void> {
  const attachments = await attachmentsOf(call, instance);
  for (const { DeviceName: device, Ebs: ebs } of input.BlockDeviceMappings ?? []) {
    const attachment = attachments.find(
      (each) => (!device || each.device === device) && (!ebs?.VolumeId || each.volume_id === ebs.VolumeId),
    );
    if ((!device && !ebs?.VolumeId) || !attachment)
      throw new AwsError(
        'InvalidInstanceAttributeValue',
        `No device is currently mapped at ${device ?? ebs?.VolumeId}`,
      );
    if (ebs?.DeleteOnTermination === undefined) continue;
    await tables(call)
      .updateTable('ec2_attachments')
      .set({ delete_on_termination: ebs.DeleteOnTermination ? 1 : 0 })
      .where('volume_id', '=', attachment.volume_id)
      .where('instance_id', '=', instance.instance_id)
      .execute();
  }
}

async function changeType(call: Call, instance: InstanceRow, type: string): Promise<void> {
  const wanted = instanceTypes.get(type);
  if (!wanted) throw invalidValue(`Invalid value '${type}' for InstanceType.`);
  if (instance.state !== 'stopped')
    throw new AwsError(
      'IncorrectInstanceState',
      `The instance '${instance.instance_id}' is not in the 'stopped' state: it is '${instance.state}'.`,
    );
  const attachments = await attachmentsOf(call, instance);
  if (attachments.length > wanted.volumesMax)
    throw new AwsError(
      'AttachmentLimitExceeded',
      `An instance of type ${type} can have ${wanted.volumesMax} volumes attached.`,
    );
  if (!wanted.ebsEncryption && attachments.length > 0) {
    const encrypted = await tables(call)
      .selectFrom('ec2_volumes')
      .select('volume_id')
      .where('encrypted', '=', 1)
      .where(
        'volume_id',
        'in',
        attachments.map((attachment) => attachment.volume_id),
      )
      .executeTakeFirst();
    if (encrypted)
      throw new AwsError(
        'EncryptedVolumesNotSupported',
        `Volume '${encrypted.volume_id}' is encrypted, and the instance type ${type} does not support that.`,
      );
  }
  await update(call, instance, { instance_type: type });
}

async function update(call: Call, instance: InstanceRow, change: Partial<InstanceRow>): Promise<void> {
  await tables(call).updateTable('ec2_instances').set(change).where('instance_id', '=', instance.instance_id).execute();
}

export const describeInstanceAttribute = operation<DescribeInstanceAttributeRequest, InstanceAttribute, OneInstance>({
  name: 'DescribeInstanceAttribute',
  schema: DescribeInstanceAttribute$,
  effect: 'reads',
  resolve: resolveInstance,
  access: (call, _input, { instance, tags }) => [allowOnInstance(call, 'DescribeInstanceAttribute', instance, tags)],
  async handle(call, input, { instance }) {
    if (!input.Attribute) throw missingParameter('attribute');
    stopIfDryRun(input);
    const view = instanceView(instance, await attachmentsOf(call, instance), noTags);
    const attributes: Record<string, () => Partial<InstanceAttribute>> = {
      blockDeviceMapping: () => ({ BlockDeviceMappings: view.BlockDeviceMappings ?? [] }),
      disableApiStop: () => ({ DisableApiStop: { Value: false } }),
      disableApiTermination: () => ({ DisableApiTermination: { Value: instance.disable_api_termination === 1 } }),
      ebsOptimized: () => ({ EbsOptimized: { Value: view.EbsOptimized } }),
      enaSupport: () => ({ EnaSupport: { Value: view.EnaSupport } }),
      enclaveOptions: () => ({ EnclaveOptions: { Enabled: false } }),
      groupSet: () => ({ Groups: [] }),
      instanceInitiatedShutdownBehavior: () => ({ InstanceInitiatedShutdownBehavior: { Value: 'stop' } }),
      instanceType: () => ({ InstanceType: { Value: instance.instance_type } }),
      kernel: () => ({ KernelId: {} }),
      productCodes: () => ({ ProductCodes: [] }),
      ramdisk: () => ({ RamdiskId: {} }),
      rootDeviceName: () => ({ RootDeviceName: { Value: rootDeviceName } }),
      sourceDestCheck: () => ({ SourceDestCheck: { Value: true } }),
      sriovNetSupport: () => ({ SriovNetSupport: {} }),
      userData: () => ({ UserData: {} }),
    };
    const found = attributes[input.Attribute];
    if (!found) throw invalidValue(`Value (${input.Attribute}) for parameter attribute is invalid. Unknown attribute.`);
    return { InstanceId: instance.instance_id, ...found() };
  },
});
