/** The picture is of the place where a recording stands, by one axis of time, and in the colours of the system. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { subtractDecimal, type Replay } from '../../../clients/ts/src/index.js';
import { Gateway, keep, PATIENT, settings, until } from '../../../clients/ts/test/gateway.js';
import { DESKTOP, drag, isPaused, isPlaying, NO_GATEWAY, PHONE, picture, Screen } from './browser.js';

const options = { timeout: 300_000 };
const COINBASE = 'feeds/coinbase.zst';
const BTC = 'coinbase:BTC-USD';
/** Microseconds that a venue's clock may be behind the receipt of what it tells. */
const LATENCY_US = 1_000_000;

/** Times of the tape, the newest first, microseconds of 2024-05-01: the day of the shipped captures. */
async function tape({ page }: Screen): Promise<number[]> {
  const texts = await page.$$eval('#tape tr:not(.gap) td:first-child', (cells) => cells.map((cell) => cell.textContent ?? ''));
  return texts.map((text) => Date.parse(`2024-05-01T${text}Z`) * 1000);
}

/** The first and the last second of the chart's axis, microseconds; undefined while nothing is drawn. */
async function axis({ page }: Screen): Promise<[first: number, last: number] | undefined> {
  const label = (await page.locator('#chart').getAttribute('aria-label')) ?? '';
  const times = [...label.matchAll(/\d\d:\d\d:\d\d/g)].map(([text]) => Date.parse(`2024-05-01T${text}Z`) * 1000);
  const [first, last] = times;
  return first === undefined || last === undefined ? undefined : [first, last];
}

const arrows = ({ page }: Screen) => page.locator('#rows :is(.up, .down)').count();

/** Drags the slider to this part of the recording, as a finger would, and waits until the gateway is there; where that is, microseconds. */
async function seek(gateway: Gateway, screen: Screen, part: number): Promise<number> {
  const wanted = await drag(screen, part);
  await until(`it is at ${part}`, async () => {
    const { state, position } = (await (await fetch(`http://${gateway.address}/api/replay`)).json()) as Replay;
    return state !== 'seeking' && position >= wanted - LATENCY_US && position < wanted + 5 * LATENCY_US;
  });
  // The page is told at the same time, and draws it.
  await screen.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 300)));
  return wanted;
}

/** Everything of the chosen symbol that is shown was received at this place or later, and nothing before. */
async function assertFrom(screen: Screen, placeUs: number): Promise<void> {
  const times = await tape(screen);
  const [first = 0, last = 0] = (await axis(screen)) ?? [];
  assert.ok(times.length > 0);
  for (const time of times) assert.ok(time >= placeUs - LATENCY_US && time <= placeUs + 60_000_000, `a trade of ${time} at ${placeUs}`);
  assert.ok(first >= placeUs - 2 * LATENCY_US && last <= placeUs + 60_000_000, `a chart of ${first} to ${last} at ${placeUs}`);
}

test('after a seek, forward and back, all that is shown is of that place', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['serve', ...settings(PATIENT)]));
  const screen = await Screen.open(t, gateway.address);
  const { page } = screen;
  await screen.untilReplayed(9);
  await until('prices have moved, and there is a picture', async () => (await arrows(screen)) > 4 && (await tape(screen)).length > 3 && (await axis(screen)) !== undefined);
  await page.locator('#play').click();
  await screen.until(isPaused, undefined);
  for (const part of [0.8, 0.2]) {
    const placeUs = await seek(gateway, screen, part);
    // It stands: there is a last value of each, once all of them have come, and nothing has happened yet.
    await until('each has its last value', async () => Object.values(await screen.rows()).every(({ last = '' }) => /\d/.test(last)));
    const stood = await screen.rows();
    assert.equal(await axis(screen), undefined);
    assert.deepEqual([await tape(screen), await arrows(screen)], [[], 0]);
    for (const [symbol, { last = '', change }] of Object.entries(stood)) assert.deepEqual([symbol, /\d/.test(last), Number(change)], [symbol, true, 0]);
    await picture(page, `desktop-sought-${part}`);
    await page.locator('#play').click();
    await until('it has gone on', async () => (await tape(screen)).length > 3 && (await arrows(screen)) > 4 && (await axis(screen)) !== undefined);
    await page.locator('#play').click();
    await screen.until(isPaused, undefined);
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 500)));
    await assertFrom(screen, placeUs);
    // Against the price of that place, and no other.
    for (const [symbol, { last = '', change = '' }] of Object.entries(await screen.rows())) {
      assert.equal(change.replace('+', ''), subtractDecimal(last, stood[symbol]?.['last'] ?? ''), symbol);
    }
  }
  // While it plays, too.
  await page.locator('#play').click();
  await screen.until(isPlaying, undefined);
  for (const part of [0.6, 0.1]) {
    const placeUs = await seek(gateway, screen, part);
    await until('there are trades again', async () => (await tape(screen)).length > 3 && (await axis(screen)) !== undefined);
    await assertFrom(screen, placeUs);
  }
  // What is chosen now begins there as well.
  await page.locator('#rows tr[data-symbol="kraken:XBT/USD"]').click();
  await until('there are its trades', async () => (await screen.text('symbol')) === 'kraken:XBT/USD' && (await tape(screen)).length > 1 && (await axis(screen)) !== undefined);
  assert.equal(await screen.text('broken'), '0');
  screen.assertClean();
});

