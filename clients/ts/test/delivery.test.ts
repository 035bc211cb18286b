/** What is shown as live is new, whatever hangs: on a clock that the test moves. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConnectOptions, Gap, Quote, Status, Trade } from 'tickfan-client';
import { Bench, quote, settled, trade, type FakeSocket } from './fakes.js';

const A = 'demo:A';
const LATE_MS = 2_000;

/** A client that shows one symbol as live. */
async function live(options: ConnectOptions = {}): Promise<[Bench, FakeSocket]> {
  const bench = new Bench(options);
  bench.client.subscribe(['trade', 'quote'], A, () => {});
  const socket = await bench.open();
  for (let i = 0; i < 2; i++) await socket.accept();
  socket.say(trade(A, 1, { snap: true }));
  socket.pong();
  assert.equal(bench.client.state(A), 'live');
  return [bench, socket];
}

/** Answers every ping at once for so long; nothing else comes. */
async function answering(bench: Bench, ms: number): Promise<void> {
  for (const end = bench.clock.now() + ms; bench.clock.now() < end;) {
    await bench.clock.pass(50);
    while (bench.socket.pings > 0) bench.socket.pong();
  }
}

test('a quiet symbol is live as long as pings are answered in time', async () => {
  const [bench] = await live();
  for (let second = 0; second < 60; second++) {
    await answering(bench, 1_000);
    assert.equal(bench.client.state(A), 'live');
    assert.ok(bench.client.delivery.behindMs <= 1_050, `${bench.client.delivery.behindMs}`);
  }
  assert.deepEqual(bench.heard.delivery, ['prompt']);
  // Once a second, and some more at first.
  const pings = bench.socket.sent.filter(({ op }) => op === 'ping').length;
  assert.ok(pings >= 60 && pings <= 65, `${pings}`);
  await bench.end();
});

test('nothing is live before the first pong, which stands behind the snapshots', async () => {
  const bench = new Bench();
  bench.client.subscribe('trade', A, () => {});
  const socket = await bench.open();
  const ops = socket.sent.map(({ op }) => op as string);
  assert.deepEqual(ops, ['subscribe', 'ping'], 'asked for before');
  await socket.accept();
  socket.say(trade(A, 1, { snap: true }));
  await bench.clock.pass(500);
  assert.deepEqual([bench.client.state(A), bench.client.delivery], ['late', { isLate: true, why: 'new', behindMs: Infinity }]);
  socket.pong();
  assert.equal(bench.client.state(A), 'live');
  assert.equal(bench.client.delivery.behindMs, 500, 'it proves what was when it was asked for, not when it was answered');
  await bench.end();
});

test('a gateway or a road that is silent makes everything late, long before the connection is lost', async () => {
  const [bench, socket] = await live();
  for (let at = 100; at <= 5_000; at += 100) {
    await bench.clock.pass(100);
    const { isLate, why } = bench.client.delivery;
    assert.equal(isLate, at > LATE_MS, `${at}`);
    assert.equal(bench.client.state(A), isLate ? 'late' : 'live');
    if (isLate) assert.equal(why, 'silent');
  }
  assert.ok(bench.client.isOpen);
  assert.deepEqual(bench.heard.delivery, ['prompt', 'silent'], 'told by a timer');
  assert.equal(socket.pings, 4, 'a gateway that hangs is not asked more and more');
  // It goes on: its answers are as old as the questions, and so is what stands before them.
  for (let i = 0; i < 4; i++) socket.pong();
  assert.equal(bench.client.state(A), 'late');
  assert.equal(socket.pings, 1, 'asked at once');
  socket.pong();
  assert.deepEqual([bench.client.state(A), bench.client.delivery.why], ['late', 'catching_up'], 'what it was sent meanwhile it may not have read');
  await answering(bench, 1_200);
  assert.equal(bench.client.state(A), 'live');
  assert.deepEqual(bench.heard.delivery, ['prompt', 'silent', 'slow', 'catching_up', 'prompt']);
  await bench.end();
});

