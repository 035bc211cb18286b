//! Binance spot and futures streams, combined (`{"stream":…,"data":…}`) and raw.
//!
//! Message forms: spot <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>,
//! USDⓈ-M <https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams>,
//! COIN-M <https://developers.binance.com/docs/derivatives/coin-margined-futures/websocket-market-streams>.

use std::borrow::Cow;

use simd_json::prelude::*;

use super::json::{
    self, Json, Levels, as_text, decimal, decimal_at, nullable_decimal, number, optional_number, text,
    trade_id,
};
use super::{BookMessage, DecodeError, Emit, Event, Link, PLAUSIBLE_US, QuoteSource, TradeKind, each};
use crate::model::tick::{Quote, Side, Trade};

/// Decodes one message.
pub(super) fn decode(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let stream = message.get("stream").and_then(as_text);
    let data = match stream {
        Some(_) => message.get("data").ok_or(DecodeError::Field("data"))?,
        None => message,
    };
    if data.is_array() { list(data, stream, emit) } else { one(data, stream, emit) }
}

/// Decodes a list of messages, which some streams send. It is counted once, under the kind of its first
/// message.
#[cold]
fn list<'t>(data: Json<'t, 't>, stream: Option<&'t str>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let list = data.as_array().ok_or(DecodeError::Shape("neither array nor object"))?;
    let mut is_first = true;
    let mut once = |event: Event<'_, '_>| match event {
        Event::Kind { .. } if !std::mem::take(&mut is_first) => Ok(()),
        other => emit(other),
    };
    match list.get(0) {
        Some(_) => each(list.iter(), |data| one(data, stream, &mut once)),
        None => one(data, stream, emit),
    }
}

fn one<'t>(data: Json<'t, 't>, stream: Option<&'t str>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let name = kind(data, stream);
    let counted = |name, known| Event::Kind { name, known };
    match name {
        "bookTicker" => {
            emit(counted(name, true))?;
            ticker(data, emit)
        }
        "trade" => match off_book(data) {
            Some(name) => emit(counted(name, true)),
            None => {
                emit(counted(name, true))?;
                trade(data, "t", TradeKind::Plain(number(data, "t")?), emit)
            }
        },
        "aggTrade" => {
            emit(counted(name, true))?;
            trade(data, "a", TradeKind::Aggregate { last: number(data, "l")? }, emit)
        }
        "depthUpdate" | "depthSnapshot" => {
            if let Some(partial) = stream.and_then(partial_depth) {
                emit(counted(partial, true))?;
                return partial_book(data, stream.unwrap_or_default(), emit);
            }
            emit(counted(name, true))?;
            match name {
                "depthUpdate" => emit(Event::Book(depth_update(data)?)),
                _ => depth_snapshot(data, stream.unwrap_or_default(), emit),
            }
        }
        _ => emit(counted(name, name == "result")),
    }
}

/// Returns the kind of a futures `trade` that was not executed in the order book, by its field `X`, which is
/// `MARKET` for those that were.
fn off_book(data: Json<'_, '_>) -> Option<&'static str> {
    Some(match data.get("X").and_then(as_text)? {
        "MARKET" => return None,
        "NA" => "trade X=NA",
        "INSURANCE_FUND" => "trade X=INSURANCE_FUND",
        "ADL" => "trade X=ADL",
        _ => "trade X=(other)",
    })
}

