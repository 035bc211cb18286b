/** The two kinds of subscription: with a callback, and with a queue that is read by `for await`. */

import type { StateNow } from './delivery.js';
import { RequestError } from './link.js';
import {
  covers,
  type Channel,
  type Gap,
  type Rejected,
  type Status,
  type SubscriptionRow,
  type Terms,
  type Tick,
} from './messages.js';
import { ItemQueue, type StreamItem } from './queue.js';
import { modeOf, type Wish } from './registry.js';

/** Options of a subscription with a callback. */
export interface SubscribeOptions extends Terms {
  /** Whether the last value is sent first, marked `snap`; true by default. */
  readonly snapshot?: boolean;
  readonly onGap?: (gap: Gap) => void;
  readonly onStatus?: (status: Status) => void;
}

/** Options of a subscription with `for await`. */
export interface StreamOptions extends Terms {
  readonly snapshot?: boolean;
  /** Most messages queued for the reader, 10,000 by default. Beyond that the oldest are dropped and named by a gap. */
  readonly queueMax?: number;
}

/** The gateway's first answer to a subscription. */
export interface Accepted {
  readonly ok: readonly SubscriptionRow[];
  readonly rejected: readonly Rejected[];
}

/** A subscription. It outlives connections, until `unsubscribe`. */
export interface Subscription {
  /**
   * The gateway's first answer for each symbol; symbols that other subscriptions already have are omitted. It only
   * rejects if the client is closed, or the subscription is ended, before.
   */
  readonly ready: Promise<Accepted>;
  /** Changes the mode and the rate; omitted terms return to their defaults. */
  set(terms: Terms): void;
  /** Ends the subscription; nothing is delivered afterwards. May be called repeatedly. */
  unsubscribe(): void;
}

/** A subscription that is read by `for await`; leaving the loop unsubscribes. */
export interface Stream<C extends Channel = Channel>
  extends Subscription, AsyncIterableIterator<Tick<C> | Gap | Status> {
  /** Messages that were pushed out because the reader did not keep up. */
  readonly overflowed: number;
  /** As `state` of the client, for what was read of this stream so far; includes the delay of its queue. */
  state(symbol: string): StateNow;
}

export type Channels<C extends Channel> = C | readonly C[];
export type Handler<C extends Channel> = (tick: Tick<C>) => void;
/** Longest symbol, bytes; the gateway would reject the whole request with a longer one. */
const SYMBOL_BYTES_MAX = 128;
const QUEUE_MAX = 10_000;

/** The functions of the client that a handle uses. */
export interface Keeper {
  left(handle: Handle): void;
  changed(): void;
  call<T>(callback: ((value: T) => unknown) | undefined, value: T): void;
  /** Everything that the gateway had to send at this time has been processed. */
  provenMs(): number;
  stateNow(symbol: string, provenMs: number): StateNow;
}

/** The common part of both kinds of subscription. */
export abstract class Handle implements Wish, Subscription {
  readonly symbols: Set<string>;
  readonly snapshot: boolean;
  readonly ready: Promise<Accepted>;
  terms: Terms;
  primed = false;
  protected readonly keeper: Keeper;
  readonly channels: readonly Channel[];
  readonly #waiting: Set<string>;
  readonly #rows: SubscriptionRow[] = [];
  readonly #rejected: Rejected[] = [];
  #accept: (accepted: Accepted) => void = () => {};
  #fail: (error: Error) => void = () => {};

  constructor(
    keeper: Keeper,
    channels: readonly Channel[],
    symbols: readonly string[],
    { snapshot = true, ...terms }: Terms & { snapshot?: boolean },
  ) {
    this.keeper = keeper;
    this.channels = channels;
    this.symbols = new Set(
      symbols.filter((symbol) => !symbols.some((other) => other !== symbol && covers(other, symbol))),
    );
    this.terms = terms;
    this.snapshot = snapshot;
    this.#waiting = new Set(channels.flatMap((channel) => [...this.symbols].map((symbol) => `${channel} ${symbol}`)));
    this.ready = new Promise((resolve, reject) => {
      this.#accept = resolve;
      this.#fail = reject;
    });
    // An unused promise must not cause an unhandled rejection.
    this.ready.catch(() => {});
  }

  abstract tick(tick: Tick): void;
  abstract gap(gap: Gap): void;
  abstract status(status: Status): void;
  /** The client is closed; `asked` tells whether the program closed it. */
  abstract over(error: Error, asked: boolean): void;

  set(terms: Terms): void {
    checkTerms(this.channels, terms);
    this.terms = terms;
    this.keeper.changed();
  }

  unsubscribe(): void {
    this.keeper.left(this);
    this.ended(new RequestError('closed', 'unsubscribed', false), true);
  }

  ended(error: Error, asked: boolean): void {
    this.#fail(error);
    this.over(error, asked);
  }

