/** Printing for people and for programs. */

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** One JSON document per line, for streams. */
export function printJsonLine(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Rows under their headings, columns aligned. Control characters in the data can't steer the terminal. */
export function printTable(
  headings: readonly string[],
  rows: ReadonlyArray<readonly string[]>,
  print: (line: string) => void = printLine,
): void {
  const all = [headings, ...rows.map((row) => row.map(printable))];
  const widths = headings.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  for (const row of all) {
    const cells = row.map((cell, column) => cell.padEnd(widths[column]!));
    print(cells.join('  ').trimEnd());
  }
}

export function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, '?');
}

export function printLine(text = ''): void {
  process.stdout.write(`${text}\n`);
}
