/** What somebody sees and does on the page, against the real gateway. */

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { WebSocket as Independent } from 'ws';
import { Gateway, keep, PATIENT, Proxy, settings, until } from '../../../clients/ts/test/gateway.js';
import { DESKTOP, NO_GATEWAY, Screen } from './browser.js';

const options = { timeout: 300_000 };
const FEEDS = ['coinbase', 'binance-futures', 'kraken'].map((name) => `feeds/${name}.zst`);
const BTC = 'coinbase:BTC-USD';

const shipped = async (t: TestContext, ...more: string[]) => keep(t, await Gateway.start(['replay', ...more, ...settings(PATIENT), ...FEEDS]));

type Message = Readonly<Record<string, string>>;

/** A client that is not ours: the newest trade and quote of each symbol, as they came. */
async function independent(t: TestContext, gateway: Gateway): Promise<Map<string, { trade?: Message; quote?: Message }>> {
  const newest = new Map<string, { trade?: Message; quote?: Message }>();
  const socket = new Independent(`${gateway.ws}?symbols=*`);
  keep(t, { close: () => socket.terminate() });
  socket.on('message', (data) => {
    const message = JSON.parse(String(data)) as Message;
    const { type = '', symbol = '' } = message;
    if (type === 'trade' || type === 'quote') newest.set(symbol, { ...newest.get(symbol), [type]: message });
  });
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  return newest;
}

test('it opens without a complaint, asks no other host, and prices move', options, async (t) => {
  const gateway = await shipped(t, '--loop');
  const screen = await Screen.open(t, gateway.address);
  await screen.untilReplayed(9);
  assert.equal(await screen.text('link'), 'open');
  assert.match(await screen.text('feed'), /REPLAY/);
  const before = await screen.rows();
  await until('every price has moved', async () => {
    const now = await screen.rows();
    return Object.entries(before).every(([symbol, cells]) => now[symbol]?.['bid'] !== cells['bid'] && now[symbol]?.['last'] !== cells['last']);
  });
  assert.equal(await screen.text('broken'), '0');
  screen.assertClean();
});

test('a browser that cannot read the socket in a worker reads it in the page', options, async (t) => {
  const gateway = await shipped(t, '--loop');
  const without = {
    stream: () => void Reflect.deleteProperty(globalThis, 'WebSocketStream'),
    script: () => {
      // As where the script cannot be had: after a moment, and each time.
      class Lost {
        onerror?: () => void;
        constructor() {
          setTimeout(() => this.onerror?.(), 10);
        }
        postMessage(): void {}
        terminate(): void {}
      }
      Object.assign(globalThis, { Worker: Lost });
    },
  };
  for (const lacks of Object.values(without)) {
    const screen = await Screen.open(t, gateway.address, '', DESKTOP, lacks);
    await screen.untilReplayed(9);
    assert.equal(screen.page.workers().length, 0);
    assert.equal(await screen.text('broken'), '0');
    screen.assertClean();
  }
  const screen = await Screen.open(t, gateway.address);
  await screen.untilReplayed(9);
  assert.equal(screen.page.workers().length, 1, 'the others were without one');
});

test('what it shows in the end is what another client was sent', options, async (t) => {
  // Both are there before the first tick.
  const gateway = await shipped(t, '--speed', '20', '--wait-subscribers', '2');
  const newest = await independent(t, gateway);
  const screen = await Screen.open(t, gateway.address);
  await until('the replay has ended', async () => (await (await fetch(`http://${gateway.address}/readyz`)).text()).includes('the replay has ended'));
  const expected = () =>
    Object.fromEntries([...newest].map(([symbol, { trade, quote }]) => [symbol, [trade?.['price'], quote?.['bid'], quote?.['bid_size'], quote?.['ask'], quote?.['ask_size']]]));
  const shown = async () =>
    Object.fromEntries(Object.entries(await screen.rows()).map(([symbol, cells]) => [symbol, ['last', 'bid', 'bidsize', 'ask', 'asksize'].map((column) => cells[column])]));
  const equal = async () => {
    try {
      assert.deepEqual(await shown(), expected());
      return true;
    } catch {
      return false;
    }
  };
  await until('both say the same', equal).catch(() => {});
  assert.deepEqual(await shown(), expected());
  assert.equal(newest.size, 9);
  // A recording that has ended is not live, and says so.
  assert.deepEqual(await screen.looks(), [0, 0, 9]);
  screen.assertClean();
});

