/** The bar of a replay, against the real gateway. */

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect, type Broken, type Replay } from '../../../clients/ts/src/index.js';
import { WebSocket } from 'ws';
import { folder, Gateway, keep, PATIENT, repository, settings, until } from '../../../clients/ts/test/gateway.js';
import { drag, isPaused, isPlaying, PHONE, picture, Screen } from './browser.js';

const options = { timeout: 300_000 };
const COINBASE = 'feeds/coinbase.zst';
const BTC = 'coinbase:BTC-USD';
const S = 1_000_000;

/** Where the slider stands, microseconds. */
const position = ({ page }: Screen) => page.$eval('#position', (slider) => Number((slider as HTMLInputElement).value));

test('pause, step, speed, seek and loop do what they say, for everybody', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', ...settings(PATIENT), COINBASE]));
  const [told, broken]: [Replay[], Broken[]] = [[], []];
  // Another client, which is told the same.
  const client = keep(t, connect(gateway.ws, { WebSocket: WebSocket as never, onReplay: (replay) => told.push(replay), onBroken: (it) => broken.push(it) }));
  let ticks = 0;
  client.subscribe(['trade', 'quote'], '*', { mode: 'every' }, () => ticks++);
  const screen = await Screen.open(t, gateway.address, `#s=${BTC},coinbase:ETH-USD,coinbase:SOL-USD&c=${BTC}`);
  const { page } = screen;
  await screen.untilReplayed(3);
  await screen.until(isPlaying, undefined);

  await page.locator('#play').click();
  await screen.until(isPaused, undefined);
  assert.equal(await page.locator('#play').innerText(), 'play');
  await until('the other one is told', () => told.at(-1)?.state === 'paused');
  // Both have been told everything that came before; the page has to draw it yet.
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  const stood = await screen.rows();
  const [at, before] = [told.at(-1)?.position, ticks];
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.deepEqual([told.at(-1)?.position, ticks], [at, before]);
  for (const [symbol, { bid, last }] of Object.entries(await screen.rows())) assert.deepEqual([bid, last], [stood[symbol]?.['bid'], stood[symbol]?.['last']]);

  await page.locator('#step').click();
  await until('one tick comes', () => ticks === before + 1);

  await page.locator('#speed').selectOption('5');
  await until('the speed is told', () => told.at(-1)?.speed === 5);
  await page.locator('#loop').click();
  await until('the loop is told', () => told.at(-1)?.loop === true);
  await until('the bar shows it', async () => (await page.locator('#loop').getAttribute('aria-pressed')) === 'true');

  // Most of the way forward, standing; and back.
  const { from, to } = told.at(-1) as Replay;
  for (const part of [0.8, 0.2]) {
    await drag(screen, part);
    const wanted = from + part * (to - from);
    const isThere = (us: number | undefined) => us !== undefined && Math.abs(us - wanted) < 2 * S;
    await until(`it is at ${part}`, async () => isThere(told.at(-1)?.position) && told.at(-1)?.state === 'paused' && isThere(await position(screen)));
    await until('nothing of another time is on the tape', async () => (await page.locator('#tape tr').count()) === 0);
  }
  await page.locator('#play').click();
  await screen.until(isPlaying, undefined);
  const played = ticks;
  await until('ticks come', () => ticks > played);
  assert.equal(await screen.text('broken'), '0');
  assert.deepEqual(broken, []);
  assert.equal(await screen.text('told'), '');
  screen.assertClean();
});

test('it ends, and begins anew', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--speed', '0', ...settings(PATIENT), COINBASE]));
  const screen = await Screen.open(t, gateway.address);
  await screen.until(() => document.getElementById('replay')?.dataset['state'] === 'ended', undefined);
  await screen.page.locator('#speed').selectOption('1');
  await screen.page.locator('#play').click();
  await screen.until(isPlaying, undefined);
  await screen.untilReplayed(3);
  screen.assertClean();
});

test('who may not is told so, and a token helps', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings([...PATIENT, 'replay.control_token=a-token-of-sixteen']), COINBASE]));
  const screen = await Screen.open(t, gateway.address, '', PHONE);
  const { page } = screen;
  await screen.until(isPlaying, undefined);
  await page.locator('#play').click();
  await page.locator('#token').waitFor();
  assert.notEqual(await screen.text('told'), '');
  await page.locator('#token').fill('a-token-of-sixteen');
  await page.locator('#token').press('Enter');
  await page.locator('#play').click();
  await screen.until(isPaused, undefined);
  assert.equal(await screen.text('told'), '');
  screen.assertClean();
});

/** What the settings say of publishers, where they may come. */
const PUBLISHING = ['publish.token=token-of-the-tests', 'publish.listen=127.0.0.1:0', 'publish.venues=["demo"]'];

