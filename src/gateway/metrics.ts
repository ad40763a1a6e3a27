import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Series of requests_total at most; the label values are bounded anyhow, and this holds should a service forget. */
const seriesMax = 5000;

/** Process metrics exist once per process, however many servers it has. */
let processMetrics: Registry | undefined;

/** What `/metrics` shows (Prometheus text format). */
export class GatewayMetrics {
  readonly #own = new Registry();
  readonly #merged: Registry;
  readonly #requests: Counter<'service' | 'operation' | 'code'>;
  readonly #duration: Histogram<'service'>;
  readonly #series = new Map<string, { inc(): void }>();
  readonly #durations = new Map<string, { observe(seconds: number): void }>();
  readonly refused: Counter<'reason'>;

  /** @param more registries of other parts of the process, shown on the same page */
  constructor(inFlight: () => number, connections: () => number, more: readonly Registry[]) {
    if (!processMetrics) {
      processMetrics = new Registry();
      collectDefaultMetrics({ register: processMetrics });
    }
    const registers = [this.#own];
    this.#requests = new Counter({
      name: 'coffer_requests_total',
      help: 'API requests answered, by service, operation and error code (OK when none)',
      labelNames: ['service', 'operation', 'code'],
      registers,
    });
    this.#duration = new Histogram({
      name: 'coffer_request_duration_seconds',
      help: 'Time from the end of the headers to the answer, by service',
      labelNames: ['service'],
      buckets: [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30],
      registers,
    });
    this.refused = new Counter({
      name: 'coffer_requests_refused_total',
      help: 'Requests refused before they were looked at, by the limit that was reached',
      labelNames: ['reason'],
      registers,
    });
    gauge('coffer_requests_in_flight', 'API requests being received or answered', inFlight, registers);
    gauge('coffer_connections', 'Open client connections', connections, registers);
    this.#merged = Registry.merge([this.#own, processMetrics, ...more]);
  }

  count(service: string, operation: string, code: string, seconds: number): void {
    const key = `${service} ${operation} ${code}`;
    let series = this.#series.get(key);
    if (!series) {
      const isFull = this.#series.size >= seriesMax;
      series = this.#requests.labels(
        isFull ? { service, operation: 'other', code: 'other' } : { service, operation, code },
      );
      if (!isFull) this.#series.set(key, series);
    }
    series.inc();
    let duration = this.#durations.get(service);
    if (!duration) {
      duration = this.#duration.labels({ service });
      this.#durations.set(service, duration);
    }
    duration.observe(seconds);
  }

  async page(): Promise<{ contentType: string; text: string }> {
    return { contentType: this.#merged.contentType, text: await this.#merged.metrics() };
  }
}

function gauge(name: string, help: string, read: () => number, registers: Registry[]): void {
  new Gauge({
    name,
    help,
    registers,
    collect() {
      this.set(read());
    },
  });
}
