//! F01: captures that follow one another.

use super::*;

#[test]
fn f01_files_that_follow_one_another_are_one_stream() {
    let files = [input("two-files-a.txt"), input("two-files-b.txt")];
    let one = ["trade 100.1 x 1", "trade 100.2 x 1", "trade 2000.2 x 1"];
    let (told, log) = normalize(&files);
    assert_eq!(told, one);
    assert!(log.contains("trades 3, quotes 0, gaps 0, repeated 0") && log.contains("2 files"), "{log}");
    assert_eq!(normalize(&[files[1].clone(), files[0].clone()]).0, one, "named in any order");
    let report = tickfan(&["inspect"], &files);
    let report = stdout(&report);
    assert!(report.contains("two-files-b.txt goes on from") && report.contains("60.000 s later"), "{report}");
    let report = tickfan(&["inspect", "--json"], &files);
    let last = stdout(&report);
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
    use tickfan::venue::WireFormat;
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
        let note = format!("segment run={run_ns} number={number} venue={} by=test", WireFormat::Coinbase);
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

/// A raw trade of Binance spot.
fn spot_trade(symbol: &str, id: u64) -> String {
    format!(
        r#"{{"e":"trade","E":1780000000000,"s":"{symbol}","t":{id},"p":"{id}","q":"1","T":1780000000000,"m":true,"M":true}}"#
    )
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
    let report = stdout(&report);
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
