//! Captures as files: packed and plain, good and bad, alone and merged.

use std::io::Write;

use super::*;
use crate::venue::WireFormat;

const AT: u64 = 1_618_677_817_431_936_000;

const TARDIS: &str = "2021-04-17T16:43:37.4319360Z {\"event\":\"heartbeat\"}\n\
     \n\
     2021-04-17T16:43:38Z {\"a\":1}\n";

const CRYPTOFEED: &str = "wss://ws.kraken.com <-> 1618677816.5\n\
     wss://ws.kraken.com <- 1618677817.0: {\"event\":\"subscribe\"}\n\
     1618677817.431936: {\"event\":\"heartbeat\"}\n\
     \n\
     \n";

fn reader(bytes: impl AsRef<[u8]>) -> CaptureReader {
    CaptureReader::from_read("test.cap", io::Cursor::new(bytes.as_ref().to_vec())).expect("a capture")
}

/// Every item of a reader, as text: `line rx_ns kind`, or the error.
fn items(mut reader: CaptureReader) -> Vec<String> {
    let mut items = Vec::new();
    while let Some(item) = reader.next_record() {
        items.push(match item {
            Ok(Record { line, rx_ns, kind: RecordKind::Frame(frame) }) => {
                format!("{line} {rx_ns} {}", String::from_utf8_lossy(frame))
            }
            Ok(Record { line, rx_ns, kind }) => format!("{line} {rx_ns} {kind:?}"),
            Err(bad) => bad.to_string(),
        });
    }
    items
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).expect("memory")
}

#[test]
fn each_form_is_read() {
    let tardis = reader(TARDIS);
    assert_eq!((tardis.form(), tardis.venue()), (Form::Tardis, Some(WireFormat::Kraken)));
    assert_eq!(
        items(tardis),
        [
            format!("1 {AT} {{\"event\":\"heartbeat\"}}"),
            format!("2 {AT} Disconnected"),
            "3 1618677818000000000 {\"a\":1}".into(),
        ]
    );
    let cryptofeed = reader(CRYPTOFEED);
    assert_eq!((cryptofeed.form(), cryptofeed.venue()), (Form::Cryptofeed, Some(WireFormat::Kraken)));
    assert_eq!(
        items(cryptofeed),
        [
            "1 1618677816500000000 Connected(\"wss://ws.kraken.com\")".to_owned(),
            format!("2 1618677817000000000 {:?}", RecordKind::Sent(b"{\"event\":\"subscribe\"}")),
            format!("3 {AT} {{\"event\":\"heartbeat\"}}"),
        ]
    );
    let hft = reader("1723161255030314667 \u{fffd}\r\n1723161255030314668 b");
    assert_eq!((hft.form(), hft.venue()), (Form::Hftbacktest, None));
    assert_eq!(items(hft), ["1 1723161255030314667 \u{fffd}", "2 1723161255030314668 b"]);
}

#[test]
fn packed_captures_are_told_by_their_first_bytes() {
    let plain = items(reader(TARDIS));
    let (head, tail) = TARDIS.split_at(20);
    for pack in [gzip, zstd] {
        assert_eq!(items(reader(pack(TARDIS.as_bytes()))), plain);
        let mut parts = pack(head.as_bytes());
        parts.extend(pack(b""));
        parts.extend(pack(tail.as_bytes()));
        assert_eq!(items(reader(parts)), plain, "several members are one text");
    }
    let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
    skippable.extend(zstd(TARDIS.as_bytes()));
    assert_eq!(items(reader(skippable)), plain);
}

#[test]
fn a_cut_file_gives_what_it_has_and_then_an_error() {
    let text: String = (0..50_000).map(|n| format!("1723161255{:09} {{\"n\":{}}}\n", n, n * 7919)).collect();
    for pack in [gzip, zstd] {
        let mut packed = pack(text.as_bytes());
        packed.truncate(packed.len() / 2);
        let found = items(reader(packed));
        let (last, good) = found.split_last().expect("some");
        assert!(good.len() > 10_000, "{}", good.len());
        assert!(good.iter().all(|line| line.contains("{\"n\":")));
        let place = format!("test.cap:{}: cannot read any further: ", good.len() + 1);
        assert!(last.starts_with(&place), "{last}");
    }
}

