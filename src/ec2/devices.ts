/** Device names. Source: EC2 user guide, "Device names for volumes on Amazon EC2 instances". */
import { invalidValue, missingParameter } from './errors.ts';

const deviceName =
  /^(?:\/dev\/)?((?:sd[a-z](?:1[0-5]|[1-9])?)|(?:xvd[a-z]{1,2}(?:1[0-5]|[1-9])?)|(?:hd[a-z](?:1[0-5]|[1-9])?))$/;

/**
 * Where the socket of a device goes, relative to the instance's directory: `/dev/sdf`, `sdf` → `dev/sdf`. Nothing but a
 * device name passes, so no path leads elsewhere.
 * @throws {AwsError} InvalidParameterValue
 */
export function devicePath(device: string | undefined): string {
  if (!device) throw missingParameter('device');
  const match = deviceName.exec(device);
  if (!match)
    throw invalidValue(`Value (${device}) for parameter device is invalid. ${device} is not a valid EBS device name.`);
  return `dev/${match[1]}`;
}
