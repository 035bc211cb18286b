//! Detects the venue of recorded messages from some of them.

use serde_json::{Map, Value};

use super::WireFormat;
use crate::model::instrument::Symbol;

/// A record of a capture, as input of the detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence<'a> {
    /// The URL that the recorder connected to.
    Connected(&'a str),
    /// The venue noted by the recorder, if any.
    Noted(Option<WireFormat>),
    /// A message of the venue.
    Message(&'a [u8]),
    /// A record without information about the venue.
    Nothing,
}

/// The conclusion from one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// This venue, for certain.
    Is(WireFormat),
    /// Binance, spot or futures: a later message may decide which.
    SomeBinance,
    /// A venue that is not supported, for certain.
    Another,
    /// No conclusion.
    Nothing,
}

/// The detected venue of some records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// This venue.
    Sure(WireFormat),
    /// This venue, unless other captures indicate another.
    Likely(WireFormat),
    /// A venue that is not supported.
    Another,
    /// Not detected.
    Unknown,
}

impl Sniffed {
    /// Returns the venue, if one was detected.
    pub fn wire(self) -> Option<WireFormat> {
        match self {
            Self::Sure(wire) | Self::Likely(wire) => Some(wire),
            Self::Another | Self::Unknown => None,
        }
    }
}

/// Detects the venue of these records. The recorder's note decides, or the host of the connection, wherever
/// the record stands: if the host is another venue's, messages are not considered, since those of many venues
/// look alike. Without either, the first message that only one venue sends decides. Messages common to both
/// Binance formats mean spot if nothing else follows.
pub fn sniff<'a>(records: impl Iterator<Item = Evidence<'a>>) -> Sniffed {
    let (mut by_messages, mut fallback) = (None, None);
    for record in records {
        let noted = match record {
            Evidence::Connected(url) => by_host(&host(url)),
            // The recorder knew the venue.
            Evidence::Noted(venue) => venue.map_or(Hint::Nothing, Hint::Is),
            Evidence::Message(frame) if by_messages.is_none() => {
                match by_message(frame) {
                    Hint::Is(wire) => by_messages = Some(wire),
                    Hint::SomeBinance => fallback = Some(WireFormat::Binance),
                    Hint::Another | Hint::Nothing => {}
                }
                Hint::Nothing
            }
            _ => Hint::Nothing,
        };
        match noted {
            Hint::Is(wire) => return Sniffed::Sure(wire),
            Hint::Another => return Sniffed::Another,
            Hint::SomeBinance | Hint::Nothing => {}
        }
    }
    let by_messages = by_messages.map(Sniffed::Sure);
    by_messages.or(fallback.map(Sniffed::Likely)).unwrap_or(Sniffed::Unknown)
}

/// Returns the host of a URL in lower case, without the port.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let end = host.rfind(']').map_or(0, |at| at + 1);
    let end = host[end..].find(':').map_or(host.len(), |at| end + at);
    host[..end].trim_end_matches('.').to_ascii_lowercase()
}

fn by_host(host: &str) -> Hint {
    let (name, domain) = host.split_once('.').unwrap_or((host, ""));
    let under =
        |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|d| d.ends_with('.'));
    let is = |wire: WireFormat, yes: bool| if yes { Hint::Is(wire) } else { Hint::Another };
    if under("coinbase.com") || under("gdax.com") {
        // Other interfaces of Coinbase send other messages.
        is(WireFormat::Coinbase, name.starts_with("ws-feed") || name.starts_with("ws-direct"))
    } else if under("kraken.com") {
        is(WireFormat::Kraken, name == "ws" || name.starts_with("ws-") || name.starts_with("beta-ws"))
    } else if under("binancefuture.com")
        || (under("binance.com") && (name.starts_with("fstream") || name.starts_with("dstream")))
    {
        Hint::Is(WireFormat::BinanceFutures)
    } else if under("binance.com") || under("binance.us") || under("binance.vision") {
        match name {
            // Options.
            "nbstream" => Hint::Another,
            _ if name.contains("stream") => Hint::Is(WireFormat::Binance),
            _ => Hint::Nothing,
        }
    } else if is_private(host) {
        Hint::Nothing
    } else {
        Hint::Another
    }
}

