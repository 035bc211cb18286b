//! Inputs of kinds that other programs were found to tell wrongly: what `normalize` and `inspect` make of them. The inputs
//! lie in `tests/cases/`, and each test names the id of its case.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn input(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

/// A capture in the form of hftbacktest with these frames, a second apart.
fn capture(folder: &Path, name: &str, first_s: u64, frames: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let lines = (first_s..).zip(frames).map(|(second, frame)| format!("{second}000000000 {frame}\n"));
    std::fs::write(&path, lines.collect::<String>()).expect("a file");
    path
}

fn tickfan(arguments: &[&str], files: &[PathBuf]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tickfan")).args(arguments).args(files).output();
    output.expect("the program runs")
}

/// What `normalize` prints, a short text for each line, and what it says on standard error.
fn normalize_with(arguments: &[&str], files: &[PathBuf]) -> (Vec<String>, String) {
    let output = tickfan(&[&["normalize"], arguments].concat(), files);
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    (lines.lines().map(short).collect(), log)
}

fn normalize(files: &[PathBuf]) -> (Vec<String>, String) {
    normalize_with(&[], files)
}

fn told(name: &str) -> Vec<String> {
    normalize(&[input(name)]).0
}

/// `trade 100.1 x 1`, `quote 9.98 x 4 / 10.01 x 1`, `gap quote 2..2`.
fn short(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect("a JSON line");
    let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
    match line["type"].as_str() {
        Some("trade") => format!("trade {} x {}", text("price"), text("size")),
        Some("quote") => {
            format!("quote {} x {} / {} x {}", text("bid"), text("bid_size"), text("ask"), text("ask_size"))
        }
        Some("gap") => format!("gap {} {}..{}", text("channel"), line["from"], line["to"]),
        _ => panic!("{line}"),
    }
}

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
fn f04_an_empty_side_is_absent_and_two_are_no_quote() {
    assert_eq!(told("zero-quotes-kraken-v1.txt"), [""; 0]);
    assert_eq!(told("zero-quotes-binance.txt"), ["quote - x - / 25.36520000 x 40.66000000"]);
}

#[test]
fn f04_a_quote_that_empties_is_told_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let ticker = |bid: &str, ask: &str| {
        format!(
            r#"{{"type":"ticker","product_id":"BTC-USD","price":"1","best_bid":"{bid}","best_bid_size":"1","best_ask":"{ask}","best_ask_size":"1","time":"2026-07-01T00:00:00Z"}}"#
        )
    };
    let frames =
        [ticker("0", "0.00"), ticker("5", "0"), ticker("0", "0"), ticker("0", "0"), ticker("0", "6")];
    let file = capture(folder.path(), "a", 1_780_000_000, &frames.each_ref().map(String::as_str));
    assert_eq!(
        normalize(&[file]).0,
        ["quote 5 x 1 / - x -", "quote - x - / - x -", "quote - x - / 6 x 1"],
        "an old price does not stay live"
    );
}

#[test]
fn f04_native_quotes_may_be_at_0_and_below() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = capture(
        folder.path(),
        "a",
        1_780_000_000,
        &[
            r#"{"type":"quote","symbol":"demo:SPREAD","bid":"-0.25","bid_size":"4","ask":"0.00","ask_size":"2"}"#,
            r#"{"type":"quote","symbol":"demo:SPREAD","bid":"-0.25","bid_size":"0","ask":"0.25","ask_size":"2"}"#,
            r#"{"type":"trade","symbol":"demo:SPREAD","price":"0","size":"2"}"#,
            r#"{"type":"quote","symbol":"demo:SPREAD","bid":"1","bid_size":"-1"}"#,
            r#"{"type":"trade","symbol":"demo:SPREAD","price":"1","size":"-2"}"#,
            r#"{"type":"trade","symbol":"demo:SPREAD","price":"1","size":"0.0"}"#,
            r#"{"type":"trade","symbol":"demo:SPREAD","price":"1","size":"1","ts":1780000000}"#,
            r#"{"type":"trade","symbol":"demo:SPREAD","price":"1","size":"1","ts":1780000000000000000}"#,
        ],
    );
    let (told, log) = normalize(&[file]);
    assert_eq!(
        told,
        ["quote -0.25 x 4 / 0.00 x 2", "quote - x - / 0.25 x 2", "trade 0 x 2"],
        "what a publisher calls a price is one"
    );
    for (line, what) in [
        (4, "field `bid_size`: -1: a size is not negative"),
        (5, "field `size`: -2: a trade has a size above 0"),
        (6, "field `size`: 0.0: a trade has a size above 0"),
        (7, "field `ts`: 1780000000 microseconds since 1970 are not between 2000 and 2199"),
        (8, "field `ts`: 1780000000000000000 microseconds"),
    ] {
        assert!(log.contains(&format!(":{line}: {what}")), "{what}: {log}");
    }
}

