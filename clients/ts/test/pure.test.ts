/** The parts that know neither socket nor time. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { compareDecimal, subtractDecimal, type Gap, type Quote, type Trade } from 'tickfan-client';
import { Ledger } from '../dist/ledger.js';
import { covers, read } from '../dist/messages.js';
import { ItemQueue } from '../dist/queue.js';
import { comesBack, fullJitter, OffsetWindow } from '../dist/timing.js';
import { quote, trade } from './fakes.js';

const A = 'demo:A';

/** What the gateway documents, without what is for publishers. */
function protocolPage(): string {
  const page = readFileSync(new URL('../../../docs/PROTOCOL.md', import.meta.url), 'utf8');
  return page.slice(0, page.indexOf('\n## Publishing'));
}

test('every message of docs/PROTOCOL.md is read, and none is unknown', () => {
  const lines = protocolPage()
    .split('\n')
    .filter((line) => line.startsWith('{"type":'));
  const types = new Set<string>();
  for (const line of lines) {
    const reading = read(line);
    assert.equal(reading.kind, 'known', `${line}: ${JSON.stringify(reading)}`);
    if (reading.kind === 'known') types.add(reading.message.type);
  }
  const all = ['ack', 'bye', 'clock_step', 'error', 'gap', 'hb', 'hello', 'joined', 'lag', 'pong', 'quote', 'replay', 'status', 'trade'];
  assert.deepEqual([...types].sort(), all);
});

test('each field that the page shows is looked at: none may be of another kind', () => {
  for (const line of protocolPage()
    .split('\n')
    .filter((line) => line.startsWith('{"type":'))) {
    const message = JSON.parse(line) as Record<string, unknown>;
    for (const field of Object.keys(message)) {
      // `t` comes back as it was; what a channel is called in an answer is read from its rows.
      if (['type', 'op', 't'].includes(field) || (field === 'channel' && message['type'] === 'ack')) continue;
      const reading = read(JSON.stringify({ ...message, [field]: { odd: true } }));
      assert.equal(reading.kind, 'bad', `${field} of ${line}`);
    }
  }
});

test('every close code of docs/PROTOCOL.md is obeyed', () => {
  const rows = protocolPage().matchAll(/^\| (\d{4}) \| `(\w+)` \|/gm);
  const codes = [...rows].map((row) => Number(row[1]));
  assert.ok(codes.length >= 10, `${codes}`);
  const back = codes.filter(comesBack);
  assert.deepEqual(back, [1000, 1013, 4000, 4001, 4002]);
  assert.deepEqual([4499, 4500, 4999, 1001, 1006, 1011].map(comesBack), [true, false, false, true, true, true]);
});

test('what is no message is refused and what is not known is left alone', () => {
  const bad = [
    '',
    '{',
    'null',
    '[]',
    '7',
    '"x"',
    '{}',
    '{"type":7}',
    '{"type":"trade"}',
    '{"type":"quote","symbol":"a:*","seq":1,"rx":1,"tx":1}',
  ];
  for (const text of bad) assert.equal(read(text).kind, 'bad', text);
  const odd: Record<string, unknown>[] = [
    { seq: 0 },
    { seq: 1.5 },
    { seq: 2 ** 60 },
    { price: 1.25 },
    { price: '1e5' },
    { price: '01' },
    { n: -1 },
    { side: 'x' },
  ];
  for (const more of odd) assert.equal(read(JSON.stringify(trade(A, 1, more))).kind, 'bad', JSON.stringify(more));
  assert.equal(read('{"type":"rewind","speed":2}').kind, 'unknown');
  assert.equal(read('{"type":"ack","op":"seek"}').kind, 'unknown');
  assert.equal(read('{"type":"constructor"}').kind, 'unknown');
  assert.equal(read(JSON.stringify(trade(A, 1, { later: [1] }))).kind, 'known');
});

test('wildcards cover what they take', () => {
  assert.deepEqual(
    [
      covers('*', 'a:X'),
      covers('a:*', 'a:X'),
      covers('a:*', 'ab:X'),
      covers('a:*', '*'),
      covers('*', 'a:*'),
      covers('a:X', 'a:XY'),
    ],
    [true, true, false, false, true, false],
  );
});

/** What a ledger says to messages on one symbol, in short: a number that is missing, or what else is wrong. */
function judge(ledger: Ledger, message: Trade | Quote | Gap): string {
  const finding = message.type === 'gap' ? ledger.gap(message, true) : ledger.tick(message, true);
  const { broken, away } = finding;
  const said = broken
    ? `${broken.kind}${broken.missing === undefined ? '' : ` ${broken.missing}`}`
    : away
      ? `away ${away.from}-${away.to}`
      : 'ok';
  return finding.deliver ? said : `${said}, kept back`;
}

function ledger(snapshot = true): Ledger {
  const it = new Ledger(100);
  it.hello('e1');
  it.subscribed('trade', A, { snapshot, asked: undefined, resumed: undefined });
  return it;
}

const tick = (seq: number, more = {}) => trade(A, seq, more) as Trade;
const gap = (from: number, to: number) => ({ type: 'gap', symbol: A, channel: 'trade', from, to, why: 'feed' }) as Gap;

