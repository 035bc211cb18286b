//! Generated captures, read back and checked against the venues' own rules by code that is independent of the
//! generator.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use serde_json::Value;

use super::*;
use crate::capture::{CaptureReader, Compression, Form, RecordKind};
use crate::model::tick::Decimal;

const START: u64 = 1_714_564_800_000_000_000;

fn spec(venue: WireFormat) -> Spec {
    let names: &[&str] = match venue {
        WireFormat::Coinbase => &["BTC-USD", "ETH-USD", "DOGE-USD"],
        WireFormat::Binance | WireFormat::BinanceFutures => &["BTCUSDT", "ETHUSDT", "SHIBUSDT"],
        WireFormat::Kraken => &["XBT/USD", "ETH/USD", "XDG/USD"],
        WireFormat::Native => &["ABC", "test:XYZ"],
    };
    let symbols = names.iter().map(|name| (*name).to_owned()).collect();
    Spec { venue, symbols, seconds: 60, rate: 150, seed: 1, start_ns: START }
}

fn written(spec: &Spec) -> (Vec<u8>, Summary) {
    let mut writer = CaptureWriter::new(Vec::new(), Compression::Plain).expect("started");
    let summary = generate(spec, &mut writer).expect("generated");
    (writer.finish().expect("written"), summary)
}

/// Returns every message with its receive time.
fn messages(spec: &Spec) -> Vec<(u64, Value)> {
    let mut reader = CaptureReader::from_read("generated", Cursor::new(written(spec).0)).expect("a capture");
    assert_eq!((reader.form(), reader.venue()), (Form::Tardis, Some(spec.venue)));
    let mut messages = Vec::new();
    while let Some(item) = reader.next_record() {
        let record = item.expect("a good line");
        let RecordKind::Frame(frame) = record.kind else { panic!("{record:?}") };
        messages.push((record.rx_ns, serde_json::from_slice(frame).expect("JSON")));
    }
    messages
}