#[test]
fn a_bad_line_stops_nothing() {
    let mut text = b"1723161255030314667 \xff\xfe\nnonsense\n99 x\n1723161255030314668 ".to_vec();
    text.resize(text.len() + LINE_BYTES_MAX, b'x');
    text.extend_from_slice(b"\n1723161255030314669 c\n");
    let found = items(reader(text));
    assert_eq!(
        found,
        [
            "1 1723161255030314667 \u{fffd}\u{fffd}",
            "test.cap:2: no receive time in the form of this capture (hftbacktest)",
            "test.cap:3: a receive time outside of the years 2000 to 2199, in nanoseconds as the times of this capture are",
            "test.cap:4: a line of more than 16777216 bytes",
            "5 1723161255030314669 c",
        ]
    );
    let late = reader("garbage\n2021-02-30T00:00:00Z x\n2021-04-17T16:43:38Z x\n");
    assert_eq!(
        items(late)[1],
        "test.cap:2: a receive time that does not exist, or is out of range",
        "the form is found behind lines that are in none"
    );
}

/// F02: the sample, the end, and every place of a capture go by the same unit.
#[test]
fn a_capture_is_read_in_one_unit_wherever_one_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    for (unit, first, step_ns) in [
        (Unit::Seconds, 1_660_228_023, 1_000_000_000),
        (Unit::Milliseconds, 1_660_228_023_037, 1_000_000),
        (Unit::Microseconds, 1_660_228_023_037_049, 1_000),
        (Unit::Nanoseconds, 1_660_228_023_037_049_001_u64, 1),
    ] {
        for form in [Form::Hftbacktest, Form::Cryptofeed] {
            let mark = if form == Form::Cryptofeed { ":" } else { "" };
            let text: String = (0..9).map(|n| format!("{}{mark} {n}\n", first + n)).collect();
            // One that is in no unit, and one that is in another: neither changes how the rest is read.
            let text = format!("{text}17{mark} x\n1660228024{mark} {{}}\n{}{mark} 9\n", first + 9);
            let path = folder.path().join(format!("{form}-{unit}"));
            std::fs::write(&path, &text).expect("written");
            let mut reader = CaptureReader::open(&path).expect("a capture");
            assert_eq!((reader.form(), reader.unit()), (form, Some(unit)), "{text}");
            let at = |n: u64| (first + n) * step_ns;
            assert_eq!(reader.sample().next().map(|record| record.rx_ns), Some(at(0)));
            assert_eq!(
                reader.capture().last_ns(),
                Some(at(9).max(1_660_228_024 * 1_000_000_000 * u64::from(unit == Unit::Seconds)))
            );
            let (mut places, mut found, mut bad) = (Vec::new(), Vec::new(), 0);
            while let Some(item) = reader.advance() {
                let place = reader.before().clone();
                match item {
                    Ok(placed) => {
                        found.push(placed.rx_ns);
                        places.push(place);
                    }
                    Err(error) => {
                        assert!(
                            matches!(error.fault, RecordFault::OutOfRange(Some(in_)) if in_ == unit),
                            "{error}"
                        );
                        bad += 1;
                    }
                }
            }
            assert_eq!((found.len(), bad), if unit == Unit::Seconds { (11, 1) } else { (10, 2) }, "{path:?}");
            assert_eq!(found.last(), Some(&at(9)));
            for (place, rx_ns) in places.iter().zip(&found) {
                let mut again = reader.capture().read_from(place).expect("opened");
                assert_eq!(again.next_record().expect("one").expect("good").rx_ns, *rx_ns);
            }
        }
    }
}

/// F14: a byte order mark costs no record and moves no place, however the file is packed, in front of each part of it.
#[test]
fn a_byte_order_mark_is_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    for (text, frames) in
        [(TARDIS, 2), (CRYPTOFEED, 1), ("1723161255030314667 a\r\n1723161255030314668 b", 2)]
    {
        let plain = items(reader(text));
        let marked = format!("\u{feff}{text}");
        let whole = marked.trim_end_matches('\n').to_owned() + "\n";
        let twice = [whole.as_str(), marked.as_str()].concat();
        for pack in [<[u8]>::to_vec, gzip, zstd] {
            assert_eq!(items(reader(pack(marked.as_bytes()))), plain);
            let path = folder.path().join("twice");
            std::fs::write(&path, [pack(whole.as_bytes()), pack(marked.as_bytes())].concat())
                .expect("written");
            let mut reader = CaptureReader::open(&path).expect("a capture");
            let (mut found, mut places) = (Vec::new(), Vec::new());
            while let Some(item) = reader.advance() {
                let placed = item.expect("a good line");
                places.push(reader.before().clone());
                found.push(format!("{:?}", reader.record(&placed)));
            }
            assert_eq!(
                found.iter().filter(|record| record.contains("Frame")).count(),
                2 * frames,
                "{twice:?}"
            );
            for (place, record) in places.iter().zip(&found) {
                let mut again = reader.capture().read_from(place).expect("opened");
                assert_eq!(format!("{:?}", again.next_record().expect("one").expect("good")), *record);
            }
        }
    }
    for nothing in ["\u{feff}", "\u{feff}\n", "\u{feff}\r\n\n"] {
        let refused =
            CaptureReader::from_read("x", io::Cursor::new(nothing)).err().expect("refused").to_string();
        assert_eq!(refused, "x: the capture is empty", "{nothing:?}");
    }
}

