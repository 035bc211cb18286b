/** What programs find of what keeps people from reading or using the page: in both themes, in every state that a price may be in. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import axe, { type AxeResults } from 'axe-core';
import { Gateway, keep, PATIENT, settings, until } from '../../../clients/ts/test/gateway.js';
import { DESKTOP, NO_GATEWAY, PHONE, Screen } from './browser.js';

const options = { timeout: 300_000 };

/** Looks at the page as it is, in both themes. */
async function assertAccessible({ page }: Screen, what: string): Promise<void> {
  for (const colorScheme of ['dark', 'light'] as const) {
    await page.emulateMedia({ colorScheme });
    // Not as a script of the page, whose policy allows none but its own.
    await page.evaluate(axe.source);
    const { violations, passes } = await page.evaluate(() => (globalThis as unknown as { axe: { run(): Promise<AxeResults> } }).axe.run());
    const found = violations.flatMap(({ id, help, nodes }) => nodes.map(({ html, any }) => `${id}: ${help}: ${html.slice(0, 200)} ${any[0]?.message ?? ''}`));
    assert.deepEqual([...new Set(found)], [], `${what}, ${colorScheme}`);
    assert.ok(passes.some(({ id }) => id === 'color-contrast'), `${what}: the contrast was not looked at`);
  }
}

for (const [name, look] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
  test(`nothing keeps anybody from reading a recording, on a ${name}`, options, async (t) => {
    const gateway = keep(t, await Gateway.start(['replay', '--loop', '--speed', '8', ...settings([...PATIENT, 'replay.control_token=a-token-of-sixteen']), 'feeds/coinbase.zst', 'feeds/kraken.zst']));
    const screen = await Screen.open(t, gateway.address, '', look);
    const { page } = screen;
    await screen.untilReplayed(6);
    await until('there are trades', async () => (await page.locator('#tape tr').count()) > 10);
    await assertAccessible(screen, 'playing');
    await page.locator('#search').fill('btc');
    await page.locator('#found li').first().waitFor();
    await page.keyboard.press('ArrowDown');
    await assertAccessible(screen, 'searching');
    await page.keyboard.press('Escape');
    await page.locator('#play').click();
    await page.locator('#token').waitFor();
    await assertAccessible(screen, 'asked for a token');
    await page.locator('#token').fill('a-token-of-sixteen');
    await page.locator('#token').press('Enter');
    await page.locator('#play').click();
    await screen.untilAll('paused', 6);
    await assertAccessible(screen, 'paused');
    await gateway.stop();
    await screen.untilAll('link lost', 6);
    await assertAccessible(screen, 'lost');
    screen.assertClean(NO_GATEWAY);
  });

  test(`nothing keeps anybody from reading what is live, or was, on a ${name}`, options, async (t) => {
    const gateway = keep(t, await Gateway.publishing());
    const publisher = keep(t, await gateway.publisher());
    const symbols = ['demo:A', 'demo:B'];
    // Both sides, up and down.
    for (const [i, side] of (['buy', 'sell', 'buy', 'sell'] as const).entries()) {
      for (const [j, symbol] of symbols.entries()) publisher.socket.write(`${JSON.stringify({ type: 'trade', symbol, price: `1.${(i + j) % 2}5`, size: '3', side })}\n`);
    }
    publisher.ticks(symbols, 3);
    const screen = await Screen.open(t, gateway.address, `#s=${symbols.join()},demo:NONE&c=demo:A`, look);
    const rows = (state: string) => screen.until((state) => [...document.querySelectorAll('#rows [data-column="state"]')].slice(0, 2).every((cell) => cell.textContent === state), state);
    await rows('live');
    // Lit up as after a move.
    const moves = setInterval(() => publisher.socket.write(symbols.map((symbol) => `${JSON.stringify({ type: 'trade', symbol, price: `${1 + Math.random()}`.slice(0, 6), size: '1', side: 'buy' })}\n`).join('')), 100);
    keep(t, { close: () => clearInterval(moves) });
    await until('one is lit up', async () => (await screen.page.locator('#rows .flash').count()) > 0);
    await assertAccessible(screen, 'live');
    clearInterval(moves);
    gateway.process.kill('SIGSTOP');
    try {
      await rows('late');
      await assertAccessible(screen, 'late');
    } finally {
      gateway.process.kill('SIGCONT');
    }
    await rows('live');
    publisher.close();
    await rows('down');
    await assertAccessible(screen, 'down');
    screen.assertClean(NO_GATEWAY);
  });
}
