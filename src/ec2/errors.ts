/** EC2's error codes and wordings. Source: EC2 API reference, "Error codes"; messages as the service sends them. */
import { AwsError } from '../aws/errors.ts';

/** @throws DryRunOperation when the request only asks whether it would be allowed; call it once all else is checked. */
export function stopIfDryRun(input: { readonly DryRun?: boolean | undefined }): void {
  if (input.DryRun)
    throw new AwsError('DryRunOperation', 'Request would have succeeded, but DryRun flag is set.', { httpStatus: 412 });
}

export function missingParameter(name: string): AwsError {
  return new AwsError('MissingParameter', `The request must contain the parameter ${name}`);
}

export function invalidValue(message: string): AwsError {
  return new AwsError('InvalidParameterValue', message);
}

export function invalidCombination(message: string): AwsError {
  return new AwsError('InvalidParameterCombination', message);
}

export function incorrectState(message: string): AwsError {
  return new AwsError('IncorrectState', message);
}

export function volumesNotFound(ids: readonly string[]): AwsError {
  return new AwsError(
    'InvalidVolume.NotFound',
    ids.length === 1 ? `The volume '${ids[0]}' does not exist.` : `The volumes '${ids.join(', ')}' do not exist.`,
  );
}

export function instancesNotFound(ids: readonly string[]): AwsError {
  return new AwsError(
    'InvalidInstanceID.NotFound',
    ids.length === 1
      ? `The instance ID '${ids[0]}' does not exist`
      : `The instance IDs '${ids.join(', ')}' do not exist`,
  );
}

export function snapshotsNotFound(ids: readonly string[]): AwsError {
  return new AwsError(
    'InvalidSnapshot.NotFound',
    ids.length === 1 ? `The snapshot '${ids[0]}' does not exist.` : `The snapshots '${ids.join(', ')}' do not exist.`,
  );
}

/** @throws InvalidParameterValue for text that can't be a snapshot id */
export function checkSnapshotId(id: string | undefined, parameter = 'snapshotId'): string {
  if (!id) throw missingParameter(parameter);
  if (typeof id !== 'string' || !/^snap-(?:[0-9a-f]{8}|[0-9a-f]{17})$/.test(id))
    throw invalidValue(`Value (${id}) for parameter ${parameter} is invalid. Expected: 'snap-...'.`);
  return id;
}

/** @throws InvalidParameterValue for text that can't be a volume id */
export function checkVolumeId(id: string | undefined, parameter = 'volumeId'): string {
  if (!id) throw missingParameter(parameter);
  if (typeof id !== 'string' || !/^vol-(?:[0-9a-f]{8}|[0-9a-f]{17})$/.test(id))
    throw invalidValue(`Value (${id}) for parameter ${parameter} is invalid. Expected: 'vol-...'.`);
  return id;
}

/** @throws InvalidInstanceID.Malformed for text that can't be an instance id */
export function checkInstanceId(id: string | undefined, parameter = 'instanceId'): string {
  if (!id) throw missingParameter(parameter);
  if (typeof id !== 'string' || !/^i-(?:[0-9a-f]{8}|[0-9a-f]{17})$/.test(id))
    throw new AwsError('InvalidInstanceID.Malformed', `Invalid id: "${id}" (expecting "i-...")`);
  return id;
}
