/** Many symbols, many updates: what a frame of the page costs then. */

import type { TestContext } from 'node:test';
import { Gateway, keep, PATIENT, until } from '../../../clients/ts/test/gateway.js';
import { PlainPage } from './plain.js';

/** What is published. */
export interface Load {
  readonly symbols: number;
  /** Ticks a second, over all symbols: as many quotes as trades. */
  readonly rate: number;
}

/** One frame, milliseconds. */
interface Frame {
  /** Since the frame before it. */
  readonly interval: number;
  /** Reading messages since the frame before it. */
  readonly messages: number;
  /** In animation callbacks: the page's own, and those of its charts. */
  readonly script: number;
  /** From the first callback until style, layout and paint were done, and whatever came between. */
  readonly whole: number;
}

/** In the page: measures every frame, and the reading of messages. */
function watchFrames(): void {
  const frames: Frame[] = [];
  const watch = { frames, messages: 0 };
  Object.assign(globalThis, { watch });
  let read = 0;
  // The page reads its socket itself, or a worker does and hands over what has gathered.
  for (const source of [WebSocket.prototype, Worker.prototype]) {
    const onmessage = Object.getOwnPropertyDescriptor(source, 'onmessage');
    Object.defineProperty(source, 'onmessage', {
      set(listener: ((event: MessageEvent) => void) | null) {
        const timed = (event: MessageEvent) => {
          const begin = performance.now();
          listener?.call(this, event);
          read += performance.now() - begin;
          watch.messages += (event.data as { messages?: unknown[] }).messages?.length ?? 1;
        };
        onmessage?.set?.call(this, listener === null ? null : timed);
      },
    });
  }
  const real = requestAnimationFrame.bind(globalThis);
  const behind = new MessageChannel();
  let now = { at: 0, begin: 0, interval: 0, messages: 0, script: 0 };
  // What is posted in an animation callback comes when the frame has been made.
  behind.port1.onmessage = () => {
    if (now.interval > 0) frames.push({ interval: now.interval, messages: now.messages, script: now.script, whole: performance.now() - now.begin });
  };
  globalThis.requestAnimationFrame = (callback) =>
    real((at) => {
      const begin = performance.now();
      if (at !== now.at) {
        now = { at, begin, interval: now.at === 0 ? 0 : at - now.at, messages: read, script: 0 };
        read = 0;
        behind.port2.postMessage(0);
      }
      callback(at);
      now.script += performance.now() - begin;
    });
}

/** What the browser counts of the page's main thread, since it was opened: seconds that it ran, bytes, pieces. */
export interface Counted {
  readonly ScriptDuration: number;
  readonly LayoutDuration: number;
  readonly RecalcStyleDuration: number;
  readonly TaskDuration: number;
  readonly JSHeapUsedSize: number;
  readonly Nodes: number;
}

/** A page under load. */
export class Loaded {
  #timer: NodeJS.Timeout | undefined;

  private constructor(readonly page: PlainPage) {}

  /** Starts a gateway, something that publishes, and a page that shows all of it. Without a test, they end with the process. */
  static async start(t: TestContext | undefined, { symbols, rate }: Load): Promise<Loaded> {
    const held = <T extends { close(): unknown }>(it: T) => (t === undefined ? it : keep(t, it));
    const gateway = held(await Gateway.publishing(PATIENT));
    const publisher = held(await gateway.publisher());
    const names = Array.from({ length: symbols }, (_, i) => `demo:S${String(i).padStart(3, '0')}`);
    publisher.ticks(names, 1);
    const loaded = held(new Loaded(held(await PlainPage.start(watchFrames))));
    // Time that the thread ran: what else the machine did is not in it.
    await loaded.page.send('Performance.enable', { timeDomain: 'threadTicks' });
    await loaded.page.send('Page.navigate', { url: `http://${gateway.address}/#s=${names.join(',')}&c=${names[0]}` });
    const live = () => loaded.page.evaluate(() => document.querySelectorAll('#rows tr:not(.stale)').length, undefined);
    await until('every symbol is live', async () => (await live()) === symbols);
    loaded.#publish(publisher.socket, names, rate);
    return loaded;
  }

  /** Prices that move, each tick another one; as many as are due, however late the timer is. */
  #publish(socket: { write(text: string): unknown }, names: readonly string[], rate: number): void {
    const begin = performance.now();
    let sent = 0;
    this.#timer = setInterval(() => {
      const due = Math.min(((performance.now() - begin) / 1000) * rate, sent + rate);
      const lines: string[] = [];
      for (; sent < due; sent++) {
        // All over the list: a prime number apart.
        const symbol = names[(Math.floor(sent / 2) * 107) % names.length];
        const price = 100 + 10 * Math.sin(sent / 5000) + (sent % 7) / 100;
        if (sent % 2 === 0) lines.push(JSON.stringify({ type: 'trade', symbol, price: price.toFixed(2), size: String(1 + (sent % 90)), side: sent % 3 === 0 ? 'buy' : 'sell', ts: Date.now() * 1000 }));
        else lines.push(JSON.stringify({ type: 'quote', symbol, bid: price.toFixed(2), bid_size: '5', ask: (price + 0.02).toFixed(2), ask_size: '7', ts: Date.now() * 1000 }));
      }
      if (lines.length > 0) socket.write(`${lines.join('\n')}\n`);
    }, 10);
  }

  /** What the browser counts, without what is garbage. */
  async counted(): Promise<Counted> {
    await this.page.send('HeapProfiler.collectGarbage');
    const { metrics } = await this.page.send('Performance.getMetrics');
    return Object.fromEntries((metrics as { name: string; value: number }[]).map(({ name, value }) => [name, value])) as unknown as Counted;
  }

  /** The frames and the number of messages since this was last asked. */
  frames(): Promise<{ frames: Frame[]; messages: number }> {
    return this.page.evaluate(() => {
      const { watch } = globalThis as unknown as { watch: { frames: Frame[]; messages: number } };
      const { frames, messages } = watch;
      watch.messages = 0;
      return { frames: frames.splice(0), messages };
    }, undefined);
  }

  text(id: string): Promise<string> {
    return this.page.evaluate((id) => document.getElementById(id)?.textContent ?? '', id);
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
