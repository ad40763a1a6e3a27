/** Addresses to listen on: `HOST:PORT`. */
import { CommandError, exitCodes } from './errors.ts';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Reads `127.0.0.1:4600`, `localhost:4600`, `[::1]:4600`. @throws {CommandError} */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) {
    throw new CommandError(
      `--listen ${JSON.stringify(text)} is not HOST:PORT, such as 127.0.0.1:4600 or [::1]:4600`,
      exitCodes.usage,
    );
  }
  return { host: match[1] ?? match[2]!, port };
}
