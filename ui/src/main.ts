/** The page: one client, the state of each symbol, and what is on the screen. Drawing happens in animation frames. */

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
/** Seconds between checks for symbols while the page is empty. */
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
      // If there is a replay to control, its position follows immediately.
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
      // Sent before the ticks of the new place; not sent when a loop restarts, nor guaranteed for a slow page.
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
  /** Symbols added by the search that the gateway has not accepted or rejected yet. */
  readonly #added = new Set<string>();
  /** Whether symbols were shown once: an empty list after that was emptied by the user. */
  #hasBegun = false;
  #seconds = 0;
  /** Symbol of the chart and the tape, and the number of its restarts. */
  #shown: { readonly it: Instrument | undefined; readonly beginnings: number } = { it: undefined, beginnings: 0 };
  #spanShown = 0;
  #frame = 0;
  /** Whether the next frame must draw. */
  #isAsked = false;
  /** Whether the last frame was drawn as late. */
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

  /** Shows all available symbols, as many as fit, if none is selected yet. */
  async #begin(): Promise<void> {
    const symbols = await this.#client.symbols('*').catch(() => undefined);
    if (symbols === undefined || this.#view.symbols.length > 0) return;
    this.#hasBegun = symbols.length > 0;
    this.#view.symbols = symbols.slice(0, 12).map(({ symbol }) => symbol);
    this.#view.chosen = this.#view.symbols[0];
    this.#changed();
    this.#sayWhyEmpty(symbols.length === 0);
  }

  /** @param isNothing whether the gateway lists no symbols. */
  #sayWhyEmpty(isNothing: boolean): void {
    byId('empty').hidden = this.#view.symbols.length > 0 || !(isNothing || this.#hasBegun);
    byId('empty').textContent = isNothing
      ? 'No symbols yet: neither a feed nor a publisher has told the gateway of one. Publish a tick, and it is shown here by itself.'
      : 'The list is empty. Add a symbol with the search above.';
  }

  /**
   * Handles a symbol that the gateway rejects. One that was just added is removed; one from the URL stays and shows the
   * reason.
   */
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

  /** Handles a new connection: symbols rejected on the last one are requested again. */
  #opened(): void {
    for (const { instrument } of this.#instruments.values()) instrument.refusal = undefined;
    if (this.#view.symbols.length === 0 && !this.#hasBegun) void this.#begin();
  }

  /** Updates subscriptions and rows to match the view. */
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

  /** Restarts chart and tape if their symbol has restarted. Returns true if so. */
  #beginPicture(it: Instrument | undefined): boolean {
    const beginnings = it?.beginnings ?? 0;
    if (it === this.#shown.it && beginnings === this.#shown.beginnings) return false;
    this.#shown = { it, beginnings };
    this.#tape.clear();
    this.#chart.reset();
    return true;
  }

  /**
   * Marks that recorded symbols do not continue: the next data is of another place, or of another run of the gateway.
   */
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

  /** Requests a frame that draws. */
  #ask(): void {
    this.#isAsked = true;
    this.#next();
  }

  #next(): void {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#each());
  }

  /**
   * Runs in each frame while anything may be shown as live. Every frame that the browser draws therefore shows late
   * data as late, regardless of the time since the last frame. A timer would be delayed in a busy page.
   */
  #each(): void {
    this.#frame = 0;
    this.#look();
    if (this.#isAsked) {
      this.#draw();
      // Drawing takes time as well.
      if (this.#look()) this.#draw();
    }
    if (!this.#wasLate) this.#next();
  }

  /** Returns true if the data has become late, or is no longer late. */
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
    // The state of a symbol belongs to the connection that reported it.
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
    // Ages advance without new data.
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

  /** Restarts the chart if the selected symbol has changed. */
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

  /** Sets the scale to as many decimals as the prices have. */
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
    // The arrow keys scroll the tape while it has the focus.
    if (isArrow && event.target instanceof Element && event.target.closest('#side .scroll') !== null) return;
    if (key === '/') byId('search').focus();
    else if (isArrow) this.#step(key === 'ArrowUp' ? -1 : 1, altKey);
    else if (key === 'Delete') this.#remove();
    else if (span !== undefined) this.#span(span);
    else return;
    event.preventDefault();
  }

  /** Selects the adjacent row, or moves the selected one. */
  #step(by: -1 | 1, move: boolean): void {
    const { symbols, chosen, sort } = this.#view;
    const order = this.#list.arrange(this.#ordered(), sort).map(({ symbol }) => symbol);
    const at = order.indexOf(chosen ?? '');
    const other = order[at + by];
    if (chosen === undefined || other === undefined) return;
    if (!move) return this.#choose(other);
    // Moving a row switches to manual order.
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
    // A return to the system's theme follows the system again.
    if (isTheSystems) delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = theme;
    if (isTheSystems) localStorage.removeItem(THEME);
    else localStorage.setItem(THEME, theme);
    this.#takeTheme();
  }

  /** Elements drawn by scripts do not adopt the colours of the page automatically. */
  #takeTheme(): void {
    this.#chart.theme();
    this.#health.theme();
    this.#list.theme();
  }
}

new Page();
