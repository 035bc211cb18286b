/**
 * The messages of the gateway and the requests of a client, as in docs/PROTOCOL.md and docs/asyncapi.yaml, and the
 * parsing of a message. Messages are validated: one that lacks a field of its type is rejected.
 */

/** A price or a size: decimal text with the digits of the venue. See `compareDecimal` and `subtractDecimal`. */
export type Decimal = string;
/** Integer microseconds since the Unix epoch. */
export type Micros = number;
/** Executed trades, or the best bid and ask. */
export type Channel = 'trade' | 'quote';
/**
 * `every`: each tick, or a gap that names the missing ones. `latest`: the newest, and the number of ticks it stands
 * for.
 */
export type Mode = 'every' | 'latest';
/**
 * Only `live` prices are live. `replay`: of a recording, which is playing; `paused`: the recording is paused; `ended`:
 * it has ended, and its values are no longer valid.
 */
export type State = 'waiting' | 'live' | 'stale' | 'down' | 'replay' | 'paused' | 'ended';
/** How far behind a client is. */
export type Level = 'ok' | 'warn' | 'shed' | 'cut';
/** Result of a `resume`. */
export type Resumed = 'ok' | 'gap' | 'new_epoch';

/** The first message of a connection, sent once. */
export interface Hello {
  readonly type: 'hello';
  readonly v: number;
  /** Random identifier of this connection. */
  readonly session: string;
  /** Identifier of this run of the gateway; `seq` counts within it. */
  readonly epoch: string;
  /**
   * `replay` if all data is recorded, `live` if none is, `mixed` if there may be both. The state of a symbol tells
   * whether it is live.
   */
  readonly feed: 'live' | 'replay' | 'mixed';
  readonly time: Micros;
  readonly heartbeat_ms: number;
  readonly limits: { readonly symbols: number; readonly frame_bytes: number; readonly ops_per_s: number };
}

interface TickFields {
  /** `venue:SYMBOL`. External text: display it as text, never as HTML. */
  readonly symbol: string;
  /** Sequence number per symbol and channel within an epoch, from 1. */
  readonly seq: number;
  /** Present if this is the last value at the start of a subscription, not an update. */
  readonly snap?: true;
  /** Number of ticks this stands for; omitted if it is 1. */
  readonly n?: number;
  /** Time of the venue, if it sends one. */
  readonly ts?: Micros;
  /** Receive time at the gateway. */
  readonly rx: Micros;
  /** Time of encoding at the gateway. */
  readonly tx: Micros;
  /** Present on recorded ticks of a catch-up, which are not live. */
  readonly past?: true;
}

/** An executed trade. */
export interface Trade extends TickFields {
  readonly type: 'trade';
  readonly price: Decimal;
  readonly size: Decimal;
  /** Side of the aggressor; absent if the source does not send it. */
  readonly side?: 'buy' | 'sell';
  readonly trade_id?: string;
}

/** The best bid and ask. An empty side of the book is absent, and so is a size that the venue does not send. */
export interface Quote extends TickFields {
  readonly type: 'quote';
  readonly bid?: Decimal;
  readonly bid_size?: Decimal;
  readonly ask?: Decimal;
  readonly ask_size?: Decimal;
}

/** The ticks of a channel. */
export type Tick<C extends Channel = Channel> = C extends 'trade' ? Trade : Quote;

/** Sequence numbers that do not arrive, both ends inclusive. */
export interface Gap {
  readonly type: 'gap';
  readonly symbol: string;
  readonly channel: Channel;
  readonly from: number;
  readonly to: number;
  /**
   * Reasons of the gateway: `slow_consumer`, `overrun`, `resume`, `feed`, and `seek`: a replay moved to a place without
   * a value, so that the last one is no longer valid. Reasons of this client: `away`: they were sent while there was no
   * connection and could not be requested again; `overflow`: the reader of a stream did not keep up.
   */
  readonly why: 'slow_consumer' | 'overrun' | 'resume' | 'feed' | 'seek' | 'away' | 'overflow' | (string & {});
}

/** The state of a symbol. */
export interface Status {
  readonly type: 'status';
  readonly symbol: string;
  readonly state: State;
  /** Time of the change; absent if the state is from the answer to a subscription. */
  readonly since?: Micros;
}

