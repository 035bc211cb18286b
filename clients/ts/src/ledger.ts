/**
 * The accounting rule, checked on every message: `seq − n` equals the `seq` before it, or a gap covers exactly the
 * difference. It also knows where to go on after a connection was lost. Pure: messages go in, findings come out.
 */

import type { Channel, Gap, Quote, Resumed, Tick, Trade } from './messages.js';

/** Something that the gateway must not do. */
export interface Broken {
  /**
   * `update`, `snapshot`, `gap`: it does not follow the number before it. `count`: it stands for no tick, or for more
   * than there are. `unasked`: nobody subscribed to it. `unreadable`, `binary`, `too_big`: whatever it said is unaccounted
   * for. `too_many`: more streams than `streamsMax`. `answer`: an answer that fits no request, or none at all.
   */
  readonly kind:
    'update' | 'snapshot' | 'gap' | 'count' | 'unasked' | 'unreadable' | 'binary' | 'too_big' | 'too_many' | 'answer';
  readonly symbol?: string;
  readonly channel?: Channel;
  /** Ticks that are unaccounted for; below 0, ticks that were told twice. */
  readonly missing?: number;
  /** A sentence for people. */
  readonly message: string;
}

/** What becomes of a message. */
export interface Finding {
  /** False: it says nothing new, and whoever showed it would go back in time. */
  readonly deliver: boolean;
  readonly broken?: Broken;
  /** Numbers that came while there was no connection. */
  readonly away?: Gap;
}

const FINE: Finding = { deliver: true };

/** One channel of one symbol. */
interface Stream {
  readonly symbol: string;
  readonly channel: Channel;
  /** The newest number that is accounted for; 0 before any. */
  last: number;
  /**
   * What may come next. `any`: whatever. `start`: a snapshot, or number 1. `rejoin`: any number above `last`; what lies
   * between was missed. `after`: what follows `last`.
   */
  expect: 'any' | 'start' | 'rejoin' | 'after';
  /** The present connection has taken it on. */
  settled: boolean;
  value: Tick | undefined;
}

/** How a subscription of this connection begins. */
export interface Beginning {
  readonly snapshot: boolean;
  /** Where the gateway was told to go on, by symbol. */
  readonly asked: Readonly<Record<string, number>> | undefined;
  /** What it said to that. */
  readonly resumed: Resumed | undefined;
}

/** Keeps account of what a client was sent, over all its connections. */
export class Ledger {
  readonly #max: number;
  readonly #streams: Record<Channel, Map<string, Stream>> = { trade: new Map(), quote: new Map() };
  #epoch: string | undefined;

  /** @param streamsMax symbols and channels that are kept account of, at most. */
  constructor(streamsMax: number) {
    this.#max = streamsMax;
  }

  /** The run of the gateway that the numbers are of; undefined before the first `hello`. */
  get epoch(): string | undefined {
    return this.#epoch;
  }

  /** A connection begins. In another epoch the numbers begin anew. */
  hello(epoch: string): void {
    const renewed = epoch !== this.#epoch;
    this.#epoch = epoch;
    for (const stream of this.#all()) {
      stream.settled = false;
      if (renewed) renew(stream);
      stream.expect = stream.last > 0 ? 'rejoin' : 'start';
    }
  }

  /** The numbers to go on from, of the streams that `picks` picks and this connection has not taken on. */
  points(channel: Channel, picks: (symbol: string) => boolean): [string, number][] {
    const found: [string, number][] = [];
    for (const { symbol, last, settled } of this.#streams[channel].values()) {
      if (!settled && last > 0 && picks(symbol)) found.push([symbol, last]);
    }
    return found;
  }

  /** The gateway has accepted one symbol. */
  subscribed(channel: Channel, symbol: string, begin: Beginning): void {
    const stream = this.#streams[channel].get(symbol) ?? this.#open(channel, symbol);
    if (stream !== undefined) settle(stream, begin);
  }

  /** The gateway has accepted a wildcard: so it has what the wildcard takes, as far as that is known. */
  subscribedWildcard(channel: Channel, picks: (symbol: string) => boolean, begin: Beginning): void {
    for (const stream of this.#streams[channel].values()) {
      if (!picks(stream.symbol)) continue;
      // What it was not asked to go on with begins as any subscription does.
      const told = begin.asked !== undefined && Object.hasOwn(begin.asked, stream.symbol);
      const resumed = told || begin.resumed === 'new_epoch' ? begin.resumed : undefined;
      settle(stream, { ...begin, resumed });
    }
  }

  /** Streams of this connection that the gateway has given up; their numbers stay, to go on from. */
  released(channel: Channel, picks: (symbol: string) => boolean): void {
    for (const stream of this.#streams[channel].values()) {
      if (!picks(stream.symbol)) continue;
      stream.settled = false;
      stream.expect = stream.last > 0 ? 'rejoin' : 'start';
    }
  }

  /** Nobody wants these any more. */
  forget(channel: Channel, picks: (symbol: string) => boolean): void {
    for (const { symbol } of this.#streams[channel].values()) {
      if (picks(symbol)) this.#streams[channel].delete(symbol);
    }
  }