test('what comes late is late, though it keeps coming', async () => {
  const [bench, socket] = await live();
  // A road that takes 3 s: everything on it comes in order, ticks and answers.
  const road: { at: number; say: () => void }[] = [];
  let seq = 1;
  let isLateAfter: number | undefined;
  for (let at = 0; at < 10_000; at += 100) {
    const own = ++seq;
    road.push({ at: at + 3_000, say: () => socket.say(trade(A, own)) });
    while (socket.pings > 0) {
      const id = socket.request('ping')['id'] as number;
      road.push({ at: at + 3_000, say: () => socket.say({ type: 'pong', id, in: 1, out: 1 }) });
    }
    await bench.clock.pass(100);
    while ((road[0]?.at ?? Infinity) <= at) road.shift()?.say();
    if (bench.client.delivery.isLate) isLateAfter ??= at;
    else assert.ok(isLateAfter === undefined, 'late it stays');
  }
  assert.ok(isLateAfter !== undefined && isLateAfter <= LATE_MS + 100, `${isLateAfter}`);
  assert.deepEqual([bench.client.state(A), bench.client.delivery.why], ['late', 'slow']);
  assert.ok(bench.client.delivery.behindMs >= 3_000);
  await bench.end();
});

test('a program that stood still shows doubt before what came meanwhile is read', async () => {
  const [bench, socket] = await live();
  await bench.clock.pass(300);
  assert.equal(socket.pings, 1);
  // Time passes before any of its timers is called; then it draws before anything else.
  const stalled = bench.clock.stall(10_000);
  assert.deepEqual([bench.client.state(A), bench.client.delivery.why], ['late', 'busy']);
  await stalled;
  // What had waited comes, and the answer of before: nothing proves yet what was since.
  socket.say(trade(A, 2));
  socket.pong();
  assert.equal(bench.client.state(A), 'late');
  await answering(bench, 1_500);
  assert.equal(bench.client.state(A), 'live');
  await bench.end();
});

test('a program that is slow to call its timers hears all the same that nothing is said', async () => {
  const [bench] = await live();
  for (let i = 0; i < 20; i++) await bench.clock.stall(250);
  assert.equal(bench.client.delivery.why, 'silent');
  await bench.end();
});

test('what waits for the program in its socket makes it busy, not the road slow', async () => {
  const [bench, socket] = await live();
  await bench.clock.pass(1_900);
  Object.assign(socket, { waitedMs: 800 });
  socket.say(trade(A, 2));
  await bench.clock.pass(200);
  assert.equal(bench.client.delivery.why, 'busy');
  await bench.end();
});

test('clocks that are set make nothing live, and a machine that slept knows it', async () => {
  const [bench, socket] = await live();
  // An hour asleep: the even clock stood still.
  bench.clock.setWall(3_600_000);
  assert.equal(bench.client.state(A), 'late');
  await answering(bench, 2_500);
  assert.equal(bench.client.state(A), 'live');
  // Set back: what is silent is late all the same.
  bench.clock.setWall(-7_200_000);
  assert.equal(bench.client.state(A), 'live');
  await bench.clock.pass(LATE_MS + 100);
  assert.equal(bench.client.state(A), 'late');
  // The gateway's clock says nothing of it either: a pong proves when its ping was sent.
  while (socket.pings > 0) socket.pong(1_914_564_800_000);
  assert.ok(bench.client.delivery.behindMs < 1_200);
  await bench.end();
});

test('a client that is shed is late, for whatever comes meanwhile is old', async () => {
  const [bench, socket] = await live();
  const lag = (level: string) => socket.say({ type: 'lag', level, behind_ms: 5_000, queued_bytes: 1, merged: 0, dropped: 0 });
  lag('warn');
  assert.equal(bench.client.state(A), 'live');
  for (const level of ['shed', 'cut']) {
    lag(level);
    assert.deepEqual([bench.client.state(A), bench.client.delivery.why], ['late', 'shed']);
  }
  await answering(bench, 1_000);
  assert.equal(bench.client.state(A), 'late');
  lag('ok');
  assert.equal(bench.client.state(A), 'live');
  assert.deepEqual(bench.heard.delivery, ['prompt', 'shed', 'prompt']);
  await bench.end();
});