#[test]
fn what_is_no_capture_is_refused_by_name() {
    let refused = |bytes: &[u8]| {
        let source = io::Cursor::new(bytes.to_vec());
        CaptureReader::from_read("x/y.zst", source).err().expect("refused").to_string()
    };
    assert_eq!(refused(b""), "x/y.zst: the capture is empty");
    assert_eq!(refused(b"\n\r\n"), "x/y.zst: the capture is empty");
    assert!(refused(b"{\"a\":1}\n").starts_with("x/y.zst: no capture: none of the first lines has"));
    assert!(refused(&gzip(b"hello")[..12]).starts_with("x/y.zst: cannot read the capture: "));
    let missing = CaptureReader::open("no/such/file.gz").err().expect("refused").to_string();
    assert!(missing.starts_with("no/such/file.gz: cannot open the capture: "), "{missing}");
    let folder = CaptureReader::open(env!("CARGO_MANIFEST_DIR")).err().expect("refused").to_string();
    assert!(folder.contains(": a folder without segments (*.zst)"), "{folder}");
}

#[test]
fn the_sample_can_be_looked_at_before_and_after() {
    let text: String = (0..1000).map(|n| format!("{} {n}\n", AT + n)).collect();
    let mut reader = reader(text);
    let sampled = |reader: &CaptureReader| reader.sample().map(|r| (r.line, r.rx_ns)).collect::<Vec<_>>();
    let before = sampled(&reader);
    assert_eq!((before.len(), before[255]), (256, (256, AT + 255)));
    let first = reader.next_record().expect("one").expect("good");
    assert_eq!((first.line, first.kind), (1, RecordKind::Frame(b"0")));
    assert_eq!(sampled(&reader), before);
}

/// What a merge gives: source, line and receive time of each.
fn merged(texts: &[&str]) -> Vec<(usize, u64, u64)> {
    let mut merged = Merged::new(texts.iter().map(reader).collect());
    let mut found = Vec::new();
    while let Some((source, item)) = merged.next_record() {
        found.push(match item {
            Ok(record) => (source, record.line, record.rx_ns),
            Err(bad) => (source, bad.line, 0),
        });
    }
    found
}

#[test]
fn captures_merge_by_receive_time() {
    let (a, b) = ("1618677817.431936: a\n1618677818: c\n", "2021-04-17T16:43:37.5Z b\n");
    assert_eq!(
        merged(&[a, b]),
        [(0, 1, AT), (1, 1, 1_618_677_817_500_000_000), (0, 2, 1_618_677_818_000_000_000)]
    );
    assert_eq!(Merged::new(Vec::new()).next_record().map(|(source, _)| source), None);
}

#[test]
fn equal_times_go_by_source_then_line() {
    let line = |n: u64| format!("{} x\n", AT + n);
    let (a, b) = (line(0) + &line(0) + &line(1), line(0) + &line(1));
    let found = merged(&[&(b.clone() + "junk\n"), &a]);
    let expected = [(0, 1, AT), (1, 1, AT), (1, 2, AT), (0, 2, AT + 1), (0, 3, 0), (1, 3, AT + 1)];
    assert_eq!(found, expected, "a bad line comes in its place");
}

