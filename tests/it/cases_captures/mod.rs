//! Captures of others, and commands that fail: small inputs after what was met in this field, by the id of the case.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::recorded::recorded;
use crate::support::{Ended, Gateway, Process, eventually, run, tickfan};
use serde_json::Value;
use tickfan::capture::{Reader, SegmentWriter};
use tickfan::latency::hlog::Writer;
use tickfan::venue::Wire;

/// A folder with the files of a test, which goes with it.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and says where it is.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).expect("written");
        text(&path).to_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What `inspect --json` says of a capture.
fn inspected(args: &[&str]) -> Value {
    let ended = run(&[&["inspect", "--json"][..], args].concat());
    assert_eq!(ended.lines.len(), 1, "{ended:?}");
    serde_json::from_str(&ended.lines[0]).expect("JSON")
}

/// The receive times of what `normalize` prints, microseconds.
fn rx_us(ended: &Ended) -> Vec<u64> {
    let rx =
        |line: &String| serde_json::from_str::<Value>(line).expect("JSON")["rx"].as_u64().expect("a time");
    ended.lines.iter().map(rx).collect()
}

// ---- F02: the unit of times --------------------------------------------------------------------------------

/// A trade of Binance futures, with this number.
fn trade(id: u64) -> String {
    format!(
        r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1660228023036,"T":1660228023031,"s":"BTCUSDT","t":{id},"p":"24467.10","q":"0.010","X":"MARKET","m":true}}}}"#
    )
}

#[test]
fn f02_the_unit_of_times_is_told_by_looking() {
    let files = Files::new();
    for (name, times, unit, rx) in [
        (
            "us",
            ["1660228023037049", "1660228024037049"],
            "microseconds",
            [1_660_228_023_037_049, 1_660_228_024_037_049],
        ),
        (
            "ms",
            ["1660228023037", "1660228024999"],
            "milliseconds",
            [1_660_228_023_037_000, 1_660_228_024_999_000],
        ),
        ("s", ["1660228023", "1660228025"], "seconds", [1_660_228_023_000_000, 1_660_228_025_000_000]),
        (
            "ns",
            ["1660228023037049123", "1660228024037049999"],
            "nanoseconds",
            [1_660_228_023_037_049, 1_660_228_024_037_049],
        ),
        (
            "s:",
            ["1660228023.037049", "1660228024.5"],
            "seconds",
            [1_660_228_023_037_049, 1_660_228_024_500_000],
        ),
        (
            "ms:",
            ["1660228023037.049", "1660228024037"],
            "milliseconds",
            [1_660_228_023_037_049, 1_660_228_024_037_000],
        ),
        (
            "us:",
            ["1660228023037049", "1660228024037050"],
            "microseconds",
            [1_660_228_023_037_049, 1_660_228_024_037_050],
        ),
    ] {
        let mark = if name.ends_with(':') { ":" } else { "" };
        let lines = times.iter().zip(1..).map(|(time, id)| format!("{time}{mark} {}\n", trade(id)));
        let file = files.write(name, lines.collect::<String>());
        let ended = run(&["normalize", &file]);
        assert_eq!((ended.code(), rx_us(&ended)), (Some(0), rx.to_vec()), "{name}: {}", ended.stderr);
        let report = inspected(&[&file]);
        assert_eq!((&report["time_unit"], &report["bad_lines"]), (&unit.into(), &0.into()), "{report}");
        assert_eq!(report["first_rx_ns"].as_u64().map(|ns| ns / 1_000), Some(rx[0]), "{report}");
        let shown = run(&["inspect", &file]).lines;
        assert!(shown[0].ends_with(&format!(", times in {unit}")), "{shown:?}");
        assert!(shown[1].starts_with("  from 2022-08-11T14:27:03."), "{shown:?}");
    }
    let dates = files.write("dates", format!("2022-08-11T14:27:03.037049Z {}\n", trade(1)));
    assert_eq!(inspected(&[&dates])["time_unit"], Value::Null);
    assert!(!run(&["inspect", &dates]).lines[0].contains("times in"));
}

