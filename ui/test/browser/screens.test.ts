/** How it looks: pictures for people in `target/screenshots`, and what a program can see of them. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { folder, Gateway, keep, PATIENT, run, settings, until } from '../../../clients/ts/test/gateway.js';
import { DESKTOP, NO_GATEWAY, PHONE, picture, Screen, theBrowser } from './browser.js';

const options = { timeout: 300_000 };
const FEEDS = ['coinbase', 'binance-futures', 'kraken'].map((name) => `feeds/${name}.zst`);

/** Pixels that the whole page, and the watchlist in its box, are too wide. */
const tooWide = ({ page }: Screen) =>
  page.evaluate(() => {
    const box = document.querySelector('#watch .scroll') as HTMLElement;
    return [document.documentElement.scrollWidth - innerWidth, box.scrollWidth - box.clientWidth];
  });

/** Cells of these columns that are cut off, or not on the page. */
const cutOff = ({ page }: Screen, columns: string[]) =>
  page.evaluate(
    (wanted) =>
      wanted.flatMap((column) =>
        [...document.querySelectorAll(`#rows [data-column="${column}"]`)].flatMap((cell) => {
          const { left, right, width } = cell.getBoundingClientRect();
          const isWhole = width > 0 && left >= 0 && right <= innerWidth && cell.scrollWidth <= cell.clientWidth;
          return isWhole ? [] : [`${column}: ${cell.textContent}`];
        }),
      ),
    columns,
  );

test('pictures on a desktop and a phone, dark and light, and nothing is cut off', options, async (t) => {
  // Faster than it was, so that there is soon something to see.
  const gateway = keep(t, await Gateway.start(['replay', '--loop', '--speed', '8', ...settings(PATIENT), ...FEEDS]));
  const looks = { desktop: DESKTOP, phone: PHONE } as const;
  for (const [name, look] of Object.entries(looks)) {
    for (const colorScheme of ['dark', 'light'] as const) {
      // One after the other: a browser that draws four pages at once by software has no time for a picture.
      const screen = await Screen.open(t, gateway.address, '', { ...look, colorScheme });
      await screen.untilReplayed(9);
      await until('some seconds of a recording were seen', () => screen.page.evaluate(() => /12:00:[345]/.test(document.querySelector('#tape td')?.textContent ?? '')));
      assert.deepEqual(await tooWide(screen), [0, 0], name);
      assert.deepEqual(await cutOff(screen, ['symbol', 'state', 'last', 'change', 'bid', 'ask']), [], name);
      await picture(screen.page, `${name}-${colorScheme}`, name === 'phone');
      screen.assertClean();
      await screen.page.close();
    }
  }
});

test('the list fits every width', options, async (t) => {
  const gateway = keep(t, await Gateway.start(['replay', '--loop', ...settings(PATIENT), ...FEEDS]));
  const screen = await Screen.open(t, gateway.address);
  await screen.untilReplayed(9);
  for (const width of [1920, 1400, 1280, 1024, 901, 900, 701, 700, 390, 360]) {
    await screen.page.setViewportSize({ width, height: 800 });
    await until(`it fits ${width} pixels`, async () => (await tooWide(screen)).every((pixels) => pixels <= 0)).catch(() => {});
    assert.deepEqual(await tooWide(screen), [0, 0], `${width}`);
    assert.deepEqual(await cutOff(screen, ['state', 'last', 'change', 'bid', 'ask']), [], `${width}`);
    if ([1920, 1280, 1024, 360].includes(width)) await picture(screen.page, `width-${width}`, width < 900);
  }
  // A lost link has to be seen at a glance.
  await screen.page.setViewportSize(DESKTOP.viewport);
  await gateway.stop();
  await screen.until(() => document.querySelectorAll('#rows tr:not(.stale)').length === 0, undefined);
  await picture(screen.page, 'desktop-lost');
  screen.assertClean(NO_GATEWAY);
});

test('the page of a latency report is as wide as a phone', options, async (t) => {
  const here = folder();
  const log = join(here, 'latency.hlog');
  const gateway = keep(t, await Gateway.start(['replay', '--speed', '20', '--exit', ...settings([`latency.log=${log}`, 'latency.interval_ms=200']), ...FEEDS]));
  await new Promise((resolve) => (gateway.process.exitCode === null ? gateway.process.once('exit', resolve) : resolve(0)));
  const html = join(here, 'report.html');
  run(['report', log, '--html', html]);
  const context = keep(t, await (await theBrowser()).newContext(PHONE));
  const page = await context.newPage();
  await page.goto(pathToFileURL(html).href);
  // With all that can be unfolded.
  await page.$$eval('details', (all) => all.forEach((one) => (one.open = true)));
  const over = await page.evaluate(() => ({
    page: document.documentElement.scrollWidth - innerWidth,
    tables: [...document.querySelectorAll('table')].filter((table) => getComputedStyle(table.parentElement as HTMLElement).overflowX !== 'auto').length,
  }));
  await picture(page, 'report-phone', true);
  assert.deepEqual(over, { page: 0, tables: 0 });
});