test('ticks that the gateway itself had for long are late, but for what was asked to be held back', async () => {
  const [bench, socket] = await live();
  const rx = 1_714_564_800_000_000;
  const old = { rx, tx: rx + 2_500_000 };
  socket.say(trade(A, 2, old));
  assert.deepEqual([bench.client.state(A), bench.client.delivery.why], ['late', 'catching_up']);
  await answering(bench, 1_100);
  assert.equal(bench.client.state(A), 'live', 'no more of them came');
  socket.say(trade(A, 3, { ...old, snap: true }));
  assert.equal(bench.client.state(A), 'live', 'a snapshot is as old as it is');
  socket.say({ type: 'status', symbol: A, state: 'replay', since: 1 });
  socket.say(trade(A, 4, old));
  assert.deepEqual([bench.client.state(A), bench.client.delivery.isLate], ['replay', false]);
  await bench.end();

  const held = new Bench();
  held.client.subscribe('quote', A, { max_hz: 0.1 }, () => {});
  const slow = await held.open();
  await slow.accept();
  slow.pong();
  slow.say(quote(A, 1, old));
  assert.equal(held.client.state(A), 'live');
  await held.end();
});

test('a recording stays what it is, and its delivery is late as any', async () => {
  const [bench, socket] = await live();
  socket.say({ type: 'status', symbol: A, state: 'replay', since: 1 });
  await bench.clock.pass(LATE_MS + 100);
  assert.deepEqual([bench.client.state(A), bench.client.delivery.isLate], ['replay', true]);
  await bench.end();
});

test('what waits in a stream for its reader counts, for that reader', async () => {
  const bench = new Bench();
  const stream = bench.client.subscribe('trade', A);
  const socket = await bench.open();
  await socket.accept();
  socket.pong();
  const read = async () => ((await stream.next()).value as Trade | Quote | Gap | Status).type;
  assert.equal(await read(), 'status');
  assert.deepEqual([stream.state(A), bench.client.state(A)], ['live', 'live']);
  socket.say(trade(A, 1, { snap: true }));
  await answering(bench, 1_000);
  assert.equal(stream.state(A), 'live');
  await answering(bench, 1_500);
  socket.say(trade(A, 2));
  assert.deepEqual([stream.state(A), bench.client.state(A)], ['late', 'live'], 'the first has waited for 2.5 s');
  await read();
  assert.equal(stream.state(A), 'live', 'the second came just now');
  await read();
  await answering(bench, 5_000);
  assert.equal(stream.state(A), 'live', 'all was read');
  await bench.end();
});

test('where few requests are allowed, pings leave room for others, and a refusal proves nothing', async () => {
  const bench = new Bench();
  bench.client.subscribe('trade', A, () => {});
  const socket = await bench.open('e1', { ops_per_s: 1 });
  await socket.accept();
  const { id } = socket.request('ping');
  socket.say({ type: 'error', id, code: 'rate_limited', msg: 'too many', retry: true });
  assert.equal(bench.client.state(A), 'late');
  assert.equal(bench.client.offset, undefined);
  const before = socket.sent.length;
  await answering(bench, 20_000);
  const pings = socket.sent.length - before;
  assert.ok(pings >= 9 && pings <= 13, `${pings}`);
  assert.deepEqual(bench.heard.broken, []);
  await bench.end();
});

test('without a connection everything is late, and it is told in order', async () => {
  const [bench, socket] = await live();
  socket.end();
  assert.deepEqual(bench.client.delivery, { isLate: true, why: 'lost', behindMs: Infinity });
  assert.equal(bench.client.state(A), 'unknown');
  await bench.waitOut();
  bench.socket.hello();
  await settled();
  assert.equal(bench.client.delivery.why, 'new');
  bench.socket.pong();
  assert.deepEqual(bench.heard.delivery, ['prompt', 'lost', 'prompt']);
  await bench.end();
});
