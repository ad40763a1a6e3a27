/** The errors of EBS direct, with the `Reason` that each carries. Source: EBS API reference, "Common Errors" of each page. */
import { AwsError, isAwsError } from '../aws/errors.ts';
import { BlockRequestFailed } from './block-broker.ts';

export function invalid(reason: string, message: string): AwsError {
  return new AwsError('ValidationException', message, { members: { Reason: reason } });
}

export function snapshotNotFound(snapshotId: string): AwsError {
  return new AwsError('ResourceNotFoundException', `The snapshot '${snapshotId}' does not exist.`, {
    httpStatus: 404,
    members: { Reason: 'SNAPSHOT_NOT_FOUND' },
  });
}

export function denied(reason: string, message: string): AwsError {
  return new AwsError('AccessDeniedException', message, { httpStatus: 403, members: { Reason: reason } });
}

/** What EC2 (and KMS behind it) refused, as EBS direct says it. Errors of the system itself pass unchanged. */
export async function asking<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw isAwsError(error) ? translated(error) : error;
  }
}

function translated(error: AwsError): AwsError {
  switch (error.code) {
    case 'InvalidSnapshot.NotFound':
      return new AwsError('ResourceNotFoundException', error.message, {
        httpStatus: 404,
        members: { Reason: 'SNAPSHOT_NOT_FOUND' },
      });
    case 'UnauthorizedOperation':
      return denied('DEPENDENCY_ACCESS_DENIED', error.message);
    case 'SnapshotLimitExceeded':
    case 'ConcurrentSnapshotLimitExceeded':
    case 'PendingSnapshotLimitExceeded':
    case 'TagLimitExceeded':
      return new AwsError('ServiceQuotaExceededException', error.message, {
        httpStatus: 402,
        members: { Reason: 'DEPENDENCY_SERVICE_QUOTA_EXCEEDED' },
      });
    case 'InvalidKMSKey.InvalidState':
    case 'IncorrectState':
      return invalid('INVALID_DEPENDENCY_REQUEST', error.message);
    case 'InvalidParameterValue':
    case 'InvalidParameterCombination':
    case 'InvalidParameterDependency':
    case 'MissingParameter':
      return invalid('INVALID_PARAMETER_VALUE', error.message);
    case 'Unavailable':
      return internal(error.message, 503);
    default:
      return error;
  }
}

/** What a host could not do, as EBS direct says it. `what` names the block or the snapshot. */
export function hostFailure(error: unknown, what: string): unknown {
  if (!(error instanceof BlockRequestFailed)) return error;
  switch (error.code) {
    case 'NoSuchBlock':
      return invalid('INVALID_BLOCK', `${what} holds no data: ${error.message}`);
    case 'NoSuchSnapshot':
      return internal(`${what} can't be found in the block store: ${error.message}`);
    case 'NotOpen':
      return invalid('INVALID_SNAPSHOT_ID', `${what}: ${error.message}.`);
    case 'ChecksumMismatch':
      return invalid('INVALID_PARAMETER_VALUE', error.message);
    case 'TooMany':
      return new AwsError('RequestThrottledException', error.message, {
        members: { Reason: 'RESOURCE_LEVEL_THROTTLE' },
      });
    case 'HostAway':
    case 'OtherSession':
    case 'Cancelled':
    case 'Unavailable':
      return internal(`${what} can't be reached at the moment: ${error.message} Try again.`, 503);
    default:
      return internal(`${what}: ${error.message}`);
  }
}

function internal(message: string, httpStatus = 500): AwsError {
  return new AwsError('InternalServerException', message, { httpStatus });
}
