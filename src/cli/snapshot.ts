/** `coffer snapshot import` and `export`: disk images become snapshots, and snapshots disk images. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { withConnection } from './connection.ts';
import { exitCodesHelp } from './errors.ts';
import { printJson, printLine } from './output.ts';
import type { ExportOptions } from './transfer/export.ts';
import type { ImportOptions } from './transfer/import.ts';

const parallelDefault = 8;
const parallelMax = 64;

export function snapshotCommand(): Command {
  return new Command('snapshot').addCommand(importCommand()).addCommand(exportCommand());
}

function importCommand(): Command {
  return withConnection(new Command('import'))
    .description('Make a snapshot of a disk image.')
    .argument('<file>', 'a raw or qcow2 image, a block device, or - for a raw image on standard input')
    .addOption(formatOption("the image's format (default: qcow2 if it begins as one, else raw)"))
    .option('--size <gib>', 'the size of the volume; needed for standard input', wholeNumber(1, 65_536))
    .option('--description <text>')
    .option('--encrypted', "encrypt under the account's default key (also without it, where that is the default)")
    .option('--kms-key-id <arn>', 'encrypt under this KMS key')
    .option('--parent <snapshot-id>', 'make it a later snapshot of the same lineage as this one')
    .addOption(
      new Option('--tag <key=value>', 'tag the snapshot; may be repeated')
        .argParser((text: string, all: readonly string[]) => [...all, text])
        .default([], 'none'),
    )
    .addOption(parallelOption())
    .option('--resume <snapshot-id>', 'go on with an import that was interrupted')
    .option('--quiet', 'no progress')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Examples:
  coffer snapshot import disk.qcow2 --encrypted
  zcat disk.img.gz | coffer snapshot import - --size 8 \\
      --kms-key-id arn:aws:kms:us-east-1:123456789012:key/…
${exitCodesHelp}`,
    )
    .action(async (file: string, options: ImportOptions) => {
      const { importImage } = await import('./transfer/import.ts');
      const result = await importImage(file, options);
      if (options.json) printJson(result);
      else printLine(result.SnapshotId);
    });
}

function exportCommand(): Command {
  return withConnection(new Command('export'))
    .description('Write a snapshot to a disk image.')
    .argument('<snapshot-id>', 'snap-…')
    .argument('<file>', 'the image, or - for standard output (raw)')
    .addOption(formatOption("the image's format").default('raw'))
    .addOption(parallelOption())
    .option('--force', 'replace a file that is there')
    .option('--quiet', 'no progress')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
The image is written to FILE.partial, and gets its name when it is whole. The
same command goes on with one that was interrupted. Image and output are not
encrypted: they are the volume as its instance sees it.

Examples:
  coffer snapshot export snap-0123456789abcdef0 disk.qcow2 --format qcow2
  coffer snapshot export snap-0123456789abcdef0 - | gzip > disk.img.gz
${exitCodesHelp}`,
    )
    .action(async (snapshotId: string, file: string, options: ExportOptions) => {
      const { exportImage } = await import('./transfer/export.ts');
      const result = await exportImage(snapshotId, file, options);
      if (options.json && file !== '-') printJson(result);
    });
}

function formatOption(description: string): Option {
  return new Option('--format <format>', description).choices(['raw', 'qcow2']);
}

function parallelOption(): Option {
  return new Option('--parallel <count>', 'how many blocks are under way at a time')
    .default(parallelDefault)
    .argParser(wholeNumber(1, parallelMax));
}

function wholeNumber(min: number, max: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max)
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    return value;
  };
}
