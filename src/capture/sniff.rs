//! Whose messages a capture holds, found by looking at some of them.

use serde_json::{Map, Value};

use super::Kind;
use crate::instrument::Symbol;
use crate::venue::Wire;

/// What one record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// This venue, for certain.
    Is(Wire),
    /// Binance, spot or futures: a later message may tell which.
    SomeBinance,
    /// Nothing.
    Nothing,
}

/// The venue of these records. The host that was connected to decides; without one the first message
/// that only one venue sends does. What both Binances send alike is spot if nothing else comes.
pub(super) fn venue<'a>(records: impl Iterator<Item = Kind<'a>>) -> Option<Wire> {
    let mut fallback = None;
    for record in records {
        let hint = match record {
            Kind::Connected(url) => by_host(host(url)),
            Kind::Frame(frame) => by_message(frame),
            // The recorder knew.
            Kind::Segment(segment) => segment.venue.map_or(Hint::Nothing, Hint::Is),
            Kind::Sent(_) | Kind::Disconnected | Kind::Dropped { .. } | Kind::Note(_) => Hint::Nothing,
        };
        match hint {
            Hint::Is(wire) => return Some(wire),
            Hint::SomeBinance => fallback = Some(Wire::Binance),
            Hint::Nothing => {}
        }
    }
    fallback
}

/// The host of a URL, without its port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', ':', '?']).next().unwrap_or(rest)
}

fn by_host(host: &str) -> Hint {
    let (name, domain) = host.split_once('.').unwrap_or((host, ""));
    let under =
        |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|d| d.ends_with('.'));
    if under("coinbase.com") && (name.starts_with("ws-feed") || name.starts_with("ws-direct")) {
        Hint::Is(Wire::Coinbase)
    } else if under("kraken.com") && matches!(name, "ws" | "ws-auth" | "beta-ws" | "beta-ws-auth") {
        Hint::Is(Wire::Kraken)
    } else if under("binancefuture.com")
        || (under("binance.com") && (name.starts_with("fstream") || name.starts_with("dstream")))
    {
        Hint::Is(Wire::BinanceFutures)
    } else if under("binance.com") || under("binance.us") || under("binance.vision") {
        if name.contains("stream") { Hint::Is(Wire::Binance) } else { Hint::Nothing }
    } else {
        Hint::Nothing
    }
}

fn by_message(frame: &[u8]) -> Hint {
    match serde_json::from_slice(frame) {
        Ok(Value::Object(message)) => by_object(&message),
        Ok(Value::Array(items)) => by_array(&items),
        _ => Hint::Nothing,
    }
}

/// Kraken's first version sends its data as `[channel id, data…, "channel", "pair"]`; Binance sends
/// lists of its messages on some streams.
fn by_array(items: &[Value]) -> Hint {
    match items {
        [Value::Number(_), .., Value::String(_), Value::String(_)] if items.len() >= 4 => {
            Hint::Is(Wire::Kraken)
        }
        [Value::Object(first), ..] => binance(first),
        _ => Hint::Nothing,
    }
}

fn by_object(message: &Map<String, Value>) -> Hint {
    let word = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
    let has = |key: &str| message.contains_key(key);
    match word("type") {
        "trade" | "quote" if Symbol::parse(word("symbol")).is_ok() => return Hint::Is(Wire::Native),
        "subscriptions" if has("channels") => return Hint::Is(Wire::Coinbase),
        "l2update" | "match" | "last_match" | "ticker" | "snapshot" | "heartbeat" | "received" | "open"
        | "done" | "change" | "activate"
            if has("product_id") =>
        {
            return Hint::Is(Wire::Coinbase);
        }
        _ => {}
    }
    let kraken_event = matches!(word("event"), "systemStatus" | "subscriptionStatus" | "heartbeat" | "pong");
    let kraken_channel = matches!(
        word("channel"),
        "book" | "trade" | "ticker" | "heartbeat" | "status" | "ohlc" | "instrument"
    );
    // Coinbase's other API has channels too, and puts its data under `events`.
    let kraken_answer = matches!(word("method"), "subscribe" | "unsubscribe" | "pong") && has("time_in");
    if kraken_event || (kraken_channel && !has("events")) || kraken_answer {
        return Hint::Is(Wire::Kraken);
    }
    match (word("stream"), message.get("data")) {
        ("", _) => binance(message),
        (_, Some(Value::Object(data))) => binance(data).or_some_binance(),
        (_, Some(Value::Array(items))) => by_array(items).or_some_binance(),
        _ => Hint::Nothing,
    }
}

impl Hint {
    /// What came in Binance's envelope is Binance's, whatever it is.
    fn or_some_binance(self) -> Self {
        if self == Self::Nothing { Self::SomeBinance } else { self }
    }
}

