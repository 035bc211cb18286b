/** The chosen symbol over time: candles of its trades, and below, by the same time, its best bid and offer. A hole is a hole. */

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
import { SPANS } from './address.js';
import { Picture, SPANS_MAX, type Best, type Candle } from './market.js';

/** Milliseconds between two pictures of a pane: each is drawn as a whole, which costs more than all the rest of a frame. */
const PICTURE_MS = 200;
/** The heights of candles and best prices, against each other. */
const [CANDLES_HEIGHT, BEST_HEIGHT] = [3, 2];

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clockOf = (seconds: number) => new Date(seconds * 1000).toISOString().slice(11, 19);
const candleOf = (candle: Candle) => ({ ...candle, time: candle.time as UTCTimestamp });

/** A point of a line. The way to a point has the point's colour: none, where it does not go on from what was before. */
function pointOf(time: number, price: number | undefined, begins: boolean) {
  if (price === undefined) return { time: time as UTCTimestamp };
  return { time: time as UTCTimestamp, value: price, ...(begins ? { color: 'transparent' } : {}) };
}
const bidOf = ({ time, bid, bidBegins }: Best) => pointOf(time, bid, bidBegins);
const askOf = ({ time, ask, askBegins }: Best) => pointOf(time, ask, askBegins);

export class Chart {
  readonly #place: HTMLElement;
  readonly #chart: IChartApi;
  /** Nothing to see: each time, so that a hole is as wide as it was long. */
  readonly #axis: ISeriesApi<'Line'>;
  readonly #candles: ISeriesApi<'Candlestick'>;
  readonly #bid: ISeriesApi<'Line'>;
  readonly #ask: ISeriesApi<'Line'>;
  /** By the seconds of a span. All are kept, so that another span begins with what was seen in this one. */
  #pictures = newPictures();
  #seconds = 1;
  /** What has changed and is still to be drawn. */
  #candle: Candle | undefined;
  #best: Best | undefined;
  /** The first and the last time of the axis, 0 while there is none, and how many there are. */
  #first = 0;
  #last = 0;
  #count = 0;
  /** When each pane was drawn last. */
  #candlesMs = -Infinity;
  #bestMs = -Infinity;