test('the accounting rule holds and every break of it is seen', () => {
  const cases: [string, (Trade | Gap)[], string[]][] = [
    ['snapshot then updates', [tick(8, { snap: true }), tick(9), tick(12, { n: 3 })], ['ok', 'ok', 'ok']],
    ['from the first number', [tick(1), tick(2)], ['ok', 'ok']],
    ['a gap covers the difference', [tick(8, { snap: true }), gap(9, 20), tick(21)], ['ok', 'ok', 'ok']],
    ['no snapshot', [tick(8)], ['update 7']],
    ['a hole', [tick(1), tick(3), tick(4)], ['ok', 'update 1', 'ok']],
    ['told twice', [tick(1), tick(1), tick(2)], ['ok', 'update -1, kept back', 'ok']],
    ['from behind', [tick(8, { snap: true }), tick(5), tick(9)], ['ok', 'update -4, kept back', 'ok']],
    ['n too large', [tick(2, { n: 3 })], ['count']],
    ['n too small', [tick(8, { snap: true }), tick(12, { n: 3 })], ['ok', 'update 1']],
    ['a gap too short', [tick(8, { snap: true }), gap(10, 20), tick(21)], ['ok', 'gap 1', 'ok']],
    ['a gap of nothing', [tick(1), gap(3, 2), tick(2)], ['ok', 'gap, kept back', 'ok']],
    ['a snapshot again', [tick(8, { snap: true }), tick(8, { snap: true }), tick(9)], ['ok', 'ok', 'ok']],
    ['a snapshot that skips', [tick(8, { snap: true }), tick(12, { snap: true })], ['ok', 'snapshot 3']],
  ];
  for (const [name, messages, said] of cases) {
    const it = ledger();
    assert.deepEqual(
      messages.map((message) => judge(it, message)),
      said,
      name,
    );
  }
  const open = ledger(false);
  assert.deepEqual(
    [tick(8), tick(9), tick(11)].map((message) => judge(open, message)),
    ['ok', 'ok', 'update 1'],
  );
});

test('another connection goes on where the last one ended', () => {
  const cases: [string, 'ok' | 'gap' | undefined, (Trade | Gap)[], string[]][] = [
    ['resumed', 'ok', [tick(9), tick(10)], ['ok', 'ok']],
    ['resumed with a gap', 'gap', [gap(9, 50), tick(51)], ['ok', 'ok']],
    ['resumed with a hole', 'ok', [tick(10)], ['update 1']],
    ['a resumed one repeats', 'ok', [tick(8), tick(9)], ['update -1, kept back', 'ok']],
    ['not resumed, snapshot', undefined, [tick(20, { snap: true }), tick(21)], ['away 9-19', 'ok']],
    ['not resumed, nothing missed', undefined, [tick(8, { snap: true }), tick(9)], ['ok', 'ok']],
    ['not resumed, back in time', undefined, [tick(5, { snap: true })], ['snapshot -4, kept back']],
  ];
  for (const [name, resumed, messages, said] of cases) {
    const it = ledger();
    judge(it, tick(8, { snap: true }));
    it.hello('e1');
    assert.deepEqual(
      it.points('trade', () => true),
      [[A, 8]],
      name,
    );
    it.subscribed('trade', A, { snapshot: true, asked: { [A]: 8 }, resumed });
    assert.deepEqual(
      messages.map((message) => judge(it, message)),
      said,
      name,
    );
  }
});

test('in another epoch everything begins anew', () => {
  const it = ledger();
  judge(it, tick(8, { snap: true }));
  it.hello('e2');
  assert.deepEqual([it.points('trade', () => true), it.values('trade', () => true)], [[], []]);
  it.subscribed('trade', A, { snapshot: true, asked: undefined, resumed: 'new_epoch' });
  assert.deepEqual(
    [tick(3, { snap: true }), tick(4)].map((message) => judge(it, message)),
    ['ok', 'ok'],
  );
});

test('a wildcard goes on with what it was asked to, the rest is told as missed', () => {
  const it = new Ledger(100);
  it.hello('e1');
  for (const symbol of ['a:X', 'a:Y']) it.tick(trade(symbol, 5, { snap: true }) as Trade, true);
  it.hello('e1');
  it.subscribedWildcard('trade', (symbol) => covers('a:*', symbol), {
    snapshot: true,
    asked: { 'a:X': 5 },
    resumed: 'ok',
  });
  assert.equal(judge(it, trade('a:X', 6) as Trade), 'ok');
  assert.equal(judge(it, trade('a:Y', 9, { snap: true }) as Trade), 'away 6-8');
});

test('a ledger has a bound', () => {
  const it = new Ledger(2);
  const said = ['a:1', 'a:2', 'a:3'].map((symbol) => judge(it, trade(symbol, 1) as Trade));
  assert.deepEqual(said, ['ok', 'ok', 'too_many, kept back']);
});

