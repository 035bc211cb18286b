//! Binance's combined streams, spot and futures: `depth`, `bookTicker` and `trade`.

use super::market::{Fill, Market};
use super::rng::Rng;
use super::{Batch, Dialect};
use crate::model::tick::Side;

pub(super) struct Binance {
    futures: bool,
    /// The last update id of each symbol's newest `depthUpdate`.
    updates: Vec<u64>,
}

impl Binance {
    pub(super) fn new(futures: bool, symbols: usize, rng: &mut Rng) -> Self {
        let first = 5_000_000_000_000 + rng.below(100_000_000_000);
        Self { futures, updates: vec![first; symbols] }
    }

    /// Returns the ids of the next depth message: its first, its last, and the last of the one before. On
    /// spot they are consecutive; futures number all symbols together, so there are holes, and each message
    /// names its predecessor.
    fn next_update(&mut self, index: usize, changes: u64, rng: &mut Rng) -> (u64, u64, u64) {
        let before = self.updates[index];
        let hole = if self.futures { rng.below(2000) } else { 0 };
        let first = before + 1 + hole;
        let last = first + changes.max(1) - 1;
        self.updates[index] = last;
        (first, last, before)
    }
}

impl Dialect for Binance {
    /// These streams have no opening messages.
    fn opening(&mut self, _: &[Market], _: u64, _: &mut Rng, _: &mut Batch) {}

    fn turn(&mut self, index: usize, market: &Market, now: u64, rng: &mut Rng, batch: &mut Batch) {
        let ids = self.next_update(index, market.changes().len() as u64, rng);
        let now_ms = now / 1_000_000;
        for fill in market.fills() {
            batch.push("trade", self.in_stream(market, "trade", &self.trade(market, *fill, now_ms)));
        }
        if market.touch_changed() {
            let data = self.book_ticker(market, ids.1, now_ms);
            batch.push("bookTicker", self.in_stream(market, "bookTicker", &data));
        }
        let stream = if self.futures { "depth@0ms" } else { "depth@100ms" };
        let data = self.depth_update(market, ids, now_ms);
        batch.push("depthUpdate", self.in_stream(market, stream, &data));
    }

    fn second(&mut self, _: &[Market], _: u64, _: &mut Batch) {}
}

impl Binance {
    fn in_stream(&self, market: &Market, stream: &str, data: &str) -> String {
        let name = market.name().to_lowercase();
        format!(r#"{{"stream":"{name}@{stream}","data":{data}}}"#)
    }

    fn trade(&self, market: &Market, fill: Fill, ms: u64) -> String {
        let name = market.name().to_uppercase();
        let (id, price, size) = (fill.id, market.price(fill.price), market.size(fill.size));
        let buyer_made = fill.taker == Side::Sell;
        if self.futures {
            format!(
                r#"{{"e":"trade","E":{ms},"T":{ms},"s":"{name}","t":{id},"p":"{price}","q":"{size}","X":"MARKET","m":{buyer_made}}}"#
            )
        } else {
            format!(
                r#"{{"e":"trade","E":{ms},"s":"{name}","t":{id},"p":"{price}","q":"{size}","T":{ms},"m":{buyer_made},"M":true}}"#
            )
        }
    }

    fn book_ticker(&self, market: &Market, update: u64, ms: u64) -> String {
        let name = market.name().to_uppercase();
        let (bid, ask) = market.touch();
        let (bid_price, bid_size) = (market.price(bid.price), market.size(bid.size));
        let (ask_price, ask_size) = (market.price(ask.price), market.size(ask.size));
        let (head, tail) = match self.futures {
            true => (r#""e":"bookTicker","#, format!(r#","T":{ms},"E":{ms}"#)),
            false => ("", String::new()),
        };
        format!(
            r#"{{{head}"u":{update},"s":"{name}","b":"{bid_price}","B":"{bid_size}","a":"{ask_price}","A":"{ask_size}"{tail}}}"#
        )
    }

    fn depth_update(&self, market: &Market, (first, last, before): (u64, u64, u64), ms: u64) -> String {
        let side = |side: Side| {
            let of_side = market.changes().iter().filter(|change| change.side == side);
            let levels: Vec<_> = of_side
                .map(|c| format!(r#"["{}","{}"]"#, market.price(c.level.price), market.size(c.level.size)))
                .collect();
            levels.join(",")
        };
        let (name, bids, asks) = (market.name().to_uppercase(), side(Side::Buy), side(Side::Sell));
        let (time, chain) = match self.futures {
            true => (format!(r#","T":{ms}"#), format!(r#","pu":{before}"#)),
            false => (String::new(), String::new()),
        };
        format!(
            r#"{{"e":"depthUpdate","E":{ms}{time},"s":"{name}","U":{first},"u":{last}{chain},"b":[{bids}],"a":[{asks}]}}"#
        )
    }
}
