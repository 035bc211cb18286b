/**
 * The client: maintains the program's subscriptions over any number of connections. README.md describes its use, and
 * docs/PROTOCOL.md of the gateway the wire format.
 */

import { NO_DELIVERY, type Delivery, type StateNow } from './delivery.js';
import { Ledger, type Broken, type Finding } from './ledger.js';
import { Link, RequestError, type LinkEnd, type LinkSetup, type SocketConstructor } from './link.js';
import {
  covers,
  isWildcard,
  type AckList,
  type AckSymbols,
  type Bye,
  type Channel,
  type Gap,
  type Heartbeat,
  type Hello,
  type Lag,
  type ListRequest,
  type Quote,
  type Rejected,
  type Replay,
  type Request,
  type State,
  type Status,
  type SubscriptionRow,
  type SymbolRow,
  type Trade,
  type UnknownMessage,
} from './messages.js';
import { asSnapshot, Registry, type Asked, type Change, type Planned, type Wish } from './registry.js';
import { ReplayControl } from './replay.js';
import {
  CallbackHandle,
  checkWish,
  StreamHandle,
  type Channels,
  type Handle,
  type Handler,
  type Keeper,
  type Stream,
  type StreamOptions,
  type SubscribeOptions,
  type Subscription,
} from './subscription.js';
import { comesBack, fullJitter, systemClock, Timers, type Backoff, type Clock, type Offset } from './timing.js';
/** State of the connection. */
export type LinkEvent =
  | {
      readonly state: 'connecting';
      /** 0 for the first attempt since the connection was last stable. */ readonly attempt: number;
    }
  | {
      readonly state: 'open';
      readonly hello: Hello;
      /** The gateway was restarted: sequence numbers restart, and ticks missed in between are unknown. */ readonly newEpoch: boolean;
    }
  | {
      readonly state: 'lost';
      readonly code: number;
      readonly why: string;
      readonly bye: Bye | undefined;
      readonly retryInMs: number;
    }
  | { readonly state: 'closed'; readonly code: number; readonly why: string; readonly bye: Bye | undefined };

/** Options of `connect`, all of them optional. An exception in a callback does not affect the client. */
export interface ConnectOptions {
  /** The WebSocket class; by default that of the browser, or in Node its own or that of the package `ws`. */
  readonly WebSocket?: SocketConstructor;
  readonly clock?: Clock;
  /** Random numbers from 0 (inclusive) to 1 (exclusive). */
  readonly random?: () => number;
  /** 250 ms, doubling up to 15 s by default. */
  readonly backoff?: Backoff;
  /** Milliseconds that a connection must be open for the back-off to restart, 10,000 by default. */
  readonly stableMs?: number;
  /** Longest `after_ms` of a gateway that is respected, milliseconds, 600,000 by default. */
  readonly afterMsMax?: number;
  /** Time limit for the handshake and the hello, milliseconds, 10,000 by default. */
  readonly openMs?: number;
  /** Time limit for an answer, milliseconds, 30,000 by default. */
  readonly answerMs?: number;
  /** Heartbeat intervals of silence after which the connection is considered lost, 2.5 by default. */
  readonly heartbeats?: number;
  /** Milliseconds between two pings, 1,000 by default; the first few are more frequent. */
  readonly pingMs?: number;
  /** Age from which on data is late, milliseconds, 2,000 by default. Must exceed `pingMs` and a round trip. */
  readonly lateMs?: number;
  /** Longest message that is parsed, UTF-16 units, 16 Mi by default. */
  readonly messageMax?: number;
  /** Most requests without an answer, 256 by default. */
  readonly requestsMax?: number;
  /** Most pairs of symbol and channel that are accounted for, 262,144 by default. */
  readonly streamsMax?: number;

