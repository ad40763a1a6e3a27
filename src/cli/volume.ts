/** `coffer volume inspect`: what an auditor needs to check a volume's bytes without trusting us. */
import { Command } from 'commander';
import { Connection, type ConnectionOptions, withConnection } from './connection.ts';
import { exitCodesHelp } from './errors.ts';
import { printJson } from './output.ts';

export function volumeCommand(): Command {
  const inspect = withConnection(new Command('inspect'))
    .description("Print, as JSON, a volume's image, cipher, data unit, key ARN and encrypted data key.")
    .argument('<volume-id>', 'vol-…')
    .addHelpText(
      'after',
      `
The encrypted data key is base64. KMS Decrypt turns it into the 64-byte key of
the image, with the encryption context that is printed beside it, for whoever
may call kms:Decrypt.

Examples:
  coffer volume inspect vol-0123456789abcdef0
  coffer volume inspect --data /srv/coffer vol-0123456789abcdef0
${exitCodesHelp}`,
    )
    .action(async (volumeId: string, options: ConnectionOptions) => {
      const connection = new Connection(options);
      printJson(await connection.call('InspectVolume', { VolumeId: volumeId }));
      connection.close();
    });
  return new Command('volume').addCommand(inspect);
}
