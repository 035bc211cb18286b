//! Trades and digits: which are trades, and what one bad part costs.

use super::*;

#[test]
fn f03_trades_outside_of_the_book_are_counted_by_name() {
    let (told, log) = normalize(&[input("futures-offbook-trades.txt")]);
    assert_eq!(told, ["trade 2.2170 x 50.0"]);
    for name in ["1 trade X=NA", "1 trade X=INSURANCE_FUND", "1 trade X=ADL", "1 trade\n"] {
        assert!(log.contains(name), "{name} is not in {log}");
    }
}

#[test]
fn f03_a_raw_trade_of_another_word_is_none_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let trade = |x: &str| {
        format!(
            r#"{{"e":"trade","E":1746194730698,"T":1746194730698,"s":"XRPUSDT","t":1,"p":"2.2","q":"5","X":"{x}","m":false}}"#
        )
    };
    let file = capture(folder.path(), "a", 1_746_194_730, &[&trade("LIQUIDATION"), &trade("MARKET")]);
    let (told, log) = normalize(&[file]);
    assert_eq!(told, ["trade 2.2 x 5"]);
    assert!(log.contains("1 trade X=(other)"), "{log}");
}

#[test]
fn f08_many_digits_are_told_as_written() {
    assert_eq!(
        told("overflow-book.txt"),
        [
            "quote 0.00000849 x 500000.00000000 / 0.00000850 x 1000000.00000000",
            "trade 0.00000850 x 100000000000.00000000"
        ]
    );
}

#[test]
fn f08_28_digits_go_through_every_output() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = capture(
        folder.path(),
        "a",
        1_780_000_000,
        &[
            r#"{"type":"trade","symbol":"demo:TOKEN","price":"0.000000001234567890","size":"1234567890.123456789012345678","trade_id":"0123456789012345678901234567890123456789"}"#,
            r#"{"type":"quote","symbol":"demo:TOKEN","bid":"12.345678901234567890","bid_size":"9999999999999999999999999999","ask":"12.345678901234567891","ask_size":"0.1"}"#,
            r#"{"type":"trade","symbol":"demo:TOKEN","price":"1","size":"12345678901234567890.1234567890"}"#,
        ],
    );
    let (told, log) = normalize(std::slice::from_ref(&file));
    assert_eq!(
        told,
        [
            "trade 0.000000001234567890 x 1234567890.123456789012345678",
            "quote 12.345678901234567890 x 9999999999999999999999999999 / 12.345678901234567891 x 0.1",
        ]
    );
    assert!(log.contains(":3: field `size`") && log.contains("more than 28 digits"), "{log}");
    let tables = folder.path().join("tables");
    let out = tables.to_str().expect("UTF-8");
    let converted = tickfan(&["convert", "--to", "csv", "--out", out], &[file]);
    assert!(converted.status.success(), "{converted:?}");
    let trades = std::fs::read_to_string(tables.join("trades.csv")).expect("trades.csv");
    assert!(trades.contains(",0.000000001234567890,1234567890.123456789012345678"), "{trades}");
}

#[test]
fn f21_lists_of_messages_have_the_venues_word() {
    let output = tickfan(&["inspect", "--venue", "binance-futures"], &[input("array-kinds.txt")]);
    let report = stdout(&output);
    for kind in ["1 markPriceUpdate", "1 24hrTicker", "1 24hrMiniTicker"] {
        assert!(report.contains(kind), "{report}");
    }
}

#[test]
fn times_that_make_no_sense_are_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let trade = |traded: &str, sent: &str| {
        format!(
            r#"{{"e":"trade","E":{sent},"T":{traded},"s":"XRPUSDT","t":1,"p":"2.2","q":"5","M":true,"m":false}}"#
        )
    };
    let frames = [trade("0", "1746194730698"), trade("0", "0"), trade("1746194730698000000", "99")];
    let file = capture(folder.path(), "a", 1_746_194_730, &frames.each_ref().map(String::as_str));
    let output = tickfan(&["normalize"], &[file]);
    let lines = stdout(&output);
    let times: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["ts"].clone()).collect();
    assert_eq!(times, [Value::from(1_746_194_730_698_000u64), Value::Null, Value::Null]);
    let log = output.stderr;
    assert!(log.contains("refused times 2"), "{log}");
}

