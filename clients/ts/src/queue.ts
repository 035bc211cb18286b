/**
 * What waits for the reader of a stream. It has a bound: a reader that falls behind loses the oldest ticks, and is told
 * which, by a gap of its own before the next message of that symbol. So the accounting rule holds for the reader too.
 */

import type { Gap, Quote, Status, Trade } from './messages.js';

/** What a stream brings. */
export type StreamItem = Trade | Quote | Gap | Status;

/** A bounded queue with one reader. */
export class ItemQueue {
  readonly #max: number;
  /** A ring would save the copy; this moves it to once in `#max` reads. */
  #items: StreamItem[] = [];
  /** Of each of them, what had been proven when it came. */
  #proven: number[] = [];
  /** Of the first that was pushed out since the queue was empty. */
  #lostProven: number | undefined;
  #head = 0;
  /** By symbol and channel, what was pushed out and is not told yet. At most one for each. */
  readonly #lost = new Map<string, { symbol: string; channel: Gap['channel']; from: number; to: number }>();
  readonly #states = new Map<string, Status>();
  /** Messages that were pushed out by newer ones. */
  overflowed = 0;

  /** @param max messages that wait, at most; beyond them only one gap for each symbol and channel. */
  constructor(max: number) {
    this.#max = Math.max(1, Math.floor(max));
  }

  get length(): number {
    return this.#items.length - this.#head + this.#lost.size + this.#states.size;
  }

  /** What had been proven when the oldest that waits came; undefined while nothing waits. */
  get provenMs(): number | undefined {
    return this.#lostProven ?? this.#proven[this.#head];
  }

  /** @param provenMs whatever the gateway had to tell then has been taken in. */
  push(item: StreamItem, provenMs: number): void {
    if (this.#items.length - this.#head >= this.#max) this.#pushOut();
    this.#items.push(item);
    this.#proven.push(provenMs);
  }

  /** The next message; undefined if there is none. */
  shift(): StreamItem | undefined {
    const lost = this.#firstOf(this.#lost);
    if (lost !== undefined) return { type: 'gap', ...lost, why: 'overflow' };
    // Older than anything that still waits, and the newest of its symbol that was pushed out.
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
    // In another epoch the numbers begin anew; then the newer ones are told.
    const start = before !== undefined && before.from <= from ? before.from : from;
    this.#lost.set(key, { symbol: item.symbol, channel, from: start, to });
  }
}