fn decimal(value: &Value) -> Decimal {
    Decimal::parse(value.as_str().expect("a string").as_bytes()).expect("a decimal")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Returns one side of a book, best first.
fn best_first(side: &BTreeMap<Decimal, Value>, bids: bool) -> Vec<(Decimal, &Value)> {
    let mut levels: Vec<_> = side.iter().map(|(price, level)| (*price, level)).collect();
    if bids {
        levels.reverse();
    }
    levels
}

#[derive(Default)]
struct Book {
    /// Asks, then bids.
    sides: [BTreeMap<Decimal, Value>; 2],
}

impl Book {
    fn set(&mut self, bids: bool, level: &Value, [price, size]: [usize; 2]) {
        let side = &mut self.sides[usize::from(bids)];
        if decimal(&level[size]).is_zero() {
            side.remove(&decimal(&level[price]));
        } else {
            side.insert(decimal(&level[price]), level.clone());
        }
    }

    fn best(&self, bids: bool, size: usize) -> (Decimal, Decimal) {
        let levels = best_first(&self.sides[usize::from(bids)], bids);
        let (price, level) = levels.first().expect("never empty");
        (*price, decimal(&level[size]))
    }

    fn assert_not_crossed(&self) {
        assert!(self.best(true, 1).0 < self.best(false, 1).0, "crossed");
    }
}

/// Asserts that the numbers of each key are consecutive.
#[derive(Default)]
struct Consecutive(HashMap<String, u64>);

impl Consecutive {
    fn check(&mut self, key: &Value, number: &Value) {
        let number = number.as_u64().expect("a number");
        if let Some(before) = self.0.insert(key.to_string(), number) {
            assert_eq!(number, before + 1, "{key}");
        }
    }
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    for venue in WireFormat::ALL {
        let one = spec(venue);
        let other = Spec { seed: 2, ..one.clone() };
        let (bytes, summary) = written(&one);
        assert_eq!(written(&one), (bytes.clone(), summary.clone()));
        assert_ne!(written(&other).0, bytes);
        let wanted = u64::from(one.seconds * one.rate);
        assert!(summary.messages.abs_diff(wanted) < 50, "{venue}: {summary:?}");
        assert_eq!(summary.messages, summary.kinds.values().sum::<u64>());
    }
}

#[test]
fn receive_times_rise_and_stay_in_the_time_asked_for() {
    for venue in WireFormat::ALL {
        let times: Vec<_> = messages(&spec(venue)).into_iter().map(|(rx_ns, _)| rx_ns).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{venue}");
        let lasts = times.last().expect("some") - START;
        assert!(times[0] > START && (59 * SECOND_NS..61 * SECOND_NS).contains(&lasts), "{venue}: {lasts}");
    }
}

#[test]
fn coinbase_books_trades_and_tickers_agree() {
    let mut books: HashMap<String, Book> = HashMap::new();
    let (mut trades, mut sequences) = (Consecutive::default(), HashMap::<String, u64>::new());
    let mut tickers = 0;
    for (_, message) in messages(&spec(WireFormat::Coinbase)) {
        let product = message["product_id"].as_str().unwrap_or_default().to_owned();
        let book = books.entry(product.clone()).or_default();
        if let Some(sequence) = message["sequence"].as_u64() {
            let before = sequences.insert(product, sequence).unwrap_or_default();
            assert!(sequence >= before);
        }
        match message["type"].as_str().expect("a type") {
            "snapshot" => {
                for (name, bids) in [("bids", true), ("asks", false)] {
                    for level in message[name].as_array().expect("levels") {
                        book.set(bids, level, [0, 1]);
                    }
                }
            }
            "l2update" => {
                for change in message["changes"].as_array().expect("changes") {
                    // After the side follow price and size, as in a snapshot.
                    let level = Value::from(change.as_array().expect("a change")[1..].to_vec());
                    book.set(change[0] == "buy", &level, [0, 1]);
                }
                book.assert_not_crossed();
            }
            kind @ ("match" | "last_match") => {
                trades.check(&message["product_id"], &message["trade_id"]);
                if kind == "match" {
                    // The side is the maker's: its order is in the book until the update.
                    let bids = message["side"] == "buy";
                    let level = book.sides[usize::from(bids)].get(&decimal(&message["price"]));
                    assert!(decimal(&message["size"]) <= decimal(&level.expect("a maker")[1]), "{message}");
                }
            }
            "ticker" => {
                tickers += 1;
                assert_eq!(trades.0[&message["product_id"].to_string()], message["trade_id"]);
                let best = |p: &str, s: &str| (decimal(&message[p]), decimal(&message[s]));
                assert_eq!(best("best_bid", "best_bid_size"), book.best(true, 1));
                assert_eq!(best("best_ask", "best_ask_size"), book.best(false, 1));
            }
            "heartbeat" => {
                assert_eq!(trades.0[&message["product_id"].to_string()], message["last_trade_id"]);
            }
            "subscriptions" => assert_eq!(message["channels"][0]["product_ids"][0], "BTC-USD"),
            other => panic!("{other}"),
        }
    }
    assert!(tickers > 100, "{tickers}");
}

fn binance_agrees(venue: WireFormat) {
    let futures = venue == WireFormat::BinanceFutures;
    let (mut trades, mut chain) = (Consecutive::default(), HashMap::<String, u64>::new());
    let mut books: HashMap<String, Book> = HashMap::new();
    let mut quotes: HashMap<String, Value> = HashMap::new();
    for (_, message) in messages(&spec(venue)) {
        let data = &message["data"];
        let symbol = text(&data["s"]);
        let stream = message["stream"].as_str().expect("a stream");
        assert!(stream.starts_with(&symbol.to_lowercase()));
        match stream.split('@').nth(1).expect("a kind") {
            "trade" => trades.check(&data["s"], &data["t"]),
            "bookTicker" => {
                assert!(decimal(&data["b"]) < decimal(&data["a"]), "crossed");
                quotes.insert(symbol, data.clone());
            }
            "depth" => {
                let (first, last) = (data["U"].as_u64().expect("U"), data["u"].as_u64().expect("u"));
                assert!(first <= last);
                if let Some(before) = chain.insert(symbol.clone(), last) {
                    if futures {
                        assert_eq!(data["pu"], before);
                    } else {
                        assert_eq!(first, before + 1);
                    }
                }
                let book = books.entry(symbol.clone()).or_default();
                for (name, bids) in [("b", true), ("a", false)] {
                    for level in data[name].as_array().expect("levels") {
                        book.set(bids, level, [0, 1]);
                    }
                }
                // Levels known without a snapshot are on the right side of the quote.
                let Some(quote) = quotes.get(&symbol) else { continue };
                assert!(book.sides[1].keys().all(|price| *price <= decimal(&quote["b"])), "{message}");
                assert!(book.sides[0].keys().all(|price| *price >= decimal(&quote["a"])), "{message}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((trades.0.len(), chain.len(), quotes.len()), (3, 3, 3));
}

#[test]
fn binance_chains_are_unbroken() {
    binance_agrees(WireFormat::Binance);
    binance_agrees(WireFormat::BinanceFutures);
}

/// CRC-32 bit by bit, with the reflected polynomial of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

/// Returns the checksum as Kraken documents it, over the received texts.
fn kraken_checksum(book: &Book) -> u32 {
    let mut digits = String::new();
    for (side, bids) in [(&book.sides[0], false), (&book.sides[1], true)] {
        for (_, level) in best_first(side, bids).into_iter().take(10) {
            for number in [&level[0], &level[1]] {
                digits.push_str(text(number).replace('.', "").trim_start_matches('0'));
            }
        }
    }
    crc32(digits.as_bytes())
}

/// Applies a snapshot or one part of a delta as a client of depth 10 does: truncated after each level.
fn kraken_apply(book: &mut Book, part: &Value) {
    for (name, bids) in [("as", false), ("bs", true), ("a", false), ("b", true)] {
        for level in part[name].as_array().into_iter().flatten() {
            book.set(bids, level, [0, 1]);
            let side = &mut book.sides[usize::from(bids)];
            if side.len() > 10 {
                if bids {
                    side.pop_first()
                } else {
                    side.pop_last()
                };
            }
        }
    }
}

#[test]
fn kraken_checksums_are_good() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    let mut books: HashMap<String, Book> = HashMap::new();
    let (mut checked, mut two_part, mut republished, mut removed) = (0, 0, 0, 0);
    for (_, message) in messages(&spec(WireFormat::Kraken)) {
        let Some(items) = message.as_array() else { continue };
        let [_, parts @ .., channel, pair] = &items[..] else { panic!("{message}") };
        let book = books.entry(text(pair)).or_default();
        match channel.as_str().expect("a channel") {
            "book-10" => {
                parts.iter().for_each(|part| kraken_apply(book, part));
                book.assert_not_crossed();
                assert_eq!(book.sides.each_ref().map(BTreeMap::len), [10, 10], "{message}");
                let line = message.to_string();
                two_part += u32::from(parts.len() == 2);
                republished += u32::from(line.contains("\"r\"]"));
                removed += u32::from(line.contains("\"0.00000000\""));
                if let Some(sum) = parts.last().and_then(|part| part["c"].as_str()) {
                    assert_eq!(sum, kraken_checksum(book).to_string(), "{message}");
                    checked += 1;
                }
            }
            "spread" => {
                assert_eq!((decimal(&parts[0][0]), decimal(&parts[0][3])), book.best(true, 1));
                assert_eq!((decimal(&parts[0][1]), decimal(&parts[0][4])), book.best(false, 1));
            }
            "ticker" => assert_eq!(decimal(&parts[0]["b"][0]), book.best(true, 1).0),
            "trade" => assert!(!parts[0].as_array().expect("trades").is_empty()),
            other => panic!("{other}"),
        }
    }
    assert!(checked > 3000 && two_part > 100 && republished > 50 && removed > 200);
}

#[test]
fn native_messages_are_whole() {
    let mut trades = 0;
    for (_, message) in messages(&spec(WireFormat::Native)) {
        assert!(["demo:ABC", "test:XYZ"].contains(&message["symbol"].as_str().expect("a symbol")));
        assert!(message["ts"].as_u64().is_some_and(|ts| ts >= START / 1000));
        if message["type"] == "quote" {
            assert!(decimal(&message["bid"]) < decimal(&message["ask"]), "crossed");
        } else {
            trades += u32::from(!decimal(&message["size"]).is_zero());
        }
    }
    assert!(trades > 100);
}

#[test]
fn a_spec_without_sense_is_refused() {
    let good = spec(WireFormat::Coinbase);
    let refused = |spec: Spec| {
        let mut writer = CaptureWriter::new(Vec::new(), Compression::Plain).expect("started");
        let error = generate(&spec, &mut writer).expect_err("refused").to_string();
        assert!(writer.finish().expect("nothing").is_empty(), "nothing is written");
        error
    };
    let with =
        |symbols: &[&str]| Spec { symbols: symbols.iter().map(|s| (*s).into()).collect(), ..good.clone() };
    assert!(refused(Spec { rate: 0, ..good.clone() }).contains("rate"));
    assert!(refused(Spec { seconds: 0, ..good.clone() }).contains("at least 1 second"));
    for start_ns in [0, 946_684_799_999_999_999, 7_258_118_400_000_000_000, u64::MAX] {
        assert!(refused(Spec { start_ns, ..good.clone() }).contains("2000 to 2199"), "{start_ns}");
    }
    assert!(refused(with(&[])).contains("at least 1 symbol"));
    assert!(refused(with(&["A B"])).contains("\"A B\""));
    assert!(refused(with(&["A", "coinbase:A"])).contains("twice"));
    let many = Spec { symbols: (0..1001).map(|n| format!("S{n}")).collect(), ..good.clone() };
    assert!(refused(many).contains("1001 symbols are too many"));
    let most = Spec { symbols: (0..1000).map(|n| format!("S{n}-USD")).collect(), seconds: 1, ..good };
    assert!(written(&most).1.messages > 3000);
}

/// Long runs at extreme prices: nothing overflows, no book runs empty.
#[test]
fn a_market_goes_on_for_ever() {
    for name in ["SHIB-USD", "BTC-USD", "X"] {
        let mut rng = Rng::new(3);
        let mut market = Market::new(name.into(), WireFormat::Coinbase, SECOND_NS, &mut rng);
        for _ in 0..200_000 {
            market.turn(&mut rng);
            let (bid, ask) = market.touch();
            assert!(bid.price > 0 && bid.price < ask.price && bid.size > 0 && ask.size > 0, "{name}");
        }
        assert!(market.size(market.day().volume * 28).mantissa() > 0);
    }
}