#[test]
fn f05_partial_books_are_no_changes() {
    let told_both = told("futures-partial-and-diff.txt");
    assert_eq!(told_both.last().map(String::as_str), Some("quote 2886.71 x 0.500 / 2886.72 x 69.000"));
    assert!(told_both.iter().all(|line| !line.starts_with("gap")), "{told_both:?}");
    assert_eq!(
        told("futures-partial-only.txt"),
        ["quote 2886.71 x 0.454 / 2886.72 x 77.215", "quote 2886.69 x 1.000 / 2886.70 x 5.000"]
    );
}

#[test]
fn f05_a_partial_book_is_a_quote_when_its_best_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let partial = |stream: &str, size: &str, other: &str| {
        format!(
            r#"{{"stream":"{stream}","data":{{"lastUpdateId":7,"bids":[["10","{size}"],["9","{other}"]],"asks":[]}}}}"#
        )
    };
    for (depth, name) in [("depth5", "depth5"), ("depth10@100ms", "depth10"), ("depth20@500ms", "depth20")] {
        let stream = format!("ethusdt@{depth}");
        let frames = [
            partial(&stream, "1", "1"),
            partial(&stream, "1", "2"),
            partial(&stream, "3", "2"),
            partial(&stream, "0", "2"),
        ];
        let file = capture(folder.path(), name, 1_780_000_000, &frames.each_ref().map(String::as_str));
        let (told, log) = normalize(&[file]);
        assert_eq!(told, ["quote 10 x 1 / - x -", "quote 10 x 3 / - x -", "quote - x - / - x -"], "{stream}");
        assert!(log.contains(&format!("4 {name}\n")), "{log}");
    }
}

#[test]
fn f06_a_partial_book_seeds_no_other() {
    let told = told("spot-partial-and-diff.txt");
    assert_eq!(told, ["quote 10.00 x 1 / 10.01 x 1", "quote 9.98 x 4 / 10.01 x 1"]);
}

#[test]
fn f07_changes_before_a_snapshot_are_applied_to_it() {
    assert_eq!(told("futures-older-snapshot.txt"), ["quote 100 x 2 / 101 x 1"]);
}

/// Spot: `U`–`u`, the bid it sets.
fn spot_change(first: u64, last: u64, bid: &str) -> String {
    format!(
        r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1787227200100,"s":"BTCUSDT","U":{first},"u":{last},"b":[["{bid}","1"]],"a":[]}}}}"#
    )
}

fn spot_snapshot(last: u64) -> String {
    format!(
        r#"{{"stream":"btcusdt@depthSnapshot","data":{{"lastUpdateId":{last},"bids":[["90","9"]],"asks":[["200","9"]]}}}}"#
    )
}

