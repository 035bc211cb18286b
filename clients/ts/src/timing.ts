/** Clocks, timers, the back-off of reconnects, and the offset of the gateway's clock. */

/** The clock of the client. Tests use a manual one. */
export interface Clock {
  /**
   * Milliseconds since the Unix epoch, with fractions. It must be monotonic, regardless of changes to the machine's
   * clock.
   */
  now(): number;
  /**
   * The machine's wall clock, which may be set, but advances while the machine sleeps. Without it, a sleep is not
   * detected on a machine whose monotonic clock stops meanwhile.
   */
  wall?(): number;
  /** Calls back once, after `ms` milliseconds. */
  setTimeout(callback: () => void, ms: number): unknown;
  /** Cancels such a call. */
  clearTimeout(timer: unknown): void;
}

/** The clock of the machine. */
export const systemClock: Clock = {
  now: () => performance.timeOrigin + performance.now(),
  wall: () => Date.now(),
  setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
  clearTimeout: (timer) => globalThis.clearTimeout(timer as number),
};

/** Longest delay of a browser's timer. */
const WAIT_MS_MAX = 2 ** 31 - 1;

/** Timers with a common end, so that none outlives its owner. */
export class Timers {
  readonly #clock: Clock;
  readonly #running = new Set<unknown>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls back once, unless cancelled; returns the function that cancels. */
  after(ms: number, callback: () => void): () => void {
    const timer = this.#clock.setTimeout(
      () => {
        this.#running.delete(timer);
        callback();
      },
      Math.min(Math.max(ms, 0), WAIT_MS_MAX),
    );
    this.#running.add(timer);
    return () => {
      if (this.#running.delete(timer)) this.#clock.clearTimeout(timer);
    };
  }

  /** Cancels all timers. */
  stop(): void {
    for (const timer of this.#running) this.#clock.clearTimeout(timer);
    this.#running.clear();
  }
}

/** How long to wait before a reconnect. */
export interface Backoff {
  /** Longest wait before the first attempt, milliseconds; it doubles with each. */
  readonly baseMs: number;
  /** Longest wait before any attempt, milliseconds. */
  readonly maxMs: number;
}

/**
 * A random wait between 0 and a bound that doubles, so that clients that were disconnected together do not reconnect
 * together.
 *
 * @param attempt 0 for the first.
 * @param chance from 0 (inclusive) to 1 (exclusive).
 */
export function fullJitter({ baseMs, maxMs }: Backoff, attempt: number, chance: number): number {
  return chance * Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 30));
}

/**
 * Whether to reconnect after this close code. 4000 to 4499 invite a reconnect, 4500 to 4999 forbid it. Those codes of
 * RFC 6455 that blame this client (1002, 1003, 1007 to 1010) would only recur.
 */
export function comesBack(code: number): boolean {
  if (code >= 4000) return code < 4500;
  return ![1002, 1003, 1007, 1008, 1009, 1010].includes(code);
}

/** Offset of the gateway's clock. */
export interface Offset {
  /** The gateway's clock minus the local one, microseconds. */
  readonly offset_us: number;
  /** Largest error in either direction, microseconds: half of the round trip. */
  readonly error_us: number;
  /** The shortest round trip of the window, without the time in the gateway, microseconds. */
  readonly rtt_us: number;
}

/**
 * Estimates the difference of two clocks from pings: of the last few, the one with the shortest round trip is the most
 * accurate, because queues lengthen a round trip and never shorten it (RFC 5905 calls this the clock filter). A sample
 * that is inconsistent with the best means that a clock was set, and discards the earlier ones.
 */
export class OffsetWindow {
  readonly #size: number;
  #samples: Offset[] = [];
  #best: Offset | undefined;

  /** @param size number of pings that are evaluated. */
  constructor(size: number) {
    this.#size = size;
  }

  /**
   * Adds a round trip. All four times are in microseconds since the Unix epoch: sent and received by the local clock,
   * read and answered by the gateway's.
   */
  add(sent: number, read: number, answered: number, received: number): Offset {
    const rtt_us = Math.max(0, received - sent - (answered - read));
    const offset_us = (read - sent + (answered - received)) / 2;
    const sample = { offset_us, error_us: rtt_us / 2, rtt_us };
    const best = this.#best;
    if (best !== undefined && Math.abs(offset_us - best.offset_us) > sample.error_us + best.error_us) this.#samples = [];
    this.#samples.push(sample);
    if (this.#samples.length > this.#size) this.#samples.shift();
    this.#best = this.#samples.reduce((a, b) => (b.rtt_us < a.rtt_us ? b : a), sample);
    return sample;
  }

  /** The best sample of the window; undefined before the first ping. */
  get best(): Offset | undefined {
    return this.#best;
  }
}
