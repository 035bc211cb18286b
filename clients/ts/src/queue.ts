/**
 * The queue of a stream. It is bounded: a reader that falls behind loses the oldest ticks, and receives a gap for them
 * before the next message of that symbol. The accounting rule therefore also holds for the reader.
 */

import type { Gap, Quote, Status, Trade } from './messages.js';

/** The items of a stream. */
export type StreamItem = Trade | Quote | Gap | Status;

/** A bounded queue with one reader. */
export class ItemQueue {
  readonly #max: number;
  /** Compacted once in `#max` reads; a ring buffer would avoid the copy. */
  #items: StreamItem[] = [];
  /** For each item, the proven time at its arrival. */
  #proven: number[] = [];
  /** Proven time of the first item that was pushed out since the queue was empty. */
  #lostProven: number | undefined;
  #head = 0;
  /** Ticks that were pushed out and not reported yet, by symbol and channel. At most one range for each. */
  readonly #lost = new Map<string, { symbol: string; channel: Gap['channel']; from: number; to: number }>();
  readonly #states = new Map<string, Status>();
  /** Number of messages pushed out by newer ones. */
  overflowed = 0;

  /** @param max most queued messages; beyond them there is only one gap per symbol and channel. */
  constructor(max: number) {
    this.#max = Math.max(1, Math.floor(max));
  }

  get length(): number {
    return this.#items.length - this.#head + this.#lost.size + this.#states.size;
  }

  /** Proven time at the arrival of the oldest queued item; undefined if the queue is empty. */
  get provenMs(): number | undefined {
    return this.#lostProven ?? this.#proven[this.#head];
  }

  /** @param provenMs time up to which everything that the gateway had to send has been processed. */
  push(item: StreamItem, provenMs: number): void {
    if (this.#items.length - this.#head >= this.#max) this.#pushOut();
    this.#items.push(item);
    this.#proven.push(provenMs);
  }

  /** The next message; undefined if there is none. */
  shift(): StreamItem | undefined {
    const lost = this.#firstOf(this.#lost);
    if (lost !== undefined) return { type: 'gap', ...lost, why: 'overflow' };
    // The newest pushed-out state of its symbol, which is older than any queued item.
    const state = this.#firstOf(this.#states);
    if (state !== undefined) return state;
    this.#lostProven = undefined;
    return this.#take();
  }

  #firstOf<T>(map: Map<string, T>): T | undefined {
    for (const [key, value] of map) {
      map.delete(key);
      return value;
    }
    return undefined;
  }

  #take(): StreamItem | undefined {
    const item = this.#items[this.#head];
    if (item === undefined) return undefined;
    this.#head += 1;
    if (this.#head >= this.#max || this.#head === this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#proven = this.#proven.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  #pushOut(): void {
    this.#lostProven ??= this.#proven[this.#head];
    const item = this.#take();
    if (item === undefined) return;
    this.overflowed += 1;
    if (item.type === 'status') {
      this.#states.set(item.symbol, item);
      return;
    }
    const channel = item.type === 'gap' ? item.channel : item.type;
    const [from, to] = item.type === 'gap' ? [item.from, item.to] : [item.seq - (item.n ?? 1) + 1, item.seq];
    const key = `${channel} ${item.symbol}`;
    const before = this.#lost.get(key);
    // In another epoch the sequence numbers restart; then only the newer ones are reported.
    const start = before !== undefined && before.from <= from ? before.from : from;
    this.#lost.set(key, { symbol: item.symbol, channel, from: start, to });
  }
}
