/** The client between a program and a gateway that are both the test, on a clock that the test moves. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, RequestError, type Gap, type Quote, type Replay, type Status, type Trade } from 'tickfan-client';
import { Client } from 'tickfan-client';
import { Bench, FakeSocket, quote, settled, trade } from './fakes.js';

const A = 'demo:A';
const B = 'demo:B';

type Item = Trade | Quote | Gap | Status;

/** In short: what came. */
const short = (items: readonly Item[]) =>
  items.map((item) => {
    if (item.type === 'gap') return `${item.symbol} ${item.from}-${item.to} ${item.why}`;
    if (item.type === 'status') return `${item.symbol} ${item.state}`;
    return `${item.symbol} ${item.seq}${item.snap ? ' snap' : ''}`;
  });

test('subscribes once for all that is wanted in one go, and hands out ticks in order', async () => {
  const bench = new Bench();
  const ticks: Item[] = [];
  for (let i = 0; i < 300; i++) bench.client.subscribe('quote', `demo:${i}`, (tick) => ticks.push(tick));
  bench.client.subscribe('trade', A, (tick) => ticks.push(tick));
  const socket = await bench.open();
  assert.equal(socket.url, 'ws://gateway/ws');
  assert.equal((await socket.accept()).symbols.length, 1);
  const request = await socket.accept();
  assert.deepEqual(
    [request.channel, request.mode, request.symbols.length, request.resume],
    ['quote', 'latest', 300, undefined],
  );
  assert.ok(socket.isQuiet);
  socket.say(quote('demo:7', 4, { snap: true }));
  socket.say(trade(A, 1));
  socket.say(quote('demo:7', 6, { n: 2 }));
  assert.deepEqual(short(ticks), ['demo:7 4 snap', `${A} 1`, 'demo:7 6']);
  assert.deepEqual(bench.heard.broken, []);
  await bench.end();
});

test('what fits no single request is asked for in several', async () => {
  const bench = new Bench();
  const symbols = Array.from({ length: 2500 }, (_, i) => `demo:${i}`);
  const subscription = bench.client.subscribe('trade', symbols, () => {});
  const socket = await bench.open('e1', { symbols: 5000, frame_bytes: 16_384 });
  const asked: string[] = [];
  while (asked.length < symbols.length) {
    const request = await socket.accept();
    assert.ok(JSON.stringify(request).length < 16_384);
    asked.push(...request.symbols);
  }
  assert.deepEqual(asked, symbols);
  assert.equal((await subscription.ready).ok.length, 2500);
  await bench.end();
});

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

test('several subscriptions to one symbol share it, each with its own snapshot', async () => {
  const bench = new Bench();
  const [one, two, three]: Item[][] = [[], [], []];
  const first = bench.client.subscribe('trade', A, (tick) => one!.push(tick));
  const socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 7, { snap: true }));
  socket.say(trade(A, 8));
  const second = bench.client.subscribe('trade', A, { onStatus: (status) => two!.push(status) }, (tick) =>
    two!.push(tick),
  );
  const third = bench.client.subscribe('trade', A, { snapshot: false }, (tick) => three!.push(tick));
  await second.ready;
  assert.ok(socket.isQuiet, 'the gateway has it already');
  socket.say(trade(A, 9));
  assert.deepEqual(
    [short(one!), short(two!), short(three!)],
    [[`${A} 7 snap`, `${A} 8`, `${A} 9`], [`${A} live`, `${A} 8 snap`, `${A} 9`], [`${A} 9`]],
  );
  first.unsubscribe();
  second.unsubscribe();
  await settled();
  assert.ok(socket.isQuiet, 'somebody still wants it');
  third.unsubscribe();
  third.unsubscribe();
  await settled();
  const { id } = socket.request('unsubscribe');
  socket.say(trade(A, 10));
  socket.say({ type: 'ack', id, op: 'unsubscribe', channel: 'trade', ok: [{ symbol: A }], rejected: [] });
  assert.deepEqual(bench.heard.broken, []);
  socket.say(trade(A, 11));
  assert.deepEqual(
    bench.heard.broken.map(({ kind }) => kind),
    ['unasked'],
  );
  assert.equal(three!.length, 1);
  await bench.end();
});

