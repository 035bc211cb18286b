//! `convert` and `inspect`: tables that others read, and what is missing in a capture.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Value, json};
use tickfan::capture::SegmentWriter;

use crate::support::{in_repository, run};

/// A capture of two products: a trade that never came, a quote with an empty side, a book that is built.
const COINBASE: &str = r#"2024-05-01T12:00:00.0000010Z {"type":"last_match","trade_id":9,"side":"buy","size":"1","price":"10.10","product_id":"A-USD","sequence":1}
2024-05-01T12:00:00.1000010Z {"type":"snapshot","product_id":"A-USD","bids":[["10.00","2.50"]],"asks":[["10.20","1"]]}
2024-05-01T12:00:00.2000010Z {"type":"match","trade_id":10,"side":"sell","size":"0.0100","price":"10.20","product_id":"A-USD","sequence":2,"time":"2024-05-01T12:00:00.150000Z"}
2024-05-01T12:00:00.300000123Z {"type":"l2update","product_id":"A-USD","changes":[["sell","10.20","0"]],"time":"2024-05-01T12:00:00.250000Z"}
2024-05-01T12:00:01.4000010Z {"type":"match","trade_id":13,"side":"buy","size":"1e-8","price":"10.00","product_id":"A-USD","sequence":9}
2024-05-01T12:00:01.5000010Z {"type":"ticker","product_id":"B-USD","best_bid":"1","best_ask":"2"}
"#;

const TRADES: &str = "\
exchange,symbol,timestamp,local_timestamp,id,side,price,amount
coinbase,A-USD,1714564800150000,1714564800200001,10,buy,10.20,0.0100
coinbase,A-USD,1714564801400001,1714564801400001,13,sell,10.00,0.00000001
";

const QUOTES: &str = "\
exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount
coinbase,A-USD,1714564800100001,1714564800100001,1,10.20,10.00,2.50
coinbase,A-USD,1714564800250000,1714564800300000,,,10.00,2.50
coinbase,B-USD,1714564801500001,1714564801500001,,2,1,
";

const GAPS: &str = "\
exchange,symbol,local_timestamp,channel,from_seq,to_seq
coinbase,A-USD,1714564801400001,trade,2,3
";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The capture as a file.
fn capture(folder: &Path) -> PathBuf {
    let path = folder.join("a.cap");
    fs::write(&path, COINBASE).expect("written");
    path
}

fn convert(to: &str, out: &Path, files: &[&Path]) {
    let args = [
        &["convert", "--to", to, "--out", text(out)][..],
        &files.iter().map(|f| text(f)).collect::<Vec<_>>(),
    ];
    let ended = run(&args.concat());
    assert_eq!((ended.code(), ended.lines.len()), (Some(0), 0), "{ended:?}");
    assert!(!ended.stderr.contains('\r'), "no bar where there is no terminal");
}

/// The rows of a Parquet file, a cell as CSV would have it.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let reader = SerializedFileReader::new(File::open(path).expect("a file")).expect("Parquet");
    let rows = reader.get_row_iter(None).expect("rows");
    let cell = |field: &Field| match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Long(number) | Field::TimestampMicros(number) => number.to_string(),
        other => other.to_string(),
    };
    rows.map(|row| row.expect("a row").get_column_iter().map(|(_, field)| cell(field)).collect()).collect()
}

#[test]
fn tables_are_as_others_have_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = capture(folder.path());
    let out = folder.path().join("csv");
    convert("csv", &out, &[&file]);
    for (name, expected) in [("trades", TRADES), ("quotes", QUOTES), ("gaps", GAPS)] {
        assert_eq!(fs::read_to_string(out.join(format!("{name}.csv"))).expect(name), expected, "{name}");
    }
    let out = folder.path().join("parquet");
    convert("parquet", &out, &[&file]);
    let places = |text: &str| {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}.{part:0<18}")
    };
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        rows(&out.join("trades.parquet")),
        [
            row(&[
                "coinbase",
                "A-USD",
                "1714564800150000",
                "1714564800200001000",
                "10",
                "buy",
                &places("10.2"),
                &places("0.01"),
                "1"
            ]),
            row(&[
                "coinbase",
                "A-USD",
                "",
                "1714564801400001000",
                "13",
                "sell",
                &places("10"),
                &places("0.00000001"),
                "4"
            ]),
        ]
    );
    assert_eq!(
        rows(&out.join("quotes.parquet"))[1],
        row(&[
            "coinbase",
            "A-USD",
            "1714564800250000",
            "1714564800300000123",
            "",
            "",
            &places("10"),
            &places("2.5"),
            "2"
        ])
    );
    assert_eq!(
        rows(&out.join("gaps.parquet")),
        [row(&["coinbase", "A-USD", "1714564801400001000", "trade", "2", "3"])]
    );
    let ended = run(&["convert", "--to", "ndjson", text(&file)]);
    assert_eq!(ended.lines, run(&["normalize", text(&file)]).lines);
    let lines = folder.path().join("lines");
    convert("ndjson", &lines, &[&file]);
    assert_eq!(fs::read_to_string(&lines).expect("written").lines().collect::<Vec<_>>(), ended.lines);
}

