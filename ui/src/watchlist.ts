/** The table of symbols. It writes only the cells whose text has changed, and only when a frame is drawn. */

import { compareDecimal } from 'tickfan-client';
import type { Doubt, Instrument } from './market.js';

interface Column {
  readonly name: string;
  readonly title: string;
  /** Right-aligned figures. */
  readonly figure: boolean;
  text(it: Instrument, nowMs: number): string;
  /** What the rows are sorted by; text if left out. */
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
  figure('last', 'last', (it) => it.trade?.price),
  { ...figure('change', 'change', (it) => it.change), text: (it) => signed(it.change) ?? '' },
  figure('bidsize', 'size', (it) => it.quote?.bid_size),
  figure('bid', 'bid', (it) => it.quote?.bid),
  figure('ask', 'ask', (it) => it.quote?.ask),
  figure('asksize', 'size', (it) => it.quote?.ask_size),
  figure('spread', 'spread', (it) => it.spread),
  {
    ...{ name: 'age', title: 'age', figure: true },
    text: (it, nowMs) => (it.changedMs === undefined ? '' : age(nowMs - it.changedMs)),
    compare: (a, b) => (b.changedMs ?? 0) - (a.changedMs ?? 0),
  },
];

const LAST = COLUMNS.findIndex(({ name }) => name === 'last');

/** One row and what it shows now. */
class Row {
  readonly element = document.createElement('tr');
  /** It is on the screen, or nearly. */
  isSeen = false;
  readonly #cells: HTMLTableCellElement[];
  /** Written to in place: a new node would cost a new layout. */
  readonly #nodes: Text[];
  readonly #texts: string[] = COLUMNS.map(() => '');
  readonly #doubt = document.createElement('td');
  readonly #spark = document.createElement('canvas');
  #moves = 0;
  #shownDoubt: string | undefined;
  #sparkKey = '';

