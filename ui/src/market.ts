/** What the page knows of each symbol. No screen here: ticks go in, and what has changed is marked for the next frame. */

import { compareDecimal, subtractDecimal, type Decimal, type Gap, type Quote, type StateNow, type Trade } from 'tickfan-client';

/** Why a price is not live. `behind`: the gateway sheds this page, so what it shows is old. `late`: it may be old for another reason. */
export type Doubt = 'link lost' | Exclude<StateNow, 'live'> | 'behind' | 'gap' | undefined;

/** What of a symbol's state is not its own. */
export interface Standing {
  readonly isLinked: boolean;
  readonly isBehind: boolean;
  /** What was told may be old: it came late, or nothing proves that it did not. */
  readonly isLate: boolean;
  /** What time it is at the gateway: microseconds, where that is known. */
  readonly gatewayUs?: number | undefined;
  /** Where the replay is that can be controlled, if there is one: microseconds. */
  readonly replayUs?: number | undefined;
}

/** How a row looks: as live, as a recording that can be read as what it is, or grey. */
export type Look = 'live' | 'recorded' | 'stale';

export const lookOf = (doubt: Doubt): Look => (doubt === undefined ? 'live' : doubt === 'replay' || doubt === 'paused' ? 'recorded' : 'stale');

/** The day of a time, UTC. */
export const dayOf = (us: number) => new Date(us / 1000).toISOString().slice(0, 10);

/** Points of a sparkline, one a second. */
export const SPARK_POINTS = 60;
/** Trades that the tape shows. */
export const TAPE_MAX = 100;

/** One symbol. */
export class Instrument {
  quote: Quote | undefined;
  trade: Trade | undefined;
  /** The price that the page saw first: a trade's. */
  first: Decimal | undefined;
  #state: StateNow = 'unknown';
  /** What it shows is of a recording, be it stale or unknown meanwhile. */
  #isRecorded = false;
  /** Numbers are missing since the last tick. */
  gap: Gap | undefined;
  /** When the gateway received what came last, by its clock: microseconds. */
  rxUs: number | undefined;
  /** The venue's time of what came last, microseconds, where it told one. */
  #venueUs: number | undefined;
  /** Which way the last trade moved the price; 0 until it does. */
  direction: -1 | 0 | 1 = 0;
  /** Goes up with each move, so that a flash is shown once. */
  moves = 0;
  readonly spark: number[] = [];
  #sparkSecond = 0;

  constructor(readonly symbol: string) {}

  onQuote(quote: Quote, nowMs: number): void {
    this.quote = quote;
    this.#venueUs = quote.ts ?? this.#venueUs;
    this.gap = undefined;
    this.rxUs = quote.rx;
    const { bid, ask } = quote;
    if (bid !== undefined && ask !== undefined) this.#point((Number(bid) + Number(ask)) / 2, nowMs);
  }

  onTrade(trade: Trade, nowMs: number): void {
    const before = this.trade?.price;
    this.trade = trade;
    this.#venueUs = trade.ts ?? this.#venueUs;
    this.gap = undefined;
    this.first ??= trade.price;
    this.rxUs = trade.rx;
    const direction = before === undefined ? 0 : compareDecimal(trade.price, before);
    if (direction !== 0) {
      this.direction = direction;
      this.moves += 1;
    }
    if (this.quote === undefined) this.#point(Number(trade.price), nowMs);
  }

  /** Numbers that are not coming. `seek`: the recording went to a place where there is no value yet, so none is shown. */
  onGap(gap: Gap): void {
    if (gap.why !== 'seek') this.gap = gap;
    else if (gap.channel === 'trade') this.trade = undefined;
    else this.quote = undefined;
    if (this.trade === undefined && this.quote === undefined) this.rxUs = undefined;
  }

  /** Why its prices are not live; undefined if they are. */
  doubt({ isLinked, isBehind, isLate }: Standing): Doubt {
    if (!isLinked) return 'link lost';
    const { state } = this;
    // A recording that plays may be behind or late, too, or have a hole; one that stands does so first of all.
    if (state !== 'live' && state !== 'late' && state !== 'replay') return state;
    if (isBehind) return 'behind';
    if (isLate || state === 'late') return 'late';
    if (this.gap !== undefined) return 'gap';
    return state === 'live' ? undefined : state;
  }

  get state(): StateNow {
    return this.#state;
  }

  set state(state: StateNow) {
    this.#state = state;
    if (state === 'live' || state === 'late') this.#isRecorded = false;
    if (state === 'replay' || state === 'paused' || state === 'ended') this.#isRecorded = true;
  }

  /** Milliseconds since the gateway received what is shown; undefined where nothing is, or nobody knows. */
  ageMs({ gatewayUs }: Standing): number | undefined {
    return this.rxUs === undefined || gatewayUs === undefined ? undefined : (gatewayUs - this.rxUs) / 1000;
  }

  get isRecorded(): boolean {
    return this.#isRecorded;
  }

  /**
   * When that was which a recording shows, microseconds: the venue's time, or that of the replay, where the venue tells none.
   * Undefined of what is not recorded, and where nobody knows.
   */
  recordedUs({ replayUs }: Standing): number | undefined {
    return this.#isRecorded ? (this.#venueUs ?? replayUs) : undefined;
  }