#[test]
fn f02_a_time_in_another_unit_is_a_bad_line() {
    let files = Files::new();
    let lines = [
        format!("1660228023037049 {}\n", trade(1)),
        format!("1660228024 {}\n", trade(2)),
        format!("1660228025037049000 {}\n", trade(3)),
        format!("1660228026037049 {}\n", trade(4)),
    ];
    let file = files.write("mixed", lines.concat());
    let ended = run(&["normalize", &file]);
    assert_eq!(rx_us(&ended), [1_660_228_023_037_049, 1_660_228_026_037_049]);
    for line in [2, 3] {
        let fault =
            format!("{file}:{line}: a receive time outside of the years 2000 to 2199, in microseconds");
        assert!(ended.stderr.contains(&fault), "{}", ended.stderr);
    }
    assert!(ended.stderr.contains("bad lines 2,"), "{}", ended.stderr);
    assert_eq!(run(&["check", &file]).code(), Some(1));
    // Nor does a first line decide against all others.
    let file = files.write("first", [&lines[1], &lines[0], &lines[3]].map(String::as_str).concat());
    assert_eq!(inspected(&[&file])["time_unit"], "microseconds");
    assert_eq!(run(&["normalize", "--strict", &file]).code(), Some(1));
}

#[test]
fn f02_no_form_has_times_before_2000_or_after_2199() {
    let files = Files::new();
    for (name, good, bad) in [
        ("tardis", "2022-08-11T14:27:03.037049Z ", ["1970-01-20T05:10:28.023Z ", "2345-01-01T00:00:00Z "]),
        ("cryptofeed", "1660228023.037049: ", ["1660228.023037: ", "1660228023037049: "]),
        ("hftbacktest", "1660228023037049000 ", ["1660228023037049 ", "9660228023037049000 "]),
    ] {
        let line = |time: &str, id| format!("{time}{}\n", trade(id));
        let file =
            files.write(name, [line(good, 1), line(bad[0], 2), line(bad[1], 3), line(good, 4)].concat());
        let ended = run(&["normalize", &file]);
        assert_eq!(rx_us(&ended), [1_660_228_023_037_049; 2], "{name}: {}", ended.stderr);
        let faults = ended.stderr.matches("a receive time outside of the years 2000 to 2199").count();
        assert_eq!(faults, 2, "{name}: {}", ended.stderr);
        assert_eq!(inspected(&[&file])["bad_lines"], 2);
    }
    let ended = run(&[
        "generate",
        "--venue",
        "native",
        "--symbols",
        "A",
        "--seconds",
        "1",
        "--rate",
        "1",
        "--start-ns",
        "0",
    ]);
    assert_eq!((ended.code(), ended.lines.len()), (Some(2), 0), "what nothing reads is not written");
}

// ---- F09: whose messages ------------------------------------------------------------------------------------

#[test]
fn f09_a_connection_to_another_venue_is_not_taken_for_one_that_is_read() {
    let files = Files::new();
    let bitfinex = concat!(
        "wss://api.bitfinex.com/ws/2 <-> 1618677543.367689\n",
        "1618677543.83163: {\"event\":\"info\",\"version\":2,\"serverId\":\"0\",\"platform\":{\"status\":1}}\n",
        "1618677543.951173: {\"event\":\"subscribed\",\"channel\":\"ticker\",\"chanId\":232949,\"symbol\":\"tBFTUSD\",\"pair\":\"BFTUSD\"}\n",
        "1618677544.1: [232949,[0.1,1,0.2,1,0,0,0.1,1,0.1,0.1]]\n",
    );
    let (_, messages) = bitfinex.split_once('\n').expect("a note");
    // Messages of Kraken, from elsewhere.
    let elsewhere = "wss://ws.another.exchange <-> 1618677543.3\n1618677544: {\"event\":\"heartbeat\"}\n";
    for (name, capture) in [("noted", bitfinex), ("messages", messages), ("elsewhere", elsewhere)] {
        let file = files.write(name, capture);
        for command in ["inspect", "normalize", "check"] {
            let ended = run(&[command, &file]);
            assert_eq!(ended.code(), Some(2), "{command} {name}");
            assert!(ended.stderr.contains("name it with --venue"), "{}", ended.stderr);
        }
        // Who knows better is believed.
        assert_eq!(run(&["inspect", "--venue", "kraken", &file]).code(), Some(0), "{name}");
    }
}