/// Returns true if a host is on the recorder's own machine or network, such as a relay, whose name says
/// nothing about the venue.
fn is_private(host: &str) -> bool {
    // Domains reserved for private use and for examples.
    const DOMAINS: [&str; 11] = [
        "localhost",
        "local",
        "localdomain",
        "internal",
        "lan",
        "home.arpa",
        "test",
        "example",
        "example.com",
        "example.net",
        "example.org",
    ];
    let is_under =
        |domain: &&str| host.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let is_address = host.starts_with('[') || host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_address || !host.contains('.') || DOMAINS.iter().any(is_under)
}

fn by_message(frame: &[u8]) -> Hint {
    match serde_json::from_slice(frame) {
        Ok(Value::Object(message)) => by_object(&message),
        Ok(Value::Array(items)) => by_array(&items),
        _ => Hint::Nothing,
    }
}

/// Detects a list: Kraken v1 sends its data as `[channel id, data…, "channel", "pair"]`; Binance sends lists
/// of its messages on some streams.
fn by_array(items: &[Value]) -> Hint {
    match items {
        [Value::Number(_), _, .., Value::String(channel), Value::String(pair)] => {
            let name = channel.split_once('-').map_or(channel.as_str(), |(name, _)| name);
            let known = matches!(name, "trade" | "ticker" | "spread" | "book" | "ohlc");
            if known && pair.contains('/') { Hint::Is(WireFormat::Kraken) } else { Hint::Nothing }
        }
        [Value::Object(first), ..] => binance(first),
        _ => Hint::Nothing,
    }
}

fn by_object(message: &Map<String, Value>) -> Hint {
    if is_native(message) {
        Hint::Is(WireFormat::Native)
    } else if is_coinbase(message) {
        Hint::Is(WireFormat::Coinbase)
    } else if is_kraken_v1(message) || is_kraken_v2(message) {
        Hint::Is(WireFormat::Kraken)
    } else {
        match (word(message, "stream"), message.get("data")) {
            ("", _) => binance(message),
            // `btcusdt@trade`, `!ticker@arr`. Other venues use the same envelope with other stream names.
            (stream, _) if !stream.contains('@') && !stream.starts_with('!') => Hint::Nothing,
            (_, Some(Value::Object(data))) => binance(data),
            (_, Some(Value::Array(items))) => by_array(items),
            _ => Hint::Nothing,
        }
    }
}

/// Returns the text of a field; empty if it is missing or of another type.
fn word<'a>(message: &'a Map<String, Value>, key: &str) -> &'a str {
    message.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn has(message: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().all(|key| message.contains_key(*key))
}

fn is_native(message: &Map<String, Value>) -> bool {
    let whole = match word(message, "type") {
        "trade" => has(message, &["price", "size"]),
        "quote" => has(message, &["bid"]) || has(message, &["ask"]),
        _ => false,
    };
    whole && Symbol::parse(word(message, "symbol")).is_ok()
}

/// Detects Coinbase's Exchange feed. Other Coinbase interfaces send a `channel` in each message; other venues
/// spell products differently, or send none in the reply to a subscription.
fn is_coinbase(message: &Map<String, Value>) -> bool {
    let products = |channel: &Value| channel.get("product_ids").is_some_and(Value::is_array);
    let is_data = match word(message, "type") {
        "subscriptions" => {
            let channels = message.get("channels").and_then(Value::as_array);
            return channels.is_some_and(|list| !list.is_empty() && list.iter().all(products));
        }
        "snapshot" => has(message, &["bids", "asks"]),
        "l2update" => has(message, &["changes"]),
        "match" | "last_match" | "ticker" | "heartbeat" | "received" | "open" | "done" | "change"
        | "activate" => true,
        _ => false,
    };
    is_data && word(message, "product_id").contains('-') && !has(message, &["channel"])
}

fn is_kraken_v1(message: &Map<String, Value>) -> bool {
    match word(message, "event") {
        "systemStatus" => has(message, &["connectionID"]),
        "subscriptionStatus" => has(message, &["status"]),
        "heartbeat" => message.len() == 1,
        _ => false,
    }
}