test('the next round of a short recording begins anew, and so does another run of the gateway', options, async (t) => {
  const gateway = await Gateway.start(['replay', '--loop', '--to', '+4s', ...settings(PATIENT), COINBASE]);
  keep(t, gateway);
  const { address } = gateway;
  const screen = await Screen.open(t, address, `#s=${BTC}&c=${BTC}`);
  await screen.untilReplayed(1);
  let [rounds, before] = [0, 0];
  await until('three rounds were seen', async () => {
    const times = await tape(screen);
    // One round, in order; trades of one venue may be told a little late.
    const isOfOneRound = times.every((time, i) => time + LATENCY_US / 2 >= (times[i + 1] ?? 0));
    assert.ok(isOfOneRound, `${times}`);
    const newest = times[0] ?? 0;
    if (newest < before) rounds += 1;
    before = newest;
    return rounds === 3;
  });
  await gateway.close();
  keep(t, await Gateway.start(['replay', '--loop', '--from', '+40s', ...settings(PATIENT), COINBASE], address));
  await screen.untilReplayed(1);
  await until('there are trades again', async () => ((await tape(screen))[0] ?? 0) > before + 30_000_000 && (await axis(screen)) !== undefined);
  await assertFrom(screen, Date.parse('2024-05-01T12:00:40Z') * 1000);
  screen.assertClean(NO_GATEWAY);
});

/** The upper pane, or the lower, as it looks. */
async function pane({ page }: Screen, which: 'upper' | 'lower'): Promise<{ x: number; y: number; width: number; height: number }> {
  const box = await page.locator('#chart').boundingBox();
  assert.ok(box !== null);
  const height = box.height * 0.3;
  return { x: box.x, y: which === 'upper' ? box.y + 10 : box.y + box.height - 40 - height, width: box.width - 80, height };
}

/** Columns of pixels in the upper pane that a candle is drawn in: it is higher than the line of the last price. */
const candleColumns = ({ page }: Screen) =>
  page.evaluate(() => {
    const canvas = document.querySelector<HTMLCanvasElement>('#chart td:nth-child(2) canvas') as HTMLCanvasElement;
    const { width, height } = canvas;
    const { data } = canvas.getContext('2d')?.getImageData(0, 0, width, height) ?? { data: [] as number[] };
    const isCandle = (at: number) => {
      const [r = 0, g = 0, b = 0, a = 0] = data.slice(at, at + 4);
      return a === 255 && Math.max(r, g, b) - Math.min(r, g, b) > 100;
    };
    return Array.from({ length: width }, (_, x) => x).filter((x) => {
      let count = 0;
      for (let y = 0; y < height; y++) if (isCandle(4 * (y * width + x))) count += 1;
      return count >= 3;
    }).length;
  });

