//! Whose messages a capture has (F09), byte order marks (F14), and holes before the first frame (F18).

use super::*;

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
            let found =
                CaptureReader::from_read("x", std::io::Cursor::new(capture)).expect("a capture").venue();
            let expected = (!silent.contains(&name.as_str())).then_some(wire);
            assert_eq!(found.map(WireFormat::name), expected, "{name}");
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
            let reader = CaptureReader::from_read(name, std::io::Cursor::new(capture)).expect(name);
            assert_eq!(reader.venue(), None, "{name}");
        }
    }
}

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

/// A book of Kraken whose checksum is wrong.
const BROKEN_BOOK: &str = r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":29430.2,"qty":0.18967538}],"asks":[{"price":29430.3,"qty":0.23}],"checksum":1,"timestamp":"2026-05-28T20:26:40.000000Z"}]}"#;

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
