//! Kraken WebSocket feed, v1 (arrays) and v2 (objects).
//!
//! Message forms: v1 <https://docs.kraken.com/api/docs/websocket-v1/book> and its neighbours,
//! v2 <https://docs.kraken.com/api/docs/websocket-v2/book> and its neighbours.

use simd_json::prelude::*;

use super::json::{
    Json, Levels, as_decimal, as_text, decimal, decimal_at, number, optional_decimal, text, trade_id,
};
use super::{BookMessage, DecodeError, Emit, Event, Link, QuoteSource, TradeKind, each};
use crate::model::tick::{Decimal, Quote, Side, Trade, TradeId};
use crate::time::rfc3339;

/// The depths that a book subscription may have; v2 does not send the depth with its messages.
const DEPTHS: [usize; 5] = [10, 25, 100, 500, 1000];

/// Decodes a v1 message that is an array: `[channelID, data…, channelName, pair]`.
pub(super) fn decode_array(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let array = message.as_array().ok_or(DecodeError::Shape("neither array nor object"))?;
    if !(4..=5).contains(&array.len()) {
        return Err(DecodeError::Shape("an array of neither 4 nor 5 parts"));
    }
    let last = array.len() - 1;
    let part = |at: usize| array.get(at).ok_or(DecodeError::Shape("an array that ends early"));
    let channel = part(last - 1)?.into_string().ok_or(DecodeError::Field("channelName"))?;
    let pair = part(last)?.into_string().ok_or(DecodeError::Field("pair"))?;
    let name = channel.split_once('-').map_or(channel, |(name, _)| name);
    emit(Event::Kind { name, known: matches!(name, "trade" | "ticker" | "spread" | "book") })?;
    match name {
        "trade" => {
            let trades = part(1)?.as_array().ok_or(DecodeError::Field("trades"))?;
            each(trades.iter(), |trade| v1_trade(trade, pair, emit))
        }
        "ticker" => v1_ticker(part(1)?, pair, emit),
        "spread" => v1_spread(part(1)?, pair, emit),
        "book" => {
            let second = if last == 4 { Some(part(2)?) } else { None };
            v1_book(part(1)?, second, channel, pair, emit)
        }
        _ => Ok(()),
    }
}

/// `[price, volume, time, side, orderType, misc]`; the side is the taker's. There is no id.
fn v1_trade(trade: Json<'_, '_>, pair: &str, emit: Emit<'_>) -> Result<(), DecodeError> {
    let fields = trade.as_array().ok_or(DecodeError::Field("trade"))?;
    let side = match fields.get(3).and_then(as_text) {
        Some("b") => Side::Buy,
        Some("s") => Side::Sell,
        _ => return Err(DecodeError::Field("side")),
    };
    let ts_us = fields.get(2).and_then(epoch_seconds);
    let trade = Trade {
        price: decimal_at(trade, 0, "price")?,
        size: decimal_at(trade, 1, "volume")?,
        side: Some(side),
        id: TradeId::NONE,
    };
    emit(Event::Trade { symbol: pair, trade, ts_us, print: TradeKind::Single })
}

/// `{"a":[price, whole lots, lots],"b":[…],…}`
fn v1_ticker(data: Json<'_, '_>, pair: &str, emit: Emit<'_>) -> Result<(), DecodeError> {
    let (bid, ask) =
        (data.get("b").ok_or(DecodeError::Field("b"))?, data.get("a").ok_or(DecodeError::Field("a"))?);
    let quote = Quote {
        bid: Some(decimal_at(bid, 0, "b")?),
        bid_size: Some(decimal_at(bid, 2, "b")?),
        ask: Some(decimal_at(ask, 0, "a")?),
        ask_size: Some(decimal_at(ask, 2, "a")?),
    };
    emit(Event::Quote { symbol: pair, quote, ts_us: None, source: QuoteSource::Ticker })
}

/// `[bid, ask, time, bid volume, ask volume]`
fn v1_spread(data: Json<'_, '_>, pair: &str, emit: Emit<'_>) -> Result<(), DecodeError> {
    let quote = Quote {
        bid: Some(decimal_at(data, 0, "bid")?),
        ask: Some(decimal_at(data, 1, "ask")?),
        bid_size: Some(decimal_at(data, 3, "bidVolume")?),
        ask_size: Some(decimal_at(data, 4, "askVolume")?),
    };
    let ts_us = data.as_array().and_then(|a| a.get(2)).and_then(epoch_seconds);
    emit(Event::Quote { symbol: pair, quote, ts_us, source: QuoteSource::Spread })
}

/// Decodes a snapshot (`as`, `bs`) or a change (`a`, `b`) of a book. A change of both sides has two parts,
/// the last of which contains the checksum of both.
fn v1_book(
    first: Json<'_, '_>,
    second: Option<Json<'_, '_>>,
    channel: &str,
    pair: &str,
    emit: Emit<'_>,
) -> Result<(), DecodeError> {
    let field = |name: &str| first.get(name).or_else(|| second.and_then(|part| part.get(name)));
    let snapshot = field("as").is_some() || field("bs").is_some();
    let (bids, asks) = if snapshot { (field("bs"), field("as")) } else { (field("b"), field("a")) };
    if bids.is_none() && asks.is_none() {
        return Err(DecodeError::Shape("a book message without levels"));
    }
    let checksum = match field("c").map(|c| c.into_string().and_then(|c| c.parse().ok())) {
        Some(None) => return Err(DecodeError::Field("c")),
        Some(checksum) => checksum,
        None => None,
    };
    emit(Event::Book(BookMessage {
        symbol: pair,
        ts_us: newest_time(bids).max(newest_time(asks)),
        snapshot,
        levels: Levels::pairs(bids, asks),
        link: Link::None,
        checksum,
        depth: channel.split_once('-').and_then(|(_, depth)| depth.parse().ok()),
    }))
}

