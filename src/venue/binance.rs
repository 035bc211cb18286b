//! Binance spot and futures streams, combined (`{"stream":…,"data":…}`) and raw.
//!
//! Message forms: spot <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>,
//! USDⓈ-M <https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams>,
//! COIN-M <https://developers.binance.com/docs/derivatives/coin-margined-futures/websocket-market-streams>.

use simd_json::prelude::*;

use super::json::{Json, Levels, as_text, decimal, list, number, optional_number, text, trade_id};
use super::{BookMessage, DecodeError, Emit, Event, Link, Print, QuoteSource};
use crate::tick::{Quote, Side, Trade};

/// Reads one message.
pub(super) fn decode(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let stream = message.get("stream").and_then(as_text);
    let data = match stream {
        Some(_) => message.get("data").ok_or(DecodeError::Field("data"))?,
        None => message,
    };
    let kind = kind(data, stream);
    let known =
        matches!(kind, "trade" | "aggTrade" | "bookTicker" | "depthUpdate" | "depthSnapshot" | "result");
    emit(Event::Kind { name: kind, known })?;
    match kind {
        "bookTicker" => ticker(data, emit),
        "trade" => {
            let id = number(data, "t")?;
            trade(data, "t", Print::Plain(id), emit)
        }
        "aggTrade" => {
            let last = number(data, "l")?;
            trade(data, "a", Print::Aggregate { last }, emit)
        }
        "depthUpdate" => emit(Event::Book(depth_update(data)?)),
        "depthSnapshot" => depth_snapshot(data, stream.unwrap_or_default(), emit),
        _ => Ok(()),
    }
}

/// The event's name: spot's `bookTicker` has no `e`, and a depth snapshot that a recorder put into the
/// stream has none either.
fn kind<'t>(data: Json<'t, 't>, stream: Option<&'t str>) -> &'t str {
    if let Some(event) = data.get("e").and_then(as_text) {
        return event;
    }
    if data.contains_key("lastUpdateId") {
        return "depthSnapshot";
    }
    if ["u", "s", "b", "B", "a", "A"].iter().all(|field| data.contains_key(field)) {
        return "bookTicker";
    }
    if data.contains_key("result") {
        return "result";
    }
    stream.and_then(|s| s.split_once('@')).map_or("(no event)", |(_, name)| name)
}

fn ticker(data: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let quote = Quote {
        bid: Some(decimal(data, "b")?),
        bid_size: Some(decimal(data, "B")?),
        ask: Some(decimal(data, "a")?),
        ask_size: Some(decimal(data, "A")?),
    };
    let symbol = text(data, "s")?;
    emit(Event::Quote { symbol, quote, ts_us: time(data), source: QuoteSource::BookTicker })
}

/// A `trade` or `aggTrade`: `m` says that the buyer was the maker.
fn trade(data: Json<'_, '_>, id: &'static str, print: Print, emit: Emit<'_>) -> Result<(), DecodeError> {
    let maker_buys = data.get("m").and_then(|m| m.as_bool()).ok_or(DecodeError::Field("m"))?;
    let trade = Trade {
        price: decimal(data, "p")?,
        size: decimal(data, "q")?,
        side: Some(if maker_buys { Side::Sell } else { Side::Buy }),
        id: trade_id(data, id)?,
    };
    emit(Event::Trade { symbol: text(data, "s")?, trade, ts_us: time(data), print })
}

fn depth_update<'t>(data: Json<'t, 't>) -> Result<BookMessage<'t, 't>, DecodeError> {
    Ok(BookMessage {
        symbol: text(data, "s")?,
        ts_us: time(data),
        snapshot: false,
        levels: Levels::pairs(Some(list(data, "b")?), Some(list(data, "a")?)),
        link: Link::Updates {
            first: number(data, "U")?,
            last: number(data, "u")?,
            previous: optional_number(data, "pu"),
        },
        checksum: None,
        depth: None,
    })
}

/// A REST depth snapshot that a recorder put into the stream. It names no symbol of its own; the
/// stream does, in lower case.
fn depth_snapshot(data: Json<'_, '_>, stream: &str, emit: Emit<'_>) -> Result<(), DecodeError> {
    let last = number(data, "lastUpdateId")?;
    let symbol = match (data.get("symbol").and_then(as_text), stream.split_once('@')) {
        (Some(symbol), _) => symbol.to_owned(),
        (None, Some((symbol, _))) => symbol.to_uppercase(),
        // Nothing tells whose book this is, so it is nobody's.
        (None, None) => return Ok(()),
    };
    emit(Event::Book(BookMessage {
        symbol: &symbol,
        ts_us: time(data),
        snapshot: true,
        levels: Levels::pairs(Some(list(data, "bids")?), Some(list(data, "asks")?)),
        link: Link::Updates { first: last, last, previous: None },
        checksum: None,
        depth: None,
    }))
}

/// Transaction time `T`, else event time `E`, in microseconds: milliseconds as a rule, microseconds where
/// the stream was opened with `timeUnit=MICROSECOND`.
fn time(data: Json<'_, '_>) -> Option<u64> {
    /// The year 5138 in milliseconds: what is above it counts microseconds.
    const MILLISECONDS_MAX: u64 = 100_000_000_000_000;
    let time = optional_number(data, "T").or_else(|| optional_number(data, "E"))?;
    if time < MILLISECONDS_MAX { Some(time * 1_000) } else { Some(time) }
}
