/** Against the real gateway. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect, type ConnectOptions, type Lag, type LinkEvent, type Quote, type Trade } from 'tickfan-client';
import {
  Complaints,
  folder,
  Gateway,
  keep,
  PATIENT,
  Proxy,
  publishUntilShed,
  run,
  settings,
  SKIP,
  until,
} from './gateway.js';

const options = { skip: SKIP, timeout: 180_000 };
/** Little room, so that a client sheds soon, and patience with it from there on. */
const LADDER = [
  'session.outbox_bytes_max=32768',
  'session.cut_after_ms=3600000',
  'session.pong_timeout_ms=3600000',
];
const SOON: ConnectOptions = { backoff: { baseMs: 20, maxMs: 100 } };

test('everything of the shipped feeds, and the rule holds', options, async (t) => {
  const feeds = ['coinbase', 'binance-futures', 'kraken'].map((name) => `feeds/${name}.zst`);
  const expected = new Map<string, number>();
  for (const line of run(['normalize', ...feeds])
    .trim()
    .split('\n')) {
    const { type, symbol, seq, channel, to } = JSON.parse(line) as Record<string, string & number>;
    expected.set(`${channel ?? type} ${symbol}`, to ?? seq ?? 0);
  }
  const gateway = keep(
    t,
    await Gateway.start(['replay', '--speed', '100', '--wait-subscribers', '1', ...settings(PATIENT), ...feeds]),
  );
  const heard = new Complaints();
  const client = keep(t, connect(gateway.ws, heard.hooks));
  // Each symbol's last number, and how many ticks were told of or named.
  const last = new Map<string, number>();
  const subscription = client.subscribe(['trade', 'quote'], '*', (tick) =>
    last.set(`${tick.type} ${tick.symbol}`, tick.seq),
  );
  await subscription.ready;
  assert.ok(expected.size >= 18, `${expected.size}`);
  await until('the replay has come to its end', () => [...expected].every(([stream, seq]) => last.get(stream) === seq));
  assert.deepEqual([heard.broken, heard.errors, heard.gaps.filter(({ why }) => why !== 'feed')], [[], [], []]);
  const symbols = await client.symbols('kraken:*');
  assert.equal(symbols.length, 3);
  const rows = (await client.list()).subscriptions;
  assert.ok(rows.some(({ symbol, channel }) => symbol === '*' && channel === 'quote'));
  assert.ok((await client.ping()) >= 0);
  assert.ok(client.offset !== undefined && Math.abs(client.offset.offset_us) < 60_000_000);
});

test('cut in the middle, again and again: no break and no hole', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const publisher = keep(t, await gateway.publisher());
  const proxy = keep(t, await Proxy.to(gateway.address));
  const heard = new Complaints();
  const links: LinkEvent[] = [];
  const client = keep(t, connect(proxy.url, { ...SOON, ...heard.hooks, onLink: (event) => links.push(event) }));
  const symbols = ['demo:A', 'demo:B', 'demo:C'];
  publisher.ticks(symbols, 1);
  const trades: Trade[] = [];
  const wide: (Trade | Quote)[] = [];
  const some = client.subscribe('trade', symbols.slice(0, 2), (trade) => trades.push(trade));
  client.subscribe(['trade', 'quote'], 'demo:*', { mode: 'every' }, (tick) => wide.push(tick));
  await some.ready;
  const ROUNDS = 2_000;
  const CUTS = 10;
  for (let cut = 0; cut < CUTS; cut++) {
    // Behind the first half of a portion, whatever of it is on its way.
    const before = trades.length;
    publisher.ticks(symbols, ROUNDS / CUTS / 2);
    await until('some has come', () => trades.length > before);
    proxy.cut();
    publisher.ticks(symbols, ROUNDS / CUTS / 2);
    await until('it is back', () => links.filter(({ state }) => state === 'open').length === cut + 2);
  }
  const whole = (symbol: string) =>
    wide.filter((tick) => tick.symbol === symbol && tick.seq === ROUNDS + 1).length === 2;
  await until('all has come', () => symbols.every(whole));
  assert.deepEqual([heard.broken, heard.gaps, heard.errors], [[], [], []]);
  for (const symbol of symbols.slice(0, 2)) {
    const numbers = trades.filter((trade) => trade.symbol === symbol).map(({ seq }) => seq);
    assert.deepEqual(
      numbers,
      Array.from({ length: ROUNDS + 1 - numbers[0]! + 1 }, (_, i) => numbers[0]! + i),
      symbol,
    );
  }
});