  answered(channel: Channel, symbol: string, row: SubscriptionRow | Rejected): void {
    if (this.#waiting.size === 0) return;
    // It may have been requested by its bare name.
    const bare = row.symbol.slice(row.symbol.indexOf(':') + 1);
    const found = [symbol, row.symbol, bare].filter((text) => this.#waiting.delete(`${channel} ${text}`)).length > 0;
    if (found) {
      if ('code' in row) this.#rejected.push(row);
      else this.#rows.push(row);
    }
    this.#settle();
  }

  /** The gateway already has it. */
  joined(channel: Channel, symbol: string): void {
    this.#waiting.delete(`${channel} ${symbol}`);
    this.#settle();
  }

  #settle(): void {
    if (this.#waiting.size === 0) this.#accept({ ok: this.#rows, rejected: this.#rejected });
  }
}

/** A subscription with a callback. */
export class CallbackHandle extends Handle {
  readonly #options: SubscribeOptions;
  readonly #handler: Handler<Channel>;
  #left = false;

  constructor(
    keeper: Keeper,
    channels: readonly Channel[],
    symbols: readonly string[],
    options: SubscribeOptions,
    handler: Handler<Channel>,
  ) {
    super(keeper, channels, symbols, options);
    this.#options = options;
    this.#handler = handler;
  }

  tick(tick: Tick): void {
    if (!this.#left) this.keeper.call(this.#handler, tick);
  }

  gap(gap: Gap): void {
    if (!this.#left) this.keeper.call(this.#options.onGap, gap);
  }

  status(status: Status): void {
    if (!this.#left) this.keeper.call(this.#options.onStatus, status);
  }

  over(): void {
    this.#left = true;
  }
}

type Result = IteratorResult<StreamItem, undefined>;

/** A subscription that is read by `for await`. */
export class StreamHandle extends Handle implements AsyncIterableIterator<StreamItem> {
  readonly #queue: ItemQueue;
  /** Waiting readers. There is at most one, unless `next` is called directly. */
  #readers: { resolve: (result: Result) => void; reject: (error: Error) => void }[] = [];
  #over: { readonly error: Error | undefined } | undefined;

  constructor(keeper: Keeper, channels: readonly Channel[], symbols: readonly string[], options: StreamOptions) {
    super(keeper, channels, symbols, options);
    this.#queue = new ItemQueue(options.queueMax ?? QUEUE_MAX);
  }

  get overflowed(): number {
    return this.#queue.overflowed;
  }

  state(symbol: string): StateNow {
    return this.keeper.stateNow(symbol, this.#queue.provenMs ?? Infinity);
  }

  tick(tick: Tick): void {
    this.#push(tick);
  }

  gap(gap: Gap): void {
    this.#push(gap);
  }

  status(status: Status): void {
    this.#push(status);
  }

  over(error: Error, asked: boolean): void {
    if (this.#over !== undefined) return;
    this.#over = { error: asked ? undefined : error };
    for (const reader of this.#readers.splice(0)) this.#finish(reader);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Result> {
    return new Promise((resolve, reject) => {
      const value = this.#queue.shift();
      if (value !== undefined) resolve({ done: false, value });
      else if (this.#over !== undefined) this.#finish({ resolve, reject });
      else this.#readers.push({ resolve, reject });
    });
  }

  return(): Promise<Result> {
    while (this.#queue.shift() !== undefined);
    this.unsubscribe();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** An unexpected end rejects once; then the stream is finished. */
  #finish({ resolve, reject }: { resolve: (result: Result) => void; reject: (error: Error) => void }): void {
    const error = this.#over?.error;
    this.#over = { error: undefined };
    if (error === undefined) resolve({ done: true, value: undefined });
    else reject(error);
  }

  #push(item: StreamItem): void {
    if (this.#over !== undefined) return;
    const reader = this.#readers.shift();
    if (reader === undefined) this.#queue.push(item, this.keeper.provenMs());
    else reader.resolve({ done: false, value: item });
  }
}
/** Throws TypeError or RangeError if a subscription is invalid. */
export function checkWish(channels: readonly string[], symbols: readonly unknown[], terms: Terms): void {
  const wrong = channels.find((channel) => channel !== 'trade' && channel !== 'quote');
  if (channels.length === 0 || wrong !== undefined) throw new TypeError(`no channel: ${String(wrong)}`);
  if (symbols.length === 0) throw new TypeError('no symbol is named');
  for (const symbol of symbols) {
    if (typeof symbol !== 'string' || symbol === '' || new TextEncoder().encode(symbol).length > SYMBOL_BYTES_MAX) {
      throw new TypeError(`no symbol: ${JSON.stringify(symbol)?.slice(0, 80)}`);
    }
  }
  checkTerms(channels as Channel[], terms);
}

function checkTerms(channels: readonly Channel[], terms: Terms): void {
  const { max_hz, on_slow } = terms;
  for (const channel of channels) {
    const mode = modeOf(channel, terms);
    if (typeof max_hz === 'number' && !(max_hz >= 0.01 && max_hz <= 1000))
      throw new RangeError('`max_hz` is from 0.01 to 1000');
    if (typeof max_hz === 'number' && mode !== 'latest')
      throw new RangeError(`\`max_hz\` needs \`mode\` "latest", and ${channel} is "every"`);
    if (on_slow === 'cut' && mode !== 'every')
      throw new RangeError(`\`on_slow\` "cut" needs \`mode\` "every", and ${channel} is "latest"`);
  }
}