#[test]
fn whole_captures_are_the_same_in_every_table() {
    let files =
        ["coinbase", "binance-futures", "kraken"].map(|name| in_repository(&format!("feeds/{name}.zst")));
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let folder = tempfile::tempdir().expect("a folder");
    convert("csv", folder.path(), &files);
    convert("parquet", folder.path(), &files);
    let args = [&["normalize"][..], &files.iter().map(|f| text(f)).collect::<Vec<_>>()].concat();
    let ticks = run(&args).values();
    for (name, kind, numbers) in
        [("trades", "trade", ["price", "size"]), ("quotes", "quote", ["bid", "bid_size"])]
    {
        let ticks: Vec<&Value> = ticks.iter().filter(|tick| tick["type"] == kind).collect();
        let csv = fs::read_to_string(folder.path().join(format!("{name}.csv"))).expect("a table");
        let csv: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
        let parquet = rows(&folder.path().join(format!("{name}.parquet")));
        assert!(ticks.len() > 1_000);
        assert_eq!((csv.len(), parquet.len()), (ticks.len(), ticks.len()));
        for ((tick, csv), parquet) in ticks.iter().zip(csv).zip(parquet) {
            let word = |field: &str| tick[field].as_str().unwrap_or_default();
            assert_eq!(format!("{}:{}", csv[0], csv[1]), word("symbol"));
            assert_eq!([csv[6], csv[7]], numbers.map(word), "digits as they came");
            assert_eq!(csv[3], tick["rx"].to_string());
            for (exact, padded) in csv.iter().zip(&parquet).skip(4) {
                // The same text, or the same value with the zeros of a fixed number of places.
                let zeros = padded
                    .strip_prefix(exact)
                    .is_some_and(|rest| rest.trim_start_matches('.').bytes().all(|b| b == b'0'));
                assert!(zeros || (*exact == "unknown" && padded.is_empty()), "{exact} is not {padded}");
            }
            assert_eq!(parquet[8], tick["seq"].to_string());
        }
    }
}

#[test]
fn tables_need_a_folder_and_a_form_that_there_is() {
    let ended = run(&["convert", "--to", "csv", "feeds/kraken.zst"]);
    assert_eq!(ended.code(), Some(2));
    assert!(ended.stderr.contains("--out must name the folder"), "{}", ended.stderr);
    let ended = run(&["convert", "--to", "excel", "feeds/kraken.zst"]);
    assert!(ended.stderr.contains("ndjson, csv or parquet"), "{}", ended.stderr);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tiny.cap");
    let tiny = r#"2024-05-01T12:00:00Z {"type":"trade","symbol":"demo:A","price":"1e-19","size":"1"}"#;
    fs::write(&file, format!("{tiny}\n")).expect("written");
    let ended = run(&["convert", "--to", "parquet", "--out", text(folder.path()), text(&file)]);
    assert_eq!(ended.code(), Some(2));
    assert!(ended.stderr.contains("has more than the 18 places"), "{}", ended.stderr);
    convert("csv", folder.path(), &[&file]);
    let csv = fs::read_to_string(folder.path().join("trades.csv")).expect("written");
    assert!(csv.ends_with(",unknown,0.0000000000000000001,1\n"), "{csv}");
}

/// 2024-05-01T12:00:00Z
const AT: u64 = 1_714_564_800_000_000_000;
const MS: u64 = 1_000_000;

/// A recording in which everything is missing that can be.
fn recording() -> Vec<u8> {
    let mut writer = SegmentWriter::new(Vec::new(), 3).expect("started");
    let trade = |id: u64| {
        format!(
            r#"{{"type":"match","trade_id":{id},"side":"buy","size":"1","price":"10","product_id":"A-USD"}}"#
        )
    };
    let frame =
        |writer: &mut SegmentWriter<_>, ms: u64, text: &str| writer.frame(AT + ms * MS, text.as_bytes());
    writer.note(AT, "segment run=1 number=1 venue=coinbase").expect("written");
    writer.note(AT, "connect wss://ws-feed.exchange.coinbase.com").expect("written");
    frame(&mut writer, 0, &trade(1));
    frame(&mut writer, 100, &trade(2));
    // Two that never came, and a clock that steps back.
    frame(&mut writer, 50, &trade(5));
    writer.disconnected(AT + 60 * MS);
    frame(&mut writer, 2_000, &trade(9));
    writer.note(AT + 2_500 * MS, "dropped frames=7 bytes=70 why=queue_full").expect("written");
    frame(&mut writer, 3_000, &trade(20));
    frame(&mut writer, 3_001, "no json");
    writer.flush().expect("written");
    frame(&mut writer, 3_200, &trade(21));
    let mut bytes = writer.finish().expect("written");
    bytes.truncate(bytes.len() - 1);
    bytes
}