#[test]
fn f07_a_snapshot_joins_wherever_it_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = [(101, 105, "91"), (106, 110, "92"), (111, 111, "93"), (112, 120, "94")];
    // The snapshot stands behind `at` changes, and holds what comes up to `last`.
    for at in 0..=changes.len() {
        for last in [100, 103, 105, 109, 110, 111, 120] {
            let mut frames: Vec<String> =
                changes.iter().map(|(first, last, bid)| spot_change(*first, *last, bid)).collect();
            frames.insert(at, spot_snapshot(last));
            let file = capture(
                folder.path(),
                "a",
                1_787_227_200,
                &frames.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            let (told, log) = normalize(&[file]);
            let mut applied = changes.iter().filter(|(_, change, _)| *change > last);
            let best = applied.next_back().map_or("90 x 9", |(_, _, bid)| *bid);
            let newest = told.last().expect("a quote");
            assert!(newest.starts_with(&format!("quote {best}")), "at {at}, {last}: {told:?}");
            assert!(told.iter().all(|line| !line.starts_with("gap")), "at {at}, {last}: {told:?}");
            assert!(log.contains("sequence breaks 0"), "{log}");
        }
    }
}

#[test]
fn f07_a_snapshot_that_the_changes_do_not_reach_is_no_book() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames =
        [spot_change(101, 105, "91"), spot_snapshot(99), spot_change(106, 110, "92"), spot_snapshot(104)];
    let file = capture(folder.path(), "a", 1_787_227_200, &frames.each_ref().map(String::as_str));
    let (told, log) = normalize(&[file]);
    assert_eq!(told, ["quote 92 x 1 / 200 x 9"], "the later one does: change 105 is kept");
    assert!(log.contains("refused snapshots 1"), "{log}");
}

#[test]
fn f07_an_older_snapshot_does_not_turn_a_book_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames = [
        spot_snapshot(100),
        spot_change(101, 105, "91"),
        spot_change(106, 110, "92"),
        spot_snapshot(105),
        spot_snapshot(50),
        spot_change(111, 112, "93"),
    ];
    let file = capture(folder.path(), "a", 1_787_227_200, &frames.each_ref().map(String::as_str));
    let (told, log) = normalize(&[file]);
    assert_eq!(
        told,
        [
            "quote 90 x 9 / 200 x 9",
            "quote 91 x 1 / 200 x 9",
            "quote 92 x 1 / 200 x 9",
            "quote 93 x 1 / 200 x 9"
        ]
    );
    assert!(log.contains("sequence breaks 0"), "{log}");
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
fn f10_a_checksum_counts_zeros_that_were_lost() {
    let (told, log) = normalize(&[input("kraken-v2-reserialised.txt")]);
    assert_eq!(told[0], "quote 63299.4 x 0.00209987 / 63299.5 x 0.4388201");
    assert!(log.contains("checksums good 2, bad 0"), "{log}");
}

#[test]
fn f10_a_check_can_be_turned_off_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(input("kraken-v2-reserialised.txt")).expect("the input");
    let file = folder.path().join("spoilt");
    std::fs::write(&file, text.replace("1490766955", "1490766956")).expect("a file");
    let files = [file];
    let (told, log) = normalize(&files);
    assert_eq!((told.len(), log.contains("checksums good 0, bad 1")), (1, true), "{told:?} {log}");
    let (told, log) = normalize_with(&["--checks-off", "checksum"], &files);
    assert_eq!(told, ["quote 63299.4 x 0.00209987 / 63299.5 x 0.4388201"]);
    assert!(log.contains("checks off: checksum"), "{log}");
    let refused = tickfan(&["normalize", "--checks-off", "checksums"], &files);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("checksum, sequence, crossed"), "{error}");
}

#[test]
fn f10_the_other_checks_can_be_turned_off_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames = [spot_snapshot(100), spot_change(101, 105, "91"), spot_change(108, 110, "92")];
    let file = capture(folder.path(), "a", 1_787_227_200, &frames.each_ref().map(String::as_str));
    let files = [file, input("crossed.txt")];
    let broken = normalize(&files).0;
    assert!(broken.contains(&"gap quote 3..3".to_owned()), "{broken:?}");
    let unbroken = normalize_with(&["--checks-off", "sequence,crossed"], &files).0;
    assert!(unbroken.contains(&"quote 92 x 1 / 200 x 9".to_owned()), "{unbroken:?}");
    assert!(unbroken.contains(&"quote 102.00 x 1 / 101.00 x 1".to_owned()), "{unbroken:?}");
}

