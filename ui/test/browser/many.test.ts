/** The short form of `make bench-page`: that it works, not how fast. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../../clients/ts/test/gateway.js';
import { Loaded } from './load.js';

test('300 symbols and 5,000 updates a second: all are shown, and nothing grows without bound', { timeout: 300_000 }, async (t) => {
  const loaded = await Loaded.start(t, { symbols: 300, rate: 5000 });
  const { screen } = loaded;
  await until('the tape is full', async () => (await screen.page.locator('#tape tr').count()) === 100);
  const before = await loaded.counted();
  await loaded.frames();
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const { frames, messages } = await loaded.frames();
  const after = await loaded.counted();
  t.diagnostic(`${messages} messages, ${frames.length} frames, heap ${before.JSHeapUsedSize} to ${after.JSHeapUsedSize} bytes`);
  assert.ok(messages > 0 && frames.length > 0);
  assert.equal((await screen.symbols()).length, 300);
  assert.deepEqual([await screen.text('broken'), await screen.text('dropped')], ['0', '0']);
  assert.ok(after.Nodes <= before.Nodes * 1.2, `${before.Nodes} nodes, then ${after.Nodes}`);
  assert.ok(after.JSHeapUsedSize <= before.JSHeapUsedSize + 8e6, `${before.JSHeapUsedSize} bytes, then ${after.JSHeapUsedSize}`);
  // The last row is as new as the first, once somebody looks at it.
  await screen.page.locator('#rows tr').last().scrollIntoViewIfNeeded();
  await until('the last row has prices', async () => {
    const { last, bid, age } = Object.values(await screen.rows()).at(-1) ?? {};
    return last !== '' && bid !== '' && age === 'now';
  });
  screen.assertClean();
});