#[test]
fn inspect_says_what_is_there_and_what_is_missing_and_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.zst");
    let bytes = recording();
    fs::write(&path, &bytes).expect("written");
    let ended = run(&["inspect", "--json", text(&path)]);
    assert_eq!((ended.code(), ended.lines.len()), (Some(1), 1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.lines[0]).expect("JSON");
    let whole = tickfan::capture::SegmentIndex::read(&path).expect("a file").expect("a segment");
    let torn = bytes.len() as u64 - whole.whole_bytes;
    let at = |ms: u64| AT + ms * MS;
    let hole = |cause: &str, from: u64, to: Option<u64>, detail: &str| json!({"cause": cause, "from_ns": at(from), "to_ns": to.map(at), "detail": detail});
    let expected = json!({
        "venue": "coinbase", "form": "tardis", "bytes": bytes.len(), "segments": 1, "blocks": 2,
        "first_rx_ns": at(0), "last_rx_ns": at(3_001),
        "frames": 6, "trades": 5, "quotes": 0, "gaps": 1, "repeated": 0,
        "kinds": [{"name": "match", "frames": 5, "known": true}],
        "frames_per_s_milli": 6_000_000 / 3_001, "frames_per_s_most": 3,
        "longest_silence_ns": 1_950 * MS, "longest_silence_from_ns": at(50),
        "clock_steps_back": 1, "clock_longest_step_back_ns": 50 * MS,
        "sequence_breaks": 1, "checksums_good": 0, "checksums_bad": 0,
        "sent": 0, "bad_lines": 1, "truncated": true, "torn_bytes": torn,
        "holes_by_cause": {"disconnect": 1, "recorder": 1, "torn": 1, "venue": 1},
        "holes": [
            hole("venue", 100, Some(50), "trade of coinbase:A-USD, 2 numbers"),
            hole("disconnect", 50, Some(2_000), ""),
            hole("recorder", 2_000, Some(3_000), "7 frames"),
            hole("torn", 3_001, None, &format!("{torn} bytes")),
        ],
        "symbols": [{"symbol": "coinbase:A-USD", "trades": 5, "quotes": 0, "gaps": 1, "missing": 2}],
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&report[key], value, "{key} of {report}");
    }
    assert!(report["bad"][0].as_str().is_some_and(|bad| bad.contains("not JSON")), "{report}");
    let ended = run(&["inspect", text(&path)]);
    let shown = ended.lines[1..].join("\n");
    let golden = format!(
        "  from 2024-05-01T12:00:00.000000Z to 2024-05-01T12:00:03.001000Z, 3.001 s
  longest silence 1.950 s, from 2024-05-01T12:00:00.050000Z
  the clock stepped back 1 times, at most 0.050 s
  frames 6, 1.999 a second, 3 in the busiest second
  trades 5, quotes 0, gaps 1, repeated 0
  bad lines 1, sequence breaks 1, sent 0
          5 match
    {}
  torn: {torn} bytes are cut off
  truncated: not all of it could be read
  holes 4: 1 disconnect, 1 recorder, 1 torn, 1 venue
    venue from 2024-05-01T12:00:00.100000Z to 2024-05-01T12:00:00.050000Z: trade of coinbase:A-USD, 2 numbers
    disconnect from 2024-05-01T12:00:00.050000Z to 2024-05-01T12:00:02.000000Z
    recorder from 2024-05-01T12:00:02.000000Z to 2024-05-01T12:00:03.000000Z: 7 frames
    torn from 2024-05-01T12:00:03.001000Z to the end: {torn} bytes
  symbols 1
    coinbase:A-USD: trades 5, quotes 0, gaps 1",
        report["bad"][0].as_str().expect("text")
    );
    assert_eq!(shown, golden);
    // Everybody who reads it is told, and loses nothing else.
    let ended = run(&["normalize", text(&path)]);
    assert_eq!((ended.code(), ended.lines.len()), (Some(1), 6));
    assert!(
        ended
            .stderr
            .contains(&format!("the recording is torn: its last {torn} bytes, after 2024-05-01T12:00:03"))
    );
    assert_eq!(run(&["normalize", "--strict", text(&path)]).code(), Some(1));
}

#[test]
fn inspect_agrees_with_normalize_about_what_ships() {
    for name in ["coinbase", "binance-futures", "kraken"] {
        let file = in_repository(&format!("feeds/{name}.zst"));
        let report = run(&["inspect", "--json", text(&file)]).values().remove(0);
        let ticks = run(&["normalize", text(&file)]).values();
        for (key, kind) in [("trades", "trade"), ("quotes", "quote"), ("gaps", "gap")] {
            assert_eq!(
                report[key],
                ticks.iter().filter(|tick| tick["type"] == kind).count(),
                "{key} of {name}"
            );
        }
        assert_eq!(
            (&report["holes"], &report["bad_lines"], &report["venue"]),
            (&json!([]), &json!(0), &json!(name))
        );
    }
    let ended = run(&["inspect", "README.md"]);
    assert_eq!((ended.code(), ended.lines.len()), (Some(2), 0));
    assert!(ended.stderr.contains("README.md: no capture"), "{}", ended.stderr);
}