#[test]
fn f21_lists_of_messages_have_the_venues_word() {
    let output = tickfan(&["inspect", "--venue", "binance-futures"], &[input("array-kinds.txt")]);
    let report = String::from_utf8(output.stdout).expect("UTF-8");
    for kind in ["1 markPriceUpdate", "1 24hrTicker", "1 24hrMiniTicker"] {
        assert!(report.contains(kind), "{report}");
    }
}

#[test]
fn f23_a_crossed_book_is_not_told_as_live() {
    let (told, log) = normalize(&[input("crossed.txt")]);
    assert_eq!(told, ["quote 100.00 x 1 / 101.00 x 1"]);
    assert!(log.contains("crossed 1\n"), "{log}");
    let output = tickfan(&["inspect", "--json"], &[input("crossed.txt")]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["crossed"], 1);
}

#[test]
fn f23_it_is_told_again_when_it_is_not_crossed_any_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let change = |change: &str| {
        format!(
            r#"{{"type":"l2update","product_id":"BTC-USD","changes":[{change}],"time":"2026-07-01T00:00:03Z"}}"#
        )
    };
    let frames = [
        r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["100.00","1"]],"asks":[["101.00","1"]]}"#
            .to_owned(),
        change(r#"["buy","101.00","2"]"#),
        change(r#"["buy","102.00","1"]"#),
        change(r#"["sell","101.00","0"],["sell","103.00","4"]"#),
        change(r#"["sell","101.50","3"]"#),
        change(r#"["sell","101.50","0"]"#),
    ];
    let file = capture(folder.path(), "a", 1_780_000_000, &frames.each_ref().map(String::as_str));
    let (told, log) = normalize(&[file]);
    assert_eq!(
        told,
        ["quote 100.00 x 1 / 101.00 x 1", "quote 101.00 x 2 / 101.00 x 1", "quote 102.00 x 1 / 103.00 x 4"],
        "a bid at the ask is no crossed one"
    );
    assert!(log.contains("crossed 2\n"), "{log}");
}

#[test]
fn one_bad_level_costs_what_is_not_known_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let change = |change: &str| {
        format!(
            r#"{{"type":"l2update","product_id":"BTC-USD","changes":[{change}],"time":"2026-07-01T00:00:03Z"}}"#
        )
    };
    let frames = [
        r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["100.00","1"],["99","1"]],"asks":[["101.00","1"]]}"#
            .to_owned(),
        // Behind the best price: it costs its level.
        change(r#"["buy","99","-5"],["sell","101.00","2"]"#),
        // At the best price: nobody knows the best bid.
        change(r#"["buy","100.00","1.2.3"]"#),
        change(r#"["sell","101.00","3"]"#),
        // A better one is known.
        change(r#"["buy","100.50","7"]"#),
        // Then it is not, until the level is told again.
        change(r#"["buy","100.50","0"]"#),
        change(r#"["buy","100.00","8"]"#),
    ];
    let file = capture(folder.path(), "a", 1_780_000_000, &frames.each_ref().map(String::as_str));
    let (told, log) = normalize(&[file]);
    assert_eq!(
        told,
        [
            "quote 100.00 x 1 / 101.00 x 1",
            "quote 100.00 x 1 / 101.00 x 2",
            "quote 100.50 x 7 / 101.00 x 3",
            "quote 100.00 x 8 / 101.00 x 3",
        ]
    );
    assert!(log.contains("refused levels 2") && log.contains(":2: field `size`: -5"), "{log}");
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
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let times: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["ts"].clone()).collect();
    assert_eq!(times, [Value::from(1_746_194_730_698_000u64), Value::Null, Value::Null]);
    let log = String::from_utf8(output.stderr).expect("UTF-8");
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
fn f01_files_that_follow_one_another_are_one_stream() {
    let files = [input("two-files-a.txt"), input("two-files-b.txt")];
    let one = ["trade 100.1 x 1", "trade 100.2 x 1", "trade 2000.2 x 1"];
    let (told, log) = normalize(&files);
    assert_eq!(told, one);
    assert!(log.contains("trades 3, quotes 0, gaps 0, repeated 0") && log.contains("2 files"), "{log}");
    assert_eq!(normalize(&[files[1].clone(), files[0].clone()]).0, one, "named in any order");
    let report = tickfan(&["inspect"], &files);
    let report = String::from_utf8(report.stdout).expect("UTF-8");
    assert!(report.contains("two-files-b.txt goes on from") && report.contains("60.000 s later"), "{report}");
    let report = tickfan(&["inspect", "--json"], &files);
    let last = String::from_utf8(report.stdout).expect("UTF-8");
    let joins: Value = serde_json::from_str(last.lines().last().expect("a line")).expect("JSON");
    assert_eq!(joins["joins"][0]["pause_ns"], 60_000_000_000u64);
    assert_eq!(joins["joins"][0]["seamless"], false);
}

#[test]
fn f01_a_book_goes_on_where_the_chain_proves_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let parts = |second: &str| {
        let frames = [spot_snapshot(100), spot_change(101, 105, "91")];
        let a = capture(folder.path(), "a", 1_787_227_200, &frames.each_ref().map(String::as_str));
        [a, capture(folder.path(), "b", 1_787_227_260, &[second])]
    };
    let told = normalize(&parts(&spot_change(106, 107, "92"))).0;
    assert_eq!(told, ["quote 90 x 9 / 200 x 9", "quote 91 x 1 / 200 x 9", "quote 92 x 1 / 200 x 9"]);
    let told = normalize(&parts(&spot_change(108, 109, "93"))).0;
    assert_eq!(told, ["quote 90 x 9 / 200 x 9", "quote 91 x 1 / 200 x 9", "gap quote 3..3"]);
}

#[test]
fn f01_lines_that_were_recorded_side_by_side_each_have_their_successor() {
    let folder = tempfile::tempdir().expect("a folder");
    let trade = |id: u64| {
        format!(
            r#"{{"type":"match","trade_id":{id},"side":"buy","size":"1","price":"{id}","product_id":"BTC-USD","sequence":{id}}}"#
        )
    };
    let update = |size: u64| {
        format!(
            r#"{{"type":"l2update","product_id":"BTC-USD","changes":[["buy","9","{size}"]],"time":"2026-07-01T00:00:03Z"}}"#
        )
    };
    let snapshot = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["9","1"]],"asks":[]}"#;
    let book = capture(folder.path(), "book-1", 1_780_000_000, &[snapshot, &update(2)]);
    let trades = capture(folder.path(), "trades-1", 1_780_000_000, &[&trade(1), &trade(2)]);
    let more_book = capture(folder.path(), "book-2", 1_780_000_060, &[snapshot, &update(3)]);
    let more_trades = capture(folder.path(), "trades-2", 1_780_000_060, &[&trade(4), &trade(5)]);
    let (told, log) = normalize(&[more_trades, book, more_book, trades]);
    let of =
        |what: &str| told.iter().filter(|line| line.contains(what)).map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("trade"), ["trade 1 x 1", "trade 2 x 1", "gap trade 3..3", "trade 4 x 1", "trade 5 x 1"]);
    assert_eq!(
        of("quote"),
        ["quote 9 x 1 / - x -", "quote 9 x 2 / - x -", "quote 9 x 1 / - x -", "quote 9 x 3 / - x -"]
    );
    assert!(log.contains("trades-1 to ") && log.contains("book-1 to "), "{log}");
}

#[test]
fn f01_the_segments_of_a_recording_one_by_one_are_the_recording() {
    use tickfan::capture::SegmentWriter;
    use tickfan::venue::Wire;
    let folder = tempfile::tempdir().expect("a folder");
    let lines = folder.path().join("coinbase.1");
    std::fs::create_dir(&lines).expect("a folder");
    let snapshot = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["9","1"]],"asks":[]}"#.to_owned();
    let update = |size: u64| {
        format!(
            r#"{{"type":"l2update","product_id":"BTC-USD","changes":[["buy","9","{size}"]],"time":"2026-07-01T00:00:03Z"}}"#
        )
    };
    let run_ns = 1_780_000_000_000_000_000;
    let write = |run_ns: u64, number: u32, frames: &[String]| {
        let path = lines.join(tickfan::capture::segment_name(run_ns, number));
        let mut writer =
            SegmentWriter::new(std::fs::File::create(&path).expect("a file"), 3).expect("a level");
        let from_ns = run_ns + u64::from(number) * 1_000_000_000;
        let note = format!("segment run={run_ns} number={number} venue={} by=test", Wire::Coinbase);
        writer.note(from_ns, &note).expect("written");
        for (at, frame) in (0..).zip(frames) {
            writer.frame(from_ns + at, frame.as_bytes());
        }
        writer.flush().expect("written");
        path
    };
    let files = [
        write(run_ns, 1, &[snapshot.clone(), update(2)]),
        write(run_ns, 2, &[update(3)]),
        write(run_ns, 3, &[update(4), update(5)]),
    ];
    let whole = normalize(std::slice::from_ref(&lines)).0;
    assert_eq!(whole.len(), 5);
    assert_eq!(normalize(&[files[2].clone(), files[0].clone(), files[1].clone()]).0, whole);
    let (told, _) = normalize(&[files[2].clone(), files[0].clone()]);
    assert_eq!(told, whole[..2], "one is missing between them: nobody knows the book");
}

