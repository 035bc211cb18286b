/** State of each symbol, without any access to the screen: ticks go in, and changes are marked for the next frame. */

import { compareDecimal, subtractDecimal, type Channel, type Decimal, type Gap, type Quote, type StateNow, type Trade } from 'tickfan-client';

/**
 * Why a price is not live. `behind`: the gateway sheds this page, so that its data is old. `late`: the data may be old
 * for another reason.
 */
export type Doubt = 'link lost' | 'refused' | Exclude<StateNow, 'live'> | 'behind' | 'gap' | undefined;

/** The part of a symbol's state that is common to all symbols. */
export interface Standing {
  readonly isLinked: boolean;
  readonly isBehind: boolean;
  /** Whether the data may be old: it is late, or nothing proves that it is not. */
  readonly isLate: boolean;
  /** Time of the gateway, microseconds, if known. */
  readonly gatewayUs?: number | undefined;
  /** Position of the controllable replay, microseconds, if there is one. */
  readonly replayUs?: number | undefined;
}

/** Appearance of a row: live, recorded (readable as such), or grey. */
export type Look = 'live' | 'recorded' | 'stale';

export const lookOf = (doubt: Doubt): Look => (doubt === undefined ? 'live' : doubt === 'replay' || doubt === 'paused' ? 'recorded' : 'stale');

/** The date of a time, UTC. */
export const dayOf = (us: number) => new Date(us / 1000).toISOString().slice(0, 10);

/** Points of a sparkline, one per second. */
export const SPARK_POINTS = 60;
/** Trades in the tape. */
export const TAPE_MAX = 100;

/** State of one symbol. */
export class Instrument {
  quote: Quote | undefined;
  trade: Trade | undefined;
  /** Price of the first trade since {@link begin}. */
  first: Decimal | undefined;
  #state: StateNow = 'unknown';
  /** Whether its data is recorded, also while its state is stale or unknown. */
  #isRecorded = false;
  /** Set if sequence numbers are missing since the last tick. */
  gap: Gap | undefined;
  /** The gateway's reason for rejecting the symbol. */
  refusal: string | undefined;
  /** Receive time of the newest data, microseconds, by the clock of the gateway. */
  rxUs: number | undefined;
  /** Venue time of the newest data, microseconds, if it has one. */
  #venueUs: number | undefined;
  /** Direction of the last price move; 0 before the first. */
  direction: -1 | 0 | 1 = 0;
  /** Number of moves, so that each is highlighted once. */
  moves = 0;
  readonly spark: number[] = [];
  #sparkSecond = 0;
  /** Number of restarts, at another place or time; chart and tape restart as well. */
  beginnings = 0;
  /** Value of `beginnings` at the last report of the replay's position. */
  #beginningsTold = 0;
  #time = new ShownTime();
  /** Channels with data since the last restart. */
  readonly #told = new Set<Channel>();

  constructor(readonly symbol: string) {}

  /** The clock of its times, once there is a tick. */
  get clock(): 'venue' | 'gateway' | undefined {
    return this.#time.whose;
  }