#[test]
fn a_clock_that_steps_back_moves_no_line() {
    let line = |n: u64| format!("{} x\n", AT + n);
    let back = line(10) + &line(5) + &line(20);
    let other = line(7) + &line(12);
    assert_eq!(
        merged(&[&back, &other]),
        [(1, 1, AT + 7), (0, 1, AT + 10), (0, 2, AT + 5), (1, 2, AT + 12), (0, 3, AT + 20)]
    );
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a.cap", "a.cap.gz", "a.cap.zst"] {
        let path = folder.path().join(name);
        let mut writer = CaptureWriter::create(&path).expect("created");
        writer.frame(AT, b"{\"event\":\"heartbeat\"}").expect("written");
        writer.disconnected().expect("written");
        writer.frame(AT + 1, b"{\n\"a\":\r\n1}").expect("written");
        writer.frame(AT + 2, b"").expect("written");
        writer.finish().expect("written");
        let expected = [
            format!("1 {AT} {{\"event\":\"heartbeat\"}}"),
            format!("2 {AT} Disconnected"),
            format!("3 {} {{ \"a\":  1}}", AT + 1),
            format!("4 {} ", AT + 2),
        ];
        assert_eq!(items(CaptureReader::open(&path).expect(name)), expected, "{name}");
        let packed = std::fs::read(&path).expect("a file");
        let magic = [&b"2021"[..], &[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd]];
        assert_eq!(magic.iter().filter(|m| packed.starts_with(m)).count(), 1, "{name}");
    }
    let nowhere =
        CaptureWriter::create(folder.path().join("no/such.zst")).err().expect("refused").to_string();
    assert!(nowhere.contains("such.zst: cannot create the capture: "), "{nowhere}");
}

#[test]
fn a_flushed_writer_leaves_its_lines_to_be_found() {
    let mut writer = CaptureWriter::new(Vec::new(), Compression::Plain).expect("started");
    writer.frame(AT, b"x").expect("written");
    writer.flush().expect("flushed");
    assert_eq!(writer.finish().expect("written"), b"2021-04-17T16:43:37.4319360Z x\n");
}

/// A segment with two blocks and notes between them.
fn segment(number: u32, run_ns: u64, first_ns: u64) -> Vec<u8> {
    let mut writer = SegmentWriter::new(Vec::new(), 3).expect("started");
    writer.note(first_ns, &format!("segment run={run_ns} number={number} venue=kraken")).expect("written");
    writer.note(first_ns, "connect wss://host/\nb").expect("written");
    assert!(!writer.frame(first_ns, b"a"));
    assert!(!writer.frame(first_ns + 1, b""));
    writer.note(first_ns + 2, "dropped frames=7 bytes=70 why=queue_full").expect("written");
    assert!(writer.frame(first_ns + 3, b"c\nd"));
    writer.disconnected(first_ns + 4);
    writer.finish().expect("written")
}

#[test]
fn a_segment_is_a_capture_for_us_and_for_every_zstd() {
    let bytes = segment(2, 5, AT);
    let found = reader(&bytes);
    assert_eq!((found.form(), found.venue()), (Form::Tardis, Some(WireFormat::Kraken)), "the recorder knew");
    let part = Segment { run_ns: 5, number: 2, venue: Some(WireFormat::Kraken), continues: true };
    assert_eq!(
        items(found),
        [
            format!("1 {AT} {:?}", RecordKind::Segment(part)),
            format!("2 {AT} {:?}", RecordKind::Connected("wss://host/ b")),
            format!("3 {AT} a"),
            format!("4 {} ", AT + 1),
            format!("5 {} {:?}", AT + 2, RecordKind::Dropped { frames: 7 }),
            format!("6 {} c d", AT + 3),
            format!("7 {} Disconnected", AT + 3),
        ]
    );
    let plain = zstd::stream::decode_all(&bytes[..]).expect("zstd as everybody has it");
    let lines = "2021-04-17T16:43:37.4319360Z a\n2021-04-17T16:43:37.431936001Z \n\
                 2021-04-17T16:43:37.431936003Z c d\n\n";
    assert_eq!(String::from_utf8_lossy(&plain), lines, "the tardis slice form, without the notes");
}

