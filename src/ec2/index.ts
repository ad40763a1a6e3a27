/** EC2's part in block storage: volumes, the instances they are attached to, and the hosts that do the work. */
import * as sdk from '@aws-sdk/client-ec2';
import { catalogueOf } from '../aws/catalogue.ts';
import { denialSentence } from '../aws/denial.ts';
import { AwsError } from '../aws/errors.ts';
import type { Operation, Service } from '../aws/service.ts';
import { unauthorized } from './access.ts';
import { attachVolume, detachVolume } from './attachments.ts';
import { copySnapshot } from './copy-snapshot.ts';
import { copyVolumes } from './copy-volumes.ts';
import { describeInstanceStatus, describeInstances } from './describe-instances.ts';
import { describeSnapshots } from './describe-snapshots.ts';
import { describeVolumes } from './describe-volumes.ts';
import { openDirectSnapshot } from './direct-access.ts';
import {
  beginDirectSnapshot,
  completeDirectSnapshot,
  failDirectSnapshot,
  getDirectSnapshot,
  touchDirectSnapshot,
} from './direct-snapshots.ts';
import { housekeeping } from './housekeeping.ts';
import { describeImages } from './images.ts';
import { describeHosts, inspectVolume } from './inspect.ts';
import { describeInstanceAttribute, modifyInstanceAttribute } from './instance-attributes.ts';
import { rebootInstances, startInstances, stopInstances, terminateInstances } from './instance-states.ts';
import { describeInstanceTypes } from './instance-types.ts';
import { describeKeyDependents } from './key-dependents.ts';
import { ec2Migrations } from './migrations.ts';
import { describeAvailabilityZones, describeRegions } from './regions.ts';
import { runInstances } from './run-instances.ts';
import {
  disableEbsEncryptionByDefault,
  enableEbsEncryptionByDefault,
  getEbsDefaultKmsKeyId,
  getEbsEncryptionByDefault,
  modifyEbsDefaultKmsKeyId,
  resetEbsDefaultKmsKeyId,
} from './settings.ts';
import { describeSnapshotAttribute, modifySnapshotAttribute, resetSnapshotAttribute } from './snapshot-attributes.ts';
import { createSnapshot, createSnapshots, deleteSnapshot } from './snapshots.ts';
import { createSync } from './sync.ts';
import { createTags, deleteTags, describeTags } from './tags.ts';
import { describeVolumesModifications, modifyVolume } from './volume-modifications.ts';
import {
  describeVolumeAttribute,
  describeVolumeStatus,
  enableVolumeIO,
  modifyVolumeAttribute,
} from './volume-status.ts';
import { createVolume, deleteVolume } from './volumes.ts';

function byName(operations: readonly Operation[]): Record<string, Operation> {
  return Object.fromEntries(operations.map((operation) => [operation.name, operation]));
}

export function createEc2(): Service {
  return {
    name: 'ec2',
    eventSource: 'ec2.amazonaws.com',
    protocol: 'ec2Query',
    apiVersion: '2016-11-15',
    xmlNamespace: 'http://ec2.amazonaws.com/doc/2016-11-15/',
    operations: byName([
      attachVolume,
      beginDirectSnapshot,
      completeDirectSnapshot,
      copySnapshot,
      copyVolumes,
      createSnapshot,
      createSnapshots,
      createTags,
      createVolume,
      deleteSnapshot,
      deleteTags,
      deleteVolume,
      describeAvailabilityZones,
      describeImages,
      describeInstanceAttribute,
      describeInstanceStatus,
      describeInstanceTypes,
      describeInstances,
      describeKeyDependents,
      describeRegions,
      describeSnapshotAttribute,
      describeSnapshots,
      describeTags,
      describeVolumeAttribute,
      describeVolumeStatus,
      describeVolumes,
      describeVolumesModifications,
      detachVolume,
      disableEbsEncryptionByDefault,
      enableEbsEncryptionByDefault,
      enableVolumeIO,
      failDirectSnapshot,
      getDirectSnapshot,
      getEbsDefaultKmsKeyId,
      getEbsEncryptionByDefault,
      modifyEbsDefaultKmsKeyId,
      modifyInstanceAttribute,
      modifySnapshotAttribute,
      modifyVolume,
      modifyVolumeAttribute,
      openDirectSnapshot,
      rebootInstances,
      resetEbsDefaultKmsKeyId,
      resetSnapshotAttribute,
      runInstances,
      startInstances,
      stopInstances,
      terminateInstances,
      touchDirectSnapshot,
    ]),
    catalogue: catalogueOf(sdk),
    migrations: ec2Migrations,
    accessDenied: unauthorized,
    housekeeping,
  };
}

/** The one operation that hosts call. */
export function createCofferHost(): Service {
  return {
    name: 'coffer-host',
    // What hosts bring about, EC2 does: that is who the trail names.
    eventSource: 'ec2.amazonaws.com',
    protocol: 'internalJson',
    targetPrefixes: ['CofferHost'],
    operations: byName([createSync()]),
    catalogue: {},
    migrations: [],
    accessDenied: (call, denial) =>
      new AwsError('AccessDeniedException', denialSentence(call, denial), { httpStatus: 403 }),
  };
}

/** Operations of the service `coffer` that are about volumes and hosts. */
export const internalOperations: Readonly<Record<string, Operation>> = byName([inspectVolume, describeHosts]);