test('candles and best prices have one axis of time: what moves in one moves in both', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--speed', '20', '--wait-subscribers', '1', ...settings(PATIENT), COINBASE]));
  const screen = await Screen.open(t, gateway.address, `#s=${BTC}&c=${BTC}`);
  const { page } = screen;
  await until('there is something to see', async () => {
    const [first = 0, last = 0] = (await axis(screen)) ?? [];
    return last - first > 30_000_000;
  });
  await page.locator('#play').click();
  await screen.until(isPaused, undefined);
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 500)));
  // The newest is in sight, and so is what was before: not the first few alone.
  const columns = await candleColumns(screen);
  assert.ok(columns > 60, `${columns} columns of pixels`);
  await picture(page, 'desktop-half-a-minute');
  const [upper, lower] = [await pane(screen, 'upper'), await pane(screen, 'lower')];
  const look = async () => {
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 400)));
    return [(await page.screenshot({ clip: upper })).toString('base64'), (await page.screenshot({ clip: lower })).toString('base64')];
  };
  const [x, y] = [lower.x + lower.width / 2, lower.y + lower.height / 2];
  await page.mouse.move(0, 0);
  const still = await look();
  assert.deepEqual(await look(), still, 'nothing moves by itself');
  const differs = async (what: string) => {
    const now = await look();
    assert.deepEqual([now[0] !== still[0], now[1] !== still[1]], [true, true], what);
  };
  await page.mouse.move(x, y);
  await differs('the cursor');
  await page.mouse.move(0, 0);
  assert.deepEqual(await look(), still);
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x + 120, y, { steps: 4 });
  await page.mouse.up();
  await page.mouse.move(0, 0);
  await differs('dragged');
  await page.mouse.move(x, y - 5);
  await page.mouse.wheel(0, 300);
  await page.mouse.move(0, 0);
  await differs('zoomed');
  await picture(page, 'desktop-moved');
  screen.assertClean(/willReadFrequently/);
});

/** Whether a colour of the page, by its name there, is in what a script has drawn here. */
const isDrawnIn = ({ page }: Screen, place: string, name: string) =>
  page.evaluate(
    ([place, name]) => {
      const probe = document.body.appendChild(document.createElement('i'));
      probe.style.color = `var(${name})`;
      const [r, g, b] = (getComputedStyle(probe).color.match(/\d+/g) ?? []).map(Number);
      probe.remove();
      return [...document.querySelectorAll<HTMLCanvasElement>(`${place} canvas`)].some((canvas) => {
        const { data } = canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height) ?? { data: [] };
        for (let at = 0; at < data.length; at += 4) if (data[at] === r && data[at + 1] === g && data[at + 2] === b && data[at + 3] === 255) return true;
        return false;
      });
    },
    [place, name] as const,
  );

test('what a script draws follows the theme of the system while the page is open', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings(PATIENT), COINBASE]));
  const screen = await Screen.open(t, gateway.address, '', { ...DESKTOP, colorScheme: 'dark' });
  const { page } = screen;
  await screen.untilReplayed(3);
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const grounds: string[] = [];
  for (const colorScheme of ['dark', 'light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    for (const place of ['#chart', '#latencies']) {
      await until(`${place} is ${colorScheme}`, () => isDrawnIn(screen, place, '--line'));
    }
    grounds.push(await ground());
  }
  assert.ok(grounds[0] === grounds[2] && grounds[0] !== grounds[1], `${grounds}`);
  // By hand it is another one; by hand again, the system's, and so it follows the system.
  await page.locator('#theme').click();
  assert.equal(await ground(), grounds[1]);
  await until('it is light by hand', () => isDrawnIn(screen, '#chart', '--line'));
  await page.locator('#theme').click();
  await page.emulateMedia({ colorScheme: 'light' });
  assert.equal(await ground(), grounds[1]);
  // What this test does is slow, says the browser.
  screen.assertClean(/willReadFrequently/);
});

test('on a phone the picture is of that place, too', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['serve', ...settings(PATIENT)]));
  const screen = await Screen.open(t, gateway.address, '', PHONE);
  await screen.untilReplayed(9);
  const placeUs = await seek(gateway, screen, 0.7);
  await until('there are trades', async () => (await tape(screen)).length > 5 && (await axis(screen)) !== undefined);
  await assertFrom(screen, placeUs);
  await picture(screen.page, 'phone-sought', true);
  screen.assertClean();
});