test('beside a publisher every row says what it is, and the bar stays', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings([...PATIENT, ...PUBLISHING]), COINBASE]));
  const publisher = keep(t, await gateway.publisher());
  publisher.ticks(['demo:A'], 1);
  const screen = await Screen.open(t, gateway.address, `#s=${BTC},demo:A,coinbase:ETH-USD&c=${BTC}`);
  const { page } = screen;
  const states = async () => Object.fromEntries(Object.entries(await screen.rows()).map(([symbol, cells]) => [symbol, cells['state']]));
  const all = (state: string) => ({ [BTC]: state, 'demo:A': 'live', 'coinbase:ETH-USD': state });
  const untilStates = async (state: string) => {
    await until(`it is ${state}`, async () => JSON.stringify(await states()) === JSON.stringify(all(state)));
    assert.deepEqual(await screen.looks(), state === 'ended' ? [1, 0, 3] : [1, 2, 3]);
  };
  await untilStates('replay');
  await until('both rows have the day of the recording', async () => {
    const rows = await screen.rows();
    return rows[BTC]?.['age'] === '2024-05-01' && rows['coinbase:ETH-USD']?.['age'] === '2024-05-01';
  });
  assert.doesNotMatch((await screen.rows())['demo:A']?.['age'] ?? '', /2024/);
  assert.equal(await screen.text('feed'), 'REPLAY: recorded prices of 2024-05-01 in 2 of 3 rows');
  assert.equal(await screen.text('why'), 'not live: recorded 2024-05-01');
  assert.ok(await page.locator('#replay').isVisible());
  assert.match(await screen.text('when'), /^2024-05-01 12:0/);

  await page.locator('#play').click();
  await screen.until(isPaused, undefined);
  await untilStates('paused');
  assert.equal(await screen.text('why'), 'not live: recorded 2024-05-01, paused');
  await picture(page, 'desktop-publish-paused');
  publisher.ticks(['demo:A'], 5);
  await untilStates('paused');
  await page.locator('#rows tr[data-symbol="demo:A"]').click();
  await until('what is live has no remark', async () => (await screen.text('symbol')) === 'demo:A' && (await screen.text('why')) === '');
  await page.locator('#play').click();
  await untilStates('replay');

  // Somebody else stops it.
  const client = keep(t, connect(gateway.ws, { WebSocket: WebSocket as never }));
  await until('it is connected', () => client.isOpen);
  await client.replay.stop();
  await untilStates('ended');
  await page.locator(`#rows tr[data-symbol="${BTC}"]`).click();
  await until('the chart says so', async () => (await screen.text('why')) === 'not live: recorded 2024-05-01, ended');
  assert.equal(await screen.text('feed'), 'REPLAY: recorded prices of 2024-05-01 in 2 of 3 rows');
  assert.ok(await page.locator('#replay').isVisible());
  assert.equal(await screen.text('broken'), '0');
  await picture(page, 'desktop-publish-ended');
  screen.assertClean();
});

test('on a phone a replay that is paused says so, too', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings([...PATIENT, ...PUBLISHING]), COINBASE]));
  const screen = await Screen.open(t, gateway.address, '', PHONE);
  await screen.untilReplayed(3);
  await screen.page.locator('#play').click();
  await screen.untilAll('paused', 3);
  assert.equal(await screen.text('feed'), 'REPLAY: recorded prices of 2024-05-01');
  await picture(screen.page, 'phone-paused', true);
  screen.assertClean();
});

test('of two replays nothing is live, and none can be controlled', options, async (t) => {
  const config = join(folder(), 'two.toml');
  const feed = (name: string) => `[[feed]]\nkind = "replay"\nfiles = [${JSON.stringify(join(repository, `feeds/${name}.zst`))}]\nloop = true\n`;
  writeFileSync(config, feed('coinbase') + feed('kraken'));
  const gateway = keep(t, await Gateway.start(['serve', '--config', config, ...settings(PATIENT)]));
  const screen = await Screen.open(t, gateway.address);
  await screen.untilReplayed(6);
  assert.deepEqual(await screen.looks(), [0, 6, 6]);
  await until('both have told their day', async () => (await screen.text('feed')) === 'REPLAY: recorded prices of 2024-05-01');
  assert.equal(await screen.page.locator('#replay').isVisible(), false);
  screen.assertClean();
});

test('there is no bar where nothing is replayed', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const publisher = keep(t, await gateway.publisher());
  publisher.ticks(['demo:A'], 1);
  const screen = await Screen.open(t, gateway.address, '#s=demo:A');
  await screen.untilLive(1);
  assert.equal(await screen.page.locator('#replay').isVisible(), false);
  assert.equal(await screen.text('feed'), '');
});
