/** Replays, lists, the clock, and requests that fail. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, connect, type Replay, type Trade } from 'tickfan-client';
import { Bench, FakeSocket, quote, settled, trade } from './fakes.js';
import { A, B, short, type Item } from './short.js';

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
