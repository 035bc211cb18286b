/** The short form of `make bench-page`: that it works, not how fast. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../../clients/ts/test/gateway.js';
import { Loaded } from './load.js';

const TICKS = { symbols: 300, rate: 5000 };

test('300 symbols and 5,000 updates a second: all are shown, and nothing grows without bound', { timeout: 300_000 }, async (t) => {
  const loaded = await Loaded.start(t, TICKS);
  const { page } = loaded;
  const count = (selector: string) => page.evaluate((selector) => document.querySelectorAll(selector).length, selector);
  await until('the tape is full', async () => (await count('#tape tr')) === 100);
  const before = await loaded.counted();
  await loaded.frames();
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const { frames, messages } = await loaded.frames();
  const after = await loaded.counted();
  t.diagnostic(`${messages} messages, ${frames.length} frames, heap ${before.JSHeapUsedSize} to ${after.JSHeapUsedSize} bytes`);
  assert.ok(messages > 0 && frames.length > 0);
  assert.equal(await count('#rows tr'), TICKS.symbols);
  assert.deepEqual([await loaded.text('broken'), await loaded.text('dropped')], ['0', '0']);
  assert.ok(after.Nodes <= before.Nodes * 1.2, `${before.Nodes} nodes, then ${after.Nodes}`);
  assert.ok(after.JSHeapUsedSize <= before.JSHeapUsedSize + 8e6, `${before.JSHeapUsedSize} bytes, then ${after.JSHeapUsedSize}`);
  // The last row is as new as the first, once somebody looks at it.
  await page.evaluate(() => document.querySelector('#rows tr:last-child')?.scrollIntoView(), undefined);
  const last = () => page.evaluate(() => [...document.querySelectorAll('#rows tr:last-child td')].map((cell) => cell.textContent).join(' '), undefined);
  await until('the last row has prices', async () => /demo:S299 live .*\d+\.\d\d .* now/.test(await last()));
});