  /** Why its prices are not live, in words; empty if they are. */
  whyNotLive(standing: Standing): string {
    const doubt = this.doubt(standing);
    if (doubt === undefined) return '';
    if (!this.#isRecorded) return `not live: ${doubt}`;
    const us = this.recordedUs(standing);
    return `not live: recorded${us === undefined ? '' : ` ${dayOf(us)}`}${doubt === 'replay' ? '' : `, ${doubt}`}`;
  }

  get spread(): Decimal | undefined {
    const { bid, ask } = this.quote ?? {};
    return bid === undefined || ask === undefined ? undefined : subtractDecimal(ask, bid);
  }

  /** Since the page saw it first. */
  get change(): Decimal | undefined {
    return this.first === undefined || this.trade === undefined ? undefined : subtractDecimal(this.trade.price, this.first);
  }

  /** A float is good enough for a picture, and for nothing else. */
  #point(value: number, nowMs: number): void {
    const second = Math.floor(nowMs / 1000);
    if (second === this.#sparkSecond && this.spark.length > 0) {
      this.spark[this.spark.length - 1] = value;
      return;
    }
    this.#sparkSecond = second;
    this.spark.push(value);
    if (this.spark.length > SPARK_POINTS) this.spark.shift();
  }
}

/**
 * Microseconds that ticks of one venue may come out of order. More, and time itself has gone back: a recording begins anew. A
 * snapshot is never late, but what stands at another place of it.
 */
const DISORDER_US = 5_000_000;

/**
 * The time that one symbol's chart and tape show: the venue's. A tick without one is as old as the last that had one; where the
 * venue never tells, the gateway's time has to do. The two are never mixed: in a replay they are years apart.
 */
export class ShownTime {
  #us = 0;
  #isVenues = false;

  /** Whose time it is, once there is a tick. */
  get whose(): 'venue' | 'gateway' | undefined {
    return this.#us === 0 ? undefined : this.#isVenues ? 'venue' : 'gateway';
  }

  /** When a tick was, microseconds, and whether what was shown before is of another time, and has to go. */
  of({ ts, rx, snap }: Trade | Quote): { readonly us: number; readonly anew: boolean } {
    if (ts === undefined && this.#isVenues) return { us: this.#us, anew: false };
    const us = ts ?? rx;
    const isVenues = ts !== undefined;
    const anew = this.#us > 0 && (isVenues !== this.#isVenues || us < this.#us - (snap ? 0 : DISORDER_US));
    if (anew || us > this.#us) this.#us = us;
    this.#isVenues = isVenues;
    return { us, anew };
  }
}

/** A candle, or a hole where nothing was traded or nobody knows. */
export interface Candle {
  /** Seconds since the Unix epoch, when it begins. */
  readonly time: number;
  open: number;
  high: number;
  low: number;
  close: number;
}

/** Candles that are kept, and shown, empty ones counted. */
export const CANDLES_MAX = 600;

/** Trades by time. */
export class Candles {
  readonly candles: Candle[] = [];

  /** @param seconds that a candle lasts. */
  constructor(readonly seconds: number) {}

  /** The newest of them, oldest first; where nothing was traded there is a time and no more. */
  bars(): (Candle | { readonly time: number })[] {
    const newest = this.candles.at(-1)?.time ?? 0;
    const bars: (Candle | { readonly time: number })[] = [];
    for (const candle of this.candles) {
      if (candle.time <= newest - CANDLES_MAX * this.seconds) continue;
      const before = bars.at(-1);
      for (let time = (before?.time ?? candle.time) + this.seconds; time < candle.time; time += this.seconds) bars.push({ time });
      bars.push(candle);
    }
    return bars;
  }

  /**
   * Takes a trade; the candle that it changed, or undefined if it is older than the last.
   *
   * @param us when it was.
   */
  add(trade: Trade, us: number): Candle | undefined {
    const time = Math.floor(us / 1_000_000 / this.seconds) * this.seconds;
    const price = Number(trade.price);
    const last = this.candles.at(-1);
    if (last !== undefined && time < last.time) return undefined;
    if (last?.time === time) {
      last.high = Math.max(last.high, price);
      last.low = Math.min(last.low, price);
      last.close = price;
      return last;
    }
    const candle = { time, open: price, high: price, low: price, close: price };
    this.candles.push(candle);
    if (this.candles.length > CANDLES_MAX) this.candles.shift();
    return candle;
  }
}

/** What the page says over all: that prices are recorded, and of which days. Empty where none is, as far as is known. */
export function banner(all: Iterable<Instrument>, standing: Standing): string {
  let [recorded, others, first, last] = [0, 0, Infinity, -Infinity];
  for (const it of all) {
    if (it.isRecorded) {
      recorded += 1;
      const us = it.recordedUs(standing);
      if (us !== undefined) [first, last] = [Math.min(first, us), Math.max(last, us)];
    } else if (it.state !== 'unknown' && it.state !== 'waiting') others += 1;
  }
  if (recorded === 0) return standing.replayUs === undefined ? '' : `REPLAY of ${dayOf(standing.replayUs)}`;
  const days = first > last ? [] : [...new Set([dayOf(first), dayOf(last)])];
  const of = days.length === 0 ? '' : ` of ${days.join(' to ')}`;
  return others === 0 ? `REPLAY: recorded prices${of}` : `REPLAY: recorded prices${of} in ${recorded} of ${recorded + others} rows`;
}
