//! The gateway's own message format: `trade` and `quote`.

use super::market::Market;
use super::rng::Rng;
use super::{Batch, Dialect};

pub(super) struct Native;

impl Dialect for Native {
    fn opening(&mut self, markets: &[Market], now: u64, _: &mut Rng, batch: &mut Batch) {
        for market in markets {
            batch.push("quote", quote(market, now));
        }
    }

    fn turn(&mut self, _: usize, market: &Market, now: u64, _: &mut Rng, batch: &mut Batch) {
        let (name, ts) = (market.name(), now / 1000);
        for fill in market.fills() {
            let (price, size) = (market.price(fill.price), market.size(fill.size));
            let (side, id) = (fill.taker.name(), fill.id);
            batch.push(
                "trade",
                format!(
                    r#"{{"type":"trade","symbol":"{name}","price":"{price}","size":"{size}","side":"{side}","trade_id":"{id}","ts":{ts}}}"#
                ),
            );
        }
        if market.touch_changed() {
            batch.push("quote", quote(market, now));
        }
    }

    fn second(&mut self, _: &[Market], _: u64, _: &mut Batch) {}
}

fn quote(market: &Market, now: u64) -> String {
    let (bid, ask) = market.touch();
    let (bid_price, bid_size) = (market.price(bid.price), market.size(bid.size));
    let (ask_price, ask_size) = (market.price(ask.price), market.size(ask.size));
    let (name, ts) = (market.name(), now / 1000);
    format!(
        r#"{{"type":"quote","symbol":"{name}","bid":"{bid_price}","bid_size":"{bid_size}","ask":"{ask_price}","ask_size":"{ask_size}","ts":{ts}}}"#
    )
}
