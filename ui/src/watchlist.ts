/** The table of symbols. It only writes cells whose text has changed, and only in an animation frame. */

import { compareDecimal } from 'tickfan-client';
import { dayOf, lookOf, type Instrument, type Standing } from './market.js';

interface Column {
  readonly name: string;
  readonly title: string;
  /** Whether the column contains right-aligned figures. */
  readonly figure: boolean;
  text(it: Instrument, standing: Standing): string;
  /** Order of the rows when sorted by this column; by text if omitted. */
  compare?(a: Instrument, b: Instrument): number;
}

const decimals = (of: (it: Instrument) => string | undefined) => (a: Instrument, b: Instrument) => {
  const [x, y] = [of(a), of(b)];
  if (x === undefined || y === undefined) return Number(x !== undefined) - Number(y !== undefined);
  return compareDecimal(x, y);
};

const figure = (name: string, title: string, of: (it: Instrument) => string | undefined): Column => ({
  ...{ name, title, figure: true, compare: decimals(of) },
  text: (it) => of(it) ?? '',
});

const signed = (text: string | undefined) => (text === undefined || text.startsWith('-') || !/[1-9]/.test(text) ? text : `+${text}`);

function age(ms: number): string {
  if (ms < 1000) return 'now';
  const seconds = Math.floor(ms / 1000);
  return seconds < 60 ? `${seconds} s` : seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

const COLUMNS: readonly Column[] = [
  { name: 'symbol', title: 'symbol', figure: false, text: (it) => it.symbol },
  // Next to the name, because it matters most. Drawn separately, whether visible or not.
  { name: 'state', title: 'state', figure: false, text: (it) => it.state },
  figure('last', 'last', (it) => it.trade?.price),
  { ...figure('change', 'change', (it) => it.change), text: (it) => signed(it.change) ?? '' },
  figure('bidsize', 'size', (it) => it.quote?.bid_size),
  figure('bid', 'bid', (it) => it.quote?.bid),
  figure('ask', 'ask', (it) => it.quote?.ask),
  figure('asksize', 'size', (it) => it.quote?.ask_size),
  figure('spread', 'spread', (it) => it.spread),
  {
    ...{ name: 'age', title: 'age', figure: true },
    // For recorded data it is the date: the data has just arrived, and is as old as that.
    text: (it, standing) => {
      const recordedUs = it.recordedUs(standing);
      if (recordedUs !== undefined) return dayOf(recordedUs);
      const ms = it.ageMs(standing);
      return ms === undefined ? '' : age(ms);
    },
    compare: (a, b) => (b.rxUs ?? 0) - (a.rxUs ?? 0),
  },
];

const at = (wanted: string) => COLUMNS.findIndex(({ name }) => name === wanted);
const [SYMBOL, STATE, LAST] = [at('symbol'), at('state'), at('last')];

/** Columns that are omitted if there is no room, in this order. */
const GIVEN_UP: readonly (readonly string[])[] = [['bidsize', 'asksize'], ['spark'], ['spread'], ['age']];
/** Size of a sparkline, and horizontal space around a text, pixels. */
const [SPARK_WIDTH, SPARK_HEIGHT, SPACE] = [90, 20, 10];
/** Distance from the screen within which rows are drawn, pixels. */
const NEAR = 100;
/** For sorting by texts that do not depend on the standing. */
const NOWHERE: Standing = { isLinked: false, isBehind: false, isLate: true };
/** Length of the longest state, so that the column keeps its width. */
const STATE_LENGTH = 'link lost'.length;
const SVG = 'http://www.w3.org/2000/svg';
/** Most sparklines that are drawn in one frame. */
const SPARKS_A_FRAME = 4;
/** Milliseconds for which a moved price is highlighted. */
const FLASH_MS = 300;
/** Fewest visible characters of a symbol that does not fit. */
const SYMBOL_LENGTH_MIN = 16;

/** One row and its displayed content. */
class Row {
  readonly element = document.createElement('tr');
  /** Whether it is on the screen, or close to it. */
  isSeen = false;
  readonly #cells: HTMLTableCellElement[];
  /** Text nodes that are updated in place, because a new node would cause a layout. */
  readonly #nodes: Text[];
  readonly #texts: string[] = COLUMNS.map(() => '');
  /**
   * An SVG path, which is drawn with the row. A canvas per row would be a layer of its own, with work in every frame.
   */
  readonly #spark = document.createElementNS(SVG, 'path');
  #moves = 0;
  #movedMs = 0;
  #lastClass = 'n';
  #sparkDrawn = '';

  constructor(readonly instrument: Instrument) {
    this.#cells = COLUMNS.map(({ figure, name }) => cell('td', name, figure));
    this.#nodes = this.#cells.map((cell) => cell.appendChild(document.createTextNode('')));
    const spark = cell('td', 'spark', false);
    spark.append(document.createElementNS(SVG, 'svg'));
    spark.firstElementChild?.append(this.#spark);
    this.element.tabIndex = -1;
    this.element.setAttribute('role', 'row');
    this.element.append(...this.#cells, spark);
  }

  /** Draws what has changed. `wider` is called if a text needs more room than any before. */
  draw(standing: Standing, nowMs: number, wider: (column: number, length: number) => void): void {
    const doubt = this.instrument.doubt(standing);
    // Immediately, whether visible or not: a row must not look live when it is scrolled into view.
    if (this.#write(STATE, doubt ?? 'live')) {
      const look = lookOf(doubt);
      this.element.classList.toggle('stale', look === 'stale');
      this.element.classList.toggle('recorded', look === 'recorded');
    }
    if (!this.isSeen) return;
    COLUMNS.forEach((column, i) => {
      if (i === STATE) return;
      const text = column.text(this.instrument, standing);
      if (this.#write(i, text)) wider(i, text.length);
    });
    this.#flash(nowMs);
  }

  #write(column: number, text: string): boolean {
    const node = this.#nodes[column];
    if (node === undefined || text === this.#texts[column]) return false;
    this.#texts[column] = text;
    // As text, never as HTML, because symbols are external data.
    node.data = text;
    return true;
  }

  #flash(nowMs: number): void {
    const { moves, direction } = this.instrument;
    if (moves !== this.#moves) this.#movedMs = nowMs;
    this.#moves = moves;
    const flash = nowMs - this.#movedMs < FLASH_MS ? ' flash' : '';
    const name = direction === 0 ? 'n' : `n ${direction > 0 ? 'up' : 'down'}${flash}`;
    const last = this.#cells[LAST];
    if (name === this.#lastClass || last === undefined) return;
    this.#lastClass = name;
    last.className = name;
  }

  /** Its points change once per second, and so does the drawing. */
  drawSpark(): boolean {
    const { spark } = this.instrument;
    const key = `${spark.length} ${spark.at(-1)} ${spark[0]}`;
    if (!this.isSeen || key === this.#sparkDrawn) return false;
    this.#sparkDrawn = key;
    const [low, high] = [Math.min(...spark), Math.max(...spark)];
    const points = spark.map((value, i) => {
      const x = (i / Math.max(1, spark.length - 1)) * (SPARK_WIDTH - 2) + 1;
      const y = high === low ? SPARK_HEIGHT / 2 : SPARK_HEIGHT - 2 - ((value - low) / (high - low)) * (SPARK_HEIGHT - 4);
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    });
    this.#spark.setAttribute('d', points.length > 1 ? `M${points.join('L')}` : '');
    return true;
  }
}

function cell(kind: 'td' | 'th', name: string, figure: boolean): HTMLTableCellElement {
  const cell = document.createElement(kind);
  cell.dataset['column'] = name;
  // Its CSS display is not that of a table, so that its role must be set.
  cell.setAttribute('role', kind === 'th' ? 'columnheader' : 'cell');
  if (figure) cell.className = 'n';
  return cell;
}

/** Callbacks of the list. */
export interface WatchlistHandlers {
  choose(symbol: string): void;
  sort(column: string): void;
  /** The row has become visible, and must be drawn. */
  seen(symbol: string): void;
}

export class Watchlist {
  readonly #rows = new Map<string, Row>();
  readonly #table: HTMLElement;
  readonly #body: HTMLElement;
  readonly #columns: HTMLElement;
  readonly #handlers: WatchlistHandlers;
  /** Length of the longest text so far per column, so that text changes need no measurement. */
  readonly #lengths: number[] = COLUMNS.map(({ title }) => title.length + 2);
  /** Width of a character and of the list, pixels. */
  #letter = 8;
  #width = 0;
  #order = '';
  /** Rows whose sparklines are not drawn yet. */
  #sparks: Iterator<Row, undefined> | undefined;

  constructor(table: HTMLElement, handlers: WatchlistHandlers) {
    this.#table = table;
    this.#columns = table.querySelector('thead tr') as HTMLElement;
    this.#body = table.querySelector('tbody') as HTMLElement;
    this.#handlers = handlers;
    this.#lengths[STATE] = STATE_LENGTH;
    for (const { name, title, figure } of COLUMNS) {
      const head = cell('th', name, figure);
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = title;
      button.addEventListener('click', () => handlers.sort(name));
      head.append(button);
      this.#columns.append(head);
    }
    const spark = cell('th', 'spark', false);
    spark.textContent = 'last minute';
    this.#columns.append(spark);
    this.theme();
    new ResizeObserver(([entry]) => {
      this.#width = entry?.contentRect.width ?? 0;
      this.#fit();
      this.#look();
    }).observe(table.parentElement as HTMLElement);
    // In the narrow layout the page scrolls instead of the list.
    addEventListener('scroll', () => this.#look(), { capture: true, passive: true });
    addEventListener('resize', () => this.#look());
  }

  /** Applies the colours and the font of the page. */
  theme(): void {
    const style = getComputedStyle(this.#table);
    const context = document.createElement('canvas').getContext('2d');
    if (context === null) return;
    context.font = `${style.fontSize} ${style.fontFamily}`;
    this.#letter = context.measureText('0').width;
  }

  /** Shows these rows, one of them selected. */
  show(instruments: readonly Instrument[], chosen: string | undefined, sort: string): void {
    const wanted = new Set(instruments.map(({ symbol }) => symbol));
    for (const [symbol, { element }] of this.#rows) {
      if (wanted.has(symbol)) continue;
      element.remove();
      this.#rows.delete(symbol);
    }
    for (const instrument of instruments) {
      if (this.#rows.has(instrument.symbol)) continue;
      const row = new Row(instrument);
      row.element.addEventListener('click', () => this.#handlers.choose(instrument.symbol));
      row.element.dataset['symbol'] = instrument.symbol;
      this.#rows.set(instrument.symbol, row);
    }
    for (const [symbol, { element }] of this.#rows) element.setAttribute('aria-selected', String(symbol === chosen));
    for (const head of this.#columns.children) {
      const own = (head as HTMLElement).dataset['column'];
      head.setAttribute('aria-sort', sort.replace('-', '') !== own ? 'none' : sort.startsWith('-') ? 'descending' : 'ascending');
    }
    this.arrange(instruments, sort);
  }

  /** Sorts the rows. The DOM is unchanged if the order is. */
  arrange(instruments: readonly Instrument[], sort: string): readonly Instrument[] {
    const column = COLUMNS.find(({ name }) => name === sort.replace('-', ''));
    const order = [...instruments];
    if (column !== undefined) {
      const compare = column.compare ?? ((a: Instrument, b: Instrument) => column.text(a, NOWHERE).localeCompare(column.text(b, NOWHERE)));
      order.sort((a, b) => (sort.startsWith('-') ? compare(b, a) : compare(a, b)));
    }
    const key = order.map(({ symbol }) => symbol).join();
    if (key !== this.#order || this.#body.childElementCount !== order.length) {
      this.#order = key;
      const focused = document.activeElement;
      this.#body.append(...order.flatMap(({ symbol }) => this.#rows.get(symbol)?.element ?? []));
      if (focused instanceof HTMLElement && focused !== document.activeElement) focused.focus();
      this.#look();
    }
    return order;
  }

  /**
   * Determines the visible rows; others are not drawn. All rows have the same height, so that one measurement of the
   * list suffices: an observer per row would measure each of them in every frame.
   */
  #look(): void {
    const { top, height } = this.#body.getBoundingClientRect();
    const rowHeight = height / Math.max(1, this.#body.childElementCount);
    const [first, last] = [(-NEAR - top) / rowHeight, (innerHeight + NEAR - top) / rowHeight];
    let at = 0;
    for (const element of this.#body.children) {
      const symbol = (element as HTMLElement).dataset['symbol'] ?? '';
      const row = this.#rows.get(symbol);
      if (row === undefined) continue;
      const was = row.isSeen;
      row.isSeen = at + 1 > first && at < last;
      if (row.isSeen && !was) this.#handlers.seen(symbol);
      at += 1;
    }
  }

  /** Omits columns until the rest fits. The symbol takes the remaining width. */
  #fit(): void {
    const without = new Set<string>();
    // The last price includes the mark of a move.
    const px = (i: number) => Math.ceil(((this.#lengths[i] ?? 0) + (i === LAST ? 2 : 0)) * this.#letter) + SPACE;
    const needed = () => COLUMNS.reduce((sum, { name }, i) => sum + (without.has(name) ? 0 : px(i)), without.has('spark') ? 0 : SPARK_WIDTH + SPACE);
    // A complete symbol takes precedence over the columns that may be omitted.
    for (const names of GIVEN_UP) if (needed() > this.#width) names.forEach((name) => without.add(name));
    this.#table.toggleAttribute('data-cut', needed() > this.#width);
    const widths = COLUMNS.flatMap(({ name }, i) => (without.has(name) ? [] : i === SYMBOL ? `minmax(${SYMBOL_LENGTH_MIN}ch, 1fr)` : `${px(i)}px`));
    if (!without.has('spark')) widths.push(`${SPARK_WIDTH + SPACE}px`);
    this.#table.dataset['without'] = [...without].join(' ');
    this.#table.style.setProperty('--columns', widths.join(' '));
  }

  /**
   * Draws these rows, and widens columns that need more room than before. Returns true if a later frame has more to
   * draw.
   */
  draw(symbols: Iterable<string>, standing: Standing, nowMs: number): boolean {
    let isWider = false;
    const wider = (column: number, length: number) => {
      if (length <= (this.#lengths[column] ?? 0)) return;
      this.#lengths[column] = length;
      isWider = true;
    };
    for (const symbol of symbols) {
      const row = this.#rows.get(symbol);
      row?.draw(standing, nowMs, wider);
    }
    if (isWider) this.#fit();
    return this.#drawSparks();
  }

  /**
   * Redraws the sparklines, spread over the next frames, because all in one frame would make it late. Those still
   * waiting come first.
   */
  sparksChanged(): void {
    // The layout above the list may have changed, which no event reports.
    this.#look();
    this.#sparks ??= this.#rows.values();
  }

  /** Returns true if more are left. */
  #drawSparks(): boolean {
    for (let left = SPARKS_A_FRAME; left > 0 && this.#sparks !== undefined; ) {
      const { value: row, done } = this.#sparks.next();
      if (done) this.#sparks = undefined;
      else if (row.drawSpark()) left -= 1;
    }
    return this.#sparks !== undefined;
  }

  focus(symbol: string): void {
    this.#rows.get(symbol)?.element.focus();
  }
}