/** The end of a catch-up: what follows is live. */
export interface Joined {
  readonly type: 'joined';
  readonly time: Micros;
  /**
   * Ticks, over all symbols, that were no longer kept, or were skipped because this client did not come closer to the
   * live stream.
   */
  readonly missed?: number;
}

export interface Heartbeat {
  readonly type: 'hb';
  readonly time: Micros;
  /** Ticks queued for this connection so far. */
  readonly sent: number;
  /** Age of the oldest queued message, milliseconds. */
  readonly behind_ms: number;
}

/** The wall clock of the gateway was set, or its machine slept: times before and after are not comparable. */
export interface ClockStep {
  readonly type: 'clock_step';
  readonly time: Micros;
  /** Change of the clock, microseconds; negative if it was set back. */
  readonly by: number;
}

/** How far behind this client is, sent on a change of the level. */
export interface Lag {
  readonly type: 'lag';
  readonly level: Level;
  readonly behind_ms: number;
  readonly queued_bytes: number;
  /** Milliseconds until the connection is cut, if nothing is read until then. */
  readonly cut_in_ms?: number;
  /** Ticks merged into newer ones, since the start of the connection. */
  readonly merged: number;
  /** Ticks that are or will be named by a gap, since the start of the connection. */
  readonly dropped: number;
}

/** Status of a replay: after the hello, on each change, and about once per second. */
export interface Replay {
  readonly type: 'replay';
  readonly state: 'playing' | 'paused' | 'seeking' | 'ended';
  /** Position in the time of the recording, as are its two ends. */
  readonly position: Micros;
  readonly from: Micros;
  readonly to: Micros;
  /** 1 is as recorded, 0 is as fast as possible. */
  readonly speed: number;
  readonly loop: boolean;
}

/** Why the connection is closed; precedes the close frame. */
export interface Bye {
  readonly type: 'bye';
  readonly code: number;
  readonly why: string;
  readonly reconnect: boolean;
  readonly after_ms?: number;
}

/** A subscription as the gateway has it. */
export interface SubscriptionRow {
  readonly symbol: string;
  readonly channel: Channel;
  readonly mode: Mode;
  readonly max_hz?: number;
  readonly on_slow?: 'gap' | 'cut';
  readonly state?: State;
  readonly resumed?: Resumed;
  /** How much of the requested past is available: all of it, or what was received at `begins` or later. */
  readonly past?: 'ok' | 'gap';
  readonly begins?: Micros;
}

/** A rejected symbol. */
export interface Rejected {
  readonly symbol: string;
  readonly code: string;
  readonly msg: string;
}

export interface SymbolRow {
  readonly symbol: string;
  readonly state: State;
}

interface AckFields {
  readonly type: 'ack';
  readonly id?: number | string;
}
export interface AckSubscribe extends AckFields {
  readonly op: 'subscribe' | 'set';
  readonly ok: readonly SubscriptionRow[];
  readonly rejected: readonly Rejected[];
  /** There were more rows than fit in an answer. */
  readonly more?: true;
}
export interface AckUnsubscribe extends AckFields {
  readonly op: 'unsubscribe';
  /** The request named no symbols: all subscriptions have ended, including those by name. */
  readonly all?: true;
  readonly ok: readonly { readonly symbol: string }[];
  readonly rejected: readonly Rejected[];
  /** There were more rows than fit in an answer. */
  readonly more?: true;
}
export interface AckList extends AckFields {
  readonly op: 'list';
  readonly subscriptions: readonly SubscriptionRow[];
  /** There are more rows than fit in one answer: request those `after` the last. */
  readonly more?: true;
}
export interface AckSymbols extends AckFields {
  readonly op: 'symbols';
  readonly symbols: readonly SymbolRow[];
  /** There are more rows than fit in one answer: request those `after` the last. */
  readonly more?: true;
}
export interface AckReplay extends AckFields {
  readonly op: 'replay';
}
export type Ack = AckSubscribe | AckUnsubscribe | AckList | AckSymbols | AckReplay;

/** The answer to a `ping`. */
export interface Pong {
  readonly type: 'pong';
  readonly id?: number | string;
  readonly t?: number | string | null;
  /** Time at which the gateway had read the ping. */
  readonly in: Micros;
  /** Time at which the gateway had written the answer. */
  readonly out: Micros;
}

