/** The page: one client, what it tells of each symbol, and what of that is on the screen. Drawing waits for the frame. */

import { connect, type Gap, type Rejected, type Subscription, type Tick } from 'tickfan-client';
import { readAddress, SPANS, SYMBOLS_MAX, writeAddress, type View } from './address.js';
import { Chart } from './chart.js';
import { Health } from './health.js';
import { banner, Instrument, lookOf, type Standing } from './market.js';
import { ReplayBar } from './replay.js';
import { Search } from './search.js';
import { Socket } from './socket.js';
import './style.css';
import { Tape } from './tape.js';
import { Watchlist } from './watchlist.js';

const THEME = 'tickfan-theme';
const LIGHT = matchMedia('(prefers-color-scheme: light)');
/** Seconds until an empty page looks again for what there is. */
const LOOK_S = 5;

function byId<T extends HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`index.html has no #${id}`);
  return element as T;
}

class Page {
  readonly #view: View = readAddress(location.hash);
  readonly #instruments = new Map<string, { instrument: Instrument; subscription: Subscription }>();
  readonly #dirty = new Set<string>();
  readonly #health = new Health(byId('latencies'));
  readonly #chart = new Chart(byId('chart'));
  readonly #tape = new Tape(byId('tape'));
  readonly #list = new Watchlist(byId('list'), {
    choose: (symbol) => this.#choose(symbol),
    sort: (column) => this.#sort(column),
    seen: (symbol) => this.#touch(symbol),
  });
  readonly #client = connect(new URL('/ws', location.href), {
    WebSocket: Socket,
    onLink: (event) => {
      this.#health.link(event);
      if (event.state === 'lost') this.#chart.hole();
      if (event.state === 'lost' || event.state === 'closed') this.#replay.lost();
      // Where there is a replay to control, its place comes right behind.
      if (event.state === 'open') this.#replay.hide();
      if (event.state === 'open' && event.newEpoch) this.#elsewhere();
      this.#everything();
      if (event.state === 'open') this.#opened();
    },
    onLag: (lag) => {
      this.#health.lag(lag);
      this.#everything();
    },
    onDelivery: () => this.#everything(),
    onHeartbeat: () => this.#health.heartbeat(performance.now()),
    onReplay: (status) => {
      const { us = status.position } = this.#replay;
      for (const { instrument } of this.#instruments.values()) instrument.replayTold(status.position < us);
      // Told before what is of the new place; not where a new round begins, nor for sure to a page that is slow.
      if (status.state === 'seeking') this.#elsewhere();
      this.#replay.show(status);
      this.#ask();
    },
    onRejected: (row) => this.#refused(row),
    onBroken: (broken) => {
      console.error(broken);
      this.#health.broken();
    },
  });
  readonly #replay = new ReplayBar(byId('replay'), this.#client);
  readonly #search = new Search(this.#client, byId('search'), byId('found'), byId('says'), (symbol) => this.#add(symbol));
  /** Symbols that the search has added, until the gateway has said whether it takes them. */
  readonly #added = new Set<string>();
  /** What there is was shown once: a list that is empty after that is empty because somebody wants it so. */
  #hasBegun = false;
  #seconds = 0;
  /** What chart and tape are of, and which of its beginnings. */
  #shown: { readonly it: Instrument | undefined; readonly beginnings: number } = { it: undefined, beginnings: 0 };
  #spanShown = 0;
  #frame = 0;
  /** Something has to be drawn in it. */
  #isAsked = false;
  /** What was drawn last was late. */
  #wasLate = true;
  #title = '';

  constructor() {
    const theme = localStorage.getItem(THEME);
    if (theme !== null) document.documentElement.dataset['theme'] = theme;
    byId('theme').addEventListener('click', () => this.#toggleTheme());
    byId('remove').addEventListener('click', () => this.#remove());
    byId('spans').append(...SPANS.map((span) => this.#spanButton(span)));
    document.addEventListener('keydown', (event) => this.#key(event));
    addEventListener('hashchange', () => this.#follow());
    setInterval(() => this.#second(), 1000);
    LIGHT.addEventListener('change', () => this.#takeTheme());
    this.#chart.theme();
    this.#show();
  }

  /** Nothing was chosen yet: everything that there is, as far as it fits. */
  async #begin(): Promise<void> {
    const symbols = await this.#client.symbols('*').catch(() => undefined);
    if (symbols === undefined || this.#view.symbols.length > 0) return;
    this.#hasBegun = symbols.length > 0;
    this.#view.symbols = symbols.slice(0, 12).map(({ symbol }) => symbol);
    this.#view.chosen = this.#view.symbols[0];
    this.#changed();
    this.#sayWhyEmpty(symbols.length === 0);
  }

  /** @param isNothing the gateway lists no symbol. */
  #sayWhyEmpty(isNothing: boolean): void {
    byId('empty').hidden = this.#view.symbols.length > 0 || !(isNothing || this.#hasBegun);
    byId('empty').textContent = isNothing
      ? 'No symbols yet: neither a feed nor a publisher has told the gateway of one. Publish a tick, and it is shown here by itself.'
      : 'The list is empty. Add a symbol with the search above.';
  }

  /** The gateway does not take a symbol. What was added just now goes again; what the address names stays, and says so. */
  #refused({ symbol, msg }: Rejected): void {
    this.#search.say(`${symbol} was refused: ${msg}.`);
    const known = this.#instruments.get(symbol);
    if (known === undefined) return;
    known.instrument.refusal = msg;
    this.#touch(symbol);
    if (!this.#added.delete(symbol)) return;
    const { symbols, chosen } = this.#view;
    symbols.splice(symbols.indexOf(symbol), 1);
    if (chosen === symbol) this.#view.chosen = symbols[0];
    this.#changed();
  }

  #follow(): void {
    if (location.hash === writeAddress(this.#view)) return;
    Object.assign(this.#view, readAddress(location.hash));
    this.#show();
  }

  #changed(): void {
    history.replaceState(null, '', writeAddress(this.#view));
    this.#show();
  }

  /** A connection begins: what the last one refused is asked for anew. */
  #opened(): void {
    for (const { instrument } of this.#instruments.values()) instrument.refusal = undefined;
    if (this.#view.symbols.length === 0 && !this.#hasBegun) void this.#begin();
  }

  /** Makes subscriptions and rows what the view says. */
  #show(): void {
    const { symbols, chosen, sort } = this.#view;
    const wanted = new Set(symbols);
    for (const [symbol, { subscription }] of this.#instruments) {
      if (wanted.has(symbol)) continue;
      subscription.unsubscribe();
      this.#instruments.delete(symbol);
    }
    for (const symbol of symbols) if (!this.#instruments.has(symbol)) this.#subscribe(symbol);
    if (symbols.length > 0) this.#hasBegun = true;
    this.#sayWhyEmpty(false);
    this.#list.show(this.#ordered(), chosen, sort);
    this.#showChosen();
    this.#everything();
  }

  #subscribe(symbol: string): void {
    const instrument = new Instrument(symbol);
    const subscription = this.#client.subscribe(
      ['trade', 'quote'],
      symbol,
      {
        onGap: (gap) => this.#gap(instrument, gap),
        onStatus: ({ state }) => {
          instrument.state = state;
          this.#added.delete(symbol);
          if (lookOf(instrument.doubt(this.#standing)) === 'stale' && symbol === this.#view.chosen) this.#chart.hole();
          this.#touch(symbol);
        },
      },
      (tick) => this.#tick(instrument, tick),
    );
    this.#instruments.set(symbol, { instrument, subscription });
  }

  #tick(instrument: Instrument, tick: Tick): void {
    this.#health.received(tick);
    if (tick.type === 'trade') instrument.onTrade(tick, Date.now());
    else instrument.onQuote(tick, Date.now());
    if (instrument.symbol === this.#view.chosen) this.#chosenTick(instrument, tick);
    this.#touch(instrument.symbol);
  }

  #chosenTick(it: Instrument, tick: Tick): void {
    this.#beginPicture(it);
    if (!it.isDrawn(tick)) return;
    if (this.#chart.isEmpty) this.#setDigits(tick);
    const us = it.usOf(tick);
    if (tick.type === 'trade') {
      this.#chart.trade(tick, us);
      this.#tape.add(tick, us);
    } else {
      this.#chart.quote(tick, us);
    }
  }

  /** Chart and tape begin anew where what they are of does. True if they did. */
  #beginPicture(it: Instrument | undefined): boolean {
    const beginnings = it?.beginnings ?? 0;
    if (it === this.#shown.it && beginnings === this.#shown.beginnings) return false;
    this.#shown = { it, beginnings };
    this.#tape.clear();
    this.#chart.reset();
    return true;
  }

  /** What is recorded is not followed by what comes next: that is of another place, or another run of the gateway. */
  #elsewhere(): void {
    for (const { instrument } of this.#instruments.values()) if (instrument.isRecorded) instrument.begin();
    this.#everything();
  }

  #gap(instrument: Instrument, gap: Gap): void {
    instrument.onGap(gap);
    if (gap.why !== 'seek' && instrument.symbol === this.#view.chosen) {
      this.#beginPicture(instrument);
      if (gap.channel === 'trade') this.#tape.add(gap);
      else this.#chart.hole();
    }
    this.#touch(instrument.symbol);
  }

  #touch(symbol: string): void {
    this.#dirty.add(symbol);
    this.#ask();
  }

  /** For a frame in which something is drawn. */
  #ask(): void {
    this.#isAsked = true;
    this.#next();
  }

  #next(): void {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#each());
  }

  /**
   * Each frame, while anything may be shown as live: whatever the browser draws one for, and however long it drew none, what is late in
   * it says so. A timer would come when a busy page has time for it.
   */
  #each(): void {
    this.#frame = 0;
    this.#look();
    if (this.#isAsked) {
      this.#draw();
      // That takes time, too.
      if (this.#look()) this.#draw();
    }
    if (!this.#wasLate) this.#next();
  }

  /** True if what was told has become late, or is not any more. */
  #look(): boolean {
    const { isLate } = this.#client.delivery;
    if (isLate === this.#wasLate) return false;
    this.#wasLate = isLate;
    this.#everything();
    return true;
  }

  #everything(): void {
    for (const symbol of this.#instruments.keys()) this.#touch(symbol);
  }

  #draw(): void {
    this.#isAsked = false;
    const nowMs = Date.now();
    // What it was told of belongs to the connection that told it.
    for (const { instrument } of this.#instruments.values()) instrument.state = this.#client.state(instrument.symbol);
    const standing = this.#standing;
    const rowsWait = this.#list.draw(this.#dirty, standing, nowMs);
    this.#health.banner(banner(this.#ordered(), standing));
    this.#dirty.clear();
    this.#beginPicture(this.#instruments.get(this.#view.chosen ?? '')?.instrument);
    const chartsWait = this.#chart.draw(performance.now());
    if (rowsWait || chartsWait) this.#ask();
    this.#tape.draw();
    this.#drawTitle();
    this.#health.delivery(this.#client.delivery);
    this.#health.drawn(this.#client);
  }

  #second(): void {
    this.#health.second();
    this.#seconds += 1;
    if (!this.#hasBegun && this.#client.isOpen && this.#seconds % LOOK_S === 0) void this.#begin();
    if (this.#view.sort !== '') this.#list.arrange(this.#ordered(), this.#view.sort);
    // Ages go on where nothing comes.
    this.#everything();
    this.#list.sparksChanged();
  }

  get #standing(): Standing {
    const { isOpen: isLinked, gatewayTimeUs: gatewayUs } = this.#client;
    return { isLinked, isBehind: this.#health.isBehind, isLate: this.#wasLate, gatewayUs, replayUs: this.#replay.us };
  }

  #ordered(): Instrument[] {
    return this.#view.symbols.flatMap((symbol) => this.#instruments.get(symbol)?.instrument ?? []);
  }

  #drawTitle(): void {
    const it = this.#instruments.get(this.#view.chosen ?? '')?.instrument;
    const standing = this.#standing;
    const [why, look] = [it?.whyNotLive(standing) ?? '', lookOf(it?.doubt(standing))];
    const whose = it?.clock;
    const title = `${it?.symbol ?? ''} ${look} ${why} ${whose ?? ''}`;
    if (title === this.#title) return;
    this.#title = title;
    byId('symbol').textContent = it?.symbol ?? '';
    byId('why').textContent = why;
    byId('remove').hidden = it === undefined;
    byId('clock').textContent =
      whose === 'venue' ? "Times are the venue's, in UTC." : whose === 'gateway' ? "Times are the gateway's, in UTC: this venue sends none." : '';
    byId('chosen').classList.toggle('stale', look === 'stale');
  }

  /** Begins the picture of the chosen symbol, if it is another one than before. */
  #showChosen(): void {
    const it = this.#instruments.get(this.#view.chosen ?? '')?.instrument;
    const { span } = this.#view;
    if (this.#beginPicture(it) && it !== undefined) {
      for (const tick of [it.trade, it.quote]) if (tick !== undefined) this.#chosenTick(it, tick);
    }
    if (span === this.#spanShown) return;
    this.#spanShown = span;
    this.#chart.span(span);
    for (const button of byId('spans').querySelectorAll('button')) {
      button.setAttribute('aria-pressed', String(Number(button.dataset['span']) === span));
    }
  }

  /** The scale has as many digits as the prices have. */
  #setDigits(tick: Tick): void {
    const price = tick.type === 'trade' ? tick.price : (tick.bid ?? tick.ask ?? '');
    this.#chart.digits(Math.min(12, (price.split('.')[1] ?? '').length));
  }

  #choose(symbol: string): void {
    this.#list.focus(symbol);
    if (symbol === this.#view.chosen) return;
    this.#view.chosen = symbol;
    this.#changed();
    this.#list.focus(symbol);
  }

  #add(symbol: string): void {
    const { symbols } = this.#view;
    if (symbols.includes(symbol)) return this.#search.say(`${symbol} is in the list.`);
    if (symbols.length >= SYMBOLS_MAX) return this.#search.say(`The list is full: it holds ${SYMBOLS_MAX} symbols.`);
    symbols.push(symbol);
    this.#added.add(symbol);
    this.#view.chosen ??= symbol;
    this.#changed();
  }

  #sort(column: string): void {
    const { sort } = this.#view;
    this.#view.sort = sort === column ? `-${column}` : sort === `-${column}` ? '' : column;
    this.#changed();
  }

  #span(span: number): void {
    this.#view.span = span;
    this.#changed();
  }

  #spanButton(span: number): HTMLButtonElement {
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset['span'] = String(span);
    button.textContent = span < 60 ? `${span} s` : `${span / 60} min`;
    button.addEventListener('click', () => this.#span(span));
    return button;
  }

  #key(event: KeyboardEvent): void {
    if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey) return;
    const { key, altKey } = event;
    const span = SPANS[Number(key) - 1];
    const isArrow = key === 'ArrowUp' || key === 'ArrowDown';
    // They scroll the trades of who is there.
    if (isArrow && event.target instanceof Element && event.target.closest('#side .scroll') !== null) return;
    if (key === '/') byId('search').focus();
    else if (isArrow) this.#step(key === 'ArrowUp' ? -1 : 1, altKey);
    else if (key === 'Delete') this.#remove();
    else if (span !== undefined) this.#span(span);
    else return;
    event.preventDefault();
  }

  /** Chooses the next row, or moves the chosen one. */
  #step(by: -1 | 1, move: boolean): void {
    const { symbols, chosen, sort } = this.#view;
    const order = this.#list.arrange(this.#ordered(), sort).map(({ symbol }) => symbol);
    const at = order.indexOf(chosen ?? '');
    const other = order[at + by];
    if (chosen === undefined || other === undefined) return;
    if (!move) return this.#choose(other);
    // A list that is moved by hand is sorted by hand.
    symbols.splice(0, symbols.length, ...order);
    [symbols[at], symbols[at + by]] = [other, chosen];
    this.#view.sort = '';
    this.#changed();
    this.#list.focus(chosen);
  }

  #remove(): void {
    const { symbols, chosen } = this.#view;
    const at = symbols.indexOf(chosen ?? '');
    if (at < 0) return;
    symbols.splice(at, 1);
    this.#view.chosen = symbols[Math.min(at, symbols.length - 1)];
    this.#changed();
    if (this.#view.chosen !== undefined) this.#list.focus(this.#view.chosen);
  }

  #toggleTheme(): void {
    const dark = getComputedStyle(document.documentElement).getPropertyValue('--scheme').trim() === 'dark';
    const theme = dark ? 'light' : 'dark';
    const isTheSystems = theme === (LIGHT.matches ? 'light' : 'dark');
    // Who is back where the system is follows it again.
    if (isTheSystems) delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = theme;
    if (isTheSystems) localStorage.removeItem(THEME);
    else localStorage.setItem(THEME, theme);
    this.#takeTheme();
  }

  /** What is drawn by a script does not take the colours of the page by itself. */
  #takeTheme(): void {
    this.#chart.theme();
    this.#health.theme();
    this.#list.theme();
  }
}

new Page();
