/** Connections that break and come back, and what is told of what was missed. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RequestError, type Gap } from 'tickfan-client';
import { Bench, FakeSocket, quote, settled, trade } from './fakes.js';
import { A, B, short } from './short.js';

test('goes on where it was, for each symbol and channel', async () => {
  const bench = new Bench();
  bench.client.subscribe(['trade', 'quote'], [A, B], () => {});
  let socket = await bench.open();
  for (let i = 0; i < 2; i++) await socket.accept();
  socket.say(trade(A, 7, { snap: true }));
  socket.say(quote(A, 3, { snap: true }));
  socket.say({ type: 'gap', symbol: A, channel: 'trade', from: 8, to: 9, why: 'feed' });
  socket = await bench.reopen();
  const requests = [await socket.accept({ resumed: 'ok' }), await socket.accept({ resumed: 'ok' })];
  assert.deepEqual(
    requests.map(({ channel, resume }) => [channel, resume]),
    [
      ['trade', { epoch: 'e1', seq: { [A]: 9 } }],
      ['quote', { epoch: 'e1', seq: { [A]: 3 } }],
    ],
  );
  socket.say(trade(A, 10));
  socket.say(quote(A, 9, { n: 6 }));
  assert.deepEqual(bench.heard.broken, []);
  socket.say(trade(A, 12));
  assert.deepEqual(
    bench.heard.broken.map(({ kind, missing }) => [kind, missing]),
    [['update', 1]],
  );
  await bench.end();
});

test('a restarted gateway is told of and begun anew', async () => {
  const bench = new Bench();
  bench.client.subscribe('trade', A, () => {});
  let socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 7, { snap: true }));
  socket = await bench.reopen('e2');
  assert.equal((await socket.accept()).resume, undefined);
  socket.say(trade(A, 2, { snap: true }));
  socket.say(trade(A, 3));
  assert.deepEqual(bench.heard.broken, []);
  assert.deepEqual(
    bench.links.map((event) => (event.state === 'open' ? event.newEpoch : event.state)),
    ['connecting', false, 'lost', 'connecting', true],
  );
  await bench.end();
});

test('what cannot be asked for again is told as missed', async () => {
  const bench = new Bench();
  const gaps: Gap[] = [];
  bench.client.subscribe('trade', '*', { onGap: (gap) => gaps.push(gap) }, () => {});
  let socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 7, { snap: true }));
  // So little room that no number fits.
  socket = await bench.reopen('e1', { frame_bytes: 512 });
  assert.equal((await socket.accept()).resume, undefined);
  socket.say(trade(A, 20, { snap: true }));
  assert.deepEqual([short(gaps), short(bench.heard.gap)], [[`${A} 8-19 away`], [`${A} 8-19 away`]]);
  assert.deepEqual(bench.heard.broken, []);
  await bench.end();
});

for (const wanted of [A, 'demo:*', '*']) {
  test(`a number that the gateway has not come to is given up: ${wanted}`, async () => {
    const bench = new Bench();
    bench.client.subscribe('trade', wanted, () => {});
    let socket = await bench.open();
    await socket.accept();
    socket.say(trade(A, 7, { snap: true }));
    socket = await bench.reopen();
    const { id, resume } = socket.request('subscribe');
    assert.deepEqual(resume.seq, { [A]: 7 });
    socket.say({
      type: 'ack',
      id,
      op: 'subscribe',
      channel: 'trade',
      ok: [],
      rejected: [{ symbol: wanted, code: 'bad_resume', msg: 'no' }],
    });
    await settled();
    assert.equal((await socket.accept()).resume, undefined);
    assert.deepEqual(
      bench.heard.rejected.map(({ code }) => code),
      ['bad_resume'],
    );
    await bench.end();
  });
}

test('comes back after a chance wait that doubles, and begins anew once it was up for a while', async () => {
  const bench = new Bench();
  bench.chance = 0.999;
  const waits: number[] = [];
  for (let i = 0; i < 9; i++) {
    await bench.clock.pass(0);
    await bench.waitOut();
    bench.socket.end();
    const event = bench.links.at(-1);
    if (event?.state === 'lost') waits.push(Math.round(event.retryInMs));
  }
  assert.deepEqual(waits, [250, 500, 999, 1998, 3996, 7992, 14_985, 14_985, 14_985]);
  await bench.waitOut();
  bench.socket.hello();
  await bench.clock.pass(9_000);
  bench.socket.say({ type: 'hb', time: 1, sent: 0, behind_ms: 0 });
  await bench.clock.pass(2_000);
  bench.socket.end();
  const last = bench.links.at(-1);
  assert.equal(last?.state === 'lost' && Math.round(last.retryInMs), 250);
  await bench.end();
});

test('obeys the close codes and the time that bye names', async () => {
  for (const [code, bye, back] of [
    [4000, { code: 4000, why: 'slow_consumer', reconnect: true, after_ms: 1000 }, 1000],
    [4001, { code: 4001, why: 'shutdown', reconnect: true, after_ms: 2310 }, 2310],
    [4499, undefined, 0],
    [1013, undefined, 0],
    [1006, undefined, 0],
    [4001, { code: 4001, why: 'shutdown', reconnect: true, after_ms: 2 ** 50 }, 600_000],
    [4001, { code: 4001, why: 'moved', reconnect: false }, undefined],
    [4500, undefined, undefined],
    [4502, { code: 4502, why: 'limit', reconnect: false }, undefined],
    [4999, undefined, undefined],
    [1009, { code: 1009, why: 'message_too_big', reconnect: false }, undefined],
  ] as const) {
    const bench = new Bench();
    bench.chance = 0;
    const stream = bench.client.subscribe('trade', A);
    const first = stream.next();
    const outcome = first.then(
      () => 'more',
      (error: RequestError) => error.code,
    );
    const socket = await bench.open();
    if (bye !== undefined) socket.say({ type: 'bye', ...bye });
    socket.end(code, bye?.why);
    const event = bench.links.at(-1);
    if (back === undefined) {
      assert.deepEqual([event?.state, bench.clock.running], ['closed', 0], `${code}`);
      assert.equal(await outcome, 'closed', `${code}: who reads hears of it`);
      assert.deepEqual(await stream.next(), { done: true, value: undefined });
      assert.throws(() => bench.client.subscribe('trade', A), RequestError);
      assert.equal(bench.sockets.length, 1);
      continue;
    }
    assert.equal(event?.state === 'lost' && event.retryInMs, back, `${code}`);
    if (back > 0) await bench.clock.pass(back - 1);
    assert.equal(bench.sockets.length, 1, `${code}`);
    await bench.clock.pass(2);
    assert.equal(bench.sockets.length, 2, `${code}`);
    await bench.end();
    assert.equal(await outcome, 'more');
  }
});

test('silence is a lost connection, but not where the program itself stood still', async () => {
  const bench = new Bench();
  const socket = await bench.open();
  for (let i = 0; i < 5; i++) {
    await bench.clock.pass(5_000);
    socket.say({ type: 'hb', time: 1, sent: 0, behind_ms: 0 });
  }
  await bench.clock.stall(60_000);
  assert.deepEqual(bench.states, ['connecting', 'open']);
  socket.say({ type: 'hb', time: 1, sent: 0, behind_ms: 0 });
  await bench.clock.pass(12_000);
  assert.deepEqual(bench.states, ['connecting', 'open']);
  await bench.clock.pass(3_000);
  assert.deepEqual(bench.states.slice(0, 3), ['connecting', 'open', 'lost']);
  assert.equal(socket.closedWith, 1005);
  await bench.end();
});

test('a gateway that never says hello is given up', async () => {
  const bench = new Bench();
  await bench.clock.pass(9_999);
  assert.deepEqual(bench.states, ['connecting']);
  bench.socket.say(trade(A, 1));
  await bench.clock.pass(2);
  assert.deepEqual([bench.states[1], bench.heard.broken[0].kind], ['lost', 'unreadable']);
  await bench.end();
});

test('no answer to a subscription is told, and the connection given up', async () => {
  const bench = new Bench({ answerMs: 3_000 });
  bench.client.subscribe('trade', A, () => {});
  await bench.open();
  await bench.clock.pass(3_000);
  assert.equal(bench.heard.broken[0].kind, 'answer');
  assert.ok(bench.states.includes('lost'));
  await bench.end();
});

test('a socket that cannot even be made is tried again', async () => {
  let tries = 0;
  class None extends FakeSocket {
    constructor() {
      tries += 1;
      super('', '');
      throw new SyntaxError('no');
    }
  }
  const bench = new Bench({ WebSocket: None });
  await bench.clock.pass(1_000);
  assert.ok(tries > 1);
  assert.deepEqual(bench.states.slice(0, 3), ['connecting', 'lost', 'connecting']);
  await bench.end();
});
