/**
 * What the gateway says and what a client asks, as docs/PROTOCOL.md and docs/asyncapi.yaml describe it, and the
 * reading of one message. Nothing here trusts the other side: a message has the fields of its type, or it is refused.
 */

/** A price or a size: decimal text with the digits that the venue sent. See `compareDecimal` and `subtractDecimal`. */
export type Decimal = string;
/** Whole microseconds since the Unix epoch. */
export type Micros = number;
/** Executed trades, or the best bid and offer. */
export type Channel = 'trade' | 'quote';
/** `every`: each tick, or a gap that names those that are missing. `latest`: the newest, and how many it stands for. */
export type Mode = 'every' | 'latest';
/**
 * Only `live` prices are live. `replay`: they are of a recording, which is playing; `paused`: it stands still; `ended`: it has
 * ended, and what it told does not hold any more.
 */
export type State = 'waiting' | 'live' | 'stale' | 'down' | 'replay' | 'paused' | 'ended';
/** How far behind a client is. */
export type Level = 'ok' | 'warn' | 'shed' | 'cut';
/** What became of a `resume`. */
export type Resumed = 'ok' | 'gap' | 'new_epoch';

/** First and once on a connection. */
export interface Hello {
  readonly type: 'hello';
  readonly v: number;
  /** Random name of this connection. */
  readonly session: string;
  /** Names this run of the gateway: `seq` counts within it. */
  readonly epoch: string;
  /**
   * `replay` where all there is to see is recorded, `live` where nothing is, `mixed` where there may be both. Whether a symbol is
   * live, its state tells.
   */
  readonly feed: 'live' | 'replay' | 'mixed';
  readonly time: Micros;
  readonly heartbeat_ms: number;
  readonly limits: { readonly symbols: number; readonly frame_bytes: number; readonly ops_per_s: number };
}

interface TickFields {
  /** `venue:SYMBOL`. It is text from outside: show it as text, never as HTML. */
  readonly symbol: string;
  /** Counts per symbol and channel within an epoch, from 1. */
  readonly seq: number;
  /** Here where this is the last value at the start of a subscription, not an update. */
  readonly snap?: true;
  /** How many ticks this stands for; left out when it is 1. */
  readonly n?: number;
  /** The venue's clock, where it told. */
  readonly ts?: Micros;
  /** When the gateway received it. */
  readonly rx: Micros;
  /** When the gateway encoded it. */
  readonly tx: Micros;
  /** It was recorded, and is not live: only where the past was asked for. */
  readonly past?: true;
}

/** An executed trade. */
export interface Trade extends TickFields {
  readonly type: 'trade';
  readonly price: Decimal;
  readonly size: Decimal;
  /** The aggressor's side; absent where the source does not tell. */
  readonly side?: 'buy' | 'sell';
  readonly trade_id?: string;
}

/** The best bid and offer. A side of the book that is empty is absent, and so is a size that the venue does not tell. */
export interface Quote extends TickFields {
  readonly type: 'quote';
  readonly bid?: Decimal;
  readonly bid_size?: Decimal;
  readonly ask?: Decimal;
  readonly ask_size?: Decimal;
}

/** The ticks of a channel. */
export type Tick<C extends Channel = Channel> = C extends 'trade' ? Trade : Quote;

/** Numbers that are not coming, both ends included. */
export interface Gap {
  readonly type: 'gap';
  readonly symbol: string;
  readonly channel: Channel;
  readonly from: number;
  readonly to: number;
  /**
   * The gateway's reasons: `slow_consumer`, `overrun`, `resume`, `feed`, and `seek`: a replay went to a place where there is no
   * value yet, so the last one is none any more. This client's own: `away`, they came while there
   * was no connection and could not be asked for again; `overflow`, they came, and the reader of a stream did not
   * take them in time.
   */
  readonly why: 'slow_consumer' | 'overrun' | 'resume' | 'feed' | 'seek' | 'away' | 'overflow' | (string & {});
}

/** The state of a symbol. */
export interface Status {
  readonly type: 'status';
  readonly symbol: string;
  readonly state: State;
  /** Since when; absent where the answer to a subscription showed it. */
  readonly since?: Micros;
}

/** The past that was asked for has been told: what comes from here on is the present. */
export interface Joined {
  readonly type: 'joined';
  readonly time: Micros;
  /** Ticks, of whatever symbols, that were not kept on the way, or left out because this client came no nearer to the present. */
  readonly missed?: number;
}

export interface Heartbeat {
  readonly type: 'hb';
  readonly time: Micros;
  /** Ticks queued for this connection so far. */
  readonly sent: number;
  /** For how long the oldest of what waits has been waiting. */
  readonly behind_ms: number;
}

