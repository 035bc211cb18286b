//! Every message of every venue, as the feed line turns it into ticks, and what it does when a venue's own
//! numbers or checksums do not add up. The frames lie in `tests/venues/<venue>/`, named for the message, in
//! the form that the venue documents.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use tickfan::feed::{Line, LineId, LineLimits, LineStats, Origin, Sequencer};
use tickfan::model::instrument::{InstrumentId, InstrumentTable};
use tickfan::model::tick::{Body, Decimal, DecimalError, Side, Stream, Tick};
use tickfan::venue::{DecodeError, Wire};

fn folder(wire: Wire) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/venues").join(wire.name())
}

/// The frame in `tests/venues/<venue>/<name>.json`.
fn frame(wire: Wire, name: &str) -> String {
    let path = folder(wire).join(format!("{name}.json"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All frames of a venue.
pub(crate) fn frames(wire: Wire) -> Vec<String> {
    // Spot and futures share a decoder, and each must stand the other's messages.
    let wires = match wire {
        Wire::Binance | Wire::BinanceFutures => vec![Wire::Binance, Wire::BinanceFutures],
        other => vec![other],
    };
    let mut paths: Vec<_> = wires
        .into_iter()
        .flat_map(|wire| fs::read_dir(folder(wire)).expect("a folder of frames"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("a frame")).collect()
}

/// The frames of all cases that were told wrongly once.
pub(crate) fn cases() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files = fs::read_dir(folder).expect("a folder of cases").map(|entry| entry.expect("an entry").path());
    let text = files.map(|file| fs::read_to_string(file).expect("a case")).collect::<String>();
    text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
}

/// Binance's combined form of a raw message.
fn combined(stream: &str, raw: &str) -> String {
    format!(r#"{{"stream":"{stream}","data":{}}}"#, raw.trim())
}

fn limits() -> LineLimits {
    LineLimits { book_levels_max: 1_000, ..LineLimits::default() }
}

/// A market with one line or more, that holds what every tick must keep to.
pub(crate) struct Feed {
    lines: Vec<Line>,
    sequencer: Sequencer,
    rx_ns: u64,
    seqs: HashMap<(InstrumentId, Stream), u64>,
}

impl Feed {
    fn new(wire: Wire) -> Self {
        Self::of_lines(&[wire])
    }

    fn of_lines(wires: &[Wire]) -> Self {
        Self::with_room(wires, 64)
    }

    /// One with room for so many instruments.
    pub(crate) fn with_room(wires: &[Wire], instruments: usize) -> Self {
        let lines =
            (0..).zip(wires).map(|(n, wire)| Line::new(LineId(n), Origin::Live, *wire, limits())).collect();
        let sequencer = Sequencer::new(Arc::new(InstrumentTable::new(instruments)));
        Self { lines, sequencer, rx_ns: 1_714_564_800_000_000_000, seqs: HashMap::new() }
    }

    /// Looks for what is to come, as a replay does.
    pub(crate) fn prime(&mut self, frame: &[u8]) {
        self.lines[0].prime(frame, &mut self.sequencer);
    }

    /// What a frame becomes, one text a tick.
    pub(crate) fn try_take(&mut self, line: usize, frame: &[u8]) -> (Vec<String>, Result<(), DecodeError>) {
        self.rx_ns += 1_000_000;
        let mut ticks = Vec::new();
        let result = self.lines[line].frame(self.rx_ns, frame, &mut self.sequencer, |tick| ticks.push(*tick));
        (ticks.iter().map(|tick| self.text(tick)).collect(), result)
    }

    fn take(&mut self, frame: &str) -> Vec<String> {
        self.take_on(0, frame)
    }

    fn take_on(&mut self, line: usize, frame: &str) -> Vec<String> {
        let (ticks, result) = self.try_take(line, frame.as_bytes());
        result.unwrap_or_else(|error| panic!("{error}: {frame}"));
        ticks
    }

    fn fault(&mut self, frame: &str) -> DecodeError {
        let before = self.stats().bad_frames;
        let (_, result) = self.try_take(0, frame.as_bytes());
        assert_eq!(self.stats().bad_frames, before + 1, "a bad frame is counted: {frame}");
        result.expect_err(frame)
    }

    fn stats(&self) -> &LineStats {
        self.lines[0].stats()
    }

    /// `word known frames` for each kind.
    fn kinds(&self) -> Vec<String> {
        self.stats().kinds.iter().map(|k| format!("{} {} {}", k.name, k.known, k.frames)).collect()
    }

    /// The tick as text. Holds that it was stamped with the frame's time and that no number is left out.
    fn text(&mut self, tick: &Tick) -> String {
        assert_eq!(tick.rx_ns, self.rx_ns);
        let seq = self.seqs.entry((tick.instrument, tick.body.stream())).or_default();
        let first = if let Body::Gap { from, .. } = tick.body { from } else { tick.seq };
        assert_eq!(first, *seq + 1, "numbers follow each other: {tick:?}");
        assert!(tick.seq >= first);
        *seq = tick.seq;
        let symbol = self.sequencer.table().get(tick.instrument).expect("listed").as_str();
        let mut text = format!("{symbol} ");
        let digits = |d: Option<Decimal>| d.map_or_else(|| "-".to_owned(), |d| d.to_string());
        match &tick.body {
            Body::Trade(trade) => {
                let side = trade.side.map_or("-", Side::name);
                write!(text, "trade {} {side} {} @ {}", tick.seq, trade.size, trade.price).expect("a string");
                if !trade.id.as_bytes().is_empty() {
                    write!(text, " id {}", String::from_utf8_lossy(trade.id.as_bytes())).expect("a string");
                }
            }
            Body::Quote(q) => {
                let (bid, bid_size) = (digits(q.bid), digits(q.bid_size));
                let (ask, ask_size) = (digits(q.ask), digits(q.ask_size));
                write!(text, "quote {} {bid_size} @ {bid} / {ask_size} @ {ask}", tick.seq).expect("a string");
            }
            Body::Gap { channel, from, .. } => {
                write!(text, "gap {} {from}..{}", channel.name(), tick.seq).expect("a string");
            }
            Body::Status(state) => write!(text, "status {}", state.name()).expect("a string"),
        }
        if let Some(ts_us) = tick.ts_us {
            write!(text, " ts {ts_us}").expect("a string");
        }
        text
    }
}

const NOTHING: [&str; 0] = [];

mod coinbase {
    use super::*;

    const WIRE: Wire = Wire::Coinbase;

    fn feed() -> Feed {
        Feed::new(WIRE)
    }

    fn named(name: &str) -> String {
        frame(WIRE, name)
    }

    fn matched(id: u64) -> String {
        named("match").replace("633500001", &id.to_string())
    }

    #[test]
    fn a_book_becomes_quotes_where_its_top_changes() {
        let mut feed = feed();
        assert_eq!(
            feed.take(&named("snapshot")),
            [
                "coinbase:BTC-USD status live",
                "coinbase:BTC-USD quote 1 0.25000000 @ 62009.99 / 0.30000000 @ 62010.01 ts 1714564800123456",
            ]
        );
        assert_eq!(
            feed.take(&named("l2update")),
            ["coinbase:BTC-USD quote 2 2.00000000 @ 62009.00 / 0.10000000 @ 62010.01 ts 1714564800223456"]
        );
        assert_eq!(feed.take(&named("l2update_away_from_the_top")), NOTHING);
        assert_eq!(
            feed.take(&named("ticker").replace("ETH-USD", "BTC-USD")),
            NOTHING,
            "the book tells quotes"
        );
        assert_eq!((feed.stats().quotes, feed.stats().repeated), (2, 1));
    }

    #[test]
    fn the_side_of_a_match_is_the_makers_and_the_takers_is_told() {
        let mut feed = feed();
        assert_eq!(
            feed.take(&named("match")),
            [
                "coinbase:BTC-USD status live",
                "coinbase:BTC-USD trade 1 buy 0.02340000 @ 62010.01 id 633500001 ts 1714564800423456",
            ]
        );
        let sold = matched(633_500_002).replace(r#""side":"sell""#, r#""side":"buy""#);
        assert_eq!(
            feed.take(&sold),
            ["coinbase:BTC-USD trade 2 sell 0.02340000 @ 62010.01 id 633500002 ts 1714564800423456"]
        );
    }

    #[test]
    fn last_match_is_no_new_trade() {
        let mut feed = feed();
        assert_eq!(feed.take(&named("last_match")), NOTHING);
        assert_eq!(feed.take(&matched(633_500_000)), NOTHING, "the same trade again");
        assert_eq!(feed.take(&named("match")).len(), 2, "the next one follows it without a hole");
        assert_eq!((feed.stats().trades, feed.stats().repeated, feed.stats().gaps), (1, 1, 0));
    }

    #[test]
    fn a_ticker_tells_quotes_where_no_book_does() {
        let mut feed = feed();
        assert_eq!(
            feed.take(&named("ticker")),
            [
                "coinbase:ETH-USD status live",
                "coinbase:ETH-USD quote 1 1.50000000 @ 3010.21 / 0.08000000 @ 3010.22 ts 1714564801000001",
            ]
        );
        assert_eq!(
            feed.take(&named("ticker_of_2021")),
            [
                "coinbase:SKL-USD status live",
                "coinbase:SKL-USD quote 1 - @ 0.6216 / - @ 0.6219 ts 1618677818075687",
            ]
        );
    }

    #[test]
    fn what_is_no_market_data_is_counted_by_kind() {
        let mut feed = feed();
        for name in ["subscriptions", "error", "heartbeat", "status", "status"] {
            assert_eq!(feed.take(&named(name)), NOTHING, "{name}");
        }
        assert_eq!(
            feed.kinds(),
            ["subscriptions true 1", "error true 1", "heartbeat true 1", "status false 2"]
        );
        assert_eq!(feed.stats().bad_frames, 0);
    }

    /// After a break: stale, silent about the book until the next snapshot, then live and telling again.
    fn heals(feed: &mut Feed, next_quote: u64) {
        assert_eq!(feed.take(&named("l2update")), NOTHING, "a book that is not to be trusted");
        let healed = feed.take(&named("snapshot"));
        assert_eq!(healed.len(), 2);
        assert_eq!(healed[0], "coinbase:BTC-USD status live");
        assert!(healed[1].starts_with(&format!("coinbase:BTC-USD quote {next_quote} 0.25")), "{healed:?}");
        let quote = feed.take(&named("l2update"));
        assert!(quote[0].starts_with(&format!("coinbase:BTC-USD quote {} 2.0", next_quote + 1)), "{quote:?}");
    }

    #[test]
    fn a_hole_in_the_trade_ids_is_a_gap_of_that_many() {
        let mut feed = feed();
        feed.take(&named("snapshot"));
        feed.take(&named("match"));
        assert_eq!(
            feed.take(&matched(633_500_005)),
            [
                "coinbase:BTC-USD gap trade 2..4",
                "coinbase:BTC-USD trade 5 buy 0.02340000 @ 62010.01 id 633500005 ts 1714564800423456",
            ],
            "the book goes on: the venue drops matches, not level2"
        );
        assert_eq!((feed.stats().sequence_breaks, feed.stats().gaps), (1, 1));
    }

    #[test]
    fn a_heartbeat_that_knows_of_newer_trades_is_a_gap_of_that_many() {
        let mut feed = feed();
        feed.take(&named("snapshot"));
        feed.take(&named("match"));
        assert_eq!(feed.take(&named("heartbeat")), NOTHING, "it knows what we know");
        let ahead = named("heartbeat").replace("633500001", "633500003");
        assert_eq!(
            feed.take(&ahead),
            [
                "coinbase:BTC-USD gap trade 2..3",
                "coinbase:BTC-USD gap quote 2..2",
                "coinbase:BTC-USD status stale",
            ]
        );
        assert_eq!(feed.take(&ahead), NOTHING, "told once");
        assert_eq!((feed.stats().sequence_breaks, feed.stats().gaps), (1, 2));
        assert_eq!(
            feed.take(&matched(633_500_003)),
            NOTHING,
            "what was given up does not come after its gap"
        );
        heals(&mut feed, 3);
        assert!(feed.take(&matched(633_500_004))[0].starts_with("coinbase:BTC-USD trade 4 buy"));
    }

    #[test]
    fn a_sequence_that_goes_back_breaks_the_quotes() {
        let mut feed = feed();
        feed.take(&named("snapshot"));
        feed.take(&named("heartbeat"));
        assert_eq!(
            feed.take(&named("heartbeat").replace("78536464700", "78536464699")),
            ["coinbase:BTC-USD gap quote 2..2", "coinbase:BTC-USD status stale"]
        );
        assert_eq!(feed.stats().sequence_breaks, 1);
        heals(&mut feed, 3);
    }

    #[test]
    fn a_break_is_not_told_of_what_another_line_tells() {
        let mut feed = Feed::of_lines(&[WIRE, WIRE]);
        feed.take_on(0, &named("snapshot"));
        feed.take_on(0, &named("match"));
        feed.take_on(1, &named("last_match"));
        assert_eq!(feed.take_on(1, &named("heartbeat")), NOTHING, "the trade came on the other line");
        assert_eq!(feed.take_on(0, &named("l2update")).len(), 1);
    }

    #[test]
    fn a_trade_id_out_of_all_reason_does_not_use_up_our_numbers() {
        let mut feed = feed();
        feed.take(&matched(1));
        for id in [u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            let ticks = feed.take(&matched(id));
            assert!(ticks.last().is_some_and(|t| t.contains(&format!("id {id} "))), "{ticks:?}");
        }
        let gap = u64::from(u32::MAX);
        assert_eq!(feed.seqs[&(InstrumentId(0), Stream::Trade)], 4 + 2 * gap);
    }

    #[test]
    fn faults_are_named() {
        let mut feed = feed();
        let wrong = |name: &str, from: &str, to: &str| {
            let good = named(name);
            let bad = good.replace(from, to);
            assert_ne!(good, bad);
            bad
        };
        for (bad, what) in [
            (String::from("{"), "not JSON"),
            (String::from("[]"), "field `type`"),
            (wrong("match", r#""price":"62010.01","#, ""), "field `price`"),
            (wrong("match", r#""62010.01""#, "62010.01"), "field `price`"),
            (wrong("match", "62010.01", "6201o.01"), "field `price`: \"6201o.01\": not a decimal number"),
            (wrong("match", r#""side":"sell""#, r#""side":"short""#), "field `side`"),
            (wrong("match", "633500001", "-1"), "field `trade_id`"),
            (wrong("match", "BTC-USD", "BTC USD"), "field `symbol`: \"BTC USD\""),
            (wrong("l2update", "changes", "change"), "field `changes`"),
            (wrong("snapshot", "asks", "offers"), "field `asks`"),
            (wrong("heartbeat", "last_trade_id", "last"), "field `last_trade_id`"),
        ] {
            let error = feed.fault(&bad);
            assert!(error.to_string().contains(what), "{error} for {bad}");
        }
        let huge = wrong("match", "62010.01", "12345678901234567890123456789.5");
        assert!(matches!(
            feed.fault(&huge),
            DecodeError::Decimal { field: "price", cause: DecimalError::Overflow, .. }
        ));
        assert_eq!(feed.take(&named("match")).len(), 2, "and the line goes on");
    }

    #[test]
    fn a_change_that_cannot_be_read_breaks_the_book() {
        let mut feed = feed();
        feed.take(&named("snapshot"));
        let (ticks, result) = feed.try_take(0, named("l2update").replace("62009.99", "62.009.99").as_bytes());
        assert!(result.is_err());
        assert_eq!(ticks, ["coinbase:BTC-USD gap quote 2..2", "coinbase:BTC-USD status stale"]);
        let (ticks, result) = feed.try_take(0, named("snapshot").replace("62009.00", "x").as_bytes());
        assert!(result.is_err());
        assert_eq!(ticks, ["coinbase:BTC-USD gap quote 3..3"], "a bad snapshot heals nothing");
        heals(&mut feed, 4);
    }
}

mod binance {
    use super::*;

    fn spot(name: &str) -> String {
        frame(Wire::Binance, name)
    }

    fn futures(name: &str) -> String {
        frame(Wire::BinanceFutures, name)
    }

    /// What a raw message becomes on a line of its own; its combined form must become the same.
    fn ticks(wire: Wire, stream: &str, raw: &str) -> Vec<String> {
        let ticks = Feed::new(wire).take(raw);
        assert_eq!(Feed::new(wire).take(&combined(stream, raw)), ticks);
        assert!(ticks.is_empty() || ticks[0].ends_with("status live"));
        ticks.into_iter().skip(1).collect()
    }

    #[test]
    fn spot_messages() {
        let wire = Wire::Binance;
        assert_eq!(
            ticks(wire, "btcusdt@trade", &spot("trade")),
            ["binance:BTCUSDT trade 1 sell 0.00200000 @ 62010.01000000 id 3561000001 ts 1714564800121000"]
        );
        assert_eq!(
            ticks(wire, "btcusdt@trade", &spot("trade_in_microseconds")),
            ["binance:BTCUSDT trade 1 buy 0.00200000 @ 62010.01000000 id 3561000001 ts 1714564800121789"]
        );
        assert_eq!(
            ticks(wire, "btcusdt@aggTrade", &spot("aggTrade")),
            ["binance:BTCUSDT trade 1 buy 0.10000000 @ 62010.02000000 id 2980000001 ts 1714564800222000"]
        );
        assert_eq!(
            ticks(wire, "btcusdt@bookTicker", &spot("bookTicker")),
            ["binance:BTCUSDT quote 1 3.15000000 @ 62010.00000000 / 0.04000000 @ 62010.01000000"]
        );
        assert_eq!(ticks(wire, "btcusdt@depth", &spot("depthUpdate")), NOTHING, "no snapshot, no book");
        assert_eq!(ticks(wire, "btcusdt@kline_1m", &spot("kline")), NOTHING);
        assert_eq!(ticks(wire, "", &spot("result")), NOTHING);
    }

    #[test]
    fn futures_messages() {
        let wire = Wire::BinanceFutures;
        assert_eq!(
            ticks(wire, "btcusdt@trade", &futures("trade")),
            ["binance-futures:BTCUSDT trade 1 buy 0.015 @ 62005.10 id 4930000001 ts 1714564800128000"]
        );
        assert_eq!(
            ticks(wire, "btcusdt@aggTrade", &futures("aggTrade")),
            ["binance-futures:BTCUSDT trade 1 sell 1.500 @ 62005.20 id 2210000001 ts 1714564800229000"]
        );
        assert_eq!(
            ticks(wire, "btcusdt@bookTicker", &futures("bookTicker")),
            ["binance-futures:BTCUSDT quote 1 12.345 @ 62005.10 / 0.900 @ 62005.20 ts 1714564800331000"]
        );
        assert_eq!(ticks(wire, "btcusdt@depth@0ms", &futures("depthUpdate")), NOTHING);
        assert_eq!(
            ticks(wire, "btcusd_perp@aggTrade", &futures("coin_margined_aggTrade")),
            ["binance-futures:BTCUSD_PERP trade 1 sell 12 @ 62001.1 id 401200301 ts 1714564800598000"]
        );
        assert_eq!(
            ticks(wire, "btcusd_perp@bookTicker", &futures("coin_margined_bookTicker")),
            ["binance-futures:BTCUSD_PERP quote 1 2500 @ 62001.0 / 880 @ 62001.1 ts 1714564800611000"]
        );
        assert_eq!(ticks(wire, "btcusd_perp@depth", &futures("coin_margined_depthUpdate")), NOTHING);
    }

    #[test]
    fn every_book_ticker_is_a_quote() {
        let mut feed = Feed::new(Wire::BinanceFutures);
        feed.take(&futures("bookTicker"));
        assert_eq!(feed.take(&futures("bookTicker")).len(), 1, "also where nothing changed");
        assert_eq!(feed.take(&futures("depthSnapshot")), NOTHING, "it wins over a book");
        assert_eq!(feed.take(&futures("depthUpdate")), NOTHING);
        assert_eq!((feed.stats().quotes, feed.stats().gaps), (2, 0));
    }

    #[test]
    fn a_depth_snapshot_makes_a_book() {
        let mut feed = Feed::new(Wire::Binance);
        assert_eq!(
            feed.take(&spot("depthSnapshot")),
            [
                "binance:BTCUSDT status live",
                "binance:BTCUSDT quote 1 3.15000000 @ 62010.00000000 / 0.04000000 @ 62010.01000000",
            ]
        );
        let old = spot("depthUpdate").replace("46500000012", "46500000010");
        assert_eq!(feed.take(&old), NOTHING, "the snapshot holds it already");
        assert_eq!(
            feed.take(&spot("depthUpdate")),
            ["binance:BTCUSDT quote 2 0.20000000 @ 62009.50000000 / 0.05000000 @ 62010.01000000 \
                 ts 1714564800323000"]
        );
        let mut feed = Feed::new(Wire::BinanceFutures);
        assert_eq!(feed.take(&futures("depthSnapshot")).len(), 2);
        assert_eq!(
            feed.take(&futures("depthUpdate")),
            ["binance-futures:BTCUSDT quote 2 10.000 @ 62005.10 / 4.000 @ 62005.30 ts 1714564800428000"],
            "its `U` is far beyond the snapshot, but its `pu` is not"
        );
        assert_eq!(feed.stats().sequence_breaks, 0);
    }

    #[test]
    fn a_snapshot_belongs_to_the_symbol_of_its_stream() {
        let mut feed = Feed::new(Wire::BinanceFutures);
        let named = futures("depthSnapshot");
        let (_, data) = named.trim().split_once("\"data\":").expect("combined");
        let raw = &data[..data.len() - 1];
        assert_eq!(feed.take(raw), NOTHING, "nothing tells whose it is");
        assert_eq!(feed.kinds(), ["depthSnapshot true 1"]);
        assert!(
            feed.take(&combined("btcusd_perp@depthSnapshot", raw))[1]
                .starts_with("binance-futures:BTCUSD_PERP quote 1")
        );
        let told = raw.replacen('{', r#"{"symbol":"ETHUSDT","#, 1);
        assert!(
            feed.take(&combined("depthSnapshot", &told))[1].starts_with("binance-futures:ETHUSDT quote 1")
        );
    }

    #[test]
    fn a_break_of_the_spot_chain_needs_a_snapshot() {
        let mut feed = Feed::new(Wire::Binance);
        let next = |from: u64| {
            let text = spot("depthUpdate").replace("46500000009", &from.to_string());
            text.replace("46500000012", &(from + 2).to_string())
        };
        feed.take(&spot("depthSnapshot"));
        feed.take(&spot("depthUpdate"));
        assert_eq!(feed.take(&next(46_500_000_013)), NOTHING, "it follows, and changes nothing");
        assert_eq!(
            feed.take(&next(46_500_000_017)),
            ["binance:BTCUSDT gap quote 3..3", "binance:BTCUSDT status stale"]
        );
        assert_eq!(feed.take(&next(46_500_000_020)), NOTHING, "no book to change");
        assert_eq!((feed.stats().sequence_breaks, feed.stats().gaps), (1, 1));
        let snapshot = spot("depthSnapshot").replace("46500000010", "46500000022");
        let healed = feed.take(&snapshot);
        assert_eq!(healed[0], "binance:BTCUSDT status live");
        assert!(healed[1].starts_with("binance:BTCUSDT quote 4 3.15"), "{healed:?}");
        assert!(feed.take(&next(46_500_000_023))[0].starts_with("binance:BTCUSDT quote 5 0.20"));
        assert_eq!(feed.stats().sequence_breaks, 1);
    }

    #[test]
    fn a_snapshot_that_the_stream_has_run_away_from_makes_no_book() {
        let mut feed = Feed::new(Wire::Binance);
        feed.take(&spot("depthSnapshot").replace("46500000010", "46500000007"));
        assert_eq!(
            feed.take(&spot("depthUpdate")),
            ["binance:BTCUSDT gap quote 2..2", "binance:BTCUSDT status stale"]
        );
    }

    #[test]
    fn a_break_of_pu_needs_a_snapshot() {
        let mut feed = Feed::new(Wire::BinanceFutures);
        let next = |previous: u64, last: u64| {
            let text = futures("depthUpdate").replace("4500000157", &last.to_string());
            text.replace("4500000160", &last.to_string()).replace("4500000100", &previous.to_string())
        };
        feed.take(&futures("depthSnapshot"));
        feed.take(&futures("depthUpdate"));
        assert_eq!(feed.take(&next(4_500_000_160, 4_500_000_250)), NOTHING, "it follows");
        assert_eq!(
            feed.take(&next(4_500_000_251, 4_500_000_300)),
            ["binance-futures:BTCUSDT gap quote 3..3", "binance-futures:BTCUSDT status stale"]
        );
        assert_eq!(feed.take(&next(4_500_000_300, 4_500_000_350)), NOTHING);
        let healed = feed.take(&futures("depthSnapshot").replace("4500000100", "4500000350"));
        assert_eq!(healed[0], "binance-futures:BTCUSDT status live");
        assert!(healed[1].starts_with("binance-futures:BTCUSDT quote 4 12.345"), "{healed:?}");
        let quote = feed.take(&next(4_500_000_350, 4_500_000_400));
        assert!(quote[0].starts_with("binance-futures:BTCUSDT quote 5 10.000"), "{quote:?}");
        assert_eq!(feed.stats().sequence_breaks, 1);
    }

    /// A change that does not follow the documented one.
    fn behind_a_hole() -> String {
        futures("depthUpdate").replace("4500000160", "4500000260").replace("4500000100", "4500000201")
    }

    #[test]
    fn a_break_beside_book_tickers_is_told_and_leaves_them_live() {
        let mut feed = Feed::new(Wire::BinanceFutures);
        feed.take(&futures("bookTicker"));
        feed.take(&futures("depthUpdate"));
        assert_eq!(feed.take(&futures("depthUpdate")), NOTHING, "what comes twice is no break");
        assert_eq!(feed.take(&behind_a_hole()), ["binance-futures:BTCUSDT gap quote 2..2"]);
        assert!(feed.take(&futures("bookTicker"))[0].starts_with("binance-futures:BTCUSDT quote 3"));
    }

    #[test]
    fn book_tickers_take_over_from_a_broken_book() {
        let mut feed = Feed::new(Wire::BinanceFutures);
        feed.take(&futures("depthSnapshot"));
        feed.take(&futures("depthUpdate"));
        assert_eq!(feed.take(&behind_a_hole()).len(), 2, "a break");
        let ticks = feed.take(&futures("bookTicker"));
        assert_eq!(ticks[0], "binance-futures:BTCUSDT status live");
        assert!(ticks[1].starts_with("binance-futures:BTCUSDT quote 4"), "{ticks:?}");
        assert_eq!(feed.take(&futures("depthSnapshot")), NOTHING);
    }

    /// An aggregate of the executions `first` to `last`.
    fn aggregate(first: u64, last: u64) -> String {
        let text = spot("aggTrade").replace("3561000002", &first.to_string());
        text.replace("3561000004", &last.to_string())
    }

    fn execution(id: u64) -> String {
        spot("trade").replace("3561000001", &id.to_string())
    }

    #[test]
    fn aggregates_are_silent_where_trades_come_one_by_one() {
        let mut feed = Feed::new(Wire::Binance);
        assert_eq!(feed.take(&execution(1)).len(), 2);
        assert_eq!(feed.take(&aggregate(1, 1)), NOTHING);
        assert_eq!(feed.take(&execution(2)).len(), 1);
        assert_eq!(feed.take(&execution(3)).len(), 1);
        assert_eq!(feed.take(&aggregate(2, 3)), NOTHING);
        assert_eq!((feed.stats().trades, feed.stats().repeated), (3, 2));
    }

    #[test]
    fn where_aggregates_came_first_no_execution_is_told_twice() {
        let mut feed = Feed::new(Wire::Binance);
        assert_eq!(feed.take(&aggregate(1, 3)).len(), 2);
        for id in 1..=3 {
            assert_eq!(feed.take(&execution(id)), NOTHING, "{id} was in the aggregate");
        }
        assert_eq!(feed.take(&aggregate(4, 5)), NOTHING, "from here on only trades count");
        assert_eq!(feed.take(&execution(4)).len(), 1);
        assert_eq!(feed.take(&execution(5)).len(), 1);
        assert_eq!((feed.stats().trades, feed.stats().repeated), (3, 4));
    }

    #[test]
    fn a_line_that_looked_ahead_knows_its_sources() {
        let mut feed = Feed::new(Wire::Binance);
        for text in [aggregate(1, 2), execution(1), spot("depthSnapshot"), spot("bookTicker")] {
            feed.lines[0].prime(text.as_bytes(), &mut feed.sequencer);
        }
        assert_eq!(feed.take(&aggregate(1, 2)), NOTHING, "the trades will come");
        assert_eq!(feed.take(&spot("depthSnapshot")), NOTHING, "so will the tickers");
        assert_eq!(feed.take(&execution(1)).len(), 2);
        assert_eq!(feed.take(&execution(2)).len(), 1);
        assert_eq!(feed.take(&spot("bookTicker")).len(), 1);
    }

    #[test]
    fn kinds_are_counted() {
        let mut feed = Feed::new(Wire::BinanceFutures);
        for text in [futures("markPriceUpdate"), spot("kline"), futures("trade"), spot("result")] {
            feed.take(&text);
        }
        feed.take(&combined("!ticker@arr", r#"[{"e":"24hrTicker"}]"#));
        feed.take(r#"{"error":{"code":2,"msg":"no such stream"},"id":1}"#);
        assert_eq!(
            feed.kinds(),
            [
                "markPriceUpdate false 1",
                "kline false 1",
                "trade true 1",
                "result true 1",
                "24hrTicker false 1",
                "(no event) false 1",
            ]
        );
    }

    #[test]
    fn faults_are_named() {
        let mut feed = Feed::new(Wire::BinanceFutures);
        let wrong = |name: &str, from: &str, to: &str| {
            let bad = futures(name).replace(from, to);
            assert_ne!(futures(name), bad);
            bad
        };
        for (bad, what) in [
            (String::from("nul"), "not JSON"),
            (String::from(r#"{"stream":"a@trade"}"#), "field `data`"),
            (wrong("trade", r#""p":"62005.10","#, ""), "field `p`"),
            (wrong("trade", r#""m":false"#, r#""m":"no""#), "field `m`"),
            (wrong("trade", "4930000001", r#""x""#), "field `t`"),
            (wrong("aggTrade", "4930000005", "null"), "field `l`"),
            (wrong("bookTicker", "0.900", "0,900"), "field `A`: \"0,900\": not a decimal number"),
            (wrong("depthUpdate", r#""U":4500000157,"#, ""), "field `U`"),
            (wrong("depthUpdate", r#""a""#, r#""asks""#), "field `a`"),
            (wrong("depthSnapshot", r#""bids""#, r#""b""#), "field `bids`"),
            (wrong("bookTicker", "BTCUSDT", ""), "field `symbol`"),
        ] {
            let error = feed.fault(&bad);
            assert!(error.to_string().contains(what), "{error} for {bad}");
        }
        assert!(matches!(
            feed.fault(&wrong("trade", "0.015", "99999999999999999999999999.999")),
            DecodeError::Decimal { field: "q", cause: DecimalError::Overflow, .. }
        ));
        let most = wrong("trade", "0.015", "99999999999999999999999999.99");
        assert!(feed.take(&most)[1].contains("buy 99999999999999999999999999.99 @"), "the most that fits");
    }
}

mod kraken {
    use std::collections::BTreeMap;

    use super::*;

    const WIRE: Wire = Wire::Kraken;

    fn feed() -> Feed {
        Feed::new(WIRE)
    }

    fn named(name: &str) -> String {
        frame(WIRE, name)
    }

    /// CRC-32 of ISO 3309, a bit at a time: nothing in common with the code under test.
    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            }
        }
        !crc
    }

    /// A book kept as the texts that came.
    #[derive(Clone, Default)]
    struct TextBook {
        asks: BTreeMap<u64, (String, String)>,
        bids: BTreeMap<u64, (String, String)>,
    }

    impl TextBook {
        /// All prices of one test have the same number of decimals.
        fn set(side: &mut BTreeMap<u64, (String, String)>, price: &str, size: &str) {
            let key = price.replace('.', "").parse().expect("digits");
            if size.bytes().all(|b| matches!(b, b'0' | b'.')) {
                side.remove(&key);
            } else {
                side.insert(key, (price.to_owned(), size.to_owned()));
            }
        }

        fn checksum(&self) -> u32 {
            let digits = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
            let level = |(price, size): &(String, String)| digits(price) + &digits(size);
            let asks = self.asks.values().take(10).map(level);
            let bids = self.bids.values().rev().take(10).map(level);
            crc32(asks.chain(bids).collect::<String>().as_bytes())
        }
    }

    #[test]
    fn the_checksum_here_is_the_documented_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let mut book = TextBook::default();
        for n in 0..10 {
            TextBook::set(&mut book.asks, &format!("0.{:05}", 5005 + 5 * n), "0.00000500");
        }
        for price in [5000, 4995, 4990, 4980, 4975, 4970, 4965, 4960, 4955, 4950] {
            TextBook::set(&mut book.bids, &format!("0.{price:05}"), "0.00000500");
        }
        assert_eq!(book.checksum(), 974_947_235, "the example of the v1 guide");
    }

    #[test]
    fn v1_messages() {
        let mut feed = feed();
        assert_eq!(
            feed.take(&named("v1_trade")),
            [
                "kraken:XBT/USD status live",
                "kraken:XBT/USD trade 1 buy 0.01000000 @ 62010.10000 ts 1714564800123456",
                "kraken:XBT/USD trade 2 sell 1.50000000 @ 62010.00000 ts 1714564800123999",
            ]
        );
        assert_eq!(
            feed.take(&named("v1_ticker")),
            ["kraken:XBT/USD quote 1 3.10000000 @ 62010.00000 / 0.25000000 @ 62010.10000"]
        );
        assert_eq!(
            feed.take(&named("v1_spread")),
            [
                "kraken:XBT/USD quote 2 3.10000000 @ 62010.00000 / 0.25000000 @ 62010.10000 ts 1714564800223344"
            ]
        );
        assert_eq!(feed.take(&named("v1_ticker")), NOTHING, "the spread is told more often");
        for name in ["v1_systemStatus", "v1_subscriptionStatus", "v1_heartbeat", "v1_ohlc"] {
            assert_eq!(feed.take(&named(name)), NOTHING, "{name}");
        }
        assert_eq!(
            feed.kinds(),
            [
                "trade true 1",
                "ticker true 2",
                "spread true 1",
                "systemStatus true 1",
                "subscriptionStatus true 1",
                "heartbeat true 1",
                "ohlc false 1",
            ]
        );
    }

    #[test]
    fn v1_books_with_the_guides_example() {
        let mut feed = feed();
        assert_eq!(
            feed.take(&named("v1_book_snapshot")),
            [
                "kraken:XBT/USD status live",
                "kraken:XBT/USD quote 1 0.00000500 @ 0.05000 / 0.00000500 @ 0.05005 ts 1582905480000001",
            ]
        );
        assert_eq!(feed.take(&named("v1_book_two_parts_of_the_guide")), NOTHING, "away from the top");
        assert_eq!(feed.stats().checksums_good, 1, "the checksum in the last part is that of both");
        assert_eq!(
            feed.take(&named("v1_book_one_side")),
            ["kraken:XBT/USD quote 2 0.00000500 @ 0.05000 / 0.00000304 @ 0.05005 ts 1582905487439814"]
        );
        assert_eq!(
            feed.take(&named("v1_book_republished")),
            ["kraken:XBT/USD quote 3 0.00000500 @ 0.04995 / 0.00000304 @ 0.05005 ts 1582905487539814"]
        );
        assert_eq!((feed.stats().checksums_good, feed.stats().checksums_bad), (3, 0));
        assert_eq!(feed.take(&named("v1_ticker")), NOTHING, "the book tells quotes");
        assert_eq!(feed.take(&named("v1_spread")), NOTHING);
    }

    #[test]
    fn a_v1_checksum_that_is_wrong_needs_a_snapshot() {
        let mut feed = feed();
        feed.take(&named("v1_book_snapshot"));
        let bad = named("v1_book_two_parts_of_the_guide").replace("974947235", "974947236");
        assert_eq!(feed.take(&bad), ["kraken:XBT/USD gap quote 2..2", "kraken:XBT/USD status stale"]);
        assert_eq!(feed.take(&named("v1_book_one_side")), NOTHING, "no book to change");
        assert_eq!((feed.stats().checksums_bad, feed.stats().gaps), (1, 1));
        assert_eq!(
            feed.take(&named("v1_book_snapshot")),
            [
                "kraken:XBT/USD status live",
                "kraken:XBT/USD quote 3 0.00000500 @ 0.05000 / 0.00000500 @ 0.05005 ts 1582905480000001",
            ]
        );
        assert_eq!(feed.take(&named("v1_book_two_parts_of_the_guide")), NOTHING);
        assert!(feed.take(&named("v1_book_one_side"))[0].starts_with("kraken:XBT/USD quote 4"));
        assert_eq!((feed.stats().checksums_good, feed.stats().checksums_bad), (2, 1));
    }

    #[test]
    fn v2_messages() {
        let mut feed = feed();
        assert_eq!(feed.take(&named("v2_trade_snapshot")), NOTHING, "trades of before");
        assert_eq!(
            feed.take(&named("v2_trade_update")),
            [
                "kraken:BTC/USD status live",
                "kraken:BTC/USD trade 1 sell 0.10000000 @ 62010.0 id 70600003 ts 1714564800123456",
                "kraken:BTC/USD trade 2 buy 0.00000015 @ 62010.1 id 70600004 ts 1714564800123999",
            ]
        );
        assert_eq!(
            feed.take(&named("v2_ticker")),
            [
                "kraken:ALGO/USD status live",
                "kraken:ALGO/USD quote 1 740.00000000 @ 0.10025 / 1361.44813783 @ 0.10036 ts 1714564800334411",
            ]
        );
        for name in ["v2_subscribe_book", "v2_status", "v2_heartbeat", "v2_instrument"] {
            assert_eq!(feed.take(&named(name)), NOTHING, "{name}");
        }
        assert_eq!(
            feed.kinds(),
            [
                "trade true 2",
                "ticker true 1",
                "subscribe true 1",
                "status true 1",
                "heartbeat true 1",
                "instrument false 1",
            ]
        );
    }

    #[test]
    fn v2_books_with_the_guides_example() {
        for told in [true, false] {
            let mut feed = feed();
            if told {
                feed.take(&named("v2_subscribe_book"));
            }
            assert_eq!(
                feed.take(&named("v2_book_snapshot_of_the_guide")),
                [
                    "kraken:BTC/USD status live",
                    "kraken:BTC/USD quote 1 0.10000000 @ 45283.5 / 0.00100000 @ 45285.2",
                ]
            );
            assert_eq!(
                feed.take(&named("v2_book_update")),
                ["kraken:BTC/USD quote 2 0.50000000 @ 45284.0 / 0.00100000 @ 45285.2 ts 1696613755440295"]
            );
            assert_eq!(
                feed.take(&named("v2_book_update_of_both_sides")),
                ["kraken:BTC/USD quote 3 0.10000000 @ 45283.5 / 0.00200000 @ 45285.2 ts 1696613756440295"],
                "what fell out of the ten does not come back"
            );
            assert_eq!((feed.stats().checksums_good, feed.stats().checksums_bad), (3, 0));
        }
    }

    #[test]
    fn a_v2_checksum_that_is_wrong_needs_a_snapshot() {
        let mut feed = feed();
        let snapshot = named("v2_book_snapshot_of_the_guide");
        feed.take(&snapshot);
        let shortened = snapshot.replace("0.10000000", "0.10000001");
        assert_eq!(feed.take(&shortened), ["kraken:BTC/USD gap quote 2..2", "kraken:BTC/USD status stale"]);
        assert_eq!(feed.take(&named("v2_book_update")), NOTHING, "no book to change");
        assert_eq!(feed.take(&shortened), ["kraken:BTC/USD gap quote 3..3"], "a bad snapshot heals nothing");
        assert_eq!(feed.stats().checksums_bad, 2);
        assert_eq!(
            feed.take(&snapshot),
            [
                "kraken:BTC/USD status live",
                "kraken:BTC/USD quote 4 0.10000000 @ 45283.5 / 0.00100000 @ 45285.2",
            ],
            "told again, though it is what was told last"
        );
        assert!(feed.take(&named("v2_book_update"))[0].starts_with("kraken:BTC/USD quote 5"));
    }

    #[test]
    fn the_depth_that_was_subscribed_is_kept_to() {
        // Four levels a side would be taken for a book of ten: the answer to the subscription says 25.
        let level = |price: u64| format!(r#"{{"price":{price}.0,"qty":1.00}}"#);
        let bids = |from: u64, to: u64| (from..to).rev().map(level).collect::<Vec<_>>().join(",");
        let book = |kind: &str, levels: &str, checksum: u32| {
            format!(
                r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{levels}],"asks":[],"checksum":{checksum}}}]}}"#
            )
        };
        let mut text = TextBook::default();
        let mut add = |from: u64, to: u64, size: &str| {
            (from..to).for_each(|p| TextBook::set(&mut text.bids, &format!("{p}.0"), size));
            text.checksum()
        };
        let (first, more, less) = (add(100, 104, "1.00"), add(104, 114, "1.00"), add(108, 114, "0"));
        let frames = [
            named("v2_subscribe_book").replace("\"depth\":10", "\"depth\":25"),
            book("snapshot", &bids(100, 104), first),
            book("update", &bids(104, 114), more),
            book("update", &bids(108, 114).replace("1.00", "0"), less),
        ];
        for late in [false, true] {
            let mut feed = feed();
            let mut frames: Vec<_> = frames.iter().collect();
            if late {
                frames.swap(0, 1);
            }
            for frame in frames {
                feed.take(frame);
            }
            assert_eq!((feed.stats().checksums_good, feed.stats().checksums_bad), (3, 0), "late: {late}");
        }
    }

    #[test]
    fn random_books_keep_their_checksums() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let level = (10_000u32..10_040, prop_oneof![Just(0u32), 1u32..300_000]);
        let update = proptest::collection::vec((any::<bool>(), level), 1..12);
        runner
            .run(&proptest::collection::vec(update, 1..20), |updates| {
                let (mut feed, mut book) = (feed(), TextBook::default());
                feed.take(r#"[0,{"as":[],"bs":[]},"book-1000","XBT/USD"]"#);
                for update in &updates {
                    let mut sides = [Vec::new(), Vec::new()];
                    for (bid, (price, size)) in update {
                        let price = format!("{}.{}", price / 10, price % 10);
                        let size = format!("{}.{:05}", size / 100_000, size % 100_000);
                        let side = if *bid { &mut book.bids } else { &mut book.asks };
                        TextBook::set(side, &price, &size);
                        sides[usize::from(*bid)].push(format!(r#"["{price}","{size}","1582905487.4"]"#));
                    }
                    let checksum = book.checksum();
                    let [asks, bids] = sides.map(|side| side.join(","));
                    feed.take(&format!(
                        r#"[0,{{"a":[{asks}]}},{{"b":[{bids}],"c":"{checksum}"}},"book-1000","XBT/USD"]"#
                    ));
                }
                prop_assert_eq!(feed.stats().checksums_good, updates.len() as u64);
                Ok(())
            })
            .expect("every checksum is good");
    }

    #[test]
    fn faults_are_named() {
        let mut feed = feed();
        let wrong = |name: &str, from: &str, to: &str| {
            let bad = named(name).replacen(from, to, 1);
            assert_ne!(named(name), bad);
            bad
        };
        for (bad, what) in [
            (String::from("["), "not JSON"),
            (String::from("17"), "neither array nor object"),
            (String::from("[1,2]"), "neither 4 nor 5 parts"),
            (String::from("{}"), "without channel, event or method"),
            (String::from(r#"[0,{},"book-10","XBT/USD"]"#), "a book message without levels"),
            (wrong("v1_trade", r#""b""#, r#""x""#), "field `side`"),
            (wrong("v1_trade", r#""XBT/USD""#, "12"), "field `pair`"),
            (wrong("v1_ticker", r#""a""#, r#""z""#), "field `a`"),
            (wrong("v1_spread", r#""62010.00000""#, r#""+1""#), "field `bid`: \"+1\": not a decimal number"),
            (wrong("v1_book_one_side", r#""c":""#, r#""c":"-"#), "field `c`"),
            (wrong("v2_trade_update", r#""qty":0.10000000,"#, ""), "field `qty`"),
            (wrong("v2_trade_update", r#""data""#, r#""dat""#), "field `data`"),
            (wrong("v2_book_update", "\"checksum\":", "\"checksum\":99"), "field `checksum`"),
        ] {
            let error = feed.fault(&bad);
            assert!(error.to_string().contains(what), "{error} for {bad}");
        }
        assert!(matches!(
            feed.fault(&wrong("v2_trade_update", "0.10000000", "1e29")),
            DecodeError::Decimal { field: "qty", cause: DecimalError::Overflow, .. }
        ));
        assert!(matches!(
            feed.fault(&wrong("v2_ticker", "0.10025", "123456789012345678901234567890")),
            DecodeError::Decimal { field: "bid", cause: DecimalError::Overflow, .. }
        ));
    }
}

mod native {
    use super::*;

    const WIRE: Wire = Wire::Native;

    fn named(name: &str) -> String {
        frame(WIRE, name)
    }

    #[test]
    fn messages() {
        let mut feed = Feed::new(WIRE);
        assert_eq!(
            feed.take(&named("trade")),
            ["demo:ABC status live", "demo:ABC trade 1 buy 3 @ 1.2500 id x-17 ts 1714564800123456"]
        );
        assert_eq!(
            feed.take(&named("trade_of_numbers")),
            ["demo:ABC trade 2 - 0.03 @ 0.10000000 id 18"],
            "numbers keep their digits"
        );
        assert_eq!(
            feed.take(&named("quote")),
            ["demo:ABC quote 1 10 @ 1.2400 / 7.5 @ 1.2600 ts 1714564800223456"]
        );
        assert_eq!(feed.take(&named("quote_of_one_side")), ["demo:ABC quote 2 - @ - / - @ 1.270"]);
        assert_eq!(feed.kinds(), ["trade true 2", "quote true 2"]);
    }

    #[test]
    fn publishers_share_an_instrument() {
        let mut feed = Feed::of_lines(&[WIRE, WIRE]);
        assert_eq!(feed.take_on(0, &named("trade")).len(), 2);
        assert!(feed.take_on(1, &named("trade"))[0].starts_with("demo:ABC trade 2"));
        assert!(feed.take_on(0, &named("trade"))[0].starts_with("demo:ABC trade 3"));
    }

    #[test]
    fn faults_are_named() {
        let mut feed = Feed::new(WIRE);
        for (bad, what) in [
            ("", "not JSON"),
            ("[1]", "not a JSON object"),
            (r#"{"symbol":"demo:ABC"}"#, "field `type`"),
            (r#"{"type":"order","symbol":"demo:ABC"}"#, "`type` is neither trade nor quote"),
            (r#"{"type":"trade","price":"1","size":"1"}"#, "field `symbol`"),
            (r#"{"type":"trade","symbol":"ABC","price":"1","size":"1"}"#, "a symbol is written venue:NAME"),
            (r#"{"type":"trade","symbol":"demo:ABC","size":"1"}"#, "field `price`"),
            (r#"{"type":"trade","symbol":"demo:ABC","price":"1","size":"1","side":"B"}"#, "field `side`"),
            (r#"{"type":"trade","symbol":"demo:ABC","price":"1","size":"1","ts":"now"}"#, "field `ts`"),
            (r#"{"type":"quote","symbol":"demo:ABC"}"#, "field `bid`"),
            (
                r#"{"type":"trade","symbol":"demo:ABC","price":12345678901234567890123456789,"size":1}"#,
                "field `price`: \"12345678901234567890123456789\": decimal overflow: more than 28 digits",
            ),
        ] {
            let error = feed.fault(bad);
            assert!(error.to_string().contains(what), "{error} for {bad}");
        }
        assert_eq!(feed.take(&named("trade")).len(), 2);
    }

    #[test]
    fn only_listed_venues_may_be_published() {
        let mut feed = Feed::new(WIRE);
        let limits = LineLimits { venues: Some(vec!["other".to_owned()]), ..limits() };
        feed.lines[0] = Line::new(LineId(0), Origin::Live, WIRE, limits);
        assert!(feed.fault(&named("trade")).to_string().contains("may not be published"));
        assert_eq!(feed.take(&named("trade").replace("demo:", "other:")).len(), 2);
    }
}

mod lines {
    use super::*;

    #[test]
    fn a_venue_cannot_make_the_list_of_kinds_grow() {
        let mut feed = Feed::new(Wire::Coinbase);
        for n in 0..500 {
            feed.take(&format!(r#"{{"type":"kind {n} {}"}}"#, "x".repeat(100)));
        }
        let kinds = feed.kinds();
        assert_eq!(kinds.len(), tickfan::feed::Kinds::MAX + 1);
        assert_eq!(kinds.last().map(String::as_str), Some("(other) false 436"));
        assert!(kinds.iter().all(|kind| kind.len() < 50));
    }

    #[test]
    fn what_a_connection_told_does_not_hold_for_the_next() {
        let mut feed = Feed::new(Wire::Coinbase);
        let named = |name: &str| frame(Wire::Coinbase, name);
        feed.take(&named("snapshot"));
        feed.take(&named("match"));
        let mut ticks = Vec::new();
        let rx_ns = feed.rx_ns;
        feed.lines[0].disconnected(rx_ns, &mut feed.sequencer, |tick| ticks.push(*tick));
        let ticks: Vec<_> = ticks.iter().map(|tick| feed.text(tick)).collect();
        assert_eq!(ticks, ["coinbase:BTC-USD status down"]);
        assert_eq!(feed.take(&named("l2update")), NOTHING, "a change of a book that is gone");
        let later = feed.take(&named("match").replace("633500001", "633500099"));
        assert_eq!(
            later,
            [
                "coinbase:BTC-USD status stale",
                "coinbase:BTC-USD trade 2 buy 0.02340000 @ 62010.01 id 633500099 ts 1714564800423456",
            ],
            "no hole is known of, but the quotes have not come back"
        );
        let back = feed.take(&named("snapshot"));
        assert_eq!(back[0], "coinbase:BTC-USD status live");
        assert!(back[1].starts_with("coinbase:BTC-USD quote 2"), "{back:?}");
    }

    /// What a line hands out when its capture ends and another one goes on from it.
    fn joined(feed: &mut Feed) -> Vec<String> {
        let mut ticks = Vec::new();
        let rx_ns = feed.rx_ns;
        feed.lines[0].joined(rx_ns, &mut feed.sequencer, |tick| ticks.push(*tick));
        ticks.iter().map(|tick| feed.text(tick)).collect()
    }

    #[test]
    fn a_book_is_stale_behind_a_join_until_its_checksum_proves_it() {
        let named = |name: &str| frame(Wire::Kraken, name);
        let mut feed = Feed::new(Wire::Kraken);
        feed.take(&named("v1_book_snapshot"));
        assert_eq!(joined(&mut feed), ["kraken:XBT/USD status stale"]);
        assert_eq!(feed.take(&named("v1_heartbeat")), NOTHING, "it says nothing of the symbol");
        assert_eq!(
            feed.take(&named("v1_book_two_parts_of_the_guide")),
            ["kraken:XBT/USD status live"],
            "the checksum is right, and the best prices are those that were told"
        );
        joined(&mut feed);
        let bad = named("v1_book_one_side").replace("3878920805", "3878920806");
        assert_eq!(
            feed.take(&bad),
            ["kraken:XBT/USD gap quote 2..2"],
            "something is missing: it stays stale"
        );
    }

    #[test]
    fn without_proof_a_book_is_a_gap_behind_a_join() {
        let named = |name: &str| frame(Wire::Coinbase, name);
        let mut feed = Feed::new(Wire::Coinbase);
        feed.take(&named("snapshot"));
        feed.take(&named("match"));
        assert_eq!(joined(&mut feed), ["coinbase:BTC-USD status stale"]);
        let trade = feed.take(&named("match").replace("633500001", "633500003"));
        assert_eq!(trade[0], "coinbase:BTC-USD gap trade 2..2", "trades are numbered");
        assert_eq!(trade.len(), 2, "and the state stays stale for the book: {trade:?}");
        assert_eq!(feed.take(&named("l2update")), ["coinbase:BTC-USD gap quote 2..2"]);
        assert_eq!(feed.take(&named("l2update")), NOTHING);
        let back = feed.take(&named("snapshot"));
        assert_eq!(back[0], "coinbase:BTC-USD status live");
    }

    #[test]
    fn what_is_not_heard_of_again_stays_stale_behind_a_join() {
        let mut feed = Feed::new(Wire::Native);
        let trade =
            |symbol: &str| format!(r#"{{"type":"trade","symbol":"demo:{symbol}","price":"1","size":"1"}}"#);
        feed.take(&trade("A"));
        feed.take(&trade("B"));
        let stale = joined(&mut feed);
        assert_eq!(stale.len(), 2, "{stale:?}");
        assert_eq!(feed.take(&trade("A"))[0], "demo:A status live");
        // Silence that ends says nothing of what has not come.
        let (rx_ns, mut told) = (feed.rx_ns, Vec::new());
        feed.lines[0].set_silent(true, rx_ns, &mut feed.sequencer, &mut |tick: &Tick| told.push(*tick));
        let told: Vec<_> = told.iter().map(|tick| feed.text(tick)).collect();
        assert_eq!(told, ["demo:A status stale"], "only one was live");
        assert_eq!(feed.take(&trade("A"))[0], "demo:A status live");
        assert_eq!(feed.take(&trade("B"))[0], "demo:B status live");
    }
}

/// What is done to a good frame to spoil it.
#[derive(Clone, Debug)]
enum Spoil {
    Byte(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
    Insert(usize, &'static str),
    /// Puts this in the place of a number.
    Number(usize, &'static str),
}

impl Spoil {
    fn apply(&self, frame: &mut Vec<u8>) {
        let len = frame.len();
        if len == 0 {
            return;
        }
        let range = |at: usize, count: usize| at % len..(at % len + count % 16).min(len);
        match *self {
            Self::Byte(at, byte) => frame[at % len] = byte,
            Self::Cut(at) => frame.truncate(at % len),
            Self::Remove(at, count) => drop(frame.drain(range(at, count))),
            Self::Repeat(at, count) => {
                let part = frame[range(at, count)].to_vec();
                frame.splice(at % len..at % len, part);
            }
            Self::Insert(at, text) => drop(frame.splice(at % len..at % len, text.bytes())),
            Self::Number(nth, text) => {
                let inside = |b: &u8| b.is_ascii_digit() || *b == b'.';
                let starts: Vec<_> =
                    (0..len).filter(|&i| inside(&frame[i]) && (i == 0 || !inside(&frame[i - 1]))).collect();
                if let Some(&from) = starts.get(nth % starts.len().max(1)) {
                    let to = (from..len).find(|&i| !inside(&frame[i])).unwrap_or(len);
                    frame.splice(from..to, text.bytes());
                }
            }
        }
    }
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let text = proptest::sample::select(vec![
        "null", "[]", "{}", "\"\"", "\\", "\"", "[[", ",", ":", "\u{0}", "é", "true", "-1", "\\u0000",
    ]);
    let number = proptest::sample::select(vec![
        "0",
        "1",
        "-1",
        "0.0",
        "1e5",
        "1e999",
        "1e-999",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        "0.000000000000000000000000000001",
        "4294967296",
    ]);
    prop_oneof![
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Byte(at, byte)),
        1 => any::<usize>().prop_map(Spoil::Cut),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(at, count)| Spoil::Remove(at, count)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(at, count)| Spoil::Repeat(at, count)),
        1 => (any::<usize>(), text).prop_map(|(at, text)| Spoil::Insert(at, text)),
        4 => (any::<usize>(), number).prop_map(|(nth, text)| Spoil::Number(nth, text)),
    ]
}

/// A trade of a symbol that no other frame names, and what it becomes.
fn probe(wire: Wire) -> (String, &'static str) {
    match wire {
        Wire::Coinbase => (
            frame(wire, "match").replace("BTC-USD", "PROBE").replace("633500001", "7"),
            "coinbase:PROBE trade 1 buy 0.02340000 @ 62010.01 id 7 ts 1714564800423456",
        ),
        Wire::Binance => (
            frame(wire, "trade").replace("BTCUSDT", "PROBE"),
            "binance:PROBE trade 1 sell 0.00200000 @ 62010.01000000 id 3561000001 ts 1714564800121000",
        ),
        Wire::BinanceFutures => (
            frame(wire, "trade").replace("BTCUSDT", "PROBE"),
            "binance-futures:PROBE trade 1 buy 0.015 @ 62005.10 id 4930000001 ts 1714564800128000",
        ),
        Wire::Kraken => (
            r#"[9,[["1.50","2","1714564800.5","s","m",""]],"trade","PROBE"]"#.to_owned(),
            "kraken:PROBE trade 1 sell 2 @ 1.50 ts 1714564800500000",
        ),
        Wire::Native => (
            frame(wire, "trade").replace("demo:ABC", "demo:PROBE"),
            "demo:PROBE trade 1 buy 3 @ 1.2500 id x-17 ts 1714564800123456",
        ),
    }
}

/// Takes in frames of which any may be bad, and then one that is good.
fn survives(wire: Wire, frames: &[Vec<u8>]) {
    let mut feed = Feed::new(wire);
    let mut bad = 0;
    for frame in frames {
        feed.prime(frame);
        let (_, result) = feed.try_take(0, frame);
        bad += u64::from(result.is_err());
    }
    assert_eq!((feed.stats().frames, feed.stats().bad_frames), (frames.len() as u64, bad));
    let (good, trade) = probe(wire);
    assert_eq!(feed.take(&good).last().map(String::as_str), Some(trade));
}

#[test]
fn good_frames_are_all_read() {
    for wire in Wire::ALL {
        let frames: Vec<_> = frames(wire).into_iter().map(String::into_bytes).collect();
        assert!(frames.len() >= 4, "{wire}");
        let mut feed = Feed::new(wire);
        for frame in &frames {
            let (_, result) = feed.try_take(0, frame);
            assert_eq!(result, Ok(()), "{}", String::from_utf8_lossy(frame));
        }
        survives(wire, &frames);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6)) {
        for wire in Wire::ALL {
            survives(wire, &frames);
        }
    }

    #[test]
    fn spoilt_frames_are_survived(
        picks in proptest::collection::vec((any::<usize>(), proptest::collection::vec(spoil(), 0..4)), 1..24)
    ) {
        for wire in Wire::ALL {
            let good = [frames(wire), cases()].concat();
            let spoilt: Vec<_> = picks
                .iter()
                .map(|(pick, spoils)| {
                    let mut frame = good[pick % good.len()].clone().into_bytes();
                    spoils.iter().for_each(|spoil| spoil.apply(&mut frame));
                    frame
                })
                .collect();
            survives(wire, &spoilt);
        }
    }
}
