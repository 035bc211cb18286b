/** What is asked for, by names and by wildcards. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Bench, quote, settled, trade } from './fakes.js';
import { A, B, short, type Item } from './short.js';

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