test('a recording is never live: not before its state is known, and not when it is taken up again', async () => {
  const bench = new Bench();
  bench.client.subscribe('trade', '*', () => {});
  let socket = await bench.open();
  await socket.accept({ state: undefined });
  for (const state of ['replay', 'paused', 'ended'] as const) {
    socket.say({ type: 'status', symbol: A, state, since: 1 });
    assert.equal(bench.client.state(A), state);
  }
  socket.say({ type: 'status', symbol: A, state: 'replay', since: 1 });
  socket.say(trade(A, 1));
  socket.say(trade(B, 1));
  socket.pong();
  assert.deepEqual([bench.client.state(A), bench.client.state(B)], ['replay', 'live'], 'of the other nothing else was said');
  socket = await bench.reopen();
  const request = await socket.accept({ state: undefined, resumed: 'ok' });
  assert.deepEqual(request['resume'].seq, { [A]: 1, [B]: 1 });
  assert.deepEqual([bench.client.state(A), bench.client.state(B)], ['unknown', 'unknown'], 'the gateway has not told yet');
  socket.say({ type: 'status', symbol: A, state: 'replay', since: 1 });
  socket.say({ type: 'status', symbol: B, state: 'live', since: 1 });
  socket.pong();
  assert.deepEqual([bench.client.state(A), bench.client.state(B)], ['replay', 'live']);
  socket.say(trade(A, 2));
  assert.equal(bench.client.state(A), 'replay');
  assert.deepEqual(
    bench.heard.status.filter(({ symbol, state }) => symbol === A && state === 'live'),
    [],
  );
  assert.deepEqual(bench.heard.broken, []);
  await bench.end();
});

test('who subscribes while there is no connection sees what is known, and then what follows it', async () => {
  const bench = new Bench();
  bench.client.subscribe('trade', A, () => {});
  let socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 7, { snap: true }));
  assert.equal(bench.client.state(A), 'late', 'nothing proves yet how old that is');
  socket.pong();
  assert.equal(bench.client.state(A), 'live');
  socket.end();
  assert.equal(bench.client.state(A), 'unknown');
  const late: Item[] = [];
  bench.client.subscribe('trade', A, (tick) => late.push(tick));
  await bench.waitOut();
  socket = bench.socket;
  socket.hello();
  assert.equal(bench.client.state(A), 'unknown', 'nothing was said of it yet');
  await socket.accept({ resumed: 'ok' });
  assert.equal(bench.client.state(A), 'late', 'what another connection proved holds no more');
  socket.pong();
  assert.equal(bench.client.state(A), 'live');
  socket.say(trade(A, 8));
  assert.deepEqual(short(late), [`${A} 7 snap`, `${A} 8`]);
  await bench.end();
});

test('the gateway is asked for the most that anybody wants', async () => {
  const bench = new Bench();
  bench.client.subscribe('quote', A, { mode: 'latest', max_hz: 2 }, () => {});
  const socket = await bench.open();
  assert.deepEqual((await socket.accept()).max_hz, 2);
  const faster = bench.client.subscribe('quote', A, { mode: 'latest', max_hz: 10 }, () => {});
  await settled();
  const acknowledge = async () => {
    const set = socket.request('set');
    socket.say({ type: 'ack', id: set['id'], op: 'set', channel: 'quote', ok: [], rejected: [] });
    await settled();
    return [set['symbols'], set['mode'], set['max_hz']];
  };
  assert.deepEqual(await acknowledge(), [[A], 'latest', 10]);
  faster.set({ mode: 'every' });
  await settled();
  assert.deepEqual(await acknowledge(), [[A], 'every', undefined]);
  faster.unsubscribe();
  await settled();
  assert.deepEqual(await acknowledge(), [[A], 'latest', 2]);
  assert.ok(socket.isQuiet);
  await bench.end();
});

