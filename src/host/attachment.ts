/**
 * One volume at one instance: brings what is (open, or not) to what is desired, one step at a time, and says what it
 * came to. Owns the instance's hold on the volume.
 */
import type { Logger } from 'pino';
import { isAwsError } from '../aws/errors.ts';
import type { AttachmentError, DesiredAttachment, ObservedAttachment } from '../aws/host-protocol.ts';
import { inFull } from '../blocks/store.ts';
import type { OpenAttachment } from './open-attachment.ts';
import { withoutDirectories, wordsOf } from './words.ts';

export interface AttachmentWorld {
  /** Opens the volume, data key and all. Rejects with why it could not; nothing is open then. */
  open(desired: DesiredAttachment, signal: AbortSignal): Promise<OpenAttachment>;
  /** Something to report has changed. */
  news(): void;
  readonly log: Logger;
}

const retryFirstMs = 1_000;
const retryMaxMs = 60_000;

export class Attachment {
  readonly volumeId: string;
  readonly instanceId: string;
  readonly #world: AttachmentWorld;
  #desired: DesiredAttachment | undefined;
  #observed: ObservedAttachment | undefined;
  #open:
    | { readonly volume: OpenAttachment; readonly generation: number; readonly desired: DesiredAttachment }
    | undefined;
  /** The size that what is open has now. */
  #sizeBytes = 0;
  #opening: AbortController | undefined;
  #running: Promise<void> | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #failures = 0;

  constructor(first: DesiredAttachment, world: AttachmentWorld) {
    this.volumeId = first.volumeId;
    this.instanceId = first.instanceId;
    this.#world = world;
  }

  /** What to report, if anything is known yet. */
  get observed(): ObservedAttachment | undefined {
    return this.#observed;
  }

  get isOpen(): boolean {
    return this.#open !== undefined;
  }

  /** Nothing is open, nothing is desired, nothing is under way: it can be forgotten. */
  get isOver(): boolean {
    return !this.#desired && !this.#open && !this.#running;
  }

  /** Whether opening it still lies ahead, so that the instance's credentials are needed. */
  get needsCredentials(): boolean {
    const desired = this.#desired;
    return desired?.desired === 'attached' && desired.encryption !== undefined && !this.#isSettled(desired);
  }

