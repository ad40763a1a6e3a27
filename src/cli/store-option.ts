import { Option } from 'commander';

/** Where snapshots are kept; what the location means is the host's business. */
export function storeOption(): Option {
  return new Option(
    '--store <location>',
    'where snapshots are kept: a directory or s3://bucket/prefix (default: snapshots in the data directory)',
  ).env('COFFER_STORE');
}