/// The ticks of a replay on a clock that is set by hand: how many milliseconds after the first each came, and what it says of
/// itself at the end.
fn paced(file: &Path, max_idle_ms: Option<u64>) -> (Vec<u64>, String) {
    use std::sync::Arc;
    use std::time::Duration;
    use tickfan::feed::{LineId, LineLimits, Replay, ReplaySpec, Sequencer, Stamp, Step};
    use tickfan::model::instrument::InstrumentTable;
    use tickfan::model::tick::Body;
    use tickfan::time::clock::Clock;

    let clock = Clock::manual();
    let mut spec = ReplaySpec::new(vec![file.to_owned()]);
    spec.idle_ns_max = max_idle_ms.map(|ms| ms * 1_000_000);
    let mut replay = Replay::open(spec, &LineLimits::default(), LineId(0)).expect("a capture");
    let mut sequencer = Sequencer::new(Arc::new(InstrumentTable::new(16)));
    replay.prime(&mut sequencer);
    let mut times = Vec::new();
    loop {
        let now = clock.now();
        let step = replay.step(now, Stamp::Live(&clock), &mut sequencer, |tick| {
            if matches!(tick.body, Body::Trade(_)) {
                times.push(now.mono_ns / 1_000_000);
            }
        });
        match step {
            Step::Took => {}
            Step::Due(due) => clock.advance(Duration::from_nanos(due.mono_ns - now.mono_ns)),
            Step::Ended => break,
            other => panic!("{other:?}"),
        }
    }
    let first = times[0];
    (times.iter().map(|time| time - first).collect(), replay.summary())
}

