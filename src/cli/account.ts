/** `coffer account create`: another tenant. `coffer account host-key`: another machine. */
import { Command } from 'commander';
import { Connection, type ConnectionOptions, withConnection } from './connection.ts';
import { exitCodesHelp } from './errors.ts';
import { printJson, printLine } from './output.ts';

interface AccessKeyAnswer {
  readonly AccessKeyId: string;
  readonly SecretAccessKey: string;
}

export function accountCommand(): Command {
  const create = withConnection(new Command('create'))
    .description(
      'Make a new account, isolated from all others; prints its number and the access key of its root as JSON.',
    )
    .option('--name <text>', 'a name for people')
    .addHelpText(
      'after',
      `
Only the first administrator may. The secret access key is shown this once.

Examples:
  coffer account create --name payments
  coffer account create --endpoint https://coffer.example:4600 --profile coffer-admin
${exitCodesHelp}`,
    )
    .action(async (options: ConnectionOptions & { name?: string }) => {
      const connection = new Connection(options);
      printJson(await connection.call<{ Account: string } & AccessKeyAnswer>('CreateAccount', { Name: options.name }));
      connection.close();
    });
  const hostKey = withConnection(new Command('host-key'))
    .description(
      "Make the access key of a further machine's host; prints a credentials file. It replaces the host's former key.",
    )
    .argument('<host-id>', 'a name for the host: lower-case letters, digits, hyphens')
    .option('--json', 'print JSON')
    .addHelpText('after', `\nExamples:\n  coffer account host-key rack7 > host.credentials\n${exitCodesHelp}`)
    .action(async (hostId: string, options: ConnectionOptions & { json?: boolean }) => {
      const connection = new Connection(options);
      const key = await connection.call<AccessKeyAnswer>('CreateHostCredentials', { HostId: hostId });
      if (options.json) printJson(key);
      else {
        printLine(`# Coffer host ${hostId}\n[default]`);
        printLine(`aws_access_key_id = ${key.AccessKeyId}\naws_secret_access_key = ${key.SecretAccessKey}`);
      }
      connection.close();
    });
  return new Command('account').addCommand(create).addCommand(hostKey);
}
