/** How the page itself is doing: the link, how far behind it is, and how old what it draws is. */

import type { Client, Lag, Level, LinkEvent, Tick } from 'tickfan-client';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

/** Seconds of latency that are shown. */
const SECONDS = 60;
/** Latencies of one second that are looked at; of more, some by chance. */
const SAMPLES_MAX = 2_000;

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
  /** What was received since the last frame: its latency is known when it is drawn. */
  #fresh: Tick[] = [];
  readonly #data: [number[], (number | null)[], (number | null)[]] = [[], [], []];

  constructor(place: HTMLElement) {
    const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: () => css('--dim'), grid: { stroke: () => css('--line'), width: 1 }, font: '11px system-ui', size: 44 };
    this.#plot = new uPlot(
      {
        ...{ width: place.clientWidth || 300, height: 130, legend: { show: false }, cursor: { show: false } },
        // A minute, from the first second on.
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
    if (event.state === 'open') {
      // Until the gateway says otherwise.
      put('lag', 'ok');
    }
    if (event.state === 'lost' || event.state === 'closed') {
      this.#heartbeatMs = undefined;
      this.#level = 'ok';
      delete element('lag')?.dataset['level'];
      put('lag', '–');
    }
  }

  /** What is said of recorded prices. */
  banner(text: string): void {
    put('feed', text);
  }

  /** The gateway sheds this page: what it was told last is old. */
  get isBehind(): boolean {
    return this.#level === 'shed' || this.#level === 'cut';
  }

  lag({ level, behind_ms, merged, dropped }: Lag): void {
    this.#level = level;
    const it = element('lag');
    if (it !== null) it.dataset['level'] = level;
    put('lag', level === 'ok' ? 'ok' : `${level} ${(behind_ms / 1000).toFixed(1)} s`);
    put('merged', String(merged));
    put('dropped', String(dropped));
  }

  heartbeat(nowMs: number): void {
    this.#heartbeatMs = nowMs;
  }

  broken(): void {
    put('broken', String(++this.#broken));
  }

  received(tick: Tick): void {
    this.#seen += 1;
    // A snapshot is as old as it is.
    if (tick.snap) return;
    if (this.#fresh.length < SAMPLES_MAX) this.#fresh.push(tick);
    else this.#fresh[Math.floor(Math.random() * SAMPLES_MAX)] = tick;
  }

  /** A frame was drawn: what had come is on the screen. */
  drawn(client: Client): void {
    const first = this.#fresh[0];
    // Asked once for all of them: they are seen at the same moment.
    const ageMs = first === undefined ? undefined : client.ageMs(first);
    if (first !== undefined && ageMs !== undefined) {
      const room = Math.max(0, SAMPLES_MAX - this.#samples.length);
      for (const { rx } of this.#fresh.slice(0, room)) this.#samples.push(ageMs + (first.rx - rx) / 1000);
    }
    this.#fresh = [];
  }

  second(nowMs: number): void {
    put('heartbeat', this.#heartbeatMs === undefined ? '–' : `${Math.round((nowMs - this.#heartbeatMs) / 1000)} s`);
    put('rate', String(this.#seen));
    this.#seen = 0;
    const sorted = this.#samples.sort((a, b) => a - b);
    const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? null;
    const [middle, worst] = [at(0.5), at(0.99)];
    put('latency', middle === null || worst === null ? '–' : `${middle.toFixed(1)} / ${worst.toFixed(1)} ms`);
    this.#samples = [];
    // A second without ticks is a hole.
    [nowMs / 1000, middle, worst].forEach((value, i) => {
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