test('symbols are added and removed, and the address keeps them', options, async (t) => {
  const gateway = await shipped(t, '--loop');
  const screen = await Screen.open(t, gateway.address, `#s=${BTC},kraken:ETH/USD&c=${BTC}`);
  const { page } = screen;
  await screen.untilReplayed(2);
  await page.keyboard.press('/');
  await page.keyboard.type('binance eth');
  await page.locator('#found li').first().waitFor();
  await page.keyboard.press('Enter');
  await screen.untilReplayed(3);
  const added = 'binance-futures:ETHUSDT';
  assert.deepEqual(await screen.symbols(), [BTC, 'kraken:ETH/USD', added]);
  assert.ok(decodeURIComponent(page.url()).includes(added));
  await page.keyboard.press('Escape');
  await page.locator(`#rows tr[data-symbol="${added}"]`).click();
  assert.equal(await screen.text('symbol'), added);
  await page.locator('#remove').click();
  assert.deepEqual(await screen.symbols(), [BTC, 'kraken:ETH/USD']);
  await page.keyboard.press('Delete');
  assert.deepEqual(await screen.symbols(), [BTC]);
  await page.reload();
  await screen.untilReplayed(1);
  assert.deepEqual(await screen.symbols(), [BTC]);
  screen.assertClean();
});

/** Notes when no row is live any more. */
function watchTheEnd(): void {
  const look = () => {
    const rows = [...document.querySelectorAll('#rows tr')];
    const isGrey = rows.length > 0 && rows.every((row) => row.classList.contains('stale'));
    if (isGrey && document.querySelector('#chosen.stale') !== null) Object.assign(globalThis, { greyMs: Date.now() });
    else requestAnimationFrame(look);
  };
  look();
}

test('the gateway is killed: nothing looks live within 2 s; it comes back: everything is whole', options, async (t) => {
  const gateway = await shipped(t, '--loop');
  const { address } = gateway;
  const screen = await Screen.open(t, address);
  await screen.untilReplayed(9);
  await screen.page.evaluate(watchTheEnd);
  // The page is on the same machine, and goes by the same clock.
  const killedMs = Date.now();
  gateway.process.kill('SIGKILL');
  await screen.until(() => (globalThis as { greyMs?: number }).greyMs !== undefined, undefined);
  const tookMs = (await screen.page.evaluate(() => (globalThis as unknown as { greyMs: number }).greyMs)) - killedMs;
  t.diagnostic(`${tookMs} ms from the gateway's end until no price looked live`);
  assert.ok(tookMs < 2000, `${tookMs} ms`);
  assert.deepEqual(await screen.looks(), [0, 0, 9]);
  assert.match(await screen.text('link'), /^(lost|connecting)/);
  for (const cells of Object.values(await screen.rows())) assert.equal(cells['state'], 'link lost');
  assert.match(await screen.text('why'), /link lost/);
  // Another run at the same place: a new epoch, where the numbers begin anew.
  keep(t, await Gateway.start(['replay', '--loop', ...settings(PATIENT), ...FEEDS], address));
  await screen.untilReplayed(9);
  assert.equal(await screen.text('link'), 'open');
  const before = await screen.rows();
  await until('prices move again', async () => (await screen.rows())[BTC]?.['bid'] !== before[BTC]?.['bid']);
  assert.equal(await screen.text('broken'), '0');
  screen.assertClean(NO_GATEWAY);
});

test('the gateway hangs: silence greys everything, and it recovers by itself', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings([...PATIENT, 'session.heartbeat_ms=500']), ...FEEDS]));
  const screen = await Screen.open(t, gateway.address);
  await screen.untilReplayed(9);
  gateway.process.kill('SIGSTOP');
  try {
    await screen.until(() => document.querySelectorAll('#rows tr:not(.stale)').length === 0, undefined);
    assert.match(await screen.text('link'), /lost|connecting/);
  } finally {
    gateway.process.kill('SIGCONT');
  }
  await screen.untilReplayed(9);
  assert.equal(await screen.text('broken'), '0');
  screen.assertClean(NO_GATEWAY);
});