#[test]
fn f09_every_message_that_only_one_venue_sends_tells_it() {
    // What says nothing, or only that it is Binance's.
    let silent = ["coinbase/error", "coinbase/status", "binance/result"];
    let mut told = 0;
    for wire in ["coinbase", "binance", "binance-futures", "kraken", "native"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/venues").join(wire);
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = format!("{wire}/{}", path.file_stem().expect("a name").display());
            let frame = fs::read_to_string(&path).expect("a frame");
            let capture = format!("2024-05-01T12:00:00Z {}\n", frame.trim());
            let found = Reader::from_read("x", std::io::Cursor::new(capture)).expect("a capture").venue();
            let expected = (!silent.contains(&name.as_str())).then_some(wire);
            assert_eq!(found.map(Wire::name), expected, "{name}");
            told += 1;
        }
    }
    assert!(told > 45, "{told}");
}

#[test]
#[ignore = "needs recorded captures: TICKFAN_FEEDS"]
fn f09_real_captures_of_others_tell_nothing_with_their_notes_or_without() {
    let names = ["OKX.ws.1.0", "DERIBIT.ws.1.0", "BITMEX.ws.1.0"];
    let files = recorded(names);
    for (name, file) in names.into_iter().zip(files) {
        let bytes = fs::read(file).expect(name);
        let noted = bytes.split_inclusive(|byte| *byte == b'\n');
        let plain: Vec<&[u8]> = noted.filter(|line| !line.starts_with(b"wss:")).collect();
        for capture in [bytes.clone(), plain.concat()] {
            let reader = Reader::from_read(name, std::io::Cursor::new(capture)).expect(name);
            assert_eq!(reader.venue(), None, "{name}");
        }
    }
}

// ---- F14: a byte order mark -----------------------------------------------------------------------------------

#[test]
fn f14_a_byte_order_mark_costs_no_record() {
    let files = Files::new();
    let line = |second: u32, id: u64| {
        format!(
            "2026-07-01T00:00:0{second}.0000000Z {{\"type\":\"match\",\"trade_id\":{id},\"side\":\"buy\",\"size\":\"0.5\",\"price\":\"100.0{id}\",\"product_id\":\"BTC-USD\",\"sequence\":1{id}}}\n"
        )
    };
    let marked = format!("\u{feff}{}{}", line(0, 1), line(1, 2));
    let other = format!("\u{feff}{}{}", line(2, 3), line(3, 4));
    let gz = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    };
    let zst = |text: &str| zstd::stream::encode_all(text.as_bytes(), 1).expect("memory");
    for (name, ids, bytes) in [
        ("plain", 2, marked.clone().into_bytes()),
        ("gz", 2, gz(&marked)),
        ("zst", 2, zst(&marked)),
        ("two in one", 4, format!("{marked}{other}").into_bytes()),
        ("two members", 4, [gz(&marked), gz(&other)].concat()),
        ("two frames", 4, [zst(&marked), zst(&other)].concat()),
    ] {
        let file = files.write(name, bytes);
        let ended = run(&["normalize", &file]);
        let found: Vec<_> = ended.values().iter().map(|tick| tick["trade_id"].clone()).collect();
        assert_eq!(found, (1..=ids).map(|id: u32| Value::from(id.to_string())).collect::<Vec<_>>(), "{name}");
        assert!(ended.stderr.contains("bad lines 0,"), "{name}: {}", ended.stderr);
        assert_eq!(inspected(&[&file])["bad_lines"], 0, "{name}");
        // From a place in its middle.
        let ended = run(&[
            "replay",
            "--exit",
            "--speed",
            "0",
            "--from",
            "+1s",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            &file,
        ]);
        assert_eq!(ended.code(), Some(0), "{name}: {}", ended.stderr);
        let said = ended.lines.last().expect("a summary");
        assert!(
            said.starts_with(&format!("tickfan replayed ticks={} of={} ", ids - 1, ids - 1)),
            "{name}: {said}"
        );
    }
    // Each of two files has its own.
    let both = [files.write("a", &marked), files.write("b", &other)];
    let ended = run(&["normalize", &both[0], &both[1]]);
    assert!(ended.stderr.contains("trades 4,") && ended.stderr.contains("bad lines 0,"), "{}", ended.stderr);
    assert_eq!(inspected(&[&both[1]])["trades"], 2);
}