/** The wall clock of the gateway was set, or its machine slept: times from before and after it do not compare. */
export interface ClockStep {
  readonly type: 'clock_step';
  readonly time: Micros;
  /** How many microseconds it is on since; less than 0 where it was set back. */
  readonly by: number;
}

/** How far behind this client is, when the level changes. */
export interface Lag {
  readonly type: 'lag';
  readonly level: Level;
  readonly behind_ms: number;
  readonly queued_bytes: number;
  /** Milliseconds until the connection is cut, if nothing is read until then. */
  readonly cut_in_ms?: number;
  /** Ticks that newer values stand for, since the connection began. */
  readonly merged: number;
  /** Ticks that a gap names, or is going to, since the connection began. */
  readonly dropped: number;
}

/** How the replay of a recording is doing: after the hello, on each change, and about once a second. */
export interface Replay {
  readonly type: 'replay';
  readonly state: 'playing' | 'paused' | 'seeking' | 'ended';
  /** Where it is, on the recording's own clock, as are its two ends. */
  readonly position: Micros;
  readonly from: Micros;
  readonly to: Micros;
  /** 1 is as it was, 0 as fast as it goes. */
  readonly speed: number;
  readonly loop: boolean;
}

/** Why the connection is closed, right before it is. */
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
  /** How much of the past that was asked for is kept: all of it, or what was received at `begins` or later. */
  readonly past?: 'ok' | 'gap';
  readonly begins?: Micros;
}

/** A symbol that was refused. */
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
  /** There were more rows than an answer has room for. */
  readonly more?: true;
}
export interface AckUnsubscribe extends AckFields {
  readonly op: 'unsubscribe';
  /** No symbols were named: everything has ended, names too. */
  readonly all?: true;
  readonly ok: readonly { readonly symbol: string }[];
  readonly rejected: readonly Rejected[];
  /** There were more rows than an answer has room for. */
  readonly more?: true;
}
export interface AckList extends AckFields {
  readonly op: 'list';
  readonly subscriptions: readonly SubscriptionRow[];
  /** There are more than the rows of one answer: ask for those `after` the last. */
  readonly more?: true;
}
export interface AckSymbols extends AckFields {
  readonly op: 'symbols';
  readonly symbols: readonly SymbolRow[];
  /** There are more than the rows of one answer: ask for those `after` the last. */
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
  /** When the gateway had read the ping. */
  readonly in: Micros;
  /** When it had written the answer. */
  readonly out: Micros;
}

/** A request that was not carried out. */
export interface Refusal {
  readonly type: 'error';
  readonly id?: number | string;
  readonly code: string;
  readonly msg: string;
  readonly retry: boolean;
  /** How long it is of no use before, milliseconds. */
  readonly retry_after_ms?: number;
}

/** Everything that the gateway says, told apart by `type`. */
export type ServerMessage = Hello | Trade | Quote | Gap | Status | Joined | Heartbeat | ClockStep | Lag | Replay | Bye | Ack | Pong | Refusal;

/** A message of a type, or an answer to an op, that this version does not know. */
export interface UnknownMessage {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** How a subscription treats its ticks. */
export interface Terms {
  /** Left out: `latest` for quotes, `every` for trades. */
  readonly mode?: Mode;
  /** Updates a second of each symbol at most, 0.01 to 1000. It needs `latest`. */
  readonly max_hz?: number | null;
  /** `cut`: the first tick that would be lost because this client is slow ends the connection instead. It needs `every`. */
  readonly on_slow?: 'gap' | 'cut';
}

/** What may be done with a replay. */
export type ReplayAction =
  | { readonly do: 'pause' | 'resume' | 'stop' }
  | { readonly do: 'seek'; readonly to: Micros }
  | { readonly do: 'speed'; readonly speed: number }
  | { readonly do: 'step'; readonly ticks: number }
  | { readonly do: 'loop'; readonly on: boolean };
export type ReplayRequest = { readonly op: 'replay'; readonly token?: string } & ReplayAction;

/** What is answered by rows, those behind the one of the symbol `after`. */
export type ListRequest =
  | { readonly op: 'list'; readonly after?: string }
  | { readonly op: 'symbols'; readonly match?: string; readonly after?: string };

/** Everything that a client asks; the `id` is given by the client. */
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

/** What one text frame is. */
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

/** The first field that is missing or not what it should be. */
function wrongField(message: object, shape: Shape): string | undefined {
  const fields = message as Record<string, unknown>;
  for (const name in shape) {
    if (!shape[name]?.(fields[name])) return name;
  }
  return undefined;
}

/** Reads one text frame. It never throws. */
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

/** Whether a symbol or wildcard takes everything that another one takes. */
export function covers(pattern: string, other: string): boolean {
  if (pattern === other || pattern === '*') return true;
  return pattern.endsWith(':*') && other.startsWith(pattern.slice(0, -1));
}
