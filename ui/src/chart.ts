/**
 * The chart of the selected symbol: candles of its trades, and below them its best bid and ask, on a common time axis.
 * Missing data is shown as a hole.
 */

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

/**
 * Milliseconds between two redraws of a pane: a pane is redrawn completely, which is the most expensive part of a
 * frame.
 */
const PICTURE_MS = 200;
/** Relative heights of candles and best prices. */
const [CANDLES_HEIGHT, BEST_HEIGHT] = [3, 2];

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clockOf = (seconds: number) => new Date(seconds * 1000).toISOString().slice(11, 19);
const candleOf = (candle: Candle) => ({ ...candle, time: candle.time as UTCTimestamp });

/**
 * A point of a line. The colour of a point applies to the segment that leads to it: transparent if the point does not
 * continue the previous one.
 */
function pointOf(time: number, price: number | undefined, begins: boolean) {
  if (price === undefined) return { time: time as UTCTimestamp };
  return { time: time as UTCTimestamp, value: price, ...(begins ? { color: 'transparent' } : {}) };
}
const bidOf = ({ time, bid, bidBegins }: Best) => pointOf(time, bid, bidBegins);
const askOf = ({ time, ask, askBegins }: Best) => pointOf(time, ask, askBegins);

export class Chart {
  readonly #place: HTMLElement;
  readonly #chart: IChartApi;
  /** Invisible, with every time, so that the width of a hole shows its duration. */
  readonly #axis: ISeriesApi<'Line'>;
  readonly #candles: ISeriesApi<'Candlestick'>;
  readonly #bid: ISeriesApi<'Line'>;
  readonly #ask: ISeriesApi<'Line'>;
  /** By the length of a span in seconds. All are kept, so that switching to another span keeps the data. */
  #pictures = newPictures();
  #seconds = 1;
  /** Changes that are not drawn yet. */
  #candle: Candle | undefined;
  #best: Best | undefined;
  /** First and last time of the axis, 0 if it is empty, and the number of times. */
  #first = 0;
  #last = 0;
  #count = 0;
  /** Time of the last redraw of each pane. */
  #candlesMs = -Infinity;
  #bestMs = -Infinity;

  constructor(place: HTMLElement) {
    this.#place = place;
    this.#chart = createChart(place, {
      autoSize: true,
      // Space on the right for the newest time. New data replaces an empty time, and the view follows it as usual.
      timeScale: { timeVisible: true, secondsVisible: true, rightOffset: 5, allowShiftVisibleRangeOnWhitespaceReplacement: true },
      // The logo adds an inline style sheet, which the policy of the page forbids; the attribution is below the chart.
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

  /** Applies the colours of the page. */
  theme(): void {
    const [text, line, up, down] = ['--dim', '--line', '--up', '--down'].map(css) as [string, string, string, string];
    this.#chart.applyOptions({
      layout: { background: { color: 'transparent' }, textColor: text, panes: { separatorColor: line, separatorHoverColor: line } },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      timeScale: { borderColor: line },
      rightPriceScale: { borderColor: line },
    });
    this.#candles.applyOptions({ upColor: up, wickUpColor: up, borderUpColor: up, downColor: down, wickDownColor: down, borderDownColor: down });
    // The mark on the scale would have the colour of the last point, which may be transparent.
    this.#bid.applyOptions({ color: up, priceLineColor: up });
    this.#ask.applyOptions({ color: down, priceLineColor: down });
  }

  /** Switches to spans of this number of seconds, one of {@link SPANS}, with the data received so far. */
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

  /** Clears the chart for another symbol, place or time. A view that the user has moved returns to the newest data. */
  reset(): void {
    this.#pictures = newPictures();
    this.span(this.#seconds);
    [this.#candlesMs, this.#bestMs] = [-Infinity, -Infinity];
    this.#chart.timeScale().resetTimeScale();
  }

  /** Sets the number of decimals of the scales. */
  digits(digits: number): void {
    const priceFormat = { type: 'price', precision: digits, minMove: 10 ** -digits } as const;
    for (const series of [this.#candles, this.#bid, this.#ask]) series.applyOptions({ priceFormat });
  }

  /** Whether there is no data yet. */
  get isEmpty(): boolean {
    return this.#last === 0 && this.#candle === undefined && this.#best === undefined;
  }

  /** @param us time of the trade, in the clock of the whole picture. */
  trade(trade: Trade, us: number): void {
    for (const [seconds, picture] of this.#pictures) {
      const changed = picture.trade(trade, us);
      if (seconds !== this.#seconds || changed === undefined) continue;
      // A finished candle must be drawn before the next one.
      if (this.#candle !== changed) this.#drawCandle();
      this.#candle = changed;
    }
  }

  /** @param us time of the quote, in the clock of the whole picture. */
  quote(quote: Quote, us: number): void {
    for (const [seconds, picture] of this.#pictures) {
      const changed = picture.quote(quote, us);
      if (seconds !== this.#seconds || changed === undefined) continue;
      if (this.#best !== changed) this.#drawBest();
      this.#best = changed;
    }
  }

  /** Marks that the next data does not continue the previous data. */
  hole(): void {
    for (const picture of this.#pictures.values()) picture.hole();
  }

  /**
   * Draws changes in at most one pane, because drawing both would make the frame late. A pane that was redrawn recently
   * waits for a later frame. Returns true if a pane is waiting.
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

  /**
   * Extends the axis to this time. Returns true if everything was redrawn for that, which is necessary once there are
   * more times than are shown.
   */
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

  /** Label for screen readers. */
  #label(): void {
    const [first, last, seconds] = [this.#first, this.#last, this.#seconds];
    const text = last === 0 ? 'nothing yet' : `${clockOf(first)} to ${clockOf(last)}`;
    // Hides the scales of an empty chart, which would still be those of the previous data.
    this.#place.toggleAttribute('data-empty', last === 0);
    this.#place.setAttribute('aria-label', `Candles of ${seconds} s and best prices: ${text}`);
  }
}

const newPictures = () => new Map(SPANS.map((seconds) => [seconds, new Picture(seconds)]));