// ---- F18: nothing is of 1970 ----------------------------------------------------------------------------------

/// A book of Kraken whose checksum is wrong.
const BROKEN_BOOK: &str = r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":29430.2,"qty":0.18967538}],"asks":[{"price":29430.3,"qty":0.23}],"checksum":1,"timestamp":"2026-05-28T20:26:40.000000Z"}]}"#;

/// The holes of a capture as `inspect` tells them: as text, and as JSON.
fn holes(args: &[&str]) -> (Vec<String>, Vec<Value>) {
    let shown = run(&[&["inspect"][..], args].concat()).lines;
    assert!(!shown.join("\n").contains("1970"), "{shown:?}");
    let report = inspected(args);
    let told = shown.iter().filter(|line| line.starts_with("    ") && line.contains(" from "));
    (told.cloned().collect(), report["holes"].as_array().expect("holes").clone())
}

#[test]
fn f18_a_hole_before_the_first_frame_has_its_time() {
    let files = Files::new();
    let at = "2026-05-28T20:26:40.000000Z";
    let at_ns = 1_780_000_000_000_000_000_u64;
    // The first frame breaks the venue's own check.
    let broken = files.write("broken", format!("{at_ns} {BROKEN_BOOK}\n"));
    let (told, json) = holes(&[&broken]);
    assert_eq!(told, [format!("    venue from {at} to {at}: quote of kraken:BTC/USD, 1 numbers")]);
    assert_eq!((&json[0]["from_ns"], &json[0]["to_ns"]), (&at_ns.into(), &at_ns.into()));
    // A connection was lost before there was a frame.
    let lost = files.write("lost", format!("\n\n{at} {{\"event\":\"heartbeat\"}}\n"));
    let (told, json) = holes(&[&lost]);
    assert_eq!(told, [format!("    disconnect from {at} to {at}")]);
    assert_eq!((&json[0]["from_ns"], &json[0]["to_ns"]), (&at_ns.into(), &at_ns.into()));
    // One frame has no silence around it, and no two at one time have.
    for text in [&lost, &broken] {
        assert!(run(&["inspect", text]).lines.contains(&"  longest silence 0.000 s".to_owned()));
        assert_eq!(inspected(&[text])["longest_silence_from_ns"], Value::Null);
    }
}

#[test]
fn f18_a_recording_without_a_frame_says_nothing_of_1970() {
    let files = Files::new();
    let mut writer = SegmentWriter::new(Vec::new(), 3).expect("started");
    writer.note(1_780_000_000_000_000_000, "segment run=1 number=1 venue=kraken").expect("written");
    writer.note(1_780_000_000_000_000_000, "dropped frames=7 bytes=70 why=queue_full").expect("written");
    let whole = writer.finish().expect("written");
    let (told, json) = holes(&[&files.write("none.zst", &whole)]);
    assert_eq!(told, ["    recorder from the beginning to the end: 7 frames"]);
    assert_eq!((&json[0]["from_ns"], &json[0]["to_ns"]), (&Value::Null, &Value::Null));
    // Torn in its first piece: there is no time before that.
    let torn = files.write("torn.zst", &whole[..30]);
    let ended = run(&["normalize", "--venue", "kraken", &torn]);
    assert!(ended.stderr.contains("its last 30 bytes, all of this file, are cut off"), "{}", ended.stderr);
    let (told, _) = holes(&["--venue", "kraken", &torn]);
    assert_eq!(told, ["    torn from the beginning to the end: 30 bytes"]);
}

