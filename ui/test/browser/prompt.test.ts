/**
 * Nothing that is drawn as live is older than 2.5 s, whatever hangs. Each price is a name for the moment when it was published; in
 * the page every frame is looked at when it is drawn, and held against what had been published by then.
 */

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { WebSocket as Independent } from 'ws';
import { Gateway, keep, PATIENT, Proxy, until, type Publisher } from '../../../clients/ts/test/gateway.js';
import { NO_GATEWAY, Screen } from './browser.js';

const options = { timeout: 300_000 };
const BOUND_MS = 2_500;
const SYMBOLS = Array.from({ length: 12 }, (_, i) => `demo:S${i}`);
const HASH = `#s=${SYMBOLS.join()}&c=${SYMBOLS[0]}`;

/** One row of one frame: when it was drawn, by the machine's clock, and the last price of what was shown as live. */
type Seen = readonly [drawnMs: number, symbol: string, price: string];

interface Watched {
  readonly seen: Seen[];
  frames: number;
  /** Frames in which no row was live. */
  doubted: number;
  /** What the header gave as the reason, in frames. */
  readonly reasons: Record<string, number>;
}

/** In the page: looks at each frame after all animation callbacks and the layout, which is when resizes are told. */
function watchFrames(): void {
  const watched: Watched = { seen: [], frames: 0, doubted: 0, reasons: {} };
  Object.assign(globalThis, { watched });
  addEventListener('DOMContentLoaded', () => {
    const probe = document.createElement('div');
    probe.style.cssText = 'position:fixed;left:0;top:0;height:1px;width:1px;visibility:hidden';
    document.body.append(probe);
    new ResizeObserver(() => {
      const drawnMs = Date.now();
      const rows = [...document.querySelectorAll('#rows tr:not(.stale)')] as HTMLElement[];
      watched.frames += 1;
      if (rows.length === 0) watched.doubted += 1;
      const why = document.getElementById('late')?.textContent ?? '';
      if (why !== '') watched.reasons[why] = (watched.reasons[why] ?? 0) + 1;
      for (const row of rows) {
        const price = row.querySelector('[data-column="last"]')?.textContent ?? '';
        if (price !== '') watched.seen.push([drawnMs, row.dataset['symbol'] ?? '', price]);
      }
    }).observe(probe);
    let isWide = false;
    const each = () => {
      isWide = !isWide;
      probe.style.width = isWide ? '2px' : '1px';
      requestAnimationFrame(each);
    };
    each();
  });
}

/** Publishes, and knows when. */
class Truth {
  /** Of each symbol, the prices in order, and when each was there: when the gateway had it, or while it hangs, when it was sent. */
  readonly #published = new Map<string, { readonly price: string; readonly sentMs: number }[]>(SYMBOLS.map((symbol) => [symbol, []]));
  readonly #received = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #hungMs = Infinity;
  #goesOnMs = Infinity;
  #count = 0;

  /** @param everyMs each symbol gets a trade so often. */
  static async start(t: TestContext, gateway: Gateway, everyMs: number): Promise<Truth> {
    const truth = keep(t, new Truth());
    // Somebody else, who says when the gateway received each. On the same machine all go by the same clock.
    const witness = new Independent(`${gateway.ws}?symbols=*&channel=trade`);
    keep(t, { close: () => witness.terminate() });
    witness.on('message', (data) => {
      const { type, symbol, price, rx } = JSON.parse(String(data)) as { type: string; symbol: string; price: string; rx: number };
      if (type === 'trade') truth.#received.set(`${symbol} ${price}`, rx / 1000);
    });
    await new Promise((resolve, reject) => witness.once('open', resolve).once('error', reject));
    truth.#publish(keep(t, await gateway.publisher()), everyMs);
    return truth;
  }