test('the road is cut: the page goes on where it was', options, async (t) => {
  const gateway = await Gateway.publishing();
  keep(t, gateway);
  const road = keep(t, await Proxy.to(gateway.address));
  const publisher = keep(t, await gateway.publisher());
  publisher.ticks(['demo:A'], 1);
  const screen = await Screen.open(t, new URL(road.url).host, '#s=demo:A&c=demo:A');
  await screen.untilLive(1);
  // The last trade before is none of the tape.
  publisher.ticks(['demo:A'], 1);
  await until('the first trade is on the tape', async () => (await screen.page.locator('#tape tr').count()) === 1);
  road.cut();
  await until('it is lost', async () => (await screen.looks())[0] === 0);
  publisher.ticks(['demo:A'], 20);
  await screen.untilLive(1);
  // All of them: none is missing, and none is told twice.
  await until('all trades are there', async () => (await screen.page.locator('#tape tr').count()) === 21);
  assert.equal(await screen.page.locator('#tape tr.gap').count(), 0);
  // Longer candles are made of what was seen; the tape stays.
  await screen.page.keyboard.press('2');
  await until('the candles are longer', async () => (await screen.page.locator('#spans [aria-pressed=true]').innerText()) === '5 s');
  assert.equal(await screen.page.locator('#tape tr').count(), 21);
  assert.equal(await screen.text('broken'), '0');
  screen.assertClean(NO_GATEWAY);
});

interface Watched {
  readonly levels: Set<string>;
  readonly isBehind: boolean;
  readonly isBlocked: boolean;
}

/** Keeps what the strip says of the lag, every word of it, and whether a row said that it is behind. */
function watchTheLag(): void {
  const levels = new Set<string>();
  Object.assign(globalThis, { levels, isBehind: false });
  addEventListener('DOMContentLoaded', () => {
    const lag = document.getElementById('lag') as HTMLElement;
    new MutationObserver(() => levels.add(lag.dataset['level'] ?? '')).observe(lag, { attributes: true, childList: true });
    new MutationObserver(() => {
      if ([...document.querySelectorAll('#rows [data-column="state"]')].some((cell) => cell.textContent === 'behind')) Object.assign(globalThis, { isBehind: true });
    }).observe(document.getElementById('rows') as HTMLElement, { subtree: true, childList: true, characterData: true });
  });
}

/** A gateway with little room for a client that is slow, and none to cut it. */
const ROOM = ['session.outbox_bytes_max=32768', 'session.cut_after_ms=3600000', 'session.dead_peer_ms=3700000', 'session.pong_timeout_ms=3600000'];

/**
 * Has more published than the page takes in, until it is shed and says so; then it is let go, and is whole again.
 *
 * @param begin makes it slow, @param end lets it go.
 */
async function downTheLadder(t: TestContext, gateway: Gateway, address: string, begin: (screen: Screen) => Promise<void>, end: (screen: Screen) => Promise<void>): Promise<void> {
  const publisher = keep(t, await gateway.publisher());
  const symbol = `demo:${'LONG'.repeat(14)}`;
  publisher.ticks([symbol], 1);
  const screen = await Screen.open(t, address, `#s=${symbol}&c=${symbol}`, undefined, watchTheLag);
  await screen.untilLive(1);
  await begin(screen);
  await until('it is shed, and its row says so', async () => {
    for (let i = 0; i < 5; i++) {
      publisher.trades(symbol, 500);
      await until('they are sent', () => publisher.socket.writableLength === 0);
    }
    return screen.page.evaluate(() => (globalThis as unknown as Watched).levels.has('shed') && (globalThis as unknown as Watched).isBehind);
  });
  await end(screen);
  await until('it is ok again', async () => (await screen.text('lag')) === 'ok');
  await until('the gap is told', async () => Number(await screen.text('dropped')) > 0);
  // The tape names what is missing, until newer trades push it out.
  assert.equal(await screen.text('broken'), '0');
  publisher.ticks([symbol], 1);
  await screen.untilLive(1);
  screen.assertClean();
}

test('a tab that is blocked hears of the ladder, says so, and is whole again', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing(ROOM));
  const block = async ({ page }: Screen) => {
    // Busy but for a moment now and then, in which a frame is drawn.
    await page.evaluate(() => {
      const block = () => {
        if (!(globalThis as unknown as Watched).isBlocked) return;
        const end = performance.now() + 300;
        while (performance.now() < end);
        requestAnimationFrame(() => setTimeout(block));
      };
      Object.assign(globalThis, { isBlocked: true });
      block();
    });
  };
  const release = async ({ page }: Screen) => void (await page.evaluate(() => Object.assign(globalThis, { isBlocked: false }) && undefined));
  await downTheLadder(t, gateway, gateway.address, block, release);
});

test('a tab behind a narrow road hears of the ladder, says so, and is whole again', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing(ROOM));
  const road = keep(t, await Proxy.to(gateway.address));
  const set = (bytesPerSecond: number) => async () => void (road.bytesPerSecond = bytesPerSecond);
  await downTheLadder(t, gateway, new URL(road.url).host, set(300_000), set(Infinity));
});