#[test]
fn f18_a_replay_begins_with_the_first_time_whatever_is_before_it() {
    let files = Files::new();
    let line = |second: u32, id: u64| {
        format!(
            "2026-07-01T00:00:0{second}Z {{\"type\":\"trade\",\"symbol\":\"demo:A\",\"price\":\"{id}\",\"size\":\"1\"}}\n"
        )
    };
    let lines = [line(1, 1), line(2, 2), line(3, 3)].concat();
    for (name, before) in [("blank", "\n"), ("bad", "no line\n"), ("both", "\nno line\n\n")] {
        let file = files.write(name, format!("{before}{lines}"));
        let ended = run(&[
            "replay",
            "--exit",
            "--speed",
            "0",
            "--from",
            "+1s",
            "--to",
            "+2s",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            &file,
        ]);
        let said = ended.lines.last().expect("a summary");
        assert!(said.starts_with("tickfan replayed ticks=1 of=1 "), "{name}: {said}");
    }
    // Of two files the one whose first line is bad does not go first for that.
    let later = files.write("later", format!("no line\n{}", line(5, 9)));
    let sooner = files.write("sooner", line(4, 8));
    let ended = run(&[
        "replay",
        "--exit",
        "--speed",
        "0",
        "--to",
        "+500ms",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        &later,
        &sooner,
    ]);
    assert!(
        ended.lines.last().expect("a summary").starts_with("tickfan replayed ticks=1 of=1 "),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("later:1:"), "it is not due yet: {}", ended.stderr);
}

// ---- F28: truncated input -------------------------------------------------------------------------------------