#[test]
fn wherever_a_segment_is_torn_what_is_before_is_read_and_the_rest_is_named() {
    let bytes = segment(1, 5, AT);
    let whole = items(reader(&bytes));
    // Where the pieces end.
    let mut ends = Vec::new();
    for cut in 12..=bytes.len() {
        let found = items(reader(&bytes[..cut]));
        let torn: Vec<_> = found.iter().filter(|line| line.contains("torn")).collect();
        let good = found.len() - torn.len();
        assert_eq!(found[..good], whole[..good], "cut at {cut}");
        if torn.is_empty() {
            ends.push((cut, good));
            continue;
        }
        assert_eq!((torn.len(), found.last()), (1, Some(torn[0])));
        let (whole_bytes, lines) = ends.last().copied().unwrap_or_default();
        assert_eq!(good, lines, "cut at {cut}: {found:?}");
        assert!(torn[0].contains(&format!("its last {} bytes, ", cut - whole_bytes)), "{torn:?}");
    }
    assert_eq!(ends.iter().map(|(_, lines)| *lines).collect::<Vec<_>>(), [1, 2, 4, 5, 7]);
    assert!(
        items(reader(&bytes[..bytes.len() - 1]))
            .last()
            .expect("torn")
            .contains("after 2021-04-17T16:43:37.431936002Z")
    );
    // A byte that is another one is found, wherever it is: what a disk makes of a file whose end it had not written.
    for at in 12..bytes.len() {
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 0x55;
        let found = items(reader(spoilt));
        assert!(found.last().expect("some").contains("torn"), "byte {at}: {found:?}");
        assert_eq!(found[..found.len() - 1], whole[..found.len() - 1]);
    }
}

#[test]
fn the_index_knows_the_blocks_by_their_heads() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.zst");
    let bytes = segment(1, 5, AT);
    for cut in [bytes.len(), bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).expect("written");
        let index = SegmentIndex::read(&path).expect("a file").expect("a segment");
        let all = [(AT, AT + 1, 2), (AT + 3, AT + 4, 2)];
        let whole = if cut == bytes.len() { 2 } else { 1 };
        let found: Vec<_> = index.blocks.iter().map(|b| (b.first_rx_ns, b.last_rx_ns, b.lines)).collect();
        assert_eq!(found, all[..whole]);
        assert_eq!(index.whole_bytes + index.torn_bytes, cut as u64);
        assert_eq!(index.torn_bytes > 0, cut < bytes.len());
    }
    std::fs::write(&path, &bytes).expect("written");
    let index = SegmentIndex::read(&path).expect("a file").expect("a segment");
    assert_eq!(index.at(0), index.blocks.first());
    assert_eq!((index.at(AT + 2), index.at(AT + 5)), (index.blocks.get(1), None));
    let from = index.blocks[1].offset as usize;
    let found = items(reader(&bytes[from..]));
    assert_eq!(found[0], format!("1 {} c d", AT + 3), "reading can start at a block");
    std::fs::write(&path, zstd(TARDIS.as_bytes())).expect("written");
    assert!(SegmentIndex::read(&path).expect("a file").is_none());
    std::fs::write(&path, "").expect("written");
    assert_eq!(SegmentIndex::read(&path).expect("a file").map(|index| index.blocks.len()), Some(0));
}

#[test]
fn a_folder_of_segments_is_one_capture() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let write = |run: u64, number: u32, bytes: &[u8]| {
        std::fs::write(path.join(segment_name(run, number)), bytes).expect("written");
    };
    write(AT, 1, &segment(1, AT, AT));
    write(AT, 2, &segment(2, AT, AT + 10));
    let torn = segment(3, AT, AT + 20);
    write(AT, 3, &torn[..torn.len() - 5]);
    write(AT + 5_000, 1, &segment(1, AT + 5_000, AT + 5_000));
    write(AT + 5_000, 3, &segment(3, AT + 5_000, AT + 5_010));
    // A kill right after the file was made.
    write(AT + 9_000, 1, b"");
    write(AT + 19_000, 1, &segment(1, AT + 19_000, AT + 19_000)[..7]);
    std::fs::write(path.join("readme.txt"), "no segment").expect("written");
    assert_eq!(segments(path).expect("a folder").len(), 7);
    let mut reader = CaptureReader::open(path).expect("a capture");
    let (mut goes_on, mut frames, mut torn) = (Vec::new(), 0, 0);
    while let Some(record) = reader.next_record() {
        match record.map(|record| record.kind) {
            Ok(RecordKind::Segment(segment)) => goes_on.push((segment.number, segment.continues)),
            Ok(RecordKind::Frame(_)) => frames += 1,
            Err(bad) => torn += u64::from(matches!(bad.fault, RecordFault::Torn { .. })),
            _ => {}
        }
    }
    assert_eq!(goes_on, [(1, true), (2, true), (3, true), (1, false), (3, false)]);
    assert_eq!((frames, torn), (4 * 3 + 2, 2), "behind what is torn the next segment is read");
    let (read, all) = reader.progress();
    assert_eq!(read, all);
    assert!(all > 1_000);
}