  constructor(place: HTMLElement) {
    this.#place = place;
    this.#chart = createChart(place, {
      autoSize: true,
      // The room on the right is for the newest time. What comes takes the place of an empty time, and is followed like any other.
      timeScale: { timeVisible: true, secondsVisible: true, rightOffset: 5, allowShiftVisibleRangeOnWhitespaceReplacement: true },
      // The mark brings an inline style sheet, which the page's policy forbids; the credit stands below the chart.
      layout: { attributionLogo: false, fontSize: 11 },
    });
    const line = { lineType: LineType.WithSteps, lineWidth: 1 } as const;
    this.#axis = this.#chart.addSeries(LineSeries, { visible: false });
    this.#candles = this.#chart.addSeries(CandlestickSeries);
    this.#bid = this.#chart.addSeries(LineSeries, line, 1);
    this.#ask = this.#chart.addSeries(LineSeries, line, 1);
    const [above, below] = this.#chart.panes();
    above?.setStretchFactor(CANDLES_HEIGHT);
    below?.setStretchFactor(BEST_HEIGHT);
    this.theme();
    this.#label();
  }

  /** Takes the colours of the page. */
  theme(): void {
    const [text, line, up, down] = ['--dim', '--line', '--up', '--down'].map(css) as [string, string, string, string];
    this.#chart.applyOptions({
      layout: { background: { color: 'transparent' }, textColor: text, panes: { separatorColor: line, separatorHoverColor: line } },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      timeScale: { borderColor: line },
      rightPriceScale: { borderColor: line },
    });
    this.#candles.applyOptions({ upColor: up, wickUpColor: up, borderUpColor: up, downColor: down, wickDownColor: down, borderDownColor: down });
    // The mark on the scale would take the colour of the last point, which may have none.
    this.#bid.applyOptions({ color: up, priceLineColor: up });
    this.#ask.applyOptions({ color: down, priceLineColor: down });
  }

  /** Spans of so many seconds, one of {@link SPANS}: those that were seen so far, too. */
  span(seconds: number): void {
    this.#seconds = seconds;
    this.#candle = this.#best = undefined;
    const picture = this.#pictures.get(seconds);
    const times = picture?.times() ?? [];
    [this.#first, this.#last, this.#count] = [times[0] ?? 0, times.at(-1) ?? 0, times.length];
    const isShown = ({ time }: { readonly time: number }) => time >= this.#first;
    const [candles, best] = [picture?.candles.filter(isShown) ?? [], picture?.best.filter(isShown) ?? []];
    this.#axis.setData(times.map((time) => ({ time: time as UTCTimestamp })));
    this.#candles.setData(candles.map(candleOf));
    this.#bid.setData(best.map(bidOf));
    this.#ask.setData(best.map(askOf));
    this.#label();
  }

  /** Another symbol, or another place or time. Whoever has moved the chart sees what comes, too. */
  reset(): void {
    this.#pictures = newPictures();
    this.span(this.#seconds);
    [this.#candlesMs, this.#bestMs] = [-Infinity, -Infinity];
    this.#chart.timeScale().resetTimeScale();
  }

  /** The scales have so many digits. */
  digits(digits: number): void {
    const priceFormat = { type: 'price', precision: digits, minMove: 10 ** -digits } as const;
    for (const series of [this.#candles, this.#bid, this.#ask]) series.applyOptions({ priceFormat });
  }

  /** Whether nothing has come yet. */
  get isEmpty(): boolean {
    return this.#last === 0 && this.#candle === undefined && this.#best === undefined;
  }

  /** @param us when it was, of the clock that all of the picture goes by. */
  trade(trade: Trade, us: number): void {
    for (const [seconds, picture] of this.#pictures) {
      const changed = picture.trade(trade, us);
      if (seconds !== this.#seconds || changed === undefined) continue;
      // One that is finished has to be drawn before the next.
      if (this.#candle !== changed) this.#drawCandle();
      this.#candle = changed;
    }
  }

  /** @param us when it was, of the clock that all of the picture goes by. */
  quote(quote: Quote, us: number): void {
    for (const [seconds, picture] of this.#pictures) {
      const changed = picture.quote(quote, us);
      if (seconds !== this.#seconds || changed === undefined) continue;
      if (this.#best !== changed) this.#drawBest();
      this.#best = changed;
    }
  }

  /** What comes next does not follow what was there. */
  hole(): void {
    for (const picture of this.#pictures.values()) picture.hole();
  }

  /**
   * Draws what has come, in one of the panes at most: both in one frame would make that one late. What comes too soon after the
   * last picture waits for a later frame. True if anything does.
   */
  draw(nowMs: number): boolean {
    const isDue = (drawnMs: number) => nowMs - drawnMs >= PICTURE_MS;
    const [candles, best] = [this.#candle !== undefined && isDue(this.#candlesMs), this.#best !== undefined && isDue(this.#bestMs)];
    if (candles && (!best || this.#candlesMs <= this.#bestMs)) {
      this.#candlesMs = nowMs;
      this.#drawCandle();
    } else if (best) {
      this.#bestMs = nowMs;
      this.#drawBest();
    }
    return this.#candle !== undefined || this.#best !== undefined;
  }

  #drawCandle(): void {
    const candle = this.#candle;
    this.#candle = undefined;
    if (candle === undefined || this.#reach(candle.time)) return;
    this.#candles.update(candleOf(candle));
  }

  #drawBest(): void {
    const best = this.#best;
    this.#best = undefined;
    if (best === undefined || this.#reach(best.time)) return;
    this.#bid.update(bidOf(best));
    this.#ask.update(askOf(best));
  }

  /** Has the axis reach to this time. True if all was drawn anew for that, which it is where more is there than is shown. */
  #reach(time: number): boolean {
    const seconds = this.#seconds;
    const isNext = this.#last > 0 && time >= this.#first && time - this.#last < SPANS_MAX * seconds && this.#count < 2 * SPANS_MAX;
    if (!isNext) {
      this.span(seconds);
      return true;
    }
    for (let next = this.#last + seconds; next <= time; next += seconds) {
      this.#axis.update({ time: next as UTCTimestamp });
      this.#count += 1;
    }
    if (time > this.#last) {
      this.#last = time;
      this.#label();
    }
    return false;
  }

  /** For who does not see it. */
  #label(): void {
    const [first, last, seconds] = [this.#first, this.#last, this.#seconds];
    const text = last === 0 ? 'nothing yet' : `${clockOf(first)} to ${clockOf(last)}`;
    // The scales would still be those of what was there before.
    this.#place.toggleAttribute('data-empty', last === 0);
    this.#place.setAttribute('aria-label', `Candles of ${seconds} s and best prices: ${text}`);
  }
}

const newPictures = () => new Map(SPANS.map((seconds) => [seconds, new Picture(seconds)]));