test('a symbol taken out of a wildcard keeps its own terms, and goes back to those of the wildcard', async () => {
  const bench = new Bench();
  const wide: Item[] = [];
  const wildcard = bench.client.subscribe('quote', 'demo:*', { max_hz: 1 }, (tick) => wide.push(tick));
  const own = bench.client.subscribe('quote', A, () => {});
  const socket = await bench.open();
  const requests = [await socket.accept(), await socket.accept()];
  assert.deepEqual(
    requests.map(({ symbols, max_hz }) => [symbols, max_hz]),
    [
      [['demo:*'], 1],
      [[A], undefined],
    ],
  );
  socket.say(quote(A, 3, { snap: true }));
  own.unsubscribe();
  await settled();
  // No unsubscribe: that would cut it out of the wildcard.
  const set = socket.request('set');
  assert.deepEqual([set['symbols'], set['max_hz']], [[A], 1]);
  socket.say({ type: 'ack', id: set['id'], op: 'set', channel: 'quote', ok: [], rejected: [] });
  socket.say(quote(A, 5, { n: 2 }));
  assert.ok(socket.isQuiet);
  assert.deepEqual([short(wide), bench.heard.broken], [[`${A} 3 snap`, `${A} 5`], []]);
  // To the gateway it is a subscription of its own still: it would stay when the wildcard goes.
  wildcard.unsubscribe();
  await settled();
  const gone = socket.request('unsubscribe');
  assert.deepEqual(gone['symbols'], ['demo:*', A]);
  socket.say({ type: 'ack', id: gone['id'], op: 'unsubscribe', channel: 'quote', ok: [], rejected: [] });
  assert.ok(socket.isQuiet);
  socket.say(quote(A, 6));
  assert.deepEqual(
    bench.heard.broken.map(({ kind }) => kind),
    ['unasked'],
  );
  await bench.end();
});

test('a change of a wildcard changes nothing of what is asked for by name', async () => {
  const bench = new Bench();
  const wide = bench.client.subscribe('quote', '*', { max_hz: 1 }, () => {});
  bench.client.subscribe('quote', [A, 'other:*'], { max_hz: 5 }, () => {});
  const socket = await bench.open();
  const requests = [await socket.accept(), await socket.accept()];
  assert.deepEqual(
    requests.map(({ symbols, max_hz }) => [symbols, max_hz]),
    [
      [['*'], 1],
      [['other:*', A], 5],
    ],
  );
  wide.set({ max_hz: 2 });
  await settled();
  const slower = socket.request('set');
  assert.deepEqual([slower['symbols'], slower['max_hz']], [['*'], 2]);
  socket.say({ type: 'ack', id: slower['id'], op: 'set', channel: 'quote', ok: [], rejected: [] });
  await settled();
  assert.ok(socket.isQuiet, 'they have what they are to have');
  wide.set({ max_hz: 10 });
  await settled();
  const faster = socket.request('set');
  assert.deepEqual([faster['symbols'], faster['max_hz']], [['*', 'other:*', A], 10]);
  await bench.end();
});

test('what is asked for by name stays when a wildcard goes', async () => {
  const bench = new Bench();
  const kept: Item[] = [];
  const wide = bench.client.subscribe('trade', '*', () => {});
  bench.client.subscribe('trade', A, (tick) => kept.push(tick));
  const socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 7, { snap: true }));
  socket.say(trade(B, 3, { snap: true }));
  wide.unsubscribe();
  await settled();
  const { id, symbols } = socket.request('unsubscribe');
  assert.deepEqual(symbols, ['*']);
  socket.say(trade(A, 8));
  socket.say({ type: 'ack', id, op: 'unsubscribe', channel: 'trade', ok: [{ symbol: '*' }], rejected: [] });
  await settled();
  assert.ok(socket.isQuiet, 'the gateway still has it');
  socket.say(trade(A, 9));
  assert.deepEqual([short(kept), bench.heard.broken], [[`${A} 7 snap`, `${A} 8`, `${A} 9`], []]);
  await bench.end();
});