/// What Binance's spot and futures streams do not have in common.
///
/// ```text
///                 spot only            futures only
/// trade           M                    X
/// aggTrade        M                    (neither)
/// bookTicker      no e, no T           e, T, E
/// depthUpdate     no T                 T, pu
/// depth snapshot  -                    E, T
/// any             -                    ps (COIN-M: the pair)
/// ```
fn binance(message: &Map<String, Value>) -> Hint {
    let has = |keys: &[&str]| keys.iter().all(|key| message.contains_key(*key));
    let futures = |yes: bool| Hint::Is(if yes { Wire::BinanceFutures } else { Wire::Binance });
    match message.get("e").and_then(Value::as_str) {
        Some(_) if has(&["ps"]) => futures(true),
        Some("trade") if has(&["X"]) || has(&["M"]) => futures(has(&["X"])),
        Some("aggTrade") if has(&["a", "p", "q"]) => futures(!has(&["M"])),
        Some("depthUpdate") if has(&["U", "u"]) => futures(has(&["pu"])),
        Some("bookTicker") if has(&["b", "B", "a", "A"]) => futures(true),
        Some("markPriceUpdate" | "forceOrder" | "contractInfo" | "continuous_kline") => futures(true),
        Some(_) if has(&["E"]) => Hint::SomeBinance,
        Some(_) => Hint::Nothing,
        None if has(&["u", "s", "b", "B", "a", "A"]) => futures(has(&["T"])),
        None if has(&["lastUpdateId", "bids", "asks"]) => futures(has(&["T"])),
        None => Hint::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frames: &[&str]) -> Option<Wire> {
        venue(frames.iter().map(|text| {
            if text.starts_with("wss:") { Kind::Connected(text) } else { Kind::Frame(text.as_bytes()) }
        }))
    }

    #[test]
    fn hosts_decide() {
        for (url, wire) in [
            ("wss://ws-feed.pro.coinbase.com", Some(Wire::Coinbase)),
            ("wss://ws-feed.exchange.coinbase.com", Some(Wire::Coinbase)),
            ("wss://ws-direct.exchange.coinbase.com/", Some(Wire::Coinbase)),
            ("wss://ws-feed-public.sandbox.exchange.coinbase.com", Some(Wire::Coinbase)),
            ("wss://advanced-trade-ws.coinbase.com", None),
            ("wss://stream.binance.com:9443/stream?streams=a@trade", Some(Wire::Binance)),
            ("wss://data-stream.binance.vision/ws", Some(Wire::Binance)),
            ("wss://fstream.binance.com/stream?streams=a@trade", Some(Wire::BinanceFutures)),
            ("wss://dstream.binance.com", Some(Wire::BinanceFutures)),
            ("wss://fstream.binance.com.evil.example", None),
            ("wss://notbinance.com", None),
            ("wss://ws.kraken.com/v2", Some(Wire::Kraken)),
            ("wss://ws-auth.kraken.com", Some(Wire::Kraken)),
            ("wss://futures.kraken.com/ws/v1", None),
            ("", None),
        ] {
            assert_eq!(of(&[&format!("wss:{}", url.trim_start_matches("wss:"))]), wire, "{url}");
        }
    }

    #[test]
    fn messages_decide_where_no_host_does() {
        for (frame, wire) in [
            (r#"{"type":"match","product_id":"A-B"}"#, Some(Wire::Coinbase)),
            (r#"{"type":"subscriptions","channels":[]}"#, Some(Wire::Coinbase)),
            (r#"{"channel":"ticker","events":[]}"#, None),
            (r#"{"type":"snapshot","channel":"book","data":[]}"#, Some(Wire::Kraken)),
            (r#"{"method":"subscribe","result":{},"success":true,"time_in":"t"}"#, Some(Wire::Kraken)),
            (r#"{"event":"heartbeat"}"#, Some(Wire::Kraken)),
            (r#"[123,[["1","2","3","b","l",""]],"trade","XBT/USD"]"#, Some(Wire::Kraken)),
            (r#"{"type":"trade","symbol":"demo:ABC"}"#, Some(Wire::Native)),
            (r#"{"type":"trade","symbol":"ABC"}"#, None),
            (
                r#"{"e":"trade","E":1,"s":"A","t":1,"p":"1","q":"1","T":1,"m":true,"M":true}"#,
                Some(Wire::Binance),
            ),
            (
                r#"{"e":"trade","E":1,"s":"A","t":1,"p":"1","q":"1","X":"MARKET","m":true}"#,
                Some(Wire::BinanceFutures),
            ),
            (r#"{"u":1,"s":"A","b":"1","B":"1","a":"1","A":"1"}"#, Some(Wire::Binance)),
            (
                r#"{"stream":"a@bookTicker","data":{"u":1,"s":"A","b":"1","B":"1","a":"1","A":"1"}}"#,
                Some(Wire::Binance),
            ),
            (
                r#"{"stream":"a@aggTrade","data":{"e":"aggTrade","a":1,"p":"1","q":"1"}}"#,
                Some(Wire::BinanceFutures),
            ),
            (r#"{"e":"depthUpdate","U":1,"u":2,"pu":0}"#, Some(Wire::BinanceFutures)),
            (r#"{"e":"depthUpdate","U":1,"u":2}"#, Some(Wire::Binance)),
            (r#"{"lastUpdateId":1,"E":1,"T":1,"bids":[],"asks":[]}"#, Some(Wire::BinanceFutures)),
            (r#"{"result":null,"id":1}"#, None),
            ("no json", None),
        ] {
            assert_eq!(of(&[frame]), wire, "{frame}");
        }
    }

    #[test]
    fn later_messages_settle_what_the_first_leave_open() {
        let kline = r#"{"stream":"a@kline_1m","data":{"e":"kline","E":1,"s":"A","k":{}}}"#;
        let depth = r#"{"stream":"a@depth","data":{"e":"depthUpdate","T":1,"U":1,"u":2,"pu":0}}"#;
        assert_eq!(of(&[r#"{"result":null,"id":1}"#, kline, depth]), Some(Wire::BinanceFutures));
        assert_eq!(of(&[kline, kline]), Some(Wire::Binance));
    }
}
