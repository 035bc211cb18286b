//! Kraken's WebSocket API, version 1: `book` of depth 10 with checksums, `trade`, `ticker`, `spread`.

use super::market::{Level, Market, set_level};
use super::rng::Rng;
use super::{Batch, Dialect, seconds_text};
use crate::model::tick::Side;

/// The depth of the subscribed books: levels per side.
const DEPTH: usize = 10;

/// The channels, and the offsets of their ids from the first id of a pair.
const CHANNELS: [(&str, u64); 4] = [("book-10", 0), ("trade", 1), ("ticker", 2), ("spread", 3)];
const BOOK: usize = 0;
const TRADE: usize = 1;
const TICKER: usize = 2;
const SPREAD: usize = 3;

pub(super) struct Kraken {
    connection: u64,
    /// The book of each pair as a client knows it, bids and asks: what it was sent, truncated to the depth.
    known: Vec<[Vec<Level>; 2]>,
}

/// An update of one side for a client: a level, and whether it is sent again.
struct Update {
    level: Level,
    again: bool,
}

impl Kraken {
    pub(super) fn new(markets: &[Market], rng: &mut Rng) -> Self {
        let cut = |market: &Market, side| market.levels(side).iter().copied().take(DEPTH).collect::<Vec<_>>();
        let known = markets.iter().map(|m| [cut(m, Side::Buy), cut(m, Side::Sell)]).collect();
        Self { connection: rng.next() | 1 << 63, known }
    }

    /// Updates the client's copy of one side by the client's own rule, and returns the updates: first removed
    /// levels, then new ones, so that a client that truncates its book after each of them ends with the same
    /// ten.
    ///
    /// A level pushed out of the ten is dropped by the client without an update. When it returns it has to be
    /// sent again.
    fn update(&mut self, index: usize, market: &Market, side: Side) -> Vec<Update> {
        let known = &mut self.known[index][usize::from(side == Side::Sell)];
        let full = market.levels(side);
        let is_gone = |level: &&Level| !full.iter().any(|l| l.price == level.price);
        let gone =
            known.iter().filter(is_gone).map(|l| Update { level: Level { size: 0, ..*l }, again: false });
        let is_changed = |c: &Level| market.changes().iter().any(|m| m.side == side && m.level == *c);
        let new = full.iter().take(DEPTH).filter(|level| !known.contains(level));
        let new = new.map(|level| Update { level: *level, again: !is_changed(level) });
        let updates: Vec<_> = gone.chain(new).collect();
        for update in &updates {
            set_level(known, side, update.level);
            known.truncate(DEPTH);
        }
        updates
    }

    /// Returns the CRC-32 of the ten best asks, then the ten best bids: the digits of price and size of each,
    /// without leading zeros.
    fn checksum(&self, index: usize, market: &Market) -> u32 {
        let [bids, asks] = &self.known[index];
        let mut digits = String::with_capacity(512);
        for level in asks.iter().chain(bids) {
            for number in [market.price(level.price), market.size(level.size)] {
                digits.push_str(number.digits(&mut itoa::Buffer::new()));
            }
        }
        crc32fast::hash(digits.as_bytes())
    }

