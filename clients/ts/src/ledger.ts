/**
 * Checks the accounting rule on every message: `seq − n` equals the previous `seq`, or a gap covers exactly the
 * difference. It also determines where to resume after a lost connection. Pure: messages go in, findings come out.
 */

import type { Channel, Gap, Quote, Resumed, Tick, Trade } from './messages.js';

/** A violation of the protocol by the gateway. */
export interface Broken {
  /**
   * `update`, `snapshot`, `gap`: it does not follow the previous number. `count`: it stands for no tick, or for more
   * than its number allows. `unasked`: there is no subscription. `unreadable`, `binary`, `too_big`: its ticks are
   * unaccounted for. `too_many`: more streams than `streamsMax`. `answer`: an answer to no request, or a missing one.
   */
  readonly kind:
    'update' | 'snapshot' | 'gap' | 'count' | 'unasked' | 'unreadable' | 'binary' | 'too_big' | 'too_many' | 'answer';
  readonly symbol?: string;
  readonly channel?: Channel;
  /** Ticks that are unaccounted for; below 0, ticks that were delivered twice. */
  readonly missing?: number;
  /** Description for people. */
  readonly message: string;
}

/** How to handle a message. */
export interface Finding {
  /** Whether to deliver it. False if it repeats known data, which would take the display back in time. */
  readonly deliver: boolean;
  readonly broken?: Broken;
  /** Sequence numbers that were missed without a connection. */
  readonly away?: Gap;
}

const FINE: Finding = { deliver: true };

/** One channel of one symbol. */
interface Stream {
  readonly symbol: string;
  readonly channel: Channel;
  /** Last sequence number that is accounted for; 0 before the first. */
  last: number;
  /**
   * What may come next. `any`: anything. `start`: a snapshot, or number 1. `rejoin`: any number above `last`; those in
   * between were missed. `after`: what follows `last`.
   */
  expect: 'any' | 'start' | 'rejoin' | 'after';
  /** Whether the current connection has confirmed the stream. */
  settled: boolean;
  value: Tick | undefined;
}

/** How a subscription of this connection begins. */
export interface Beginning {
  readonly snapshot: boolean;
  /** The sequence numbers to resume from, by symbol, if requested. */
  readonly asked: Readonly<Record<string, number>> | undefined;
  /** The gateway's answer to that. */
  readonly resumed: Resumed | undefined;
}

/** Accounts for the messages that a client received, over all connections. */
export class Ledger {
  readonly #max: number;
  readonly #streams: Record<Channel, Map<string, Stream>> = { trade: new Map(), quote: new Map() };
  #epoch: string | undefined;

  /** @param streamsMax most pairs of symbol and channel that are accounted for. */
  constructor(streamsMax: number) {
    this.#max = streamsMax;
  }

  /** The epoch of the sequence numbers; undefined before the first `hello`. */
  get epoch(): string | undefined {
    return this.#epoch;
  }

  /** Starts a connection. In another epoch the sequence numbers restart. */
  hello(epoch: string): void {
    const renewed = epoch !== this.#epoch;
    this.#epoch = epoch;
    for (const stream of this.#all()) {
      stream.settled = false;
      if (renewed) renew(stream);
      stream.expect = stream.last > 0 ? 'rejoin' : 'start';
    }
  }

  /** The sequence numbers to resume from, of the selected streams that this connection has not confirmed. */
  points(channel: Channel, picks: (symbol: string) => boolean): [string, number][] {
    const found: [string, number][] = [];
    for (const { symbol, last, settled } of this.#streams[channel].values()) {
      if (!settled && last > 0 && picks(symbol)) found.push([symbol, last]);
    }
    return found;
  }

  /** Records that the gateway has accepted a symbol. */
  subscribed(channel: Channel, symbol: string, begin: Beginning): void {
    const stream = this.#streams[channel].get(symbol) ?? this.#open(channel, symbol);
    if (stream !== undefined) settle(stream, begin);
  }

  /** Records that the gateway has accepted a wildcard, and with it the known symbols that match. */
  subscribedWildcard(channel: Channel, picks: (symbol: string) => boolean, begin: Beginning): void {
    for (const stream of this.#streams[channel].values()) {
      if (!picks(stream.symbol)) continue;
      // A symbol without a number to resume from begins like any subscription.
      const told = begin.asked !== undefined && Object.hasOwn(begin.asked, stream.symbol);
      const resumed = told || begin.resumed === 'new_epoch' ? begin.resumed : undefined;
      settle(stream, { ...begin, resumed });
    }
  }

  /** Records that the gateway has ended streams of this connection; their numbers are kept, to resume from. */
  released(channel: Channel, picks: (symbol: string) => boolean): void {
    for (const stream of this.#streams[channel].values()) {
      if (!picks(stream.symbol)) continue;
      stream.settled = false;
      stream.expect = stream.last > 0 ? 'rejoin' : 'start';
    }
  }

  /** Removes streams that no subscription needs any more. */
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

  /** Accounts for a tick. `snapshot` tells whether a new stream begins with one. */
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

  /** Accounts for a gap. */
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
    // The replay moved to a place without a value.
    if (gap.why === 'seek') stream.value = undefined;
    return finding;
  }

  /** Whether data right after `before` may come now. */
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
    // Listed since, and part of a wildcard: it starts like the subscription.
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
  // Subscribed again while active.
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
