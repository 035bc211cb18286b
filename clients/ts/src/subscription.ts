/** The two kinds of subscription as a program holds them: with a callback, and with a queue that is read by `for await`. */

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

/** How to subscribe. */
export interface SubscribeOptions extends Terms {
  /** Whether the last value comes first, marked `snap`; on unless it is false. */
  readonly snapshot?: boolean;
  readonly onGap?: (gap: Gap) => void;
  readonly onStatus?: (status: Status) => void;
}

/** How to subscribe with `for await`. */
export interface StreamOptions extends Terms {
  readonly snapshot?: boolean;
  /** Messages that may wait for the reader, 10,000. Of what is beyond them the oldest goes, and a gap names it. */
  readonly queueMax?: number;
}

/** The gateway's first word on a subscription. */
export interface Accepted {
  readonly ok: readonly SubscriptionRow[];
  readonly rejected: readonly Rejected[];
}

/** A subscription. It outlives connections, until `unsubscribe`. */
export interface Subscription {
  /**
   * The gateway's first word on each symbol; what others have subscribed to already has no row. It fails only if the
   * client is closed, or this unsubscribed, before.
   */
  readonly ready: Promise<Accepted>;
  /** Changes the mode and the rate; what is left out is at its default again. */
  set(terms: Terms): void;
  /** Nothing is told any more from here on. More than once does no harm. */
  unsubscribe(): void;
}

/** A subscription that is read by `for await`; leaving the loop unsubscribes. */
export interface Stream<C extends Channel = Channel>
  extends Subscription, AsyncIterableIterator<Tick<C> | Gap | Status> {
  /** Messages that were pushed out because the reader did not keep up. */
  readonly overflowed: number;
  /** As `state` of the client, for what was read of this stream so far: what waits in its queue counts, too. */
  state(symbol: string): StateNow;
}

export type Channels<C extends Channel> = C | readonly C[];
export type Handler<C extends Channel> = (tick: Tick<C>) => void;
/** The longest symbol, bytes; more would be refused with the whole request. */
const SYMBOL_BYTES_MAX = 128;
const QUEUE_MAX = 10_000;

/** What a handle may ask of its client. */
export interface Keeper {
  left(handle: Handle): void;
  changed(): void;
  call<T>(callback: ((value: T) => unknown) | undefined, value: T): void;
  /** Whatever the gateway had to tell then has been taken in. */
  provenMs(): number;
  stateNow(symbol: string, provenMs: number): StateNow;
}

/** What both kinds of subscription have in common. */
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
    // Who does not wait for it does not want to hear of it.
    this.ready.catch(() => {});
  }

  abstract tick(tick: Tick): void;
  abstract gap(gap: Gap): void;
  abstract status(status: Status): void;
  /** The client is closed; `asked`: because the program said so. */
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
    // It may have been asked for by its bare name.
    const bare = row.symbol.slice(row.symbol.indexOf(':') + 1);
    const found = [symbol, row.symbol, bare].filter((text) => this.#waiting.delete(`${channel} ${text}`)).length > 0;
    if (found) {
      if ('code' in row) this.#rejected.push(row);
      else this.#rows.push(row);
    }
    this.#settle();
  }

  /** The gateway has it already. */
  joined(channel: Channel, symbol: string): void {
    this.#waiting.delete(`${channel} ${symbol}`);
    this.#settle();
  }

  #settle(): void {
    if (this.#waiting.size === 0) this.#accept({ ok: this.#rows, rejected: this.#rejected });
  }
}

/** A subscription whose ticks go to a callback. */
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
  /** Readers that wait. There is one, unless `next` is called by hand. */
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

  /** What was not asked for is an error, once; then it is over. */
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
/** Throws TypeError or RangeError if a subscription makes no sense. */
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