  #publish({ socket }: Publisher, everyMs: number): void {
    this.#timer = setInterval(() => {
      const sentMs = Date.now();
      const lines: string[] = [];
      for (const symbol of SYMBOLS) {
        const price = `${++this.#count}.5`;
        this.#published.get(symbol)?.push({ price, sentMs });
        lines.push(JSON.stringify({ type: 'trade', symbol, price, size: '1' }));
        lines.push(JSON.stringify({ type: 'quote', symbol, bid: `${this.#count}.4`, ask: `${this.#count}.6`, bid_size: '1', ask_size: '1' }));
      }
      socket.write(`${lines.join('\n')}\n`);
    }, everyMs);
  }

  /** From now on the gateway hangs: what is published counts from when it is sent. */
  hangs(): void {
    this.#hungMs = Date.now();
  }

  /** It does not hang any more. */
  goesOn(): void {
    this.#goesOnMs = Date.now();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** How old what was shown was: since when there was a newer price, milliseconds. */
  ageMs([drawnMs, symbol, price]: Seen): number {
    const all = this.#published.get(symbol) ?? [];
    const at = all.findIndex((one) => one.price === price);
    assert.ok(at >= 0, `${symbol} ${price} was never published`);
    const next = all[at + 1];
    if (next === undefined) return 0;
    // What was on its way to a gateway that works is not on its way to the page.
    const isHung = next.sentMs >= this.#hungMs && drawnMs < this.#goesOnMs;
    const sinceMs = isHung ? next.sentMs : (this.#received.get(`${symbol} ${next.price}`) ?? Infinity);
    return Math.max(0, drawnMs - sinceMs);
  }
}

const watched = ({ page }: Screen) => page.evaluate(() => (globalThis as unknown as { watched: Watched }).watched);

/** Holds everything that was drawn against what was true. */
async function assertPrompt(t: TestContext, screen: Screen, truth: Truth): Promise<Watched> {
  const all = await watched(screen);
  const ages = all.seen.map((seen) => truth.ageMs(seen));
  const oldest = Math.max(0, ...ages);
  t.diagnostic(`${all.frames} frames, ${all.doubted} without a live row; of ${ages.length} live prices the oldest was ${Math.round(oldest)} ms old; ${JSON.stringify(all.reasons)}`);
  assert.ok(all.seen.length > 0, 'nothing was ever live');
  assert.ok(oldest <= BOUND_MS, `a price was drawn as live that was ${oldest} ms old`);
  return all;
}

/** Waits until every row is late, and the header says so for this reason. */
async function untilLate(screen: Screen, why: RegExp): Promise<void> {
  await screen.untilAll('late', SYMBOLS.length);
  await until('the header says why', async () => why.test(await screen.text('late')));
  assert.match(await screen.text('lag'), /^late \d+\.\d s$/);
  assert.match(await screen.text('why'), /^not live: late$/);
  assert.equal(await screen.text('link'), 'open');
}

test('a gateway that hangs: nothing is live that is older than 2.5 s', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const truth = await Truth.start(t, gateway, 20);
  const screen = await Screen.open(t, gateway.address, HASH, undefined, watchFrames);
  await screen.untilLive(SYMBOLS.length);
  truth.hangs();
  gateway.process.kill('SIGSTOP');
  try {
    await untilLate(screen, /the gateway or the network is silent/);
    const { frames } = await watched(screen);
    await until('frames are drawn', async () => (await watched(screen)).frames > frames + 10);
    const ages = Object.values(await screen.rows()).map((cells) => cells['age'] ?? '');
    for (const age of ages) assert.match(age, /^\d+ s$/, 'an old price says how old it is');
  } finally {
    truth.goesOn();
    gateway.process.kill('SIGCONT');
  }
  await screen.untilLive(SYMBOLS.length);
  await until('the header does not say so any more', async () => (await screen.text('late')) === '');
  const { doubted } = await assertPrompt(t, screen, truth);
  assert.ok(doubted > 0);
  assert.equal(await screen.text('broken'), '0');
  screen.assertClean(NO_GATEWAY);
});

test('a cable that is pulled: nothing is live that is older than 2.5 s', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const road = keep(t, await Proxy.to(gateway.address));
  const truth = await Truth.start(t, gateway, 20);
  const screen = await Screen.open(t, new URL(road.url).host, HASH, undefined, watchFrames);
  await screen.untilLive(SYMBOLS.length);
  road.hold();
  await untilLate(screen, /the gateway or the network is silent/);
  road.release();
  await screen.untilLive(SYMBOLS.length);
  await assertPrompt(t, screen, truth);
  assert.equal(await screen.text('broken'), '0');
  screen.assertClean(NO_GATEWAY);
});

test('a browser that is offline says so', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const road = keep(t, await Proxy.to(gateway.address));
  const publisher = keep(t, await gateway.publisher());
  publisher.ticks(SYMBOLS, 1);
  const screen = await Screen.open(t, new URL(road.url).host, HASH);
  await screen.untilLive(SYMBOLS.length);
  road.hold();
  await screen.page.context().setOffline(true);
  await untilLate(screen, /this machine is offline/);
  await screen.page.context().setOffline(false);
  road.release();
  await screen.untilLive(SYMBOLS.length);
  screen.assertClean(NO_GATEWAY);
});

test('what is quiet is live, and says how old its price is', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const publisher = keep(t, await gateway.publisher());
  publisher.ticks(SYMBOLS, 1);
  const screen = await Screen.open(t, gateway.address, HASH);
  await screen.untilLive(SYMBOLS.length);
  await until('the prices have an age', async () => Object.values(await screen.rows()).every((cells) => /^([3-9]|\d\d) s$/.test(cells['age'] ?? '')));
  // A machine that is too slow for its own pings has it late now and then.
  await screen.untilLive(SYMBOLS.length);
  // Whoever comes now is told a price of seconds ago.
  const other = await Screen.open(t, gateway.address, HASH);
  await other.untilLive(SYMBOLS.length);
  await until('it has an age, too', async () => Object.values(await other.rows()).every((cells) => /^\d+ s$/.test(cells['age'] ?? '')));
  screen.assertClean();
});

