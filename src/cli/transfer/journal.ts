/**
 * What a transfer has done so far, so that it can go on after it was interrupted: one line for what it is, one for each
 * block. Lines that a crash left half written are not believed.
 */
import { appendFileSync, existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The folder of the journals of imports. Source: XDG Base Directory Specification, `XDG_STATE_HOME`. */
export function stateDirectory(env: NodeJS.ProcessEnv = process.env): string {
  return join(env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'coffer', 'transfers');
}

export class TransferJournal<Header extends object> {
  readonly #path: string;
  readonly #done: Map<number, string>;
  readonly header: Header;

  private constructor(path: string, header: Header, done: Map<number, string>) {
    this.#path = path;
    this.header = header;
    this.#done = done;
  }

  static create<Header extends object>(path: string, header: Header): TransferJournal<Header> {
    writeFileSync(path, `${JSON.stringify(header)}\n`, { mode: 0o600 });
    return new TransferJournal(path, header, new Map());
  }

  /** Undefined when there is none. */
  static load<Header extends object>(path: string): TransferJournal<Header> | undefined {
    if (!existsSync(path)) return undefined;
    const text = readFileSync(path, 'utf8');
    // What follows must not become part of a line that was half written.
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    if (whole.length < text.length) truncateSync(path, Buffer.byteLength(whole));
    const [first, ...lines] = whole.split('\n');
    let header: Header;
    try {
      header = JSON.parse(first!) as Header;
    } catch {
      return undefined;
    }
    const done = new Map<number, string>();
    for (const line of lines) {
      const match = /^(\d+) ([A-Za-z0-9+/]{43}=)$/.exec(line);
      if (match) done.set(Number(match[1]), match[2]!);
    }
    return new TransferJournal(path, header, done);
  }

  /** The blocks that are done, with the SHA-256 (base64) of each. */
  get done(): ReadonlyMap<number, string> {
    return this.#done;
  }

  add(blocks: ReadonlyArray<{ readonly index: number; readonly sha256: string }>): void {
    for (const { index, sha256 } of blocks) this.#done.set(index, sha256);
    appendFileSync(this.#path, blocks.map(({ index, sha256 }) => `${index} ${sha256}\n`).join(''));
  }

  remove(): void {
    rmSync(this.#path, { force: true });
  }
}