test('a full queue loses the oldest and names exactly what it lost', () => {
  // Whatever is read when, each number of each symbol is brought or named, once and in order.
  let state = 7;
  const random = (below: number) => (state = (state * 48_271) % 2_147_483_647) % below;
  for (let round = 0; round < 200; round++) {
    const queue = new ItemQueue(1 + random(8));
    const given = new Map<string, number>();
    const had = new Map<string, number>();
    let overflow = 0;
    const readOne = () => {
      const item = queue.shift();
      if (item === undefined || item.type === 'status') return item !== undefined;
      const [from, to] = item.type === 'gap' ? [item.from, item.to] : [item.seq - (item.n ?? 1) + 1, item.seq];
      assert.equal(from, (had.get(item.symbol) ?? 0) + 1, JSON.stringify(item));
      if (item.type === 'gap' && item.why === 'overflow') overflow += 1;
      had.set(item.symbol, to);
      return true;
    };
    for (let step = 0; step < 100; step++) {
      const symbol = `a:${random(3)}`;
      const seq = (given.get(symbol) ?? 0) + 1 + random(3);
      const n = seq - (given.get(symbol) ?? 0);
      if (random(4) === 0)
        queue.push({ type: 'gap', symbol, channel: 'quote', from: seq - n + 1, to: seq, why: 'feed' }, 0);
      else queue.push(quote(symbol, seq, { n }) as Quote, 0);
      given.set(symbol, seq);
      assert.ok(queue.length <= 8 + 3);
      if (random(3) === 0) readOne();
    }
    while (readOne());
    assert.deepEqual([...had].sort(), [...given].sort());
    assert.equal(overflow > 0, queue.overflowed > 0);
  }
});

test('of the states that a full queue pushes out the newest stays', () => {
  const queue = new ItemQueue(1);
  const status = (state: 'live' | 'down' | 'stale') => ({ type: 'status', symbol: A, state }) as const;
  (['live', 'down', 'stale'] as const).forEach((state) => queue.push(status(state), 0));
  assert.deepEqual([queue.shift(), queue.shift(), queue.shift()], [status('down'), status('stale'), undefined]);
});

test('a queue knows what had been proven when the oldest of what waits came', () => {
  const queue = new ItemQueue(2);
  const seen: (number | undefined)[] = [queue.provenMs];
  for (let seq = 1; seq <= 4; seq++) queue.push(quote(A, seq) as Quote, seq * 10);
  // Two were pushed out: the reader has not been told of them yet, nor of the gap.
  for (let left = 4; left > 0; left--) {
    seen.push(queue.provenMs);
    queue.shift();
  }
  assert.deepEqual(seen, [undefined, 10, 10, 40, undefined]);
});

test('decimals are compared and subtracted exactly', () => {
  assert.equal(subtractDecimal('0.3', '0.1'), '0.2');
  assert.equal(subtractDecimal('64010.20', '64010.1'), '0.10');
  assert.equal(subtractDecimal('1', '1.000000000000000001'), '-0.000000000000000001');
  assert.equal(subtractDecimal('-5', '-5'), '0');
  assert.equal(subtractDecimal('0.05', '0.07'), '-0.02');
  assert.equal(subtractDecimal('10', '9'), '1');
  assert.deepEqual(
    [compareDecimal('1.50', '1.5'), compareDecimal('-2', '1'), compareDecimal('9007199254740993', '9007199254740992')],
    [0, -1, 1],
  );
  for (const odd of ['', '1e5', '.5', '1.', '--1', 'NaN', '0x10', ' 1'])
    assert.throws(() => compareDecimal(odd, '1'), RangeError, odd);
});

test('the wait before coming back is chance below a bound that doubles', () => {
  const backoff = { baseMs: 250, maxMs: 15_000 };
  assert.deepEqual(
    [0, 1, 2, 6, 7, 1000].map((attempt) => fullJitter(backoff, attempt, 1)),
    [250, 500, 1000, 15_000, 15_000, 15_000],
  );
  assert.equal(fullJitter(backoff, 5, 0), 0);
});

test('of the last pings the shortest tells the time', () => {
  const window = new OffsetWindow(3);
  const best = () => window.best;
  assert.equal(best(), undefined);
  // The gateway is 1,000 µs ahead. The way back of the first is slow, so it is wrong by half of that.
  window.add(0, 1_100, 1_150, 1_050);
  assert.deepEqual(best(), { offset_us: 600, error_us: 500, rtt_us: 1000 });
  window.add(10_000, 11_100, 11_150, 10_250);
  assert.deepEqual(best(), { offset_us: 1000, error_us: 100, rtt_us: 200 });
  for (let i = 0; i < 3; i++) window.add(20_000, 21_300, 21_300, 20_500);
  assert.equal(best()?.rtt_us, 500);
});

test('a clock that was set is believed at once', () => {
  const window = new OffsetWindow(60);
  for (let i = 0; i < 10; i++) window.add(i * 1000, i * 1000 + 1_100, i * 1000 + 1_100, i * 1000 + 200);
  assert.equal(window.best?.offset_us, 1000);
  // Ten seconds ahead of that, and a longer way: both cannot be true.
  window.add(20_000, 10_021_400, 10_021_400, 20_800);
  assert.deepEqual(window.best, { offset_us: 10_001_000, error_us: 400, rtt_us: 800 });
});