/// Trades with these offsets of their receive times, milliseconds.
fn stepping(folder: &Path, offsets_ms: &[i64]) -> PathBuf {
    let line = |(id, offset_ms): (usize, &i64)| {
        let rx_ns = (1_780_000_000_000 + offset_ms) * 1_000_000;
        format!(
            r#"{rx_ns} {{"type":"match","trade_id":{id},"side":"buy","size":"1","price":"1","product_id":"BTC-USD","sequence":{id}}}"#
        ) + "\n"
    };
    let path = folder.join("stepping");
    std::fs::write(&path, offsets_ms.iter().enumerate().map(line).collect::<String>()).expect("a file");
    path
}

const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_clock_that_steps_back_does_not_make_a_replay_rush() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = stepping(folder.path(), &[0, 1_000, 1_000 - HOUR_MS, 2_000 - HOUR_MS, 3_500 - HOUR_MS]);
    let (times, summary) = paced(&file, None);
    assert_eq!(times, [0, 1_000, 1_000, 2_000, 3_500], "it goes on from the step");
    assert!(summary.ends_with("clock_steps back=1 forward=0 longest_s=3600"), "{summary}");
    // Back, and put right again.
    let file = stepping(folder.path(), &[0, 1_000, -HOUR_MS, 500 - HOUR_MS, 2_000, 3_000]);
    assert_eq!(paced(&file, None).0, [0, 1_000, 1_000, 1_500, 2_000, 3_000]);
    // A little is no step: the record waits for nobody.
    let (times, summary) = paced(&stepping(folder.path(), &[0, 1_000, 400, 900, 1_500]), None);
    assert_eq!(times, [0, 1_000, 1_000, 1_000, 1_500]);
    assert!(!summary.contains("clock_steps"), "{summary}");
}

