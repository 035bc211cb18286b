/**
 * How old what a connection has told may be. The proof is an answered `ping`: its `pong` stands in order behind all that waits, in
 * the gateway, in the network, in the browser and in this program. So once it is taken in, everything that the gateway had to
 * tell when the ping was sent has been taken in. Both moments are of one clock: no offset has to be known for it.
 */

import type { Level, State } from './messages.js';
import type { Clock } from './timing.js';

/**
 * Why what was told may be old. `lost`: there is no connection. `new`: this one has not answered a ping yet. `shed`: this client
 * does not keep up, and the gateway merges or drops what is for it. `catching_up`: it was late until a moment ago, or ticks come
 * that the gateway received long before. `busy`: this program kept what came waiting, or its timers. `silent`: nothing is heard of the gateway, which hangs, or the
 * network path to it. `slow`: messages come, but late.
 */
export type LateReason = 'lost' | 'new' | 'shed' | 'catching_up' | 'busy' | 'silent' | 'slow';

/** What may be shown of a symbol's state: `late` stands for `live` where what was told may be old. Only `live` is live. */
export type StateNow = State | 'late' | 'unknown';

/** Whether what was told still holds. */
export interface Delivery {
  /** Nothing may be shown as live. */
  readonly isLate: boolean;
  /** Why; undefined while it is prompt. */
  readonly why: LateReason | undefined;
  /** Whatever the gateway had to tell so many milliseconds ago has been taken in; Infinity where nothing proves that. */
  readonly behindMs: number;
}

/** Without a connection. */
export const NO_DELIVERY: Delivery = { isLate: true, why: 'lost', behindMs: Infinity };

/** One moment by two clocks. */
export interface Moment {
  readonly ms: number;
  readonly wallMs: number;
}

/** Milliseconds that a timer or a message may be kept waiting by this program. */
const BUSY_MS = 100;
/** Milliseconds for which an old tick says that more of them may follow. */
const CATCHING_UP_MS = 1000;
/**
 * Milliseconds behind the answer that ended a silence, before which no ping proves anything: a gateway that hung may answer before it
 * has read what its feeds sent meanwhile.
 */
const CALM_MS = 250;

/** The watch over one connection. */
export class DeliveryWatch {
  readonly #clock: Clock;
  readonly #lateMs: number;
  readonly #silentMs: number;
  #proven: Moment | undefined;
  #heardMs: number;
  /** The longest time of late that this program kept something waiting, and when it went on. */
  #stall = { ms: 0, endMs: -Infinity };
  #oldMs = -Infinity;
  #calmMs = -Infinity;
  #dueMs = Infinity;
  #isShed = false;

  /**
   * @param lateMs age from which on what was told is late.
   * @param pingMs between two pings.
   */
  constructor(clock: Clock, lateMs: number, pingMs: number) {
    this.#clock = clock;
    this.#lateMs = lateMs;
    this.#silentMs = Math.min(1.5 * pingMs, lateMs);
    this.#heardMs = clock.now();
  }

  /** A ping is sent now. */
  moment(): Moment {
    const ms = this.#clock.now();
    return { ms, wallMs: this.#clock.wall?.() ?? ms };
  }

  /** One that was sent then is answered. */
  answered(sent: Moment): void {
    if (this.#proven !== undefined && sent.ms <= this.#proven.ms) return;
    const now = this.moment();
    if (this.#proven !== undefined && since(this.#proven, now) > this.#lateMs) this.#calmMs = now.ms + CALM_MS;
    this.#proven = sent;
  }

  /** Whatever the gateway had to tell then has been taken in; -Infinity before the first answer. */
  get provenMs(): number {
    return this.#proven?.ms ?? -Infinity;
  }

  /** A message was taken in, which had waited for this program. */
  heard(nowMs: number, waitedMs: number): void {
    this.#heardMs = nowMs;
    this.#stalled(waitedMs, nowMs);
  }

  /** A timer is due then. */
  expect(dueMs: number): void {
    const nowMs = this.#clock.now();
    this.#stalled(nowMs - this.#dueMs, nowMs);
    this.#dueMs = dueMs;
  }

  #stalled(ms: number, endMs: number): void {
    const isOver = endMs - this.#stall.endMs > this.#lateMs;
    if (ms >= BUSY_MS && (isOver || ms >= this.#stall.ms)) this.#stall = { ms, endMs };
  }

  level(level: Level): void {
    this.#isShed = level === 'shed' || level === 'cut';
  }

  /** A tick took the gateway so long, from its receipt until it was encoded: what stands behind it may be as old. */
  told(tookMs: number): void {
    if (tookMs > this.#lateMs) this.#oldMs = this.#clock.now();
  }

  /** How it stands at this moment. */
  check(): Delivery {
    if (this.#proven === undefined) return { isLate: true, why: 'new', behindMs: Infinity };
    const now = this.moment();
    const behindMs = since(this.#proven, now);
    const why = this.#why(now.ms, behindMs, this.#proven.ms);
    return { isLate: why !== undefined, why, behindMs };
  }

  #why(ms: number, behindMs: number, provenMs: number): LateReason | undefined {
    if (this.#isShed) return 'shed';
    const isCatchingUp = provenMs < this.#calmMs || ms - this.#oldMs < CATCHING_UP_MS;
    if (behindMs <= this.#lateMs && !isCatchingUp) return undefined;
    const isOver = ms - this.#stall.endMs > this.#lateMs;
    const stallMs = Math.max(ms - this.#dueMs, isOver ? 0 : this.#stall.ms);
    const unheardMs = ms - this.#heardMs;
    // Who was not there could not hear.
    if (stallMs >= BUSY_MS && (unheardMs < this.#silentMs || stallMs >= unheardMs / 2)) return 'busy';
    if (behindMs <= this.#lateMs) return 'catching_up';
    return unheardMs >= this.#silentMs ? 'silent' : 'slow';
  }
}

/** Milliseconds from one moment to another. A machine that slept has a clock that ran on, and may have one that did not. */
function since(then: Moment, now: Moment): number {
  return Math.max(now.ms - then.ms, now.wallMs - then.wallMs);
}