test('a bare name becomes the symbol that the gateway names', async () => {
  const bench = new Bench();
  const [full, bare]: Item[][] = [[], []];
  bench.client.subscribe('trade', A, (tick) => full!.push(tick));
  let socket = await bench.open();
  await socket.accept();
  socket.say(trade(A, 7, { snap: true }));
  const subscription = bench.client.subscribe(['trade', 'quote'], ['A', 'NOPE'], (tick) => bare!.push(tick));
  await settled();
  for (const channel of ['trade', 'quote']) {
    const { id } = socket.request('subscribe');
    const row = { symbol: A, channel, mode: 'every', state: 'live' };
    const rejected = [{ symbol: 'NOPE', code: 'unknown_symbol', msg: 'no venue lists it' }];
    socket.say({ type: 'ack', id, op: 'subscribe', channel, ok: [row], rejected });
  }
  const { ok, rejected } = await subscription.ready;
  assert.deepEqual([ok.map(({ symbol }) => symbol), rejected.length], [[A, A], 2]);
  socket.say(trade(A, 8));
  assert.deepEqual(short(bare!), [`${A} 7 snap`, `${A} 8`]);
  assert.ok(socket.isQuiet, 'what was refused is not asked for again here');
  socket = await bench.reopen();
  const again = [await socket.accept({ resumed: 'ok' }), await socket.accept()];
  // Another gateway may know the other name.
  assert.deepEqual(
    again.map(({ symbols }) => symbols.sort()),
    [
      ['NOPE', A],
      ['NOPE', A],
    ],
  );
  await bench.end();
});

test('an answer that does not fit the request is told', async () => {
  const bench = new Bench();
  const subscription = bench.client.subscribe('trade', [A, B], () => {});
  const socket = await bench.open();
  const { id } = socket.request('subscribe');
  const row = (symbol: string, channel = 'trade') => ({ symbol, channel, mode: 'every', state: 'live' });
  const ok = [row(A), row(A), row('demo:C'), row(B, 'quote')];
  socket.say({
    type: 'ack',
    id,
    op: 'subscribe',
    channel: 'trade',
    ok,
    rejected: [{ symbol: 'x', code: 'y', msg: 'z' }],
  });
  socket.say({ type: 'ack', id, op: 'subscribe', channel: 'trade', ok, rejected: [] });
  socket.say({ type: 'pong', id: 1, in: 1, out: 1 });
  socket.say({ type: 'error', code: 'bad_request', msg: 'what?', retry: false });
  assert.deepEqual(
    bench.heard.broken.map(({ kind }) => kind),
    Array(8).fill('answer'),
  );
  assert.deepEqual((await subscription.ready).rejected, [
    { symbol: B, code: 'no_answer', msg: 'the answer does not name it' },
  ]);
  await settled();
  assert.ok(socket.isQuiet);
  await bench.end();
});

test('a request that came too soon is repeated, one that is refused is not', async () => {
  const bench = new Bench();
  bench.client.subscribe('trade', A, () => {});
  const socket = await bench.open();
  socket.say({
    type: 'error',
    id: socket.request('subscribe')['id'],
    code: 'rate_limited',
    msg: 'slow down',
    retry: true,
  });
  await bench.clock.pass(999);
  assert.ok(socket.isQuiet);
  await bench.clock.pass(1);
  socket.say({ type: 'error', id: socket.request('subscribe')['id'], code: 'bad_request', msg: 'no', retry: false });
  await bench.clock.pass(4_000);
  assert.ok(socket.isQuiet);
  assert.deepEqual(bench.heard.rejected, [{ symbol: A, code: 'bad_request', msg: 'no', channel: 'trade' }]);
  await bench.end();
});

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

