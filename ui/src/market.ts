/** What the page knows of each symbol. No screen here: ticks go in, and what has changed is marked for the next frame. */

import { compareDecimal, subtractDecimal, type Channel, type Decimal, type Gap, type Quote, type StateNow, type Trade } from 'tickfan-client';

/** Why a price is not live. `behind`: the gateway sheds this page, so what it shows is old. `late`: it may be old for another reason. */
export type Doubt = 'link lost' | 'refused' | Exclude<StateNow, 'live'> | 'behind' | 'gap' | undefined;

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
  /** The price that the page saw first, since {@link begin}: a trade's. */
  first: Decimal | undefined;
  #state: StateNow = 'unknown';
  /** What it shows is of a recording, be it stale or unknown meanwhile. */
  #isRecorded = false;
  /** Numbers are missing since the last tick. */
  gap: Gap | undefined;
  /** Why the gateway does not take it, in its words. */
  refusal: string | undefined;
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
  /** Goes up where what is shown begins anew, at another place or time: chart and tape, too. */
  beginnings = 0;
  /** As many as there were when the replay last told where it is. */
  #beginningsTold = 0;
  #time = new ShownTime();
  /** Channels that have told something since then. */
  readonly #told = new Set<Channel>();

  constructor(readonly symbol: string) {}

  /** Whose time its picture goes by, once there is a tick. */
  get clock(): 'venue' | 'gateway' | undefined {
    return this.#time.whose;
  }

  /** When a tick was that it was given, microseconds, of that clock. */
  usOf({ ts, rx }: Trade | Quote): number {
    return ts ?? (this.clock === 'venue' ? this.#time.us : rx);
  }

  /** Forgets what was shown: what comes next is of another place or time. */
  begin(): void {
    this.trade = this.quote = this.first = this.gap = this.rxUs = this.#venueUs = undefined;
    this.direction = 0;
    this.spark.length = 0;
    this.#time = new ShownTime();
    this.#told.clear();
    this.beginnings += 1;
  }

  /** The replay has told where it is, and that is before where it was, or not. Who began anew meanwhile did so for that. */
  replayTold(isBack: boolean): void {
    if (isBack && this.#isRecorded && this.beginnings === this.#beginningsTold) this.begin();
    this.#beginningsTold = this.beginnings;
  }

  /**
   * A tick of which the picture is made. The last value of a recording is none: it was traded or quoted before the place where
   * the recording stands, nobody knows how long. Nor is the last trade of anything.
   */
  isDrawn({ type, snap }: Trade | Quote): boolean {
    return snap !== true || (type === 'quote' && this.#isFresh);
  }

  /** Tells another place or time by the tick, before the tick is shown. */
  #place(tick: Trade | Quote): void {
    // In the middle of a stream the gateway gives a last value where a replay was sent elsewhere. What is live goes on behind one.
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

  /** Numbers that are not coming. `seek`: the recording went to a place where there is no value yet, so none is shown. */
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
    // A recording that plays may be behind or late, too, or have a hole; one that stands does so first of all.
    if (state !== 'live' && state !== 'late' && state !== 'replay') return state;
    if (isBehind) return 'behind';
    if (isLate || state === 'late') return 'late';
    if (this.gap !== undefined) return 'gap';
    return state === 'live' ? undefined : state;
  }

  /** Whether it comes from a venue or a publisher now, be it late. */
  get #isFresh(): boolean {
    return this.#state === 'live' || this.#state === 'late';
  }

  get state(): StateNow {
    return this.#state;
  }

  set state(state: StateNow) {
    this.#state = state;
    if (this.#isFresh) {
      // What was recorded says nothing of what is live.
      if (this.#isRecorded) this.begin();
      this.#isRecorded = false;
    }
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
    if (doubt === 'refused') return `refused: ${this.refusal}`;
    if (!this.#isRecorded) return `not live: ${doubt}`;
    const us = this.recordedUs(standing);
    return `not live: recorded${us === undefined ? '' : ` ${dayOf(us)}`}${doubt === 'replay' ? '' : `, ${doubt}`}`;
  }

  get spread(): Decimal | undefined {
    const { bid, ask } = this.quote ?? {};
    return bid === undefined || ask === undefined ? undefined : subtractDecimal(ask, bid);
  }

  /** Since the page saw it first, at this place of a recording. */
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

/** Microseconds that ticks of one venue may come out of order. More, and time itself has gone back: a recording begins anew. */
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

  /** The newest, microseconds; 0 before any. */
  get us(): number {
    return this.#us;
  }

  /** Takes a tick; why what was shown before has to go, if it has: the tick is earlier, or goes by another clock. */
  take({ ts, rx, snap }: Trade | Quote): 'earlier' | 'clock' | undefined {
    if (ts === undefined && this.#isVenues) return undefined;
    const us = ts ?? rx;
    const isVenues = ts !== undefined;
    const isOther = this.#us > 0 && isVenues !== this.#isVenues;
    // A last value may be of any time before.
    const isEarlier = this.#us > 0 && !snap && us < this.#us - DISORDER_US;
    const anew = isOther ? 'clock' : isEarlier ? 'earlier' : undefined;
    if (anew !== undefined || us > this.#us) this.#us = us;
    this.#isVenues = isVenues;
    return anew;
  }
}

/** Spans of time that are kept, and shown, those without anything counted. */
export const SPANS_MAX = 600;

/** When the span begins that this time is in: seconds since the Unix epoch. */
const beginOf = (us: number, seconds: number) => Math.floor(us / 1_000_000 / seconds) * seconds;

/** The trades of one span. */
export interface Candle {
  /** Seconds since the Unix epoch, when it begins. */
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
  /** Sides that do not go on from what was before: no line leads to them. */
  bidBegins: boolean;
  askBegins: boolean;
}

/** One symbol over time, in spans of so many seconds: what its chart shows. Times are of one clock, microseconds. */
export class Picture {
  readonly candles: Candle[] = [];
  readonly best: Best[] = [];
  #isHole = false;

  /** @param seconds that a span lasts. */
  constructor(readonly seconds: number) {}

  /** The times that are shown, oldest first: all up to the newest, whether anything happened or not. A hole is as wide as it was long. */
  times(): number[] {
    const { seconds } = this;
    const newest = Math.max(this.candles.at(-1)?.time ?? 0, this.best.at(-1)?.time ?? 0);
    const oldest = Math.min(this.candles[0]?.time ?? Infinity, this.best[0]?.time ?? Infinity);
    const first = Math.max(oldest, newest - (SPANS_MAX - 1) * seconds);
    return first > newest ? [] : Array.from({ length: (newest - first) / seconds + 1 }, (_, i) => first + i * seconds);
  }

  /** Takes a trade; the candle that it changed, or undefined if it is older than the last. */
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

  /** Takes a quote; the prices that it changed, or undefined if it is older than the last. */
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

  /** The next quote does not go on from the last. */
  hole(): void {
    this.#isHole = true;
  }
}

function push<T>(all: T[], one: T): T {
  all.push(one);
  if (all.length > SPANS_MAX) all.shift();
  return one;
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
