//! The gateway's own message format (`docs/PROTOCOL.md`), as sent by publishers and stored in captures. The
//! symbol contains the venue; unknown fields are ignored.

use super::json::{Json, as_text, decimal, optional_decimal, optional_number, text, trade_id};
use super::{DecodeError, Emit, Event, PLAUSIBLE_US, QuoteSource, TradeKind};
use crate::model::tick::{Quote, Side, Trade};

/// Decodes one message. Numbers are text here, so that they keep their digits.
pub(super) fn decode(message: Json<'_, '_>, emit: Emit<'_>) -> Result<(), DecodeError> {
    if !message.is_object() {
        return Err(DecodeError::Shape("not a JSON object"));
    }
    let kind = text(message, "type")?;
    emit(Event::Kind { name: kind, known: matches!(kind, "trade" | "quote") })?;
    let symbol = text(message, "symbol");
    match kind {
        "trade" => {
            let side = match message.get("side").and_then(as_text) {
                Some("buy") => Some(Side::Buy),
                Some("sell") => Some(Side::Sell),
                Some(_) => return Err(DecodeError::Field("side")),
                None => None,
            };
            let trade = Trade {
                price: decimal(message, "price")?,
                size: decimal(message, "size")?,
                side,
                id: trade_id(message, "trade_id")?,
            };
            emit(Event::Trade { symbol: symbol?, trade, ts_us: time(message)?, print: TradeKind::Single })
        }
        "quote" => {
            let quote = Quote {
                bid: optional_decimal(message, "bid")?,
                bid_size: optional_decimal(message, "bid_size")?,
                ask: optional_decimal(message, "ask")?,
                ask_size: optional_decimal(message, "ask_size")?,
            };
            if quote.bid.is_none() && quote.ask.is_none() {
                return Err(DecodeError::Field("bid"));
            }
            let source = QuoteSource::Spread;
            emit(Event::Quote { symbol: symbol?, quote, ts_us: time(message)?, source })
        }
        _ => Err(DecodeError::Shape("`type` is neither trade nor quote")),
    }
}

/// Returns `ts`, whole microseconds since the Unix epoch, from 2000 to 2199: values outside are in another
/// unit.
fn time(message: Json<'_, '_>) -> Result<Option<u64>, DecodeError> {
    if message.get("ts").is_none() {
        return Ok(None);
    }
    let ts_us = optional_number(message, "ts").ok_or(DecodeError::Field("ts"))?;
    if PLAUSIBLE_US.contains(&ts_us) {
        Ok(Some(ts_us))
    } else {
        Err(DecodeError::Time { field: "ts", ts_us })
    }
}