test('a replay is asked, and told of', async () => {
  const replays: Replay[] = [];
  const bench = new Bench({ onReplay: (replay) => replays.push(replay) });
  const { replay } = bench.client;
  await assert.rejects(replay.pause(), { code: 'lost' });
  let socket = await bench.open();
  assert.equal(replay.status, undefined);
  const status: Replay = { type: 'replay', state: 'paused', position: 7, from: 1, to: 9, speed: 0.5, loop: true };
  socket.say(status);
  assert.deepEqual([replays, replay.status], [[status], status]);
  const asked = [
    [replay.pause(), { do: 'pause' }],
    [replay.resume(), { do: 'resume' }],
    [replay.seek(5), { do: 'seek', to: 5 }],
    [replay.speed(0), { do: 'speed', speed: 0 }],
    [replay.step(), { do: 'step', ticks: 1 }],
    [replay.step(3), { do: 'step', ticks: 3 }],
    [replay.loop(false), { do: 'loop', on: false }],
    [replay.stop(), { do: 'stop' }],
  ] as const;
  for (const [promise, fields] of asked) {
    const { id, ...request } = socket.request('replay');
    assert.deepEqual(request, { op: 'replay', ...fields });
    socket.say({ type: 'ack', op: 'replay', id });
    await promise;
  }
  replay.token = 'secret';
  const refused = replay.pause();
  const { id, token } = socket.request('replay');
  assert.equal(token, 'secret');
  socket.say({ type: 'error', id, code: 'bad_request', msg: 'nothing is replayed', retry: false });
  await assert.rejects(refused, { name: 'RequestError', code: 'bad_request' });
  // What makes no sense is not asked.
  for (const senseless of [replay.seek(0.5), replay.seek(-1), replay.speed(1001), replay.speed(NaN), replay.step(0)])
    await assert.rejects(senseless, RangeError);
  assert.ok(socket.isQuiet);
  // What another connection told is not known of the next one.
  socket = await bench.reopen();
  assert.equal(replay.status, undefined);
  assert.deepEqual(bench.heard.broken, []);
  await bench.end();
});

test('a replay goes elsewhere: what stands there follows, and what is not there is no value any more', async () => {
  const bench = new Bench();
  const ticks: Item[] = [];
  bench.client.subscribe(['trade', 'quote'], A, (tick) => ticks.push(tick));
  const socket = await bench.open();
  for (let i = 0; i < 2; i++) await socket.accept();
  socket.say(trade(A, 1));
  socket.say(quote(A, 1));
  socket.say(trade(A, 2, { snap: true, ts: 1 }));
  socket.say({ type: 'gap', symbol: A, channel: 'quote', from: 2, to: 2, why: 'seek' });
  socket.say(trade(A, 3));
  assert.deepEqual(short(ticks), [`${A} 1`, `${A} 1`, `${A} 2 snap`, `${A} 3`]);
  const late: Item[] = [];
  bench.client.subscribe(['trade', 'quote'], A, (tick) => late.push(tick));
  await settled();
  assert.deepEqual(short(late), [`${A} 3 snap`]);
  socket.say(quote(A, 3));
  assert.deepEqual(bench.heard.broken, []);
  await bench.end();
});

test('requests are answered, refused, or fail with the connection', async () => {
  const bench = new Bench({ requestsMax: 3 });
  await assert.rejects(bench.client.ping(), { code: 'lost' });
  const socket = await bench.open();
  // The first ping is the client's own.
  const [list, symbols, ping] = [bench.client.list(), bench.client.symbols('demo:*'), bench.client.ping()];
  await assert.rejects(ping, { code: 'too_many' });
  socket.say({ type: 'ack', id: socket.request('list')['id'], op: 'list', subscriptions: [], more: true });
  assert.equal((await list).more, true);
  const request = socket.request('symbols');
  assert.equal(request['match'], 'demo:*');
  socket.say({ type: 'error', id: request['id'], code: 'ambiguous_symbol', msg: 'several', retry: false });
  await assert.rejects(symbols, { code: 'ambiguous_symbol', retry: false });
  const lost = bench.client.list();
  socket.end();
  await assert.rejects(lost, { code: 'lost', retry: true });
  await bench.end();
  await assert.rejects(bench.client.list(), { code: 'closed' });
});

