/** The events that EC2 sends. Source: EBS user guide, "Amazon EventBridge events for Amazon EBS". */
import type { EventDraft } from '../aws/call.ts';
import { instanceArn, volumeArn } from './access.ts';

type VolumeName = { readonly account: string; readonly region: string; readonly volume_id: string };
type InstanceName = { readonly account: string; readonly region: string; readonly instance_id: string };

/** `EBS Volume Notification`. The cause is empty for a success; failures to attach name the key beside the volume. */
export function volumeEvent(
  volume: VolumeName,
  event: 'createVolume' | 'attachVolume' | 'reattachVolume' | 'deleteVolume',
  result: 'available' | 'failed' | 'deleted',
  more: { readonly cause?: string; readonly keyArn?: string | null | undefined; readonly requestId: string },
): EventDraft {
  return {
    source: 'aws.ec2',
    detailType: 'EBS Volume Notification',
    resources: [volumeArn(volume), ...(more.keyArn ? [more.keyArn] : [])],
    detail: { result, cause: more.cause ?? '', event, 'request-id': more.requestId },
  };
}

export function instanceEvent(instance: InstanceName, state: string): EventDraft {
  return {
    source: 'aws.ec2',
    detailType: 'EC2 Instance State-change Notification',
    resources: [instanceArn(instance)],
    detail: { 'instance-id': instance.instance_id, state },
  };
}
