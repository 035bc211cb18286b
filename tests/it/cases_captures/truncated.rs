//! F28: truncated input.

use super::*;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
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