  /** The newest values of a channel. */
  values(channel: Channel, picks: (symbol: string) => boolean): Tick[] {
    const found: Tick[] = [];
    for (const { symbol, value } of this.#streams[channel].values()) {
      if (value !== undefined && picks(symbol)) found.push(value);
    }
    return found;
  }

  /** Takes a tick into account. `snapshot`: whether a stream that is new here begins with one. */
  tick(tick: Trade | Quote, snapshot: boolean): Finding {
    const { symbol, seq, n = 1, snap = false } = tick;
    const stream = this.#of(tick.type, symbol, snapshot);
    if (stream === undefined) return this.#full(tick.type, symbol);
    const { last, expect } = stream;
    const opens =
      snap && (expect === 'start' || expect === 'any' || (expect === 'rejoin' ? seq >= last : seq === last));
    const before = opens ? (seq === last ? last : seq - 1) : seq - n;
    const finding =
      !opens && n > seq ? this.#odd(tick) : this.#follow(stream, before, { opens, what: snap ? 'snapshot' : 'update' });
    if (seq < last || (seq === last && !opens && expect !== 'any')) return { ...finding, deliver: false };
    stream.last = seq;
    stream.expect = 'after';
    stream.settled = true;
    stream.value = tick;
    return finding;
  }

  /** Takes a gap into account. */
  gap(gap: Gap, snapshot: boolean): Finding {
    const stream = this.#of(gap.channel, gap.symbol, snapshot);
    if (stream === undefined) return this.#full(gap.channel, gap.symbol);
    const { from, to } = gap;
    if (from > to)
      return { deliver: false, broken: fault('gap', stream, undefined, `a gap from ${from} to ${to} names nothing`) };
    const finding = this.#follow(stream, from - 1, { opens: false, what: 'gap' });
    stream.last = Math.max(stream.last, to);
    stream.expect = 'after';
    stream.settled = true;
    // There is no value at the place that a replay went to.
    if (gap.why === 'seek') stream.value = undefined;
    return finding;
  }

  /** Whether what comes right behind `before` may come now. */
  #follow(
    stream: Stream,
    before: number,
    { opens, what }: { opens: boolean; what: 'update' | 'snapshot' | 'gap' },
  ): Finding {
    const { last, expect, symbol, channel } = stream;
    if (before === last || expect === 'any' || (opens && expect !== 'rejoin')) return FINE;
    if (expect === 'rejoin' && before > last) {
      return { deliver: true, away: { type: 'gap', symbol, channel, from: last + 1, to: before, why: 'away' } };
    }
    const missing = before - last;
    const how = missing > 0 ? `${missing} ticks unaccounted for` : `${-missing} ticks told twice`;
    return {
      deliver: true,
      broken: fault(what, stream, missing, `expected what follows ${last}, got what follows ${before}: ${how}`),
    };
  }

  #odd({ type, symbol, seq, n }: Trade | Quote): Finding {
    return {
      deliver: true,
      broken: fault('count', { symbol, channel: type }, undefined, `number ${seq} cannot stand for ${n} ticks`),
    };
  }

  #full(channel: Channel, symbol: string): Finding {
    return {
      deliver: false,
      broken: fault('too_many', { symbol, channel }, undefined, `more than ${this.#max} streams`),
    };
  }

  #of(channel: Channel, symbol: string, snapshot: boolean): Stream | undefined {
    const known = this.#streams[channel].get(symbol) ?? this.#open(channel, symbol);
    // Of a wildcard, and listed since: it starts as the subscription does.
    if (known !== undefined && !known.settled && known.last === 0 && !snapshot) known.expect = 'any';
    return known;
  }

  #open(channel: Channel, symbol: string): Stream | undefined {
    if (this.#streams.trade.size + this.#streams.quote.size >= this.#max) return undefined;
    const stream: Stream = { symbol, channel, last: 0, expect: 'start', settled: false, value: undefined };
    this.#streams[channel].set(symbol, stream);
    return stream;
  }

  *#all(): Generator<Stream> {
    yield* this.#streams.trade.values();
    yield* this.#streams.quote.values();
  }
}

function renew(stream: Stream): void {
  stream.last = 0;
  stream.value = undefined;
}

function settle(stream: Stream, { snapshot, resumed }: Beginning): void {
  // Subscribed again while it runs.
  if (stream.settled) return;
  stream.settled = true;
  if (resumed === 'new_epoch') renew(stream);
  if (resumed === 'ok' || resumed === 'gap') stream.expect = 'after';
  else if (stream.last > 0) stream.expect = 'rejoin';
  else stream.expect = snapshot ? 'start' : 'any';
}

function fault(
  kind: Broken['kind'],
  { symbol, channel }: { symbol: string; channel: Channel },
  missing: number | undefined,
  message: string,
): Broken {
  const broken = { kind, symbol, channel, message: `${symbol} ${channel}: ${message}` };
  return missing === undefined ? broken : { ...broken, missing };
}