/// Detects Kraken v2: each data message has a `type` and rows, and its pairs are spelled with a slash.
fn is_kraken_v2(message: &Map<String, Value>) -> bool {
    let row = message.get("data").and_then(|data| data.get(0));
    let has_row = |key: &str| row.and_then(|row| row.get(key)).and_then(Value::as_str);
    let is_data = matches!(word(message, "type"), "snapshot" | "update");
    match word(message, "channel") {
        "heartbeat" => message.len() == 1,
        "status" => is_data && has_row("api_version").is_some(),
        "instrument" => is_data && message.get("data").is_some_and(|data| data.get("pairs").is_some()),
        "book" | "trade" | "ticker" | "ohlc" => {
            is_data && has_row("symbol").is_some_and(|symbol| symbol.contains('/'))
        }
        // A reply.
        "" => {
            matches!(word(message, "method"), "subscribe" | "unsubscribe" | "pong")
                && has(message, &["time_in"])
        }
        _ => false,
    }
}

/// Distinguishes Binance's spot and futures streams by fields that only one of them has.
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
    let has = |keys: &[&str]| has(message, keys);
    let texts = |keys: &[&str]| keys.iter().all(|key| message.get(*key).is_some_and(Value::is_string));
    let futures = |yes: bool| Hint::Is(if yes { WireFormat::BinanceFutures } else { WireFormat::Binance });
    match message.get("e").and_then(Value::as_str) {
        Some(_) if has(&["ps", "E"]) => futures(true),
        Some("trade") if has(&["t", "p", "q"]) && (has(&["X"]) || has(&["M"])) => futures(has(&["X"])),
        Some("aggTrade") if has(&["a", "p", "q"]) => futures(!has(&["M"])),
        Some("depthUpdate") if has(&["U", "u"]) => futures(has(&["pu"])),
        Some("bookTicker") if texts(&["b", "B", "a", "A"]) => futures(true),
        Some("markPriceUpdate" | "forceOrder" | "contractInfo" | "continuous_kline") => futures(true),
        Some(_) if message.get("E").is_some_and(Value::is_u64) => Hint::SomeBinance,
        Some(_) => Hint::Nothing,
        None if has(&["u"]) && texts(&["s", "b", "B", "a", "A"]) => futures(has(&["T"])),
        None if has(&["lastUpdateId", "bids", "asks"]) => futures(has(&["T"])),
        None => Hint::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frames: &[&str]) -> Option<WireFormat> {
        sniff(frames.iter().map(|text| {
            if text.starts_with("wss:") {
                Evidence::Connected(text)
            } else {
                Evidence::Message(text.as_bytes())
            }
        }))
        .wire()
    }

    #[test]
    fn hosts_decide() {
        for (url, wire) in [
            ("wss://ws-feed.pro.coinbase.com", Some(WireFormat::Coinbase)),
            ("wss://ws-feed.exchange.coinbase.com", Some(WireFormat::Coinbase)),
            ("wss://ws-direct.exchange.coinbase.com/", Some(WireFormat::Coinbase)),
            ("wss://ws-feed-public.sandbox.exchange.coinbase.com", Some(WireFormat::Coinbase)),
            ("wss://advanced-trade-ws.coinbase.com", None),
            ("wss://stream.binance.com:9443/stream?streams=a@trade", Some(WireFormat::Binance)),
            ("wss://data-stream.binance.vision/ws", Some(WireFormat::Binance)),
            ("wss://fstream.binance.com/stream?streams=a@trade", Some(WireFormat::BinanceFutures)),
            ("wss://dstream.binance.com", Some(WireFormat::BinanceFutures)),
            ("wss://testnet.binance.vision/ws", None),
            ("wss://fstream.binance.com.evil.example", None),
            ("wss://notbinance.com", None),
            ("wss://ws.kraken.com/v2", Some(WireFormat::Kraken)),
            ("wss://WS.Kraken.com.:443/v2", Some(WireFormat::Kraken)),
            ("wss://me:secret@ws.kraken.com/v2", Some(WireFormat::Kraken)),
            ("wss://api.bitfinex.com/?to=ws.kraken.com", None),
            ("wss://ws-auth.kraken.com", Some(WireFormat::Kraken)),
            ("wss://futures.kraken.com/ws/v1", None),
            ("", None),
        ] {
            assert_eq!(of(&[&format!("wss:{}", url.trim_start_matches("wss:"))]), wire, "{url}");
        }
    }

    /// F09: messages that only one venue sends decide nothing if the connection was to another venue.
    #[test]
    fn the_host_of_another_venue_leaves_nothing_to_the_messages() {
        let trade = r#"[123,[["1","2","3","b","l",""]],"trade","XBT/USD"]"#;
        for another in [
            "wss://api.bitfinex.com/ws/2",
            "wss://futures.kraken.com/ws/v1",
            "wss://advanced-trade-ws.coinbase.com",
            "wss://nbstream.binance.com/eoptions/ws",
            "wss://fstream.asterdex.com/stream",
            "wss://ws.some-venue.io",
            "wss://ws.myexample.com",
        ] {
            assert_eq!(of(&[another, trade]), None, "{another}");
            assert_eq!(of(&[trade, trade, another]), None, "{another}, later on");
        }
        for relay in [
            "wss://localhost:8080/kraken",
            "wss://relay/x",
            "wss://10.0.0.7:9443",
            "wss://[2001:db8::1]:9443/x",
            "wss://feeds.internal",
            "wss://example.com/ws",
            "wss://relay.example.org/ws",
            "wss://testnet.binance.vision/ws",
        ] {
            assert_eq!(of(&[relay, trade]), Some(WireFormat::Kraken), "{relay}");
        }
        let own = "wss://ws-feed.exchange.coinbase.com";
        assert_eq!(of(&[trade, own]), Some(WireFormat::Coinbase), "the host decides wherever it stands");
    }

    /// F09: messages of other venues that resemble those of supported ones.
    #[test]
    fn messages_of_other_venues_tell_nothing() {
        for (venue, frames) in OTHERS {
            assert_eq!(of(frames), None, "{venue}");
            for frame in *frames {
                assert!(serde_json::from_str::<Value>(frame).is_ok(), "{venue}: {frame}");
                assert_eq!(of(&[frame]), None, "{venue}: {frame}");
            }
        }
    }

    /// Messages from the public documentation of these venues, shortened.
    const OTHERS: &[(&str, &[&str])] = &[
        (
            "bitfinex",
            &[
                r#"{"event":"info","version":2,"serverId":"0","platform":{"status":1}}"#,
                r#"{"event":"subscribed","channel":"ticker","chanId":232949,"symbol":"tBFTUSD","pair":"BFTUSD"}"#,
                r#"{"event":"subscribed","channel":"trades","chanId":17470,"symbol":"tBTCUSD","pair":"BTCUSD"}"#,
                r#"{"event":"subscribed","channel":"book","chanId":10092,"symbol":"tETHUSD","prec":"P0","len":"25"}"#,
                r#"{"event":"pong","ts":1511545528111,"cid":1234}"#,
                r#"[232949,"hb"]"#,
                r#"[17470,"te",[401597395,1574694478808,0.005,7245.3]]"#,
                r#"[5,"tu","1234-BTCUSD",15254529,1443659698,236.42,0.49064538]"#,
                r#"[10092,[[7254.7,3,3.3],[7254.5,1,0.5]]]"#,
            ],
        ),
        (
            "bitstamp",
            &[
                r#"{"event":"bts:subscription_succeeded","channel":"live_trades_btcusd","data":{}}"#,
                r#"{"event":"trade","channel":"live_trades_btcusd","data":{"id":1,"price":1.5,"amount":2,"type":0}}"#,
                r#"{"event":"data","channel":"order_book_btcusd","data":{"timestamp":"1","bids":[["1","2"]],"asks":[]}}"#,
            ],
        ),
        (
            "huobi",
            &[
                r#"{"id":"id1","status":"ok","subbed":"market.btcusdt.trade.detail","ts":1489474081631}"#,
                r#"{"ch":"market.btcusdt.bbo","ts":1489474082831,"tick":{"symbol":"btcusdt","bid":"1","ask":"2"}}"#,
                r#"{"ping":1492420473027}"#,
            ],
        ),
        (
            "okx",
            &[
                r#"{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}"#,
                r#"{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","px":"1","sz":"2"}]}"#,
                r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[],"bids":[],"checksum":-1}]}"#,
                r#"{"event":"error","code":"60012","msg":"Invalid request"}"#,
            ],
        ),
        (
            "bitget",
            &[
                r#"{"event":"subscribe","arg":{"instType":"SPOT","channel":"ticker","instId":"BTCUSDT"}}"#,
                r#"{"action":"update","arg":{"instType":"SPOT","channel":"trade","instId":"BTCUSDT"},"data":[{"price":"1"}]}"#,
            ],
        ),
        (
            "bybit",
            &[
                r#"{"success":true,"ret_msg":"subscribe","conn_id":"2324d924","op":"subscribe"}"#,
                r#"{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":1,"data":{"s":"BTCUSDT","b":[["1","2"]],"a":[],"u":1,"seq":7}}"#,
                r#"{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[{"T":1,"s":"BTCUSDT","S":"Buy","v":"1","p":"2"}]}"#,
            ],
        ),
        (
            "gemini",
            &[
                r#"{"type":"l2_updates","symbol":"BTCUSD","changes":[["buy","9122.04","0.00121425"]],"trades":[]}"#,
                r#"{"type":"trade","symbol":"BTCUSD","event_id":169841458,"timestamp":1560976400428,"price":"9122.04","quantity":"0.0073173","side":"sell"}"#,
                r#"{"type":"heartbeat","timestamp":1547742998508,"sequence":31,"trace_id":"b8biknoqppr32kc7gfgg"}"#,
                r#"{"type":"update","eventId":1,"events":[{"type":"change","side":"bid","price":"1","remaining":"2"}]}"#,
            ],
        ),
        (
            "poloniex",
            &[
                r#"{"event":"subscribe","channel":"ticker","symbols":["BTC_USDT"]}"#,
                r#"{"channel":"ticker","data":[{"symbol":"BTC_USDT","open":"1","close":"2","ts":1648052239156}]}"#,
                r#"{"channel":"trades","data":[{"symbol":"BTC_USDT","amount":"1","takerSide":"buy","price":"2"}]}"#,
                r#"{"channel":"book","data":[{"symbol":"BTC_USDT","asks":[["1","2"]],"bids":[],"id":1}]}"#,
                r#"{"event":"pong"}"#,
                r#"[1002,null,[149,"382.98901522","381.99755898","379.41296309"]]"#,
                r#"[121,8768,[["o",1,"0.00001823","5534.6474"]]]"#,
            ],
        ),
        (
            "deribit",
            &[
                r#"{"jsonrpc":"2.0","id":0,"result":["trades.BTC-PERPETUAL.raw"]}"#,
                r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.raw","data":{"type":"snapshot","bids":[]}}}"#,
                r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#,
            ],
        ),
        (
            "bitmex",
            &[
                r#"{"info":"Welcome to the BitMEX Realtime API.","version":"2021-07-14","limit":{"remaining":39}}"#,
                r#"{"success":true,"subscribe":"trade:XBTUSD","request":{"op":"subscribe","args":["trade:XBTUSD"]}}"#,
                r#"{"table":"trade","action":"insert","data":[{"symbol":"XBTUSD","side":"Buy","size":1,"price":2}]}"#,
                r#"{"table":"orderBookL2","action":"partial","keys":["symbol"],"data":[{"symbol":"XBTUSD","id":1}]}"#,
            ],
        ),
        (
            "kraken futures",
            &[
                r#"{"event":"info","version":1}"#,
                r#"{"event":"subscribed","feed":"ticker","product_ids":["PI_XBTUSD"]}"#,
                r#"{"feed":"heartbeat","time":1534262350627}"#,
                r#"{"feed":"ticker","product_id":"PI_XBTUSD","bid":1,"ask":2,"time":1}"#,
                r#"{"feed":"book_snapshot","product_id":"PI_XBTUSD","timestamp":1,"seq":1,"bids":[],"asks":[]}"#,
                r#"{"feed":"trade","product_id":"PI_XBTUSD","side":"sell","type":"fill","seq":1,"qty":1,"price":2}"#,
            ],
        ),
        (
            "coinbase advanced trade",
            &[
                r#"{"channel":"subscriptions","timestamp":"t","sequence_num":1,"events":[{"subscriptions":{"ticker":["BTC-USD"]}}]}"#,
                r#"{"channel":"ticker","timestamp":"t","sequence_num":0,"events":[{"type":"snapshot","tickers":[{"product_id":"BTC-USD"}]}]}"#,
                r#"{"channel":"status","timestamp":"t","sequence_num":0,"events":[{"type":"snapshot","products":[]}]}"#,
                r#"{"channel":"heartbeats","timestamp":"t","sequence_num":0,"events":[{"current_time":"t","heartbeat_counter":1}]}"#,
            ],
        ),
        (
            "coinbase international",
            &[
                r#"{"channels":[{"name":"LEVEL1","product_ids":["BTC-PERP"]}],"channel":"SUBSCRIPTIONS","type":"SNAPSHOT"}"#,
                r#"{"sequence":1,"product_id":"BTC-PERP","channel":"MATCH","type":"UPDATE","match_id":"1"}"#,
                r#"{"type":"ticker","product_id":"BTC-PERP","channel":"LEVEL1"}"#,
            ],
        ),
        (
            "delta",
            &[
                r#"{"type":"subscriptions","channels":[{"name":"v2/ticker","symbols":["BTCUSD"]}]}"#,
                r#"{"type":"v2/ticker","symbol":"BTCUSD","quotes":{"best_ask":"1"}}"#,
            ],
        ),
        (
            "gate.io",
            &[
                r#"{"time":1606292218,"channel":"spot.trades","event":"subscribe","result":{"status":"success"}}"#,
                r#"{"time":1606292218,"channel":"spot.order_book","event":"update","result":{"lastUpdateId":1,"s":"BTC_USDT","bids":[],"asks":[]}}"#,
                r#"{"time":1,"channel":"spot.book_ticker","event":"update","result":{"t":1,"u":2,"s":"BTC_USDT","b":"1","B":"1","a":"1","A":"1"}}"#,
            ],
        ),
        (
            "ftx",
            &[
                r#"{"type":"subscribed","channel":"ticker","market":"BTC-PERP"}"#,
                r#"{"channel":"ticker","market":"BTC/USD","type":"update","data":{"bid":1,"ask":2,"time":3}}"#,
                r#"{"channel":"orderbook","market":"BTC/USD","type":"partial","data":{"checksum":1,"bids":[],"asks":[]}}"#,
                r#"{"channel":"trades","market":"BTC/USD","type":"update","data":[{"id":1,"price":2,"size":3,"side":"buy"}]}"#,
            ],
        ),
        (
            "bithumb",
            &[
                r#"{"status":"0000","resmsg":"Connected Successfully"}"#,
                r#"{"type":"ticker","content":{"symbol":"BTC_KRW","openPrice":"1","closePrice":"2"}}"#,
                r#"{"type":"transaction","content":{"list":[{"symbol":"BTC_KRW","contPrice":"1","contQty":"2"}]}}"#,
            ],
        ),
        (
            "upbit",
            &[
                r#"{"type":"ticker","code":"KRW-BTC","opening_price":1,"trade_price":2,"stream_type":"SNAPSHOT"}"#,
                r#"{"type":"trade","code":"KRW-BTC","trade_price":1,"trade_volume":2,"ask_bid":"BID"}"#,
            ],
        ),
        (
            "crypto.com",
            &[
                r#"{"id":-1,"method":"subscribe","code":0,"result":{"channel":"trade","instrument_name":"BTC_USDT","data":[]}}"#,
                r#"{"id":1,"method":"public/heartbeat","code":0}"#,
            ],
        ),
        (
            "backpack",
            &[
                r#"{"stream":"bookTicker.SOL_USDC","data":{"e":"bookTicker","E":1,"s":"SOL_USDC","a":"1","A":"2","b":"3","B":"4","u":"5","T":6}}"#,
                r#"{"stream":"trade.SOL_USDC","data":{"e":"trade","E":1,"s":"SOL_USDC","p":"1","q":"2","t":3,"T":4,"m":true}}"#,
            ],
        ),
        (
            "wazirx",
            &[
                r#"{"data":{"trades":[{"E":1631681323000,"S":"buy","p":"7001.0","q":"1","s":"btcinr","t":17376030}]},"stream":"btcinr@trades"}"#,
            ],
        ),
        (
            "hyperliquid",
            &[
                r#"{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"trades","coin":"SOL"}}}"#,
                r#"{"channel":"trades","data":[{"coin":"SOL","side":"B","px":"1","sz":"2"}]}"#,
                r#"{"channel":"pong"}"#,
            ],
        ),
        (
            "blockchain.com",
            &[
                r#"{"seqnum":0,"event":"subscribed","channel":"heartbeat"}"#,
                r#"{"seqnum":1,"event":"updated","channel":"heartbeat","timestamp":"t"}"#,
                r#"{"seqnum":8,"event":"updated","channel":"ticker","symbol":"BTC-USD","last_trade_price":1}"#,
            ],
        ),
        (
            "kucoin",
            &[
                r#"{"id":"hQvf8jkno","type":"welcome"}"#,
                r#"{"type":"message","topic":"/market/ticker:BTC-USDT","subject":"trade.ticker","data":{"price":"1"}}"#,
            ],
        ),
        (
            "dydx",
            &[
                r#"{"type":"subscribed","connection_id":"1","message_id":1,"channel":"v4_trades","id":"BTC-USD","contents":{"trades":[]}}"#,
                r#"{"type":"channel_data","channel":"v4_orderbook","id":"BTC-USD","contents":{"bids":[["1","2"]]}}"#,
            ],
        ),
    ];

    #[test]
    fn messages_decide_where_no_host_does() {
        for (frame, wire) in [
            (r#"{"type":"match","product_id":"A-B"}"#, Some(WireFormat::Coinbase)),
            (r#"{"type":"subscriptions","channels":[]}"#, None),
            (
                r#"{"type":"subscriptions","channels":[{"name":"level2","product_ids":["A-B"]}]}"#,
                Some(WireFormat::Coinbase),
            ),
            (r#"{"type":"match","product_id":"PI_XBTUSD"}"#, None),
            (r#"{"channel":"ticker","events":[]}"#, None),
            (
                r#"{"type":"snapshot","channel":"book","data":[{"symbol":"BTC/USD"}]}"#,
                Some(WireFormat::Kraken),
            ),
            (r#"{"type":"snapshot","channel":"book","data":[]}"#, None),
            (r#"{"channel":"heartbeat"}"#, Some(WireFormat::Kraken)),
            (r#"{"method":"subscribe","result":{},"success":true,"time_in":"t"}"#, Some(WireFormat::Kraken)),
            (r#"{"event":"heartbeat"}"#, Some(WireFormat::Kraken)),
            (r#"[123,[["1","2","3","b","l",""]],"trade","XBT/USD"]"#, Some(WireFormat::Kraken)),
            (r#"{"type":"trade","symbol":"demo:ABC","price":"1","size":"1"}"#, Some(WireFormat::Native)),
            (r#"{"type":"quote","symbol":"demo:ABC","ask":"1"}"#, Some(WireFormat::Native)),
            (r#"{"type":"trade","symbol":"ABC","price":"1","size":"1"}"#, None),
            (
                r#"{"e":"trade","E":1,"s":"A","t":1,"p":"1","q":"1","T":1,"m":true,"M":true}"#,
                Some(WireFormat::Binance),
            ),
            (
                r#"{"e":"trade","E":1,"s":"A","t":1,"p":"1","q":"1","X":"MARKET","m":true}"#,
                Some(WireFormat::BinanceFutures),
            ),
            (r#"{"u":1,"s":"A","b":"1","B":"1","a":"1","A":"1"}"#, Some(WireFormat::Binance)),
            (
                r#"{"stream":"a@bookTicker","data":{"u":1,"s":"A","b":"1","B":"1","a":"1","A":"1"}}"#,
                Some(WireFormat::Binance),
            ),
            (
                r#"{"stream":"a@aggTrade","data":{"e":"aggTrade","a":1,"p":"1","q":"1"}}"#,
                Some(WireFormat::BinanceFutures),
            ),
            (r#"{"e":"depthUpdate","U":1,"u":2,"pu":0}"#, Some(WireFormat::BinanceFutures)),
            (r#"{"e":"depthUpdate","U":1,"u":2}"#, Some(WireFormat::Binance)),
            (r#"{"lastUpdateId":1,"E":1,"T":1,"bids":[],"asks":[]}"#, Some(WireFormat::BinanceFutures)),
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
        assert_eq!(of(&[r#"{"result":null,"id":1}"#, kline, depth]), Some(WireFormat::BinanceFutures));
        assert_eq!(of(&[kline, kline]), Some(WireFormat::Binance));
    }
}
