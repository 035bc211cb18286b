/** The parts of the page that know no screen. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Quote, Trade } from 'tickfan-client';
import { readAddress, SYMBOLS_MAX, writeAddress } from '../src/address.js';
import { banner, Candles, Instrument, lookOf, ShownTime, SPARK_POINTS, type Standing } from '../src/market.js';

const trade = (price: string, rxS: number): Trade => ({ type: 'trade', symbol: 'a:X', seq: 1, price, size: '1', rx: rxS * 1e6, tx: 0 });
const quote = (bid: string, ask: string): Quote => ({ type: 'quote', symbol: 'a:X', seq: 1, bid, ask, rx: 0, tx: 0 });

test('the address holds the view, and odd ones do no harm', () => {
  const view = { symbols: ['coinbase:BTC-USD', 'kraken:XBT/USD', 'a:%&#+'], chosen: 'kraken:XBT/USD', sort: '-last', span: 60 };
  assert.deepEqual(readAddress(writeAddress(view)), view);
  assert.deepEqual(readAddress(''), { symbols: [], chosen: undefined, sort: '', span: 1 });
  assert.deepEqual(readAddress('#s=<b>,a:*,*,a:X,a:X&c=b:Y&sort=<x>&span=7'), { symbols: ['a:X'], chosen: 'a:X', sort: '', span: 1 });
  const many = Array.from({ length: 2 * SYMBOLS_MAX }, (_, i) => `a:${i}`).join();
  assert.equal(readAddress(`#s=${many}`).symbols.length, SYMBOLS_MAX);
});

test('a price is live in one case only', () => {
  const it = new Instrument('a:X');
  const linked = { isLinked: true, isBehind: false, isLate: false };
  assert.deepEqual([it.doubt({ ...linked, isLinked: false }), it.doubt(linked)], ['link lost', 'unknown']);
  it.state = 'live';
  assert.deepEqual([it.doubt(linked), it.doubt({ ...linked, isBehind: true })], [undefined, 'behind']);
  it.gap = { type: 'gap', symbol: 'a:X', channel: 'trade', from: 1, to: 2, why: 'feed' };
  assert.equal(it.doubt(linked), 'gap');
  it.onTrade(trade('1', 0), 0);
  assert.equal(it.doubt(linked), undefined);
  it.state = 'stale';
  assert.equal(it.doubt(linked), 'stale');
});

test('a recording is never live, and says of which day it is', () => {
  const it = new Instrument('a:X');
  const linked = { isLinked: true, isBehind: false, isLate: false };
  const looks = (standing: Standing = linked) => [it.doubt(standing), lookOf(it.doubt(standing)), it.whyNotLive(standing)];
  it.state = 'replay';
  assert.deepEqual(looks(), ['replay', 'recorded', 'not live: recorded']);
  assert.deepEqual(looks({ ...linked, replayUs: 1_714_564_800e6 }), ['replay', 'recorded', 'not live: recorded 2024-05-01']);
  it.onTrade({ ...trade('1', 1e9), ts: 1_618_677_817e6 }, 0);
  assert.deepEqual(looks({ ...linked, replayUs: 1_714_564_800e6 }), ['replay', 'recorded', 'not live: recorded 2021-04-17']);
  assert.deepEqual([it.doubt({ ...linked, isBehind: true }), lookOf('behind')], ['behind', 'stale']);
  it.state = 'paused';
  assert.deepEqual(looks({ ...linked, isBehind: true }), ['paused', 'recorded', 'not live: recorded 2021-04-17, paused']);
  for (const state of ['ended', 'stale', 'down'] as const) {
    it.state = state;
    assert.deepEqual(looks(), [state, 'stale', `not live: recorded 2021-04-17, ${state}`]);
  }
  // What it was, it is: also while nobody can tell.
  it.state = 'unknown';
  assert.deepEqual(looks({ ...linked, isLinked: false }), ['link lost', 'stale', 'not live: recorded 2021-04-17, link lost']);
  it.state = 'live';
  assert.deepEqual([...looks(), it.recordedUs(linked)], [undefined, 'live', '', undefined]);
});

test('over all it is said what is recorded, and of which days', () => {
  const standing = { isLinked: true, isBehind: false, isLate: false };
  const [a, b, c] = ['a:A', 'a:B', 'a:C'].map((symbol) => new Instrument(symbol)) as [Instrument, Instrument, Instrument];
  assert.equal(banner([a, b, c], standing), '');
  assert.equal(banner([], { ...standing, replayUs: 1_714_564_800e6 }), 'REPLAY of 2024-05-01');
  a.state = 'live';
  assert.equal(banner([a, b, c], standing), '');
  b.state = 'replay';
  assert.equal(banner([b], standing), 'REPLAY: recorded prices');
  b.onTrade({ ...trade('1', 0), ts: 1_714_564_800e6 }, 0);
  assert.equal(banner([b], standing), 'REPLAY: recorded prices of 2024-05-01');
  assert.equal(banner([a, b], standing), 'REPLAY: recorded prices of 2024-05-01 in 1 of 2 rows');
  c.state = 'ended';
  c.onQuote({ ...quote('1', '2'), ts: 1_618_677_817e6 }, 0);
  assert.equal(banner([a, b, c], standing), 'REPLAY: recorded prices of 2021-04-17 to 2024-05-01 in 2 of 3 rows');
});

test('where a recording has no value yet, none is shown', () => {
  const it = new Instrument('a:X');
  it.state = 'live';
  it.onTrade(trade('1', 0), 0);
  it.onQuote(quote('1', '2'), 0);
  it.onGap({ type: 'gap', symbol: 'a:X', channel: 'trade', from: 2, to: 2, why: 'seek' });
  assert.deepEqual([it.trade, it.quote?.bid, it.doubt({ isLinked: true, isBehind: false, isLate: false })], [undefined, '1', undefined]);
  it.onGap({ type: 'gap', symbol: 'a:X', channel: 'quote', from: 2, to: 2, why: 'seek' });
  assert.equal(it.quote, undefined);
});

test('spread and change are exact', () => {
  const it = new Instrument('a:X');
  assert.deepEqual([it.spread, it.change], [undefined, undefined]);
  it.onQuote(quote('0.1', '0.30'), 0);
  it.onTrade(trade('64010.1', 0), 0);
  it.onTrade(trade('64010.10', 0), 0);
  assert.deepEqual([it.spread, it.change, it.direction], ['0.20', '0.00', 0]);
  it.onTrade(trade('64009.9', 0), 0);
  assert.deepEqual([it.change, it.direction, it.moves], ['-0.2', -1, 1]);
});

test('a sparkline has one point a second, and an end', () => {
  const it = new Instrument('a:X');
  for (let i = 0; i < 1000; i++) it.onQuote(quote(String(i), String(i)), i * 100);
  assert.equal(it.spark.length, SPARK_POINTS);
  assert.equal(it.spark.at(-1), 999);
  assert.equal(it.spark.at(-2), 989);
});

test("the time that is shown is the venue's where there is one, and the two are never mixed", () => {
  const at = (rxS: number, tsS?: number) => (tsS === undefined ? trade('1', rxS) : { ...trade('1', rxS), ts: tsS * 1e6 });
  const venue = new ShownTime();
  assert.equal(venue.whose, undefined);
  assert.deepEqual(venue.of(at(1000, 10)), { us: 10e6, anew: false });
  assert.equal(venue.whose, 'venue');
  // One without: as old as the last. One that is late: as old as it is.
  assert.deepEqual(venue.of(at(1001)), { us: 10e6, anew: false });
  assert.deepEqual([venue.of(at(1002, 12)), venue.of(at(1003, 9))], [{ us: 12e6, anew: false }, { us: 9e6, anew: false }]);
  // Late by more than that: a recording begins anew.
  assert.deepEqual([venue.of(at(1004, 1)), venue.of(at(1005, 2))], [{ us: 1e6, anew: true }, { us: 2e6, anew: false }]);
  // The place that a recording was sent to.
  assert.deepEqual(venue.of({ ...at(1006, 1), snap: true }), { us: 1e6, anew: true });
  assert.deepEqual(venue.of({ ...at(1006, 30), snap: true }), { us: 30e6, anew: false });
  const gateway = new ShownTime();
  assert.deepEqual([gateway.of(at(1000)).us, gateway.of(at(1001)).us, gateway.whose], [1000e6, 1001e6, 'gateway']);
  assert.deepEqual([gateway.of(at(1002, 7)), gateway.whose], [{ us: 7e6, anew: true }, 'venue']);
});

test('candles', () => {
  const candles = new Candles(5);
  for (const [price, at] of [['10', 12], ['12', 13], ['9', 14], ['11', 14], ['20', 31]] as const) candles.add(trade(price, 0), at * 1e6);
  assert.deepEqual(candles.candles, [
    { time: 10, open: 10, high: 12, low: 9, close: 11 },
    { time: 30, open: 20, high: 20, low: 20, close: 20 },
  ]);
  assert.deepEqual(candles.bars(), [candles.candles[0], { time: 15 }, { time: 20 }, { time: 25 }, candles.candles[1]]);
  assert.equal(candles.add(trade('1', 0), 12e6), undefined);
  for (let i = 0; i < 2000; i++) candles.add(trade('1', 0), (100 + i * 5) * 1e6);
  assert.ok(candles.candles.length <= 600);
  candles.add(trade('1', 0), 1e6 * 1e6);
  assert.deepEqual(candles.bars(), [candles.candles.at(-1)], 'what is long past is not shown, nor the holes up to it');
  assert.deepEqual(new Candles(1).bars(), []);
});