  readonly onLink?: (event: LinkEvent) => void;
  /** Called for sequence numbers that do not arrive. */
  readonly onGap?: (gap: Gap) => void;
  /** Called if the gateway violates the protocol. */
  readonly onBroken?: (broken: Broken) => void;
  /** Called with a state as the gateway sends it. {@link Client.state} tells whether `live` still holds. */
  readonly onStatus?: (status: Status) => void;
  /**
   * Called if data has become late, or is no longer late, or for another reason. It is not called while the program is
   * blocked: a program that draws should read `delivery` or `state` in each frame.
   */
  readonly onDelivery?: (delivery: Delivery) => void;
  readonly onLag?: (lag: Lag) => void;
  readonly onHeartbeat?: (heartbeat: Heartbeat) => void;
  /** Called with the status of the replay, if the gateway replays a recording. */
  readonly onReplay?: (replay: Replay) => void;
  /** Called if a symbol, or a request for it, is rejected. */
  readonly onRejected?: (rejected: Rejected & { readonly channel: Channel }) => void;
  /** Called with a message of a type that this version does not know. */
  readonly onUnknown?: (message: UnknownMessage) => void;
  /** Called with the exception of a callback. By default it is printed to the console. */
  readonly onError?: (error: unknown) => void;
}
/** Milliseconds until a rate-limited request is repeated. */
const RATE_LIMITED_MS = 1000;

/** See {@link connect}. */
export class Client {
  /** Controls the gateway's replay, if it replays a recording. */
  readonly replay = new ReplayControl((request) => this.#request(request));
  readonly #options: ConnectOptions;
  readonly #setup: LinkSetup;
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #ledger: Ledger;
  readonly #registry: Registry;
  readonly #handles = new Set<Handle>();
  readonly #states = new Map<string, State>();
  #link: Link | undefined;
  #lastOffset: Offset | undefined;
  #open = false;
  #closed: { code: number; why: string } | undefined;
  #closing: Promise<void> | undefined;
  #whenClosed: () => void = () => {};
  #attempt = 0;
  #openedAt = 0;
  /** Requests of the registry without an answer. */
  #asking = 0;
  #scheduled = false;
  #held = false;
  /** Requests that wait to be repeated. */
  readonly #pausing = new Set<() => void>();

  /** @throws TypeError if the URL is invalid, or no WebSocket is available. */
  constructor(url: string | URL, options: ConnectOptions = {}) {
    const WebSocket = options.WebSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
    if (WebSocket === undefined) throw new TypeError('no WebSocket here: install `ws`, or give one in the options');
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#timers = new Timers(this.#clock);
    this.#setup = {
      url: checkedUrl(url),
      WebSocket,
      clock: this.#clock,
      openMs: options.openMs ?? 10_000,
      answerMs: options.answerMs ?? 30_000,
      heartbeats: options.heartbeats ?? 2.5,
      pingMs: options.pingMs ?? 1_000,
      lateMs: options.lateMs ?? 2_000,
      messageMax: options.messageMax ?? 16 * 1024 * 1024,
      requestsMax: options.requestsMax ?? 256,
    };
    this.#ledger = new Ledger(options.streamsMax ?? 262_144);
    this.#registry = new Registry(this.#ledger);
    this.#timers.after(0, () => this.#connect());
  }

  /** True between the hello of a connection and its end. */
  get isOpen(): boolean {
    return this.#open;
  }

  /**
   * Offset of the gateway's clock from the local one, from the best of the last pings; undefined before the first
   * answer.
   */
  get offset(): Offset | undefined {
    return this.#link?.offset;
  }

  /**
   * Time of the gateway, microseconds since the Unix epoch, by the offset of the current connection or the previous
   * one; undefined before the first answer to a ping.
   */
  get gatewayTimeUs(): number | undefined {
    const offset = this.offset ?? this.#lastOffset;
    return offset === undefined ? undefined : this.#clock.now() * 1000 + offset.offset_us;
  }

  /** Milliseconds since the gateway received this tick, by the offset of the clocks; undefined if that is unknown. */
  ageMs(tick: Trade | Quote): number | undefined {
    const nowUs = this.gatewayTimeUs;
    return nowUs === undefined ? undefined : (nowUs - tick.rx) / 1000;
  }