test('beside a publisher a replay is never live, nor after a cut', options, async (t) => {
  const publish = ['publish.token=token-of-the-tests', 'publish.listen=127.0.0.1:0', 'publish.venues=["demo"]'];
  const gateway = keep(
    t,
    await Gateway.start(['replay', '--loop', ...settings([...PATIENT, ...publish]), 'feeds/coinbase.zst']),
  );
  const publisher = keep(t, await gateway.publisher());
  const proxy = keep(t, await Proxy.to(gateway.address));
  const heard = new Complaints();
  const [feeds, live]: [string[], Set<string>] = [[], new Set()];
  const onLink = (event: LinkEvent) => event.state === 'open' && feeds.push(event.hello.feed);
  const client = keep(t, connect(proxy.url, { ...SOON, ...heard.hooks, onLink }));
  let ticks = 0;
  client.subscribe(['trade', 'quote'], '*', ({ symbol }) => {
    ticks++;
    // `late` stands for it, before the first answer to a ping.
    if (['live', 'late'].includes(client.state(symbol))) live.add(symbol);
  });
  publisher.ticks(['demo:A'], 1);
  const BTC = 'coinbase:BTC-USD';
  await until('both are there', () => client.state(BTC) === 'replay' && client.state('demo:A') === 'live');
  await client.replay.pause();
  await until('it stands', () => client.state(BTC) === 'paused');
  proxy.cut();
  await until('it is back', () => feeds.length === 2 && client.state(BTC) === 'paused' && client.state('demo:A') === 'live');
  await client.replay.resume();
  const before = ticks;
  await until('it goes on', () => client.state(BTC) === 'replay' && ticks > before + 20);
  await client.replay.stop();
  await until('it has ended', () => client.state(BTC) === 'ended' && client.state('demo:A') === 'live');
  assert.deepEqual([feeds, [...live], heard.broken], [['mixed', 'mixed'], ['demo:A'], []]);
});

test('what was missed and is not kept any more is named by a gap', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing([...PATIENT, 'ring.capacity=1024']));
  const publisher = keep(t, await gateway.publisher());
  const proxy = keep(t, await Proxy.to(gateway.address));
  const heard = new Complaints();
  let last = 0;
  const client = keep(t, connect(proxy.url, { ...SOON, ...heard.hooks }));
  client.subscribe('trade', 'demo:A', (trade) => (last = trade.seq));
  publisher.trades('demo:A', 10);
  await until('ten have come', () => last === 10);
  const road = proxy.target;
  proxy.target = '127.0.0.1:1';
  proxy.cut();
  await until('it is lost', () => !client.isOpen);
  publisher.trades('demo:A', 5_000);
  await until('they are published', async () => (await gateway.metric('tickfan_published_total')) >= 5_010);
  proxy.target = road;
  await until('it has caught up', () => last === 5_010);
  assert.deepEqual(heard.broken, []);
  assert.deepEqual(
    heard.gaps.map(({ from, why }) => [from, why]),
    [[11, 'resume']],
  );
});

