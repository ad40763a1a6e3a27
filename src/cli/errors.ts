/** How commands end. The codes above 1 are those of sysexits(3), where it has one. */
export const exitCodes = {
  ok: 0,
  /** The server refused, or what was checked doesn't hold. */
  failed: 1,
  /** The command line is wrong. */
  usage: 2,
  /** The server, or something the command needs on this machine, isn't there. */
  unavailable: 69,
} as const;

/** An error whose one line tells the person what to do. */
export class CommandError extends Error {
  readonly exitCode: number;
  constructor(message: string, exitCode: number = exitCodes.failed, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CommandError';
    this.exitCode = exitCode;
  }
}

export const exitCodesHelp = `
Exit codes: 0 done; 1 refused or failed; 2 wrong usage;
69 the server or a needed tool is not there.`;