/// Returns the newest time among levels `[price, volume, time]`, in microseconds since the Unix epoch.
fn newest_time(levels: Option<Json<'_, '_>>) -> Option<u64> {
    let levels = levels?.as_array()?;
    levels.iter().filter_map(|level| epoch_seconds(level.as_array()?.get(2)?)).max()
}

/// Converts `"1618678142.557535"` to microseconds, without rounding through floats.
fn epoch_seconds(value: Json<'_, '_>) -> Option<u64> {
    let time: Decimal = as_decimal(value, "time").ok()?;
    let seconds = u64::try_from(time.mantissa()).ok()?;
    match time.scale() {
        scale @ 0..=6 => seconds.checked_mul(10u64.pow(6 - u32::from(scale))),
        scale => Some(seconds / 10u64.checked_pow(u32::from(scale) - 6)?),
    }
}

/// Decodes a message that is an object: all of v2, and the events of v1. Numbers are text here.
pub(super) fn decode_object(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let word = |field: &str| message.get(field).and_then(as_text);
    let Some(channel) = word("channel") else {
        let name = word("event").or_else(|| word("method"));
        let name = name.ok_or(DecodeError::Shape("an object without channel, event or method"))?;
        let known = matches!(
            name,
            "systemStatus" | "subscriptionStatus" | "heartbeat" | "pong" | "subscribe" | "unsubscribe"
        );
        emit(Event::Kind { name, known })?;
        return v2_subscribed(message, emit);
    };
    let known = matches!(channel, "trade" | "ticker" | "book" | "heartbeat" | "status");
    emit(Event::Kind { name: channel, known })?;
    if !matches!(channel, "trade" | "ticker" | "book") {
        return Ok(());
    }
    let snapshot = word("type") == Some("snapshot");
    let data = message.get("data").ok_or(DecodeError::Field("data"))?;
    let data = data.as_array().ok_or(DecodeError::Field("data"))?;
    each(data.iter(), |item| match channel {
        "trade" => v2_trade(item, snapshot, emit),
        "ticker" => v2_ticker(item, emit),
        _ => v2_book(item, snapshot, emit),
    })
}

/// Decodes the reply to a v2 book subscription, which contains the depth.
fn v2_subscribed(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let result = message.get("result").filter(|r| r.get("channel").and_then(as_text) == Some("book"));
    match result.map(|r| (text(r, "symbol"), number(r, "depth"))) {
        Some((Ok(symbol), Ok(depth))) => emit(Event::BookDepth { symbol, depth: depth as usize }),
        _ => Ok(()),
    }
}

/// Decodes a trade. The snapshot repeats trades from before the subscription.
fn v2_trade(item: Json<'_, '_>, snapshot: bool, emit: Emit<'_>) -> Result<(), DecodeError> {
    let symbol = text(item, "symbol")?;
    if snapshot {
        return emit(Event::LastTrade { symbol, id: number(item, "trade_id")? });
    }
    let side = match text(item, "side")? {
        "buy" => Side::Buy,
        "sell" => Side::Sell,
        _ => return Err(DecodeError::Field("side")),
    };
    let trade = Trade {
        price: decimal(item, "price")?,
        size: decimal(item, "qty")?,
        side: Some(side),
        id: trade_id(item, "trade_id")?,
    };
    emit(Event::Trade { symbol, trade, ts_us: v2_time(item), print: TradeKind::Single })
}

fn v2_ticker(item: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let quote = Quote {
        bid: optional_decimal(item, "bid")?,
        bid_size: optional_decimal(item, "bid_qty")?,
        ask: optional_decimal(item, "ask")?,
        ask_size: optional_decimal(item, "ask_qty")?,
    };
    let symbol = text(item, "symbol")?;
    emit(Event::Quote { symbol, quote, ts_us: v2_time(item), source: QuoteSource::Ticker })
}

fn v2_book(item: Json<'_, '_>, snapshot: bool, emit: Emit<'_>) -> Result<(), DecodeError> {
    let (bids, asks) = (item.get("bids"), item.get("asks"));
    let longest = [bids, asks].into_iter().flatten().filter_map(|l| l.as_array()).map(|l| l.len()).max();
    let depth = longest.filter(|_| snapshot).and_then(|len| DEPTHS.into_iter().find(|d| *d >= len));
    emit(Event::Book(BookMessage {
        symbol: text(item, "symbol")?,
        ts_us: v2_time(item),
        snapshot,
        levels: Levels::objects(bids, asks),
        link: Link::None,
        checksum: match item.get("checksum") {
            None => None,
            Some(_) => {
                Some(u32::try_from(number(item, "checksum")?).map_err(|_| DecodeError::Field("checksum"))?)
            }
        },
        depth,
    }))
}

fn v2_time(item: Json<'_, '_>) -> Option<u64> {
    rfc3339::parse(item.get("timestamp")?.into_string()?.as_bytes()).ok().map(|ns| ns / 1_000)
}