  /** Time of a tick, microseconds, in that clock. */
  usOf({ ts, rx }: Trade | Quote): number {
    return ts ?? (this.clock === 'venue' ? this.#time.us : rx);
  }

  /** Clears the data: the next data is of another place or time. */
  begin(): void {
    this.trade = this.quote = this.first = this.gap = this.rxUs = this.#venueUs = undefined;
    this.direction = 0;
    this.spark.length = 0;
    this.#time = new ShownTime();
    this.#told.clear();
    this.beginnings += 1;
  }

  /**
   * The replay has reported its position. Restarts if the position moved back, unless a restart has happened since the
   * last report.
   */
  replayTold(isBack: boolean): void {
    if (isBack && this.#isRecorded && this.beginnings === this.#beginningsTold) this.begin();
    this.#beginningsTold = this.beginnings;
  }

  /**
   * Whether a tick is drawn. The last value of a recording is not: it was traded or quoted at an unknown time before
   * the position of the recording. Neither is the last trade of any symbol.
   */
  isDrawn({ type, snap }: Trade | Quote): boolean {
    return snap !== true || (type === 'quote' && this.#isFresh);
  }

  /** Detects another place or time before a tick is shown. */
  #place(tick: Trade | Quote): void {
    // Within a stream, the gateway sends a last value when a replay has moved. A live stream continues after one.
    if (tick.snap === true && this.#told.has(tick.type) && !this.#isFresh) this.begin();
    const anew = this.#time.take(tick);
    if (anew === 'clock') this.beginnings += 1;
    if (anew === 'earlier') {
      this.begin();
      this.#time.take(tick);
    }
    this.#told.add(tick.type);
  }

  onQuote(quote: Quote, nowMs: number): void {
    this.#place(quote);
    this.quote = quote;
    this.#venueUs = quote.ts ?? this.#venueUs;
    this.gap = undefined;
    this.rxUs = quote.rx;
    const { bid, ask } = quote;
    if (bid !== undefined && ask !== undefined) this.#point((Number(bid) + Number(ask)) / 2, nowMs);
  }

  onTrade(trade: Trade, nowMs: number): void {
    this.#place(trade);
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

  /**
   * Sequence numbers that do not arrive. `seek`: the recording moved to a place without a value, so that none is shown.
   */
  onGap(gap: Gap): void {
    if (gap.why !== 'seek') this.gap = gap;
    else {
      if (this.#told.has(gap.channel)) this.begin();
      this.#told.add(gap.channel);
    }
  }

  /** Why its prices are not live; undefined if they are. */
  doubt({ isLinked, isBehind, isLate }: Standing): Doubt {
    if (!isLinked) return 'link lost';
    if (this.refusal !== undefined) return 'refused';
    const { state } = this;
    // A playing recording may also be behind or late, or have a hole; for a paused one the pause comes first.
    if (state !== 'live' && state !== 'late' && state !== 'replay') return state;
    if (isBehind) return 'behind';
    if (isLate || state === 'late') return 'late';
    if (this.gap !== undefined) return 'gap';
    return state === 'live' ? undefined : state;
  }

  /** Whether its data comes from a venue or a publisher now, even if late. */
  get #isFresh(): boolean {
    return this.#state === 'live' || this.#state === 'late';
  }

  get state(): StateNow {
    return this.#state;
  }

  set state(state: StateNow) {
    this.#state = state;
    if (this.#isFresh) {
      // Recorded data is unrelated to live data.
      if (this.#isRecorded) this.begin();
      this.#isRecorded = false;
    }
    if (state === 'replay' || state === 'paused' || state === 'ended') this.#isRecorded = true;
  }

  /** Milliseconds since the gateway received the displayed data; undefined without data or if unknown. */
  ageMs({ gatewayUs }: Standing): number | undefined {
    return this.rxUs === undefined || gatewayUs === undefined ? undefined : (gatewayUs - this.rxUs) / 1000;
  }

  get isRecorded(): boolean {
    return this.#isRecorded;
  }

  /**
   * Time of the recorded data, microseconds: of the venue, or of the replay if the venue sends none. Undefined for data
   * that is not recorded, or if unknown.
   */
  recordedUs({ replayUs }: Standing): number | undefined {
    return this.#isRecorded ? (this.#venueUs ?? replayUs) : undefined;
  }

  /** Why its prices are not live, as text; empty if they are. */
  whyNotLive(standing: Standing): string {
    const doubt = this.doubt(standing);
    if (doubt === undefined) return '';
    if (doubt === 'refused') return `refused: ${this.refusal}`;
    if (!this.#isRecorded) return `not live: ${doubt}`;
    const us = this.recordedUs(standing);
    return `not live: recorded${us === undefined ? '' : ` ${dayOf(us)}`}${doubt === 'replay' ? '' : `, ${doubt}`}`;
  }

  get spread(): Decimal | undefined {
    const { bid, ask } = this.quote ?? {};
    return bid === undefined || ask === undefined ? undefined : subtractDecimal(ask, bid);
  }

  /** Change since the first trade that the page received, at this place of a recording. */
  get change(): Decimal | undefined {
    return this.first === undefined || this.trade === undefined ? undefined : subtractDecimal(this.trade.price, this.first);
  }

  /** A float is accurate enough for a picture, and for nothing else. */
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
 * Microseconds by which ticks of one venue may be out of order. More means that time has gone back, i.e. that a
 * recording has restarted.
 */
const DISORDER_US = 5_000_000;

/**
 * The clock of one symbol's chart and tape: the venue's. A tick without a venue time has that of the last one before;
 * if the venue never sends times, the gateway's are used. The two are never mixed, because they differ by years in a
 * replay.
 */
export class ShownTime {
  #us = 0;
  #isVenues = false;

  /** The clock in use, once there is a tick. */
  get whose(): 'venue' | 'gateway' | undefined {
    return this.#us === 0 ? undefined : this.#isVenues ? 'venue' : 'gateway';
  }

  /** The newest time, microseconds; 0 before any tick. */
  get us(): number {
    return this.#us;
  }

  /** Adds a tick. Returns why the displayed data must be cleared, if so: the tick is earlier, or has another clock. */
  take({ ts, rx, snap }: Trade | Quote): 'earlier' | 'clock' | undefined {
    if (ts === undefined && this.#isVenues) return undefined;
    const us = ts ?? rx;
    const isVenues = ts !== undefined;
    const isOther = this.#us > 0 && isVenues !== this.#isVenues;
    // A last value may be older by any amount.
    const isEarlier = this.#us > 0 && !snap && us < this.#us - DISORDER_US;
    const anew = isOther ? 'clock' : isEarlier ? 'earlier' : undefined;
    if (anew !== undefined || us > this.#us) this.#us = us;
    this.#isVenues = isVenues;
    return anew;
  }
}

/** Spans that are kept and shown, including empty ones. */
export const SPANS_MAX = 600;

/** Start of the span that contains this time, seconds since the Unix epoch. */
const beginOf = (us: number, seconds: number) => Math.floor(us / 1_000_000 / seconds) * seconds;

/** The trades of one span. */
export interface Candle {
  /** Start of the span, seconds since the Unix epoch. */
  readonly time: number;
  open: number;
  high: number;
  low: number;
  close: number;
}

/** The best prices at the end of one span; a side of the book may be empty. */
export interface Best {
  readonly time: number;
  bid: number | undefined;
  ask: number | undefined;
  /** Sides that do not continue the previous point: no line leads to them. */
  bidBegins: boolean;
  askBegins: boolean;
}

/** The chart data of one symbol, in spans of `seconds`. Times are of one clock, microseconds. */
export class Picture {
  readonly candles: Candle[] = [];
  readonly best: Best[] = [];
  #isHole = false;

  /** @param seconds length of a span. */
  constructor(readonly seconds: number) {}

  /**
   * The times on the axis, oldest first: all up to the newest, including empty ones, so that the width of a hole shows
   * its duration.
   */
  times(): number[] {
    const { seconds } = this;
    const newest = Math.max(this.candles.at(-1)?.time ?? 0, this.best.at(-1)?.time ?? 0);
    const oldest = Math.min(this.candles[0]?.time ?? Infinity, this.best[0]?.time ?? Infinity);
    const first = Math.max(oldest, newest - (SPANS_MAX - 1) * seconds);
    return first > newest ? [] : Array.from({ length: (newest - first) / seconds + 1 }, (_, i) => first + i * seconds);
  }

  /** Adds a trade. Returns the changed candle, or undefined if the trade is older than the last one. */
  trade(trade: Trade, us: number): Candle | undefined {
    const time = beginOf(us, this.seconds);
    const price = Number(trade.price);
    const last = this.candles.at(-1);
    if (last !== undefined && time < last.time) return undefined;
    if (last?.time === time) {
      last.high = Math.max(last.high, price);
      last.low = Math.min(last.low, price);
      last.close = price;
      return last;
    }
    return push(this.candles, { time, open: price, high: price, low: price, close: price });
  }

  /** Adds a quote. Returns the changed prices, or undefined if the quote is older than the last one. */
  quote(quote: Quote, us: number): Best | undefined {
    const time = beginOf(us, this.seconds);
    const [bid, ask] = [quote.bid, quote.ask].map((price) => (price === undefined ? undefined : Number(price)));
    const last = this.best.at(-1);
    if (last !== undefined && time < last.time) return undefined;
    const [bidBegins, askBegins] = [this.#isHole || last?.bid === undefined, this.#isHole || last?.ask === undefined];
    this.#isHole = false;
    if (last?.time === time) return Object.assign(last, { bid, ask, bidBegins: last.bidBegins || bidBegins, askBegins: last.askBegins || askBegins });
    return push(this.best, { time, bid, ask, bidBegins, askBegins });
  }

  /** Marks that the next quote does not continue the last one. */
  hole(): void {
    this.#isHole = true;
  }
}

function push<T>(all: T[], one: T): T {
  all.push(one);
  if (all.length > SPANS_MAX) all.shift();
  return one;
}

/** Text of the banner if prices are recorded, with their dates; empty if none is, as far as is known. */
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