#[test]
fn a_clock_that_steps_forward_does_not_make_a_replay_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = stepping(folder.path(), &[0, 1_000, 24 * HOUR_MS, 24 * HOUR_MS + 1_000]);
    let (times, summary) = paced(&file, None);
    assert_eq!(times, [0, 1_000, 1_000, 2_000], "it goes on from the step");
    assert!(summary.contains("clock_steps back=0 forward=1 longest_s=86399"), "{summary}");
    assert_eq!(paced(&file, Some(5_000)).0, [0, 1_000, 6_000, 7_000], "what is asked for goes first");
    assert_eq!(
        paced(&file, Some(48 * HOUR_MS as u64)).0[2],
        24 * HOUR_MS as u64,
        "all of it, if it is asked for"
    );
    let report = tickfan(&["inspect"], std::slice::from_ref(&file));
    let report = String::from_utf8(report.stdout).expect("UTF-8");
    assert!(
        report.contains("the clock stepped forward, or nothing came for over an hour, 1 times"),
        "{report}"
    );
}

/// A raw trade of Binance spot.
fn spot_trade(symbol: &str, id: u64) -> String {
    format!(
        r#"{{"e":"trade","E":1780000000000,"s":"{symbol}","t":{id},"p":"{id}","q":"1","T":1780000000000,"m":true,"M":true}}"#
    )
}

/// A capture with frames at these offsets, milliseconds.
fn at(folder: &Path, name: &str, frames: &[(u64, String)]) -> PathBuf {
    let path = folder.join(name);
    let line = |(offset_ms, frame): &(u64, String)| {
        format!("{} {frame}\n", (1_780_000_000_000 + offset_ms) * 1_000_000)
    };
    std::fs::write(&path, frames.iter().map(line).collect::<String>()).expect("a file");
    path
}

#[test]
fn f01_a_capture_goes_on_from_the_one_that_tells_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let trades = |name: &str, symbol: &str, offsets: &[u64]| {
        let frames: Vec<_> =
            offsets.iter().map(|offset| (*offset, spot_trade(symbol, *offset / 1_000 + 1))).collect();
        at(folder.path(), name, &frames)
    };
    let files = [
        trades("2024-05-01_ETH", "ETHUSDT", &[0, 10_000]),
        trades("2024-05-01_BTC", "BTCUSDT", &[0, 12_000]),
        trades("2024-05-02_ETH", "ETHUSDT", &[13_000, 23_000, 33_000]),
        trades("2024-05-02_BTC", "BTCUSDT", &[14_000, 24_000, 34_000]),
    ];
    let (told, log) = normalize(&files);
    assert_eq!((told.len(), log.contains("repeated 5")), (10, false), "{log}");
    assert!(log.contains("01_ETH to ") && log.contains("02_ETH, 2 files"), "{log}");
    let report = tickfan(&["inspect"], &files);
    let report = String::from_utf8(report.stdout).expect("UTF-8");
    assert!(report.contains("02_ETH goes on from") && report.contains("01_ETH, 3.000 s later"), "{report}");
}

#[test]
fn f01_what_has_ended_silences_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = [
        at(folder.path(), "y1", &[(0, spot_trade("BUSDT", 1)), (10_000, spot_trade("BUSDT", 2))]),
        at(folder.path(), "y2", &[(5_000, spot_trade("ZUSDT", 1)), (25_000, spot_trade("BUSDT", 3))]),
        at(folder.path(), "y3", &[(1_000_000, spot_trade("ZUSDT", 2))]),
    ];
    let (told, log) = normalize(&files);
    assert_eq!(told.len(), 5, "{told:?} {log}");
}