/** Makes the page slow for a while, with more to read than it has time for; then lets it go. */
async function slowed(t: TestContext, begin: (screen: Screen) => Promise<unknown>, end: (screen: Screen) => Promise<unknown>): Promise<void> {
  const gateway = keep(t, await Gateway.publishing(PATIENT));
  const truth = await Truth.start(t, gateway, 4);
  const screen = await Screen.open(t, gateway.address, HASH, undefined, watchFrames);
  await screen.untilLive(SYMBOLS.length);
  await begin(screen);
  await new Promise((resolve) => setTimeout(resolve, 15_000));
  await end(screen);
  truth.close();
  await screen.untilLive(SYMBOLS.length);
  await assertPrompt(t, screen, truth);
  assert.equal(await screen.text('broken'), '0');
  screen.assertClean();
}

test('a tab that is busy for 95 % of the time: nothing is live that is older than 2.5 s', options, async (t) => {
  const busy = ({ page }: Screen) =>
    page.evaluate(() => {
      const state = { isBusy: true };
      Object.assign(globalThis, { state });
      const block = () => {
        if (!state.isBusy) return;
        for (const end = performance.now() + 285; performance.now() < end;);
        setTimeout(block, 15);
      };
      block();
    });
  await slowed(t, busy, ({ page }) => page.evaluate(() => void ((globalThis as unknown as { state: { isBusy: boolean } }).state.isBusy = false)));
});

test('a processor that is 20 times slower: nothing is live that is older than 2.5 s', options, async (t) => {
  const throttle = (rate: number) => async (screen: Screen) => {
    const session = await screen.page.context().newCDPSession(screen.page);
    await session.send('Emulation.setCPUThrottlingRate', { rate });
  };
  await slowed(t, throttle(20), throttle(1));
});

test('a tab that was blocked for long: the first frame doubts what it shows, and the header says why', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const truth = await Truth.start(t, gateway, 20);
  const screen = await Screen.open(t, gateway.address, HASH, undefined, watchFrames);
  await screen.untilLive(SYMBOLS.length);
  const said = await screen.page.evaluate(() => {
    const late = document.getElementById('late') as HTMLElement;
    const reasons = [late.textContent ?? ''];
    new MutationObserver(() => reasons.push(late.textContent ?? '')).observe(late, { childList: true, characterData: true, subtree: true });
    for (const end = performance.now() + 4_000; performance.now() < end;);
    return new Promise<string[]>((resolve) => setTimeout(() => resolve(reasons), 1_000));
  });
  assert.ok(said.includes('late: this tab is busy'), JSON.stringify(said));
  await screen.untilLive(SYMBOLS.length);
  const { doubted } = await assertPrompt(t, screen, truth);
  assert.ok(doubted > 0);
  screen.assertClean();
});

test('a recording that comes late says so', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...PATIENT.flatMap((key) => ['--set', key]), 'feeds/coinbase.zst']));
  const screen = await Screen.open(t, gateway.address);
  await screen.untilReplayed(3);
  gateway.process.kill('SIGSTOP');
  try {
    await screen.untilAll('late', 3);
    assert.match(await screen.text('why'), /^not live: recorded 2024-05-01, late$/);
  } finally {
    gateway.process.kill('SIGCONT');
  }
  await screen.untilReplayed(3);
  screen.assertClean(NO_GATEWAY);
});

test('what is counted is of this connection', options, async (t) => {
  const keys = ['session.outbox_bytes_max=32768', 'session.cut_after_ms=3600000', 'session.dead_peer_ms=3700000'];
  const gateway = keep(t, await Gateway.publishing(keys));
  const road = keep(t, await Proxy.to(gateway.address));
  const publisher = keep(t, await gateway.publisher());
  publisher.ticks(SYMBOLS, 1);
  const screen = await Screen.open(t, new URL(road.url).host, HASH);
  await screen.untilLive(SYMBOLS.length);
  // What fills the kernels on the way is through in time, whatever the machine does besides.
  road.bytesPerSecond = 200_000;
  await until('some are dropped', async () => {
    publisher.trades(SYMBOLS[0] ?? '', 500);
    return Number(await screen.text('dropped')) > 0;
  });
  road.bytesPerSecond = Infinity;
  gateway.process.kill('SIGKILL');
  await until('nothing is counted without a connection', async () => (await screen.text('dropped')) === '–');
  // Another run of it, in which nothing is dropped.
  const other = keep(t, await Gateway.publishing(PATIENT, gateway.address));
  keep(t, await other.publisher()).ticks(SYMBOLS, 1);
  await screen.untilLive(SYMBOLS.length);
  assert.deepEqual([await screen.text('merged'), await screen.text('dropped'), await screen.text('broken')], ['0', '0', '0']);
  screen.assertClean(NO_GATEWAY);
});