    fn book_delta(&mut self, index: usize, market: &Market, now: u64) -> Option<String> {
        let [asks, bids] = [Side::Sell, Side::Buy].map(|side| self.update(index, market, side));
        let part = |name: &str, updates: &[Update]| {
            let levels: Vec<_> = updates.iter().map(|u| level_text(market, u.level, now, u.again)).collect();
            (!levels.is_empty()).then(|| format!(r#""{name}":[{}]"#, levels.join(",")))
        };
        let crc = self.checksum(index, market);
        let data = match (part("a", &asks), part("b", &bids)) {
            (Some(asks), Some(bids)) => format!(r#"{{{asks}}},{{{bids},"c":"{crc}"}}"#),
            (Some(one), None) | (None, Some(one)) => format!(r#"{{{one},"c":"{crc}"}}"#),
            (None, None) => return None,
        };
        Some(in_channel(index, BOOK, market, &data))
    }
}

impl Dialect for Kraken {
    fn opening(&mut self, markets: &[Market], now: u64, _: &mut Rng, batch: &mut Batch) {
        let id = self.connection;
        batch.push(
            "systemStatus",
            format!(r#"{{"connectionID":{id},"event":"systemStatus","status":"online","version":"1.9.6"}}"#),
        );
        for channel in 0..CHANNELS.len() {
            for (index, market) in markets.iter().enumerate() {
                batch.push("subscriptionStatus", subscription_status(index, channel, market.name()));
            }
        }
        for (index, market) in markets.iter().enumerate() {
            batch.push("book", book_snapshot(index, market, now));
            batch.push("ticker", ticker(index, market));
            batch.push("spread", spread(index, market, now));
        }
    }

    fn turn(&mut self, index: usize, market: &Market, now: u64, _: &mut Rng, batch: &mut Batch) {
        if !market.fills().is_empty() {
            batch.push("trade", trades(index, market, now));
        }
        if let Some(delta) = self.book_delta(index, market, now) {
            batch.push("book", delta);
        }
        if market.touch_changed() {
            batch.push("spread", spread(index, market, now));
        }
        if !market.fills().is_empty() {
            batch.push("ticker", ticker(index, market));
        }
    }

    fn second(&mut self, _: &[Market], _: u64, batch: &mut Batch) {
        batch.push("heartbeat", r#"{"event":"heartbeat"}"#.to_owned());
    }
}

fn channel_id(index: usize, channel: usize) -> u64 {
    336 + 64 * index as u64 + CHANNELS[channel].1
}

fn in_channel(index: usize, channel: usize, market: &Market, data: &str) -> String {
    let (id, word, pair) = (channel_id(index, channel), CHANNELS[channel].0, market.name());
    format!(r#"[{id},{data},"{word}","{pair}"]"#)
}

fn subscription_status(index: usize, channel: usize, pair: &str) -> String {
    let (id, word) = (channel_id(index, channel), CHANNELS[channel].0);
    let subscription = match channel {
        BOOK => format!(r#"{{"depth":{DEPTH},"name":"book"}}"#),
        _ => format!(r#"{{"name":"{word}"}}"#),
    };
    format!(
        r#"{{"channelID":{id},"channelName":"{word}","event":"subscriptionStatus","pair":"{pair}","status":"subscribed","subscription":{subscription}}}"#
    )
}

fn level_text(market: &Market, level: Level, now: u64, again: bool) -> String {
    let (price, size, time) = (market.price(level.price), market.size(level.size), seconds_text(now));
    let republished = if again { r#","r""# } else { "" };
    format!(r#"["{price}","{size}","{time}"{republished}]"#)
}

fn book_snapshot(index: usize, market: &Market, now: u64) -> String {
    let side = |side| {
        let best = market.levels(side).iter().take(DEPTH);
        best.map(|level| level_text(market, *level, now, false)).collect::<Vec<_>>().join(",")
    };
    let data = format!(r#"{{"as":[{}],"bs":[{}]}}"#, side(Side::Sell), side(Side::Buy));
    in_channel(index, BOOK, market, &data)
}

fn trades(index: usize, market: &Market, now: u64) -> String {
    let trade = |fill: &super::market::Fill| {
        let (price, size, time) = (market.price(fill.price), market.size(fill.size), seconds_text(now));
        let side = if fill.taker == Side::Buy { 'b' } else { 's' };
        format!(r#"["{price}","{size}","{time}","{side}","m",""]"#)
    };
    let trades = market.fills().iter().map(trade).collect::<Vec<_>>().join(",");
    in_channel(index, TRADE, market, &format!("[{trades}]"))
}

fn spread(index: usize, market: &Market, now: u64) -> String {
    let (bid, ask) = market.touch();
    let data = format!(
        r#"["{}","{}","{}","{}","{}"]"#,
        market.price(bid.price),
        market.price(ask.price),
        seconds_text(now),
        market.size(bid.size),
        market.size(ask.size),
    );
    in_channel(index, SPREAD, market, &data)
}

fn ticker(index: usize, market: &Market) -> String {
    let (day, last, (bid, ask)) = (market.day(), market.last(), market.touch());
    let best = |level: Level| {
        let size = market.size(level.size);
        let whole = size.mantissa() / 10i128.pow(u32::from(size.scale()));
        format!(r#"["{}",{whole},"{size}"]"#, market.price(level.price))
    };
    let (volume, trades) = (market.size(day.volume), day.trades);
    let prices = |ticks| format!(r#"["{0}","{0}"]"#, market.price(ticks));
    let data = format!(
        r#"{{"a":{},"b":{},"c":["{}","{}"],"v":["{volume}","{volume}"],"p":{},"t":[{trades},{trades}],"l":{},"h":{},"o":{}}}"#,
        best(ask),
        best(bid),
        market.price(last.price),
        market.size(last.size),
        prices(day.vwap()),
        prices(day.low),
        prices(day.high),
        prices(day.open),
    );
    in_channel(index, TICKER, market, &data)
}