#[test]
fn f01_a_clock_that_goes_back_a_little_at_the_cut_costs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = [
        at(folder.path(), "f1", &[(0, spot_snapshot(10)), (1_000, spot_change(11, 11, "91"))]),
        at(folder.path(), "f2", &[(999, spot_change(12, 12, "92")), (1_500, spot_change(13, 13, "93"))]),
    ];
    let told = normalize(&files).0;
    assert_eq!(told.len(), 4, "{told:?}");
    // Equal times at the cut, named backwards.
    let files = [
        at(folder.path(), "e4", &[(1_000, spot_change(13, 13, "93"))]),
        at(folder.path(), "e3", &[(1_000, spot_change(12, 12, "92"))]),
        at(folder.path(), "e1", &[(0, spot_snapshot(10)), (1_000, spot_change(11, 11, "91"))]),
    ];
    let told = normalize(&files).0;
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn f01_kraken_books_go_on_where_the_checksum_is_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(input("kraken-v2-reserialised.txt")).expect("the input");
    let lines: Vec<&str> = text.lines().collect();
    let parts: Vec<PathBuf> = [&lines[..2], &lines[2..]]
        .iter()
        .enumerate()
        .map(|(part, lines)| {
            let path = folder.path().join(format!("k{part}"));
            std::fs::write(
                &path,
                lines.join("\n").replace("63296.7,\"qty\":0}", "63299.4,\"qty\":0}") + "\n",
            )
            .expect("a part");
            path
        })
        .collect();
    let (told, log) = normalize_with(&["--checks-off", "checksum"], &parts);
    assert_eq!(told.len(), 2, "{told:?} {log}");
    assert!(told[1].starts_with("quote 63298.7"), "{told:?}");
}

#[test]
fn f07_a_change_that_comes_twice_is_no_break() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes =
        [spot_snapshot(10), spot_change(11, 12, "91"), spot_change(11, 12, "91"), spot_change(13, 13, "93")];
    let one = capture(folder.path(), "one", 1_787_227_200, &changes.each_ref().map(String::as_str));
    let best = ["quote 90 x 9 / 200 x 9", "quote 91 x 1 / 200 x 9", "quote 93 x 1 / 200 x 9"];
    assert_eq!(normalize(&[one]).0, best);
    let a = capture(folder.path(), "a", 1_787_227_200, &[&changes[0], &changes[1]]);
    let b = capture(folder.path(), "b", 1_787_227_210, &[&changes[2], &changes[3]]);
    assert_eq!(normalize(&[a, b]).0, best);
    let late = [&changes[1], &changes[2], &changes[3], &changes[0]].map(String::as_str);
    let late = capture(folder.path(), "late", 1_787_227_200, &late);
    assert_eq!(normalize(&[late]).0, ["quote 93 x 1 / 200 x 9"]);
}

#[test]
fn f07_the_bound_is_shared_and_a_snapshot_that_is_too_old_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let padding = "1".repeat(1_500);
    let mut frames = Vec::new();
    for n in 0..300u64 {
        for symbol in 0..12 {
            let change = spot_change(n + 1, n + 1, "91").replace("BTCUSDT", &format!("S{symbol}USDT"));
            frames.push(change.replace("\"e\":", &format!("\"pad\":\"{padding}\",\"e\":")));
        }
    }
    let late = |text: String| text.replace("BTCUSDT", "LATEUSDT").replace("btcusdt", "lateusdt");
    frames.extend((11..=15).map(|n| late(spot_change(n, n, &format!("{}", 80 + n)))));
    frames.push(late(spot_snapshot(12)));
    let file =
        capture(folder.path(), "a", 1_780_000_000, &frames.iter().map(String::as_str).collect::<Vec<_>>());
    let (told, log) = normalize(&[file]);
    assert_eq!(told, ["quote 95 x 1 / 200 x 9"], "{log}");
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