  /** Whether the received data is current; includes everything queued on the way. */
  get delivery(): Delivery {
    return (this.#open ? this.#link?.delivery : undefined) ?? NO_DELIVERY;
  }

  /**
   * The current state of a symbol. `unknown` without a connection, and until the current one has sent data of it: what
   * was shown before is not live. `late` instead of `live` while the {@link delivery} is late.
   */
  state(symbol: string): StateNow {
    return this.#stateNow(symbol, Infinity);
  }

  /** The same for a reader that has only processed what the gateway had to send at `provenMs`. */
  #stateNow(symbol: string, provenMs: number): StateNow {
    const told = this.#open ? this.#states.get(symbol) : undefined;
    if (told !== 'live') return told ?? 'unknown';
    const isOld = this.#clock.now() - provenMs > this.#setup.lateMs;
    return isOld || this.delivery.isLate ? 'late' : 'live';
  }

  /** Subscribes. The handler is called with each tick, in order; gaps and states go to the callbacks in the options. */
  subscribe<C extends Channel>(
    channel: Channels<C>,
    symbols: string | readonly string[],
    handler: Handler<C>,
  ): Subscription;
  subscribe<C extends Channel>(
    channel: Channels<C>,
    symbols: string | readonly string[],
    options: SubscribeOptions,
    handler: Handler<C>,
  ): Subscription;
  /** Subscribes for `for await`, which returns ticks, gaps and states in order. */
  subscribe<C extends Channel>(
    channel: Channels<C>,
    symbols: string | readonly string[],
    options?: StreamOptions,
  ): Stream<C>;
  subscribe<C extends Channel>(
    channel: Channels<C>,
    symbols: string | readonly string[],
    first?: SubscribeOptions | StreamOptions | Handler<C>,
    second?: Handler<C>,
  ): Subscription | Stream<C> {
    const handler = typeof first === 'function' ? first : second;
    const options = typeof first === 'function' ? {} : (first ?? {});
    const channels = [...new Set(typeof channel === 'string' ? [channel] : channel)];
    const named = typeof symbols === 'string' ? [symbols] : [...symbols];
    checkWish(channels, named, options);
    if (this.#closed !== undefined)
      throw new RequestError('closed', `the client is closed: ${this.#closed.why}`, false);
    const keeper: Keeper = {
      left: (handle) => this.#leave(handle),
      changed: () => this.#schedule(),
      call: (callback, value) => this.#call(callback, value),
      provenMs: () => this.#link?.provenMs ?? -Infinity,
      stateNow: (symbol, provenMs) => this.#stateNow(symbol, provenMs),
    };
    const handle =
      handler === undefined
        ? new StreamHandle(keeper, channels, named, options)
        : new CallbackHandle(keeper, channels, named, options, handler as Handler<Channel>);
    this.#handles.add(handle);
    this.#registry.add(handle);
    this.#schedule();
    return handle as unknown as Subscription | Stream<C>;
  }

  /** The subscriptions that the gateway has for this connection. */
  async list(): Promise<AckList> {
    const [rows, last] = await this.#pages<AckList, SubscriptionRow>({ op: 'list' }, (answer) => answer.subscriptions);
    return { ...last, subscriptions: rows };
  }

  /** The available symbols that match `*`, `venue:*` or one symbol. */
  async symbols(match = '*'): Promise<readonly SymbolRow[]> {
    const [rows] = await this.#pages<AckSymbols, SymbolRow>({ op: 'symbols', match }, (answer) => answer.symbols);
    return rows;
  }

  /** Measures one round trip, behind everything queued, in milliseconds. */
  ping(): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#link === undefined) reject(this.#noLink());
      else this.#link.ping((rtt_us) => resolve(rtt_us / 1000), reject);
    });
  }

  /** Closes the client; resolves when the connection is closed. May be called repeatedly. */
  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      this.#whenClosed = resolve;
      if (this.#closed !== undefined) resolve();
      else if (this.#link === undefined) this.#end({ code: 1000, why: 'closed', bye: undefined });
      else this.#link.close();
    });
    return this.#closing;
  }

  /** The rows of all pages of an answer, and its last page. */
  async #pages<A extends { readonly more?: true }, R extends { readonly symbol: string }>(
    request: ListRequest,
    rowsOf: (answer: A) => readonly R[],
  ): Promise<[readonly R[], A]> {
    let answer = await this.#request<A>(request);
    let rows = rowsOf(answer);
    for (let last = rows.at(-1); answer.more === true && last !== undefined; last = rowsOf(answer).at(-1)) {
      const next = { ...request, after: last.symbol };
      const asked = await this.#request<A>(next).catch((error: unknown) => {
        if (error instanceof RequestError && error.code === 'rate_limited') return undefined;
        throw error;
      });
      if (asked === undefined) {
        // A long answer counts as several of the requests per second.
        await this.#pause();
        continue;
      }
      answer = asked;
      rows = [...rows, ...rowsOf(answer)];
    }
    return [rows, answer];
  }

  /** Waits until a rate-limited request may be repeated, or until the client is closed. */
  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#pausing.delete(done);
        resolve();
      };
      this.#pausing.add(done);
      this.#timers.after(RATE_LIMITED_MS, done);
    });
  }

  #request<A>(request: Request): Promise<A> {
    return new Promise((resolve, reject) => {
      if (this.#link === undefined) reject(this.#noLink());
      else this.#link.ask(request, (answer) => resolve(answer as A), reject);
    });
  }

  #noLink(): RequestError {
    return new RequestError(
      this.#closed === undefined ? 'lost' : 'closed',
      'there is no connection',
      this.#closed === undefined,
    );
  }

  #connect(): void {
    if (this.#closing !== undefined || this.#closed !== undefined) return;
    this.#tellLink({ state: 'connecting', attempt: this.#attempt });
    // The callback may have closed the client.
    if (this.#closing !== undefined) return;
    this.#link = new Link(this.#setup, {
      opened: (hello) => this.#opened(hello),
      message: (message) => this.#message(message),
      broken: (broken) => this.#call(this.#options.onBroken, broken),
      unknown: (message) => this.#call(this.#options.onUnknown, message),
      delivery: (delivery) => this.#call(this.#options.onDelivery, delivery),
      ended: (end) => this.#lost(end),
    });
  }

  #opened(hello: Hello): void {
    const before = this.#ledger.epoch;
    this.#open = true;
    this.#openedAt = this.#clock.now();
    this.#asking = 0;
    this.#registry.begin();
    this.#ledger.hello(hello.epoch);
    this.#tellLink({ state: 'open', hello, newEpoch: before !== undefined && before !== hello.epoch });
    this.#reconcile();
  }

  #lost(end: LinkEnd): void {
    if (this.#open && this.#clock.now() - this.#openedAt >= (this.#options.stableMs ?? 10_000)) this.#attempt = 0;
    const wasOpen = this.#open;
    this.#lastOffset = this.offset ?? this.#lastOffset;
    this.#link = undefined;
    this.#open = false;
    this.#held = false;
    this.#states.clear();
    this.replay.told(undefined);
    if (wasOpen) this.#call(this.#options.onDelivery, NO_DELIVERY);
    if (this.#closing !== undefined || !comesBack(end.code) || end.bye?.reconnect === false) {
      this.#end(end);
      return;
    }
    const { backoff = { baseMs: 250, maxMs: 15_000 }, afterMsMax = 600_000, random = Math.random } = this.#options;
    const asked = Math.min(end.bye?.after_ms ?? 0, afterMsMax);
    const retryInMs = asked + fullJitter(backoff, this.#attempt, random());
    this.#attempt += 1;
    this.#timers.after(retryInMs, () => this.#connect());
    this.#tellLink({ state: 'lost', ...end, retryInMs });
  }

  /** Ends the client permanently. */
  #end(end: LinkEnd): void {
    this.#closed = end;
    this.#timers.stop();
    for (const done of this.#pausing) done();
    const error = new RequestError('closed', `the client is closed: ${end.why}`, false);
    const asked = this.#closing !== undefined;
    for (const handle of this.#handles) handle.ended(error, asked);
    this.#handles.clear();
    this.#tellLink({ state: 'closed', ...end });
    this.#whenClosed();
  }

  #tellLink(event: LinkEvent): void {
    this.#call(this.#options.onLink, event);
  }

  /** Combines all changes of one turn of the event loop. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#prime();
      this.#reconcile();
    });
  }

  /** Passes the known values and states to new subscriptions of symbols that are already subscribed. */
  #prime(): void {
    for (const handle of [...this.#handles].filter(({ primed }) => !primed)) {
      handle.primed = true;
      const picks = (symbol: string) => [...handle.symbols].some((pattern) => covers(pattern, symbol));
      for (const channel of handle.channels) {
        for (const symbol of handle.symbols) if (this.#registry.has(channel, symbol)) handle.joined(channel, symbol);
      }
      for (const [symbol, state] of this.#states) if (picks(symbol)) handle.status({ type: 'status', symbol, state });
      if (!handle.snapshot) continue;
      // Also without a connection: the next data continues it.
      for (const channel of handle.channels)
        this.#ledger.values(channel, picks).forEach((value) => handle.tick(asSnapshot(value)));
    }
  }

  #reconcile(): void {
    const hello = this.#link?.hello;
    if (!this.#open || this.#asking > 0 || this.#held || hello === undefined || this.#closing !== undefined) return;
    const link = this.#link;
    const planned = this.#registry.plan(hello.limits);
    this.#asking += planned.length;
    for (const one of planned) {
      link?.ask(
        one.request,
        (ack) =>
          this.#answered(
            one,
            (ack.type === 'ack' && 'rejected' in ack && this.#registry.answer(one, ack)) || undefined,
          ),
        (error) => this.#refused(link, one, error),
      );
    }
  }

  #answered(planned: Planned, change: Change | undefined): void {
    this.#asking -= 1;
    for (const message of change?.broken ?? [])
      this.#call(this.#options.onBroken, { kind: 'answer', channel: planned.channel, message });
    for (const row of change?.rejected ?? []) this.#call(this.#options.onRejected, row);
    for (const status of change?.states ?? []) this.#state(status);
    this.#dropStates(planned);
    this.#reconcile();
  }

  #refused(link: Link, planned: Planned, { code, message, retry, retryAfterMs }: RequestError): void {
    // The next connection repeats the request.
    if (code === 'lost' || link !== this.#link) return;
    this.#asking -= 1;
    if (code === 'timeout') {
      this.#call(this.#options.onBroken, { kind: 'answer', channel: planned.channel, message });
      link.fail(message);
    } else if (retry) {
      this.#held = true;
      const afterMs = Math.min(retryAfterMs ?? 0, this.#options.afterMsMax ?? 600_000);
      this.#timers.after(Math.max(RATE_LIMITED_MS, afterMs), () => {
        this.#held = false;
        this.#reconcile();
      });
    } else {
      this.#registry.refuse(planned, code, message);
      for (const symbol of planned.symbols)
        this.#call(this.#options.onRejected, { symbol, code, msg: message, channel: planned.channel });
      this.#reconcile();
    }
  }

  #message(message: Trade | Quote | Gap | Status | Heartbeat | Lag | Replay): void {
    switch (message.type) {
      case 'trade':
      case 'quote':
        this.#tick(message);
        return;
      case 'gap':
        this.#gap(message);
        return;
      case 'status':
        if (this.#wanted(message.symbol)) this.#state(message);
        return;
      case 'lag':
        this.#call(this.#options.onLag, message);
        return;
      case 'replay':
        this.replay.told(message);
        this.#call(this.#options.onReplay, message);
        return;
      case 'hb':
        this.#call(this.#options.onHeartbeat, message);
    }
  }

  #tick(tick: Trade | Quote): void {
    const terms = this.#asked(tick.type, tick.symbol);
    if (terms === undefined) return;
    const finding = this.#ledger.tick(tick, terms.snapshot);
    this.#tell(finding);
    if (!finding.deliver) return;
    if (!this.#states.has(tick.symbol)) this.#state({ type: 'status', symbol: tick.symbol, state: 'live' });
    // Ticks held back by a rate are late on request, and replayed ones have their own times.
    if (!tick.snap && terms.max_hz === null && this.#states.get(tick.symbol) === 'live')
      this.#link?.tickTook((tick.tx - tick.rx) / 1000);
    for (const wish of this.#registry.wishes(tick.type, tick.symbol)) if (wish.primed) wish.tick(tick);
  }

  #gap(gap: Gap): void {
    const terms = this.#asked(gap.channel, gap.symbol);
    if (terms === undefined) return;
    const finding = this.#ledger.gap(gap, terms.snapshot);
    this.#tell(finding);
    if (finding.deliver) this.#tellGap(gap);
  }

  #asked(channel: Channel, symbol: string): Asked | undefined {
    const terms = this.#registry.asked(channel, symbol);
    if (terms === undefined) {
      this.#call(this.#options.onBroken, {
        kind: 'unasked',
        symbol,
        channel,
        message: `${symbol} ${channel}: nobody asked for it`,
      });
    }
    return terms;
  }

  #tell({ broken, away }: Finding): void {
    if (broken !== undefined) this.#call(this.#options.onBroken, broken);
    if (away !== undefined) this.#tellGap(away);
  }

  #tellGap(gap: Gap): void {
    this.#call(this.#options.onGap, gap);
    for (const wish of this.#registry.wishes(gap.channel, gap.symbol)) if (wish.primed) wish.gap(gap);
  }

  #wanted(symbol: string): boolean {
    return this.#registry.asked('trade', symbol) !== undefined || this.#registry.asked('quote', symbol) !== undefined;
  }

  #state(status: Status): void {
    if (
      isWildcard(status.symbol) ||
      (this.#states.size >= (this.#options.streamsMax ?? 262_144) && !this.#states.has(status.symbol))
    )
      return;
    this.#states.set(status.symbol, status.state);
    this.#call(this.#options.onStatus, status);
    const told = new Set<Wish>();
    for (const channel of ['trade', 'quote'] as const) {
      for (const wish of this.#registry.wishes(channel, status.symbol)) {
        if (wish.primed && !told.has(wish)) wish.status(status);
        told.add(wish);
      }
    }
  }

  #dropStates({ request }: Planned): void {
    if (request.op !== 'unsubscribe') return;
    for (const symbol of this.#states.keys()) if (!this.#wanted(symbol)) this.#states.delete(symbol);
  }

  #leave(handle: Handle): void {
    if (!this.#handles.delete(handle)) return;
    this.#registry.remove(handle);
    this.#schedule();
  }

  /** Calls a callback of the program; an exception does not propagate. */
  #call<T>(callback: ((value: T) => unknown) | undefined, value: T): void {
    if (callback === undefined) return;
    try {
      const result = callback(value);
      if (result instanceof Promise) result.catch((error: unknown) => this.#complain(error));
    } catch (error) {
      this.#complain(error);
    }
  }

  #complain(error: unknown): void {
    try {
      if (this.#options.onError === undefined) console.error('tickfan-client: a callback has thrown', error);
      else this.#options.onError(error);
    } catch {
      // There is no other place to report the error.
    }
  }
}
function checkedUrl(url: string | URL): string {
  const parsed = new URL(url);
  if (!['ws:', 'wss:', 'http:', 'https:'].includes(parsed.protocol))
    throw new TypeError(`${parsed.protocol} is no WebSocket's scheme`);
  if (parsed.searchParams.has('symbols'))
    throw new TypeError('subscribe by `subscribe`, not by the URL: the next connection would not know');
  parsed.protocol = parsed.protocol.replace('http', 'ws');
  return parsed.href;
}
/**
 * Connects to a gateway, and reconnects whenever the connection is lost, until the client is closed or the gateway
 * forbids it.
 *
 * @param url of the gateway's `/ws`: `ws://127.0.0.1:8080/ws`.
 * @throws TypeError if the URL is invalid, or no WebSocket is available.
 */
export function connect(url: string | URL, options: ConnectOptions = {}): Client {
  return new Client(url, options);
}