/** A rejected request. */
export interface Refusal {
  readonly type: 'error';
  readonly id?: number | string;
  readonly code: string;
  readonly msg: string;
  readonly retry: boolean;
  /** Delay before a retry is useful, milliseconds. */
  readonly retry_after_ms?: number;
}

/** All messages of the gateway, distinguished by `type`. */
export type ServerMessage = Hello | Trade | Quote | Gap | Status | Joined | Heartbeat | ClockStep | Lag | Replay | Bye | Ack | Pong | Refusal;

/** A message of a type, or an answer to an op, that this version does not know. */
export interface UnknownMessage {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** How a subscription handles its ticks. */
export interface Terms {
  /** Default: `latest` for quotes, `every` for trades. */
  readonly mode?: Mode;
  /** Most updates per second and symbol, 0.01 to 1000. Requires `latest`. */
  readonly max_hz?: number | null;
  /**
   * `cut`: the first tick that would be lost because this client is slow ends the connection instead. Requires `every`.
   */
  readonly on_slow?: 'gap' | 'cut';
}

/** A replay command. */
export type ReplayAction =
  | { readonly do: 'pause' | 'resume' | 'stop' }
  | { readonly do: 'seek'; readonly to: Micros }
  | { readonly do: 'speed'; readonly speed: number }
  | { readonly do: 'step'; readonly ticks: number }
  | { readonly do: 'loop'; readonly on: boolean };
export type ReplayRequest = { readonly op: 'replay'; readonly token?: string } & ReplayAction;

/** Requests that are answered with rows, those after the row of the symbol `after`. */
export type ListRequest =
  | { readonly op: 'list'; readonly after?: string }
  | { readonly op: 'symbols'; readonly match?: string; readonly after?: string };

/** All requests of a client; the client assigns the `id`. */
export type Request =
  | ({
      readonly op: 'subscribe';
      readonly channel: Channel;
      readonly symbols: readonly string[];
      readonly snapshot?: boolean;
      readonly resume?: { readonly epoch: string; readonly seq: Readonly<Record<string, number>> };
    } & Terms)
  | { readonly op: 'unsubscribe'; readonly channel?: Channel; readonly symbols?: readonly string[] }
  | {
      readonly op: 'set';
      readonly channel?: Channel;
      readonly symbols?: readonly string[];
      readonly mode?: Mode;
      readonly max_hz?: number | null;
    }
  | ListRequest
  | ReplayRequest
  | { readonly op: 'ping'; readonly t?: number | string };

/** Result of parsing one text frame. */
export type Reading =
  | { readonly kind: 'known'; readonly message: ServerMessage }
  | { readonly kind: 'unknown'; readonly message: UnknownMessage }
  | { readonly kind: 'bad'; readonly what: string };

type Test = (value: unknown) => boolean;
type Shape = Readonly<Record<string, Test>>;

const SYMBOL = /^[a-z0-9_-]{1,32}:[^\s",*\\]{1,64}$/;
const DECIMAL = /^-?(0|[1-9][0-9]*)(\.[0-9]+)?$/;

const text: Test = (v) => typeof v === 'string';
const flag: Test = (v) => typeof v === 'boolean';
const count: Test = (v) => Number.isSafeInteger(v) && (v as number) >= 0;
const positive: Test = (v) => Number.isSafeInteger(v) && (v as number) >= 1;
const symbol: Test = (v) => typeof v === 'string' && SYMBOL.test(v);
const decimal: Test = (v) => typeof v === 'string' && DECIMAL.test(v);
const yes: Test = (v) => v === true;
const oneOf =
  (...words: unknown[]): Test =>
  (v) =>
    words.includes(v);
const maybe =
  (test: Test): Test =>
  (v) =>
    v === undefined || test(v);
const each =
  (test: Test): Test =>
  (v) =>
    Array.isArray(v) && v.every(test);
const shaped =
  (shape: Shape): Test =>
  (v) =>
    typeof v === 'object' && v !== null && wrongField(v, shape) === undefined;

const id = maybe((v) => typeof v === 'string' || Number.isSafeInteger(v));
const channel = oneOf('trade', 'quote');
const state = oneOf('waiting', 'live', 'stale', 'down', 'replay', 'paused', 'ended');
const tick = { symbol, seq: positive, snap: maybe(yes), n: maybe(positive), ts: maybe(count), rx: count, tx: count, past: maybe(yes) };
const row = shaped({
  symbol: text,
  channel,
  mode: oneOf('every', 'latest'),
  max_hz: maybe((v) => typeof v === 'number'),
  on_slow: maybe(oneOf('gap', 'cut')),
  state: maybe(state),
  resumed: maybe(oneOf('ok', 'gap', 'new_epoch')),
  past: maybe(oneOf('ok', 'gap')),
  begins: maybe(count),
});
const rejected = each(shaped({ symbol: text, code: text, msg: text }));

const SHAPES: ReadonlyMap<string, Shape> = new Map(
  Object.entries<Shape>({
    hello: {
      v: (v) => v === 1,
      session: text,
      epoch: text,
      feed: oneOf('live', 'replay', 'mixed'),
      time: count,
      heartbeat_ms: positive,
      limits: shaped({ symbols: positive, frame_bytes: positive, ops_per_s: positive }),
    },
    trade: { ...tick, price: decimal, size: decimal, side: maybe(oneOf('buy', 'sell')), trade_id: maybe(text) },
    quote: {
      ...tick,
      bid: maybe(decimal),
      bid_size: maybe(decimal),
      ask: maybe(decimal),
      ask_size: maybe(decimal),
    },
    gap: { symbol, channel, from: positive, to: positive, why: text },
    status: { symbol, state, since: count },
    joined: { time: count, missed: maybe(positive) },
    hb: { time: count, sent: count, behind_ms: count },
    clock_step: { time: count, by: (v) => Number.isSafeInteger(v) },
    lag: {
      level: oneOf('ok', 'warn', 'shed', 'cut'),
      behind_ms: count,
      queued_bytes: count,
      cut_in_ms: maybe(count),
      merged: count,
      dropped: count,
    },
    replay: {
      state: oneOf('playing', 'paused', 'seeking', 'ended'),
      position: count,
      from: count,
      to: count,
      speed: (v) => typeof v === 'number' && v >= 0,
      loop: flag,
    },
    bye: { code: count, why: text, reconnect: flag, after_ms: maybe(count) },
    pong: { id, in: count, out: count },
    error: { id, code: text, msg: text, retry: flag, retry_after_ms: maybe(count) },
  }),
);

const ACKS: ReadonlyMap<unknown, Shape> = new Map<unknown, Shape>(
  Object.entries<Shape>({
    subscribe: { id, ok: each(row), rejected, more: maybe(yes) },
    set: { id, ok: each(row), rejected, more: maybe(yes) },
    unsubscribe: { id, all: maybe(yes), ok: each(shaped({ symbol: text })), rejected, more: maybe(yes) },
    list: { id, subscriptions: each(row), more: maybe(yes) },
    replay: { id },
    symbols: { id, symbols: each(shaped({ symbol, state })), more: maybe(yes) },
  }),
);

/** The first field that is missing or invalid. */
function wrongField(message: object, shape: Shape): string | undefined {
  const fields = message as Record<string, unknown>;
  for (const name in shape) {
    if (!shape[name]?.(fields[name])) return name;
  }
  return undefined;
}

/** Parses one text frame. It never throws. */
export function read(frame: string): Reading {
  let message: unknown;
  try {
    message = JSON.parse(frame);
  } catch {
    return { kind: 'bad', what: 'not JSON' };
  }
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    return { kind: 'bad', what: 'no JSON object' };
  }
  const { type, op } = message as { type?: unknown; op?: unknown };
  if (typeof type !== 'string') return { kind: 'bad', what: 'field `type` is missing or no text' };
  const shape = type === 'ack' ? ACKS.get(op) : SHAPES.get(type);
  if (shape === undefined) return { kind: 'unknown', message: message as UnknownMessage };
  const wrong = wrongField(message, shape);
  if (wrong !== undefined) return { kind: 'bad', what: `${type}: field \`${wrong}\` is missing or wrong` };
  return { kind: 'known', message: message as ServerMessage };
}

/** True for `*` and `venue:*`. */
export function isWildcard(symbol: string): boolean {
  return symbol === '*' || symbol.endsWith(':*');
}

/** Whether a symbol or wildcard covers everything that another one covers. */
export function covers(pattern: string, other: string): boolean {
  if (pattern === other || pattern === '*') return true;
  return pattern.endsWith(':*') && other.startsWith(pattern.slice(0, -1));
}
