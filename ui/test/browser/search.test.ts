/** What the page says where there is nothing to show, or what was asked for is refused. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Gateway, keep, PATIENT, settings, until } from '../../../clients/ts/test/gateway.js';
import { DESKTOP, PHONE, picture, Screen } from './browser.js';

const options = { timeout: 300_000 };
const COINBASE = 'feeds/coinbase.zst';
const [BTC, ETH, SOL] = ['coinbase:BTC-USD', 'coinbase:ETH-USD', 'coinbase:SOL-USD'];

const says = (screen: Screen) => screen.text('says');
const offered = ({ page }: Screen) => page.$$eval('#found li', (items) => items.map((item) => item.textContent));

async function look(screen: Screen, typed: string): Promise<void> {
  await screen.page.locator('#search').click();
  await until('the list of symbols is there', async () => (await screen.page.locator('#search').fill('')) === undefined && (await offered(screen)).length > 0);
  await screen.page.locator('#search').fill(typed);
}

test('the search offers what is listed, and says why a symbol is refused', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings([...PATIENT, 'limits.symbols_per_connection=2']), COINBASE]));
  const screen = await Screen.open(t, gateway.address, `#s=${BTC}&c=${BTC}`);
  await screen.untilReplayed(1);
  await look(screen, 'usd');
  assert.deepEqual([await offered(screen), await says(screen)], [[BTC, ETH, SOL], '']);
  await look(screen, 'nasdaq');
  await until('it says that there is none', async () => (await says(screen)) === 'No symbol that the gateway lists has “nasdaq” in it.');
  assert.deepEqual(await offered(screen), []);
  await look(screen, 'nasdaq:ABC');
  await until('it may be asked for', async () => (await says(screen)) === 'No symbol that the gateway lists has “nasdaq:ABC” in it. Enter asks the gateway for it.');
  assert.deepEqual(await offered(screen), []);
  await screen.page.keyboard.press('Enter');
  await until('it says why', async () => /^nasdaq:ABC was refused: .*venue/.test(await says(screen)));
  await picture(screen.page, 'desktop-refused');
  assert.deepEqual(await screen.symbols(), [BTC]);
  assert.ok(!screen.page.url().includes('nasdaq'));
  // Of a venue that is served it may come yet.
  await look(screen, 'coinbase:NEW-USD');
  assert.deepEqual(await offered(screen), []);
  await screen.page.keyboard.press('Enter');
  await until('it is waited for', async () => (await screen.rows())['coinbase:NEW-USD']?.['state'] === 'waiting');
  await look(screen, 'eth');
  await screen.page.keyboard.press('Enter');
  await until('no more than so many', async () => new RegExp(`^${ETH} was refused: .*2 symbols`).test(await says(screen)));
  assert.deepEqual(await screen.symbols(), [BTC, 'coinbase:NEW-USD']);
  await look(screen, 'btc');
  await screen.page.keyboard.press('Enter');
  assert.equal(await says(screen), `${BTC} is in the list.`);
  screen.assertClean();
});

test('what the address names stays, and says that it is refused', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings(PATIENT), COINBASE]));
  const screen = await Screen.open(t, gateway.address, `#s=${BTC},nasdaq:ABC&c=nasdaq:ABC`);
  await until('its row says so', async () => (await screen.rows())['nasdaq:ABC']?.['state'] === 'refused');
  assert.match(await screen.text('why'), /^refused: .*venue/);
  assert.match(await says(screen), /^nasdaq:ABC was refused: .*venue/);
  assert.deepEqual(await screen.looks(), [0, 1, 2]);
  screen.assertClean();
});

test('a list that is empty says why, and what to do', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  for (const look of [DESKTOP, PHONE]) {
    const screen = await Screen.open(t, gateway.address, '', look);
    await until('nothing was published', async () => /^No symbols yet: /.test(await screen.text('empty')));
    await picture(screen.page, look === PHONE ? 'phone-empty' : 'desktop-empty');
    screen.assertClean();
  }
  const screen = await Screen.open(t, gateway.address);
  await until('nothing was published', async () => /^No symbols yet: /.test(await screen.text('empty')));
  const publisher = keep(t, await gateway.publisher());
  publisher.ticks(['demo:A'], 1);
  await screen.untilLive(1);
  assert.equal(await screen.page.locator('#empty').isVisible(), false);
  await screen.page.locator('#remove').click();
  assert.match(await screen.text('empty'), /^The list is empty\. Add /);
  screen.assertClean();
});

test('no token is asked for where none would help', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings(PATIENT), COINBASE]));
  // As a client of another machine hears it: no other machine is here.
  const screen = await Screen.open(t, gateway.address, '', DESKTOP, () => void Reflect.deleteProperty(globalThis, 'WebSocketStream'));
  const { page } = screen;
  const msg = 'without a [replay] control_token only clients of this machine may control the replay';
  await page.routeWebSocket(/\/ws$/, (client) => {
    const server = client.connectToServer();
    client.onMessage((text) => {
      const { op, id } = JSON.parse(String(text)) as { op: string; id: number };
      if (op === 'replay') client.send(JSON.stringify({ type: 'error', id, code: 'forbidden', msg, retry: false }));
      else server.send(text);
    });
  });
  await page.reload();
  await screen.untilReplayed(3);
  await page.locator('#play').click();
  await until('it says who may', async () => (await screen.text('told')) === msg);
  assert.equal(await page.locator('#token').isVisible(), false);
});