  /** Says what is desired from now on; undefined: nothing. Starts the work there is. */
  desire(desired: DesiredAttachment | undefined): void {
    const before = this.#desired;
    this.#desired = desired;
    if (desired?.generation !== before?.generation || desired?.desired !== before?.desired) {
      this.#opening?.abort();
      clearTimeout(this.#retryTimer);
      this.#retryTimer = undefined;
      this.#failures = 0;
    }
    const size = desired?.sizeBytes ?? 0;
    if (this.#open && before && size > before.sizeBytes) void this.#resize(this.#open.volume, size);
    this.#work();
  }

  /** Ends everything, for the end of the process: flushed, socket gone, key wiped. */
  async end(): Promise<void> {
    this.desire(undefined);
    await this.#running;
  }

  #work(): void {
    if (this.#running || this.#retryTimer) return;
    this.#running = this.#reconcile()
      .catch((error) => this.#world.log.error({ volume: this.volumeId, error: String(error) }, 'attachment'))
      .finally(() => {
        this.#running = undefined;
        if (!this.#isDone()) this.#work();
        else if (this.isOver) this.#world.news();
      });
  }

  /** Whether what is desired is open. */
  #isSettled(desired: DesiredAttachment): boolean {
    return this.#open?.generation === desired.generation;
  }

  #isDone(): boolean {
    if (this.#retryTimer) return true;
    const desired = this.#desired;
    if (!desired) return !this.#open;
    if (desired.desired === 'attached') return this.#isSettled(desired);
    return !this.#open && this.#observed?.state === 'detached' && this.#observed.generation === desired.generation;
  }

  async #reconcile(): Promise<void> {
    while (!this.#isDone()) {
      const desired = this.#desired;
      if (desired?.desired === 'attached' && !this.#open) await this.#tryOpen(desired);
      else {
        if (this.#open) await this.#close();
        const now = this.#desired;
        if (now?.desired === 'detached') this.#report(now, 'detached');
      }
    }
    if (!this.#desired) this.#observed = undefined;
  }

  async #tryOpen(desired: DesiredAttachment): Promise<void> {
    const opening = new AbortController();
    this.#opening = opening;
    try {
      const opened = await this.#world.open(desired, opening.signal);
      this.#open = { volume: opened, generation: desired.generation, desired };
      opened.onFailure((failure) => {
        if (failure.stopped) this.#broke(opened, failure.message);
      });
      this.#failures = 0;
      this.#sizeBytes = desired.sizeBytes;
      const size = this.#desired?.sizeBytes ?? 0;
      if (size > desired.sizeBytes) void this.#resize(opened, size);
      this.#report(desired, 'attached');
      this.#world.log.info({ volume: this.volumeId, instance: this.instanceId, device: desired.device }, 'attached');
    } catch (error) {
      if (opening.signal.aborted) return;
      this.#failed(desired, reasonOf(error), error);
    } finally {
      this.#opening = undefined;
    }
  }

  #failed(desired: DesiredAttachment, error: AttachmentError, cause: unknown = error): void {
    const pauseMs = Math.min(retryFirstMs * 2 ** this.#failures++, retryMaxMs);
    this.#world.log.warn(
      { volume: this.volumeId, instance: this.instanceId, ...error, message: inFull(cause), pauseMs },
      'not attached',
    );
    this.#report(desired, 'failed', error);
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined;
      this.#work();
    }, pauseMs);
  }

  async #close(): Promise<void> {
    const { volume, desired } = this.#open!;
    try {
      await volume.close({ force: this.#desired?.force ?? false });
    } catch (error) {
      this.#world.log.error({ volume: this.volumeId, error: String(error) }, 'closing');
    }
    this.#open = undefined;
    this.#world.log.info({ volume: this.volumeId, instance: this.instanceId, device: desired.device }, 'detached');
  }

  async #resize(volume: OpenAttachment, sizeBytes: number): Promise<void> {
    try {
      await volume.resize(sizeBytes);
      this.#world.log.info({ volume: this.volumeId, sizeBytes }, 'grown');
      if (this.#open?.volume !== volume) return;
      this.#sizeBytes = Math.max(this.#sizeBytes, sizeBytes);
      if (this.#observed?.state === 'attached') this.#report(this.#open.desired, 'attached');
    } catch (error) {
      this.#world.log.error({ volume: this.volumeId, sizeBytes, error: String(error) }, 'not grown');
    }
  }

  /** The volume's thread ended by itself. Its key is gone with it: it is opened anew, which asks KMS again. */
  #broke(volume: OpenAttachment, reason: string): void {
    if (this.#open?.volume !== volume || this.#running) return;
    const { desired } = this.#open;
    this.#open = undefined;
    void volume.close({ force: true }).catch(() => {});
    this.#failed(desired, {
      code: 'InternalError',
      message: `The export of ${this.volumeId} broke: ${withoutDirectories(reason)}`,
    });
  }

  #report(desired: DesiredAttachment, state: ObservedAttachment['state'], error?: AttachmentError): void {
    const { volumeId, instanceId, device, generation } = desired;
    const size = state === 'attached' ? { sizeBytes: this.#sizeBytes } : {};
    this.#observed = { volumeId, instanceId, device, generation, state, ...(error ? { error } : {}), ...size };
    this.#world.news();
  }
}

/** An AWS error passes with its own code and words; anything else is the host's own trouble. */
function reasonOf(error: unknown): AttachmentError {
  if (isAwsError(error)) return { code: error.code, message: error.message };
  return { code: 'InternalError', message: wordsOf(error) };
}
