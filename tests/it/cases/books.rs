//! Books: empty sides, partial books, snapshots, checksums, and those that are crossed.

use super::*;

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
    let error = &refused.stderr;
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
fn f23_a_crossed_book_is_not_told_as_live() {
    let (told, log) = normalize(&[input("crossed.txt")]);
    assert_eq!(told, ["quote 100.00 x 1 / 101.00 x 1"]);
    assert!(log.contains("crossed 1\n"), "{log}");
    let output = tickfan(&["inspect", "--json"], &[input("crossed.txt")]);
    let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
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
