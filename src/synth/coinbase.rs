//! The Coinbase Exchange feed: `level2`, `matches`, `ticker` and `heartbeat`.

use super::market::{Fill, Level, Market};
use super::rng::Rng;
use super::{Batch, Dialect, rfc3339_text};
use crate::model::tick::{Decimal, Side};

pub(super) struct Coinbase {
    /// The newest sequence number of each product.
    sequences: Vec<u64>,
}

impl Coinbase {
    pub(super) fn new(products: usize, rng: &mut Rng) -> Self {
        Self { sequences: (0..products).map(|_| 10_000_000_000 + rng.below(80_000_000_000)).collect() }
    }
}

impl Dialect for Coinbase {
    fn opening(&mut self, markets: &[Market], now: u64, rng: &mut Rng, batch: &mut Batch) {
        batch.push("subscriptions", subscriptions(markets));
        for (market, sequence) in markets.iter().zip(&self.sequences) {
            batch.push("snapshot", snapshot(market, now));
            // The newest trade precedes the subscription.
            let before = now - (now / 2).min(1_000_000_000 + rng.below(4_000_000_000));
            batch.push("last_match", trade("last_match", market, market.last(), *sequence, before, rng));
            batch.push("ticker", ticker(market, *sequence, before));
        }
    }

    fn turn(&mut self, index: usize, market: &Market, now: u64, rng: &mut Rng, batch: &mut Batch) {
        let sequence = &mut self.sequences[index];
        for fill in market.fills() {
            *sequence += 1 + rng.below(30);
            batch.push("match", trade("match", market, *fill, *sequence, now, rng));
        }
        batch.push("l2update", update(market, now));
        if !market.fills().is_empty() {
            batch.push("ticker", ticker(market, *sequence, now));
        }
    }

    fn second(&mut self, markets: &[Market], now: u64, batch: &mut Batch) {
        for (market, sequence) in markets.iter().zip(&self.sequences) {
            let (name, id, time) = (market.name(), market.last().id, rfc3339_text(now));
            batch.push(
                "heartbeat",
                format!(
                    r#"{{"type":"heartbeat","last_trade_id":{id},"product_id":"{name}","sequence":{sequence},"time":"{time}"}}"#
                ),
            );
        }
    }
}

fn subscriptions(markets: &[Market]) -> String {
    let names: Vec<_> = markets.iter().map(|market| format!("\"{}\"", market.name())).collect();
    let names = names.join(",");
    let channels = ["level2", "matches", "ticker", "heartbeat"]
        .map(|channel| format!(r#"{{"name":"{channel}","product_ids":[{names}]}}"#));
    format!(r#"{{"type":"subscriptions","channels":[{}]}}"#, channels.join(","))
}

fn snapshot(market: &Market, now: u64) -> String {
    let level = |level: &Level| format!(r#"["{}","{}"]"#, market.price(level.price), market.size(level.size));
    let side = |side| market.levels(side).iter().map(level).collect::<Vec<_>>().join(",");
    let (name, time) = (market.name(), rfc3339_text(now));
    let (asks, bids) = (side(Side::Sell), side(Side::Buy));
    format!(r#"{{"type":"snapshot","product_id":"{name}","asks":[{asks}],"bids":[{bids}],"time":"{time}"}}"#)
}

fn update(market: &Market, now: u64) -> String {
    let changes: Vec<_> = market
        .changes()
        .iter()
        .map(|change| {
            let (price, size) = (market.price(change.level.price), market.size(change.level.size));
            format!(r#"["{}","{price}","{size}"]"#, change.side.name())
        })
        .collect();
    let (name, changes, time) = (market.name(), changes.join(","), rfc3339_text(now));
    format!(r#"{{"type":"l2update","product_id":"{name}","changes":[{changes}],"time":"{time}"}}"#)
}

/// Returns a `match` or `last_match`. Its side is the maker's.
fn trade(kind: &str, market: &Market, fill: Fill, sequence: u64, now: u64, rng: &mut Rng) -> String {
    let (maker, taker, side) = (order_id(rng), order_id(rng), fill.taker.flipped().name());
    let (size, price) = (trimmed(market.size(fill.size)), market.price(fill.price));
    let (id, name, time) = (fill.id, market.name(), rfc3339_text(now));
    format!(
        r#"{{"type":"{kind}","trade_id":{id},"maker_order_id":"{maker}","taker_order_id":"{taker}","side":"{side}","size":"{size}","price":"{price}","product_id":"{name}","sequence":{sequence},"time":"{time}"}}"#
    )
}

/// Returns the ticker after a trade. Its side is the taker's.
fn ticker(market: &Market, sequence: u64, now: u64) -> String {
    let (fill, day, (bid, ask)) = (market.last(), market.day(), market.touch());
    let price = |ticks| market.price(ticks);
    let size = |lots| market.size(lots);
    format!(
        r#"{{"type":"ticker","sequence":{sequence},"product_id":"{}","price":"{}","open_24h":"{}","volume_24h":"{}","low_24h":"{}","high_24h":"{}","volume_30d":"{}","best_bid":"{}","best_bid_size":"{}","best_ask":"{}","best_ask_size":"{}","side":"{}","time":"{}","trade_id":{},"last_size":"{}"}}"#,
        market.name(),
        price(fill.price),
        price(day.open),
        size(day.volume),
        price(day.low),
        price(day.high),
        size(day.volume * 28),
        price(bid.price),
        size(bid.size),
        price(ask.price),
        size(ask.size),
        fill.taker.name(),
        rfc3339_text(now),
        fill.id,
        trimmed(size(fill.size)),
    )
}

/// Removes trailing zeros, as in the sizes of trades.
fn trimmed(size: Decimal) -> Decimal {
    let ((mut mantissa, high), mut scale) = (size.halves(), size.scale());
    while scale > 0 && high == 0 && mantissa % 10 == 0 {
        (mantissa, scale) = (mantissa / 10, scale - 1);
    }
    Decimal::from_halves(mantissa, high, scale)
}

/// Returns a random UUID, version 4.
fn order_id(rng: &mut Rng) -> String {
    let (high, low) = (rng.next(), rng.next());
    let variant = 8 | (low >> 62);
    format!(
        "{:08x}-{:04x}-4{:03x}-{variant:x}{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        (low >> 48) & 0xfff,
        low & 0xffff_ffff_ffff
    )
}