test('a restarted gateway: another epoch, and whole again', options, async (t) => {
  let gateway = keep(t, await Gateway.publishing([...PATIENT, 'session.drain_spread_ms=100']));
  let publisher = keep(t, await gateway.publisher());
  const heard = new Complaints();
  const links: LinkEvent[] = [];
  const stay = keep(t, connect(gateway.ws, { ...SOON, ...heard.hooks, onLink: (event) => links.push(event) }));
  let last: Trade | undefined;
  stay.subscribe('trade', 'demo:A', (trade) => (last = trade));
  publisher.trades('demo:A', 50);
  // The state is told by a message of its own.
  await until('fifty have come', () => last?.seq === 50 && stay.state('demo:A') === 'live');
  await gateway.stop();
  publisher.close();
  assert.equal(stay.state('demo:A'), 'unknown');
  const bye = links.find((event) => event.state === 'lost');
  assert.deepEqual(bye?.state === 'lost' && [bye.code, bye.bye?.why], [4001, 'shutdown']);
  assert.ok(bye?.state === 'lost' && bye.retryInMs >= (bye.bye?.after_ms ?? Infinity));
  gateway = keep(t, await Gateway.publishing(PATIENT, gateway.address));
  publisher = keep(t, await gateway.publisher());
  publisher.trades('demo:A', 3);
  await until('the new ones come', () => last?.seq === 3 && stay.state('demo:A') === 'live');
  assert.deepEqual([heard.broken, heard.gaps], [[], []]);
  const opened = links.filter((event) => event.state === 'open');
  assert.deepEqual(
    opened.map(({ newEpoch }) => newEpoch),
    [false, true],
  );
});

test('gaps of the feed, states, bare names, rates and refusals', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const publisher = keep(t, await gateway.publisher());
  const heard = new Complaints();
  const states: string[] = [];
  const client = keep(t, connect(gateway.ws, heard.hooks));
  const quotes: Quote[] = [];
  const waiting = client.subscribe(
    'quote',
    ['demo:A', 'nowhere:A'],
    { onStatus: ({ state }) => states.push(state) },
    (quote) => quotes.push(quote),
  );
  const { ok, rejected } = await waiting.ready;
  assert.deepEqual([ok.map(({ state }) => state), rejected.map(({ code }) => code)], [['waiting'], ['unknown_symbol']]);
  publisher.ticks(['demo:A'], 3);
  await until('three quotes', () => quotes.at(-1)?.seq === 3);
  const bare = client.subscribe('quote', 'A', { mode: 'latest', max_hz: 5 }, () => {});
  assert.deepEqual(
    (await bare.ready).ok.map(({ symbol }) => symbol),
    ['demo:A'],
  );
  waiting.set({ mode: 'latest', max_hz: 2 });
  const rate = async () => (await client.list()).subscriptions.find(({ channel }) => channel === 'quote')?.max_hz;
  await until('the faster of the two rates', async () => (await rate()) === 5);
  bare.unsubscribe();
  await until('the other rate', async () => (await rate()) === 2);
  waiting.unsubscribe();
  await until('nothing', async () => (await client.list()).subscriptions.length === 0);
  const again = client.subscribe('quote', 'demo:A', { onStatus: ({ state }) => states.push(state) }, () => {});
  await again.ready;
  publisher.close();
  await until('it is down', () => client.state('demo:A') === 'down');
  assert.deepEqual([states[0], states.at(-1)], ['waiting', 'down']);
  assert.deepEqual([heard.broken, heard.errors], [[], []]);
});

