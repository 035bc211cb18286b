/** The parts of the page that know no screen. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Quote, Trade } from 'tickfan-client';
import { readAddress, SYMBOLS_MAX, writeAddress } from '../src/address.js';
import { banner, Instrument, lookOf, Picture, ShownTime, SPANS_MAX, SPARK_POINTS, type Standing } from '../src/market.js';

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

const snap = <T extends Trade | Quote>(tick: T, tsS: number): T => ({ ...tick, snap: true, ts: tsS * 1e6 });

/** One that is replayed, and has moved up from 1 to 2. */
function replayed(): Instrument {
  const it = new Instrument('a:X');
  it.state = 'replay';
  it.onTrade(snap(trade('1', 0), 100), 0);
  it.onQuote(snap(quote('1', '2'), 90), 0);
  it.onTrade({ ...trade('2', 0), ts: 101e6 }, 0);
  it.onQuote({ ...quote('1', '3'), ts: 102e6 }, 2000);
  assert.deepEqual([it.beginnings, it.direction, it.change, it.spark], [0, 1, '1', [1.5, 2]]);
  return it;
}

test('what is shown begins anew where a recording was sent elsewhere, once', () => {
  for (const place of [500, 10]) {
    const it = replayed();
    it.onTrade(snap(trade('7', 0), place), 5000);
    assert.deepEqual([it.beginnings, it.direction, it.change, it.quote, it.rxUs, it.spark.length], [1, 0, '0', undefined, 0, 1]);
    // Older than the trade, and of the same place. Then both go on.
    it.onQuote(snap(quote('6', '7'), place - 9), 5000);
    it.onTrade({ ...trade('8', 0), ts: (place + 1) * 1e6 }, 5000);
    it.onQuote({ ...quote('6', '8'), ts: (place + 1) * 1e6 }, 5000);
    assert.deepEqual([it.beginnings, it.direction, it.change, it.trade?.price, it.quote?.ask], [1, 1, '1', '8', '8']);
    // Once more, told by the quote alone.
    it.onQuote(snap(quote('1', '2'), place), 5000);
    assert.deepEqual([it.beginnings, it.trade, it.direction, it.recordedUs({ isLinked: true, isBehind: false, isLate: false })], [2, undefined, 0, place * 1e6]);
  }
});

test('where a recording has no value yet, none is shown', () => {
  const it = replayed();
  const none = (channel: 'trade' | 'quote') => it.onGap({ type: 'gap', symbol: 'a:X', channel, from: 2, to: 2, why: 'seek' });
  none('trade');
  assert.deepEqual([it.trade, it.quote, it.change, it.direction, it.beginnings, it.gap], [undefined, undefined, undefined, 0, 1, undefined]);
  none('quote');
  assert.equal(it.beginnings, 1, 'of the same place');
  none('trade');
  assert.equal(it.beginnings, 2);
});

test('it begins anew in the next round of a recording, and where what was recorded is live', () => {
  const it = replayed();
  // A little late is late.
  it.onTrade({ ...trade('3', 0), ts: 98e6 }, 0);
  assert.equal(it.beginnings, 0);
  it.onTrade({ ...trade('1', 0), ts: 20e6 }, 0);
  assert.deepEqual([it.beginnings, it.direction, it.change, it.quote], [1, 0, '0', undefined]);
  it.state = 'stale';
  it.state = 'live';
  assert.deepEqual([it.beginnings, it.trade, it.change], [2, undefined, undefined]);
});

test('a replay that has gone back begins anew, unless it has already', () => {
  const it = replayed();
  it.replayTold(false);
  assert.equal(it.beginnings, 0);
  it.replayTold(true);
  assert.deepEqual([it.beginnings, it.trade], [1, undefined]);
  // A seek: the page hears of it, of the values of the place, and then where that is.
  it.onTrade({ ...trade('2', 0), ts: 101e6 }, 0);
  it.replayTold(false);
  it.begin();
  it.onTrade(snap(trade('1', 0), 10), 0);
  it.replayTold(true);
  assert.deepEqual([it.beginnings, it.trade?.price], [2, '1']);
  it.state = 'live';
  it.replayTold(true);
  assert.equal(it.beginnings, 3, 'for being live, and no more');
});

test('what is live goes on behind a last value, which is no trade', () => {
  const it = new Instrument('a:X');
  it.state = 'live';
  it.onTrade(trade('1', 100), 0);
  const [lastTrade, lastQuote] = [snap(trade('2', 0), 130), snap(quote('1', '2'), 130)];
  it.onTrade({ ...lastTrade, ts: undefined as never, rx: 130e6 }, 0);
  assert.deepEqual([it.beginnings, it.change, it.direction], [0, '1', 1]);
  assert.deepEqual([it.isDrawn(lastTrade), it.isDrawn(lastQuote), it.isDrawn(trade('1', 0))], [false, true, true]);
  it.state = 'replay';
  assert.deepEqual([it.isDrawn(lastTrade), it.isDrawn(lastQuote), it.isDrawn(quote('1', '2'))], [false, false, true]);
});

