/**
 * Age of the data of a connection. The proof is an answered `ping`: its `pong` is queued in order behind all data, in
 * the gateway, in the network, in the browser and in this program. When it has been processed, everything that the
 * gateway had to send when the ping was sent has been processed. Both times are of one clock, so that no offset is
 * needed.
 */

import type { Level, State } from './messages.js';
import type { Clock } from './timing.js';

/**
 * Why data may be old. `lost`: there is no connection. `new`: this connection has not answered a ping yet. `shed`: this
 * client does not keep up, and the gateway merges or drops its ticks. `catching_up`: data was late until a moment ago,
 * or ticks arrive that the gateway received long before. `busy`: this program has delayed messages or its timers.
 * `silent`: nothing arrives from the gateway, because it or the network path hangs. `slow`: messages arrive, but late.
 */
export type LateReason = 'lost' | 'new' | 'shed' | 'catching_up' | 'busy' | 'silent' | 'slow';

/** The state of a symbol for display: `late` replaces `live` if data may be old. Only `live` is live. */
export type StateNow = State | 'late' | 'unknown';

/** Whether received data is current. */
export interface Delivery {
  /** Whether nothing may be shown as live. */
  readonly isLate: boolean;
  /** The reason; undefined if data is current. */
  readonly why: LateReason | undefined;
  /**
   * Everything that the gateway had to send this many milliseconds ago has been processed; Infinity if nothing proves
   * that.
   */
  readonly behindMs: number;
}

/** The delivery without a connection. */
export const NO_DELIVERY: Delivery = { isLate: true, why: 'lost', behindMs: Infinity };

/** One moment in two clocks. */
export interface Moment {
  readonly ms: number;
  readonly wallMs: number;
}

/** Milliseconds by which this program may delay a timer or a message. */
const BUSY_MS = 100;
/** Milliseconds after an old tick in which more of them may follow. */
const CATCHING_UP_MS = 1000;
/**
 * Milliseconds after the answer that ended a silence, before which no ping proves anything: after a hang, a gateway may
 * answer before it has read what its feeds sent meanwhile.
 */
const CALM_MS = 250;

/** Monitors the delivery of one connection. */
export class DeliveryWatch {
  readonly #clock: Clock;
  readonly #lateMs: number;
  readonly #silentMs: number;
  #proven: Moment | undefined;
  #heardMs: number;
  /** Longest delay by this program in the current lateness, and its end. */
  #stall = { ms: 0, endMs: -Infinity };
  #oldMs = -Infinity;
  #calmMs = -Infinity;
  #dueMs = Infinity;
  #isShed = false;

  /**
   * @param lateMs age from which on data is late.
   * @param pingMs interval between two pings.
   */
  constructor(clock: Clock, lateMs: number, pingMs: number) {
    this.#clock = clock;
    this.#lateMs = lateMs;
    this.#silentMs = Math.min(1.5 * pingMs, lateMs);
    this.#heardMs = clock.now();
  }

  /** The current moment, at which a ping is sent. */
  moment(): Moment {
    const ms = this.#clock.now();
    return { ms, wallMs: this.#clock.wall?.() ?? ms };
  }

  /** Records the answer to a ping that was sent at this moment. */
  answered(sent: Moment): void {
    if (this.#proven !== undefined && sent.ms <= this.#proven.ms) return;
    const now = this.moment();
    if (this.#proven !== undefined && since(this.#proven, now) > this.#lateMs) this.#calmMs = now.ms + CALM_MS;
    this.#proven = sent;
  }

  /** Everything that the gateway had to send at this time has been processed; -Infinity before the first answer. */
  get provenMs(): number {
    return this.#proven?.ms ?? -Infinity;
  }

  /** Records a processed message, and the time that it waited for this program. */
  heard(nowMs: number, waitedMs: number): void {
    this.#heardMs = nowMs;
    this.#stalled(waitedMs, nowMs);
  }

  /** Records when the next timer is due. */
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

  /** Records how long the gateway took to encode a tick after its receipt: what follows it may be as old. */
  told(tookMs: number): void {
    if (tookMs > this.#lateMs) this.#oldMs = this.#clock.now();
  }

  /** The current delivery. */
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
    // A stalled program could not receive messages.
    if (stallMs >= BUSY_MS && (unheardMs < this.#silentMs || stallMs >= unheardMs / 2)) return 'busy';
    if (behindMs <= this.#lateMs) return 'catching_up';
    return unheardMs >= this.#silentMs ? 'silent' : 'slow';
  }
}

/**
 * Milliseconds between two moments. After a sleep of the machine, one clock includes the sleep, and the other may not.
 */
function since(then: Moment, now: Moment): number {
  return Math.max(now.ms - then.ms, now.wallMs - then.wallMs);
}
