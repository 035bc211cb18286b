/** The chosen symbol over time: candles of its trades, and its best bid and offer. A hole is a hole. */

import {
  CandlestickSeries,
  createChart,
  LineSeries,
  LineType,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
} from 'lightweight-charts';
import type { Quote, Trade } from 'tickfan-client';
import { Candles, type Candle } from './market.js';

/** Seconds of bid and offer that are kept. */
const LINE_SECONDS = 600;
/** Empty candles that a hole is drawn with, at most. */
const HOLE_MAX = 600;

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  readonly #charts: IChartApi[];
  readonly #candleSeries: ISeriesApi<'Candlestick'>;
  readonly #bid: ISeriesApi<'Line'>;
  readonly #ask: ISeriesApi<'Line'>;
  #candles = new Candles(1);
  #changed: Candle | undefined;
  #lastTime = 0;
  #quote: Quote | undefined;
  #lineTime = 0;
  /** The next point does not go on from the last one. */
  #hole = false;
  #points = 0;

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

  /** Another symbol, or another span. */
  reset(seconds: number, digits: number): void {
    this.#candles = new Candles(seconds);
    this.#changed = this.#quote = undefined;
    [this.#lastTime, this.#lineTime, this.#points, this.#hole] = [0, 0, 0, false];
    const priceFormat = { type: 'price', precision: digits, minMove: 10 ** -digits } as const;
    for (const series of [this.#candleSeries, this.#bid, this.#ask]) {
      series.setData([]);
      series.applyOptions({ priceFormat });
    }
  }

  /** Whether there is anything to see yet. */
  get isEmpty(): boolean {
    return this.#lastTime === 0 && this.#lineTime === 0;
  }

  trade(trade: Trade): void {
    const changed = this.#candles.add(trade);
    if (changed === undefined) return;
    // One that is finished has to be drawn before the next.
    if (this.#changed !== undefined && this.#changed !== changed) this.#drawCandle(this.#changed);
    this.#changed = changed;
  }

  quote(quote: Quote): void {
    this.#quote = quote;
  }

  /** What comes next does not follow what was there. */
  hole(): void {
    this.#hole = true;
    this.#quote = undefined;
  }

  draw(): void {
    if (this.#changed !== undefined) this.#drawCandle(this.#changed);
    this.#changed = undefined;
    if (this.#quote !== undefined) this.#drawQuote(this.#quote);
    this.#quote = undefined;
  }

  #drawCandle(candle: Candle): void {
    if (candle.time < this.#lastTime) return;
    const { seconds } = this.#candles;
    if (this.#lastTime > 0) {
      const first = Math.max(this.#lastTime + seconds, candle.time - HOLE_MAX * seconds);
      for (let time = first; time < candle.time; time += seconds) this.#candleSeries.update({ time: time as UTCTimestamp });
    }
    this.#lastTime = candle.time;
    this.#candleSeries.update({ ...candle, time: candle.time as UTCTimestamp });
  }

  #drawQuote({ rx, bid, ask }: Quote): void {
    const time = Math.floor(rx / 1_000_000);
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
    if (this.#points > 2 * LINE_SECONDS) {
      this.#points = LINE_SECONDS;
      for (const series of [this.#bid, this.#ask]) series.setData(series.data().slice(-LINE_SECONDS) as Parameters<typeof series.setData>[0]);
    }
  }
}