/// Trades that differ enough not to be packed into nothing.
fn trades(count: u64) -> String {
    let line = |n: u64| {
        format!(
            "{} {{\"type\":\"trade\",\"symbol\":\"demo:A\",\"price\":\"{}\",\"size\":\"{}\"}}\n",
            1_780_000_000_000_000_000 + n * 1_000_000,
            n * 7_919 % 9_973 + 1,
            n * 104_729 % 99_991 + 1
        )
    };
    (0..count).map(line).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

fn zst(text: &str) -> Vec<u8> {
    zstd::stream::encode_all(text.as_bytes(), 1).expect("memory")
}

/// A file of a recording with so many trades, in blocks of a hundred.
fn segment(number: u32, first_ns: u64, count: u64) -> Vec<u8> {
    let mut writer = SegmentWriter::new(Vec::new(), 1).expect("started");
    writer
        .note(first_ns, &format!("segment run=1780000000000000000 number={number} venue=native"))
        .expect("written");
    for n in 0..count {
        let frame =
            format!("{{\"type\":\"trade\",\"symbol\":\"demo:A\",\"price\":\"{}\",\"size\":\"1\"}}", n + 1);
        writer.frame(first_ns + n * 1_000_000, frame.as_bytes());
        if n % 100 == 99 {
            writer.flush().expect("written");
        }
    }
    writer.finish().expect("written")
}

/// Runs a replay of a capture to its end, flat out.
fn replayed(args: &[&str]) -> Ended {
    let first = ["replay", "--exit", "--speed", "0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    run(&[&first[..], args].concat())
}

/// What everybody says of a truncated capture, whose fault reads so. It has some trades, but not all.
fn is_told_to_be_truncated(files: &Files, file: &str, all: usize, fault: &str, cause: &str) {
    let normalized = run(&["normalize", file]);
    let ticks = normalized.lines.len();
    assert!(ticks > all / 4 && ticks < all, "{file}: {ticks} of {all}");
    assert_eq!(normalized.code(), Some(1), "{file}: {}", normalized.stderr);
    assert!(normalized.stderr.contains(fault), "{file}: {}", normalized.stderr);
    assert!(
        normalized.stderr.contains("  truncated: not all of it could be read\n"),
        "{}",
        normalized.stderr
    );

    let out = files.path("out");
    for (to, out) in
        [("csv", out.join("csv")), ("ndjson", out.join("lines")), ("parquet", out.join("parquet"))]
    {
        fs::create_dir_all(files.path("out")).expect("made");
        let ended = run(&["convert", "--to", to, "--out", text(&out), file]);
        assert_eq!(ended.code(), Some(1), "{to} {file}: {}", ended.stderr);
        assert!(ended.stderr.contains(fault) && ended.stderr.contains("  truncated: "), "{}", ended.stderr);
    }
    let csv = fs::read_to_string(out.join("csv/trades.csv")).expect("a table");
    assert_eq!(csv.lines().count(), ticks + 1, "what can be read is written");
    assert_eq!(fs::read_to_string(out.join("lines")).expect("written").lines().count(), ticks);

    let ended = run(&["inspect", "--json", file]);
    assert_eq!((ended.code(), ended.lines.len()), (Some(1), 1), "{file}: {}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.lines[0]).expect("JSON");
    assert_eq!((&report["truncated"], &report["trades"]), (&true.into(), &ticks.into()));
    assert_eq!(report["holes_by_cause"][cause], 1, "{report}");
    let ended = run(&["inspect", file]);
    let shown = ended.lines.join("\n");
    assert_eq!(ended.code(), Some(1), "{file}");
    assert!(shown.contains("  truncated: ") && !shown.contains("no holes"), "{shown}");
    assert!(shown.contains(&format!("\n    {cause} from 2026-05-28T20:26:4")), "{shown}");

    let ended = run(&["check", file]);
    assert_eq!(ended.code(), Some(1), "{file}");
    let said = ended.lines.join("\n");
    assert!(said.contains(fault) && said.contains(" gaps, truncated"), "{said}");

    let ended = replayed(&[file]);
    assert_eq!(ended.code(), Some(1), "{file}: {}", ended.stderr);
    assert!(ended.stderr.contains(fault), "{}", ended.stderr);
    let said = ended.lines.last().expect("a summary");
    assert!(said.contains(&format!("ticks={ticks} of={ticks} ")) && said.contains(" truncated=1"), "{said}");

    let ended = run(&["normalize", "--strict", file]);
    assert_eq!(ended.code(), Some(1), "{file}");
}

#[test]
fn f28_a_file_that_breaks_off_is_told_by_every_command() {
    let text = trades(3_000);
    let half = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let more_than_half = |bytes: Vec<u8>| bytes[..bytes.len() * 2 / 3].to_vec();
    for (name, bytes) in [
        ("half.gz", half(gzip(&text))),
        ("half.zst", more_than_half(zst(&text))),
        // Its second part was cut in its first bytes.
        ("part.gz", [gzip(&trades(2_000)), gzip(&text)[..6].to_vec()].concat()),
        ("part.zst", [zst(&trades(2_000)), zst(&text)[..6].to_vec()].concat()),
        // All lines are there, and what is behind them is not what it should be.
        ("junk.gz", [gzip(&trades(2_000)), b"junk".to_vec()].concat()),
    ] {
        let files = Files::new();
        let file = files.write(name, bytes);
        is_told_to_be_truncated(&files, &file, 3_000, ": cannot read any further: ", "truncated");
    }
}

#[test]
fn f28_a_torn_recording_is_told_by_every_command() {
    let files = Files::new();
    let at = 1_780_000_000_000_000_000;
    let whole = segment(1, at, 1_000);
    let torn = &whole[..whole.len() * 2 / 3];
    let file = files.write("torn.zst", torn);
    is_told_to_be_truncated(&files, &file, 1_000, ": the recording is torn: its last ", "torn");
    // A folder whose first file is torn, and which goes on.
    let folder = files.path("line");
    fs::create_dir(&folder).expect("made");
    files.write("line/2026-05-28-00001.zst", torn);
    files.write("line/2026-05-28-00002.zst", segment(2, at + 2_000_000_000, 500));
    is_told_to_be_truncated(&files, text(&folder), 1_500, ": the recording is torn: its last ", "torn");
    // Who does not ask for that part misses nothing.
    let ended = replayed(&["--to", "+200ms", &file]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!ended.lines.last().expect("a summary").contains("truncated"), "{ended:?}");
}

#[test]
fn f28_who_begins_behind_the_end_of_a_truncated_capture_is_told_too() {
    let files = Files::new();
    let bytes = gzip(&trades(3_000));
    let file = files.write("half.gz", &bytes[..bytes.len() / 2]);
    for from in ["+2900ms", "+1h"] {
        let ended = replayed(&["--from", from, &file]);
        assert_eq!(ended.code(), Some(1), "{from}: {ended:?}");
        assert!(ended.lines.last().expect("a summary").contains(" truncated=1"), "{from}: {ended:?}");
    }
    let ended = replayed(&["--to", "+200ms", &file]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    // Each of several is looked at, and each that is whole is none of it.
    let whole = files.write("whole.gz", &bytes);
    let ended = run(&["inspect", &file, &whole]);
    assert_eq!(ended.code(), Some(1));
    assert_eq!(ended.lines.iter().filter(|line| line.contains("  truncated: ")).count(), 1);
    for command in ["inspect", "normalize", "check"] {
        assert_eq!(run(&[command, &whole]).code(), Some(0), "{command}");
    }
    assert_eq!(replayed(&[&whole]).code(), Some(0));
}

#[test]
fn f28_an_operator_sees_that_a_feed_broke_off() {
    let files = Files::new();
    let bytes = gzip(&trades(3_000));
    let file = files.write("half.gz", &bytes[..bytes.len() / 2]);
    let gateway = Gateway::start(&["replay", "--speed", "0", &file]);
    gateway.replay_has_ended();
    let (_, ready) = Gateway::get(gateway.http, "/readyz");
    assert!(ready.contains("it met what it cannot read"), "{ready}");
    assert_eq!(gateway.metric_sum("tickfan_feed_bad_lines_total"), 1);
    let ended = gateway.stop();
    assert_eq!(ended.code(), Some(0), "it served what there was until it was told to stop");
    assert!(
        ended.stderr.contains("half.gz:") && ended.stderr.contains("cannot read any further"),
        "{}",
        ended.stderr
    );
    assert!(ended.lines.last().expect("a summary").contains(" truncated=1"), "{ended:?}");
}

// ---- Commands that fail leave what was there --------------------------------------------------------------------

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("one").file_name().into_string().expect("UTF-8")).collect();
    names.sort_unstable();
    names
}

/// Runs something that has to fail with this code and word, and changes nothing in the folder.
fn fails(folder: &Path, (code, word): (i32, &str), args: &[&str]) {
    let state = || -> Vec<(String, Vec<u8>)> {
        let read = |name: String| (name.clone(), fs::read(folder.join(name)).unwrap_or_default());
        names(folder).into_iter().map(read).collect()
    };
    let before = state();
    let ended = run(args);
    assert_eq!(ended.code(), Some(code), "{args:?}: {}", ended.stderr);
    assert!(ended.stderr.contains(word), "{args:?}: {}", ended.stderr);
    assert!(state() == before, "{args:?}: {:?}", names(folder));
}

const TABLES: [&str; 3] = ["gaps", "quotes", "trades"];

#[test]
fn a_convert_that_fails_leaves_what_was_there() {
    let files = Files::new();
    let good = files.write("good", trades(10));
    let bad = files.write("bad", trades(8_000) + "no line\n");
    let long = files.write("long", format!("{}1780000000000000001 {{\"type\":\"trade\",\"symbol\":\"demo:A\",\"price\":\"1e-19\",\"size\":\"1\"}}\n", trades(10)));
    let another = files.write("another", "1780000000000000000 {}\n");
    let out = files.path("out");
    for to in ["csv", "parquet"] {
        let expected: Vec<String> = TABLES.iter().map(|name| format!("{name}.{to}")).collect();
        let first = ["convert", "--to", to, "--out", text(&out)];
        let fails_with = |said: (i32, &str), more: &[&str]| fails(&out, said, &[&first, more].concat());
        fs::create_dir(&out).expect("made");
        // Nothing was there: nothing is.
        fails_with((1, "no receive time"), &["--strict", &bad]);
        let ended = run(&[&first[..], &[&good]].concat());
        assert_eq!((ended.code(), names(&out)), (Some(0), expected.clone()));
        fails_with((1, "no receive time"), &["--strict", &bad]);
        fails_with((2, "cannot open the capture"), &["no/such/file"]);
        fails_with((2, "cannot open the capture"), &[&good, "no/such/file"]);
        fails_with((2, "tell the venue"), &[&another]);
        if to == "parquet" {
            fails_with((2, "more than the 18 places"), &[&long]);
        }
        // A table that cannot take its place keeps the others from theirs.
        fs::remove_file(out.join(&expected[1])).expect("removed");
        fs::create_dir(out.join(&expected[1])).expect("made");
        fails_with((2, "cannot create it"), &[&good]);
        // A folder that was made for nothing goes.
        let nowhere = files.path("nowhere");
        let ended = run(&["convert", "--to", to, "--out", text(&nowhere), "--strict", &bad]);
        assert_eq!((ended.code(), nowhere.exists()), (Some(1), false), "{}", ended.stderr);
        fs::remove_dir_all(&out).expect("removed");
    }
    fs::create_dir(&out).expect("made");
    fs::write(out.join("lines"), "earlier\n").expect("written");
    let lines = out.join("lines");
    fails(
        &out,
        (1, "no receive time"),
        &["convert", "--to", "ndjson", "--out", text(&lines), "--strict", &bad],
    );
    fails(&out, (2, "cannot open"), &["convert", "--to", "ndjson", "--out", text(&lines), "no/such/file"]);
    // Into its own input.
    let ended = run(&["convert", "--to", "ndjson", "--out", &good, &good]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&good).expect("written").lines().count(), 10);
    // What is no file is written as it comes.
    let ended = run(&["convert", "--to", "ndjson", "--out", "/dev/stdout", &bad]);
    assert!(ended.lines == run(&["normalize", &bad]).lines && ended.lines.len() == 8_000);
}

/// A kill leaves the earlier tables too. What it leaves of the new ones goes with the next.
#[test]
fn a_convert_that_is_killed_leaves_what_was_there() {
    let files = Files::new();
    let (out, pipe) = (files.path("out"), files.path("pipe"));
    let good = files.write("good", trades(10));
    let convert = ["convert", "--to", "csv", "--out", text(&out)];
    assert_eq!(run(&[&convert[..], &[&good]].concat()).code(), Some(0));
    let read = || TABLES.map(|name| fs::read(out.join(format!("{name}.csv"))).expect("a table"));
    let before = read();
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let process = Process::start(&mut tickfan(&[&convert[..], &[text(&pipe)]].concat()));
    // It opens once there is who writes, and wants more than it gets.
    let mut writer = fs::File::options().write(true).open(&pipe).expect("a pipe");
    writer.write_all(trades(1_000).as_bytes()).expect("written");
    eventually("the new tables are begun", || names(&out).len() == 6);
    process.signal("KILL");
    assert_eq!(process.end().code(), None);
    assert!(read() == before);
    assert_eq!(names(&out).len(), 6, "what the kill left");
    assert_eq!(run(&[&convert[..], &[&good]].concat()).code(), Some(0));
    assert_eq!(names(&out), TABLES.map(|name| format!("{name}.csv")));
}

#[test]
fn a_generate_that_fails_leaves_what_was_there() {
    let files = Files::new();
    let out = files.path("out");
    fs::create_dir(&out).expect("made");
    for name in ["a.zst", "a.gz", "a"] {
        let path = out.join(name);
        let first =
            ["generate", "--venue", "kraken", "--symbols", "XBT/USD", "--seconds", "1", "--out", text(&path)];
        let none = [&first[..], &["--rate", "0"]].concat();
        fails(&out, (2, "the rate must be"), &none);
        assert_eq!(run(&[&first[..], &["--rate", "50"]].concat()).code(), Some(0));
        fails(&out, (2, "the rate must be"), &none);
    }
    assert_eq!(names(&out), ["a", "a.gz", "a.zst"]);
    // A disk that is full, for all that is written to it.
    let ended = run(&[
        "generate",
        "--venue",
        "kraken",
        "--symbols",
        "XBT/USD",
        "--seconds",
        "1",
        "--rate",
        "50",
        "--out",
        "/dev/full",
    ]);
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
}

#[test]
fn a_report_that_fails_leaves_the_page_that_was_there() {
    let files = Files::new();
    let mut log = Writer::new(Vec::new(), 1_780_000_000_000_000_000).expect("begun");
    let mut histogram = tickfan::latency::histogram();
    histogram.record(1_000).expect("in its bounds");
    let second = std::time::Duration::from_secs(1);
    log.write("write", second, second, &histogram).expect("written");
    let log = files.write("a.hlog", log.into_inner());
    let out = files.path("out");
    fs::create_dir(&out).expect("made");
    let page = out.join("page.html");
    assert_eq!(run(&["report", "--html", text(&page), &log]).code(), Some(0));
    assert!(fs::read_to_string(&page).expect("written").contains("</html>"));
    let empty = files.write("empty.hlog", "");
    fails(&out, (2, "empty.hlog"), &["report", "--html", text(&page), &empty]);
    fails(&out, (2, "cannot write"), &["report", "--html", text(&out), &log]);
    assert_eq!(names(&out), ["page.html"]);
}
