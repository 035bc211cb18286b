/** The chosen symbol over time: candles of its trades, and its best bid and offer. A hole is a hole. */

import {
  CandlestickSeries,
  createChart,
  LineSeries,
  LineType,
  type CandlestickData,
  type IChartApi,
  type ISeriesApi,
  type Time,
  type UTCTimestamp,
  type WhitespaceData,
} from 'lightweight-charts';
import type { Quote, Trade } from 'tickfan-client';
import { SPANS } from './address.js';
import { Candles, CANDLES_MAX, type Candle } from './market.js';

/** Seconds of bid and offer that are kept. */
const LINE_SECONDS = 600;
/** Milliseconds between two pictures: each is drawn as a whole, which costs more than all the rest of a frame. */
const PICTURE_MS = 200;

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  readonly #charts: IChartApi[];
  readonly #candleSeries: ISeriesApi<'Candlestick'>;
  readonly #bid: ISeriesApi<'Line'>;
  readonly #ask: ISeriesApi<'Line'>;
  /** By the seconds of a candle. All are kept, so that another span begins with what was seen in this one. */
  #spans = newSpans();
  #seconds = 1;
  #changed: Candle | undefined;
  #lastTime = 0;
  #quote: { readonly quote: Quote; readonly us: number } | undefined;
  #lineTime = 0;
  /** The next point does not go on from the last one. */
  #hole = false;
  #points = 0;
  #bars = 0;
  /** When each chart was drawn last. */
  #candlesMs = -Infinity;
  #linesMs = -Infinity;

  constructor(candles: HTMLElement, lines: HTMLElement) {
    const [above, below] = [candles, lines].map((element) =>
      createChart(element, {
        autoSize: true,
        timeScale: { timeVisible: true, secondsVisible: true },
        // The mark brings an inline style sheet, which the page's policy forbids; the credit stands below the chart.
        layout: { attributionLogo: false, fontSize: 11 },
      }),
    ) as [IChartApi, IChartApi];
    this.#charts = [above, below];
    this.#candleSeries = above.addSeries(CandlestickSeries);
    this.#bid = below.addSeries(LineSeries, { lineType: LineType.WithSteps, lineWidth: 1 });
    this.#ask = below.addSeries(LineSeries, { lineType: LineType.WithSteps, lineWidth: 1 });
    this.theme();
  }

  /** Takes the colours of the page. */
  theme(): void {
    const [text, line, up, down] = ['--dim', '--line', '--up', '--down'].map(css) as [string, string, string, string];
    for (const chart of this.#charts) {
      chart.applyOptions({
        layout: { background: { color: 'transparent' }, textColor: text },
        grid: { vertLines: { color: line }, horzLines: { color: line } },
        timeScale: { borderColor: line },
        rightPriceScale: { borderColor: line },
      });
    }
    this.#candleSeries.applyOptions({ upColor: up, wickUpColor: up, borderUpColor: up, downColor: down, wickDownColor: down, borderDownColor: down });
    this.#bid.applyOptions({ color: up });
    this.#ask.applyOptions({ color: down });
  }

  /** Candles of so many seconds, one of {@link SPANS}: those that were seen so far, too. */
  span(seconds: number): void {
    this.#seconds = seconds;
    this.#changed = undefined;
    const bars = this.#spans.get(seconds)?.bars() ?? [];
    this.#candleSeries.setData(bars.map((bar) => ({ ...bar, time: bar.time as UTCTimestamp })));
    [this.#lastTime, this.#bars] = [bars.at(-1)?.time ?? 0, bars.length];
  }

  /** Another symbol, or another time. */
  reset(digits: number): void {
    this.#spans = newSpans();
    this.#changed = this.#quote = undefined;
    [this.#lastTime, this.#lineTime, this.#points, this.#bars, this.#hole] = [0, 0, 0, 0, false];
    [this.#candlesMs, this.#linesMs] = [-Infinity, -Infinity];
    const priceFormat = { type: 'price', precision: digits, minMove: 10 ** -digits } as const;
    for (const series of [this.#candleSeries, this.#bid, this.#ask]) {
      series.setData([]);
      series.applyOptions({ priceFormat });
    }
  }

  /** Whether nothing has come yet. */
  get isEmpty(): boolean {
    const isDrawn = this.#lastTime !== 0 || this.#lineTime !== 0;
    return !isDrawn && this.#changed === undefined && this.#quote === undefined;
  }

  /** @param us when it was, of the clock that all of the picture goes by. */
  trade(trade: Trade, us: number): void {
    let changed: Candle | undefined;
    for (const [seconds, candles] of this.#spans) {
      const candle = candles.add(trade, us);
      if (seconds === this.#seconds) changed = candle;
    }
    if (changed === undefined) return;
    // One that is finished has to be drawn before the next.
    if (this.#changed !== undefined && this.#changed !== changed) this.#drawCandle(this.#changed);
    this.#changed = changed;
  }

  /** @param us when it was, of the clock that all of the picture goes by. */
  quote(quote: Quote, us: number): void {
    this.#quote = { quote, us };
  }

  /** What comes next does not follow what was there. */
  hole(): void {
    this.#hole = true;
    this.#quote = undefined;
  }

  /**
   * Draws what has come, one of the charts at most: both in one frame would make that one late. What comes too soon after the
   * last picture waits for a later frame. True if anything does.
   */
  draw(nowMs: number): boolean {
    const isDue = (drawnMs: number) => nowMs - drawnMs >= PICTURE_MS;
    const candle = isDue(this.#candlesMs) ? this.#changed : undefined;
    const quote = isDue(this.#linesMs) ? this.#quote : undefined;
    if (candle !== undefined && (quote === undefined || this.#candlesMs <= this.#linesMs)) {
      this.#candlesMs = nowMs;
      this.#drawCandle(candle);
      this.#changed = undefined;
    } else if (quote !== undefined) {
      this.#linesMs = nowMs;
      this.#drawQuote(quote.quote, quote.us);
      this.#quote = undefined;
    }
    return this.#changed !== undefined || this.#quote !== undefined;
  }

  #drawCandle(candle: Candle): void {
    if (candle.time < this.#lastTime) return;
    const seconds = this.#seconds;
    if (this.#lastTime > 0) {
      const first = Math.max(this.#lastTime + seconds, candle.time - CANDLES_MAX * seconds);
      for (let time = first; time < candle.time; time += seconds) {
        this.#candleSeries.update({ time: time as UTCTimestamp });
        this.#bars += 1;
      }
    }
    if (candle.time > this.#lastTime) this.#bars += 1;
    this.#lastTime = candle.time;
    this.#candleSeries.update({ ...candle, time: candle.time as UTCTimestamp });
    if (this.#bars > 2 * CANDLES_MAX) this.#bars = shorten(this.#candleSeries, CANDLES_MAX);
  }

  #drawQuote({ bid, ask }: Quote, us: number): void {
    const time = Math.floor(us / 1_000_000);
    if (time < this.#lineTime) return;
    // The way to a point has the point's colour: none, over a hole.
    const color = this.#hole ? 'transparent' : undefined;
    if (time > this.#lineTime) {
      this.#hole = false;
      this.#points += 1;
    }
    this.#lineTime = time;
    for (const [series, price] of [[this.#bid, bid], [this.#ask, ask]] as const) {
      if (price === undefined) series.update({ time: time as UTCTimestamp });
      else series.update({ time: time as UTCTimestamp, value: Number(price), ...(color === undefined ? {} : { color }) });
    }
    if (this.#points > 2 * LINE_SECONDS) for (const series of [this.#bid, this.#ask]) this.#points = shorten(series, LINE_SECONDS);
  }
}

const newSpans = () => new Map(SPANS.map((seconds) => [seconds, new Candles(seconds)]));

/** Keeps the newest of a series only, and says how many. */
function shorten(series: ISeriesApi<'Line'> | ISeriesApi<'Candlestick'>, kept: number): number {
  series.setData(series.data().slice(-kept) as (WhitespaceData<Time> & CandlestickData<Time>)[]);
  return kept;
}
