//! Messages of Binance, spot and futures.

use super::*;

fn spot(name: &str) -> String {
    frame(WireFormat::Binance, name)
}

fn futures(name: &str) -> String {
    frame(WireFormat::BinanceFutures, name)
}

/// What a raw message becomes on a line of its own; its combined form must become the same.
fn ticks(wire: WireFormat, stream: &str, raw: &str) -> Vec<String> {
    let ticks = Feed::new(wire).take(raw);
    assert_eq!(Feed::new(wire).take(&combined(stream, raw)), ticks);
    assert!(ticks.is_empty() || ticks[0].ends_with("status live"));
    ticks.into_iter().skip(1).collect()
}

#[test]
fn spot_messages() {
    let wire = WireFormat::Binance;
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
    let wire = WireFormat::BinanceFutures;
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
    let mut feed = Feed::new(WireFormat::BinanceFutures);
    feed.take(&futures("bookTicker"));
    assert_eq!(feed.take(&futures("bookTicker")).len(), 1, "also where nothing changed");
    assert_eq!(feed.take(&futures("depthSnapshot")), NOTHING, "it wins over a book");
    assert_eq!(feed.take(&futures("depthUpdate")), NOTHING);
    assert_eq!((feed.stats().quotes, feed.stats().gaps), (2, 0));
}

#[test]
fn a_depth_snapshot_makes_a_book() {
    let mut feed = Feed::new(WireFormat::Binance);
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
    let mut feed = Feed::new(WireFormat::BinanceFutures);
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
    let mut feed = Feed::new(WireFormat::BinanceFutures);
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
    assert!(feed.take(&combined("depthSnapshot", &told))[1].starts_with("binance-futures:ETHUSDT quote 1"));
}

#[test]
fn a_break_of_the_spot_chain_needs_a_snapshot() {
    let mut feed = Feed::new(WireFormat::Binance);
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
    let mut feed = Feed::new(WireFormat::Binance);
    feed.take(&spot("depthSnapshot").replace("46500000010", "46500000007"));
    assert_eq!(
        feed.take(&spot("depthUpdate")),
        ["binance:BTCUSDT gap quote 2..2", "binance:BTCUSDT status stale"]
    );
}

#[test]
fn a_break_of_pu_needs_a_snapshot() {
    let mut feed = Feed::new(WireFormat::BinanceFutures);
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
    let mut feed = Feed::new(WireFormat::BinanceFutures);
    feed.take(&futures("bookTicker"));
    feed.take(&futures("depthUpdate"));
    assert_eq!(feed.take(&futures("depthUpdate")), NOTHING, "what comes twice is no break");
    assert_eq!(feed.take(&behind_a_hole()), ["binance-futures:BTCUSDT gap quote 2..2"]);
    assert!(feed.take(&futures("bookTicker"))[0].starts_with("binance-futures:BTCUSDT quote 3"));
}

#[test]
fn book_tickers_take_over_from_a_broken_book() {
    let mut feed = Feed::new(WireFormat::BinanceFutures);
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
    let mut feed = Feed::new(WireFormat::Binance);
    assert_eq!(feed.take(&execution(1)).len(), 2);
    assert_eq!(feed.take(&aggregate(1, 1)), NOTHING);
    assert_eq!(feed.take(&execution(2)).len(), 1);
    assert_eq!(feed.take(&execution(3)).len(), 1);
    assert_eq!(feed.take(&aggregate(2, 3)), NOTHING);
    assert_eq!((feed.stats().trades, feed.stats().repeated), (3, 2));
}

#[test]
fn where_aggregates_came_first_no_execution_is_told_twice() {
    let mut feed = Feed::new(WireFormat::Binance);
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
    let mut feed = Feed::new(WireFormat::Binance);
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
    let mut feed = Feed::new(WireFormat::BinanceFutures);
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
    let mut feed = Feed::new(WireFormat::BinanceFutures);
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
