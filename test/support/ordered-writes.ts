/**
 * Writes that show of any copy of the volumes whether it is what they held at one moment. Write number n goes to unit n mod K
 * of volume n mod V and holds n; each is sent when the one before has been answered. What was there at one moment is then,
 * for some N, the last write up to N of each unit, in all volumes.
 */
import type { TestClient } from '../../src/host/nbd/testing-client.ts';

const unitBytes = 4096;

export class OrderedWrites {
  readonly #clients: readonly TestClient[];
  readonly #units: number;
  readonly #spreadBytes: number;
  #next: number;
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  /** @param spreadBytes from one unit that is written to the next; a multiple of 4096 @param first number */
  constructor(clients: readonly TestClient[], units: number, spreadBytes: number, first = 1) {
    this.#clients = clients;
    this.#units = units;
    this.#spreadBytes = spreadBytes;
    this.#next = first;
  }

  /** The number of the write that is under way. All before it have been answered. */
  get next(): number {
    return this.#next;
  }

  /** Writes until `stop`, or until the server is gone. */
  start(): void {
    this.#stopped = false;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const number = this.#next;
      const client = this.#clients[number % this.#clients.length]!;
      try {
        const { error } = await client.write(this.#offset(number), contentsOf(number));
        if (error !== 0) throw new Error(`write ${number} failed: ${error}`);
      } catch (error) {
        if (this.#stopped) return;
        throw error;
      }
      this.#next++;
    }
  }

  /** The server is about to be killed: what is under way is not answered. */
  expectEnd(): void {
    this.#stopped = true;
  }

  #offset(number: number): number {
    return Math.floor((number / this.#clients.length) % this.#units) * this.#spreadBytes;
  }

  /**
   * The N of a copy of the volumes. @param read the unit at an offset of a volume, in plaintext
   * @throws when there is none: the copy is not of one moment
   */
  momentOf(read: (volume: number, offset: number) => Buffer): number {
    const volumes = this.#clients.length;
    let moment = 0;
    const found: { volume: number; slot: number; number: number }[] = [];
    for (let volume = 0; volume < volumes; volume++) {
      for (let slot = 0; slot < this.#units; slot++) {
        const unit = read(volume, slot * this.#spreadBytes);
        const number = unit.readUInt32LE();
        if (!unit.equals(number === 0 ? Buffer.alloc(unitBytes) : contentsOf(number))) {
          throw new Error(`unit ${slot} of volume ${volume} holds no whole write`);
        }
        found.push({ volume, slot, number });
        moment = Math.max(moment, number);
      }
    }
    for (const { volume, slot, number } of found) {
      const expected = this.#lastOf(volume, slot, moment);
      if (number !== expected) {
        throw new Error(`at write ${moment} unit ${slot} of volume ${volume} held ${expected}, not ${number}`);
      }
    }
    return moment;
  }

  /** The last write up to `moment` that went to a unit, 0 for none. */
  #lastOf(volume: number, slot: number, moment: number): number {
    const volumes = this.#clients.length;
    const period = volumes * this.#units;
    // Numbers n with n mod V = volume and floor(n / V) mod K = slot: V × slot + volume, and every period after.
    const first = volumes * slot + volume;
    if (moment < first) return 0;
    return first + Math.floor((moment - first) / period) * period;
  }
}

function contentsOf(number: number): Buffer {
  const unit = Buffer.alloc(unitBytes, number % 251);
  unit.writeUInt32LE(number);
  return unit;
}
