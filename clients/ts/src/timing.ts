/** Time and chance, as the client is given them, and what it makes of them: when to come back, and what time it is there. */

/** What the client knows of time. A test has one that it moves by hand. */
export interface Clock {
  /** Milliseconds since the Unix epoch, with fractions. It has to run evenly, whatever is done to the machine's clock. */
  now(): number;
  /**
   * The same as the machine's clock shows it, which may be set, but runs on while the machine sleeps. Where it is left out, a machine
   * whose other clock stands still meanwhile does not know that it slept.
   */
  wall?(): number;
  /** Calls back once, after so many milliseconds. */
  setTimeout(callback: () => void, ms: number): unknown;
  /** Takes such a call back. */
  clearTimeout(timer: unknown): void;
}

/** The clock of the machine. */
export const systemClock: Clock = {
  now: () => performance.timeOrigin + performance.now(),
  wall: () => Date.now(),
  setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
  clearTimeout: (timer) => globalThis.clearTimeout(timer as number),
};

/** The longest wait that a timer of a browser can be set to. */
const WAIT_MS_MAX = 2 ** 31 - 1;

/** Timers that end together: whoever owns them leaves none behind. */
export class Timers {
  readonly #clock: Clock;
  readonly #running = new Set<unknown>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls back once, unless it is told to stop before; gives what to stop it by. */
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

  /** Stops them all. */
  stop(): void {
    for (const timer of this.#running) this.#clock.clearTimeout(timer);
    this.#running.clear();
  }
}

/** How long to wait before coming back. */
export interface Backoff {
  /** The longest wait of the first try, milliseconds; it doubles with each. */
  readonly baseMs: number;
  /** The longest wait of any, milliseconds. */
  readonly maxMs: number;
}

/**
 * A wait between 0 and a bound that doubles, all of it by chance, so that clients that were lost together do not come
 * back together.
 *
 * @param attempt 0 for the first.
 * @param chance from 0 to 1, without 1.
 */
export function fullJitter({ baseMs, maxMs }: Backoff, attempt: number, chance: number): number {
  return chance * Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 30));
}

/**
 * Whether a connection that was closed with this code is worth another try. 4000 to 4499 say come back, 4500 to 4999
 * do not. Of RFC 6455's codes those that blame this client (1002, 1003, 1007 to 1010) would only be earned again.
 */
export function comesBack(code: number): boolean {
  if (code >= 4000) return code < 4500;
  return ![1002, 1003, 1007, 1008, 1009, 1010].includes(code);
}

/** What time it is at the gateway. */
export interface Offset {
  /** The gateway's clock minus ours, microseconds. */
  readonly offset_us: number;
  /** How wrong that may be, either way, microseconds: half of the round trip it is from. */
  readonly error_us: number;
  /** The shortest round trip of the window, without what it spent in the gateway, microseconds. */
  readonly rtt_us: number;
}

/**
 * The difference between two clocks, from pings: of the last few the one with the shortest round trip is the least wrong,
 * because queues make a round trip longer, never shorter (RFC 5905 calls this the clock filter). One that cannot be true together with
 * the best says that a clock was set: what was measured before holds no more.
 */
export class OffsetWindow {
  readonly #size: number;
  #samples: Offset[] = [];
  #best: Offset | undefined;

  /** @param size how many pings are looked at. */
  constructor(size: number) {
    this.#size = size;
  }

  /**
   * Takes a round trip. All four are microseconds since the Unix epoch: sent and received by our clock, read and
   * answered by the gateway's.
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

  /** The best of the window; undefined before the first ping. */
  get best(): Offset | undefined {
    return this.#best;
  }
}
