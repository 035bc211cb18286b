/** Status of the page itself: the link, the delay of its data, and the age of what is drawn. */

import type { Client, Delivery, Lag, LateReason, Level, LinkEvent, Tick } from 'tickfan-client';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

/** Seconds of latency that are plotted. */
const SECONDS = 60;
/** Most latencies per second that are evaluated; a random sample if there are more. */
const SAMPLES_MAX = 2_000;

/** Text for each reason why data may be old. A lost link is shown by the link itself. */
const LATE: Readonly<Record<LateReason, string>> = {
  lost: '',
  new: 'late: the gateway has not answered yet',
  silent: 'late: the gateway or the network is silent',
  slow: 'late: the network is slow',
  busy: 'late: this tab is busy',
  shed: 'behind: this tab or the network does not keep up',
  catching_up: 'late: catching up',
};

const element = (id: string) => document.getElementById(id);

function put(id: string, text: string): void {
  const it = element(id);
  if (it !== null && it.textContent !== text) it.textContent = text;
}

export class Health {
  #plot: uPlot;
  #samples: number[] = [];
  #seen = 0;
  #broken = 0;
  #heartbeatMs: number | undefined;
  #level: Level = 'ok';
  /** Age of the oldest queued message at the last report of the level, milliseconds. */
  #levelMs = 0;
  /** Ticks received since the last frame; their latency is known once they are drawn. */
  #fresh: Tick[] = [];
  readonly #data: [number[], (number | null)[], (number | null)[]] = [[], [], []];

  constructor(place: HTMLElement) {
    const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: () => css('--dim'), grid: { stroke: () => css('--line'), width: 1 }, font: '11px system-ui', size: 44 };
    this.#plot = new uPlot(
      {
        ...{ width: place.clientWidth || 300, height: 130, legend: { show: false }, cursor: { show: false } },
        // The axis covers a minute from the start.
        scales: { x: { range: (_, __, max) => [(max ?? Date.now() / 1000) - SECONDS, max ?? Date.now() / 1000] } },
        axes: [{ ...axis, size: 24 }, { ...axis, size: 48, values: (_, ticks) => ticks.map(String) }],
        series: [{}, ...['--up', '--down'].map((name) => ({ stroke: () => css(name), width: 1, points: { show: false } }))],
      },
      this.#data,
      place,
    );
    new ResizeObserver(() => this.#plot.setSize({ width: place.clientWidth, height: 130 })).observe(place);
  }

  link(event: LinkEvent): void {
    const it = element('link');
    if (it === null) return;
    it.dataset['state'] = event.state;
    it.textContent = event.state === 'lost' ? `lost: ${event.why}` : event.state === 'closed' ? `closed: ${event.why}` : event.state;
    // The counts are those of this connection.
    const isOpen = event.state === 'open';
    [this.#heartbeatMs, this.#level, this.#broken, this.#seen] = [undefined, 'ok', 0, 0];
    [this.#fresh, this.#samples] = [[], []];
    for (const id of ['merged', 'dropped', 'broken']) put(id, isOpen ? '0' : '–');
    put('heartbeat', '–');
  }

  /** Shows whether the displayed data is current, and the reason if not. */
  delivery({ isLate, why, behindMs }: Delivery): void {
    const it = element('lag');
    if (it === null) return;
    // The gateway does not know about delays on the way to the page, or its own hangs.
    const isSilent = this.#level === 'ok' || this.#level === 'warn';
    const level = isLate && isSilent ? 'late' : this.#level;
    const ms = level === 'late' ? behindMs : this.#levelMs;
    if (it.dataset['level'] !== level) it.dataset['level'] = level;
    put('lag', why === 'lost' ? '–' : level === 'ok' ? 'ok' : ms === Infinity ? level : `${level} ${(ms / 1000).toFixed(1)} s`);
    put('late', why === 'silent' && !navigator.onLine ? 'late: this machine is offline' : why === undefined ? '' : LATE[why]);
  }

  /** Shows the text about recorded prices. */
  banner(text: string): void {
    put('feed', text);
  }

  /** Whether the gateway sheds this page, so that its data is old. */
  get isBehind(): boolean {
    return this.#level === 'shed' || this.#level === 'cut';
  }

  lag({ level, behind_ms, merged, dropped }: Lag): void {
    [this.#level, this.#levelMs] = [level, behind_ms];
    put('merged', String(merged));
    put('dropped', String(dropped));
  }

  /** @param nowMs of a monotonic clock. */
  heartbeat(nowMs: number): void {
    this.#heartbeatMs = nowMs;
  }

  broken(): void {
    put('broken', String(++this.#broken));
  }

  received(tick: Tick): void {
    this.#seen += 1;
    // The age of a snapshot is not a latency.
    if (tick.snap) return;
    if (this.#fresh.length < SAMPLES_MAX) this.#fresh.push(tick);
    else this.#fresh[Math.floor(Math.random() * SAMPLES_MAX)] = tick;
  }

  /** A frame was drawn, with the data received before it. */
  drawn(client: Client): void {
    const first = this.#fresh[0];
    // Read once for all of them, because they appear at the same moment.
    const ageMs = first === undefined ? undefined : client.ageMs(first);
    if (first !== undefined && ageMs !== undefined) {
      const room = Math.max(0, SAMPLES_MAX - this.#samples.length);
      for (const { rx } of this.#fresh.slice(0, room)) this.#samples.push(ageMs + (first.rx - rx) / 1000);
    }
    this.#fresh = [];
  }

  second(): void {
    const heartbeatMs = this.#heartbeatMs === undefined ? undefined : performance.now() - this.#heartbeatMs;
    put('heartbeat', heartbeatMs === undefined ? '–' : `${Math.round(heartbeatMs / 1000)} s`);
    put('rate', String(this.#seen));
    this.#seen = 0;
    const sorted = this.#samples.sort((a, b) => a - b);
    const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? null;
    const [middle, worst] = [at(0.5), at(0.99)];
    put('latency', middle === null || worst === null ? '–' : `${middle.toFixed(1)} / ${worst.toFixed(1)} ms`);
    this.#samples = [];
    // A second without ticks leaves a hole.
    [Date.now() / 1000, middle, worst].forEach((value, i) => {
      const series = this.#data[i] as (number | null)[];
      series.push(value);
      if (series.length > SECONDS) series.shift();
    });
    this.#plot.setData(this.#data);
  }

  theme(): void {
    this.#plot.redraw();
  }
}
