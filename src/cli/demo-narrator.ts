/** Prints claims with what came of checking them. */
import { printable, printJsonLine, printLine } from './output.ts';

export class Narrator {
  told = 0;
  failed = 0;
  #chapter = '';
  readonly #asJson: boolean;

  constructor(asJson: boolean) {
    this.#asJson = asJson;
  }

  chapter(title: string): void {
    this.#chapter = title;
    if (!this.#asJson) printLine(`\n${title}`);
  }

  /** What is being done, as a person would type it. */
  doing(commandLine: string): void {
    if (!this.#asJson) printLine(`  $ ${printable(commandLine)}`);
  }

  /** A claim, and whether it holds; `detail` says what was seen. */
  claim(text: string, holds: boolean, detail = ''): void {
    this.told++;
    if (!holds) this.failed++;
    if (this.#asJson) printJsonLine({ chapter: this.#chapter, claim: text, holds, detail });
    else printLine(`  ${holds ? '✓' : '✗'} ${text}${detail ? `\n      ${printable(detail)}` : ''}`);
  }
}