test('what is asked for by name outlives the wildcard, and comes and goes within it', options, async (t) => {
  const gateway = keep(t, await Gateway.publishing());
  const publisher = keep(t, await gateway.publisher());
  const heard = new Complaints();
  const client = keep(t, connect(gateway.ws, heard.hooks));
  const trades: Trade[] = [];
  const name = client.subscribe('trade', 'demo:A', (trade) => trades.push(trade));
  await name.ready;
  const wide = client.subscribe('trade', '*', { mode: 'latest', max_hz: 100 }, () => {});
  await wide.ready;
  const symbols = async () => (await client.list()).subscriptions.map(({ symbol, mode }) => `${symbol} ${mode}`);
  publisher.ticks(['demo:A', 'demo:B'], 5);
  await until('five trades', () => trades.at(-1)?.seq === 5);
  assert.deepEqual(await symbols(), ['* latest', 'demo:A every', 'demo:B latest']);
  wide.unsubscribe();
  publisher.ticks(['demo:A', 'demo:B'], 5);
  await until('the name alone', async () => (await symbols()).join() === 'demo:A every');
  publisher.ticks(['demo:A', 'demo:B'], 5);
  await until('all of it', () => trades.at(-1)?.seq === 15);
  const wider = client.subscribe('trade', '*', { mode: 'latest' }, () => {});
  await wider.ready;
  name.unsubscribe();
  await until('the terms of the wildcard', async () => (await symbols()).includes('demo:A latest'));
  wider.unsubscribe();
  await until('nothing', async () => (await symbols()).length === 0);
  publisher.ticks(['demo:A', 'demo:B'], 5);
  await client.ping();
  assert.deepEqual([trades.length, heard.broken, heard.gaps, heard.errors], [15, [], [], []]);
});

test('a synthetic capture with breaks in it: each gap of the feed is told', options, async (t) => {
  const capture = join(folder(), 'binance.txt');
  run(['generate', '--venue', 'binance', '--symbols', 'BTCUSDT', '--seconds', '5', '--rate', '200', '--out', capture]);
  const { readFileSync, writeFileSync } = await import('node:fs');
  const lines = readFileSync(capture, 'utf8').split('\n');
  writeFileSync(capture, lines.filter((_, i) => i < 300 || i > 330).join('\n'));
  const named = run(['normalize', capture])
    .split('\n')
    .filter((line) => line.startsWith('{"type":"gap"'));
  assert.ok(named.length > 0);
  const gateway = keep(
    t,
    await Gateway.start(['replay', '--speed', '50', '--wait-subscribers', '1', ...settings(PATIENT), capture]),
  );
  const heard = new Complaints();
  const client = keep(t, connect(gateway.ws, heard.hooks));
  client.subscribe(['trade', 'quote'], 'binance:*', { mode: 'every' }, () => {});
  await until('each gap was told', () => heard.gaps.length >= named.length);
  const fields = ({ symbol, channel, from, to, why }: any) => ({ symbol, channel, from, to, why });
  assert.deepEqual(
    heard.gaps.map(fields),
    named.map((line) => fields(JSON.parse(line))),
  );
  assert.deepEqual(heard.broken, []);
});

test(
  'a handler that takes too long: the ladder is told, what it missed is named, and it is whole again',
  options,
  async (t) => {
    const gateway = keep(t, await Gateway.publishing(LADDER));
    const heard = new Complaints();
    const levels: Lag[] = [];
    const symbol = `demo:${'LONG'.repeat(15)}`;
    let [published, last] = [0, 0];
    const client = keep(t, connect(gateway.ws, { ...heard.hooks, onLag: (lag) => levels.push(lag) }));
    const subscription = client.subscribe('trade', symbol, (trade) => {
      last = trade.seq;
      // The program stands still until the gateway sheds: however fast or slow the machine is.
      if (published === 1) published += publishUntilShed(gateway, symbol);
    });
    await subscription.ready;
    const publisher = keep(t, await gateway.publisher());
    published = 1;
    publisher.trades(symbol, 1);
    await until('all are accounted for', () => published > 1 && last === published);
    await until('it is well again', () => levels.at(-1)?.level === 'ok');
    assert.ok(
      levels.some(({ level }) => level === 'shed'),
      JSON.stringify(levels),
    );
    assert.deepEqual([heard.broken, heard.errors], [[], []]);
    const slow = heard.gaps.filter(({ why }) => why === 'slow_consumer');
    assert.ok(slow.length > 0);
    const dropped = slow.reduce((sum, { from, to }) => sum + to - from + 1, 0);
    assert.equal(levels.at(-1)?.dropped, dropped);
  },
);