test('what the gateway does not take says why', () => {
  const it = new Instrument('a:X');
  it.refusal = 'no venue lists it';
  const linked = { isLinked: true, isBehind: false, isLate: false };
  assert.deepEqual([it.doubt(linked), lookOf(it.doubt(linked)), it.whyNotLive(linked)], ['refused', 'stale', 'refused: no venue lists it']);
  assert.equal(it.doubt({ ...linked, isLinked: false }), 'link lost');
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
  const taken = (time: ShownTime, tick: Trade) => [time.take(tick), time.us / 1e6];
  assert.deepEqual([taken(venue, at(1000, 10)), venue.whose], [[undefined, 10], 'venue']);
  // One without: as old as the last. One that is late: as old as it is.
  assert.deepEqual(taken(venue, at(1001)), [undefined, 10]);
  assert.deepEqual([taken(venue, at(1002, 12)), taken(venue, at(1003, 9))], [[undefined, 12], [undefined, 12]]);
  // Late by more than that: a recording begins anew.
  assert.deepEqual([taken(venue, at(1004, 1)), taken(venue, at(1005, 2))], [['earlier', 1], [undefined, 2]]);
  // A last value may be as old as it likes.
  assert.deepEqual([taken(venue, at(1005, 50)), taken(venue, snap(at(1006), 3))], [[undefined, 50], [undefined, 50]]);
  const gateway = new ShownTime();
  assert.deepEqual([taken(gateway, at(1000)), taken(gateway, at(1001)), gateway.whose], [[undefined, 1000], [undefined, 1001], 'gateway']);
  assert.deepEqual([taken(gateway, at(1002, 7)), gateway.whose], [['clock', 7], 'venue']);
  const it = new Instrument('a:X');
  it.onTrade(at(1000), 0);
  assert.deepEqual([it.usOf(at(1000)), it.clock, it.beginnings], [1000e6, 'gateway', 0]);
  it.onTrade(at(1001, 7), 0);
  assert.deepEqual([it.usOf(at(1001, 7)), it.usOf(at(1002)), it.clock, it.beginnings, it.change], [7e6, 7e6, 'venue', 1, '0']);
});

test('candles', () => {
  const picture = new Picture(5);
  for (const [price, at] of [['10', 12], ['12', 13], ['9', 14], ['11', 14], ['20', 31]] as const) picture.trade(trade(price, 0), at * 1e6);
  assert.deepEqual(picture.candles, [
    { time: 10, open: 10, high: 12, low: 9, close: 11 },
    { time: 30, open: 20, high: 20, low: 20, close: 20 },
  ]);
  assert.equal(picture.trade(trade('1', 0), 12e6), undefined);
  // The axis has all times between, and is that of the prices, too.
  assert.deepEqual(picture.times(), [10, 15, 20, 25, 30]);
  picture.quote(quote('1', '2'), 41e6);
  assert.deepEqual(picture.times(), [10, 15, 20, 25, 30, 35, 40]);
  for (let i = 0; i < 2000; i++) picture.trade(trade('1', 0), (100 + i * 5) * 1e6);
  assert.ok(picture.candles.length <= SPANS_MAX);
  picture.trade(trade('1', 0), 1e6 * 1e6);
  assert.deepEqual([picture.times().length, picture.times().at(-1)], [SPANS_MAX, 1e6], 'what is long past is not shown, nor all of the hole up to it');
  assert.deepEqual(new Picture(1).times(), []);
});

test('no line leads over a hole, nor to a side that was empty', () => {
  const picture = new Picture(1);
  const begins = () => picture.best.map(({ time, bid, ask, bidBegins, askBegins }) => [time, bid, ask, bidBegins, askBegins]);
  picture.quote(quote('1', '2'), 10.2e6);
  picture.quote(quote('1', '3'), 10.9e6);
  picture.quote({ ...quote('1', '3'), ask: undefined as never }, 12e6);
  picture.quote(quote('1', '4'), 13e6);
  picture.quote(quote('1', '5'), 14e6);
  picture.hole();
  picture.quote(quote('2', '6'), 20e6);
  picture.quote(quote('2', '7'), 20.5e6);
  picture.quote(quote('2', '8'), 21e6);
  assert.deepEqual(begins(), [
    [10, 1, 3, true, true],
    [12, 1, undefined, false, false],
    [13, 1, 4, false, true],
    [14, 1, 5, false, false],
    [20, 2, 7, true, true],
    [21, 2, 8, false, false],
  ]);
  assert.equal(picture.quote(quote('1', '2'), 13e6), undefined);
});
