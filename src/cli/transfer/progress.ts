/** How far a transfer has come, on stderr: a bar that redraws itself on a terminal, a line every ten seconds elsewhere. */

const redrawMs = 200;
const lineMs = 10_000;
const barWidth = 30;
/** The rate is that of the last seconds, not of the whole transfer: what was skipped would distort it. */
const rateWindowMs = 5_000;

export class Progress {
  readonly #what: string;
  readonly #totalBytes: number;
  readonly #isTerminal: boolean;
  readonly #isQuiet: boolean;
  readonly #samples: { readonly at: number; readonly bytes: number }[] = [];
  #doneBytes = 0;
  #movedBytes = 0;
  #drawnAt = 0;

  /** @param totalBytes the size of the whole image, what is skipped included */
  constructor(what: string, totalBytes: number, { isQuiet = false } = {}) {
    this.#what = what;
    this.#totalBytes = totalBytes;
    this.#isTerminal = process.stderr.isTTY === true;
    this.#isQuiet = isQuiet;
    this.#samples.push({ at: performance.now(), bytes: 0 });
    this.#drawnAt = this.#isTerminal ? 0 : performance.now();
  }

  get movedBytes(): number {
    return this.#movedBytes;
  }

  /** `bytes` of the image are done: transferred, or skipped because they hold nothing or were there already. */
  add(bytes: number, wasMoved: boolean): void {
    this.#doneBytes = Math.min(this.#totalBytes, this.#doneBytes + bytes);
    if (wasMoved) this.#movedBytes += bytes;
    this.#draw(false);
  }

  end(): void {
    this.#draw(true);
    if (this.#isTerminal && !this.#isQuiet) process.stderr.write('\n');
  }

  #draw(isLast: boolean): void {
    if (this.#isQuiet) return;
    const now = performance.now();
    if (!isLast && now - this.#drawnAt < (this.#isTerminal ? redrawMs : lineMs)) return;
    this.#drawnAt = now;
    this.#samples.push({ at: now, bytes: this.#doneBytes });
    while (this.#samples.length > 2 && now - this.#samples[1]!.at > rateWindowMs) this.#samples.shift();
    const text = this.#text(now, isLast);
    process.stderr.write(this.#isTerminal ? `\r\x1b[2K${text}` : `${text}\n`);
  }

  #text(now: number, isLast: boolean): string {
    const share = this.#totalBytes === 0 ? 1 : Math.min(1, this.#doneBytes / this.#totalBytes);
    const filled = Math.round(share * barWidth);
    const bar = this.#isTerminal ? `[${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}] ` : '';
    const first = this.#samples[0]!;
    const rate = (this.#doneBytes - first.bytes) / Math.max(0.001, (now - first.at) / 1000);
    const left = isLast || rate <= 0 ? '' : `, ${durationText((this.#totalBytes - this.#doneBytes) / rate)} left`;
    const amount = `${sizeText(this.#doneBytes)} of ${sizeText(this.#totalBytes)}`;
    return `${this.#what} ${bar}${Math.floor(share * 100)} % (${amount}), ${sizeText(rate)}/s${left}`;
  }
}

/** `1.5 GiB` */
export function sizeText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** `0:42`, `1:02:03` */
export function durationText(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