  constructor(readonly instrument: Instrument) {
    this.#cells = COLUMNS.map(({ figure, name }) => {
      const cell = document.createElement('td');
      cell.className = figure ? `n ${name}` : name;
      return cell;
    });
    this.#nodes = this.#cells.map((cell) => cell.appendChild(document.createTextNode('')));
    this.#spark.width = 90;
    this.#spark.height = 20;
    const spark = document.createElement('td');
    spark.append(this.#spark);
    this.#doubt.className = 'doubt';
    this.element.tabIndex = -1;
    const [symbol, ...figures] = this.#cells;
    // The doubt stands beside the name: it is the first thing to see of a row.
    this.element.append(symbol ?? '', this.#doubt, ...figures, spark);
  }

  /** Draws what has changed. `wider` is told where a text needs more room than any before. */
  draw(isLinked: boolean, nowMs: number, wider: (column: number, length: number) => void): void {
    const { instrument } = this;
    // This at once, whether it is seen or not: whoever scrolls to it must not find it live.
    this.#drawDoubt(instrument.doubt(isLinked));
    if (!this.isSeen) return;
    COLUMNS.forEach((column, i) => {
      const text = column.text(instrument, nowMs);
      const node = this.#nodes[i];
      if (node === undefined || text === this.#texts[i]) return;
      this.#texts[i] = text;
      // Text, never HTML: symbols come from outside.
      node.data = text;
      wider(i, text.length);
    });
    this.#flash();
    this.#drawSpark();
  }

  #drawDoubt(doubt: Doubt): void {
    if (doubt === this.#shownDoubt) return;
    this.#shownDoubt = doubt;
    this.#doubt.textContent = doubt ?? '';
    this.element.classList.toggle('stale', doubt !== undefined);
  }

  #flash(): void {
    const { moves, direction } = this.instrument;
    const last = this.#cells[LAST];
    if (moves === this.#moves || last === undefined) return;
    // Another name each time begins the animation anew, without asking for the layout.
    const again = moves % 2 === 0 ? 'a' : 'b';
    last.className = `n last ${direction > 0 ? 'up' : 'down'}-${again}`;
    this.#moves = moves;
  }

  #drawSpark(): void {
    const { spark } = this.instrument;
    const key = `${spark.length} ${spark.at(-1)} ${spark[0]}`;
    const context = key === this.#sparkKey ? null : this.#spark.getContext('2d');
    if (context === null) return;
    this.#sparkKey = key;
    const { width, height } = this.#spark;
    const [low, high] = [Math.min(...spark), Math.max(...spark)];
    context.clearRect(0, 0, width, height);
    context.strokeStyle = getComputedStyle(this.#spark).color;
    context.beginPath();
    spark.forEach((value, i) => {
      const x = (i / Math.max(1, spark.length - 1)) * (width - 2) + 1;
      const y = high === low ? height / 2 : height - 2 - ((value - low) / (high - low)) * (height - 4);
      context.lineTo(x, y);
    });
    context.stroke();
  }
}

/** What the list asks of the page. */
export interface WatchlistHandlers {
  choose(symbol: string): void;
  sort(column: string): void;
  /** The row came onto the screen, and has to be drawn. */
  seen(symbol: string): void;
}

export class Watchlist {
  readonly #rows = new Map<string, Row>();
  readonly #body: HTMLElement;
  readonly #columns: HTMLElement;
  readonly #handlers: WatchlistHandlers;
  /** Rows far from the screen are not written to. */
  readonly #observer = new IntersectionObserver((entries) => this.#moved(entries), { rootMargin: '300px' });
  readonly #heads: HTMLElement[] = [];
  readonly #widths: number[] = COLUMNS.map(() => 0);
  #order = '';

  constructor(body: HTMLElement, columns: HTMLElement, handlers: WatchlistHandlers) {
    this.#body = body;
    this.#columns = columns;
    this.#handlers = handlers;
    for (const { name, title, figure } of COLUMNS) {
      const cell = document.createElement('th');
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = title;
      button.addEventListener('click', () => handlers.sort(name));
      cell.dataset['column'] = name;
      cell.className = figure ? 'n' : '';
      cell.append(button);
      columns.append(cell);
      this.#heads.push(cell);
      this.#widen(this.#heads.length - 1, title.length + 2);
      if (name === 'symbol') columns.append(document.createElement('th'));
    }
    columns.append(document.createElement('th'));
  }

  /** The rows that there are, and which is chosen. */
  show(instruments: readonly Instrument[], chosen: string | undefined, sort: string): void {
    const wanted = new Set(instruments.map(({ symbol }) => symbol));
    for (const [symbol, { element }] of this.#rows) {
      if (wanted.has(symbol)) continue;
      this.#observer.unobserve(element);
      element.remove();
      this.#rows.delete(symbol);
    }
    for (const instrument of instruments) {
      if (this.#rows.has(instrument.symbol)) continue;
      const row = new Row(instrument);
      row.element.addEventListener('click', () => this.#handlers.choose(instrument.symbol));
      row.element.dataset['symbol'] = instrument.symbol;
      this.#observer.observe(row.element);
      this.#rows.set(instrument.symbol, row);
    }
    for (const [symbol, { element }] of this.#rows) element.setAttribute('aria-selected', String(symbol === chosen));
    for (const cell of this.#columns.children) {
      const own = (cell as HTMLElement).dataset['column'];
      cell.setAttribute('aria-sort', own === undefined || sort.replace('-', '') !== own ? 'none' : sort.startsWith('-') ? 'descending' : 'ascending');
    }
    this.arrange(instruments, sort);
  }

  /** Puts the rows in order. Rows stay where they are while nothing has changed. */
  arrange(instruments: readonly Instrument[], sort: string): readonly Instrument[] {
    const column = COLUMNS.find(({ name }) => name === sort.replace('-', ''));
    const order = [...instruments];
    if (column !== undefined) {
      const compare = column.compare ?? ((a: Instrument, b: Instrument) => a.symbol.localeCompare(b.symbol));
      order.sort((a, b) => (sort.startsWith('-') ? compare(b, a) : compare(a, b)));
    }
    const key = order.map(({ symbol }) => symbol).join();
    if (key !== this.#order || this.#body.childElementCount !== order.length) {
      this.#order = key;
      const focused = document.activeElement;
      this.#body.append(...order.flatMap(({ symbol }) => this.#rows.get(symbol)?.element ?? []));
      if (focused instanceof HTMLElement && focused !== document.activeElement) focused.focus();
    }
    return order;
  }

  #moved(entries: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const symbol = (target as HTMLElement).dataset['symbol'] ?? '';
      const row = this.#rows.get(symbol);
      if (row === undefined || row.element !== target) continue;
      row.isSeen = isIntersecting;
      if (isIntersecting) this.#handlers.seen(symbol);
    }
  }

  /** Columns have the width of the longest text that they ever had: so the table is not measured at each change. */
  #widen(column: number, length: number): void {
    const head = this.#heads[column];
    if (head === undefined || length <= (this.#widths[column] ?? 0)) return;
    this.#widths[column] = length;
    head.style.width = `calc(${length + (column === LAST ? 2 : 0)}ch + 0.6rem)`;
  }

  draw(symbols: Iterable<string>, isLinked: boolean, nowMs: number): void {
    for (const symbol of symbols) this.#rows.get(symbol)?.draw(isLinked, nowMs, (column, length) => this.#widen(column, length));
  }

  focus(symbol: string): void {
    this.#rows.get(symbol)?.element.focus();
  }
}