/// Returns the name of a stream of partial books: `depth5` of `btcusdt@depth5@100ms`. Its messages are not
/// changes, though those of futures resemble them.
fn partial_depth(stream: &str) -> Option<&str> {
    let (_, rest) = stream.split_once('@')?;
    let name = rest.split_once('@').map_or(rest, |(name, _)| name);
    let levels = name.strip_prefix("depth")?;
    (!levels.is_empty() && levels.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

/// Decodes a partial book as a quote.
fn partial_book(data: Json<'_, '_>, stream: &str, emit: Emit<'_>) -> Result<(), DecodeError> {
    let side = |names: [&'static str; 2]| {
        let levels = data.get(names[0]).or_else(|| data.get(names[1])).ok_or(DecodeError::Field(names[1]))?;
        match levels.as_array().ok_or(DecodeError::Field(names[1]))?.get(0) {
            Some(best) => Ok((Some(decimal_at(best, 0, "price")?), Some(decimal_at(best, 1, "size")?))),
            None => Ok((None, None)),
        }
    };
    let ((bid, bid_size), (ask, ask_size)) = (side(["b", "bids"])?, side(["a", "asks"])?);
    let quote = Quote { bid, bid_size, ask, ask_size };
    let Some(symbol) = symbol(data, stream) else { return Ok(()) };
    emit(Event::Quote { symbol: &symbol, quote, ts_us: time(data), source: QuoteSource::Partial })
}

/// Returns the symbol of a message: from the message itself, otherwise from its stream, which spells it in
/// lower case.
fn symbol<'t>(data: Json<'t, 't>, stream: &str) -> Option<Cow<'t, str>> {
    let named = data.get("s").or_else(|| data.get("symbol")).and_then(as_text);
    let streamed = || stream.split_once('@').map(|(symbol, _)| Cow::Owned(symbol.to_uppercase()));
    named.map(Cow::Borrowed).or_else(streamed)
}

/// Returns the name of the event. Spot's `bookTicker` has no `e`, nor has a depth snapshot that a recorder
/// put into the stream.
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
        bid: nullable_decimal(data, "b")?,
        bid_size: nullable_decimal(data, "B")?,
        ask: nullable_decimal(data, "a")?,
        ask_size: nullable_decimal(data, "A")?,
    };
    let symbol = text(data, "s")?;
    emit(Event::Quote { symbol, quote, ts_us: time(data), source: QuoteSource::BookTicker })
}

/// Decodes a `trade` or `aggTrade`: `m` is true if the buyer was the maker.
fn trade(data: Json<'_, '_>, id: &'static str, print: TradeKind, emit: Emit<'_>) -> Result<(), DecodeError> {
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
        levels: Levels::pairs(Some(json::list(data, "b")?), Some(json::list(data, "a")?)),
        link: Link::Updates {
            first: number(data, "U")?,
            last: number(data, "u")?,
            previous: optional_number(data, "pu"),
        },
        checksum: None,
        depth: None,
    })
}

/// Decodes a REST depth snapshot that a recorder put into the stream. It contains no symbol; the stream does,
/// in lower case.
fn depth_snapshot(data: Json<'_, '_>, stream: &str, emit: Emit<'_>) -> Result<(), DecodeError> {
    let last = number(data, "lastUpdateId")?;
    // A snapshot without a symbol is ignored.
    let Some(symbol) = symbol(data, stream) else { return Ok(()) };
    emit(Event::Book(BookMessage {
        symbol: &symbol,
        ts_us: time(data),
        snapshot: true,
        levels: Levels::pairs(Some(json::list(data, "bids")?), Some(json::list(data, "asks")?)),
        link: Link::Updates { first: last, last, previous: None },
        checksum: None,
        depth: None,
    }))
}

/// Returns transaction time `T`, otherwise event time `E`, in microseconds. The venue sends milliseconds, or
/// microseconds if the stream was opened with `timeUnit=MICROSECOND`.
fn time(data: Json<'_, '_>) -> Option<u64> {
    /// The year 5138 in milliseconds: larger values are microseconds.
    const MILLISECONDS_MAX: u64 = 100_000_000_000_000;
    let micros = |field| {
        let time = optional_number(data, field)?;
        Some(if time < MILLISECONDS_MAX { time * 1_000 } else { time })
    };
    match micros("T") {
        Some(traded) if PLAUSIBLE_US.contains(&traded) => Some(traded),
        traded => micros("E").or(traded),
    }
}
