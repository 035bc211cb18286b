//! Coinbase Exchange WebSocket feed.
//!
//! Message forms: <https://docs.cdp.coinbase.com/exchange/websocket-feed/channels>.

use simd_json::prelude::*;

use super::json::{Json, Levels, decimal, list, number, optional_decimal, optional_number, text, trade_id};
use super::{BookMessage, DecodeError, Emit, Event, Link, QuoteSource, TradeKind};
use crate::model::tick::{Quote, Side, Trade};
use crate::time::rfc3339;

/// Decodes one message.
pub(super) fn decode(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let kind = text(message, "type")?;
    let known = matches!(
        kind,
        "l2update" | "match" | "last_match" | "ticker" | "snapshot" | "heartbeat" | "subscriptions" | "error"
    );
    emit(Event::Kind { name: kind, known })?;
    match kind {
        "l2update" | "snapshot" => emit(Event::Book(book(message, kind == "snapshot")?)),
        "match" => trade(message, emit),
        "last_match" => {
            emit(Event::LastTrade { symbol: text(message, "product_id")?, id: number(message, "trade_id")? })
        }
        "ticker" => ticker(message, emit),
        "heartbeat" => emit(Event::Heartbeat {
            symbol: text(message, "product_id")?,
            sequence: number(message, "sequence")?,
            last_trade_id: number(message, "last_trade_id")?,
        }),
        _ => Ok(()),
    }
}

fn book<'t>(message: Json<'t, 't>, snapshot: bool) -> Result<BookMessage<'t, 't>, DecodeError> {
    let levels = if snapshot {
        Levels::pairs(Some(list(message, "bids")?), Some(list(message, "asks")?))
    } else {
        Levels::changes(Some(list(message, "changes")?))
    };
    Ok(BookMessage {
        symbol: text(message, "product_id")?,
        ts_us: time(message),
        snapshot,
        levels,
        link: Link::None,
        checksum: None,
        depth: None,
    })
}

/// Decodes a `match`. Its `side` is the maker's.
fn trade(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let symbol = text(message, "product_id")?;
    let maker = match text(message, "side")? {
        "buy" => Side::Buy,
        "sell" => Side::Sell,
        _ => return Err(DecodeError::Field("side")),
    };
    let trade = Trade {
        price: decimal(message, "price")?,
        size: decimal(message, "size")?,
        side: Some(maker.flipped()),
        id: trade_id(message, "trade_id")?,
    };
    let print = TradeKind::Numbered(number(message, "trade_id")?);
    emit(Event::Trade { symbol, trade, ts_us: time(message), print })?;
    sequence(message, symbol, emit)
}

/// Decodes a `ticker`. It has sizes since 2022.
fn ticker(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    let symbol = text(message, "product_id")?;
    let quote = Quote {
        bid: optional_decimal(message, "best_bid")?,
        bid_size: optional_decimal(message, "best_bid_size")?,
        ask: optional_decimal(message, "best_ask")?,
        ask_size: optional_decimal(message, "best_ask_size")?,
    };
    emit(Event::Quote { symbol, quote, ts_us: time(message), source: QuoteSource::Ticker })?;
    sequence(message, symbol, emit)
}

fn sequence(message: Json<'_, '_>, symbol: &str, emit: Emit<'_>) -> Result<(), DecodeError> {
    match optional_number(message, "sequence") {
        Some(sequence) => emit(Event::Sequence { symbol, sequence }),
        None => Ok(()),
    }
}

/// Returns `time`, which is RFC 3339, in microseconds since the Unix epoch.
fn time(message: Json<'_, '_>) -> Option<u64> {
    rfc3339::parse(message.get("time")?.into_string()?.as_bytes()).ok().map(|ns| ns / 1_000)
}
