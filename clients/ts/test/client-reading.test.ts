/** How a program reads: callbacks, iteration, and what is junk. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Bench, settled, trade } from './fakes.js';
import { A, short, type Item } from './short.js';

test('for await brings ticks, gaps and states in order, and leaving it unsubscribes', async () => {
  const bench = new Bench();
  const stream = bench.client.subscribe('trade', A);
  const socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 7, { snap: true }));
  socket.say({ type: 'gap', symbol: A, channel: 'trade', from: 8, to: 9, why: 'feed' });
  socket.say({ type: 'status', symbol: A, state: 'stale', since: 1 });
  socket.say(trade(A, 10));
  const items: Item[] = [];
  for await (const item of stream) {
    items.push(item);
    if (item.type === 'trade' && item.seq === 10) break;
  }
  assert.deepEqual(short(items), [`${A} live`, `${A} 7 snap`, `${A} 8-9 feed`, `${A} stale`, `${A} 10`]);
  await settled();
  assert.deepEqual(socket.request('unsubscribe')['symbols'], [A]);
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
  await bench.end();
});

test('a reader that does not keep up is told by how much', async () => {
  const bench = new Bench();
  const stream = bench.client.subscribe('trade', A, { queueMax: 3 });
  const socket = await bench.open();
  await socket.accept();
  for (let seq = 1; seq <= 10; seq++) socket.say(trade(A, seq));
  assert.equal(stream.overflowed, 8);
  const closed = bench.end();
  const items: Item[] = [];
  for await (const item of stream) items.push(item);
  assert.deepEqual(short(items), [`${A} 1-7 overflow`, `${A} live`, `${A} 8`, `${A} 9`, `${A} 10`]);
  await closed;
});

test('what a callback throws stays with the callback', async () => {
  const fail = () => {
    throw new Error('mine');
  };
  const bench = new Bench({
    onLink: fail,
    onGap: fail,
    onBroken: fail,
    onStatus: fail,
    onLag: fail,
    onHeartbeat: fail,
    onUnknown: fail,
    onRejected: fail,
  });
  bench.client.subscribe('trade', A, { onGap: fail, onStatus: fail }, fail);
  bench.client.subscribe('trade', A, async () => Promise.reject(new Error('later')));
  const socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 1));
  socket.say(trade(A, 5));
  socket.say({ type: 'gap', symbol: A, channel: 'trade', from: 6, to: 9, why: 'feed' });
  socket.say({ type: 'replay', speed: 2 });
  socket.say({ type: 'lag', level: 'ok', behind_ms: 0, queued_bytes: 0, merged: 0, dropped: 0 });
  socket.say({ type: 'hb', time: 1, sent: 1, behind_ms: 0 });
  await settled();
  assert.ok(bench.heard.error.length >= 12, `${bench.heard.error.length}`);
  await bench.end();
  const quiet = new Bench({ onLink: fail, onError: fail });
  await quiet.open();
  await quiet.end();
});

test('a callback may do anything to the client', async () => {
  const bench: Bench = new Bench({ onLink: (event) => event.state === 'lost' && void bench.client.close() });
  const again = () => {
    subscription.unsubscribe();
    bench.client.subscribe('trade', A, again).unsubscribe();
    bench.client.subscribe('trade', '*', { snapshot: false }, () => void bench.client.close());
  };
  const subscription = bench.client.subscribe('trade', A, again);
  const socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 1));
  await settled();
  await socket.accept();
  socket.say(trade(A, 2));
  await settled();
  assert.equal(socket.closedWith, 1000);
  socket.end(1000);
  await bench.client.close();
  assert.equal(bench.clock.running, 0);
  const other: Bench = new Bench({ onLink: (event) => event.state === 'lost' && void other.client.close() });
  await other.open();
  other.socket.end();
  await other.client.close();
  assert.deepEqual([other.clock.running, other.sockets.length], [0, 1]);
});

test('junk of every kind is told and does no harm', async () => {
  const bench = new Bench({ messageMax: 1000 });
  bench.client.subscribe('trade', A, () => {});
  const socket = await bench.open();
  await socket.accept();
  for (const junk of ['', 'x', '[]', '{"type":"trade"}', '{"type":"hello"}']) socket.say(junk);
  socket.hello();
  socket.sayBytes(new ArrayBuffer(8));
  socket.say(`{"type":"later","x":"${'x'.repeat(1000)}"}`);
  socket.say({ type: 'later', x: 1 });
  assert.deepEqual(
    bench.heard.broken.map(({ kind }) => kind),
    [...Array(6).fill('unreadable'), 'binary', 'too_big'],
  );
  assert.deepEqual(bench.heard.unknown, [{ type: 'later', x: 1 }]);
  socket.say(trade(A, 1));
  assert.equal(bench.heard.broken.length, 8);
  await bench.end();
});