test('what no single answer has room for is asked for in several', async () => {
  const bench = new Bench();
  const socket = await bench.open();
  const asked = () => {
    const { id, match, after } = socket.request('symbols');
    return [id, match, after];
  };
  const found = bench.client.symbols('demo:*');
  const say = async (id: unknown, symbols: string[], more: object) => {
    socket.say({ type: 'ack', id, op: 'symbols', symbols: symbols.map((symbol) => ({ symbol, state: 'live' })), ...more });
    await settled();
  };
  const first = asked();
  assert.deepEqual(first.slice(1), ['demo:*', undefined]);
  await say(first[0], [A, B], { more: true });
  const second = asked();
  assert.deepEqual(second.slice(1), ['demo:*', B]);
  // Too soon: it is asked again.
  socket.say({ type: 'error', id: second[0], code: 'rate_limited', msg: 'too many', retry: true });
  await settled();
  assert.ok(socket.isQuiet);
  await bench.clock.pass(1_000);
  const third = asked();
  assert.deepEqual(third.slice(1), ['demo:*', B]);
  await say(third[0], ['demo:C'], {});
  assert.deepEqual(
    (await found).map(({ symbol }) => symbol),
    [A, B, 'demo:C'],
  );
  assert.ok(socket.isQuiet);
  // Whatever ends the client ends this too.
  const row = { symbol: A, channel: 'trade', mode: 'every' };
  const list = bench.client.list();
  socket.say({ type: 'ack', id: socket.request('list')['id'], op: 'list', subscriptions: [row], more: true });
  await settled();
  const again = socket.request('list');
  assert.equal(again['after'], A);
  socket.say({ type: 'error', id: again['id'], code: 'rate_limited', msg: 'too many', retry: true });
  await settled();
  const rejected = assert.rejects(list, { code: 'closed' });
  await bench.end();
  await rejected;
});

test('the clocks are compared by ping, and a tick has an age', async () => {
  const bench = new Bench({ pingMs: 1_000 });
  const socket = await bench.open();
  const offset = () => bench.client.offset;
  assert.equal(offset(), undefined);
  const pong = async (takes: number) => {
    const { id } = socket.request('ping');
    const read = Math.round((bench.clock.now() + takes / 2) * 1000) + 7_000_000;
    await bench.clock.pass(takes);
    socket.say({ type: 'pong', id, in: read, out: read });
  };
  await pong(20);
  assert.deepEqual(offset(), { offset_us: 7_000_000, error_us: 10_000, rtt_us: 20_000 });
  await bench.clock.pass(230);
  await pong(4);
  assert.equal(offset()?.rtt_us, 4_000);
  const rx = Math.round(bench.clock.now() * 1000) + 7_000_000;
  await bench.clock.pass(3);
  assert.ok(Math.abs((bench.client.ageMs(trade(A, 1, { rx }) as Trade) ?? 0) - 3) < 0.01);
  await bench.end();
});

test('what makes no sense is refused at once', () => {
  assert.throws(() => connect('not a url'), TypeError);
  assert.throws(() => connect('ftp://x/'), TypeError);
  assert.throws(() => connect('ws://x/ws?symbols=*'), TypeError);
  const client = new Client('http://gateway/ws', { WebSocket: FakeSocket });
  const noop = () => {};
  assert.throws(() => client.subscribe('trade', [], noop), TypeError);
  assert.throws(() => client.subscribe('trade', [''], noop), TypeError);
  assert.throws(() => client.subscribe('trade', 'x'.repeat(200), noop), TypeError);
  assert.throws(() => client.subscribe('book' as 'trade', A, noop), TypeError);
  assert.throws(() => client.subscribe('trade', A, { max_hz: 1 }, noop), RangeError);
  assert.throws(() => client.subscribe('quote', A, { max_hz: 0 }, noop), RangeError);
  assert.throws(() => client.subscribe('quote', A, { on_slow: 'cut' }, noop), RangeError);
  void client.close();
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