#[test]
fn a_trade_of_size_0_is_none() {
    let (told, log) = normalize(&[input("agg-zero-size.txt")]);
    assert_eq!(told, ["trade 1868.43 x 1.000"]);
    assert!(log.contains("refused zero_trades 1"), "{log}");
}

#[test]
fn a_trade_of_size_0_takes_its_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let trade = |id: u64, price: &str, size: &str| {
        format!(
            r#"{{"type":"match","trade_id":{id},"side":"buy","size":"{size}","price":"{price}","product_id":"BTC-USD","sequence":1{id}}}"#
        )
    };
    let frames = [trade(1, "5", "1"), trade(2, "5", "0.00"), trade(3, "0", "1"), trade(4, "6", "1")];
    let file = capture(folder.path(), "a", 1_780_000_000, &frames.each_ref().map(String::as_str));
    assert_eq!(normalize(&[file]).0, ["trade 5 x 1", "trade 6 x 1"], "no gap");
}

#[test]
fn who_gains_a_channel_tells_what_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let ticker = |bid: &str| {
        format!(
            r#"{{"stream":"btcusdt@bookTicker","data":{{"u":1,"s":"BTCUSDT","b":"{bid}","B":"1","a":"201","A":"1"}}}}"#
        )
    };
    let partial =
        r#"{"stream":"btcusdt@depth5","data":{"lastUpdateId":1,"bids":[["90","9"]],"asks":[["200","9"]]}}"#
            .to_owned();
    let tickers = at(folder.path(), "tickers", &[(1_000, ticker("95")), (5_000, ticker("96"))]);
    let quotes = |told: &[String]| told.last().cloned().unwrap_or_default();
    let partials = [(0, partial.clone()), (6_000, partial.clone()), (60_000, partial)];
    let told = normalize(&[tickers.clone(), at(folder.path(), "partials", &partials)]).0;
    assert_eq!(quotes(&told), "quote 90 x 9 / 200 x 9", "{told:?}");
    let deep =
        [(0, spot_snapshot(10)), (6_000, spot_change(11, 11, "5")), (60_000, spot_change(12, 12, "6"))];
    let told = normalize(&[tickers, at(folder.path(), "books", &deep)]).0;
    assert_eq!(quotes(&told), "quote 90 x 9 / 200 x 9", "{told:?}");
}

#[test]
fn an_older_trade_does_not_turn_the_numbers_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let trade = |id: u64| {
        format!(
            r#"{{"type":"match","trade_id":{id},"side":"buy","size":"1","price":"{id}","product_id":"BTC-USD","sequence":{id}}}"#
        )
    };
    let frames = [10, 9, 11, 8, 9, 10, 11, 12].map(trade);
    let file = capture(folder.path(), "a", 1_780_000_000, &frames.each_ref().map(String::as_str));
    assert_eq!(normalize(&[file]).0, ["trade 10 x 1", "trade 11 x 1", "trade 12 x 1"]);
}

#[test]
fn one_bad_part_of_a_frame_costs_only_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let v1 = r#"[1,[["5","1","1693415329.0","b","m",""],["6","-1","1693415329.0","b","m",""],["7","1","1693415329.0","b","m",""]],"trade","XBT/USD"]"#;
    let v2 = r#"{"channel":"trade","type":"update","data":[{"symbol":"A/B","side":"buy","price":"x","qty":1,"trade_id":1},{"symbol":"C/D","side":"buy","price":8,"qty":1,"trade_id":2}]}"#;
    let file = capture(folder.path(), "a", 1_780_000_000, &[v1, v2]);
    let (told, log) = normalize(&[file]);
    assert_eq!(told, ["trade 5 x 1", "trade 7 x 1", "trade 8 x 1"]);
    assert!(log.contains("bad lines 2"), "{log}");
}
