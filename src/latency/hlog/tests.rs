use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::note::{Account, FlightNote, NotedClients, NotedGaps, NotedMoment};
use super::*;
use crate::latency;

const START_NS: u64 = 1_714_564_800_100_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn values(ns: &[u64]) -> Histogram<u64> {
    let mut histogram = latency::histogram();
    ns.iter().for_each(|ns| histogram.record(*ns).expect("in its bounds"));
    histogram
}

fn written(lines: &[(&str, u64, &Histogram<u64>)]) -> Vec<u8> {
    let mut writer = HlogWriter::new(Vec::new(), START_NS).expect("written");
    for (tag, since_ms, histogram) in lines {
        writer.write(tag, Duration::from_millis(*since_ms), SECOND, histogram).expect("written");
    }
    writer.into_inner()
}

/// Returns all readable intervals, the errors, and the torn line.
fn read(log: &[u8]) -> (Vec<Interval>, Vec<String>, Option<u64>) {
    let (mut intervals, mut errors) = (Vec::new(), Vec::new());
    let mut reader = HlogReader::new(log);
    loop {
        match reader.next_interval() {
            Ok(Some(interval)) => intervals.push(interval),
            Ok(None) => return (intervals, errors, reader.torn_line()),
            Err(error) => errors.push(error.to_string()),
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let (fast, slow, none) = (values(&[900, 1_000, 48_191]), values(&[2_000_000_000; 3]), values(&[]));
    let log = written(&[
        ("write/kraken/trade", 1_000, &fast),
        ("total", 1_000, &slow),
        ("recv", 86_400_123, &none),
    ]);
    let text = String::from_utf8(log.clone()).expect("text");
    let head = "#[Histogram log format version 1.3]\n\
        #values: nanoseconds; Interval_Max: nanoseconds; times: seconds\n\
        #[StartTime: 1714564800.100 (seconds since epoch)]\n\
        #[BaseTime: 1714564800.100 (seconds since epoch)]\n\
        \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\
        Tag=write/kraken/trade,1.000,1.000,48191.000,HISTFAAAA";
    assert_eq!(&text[..head.len()], head);
    let (intervals, errors, torn) = read(&log);
    assert_eq!((errors, torn), (vec![], None));
    let tags: Vec<&str> = intervals.iter().map(|interval| interval.tag.as_str()).collect();
    assert_eq!(tags, ["write/kraken/trade", "total", "recv"]);
    let starts: Vec<u64> = intervals.iter().map(|interval| interval.start_ns - START_NS).collect();
    assert_eq!(starts, [1_000_000_000, 1_000_000_000, 86_400_123_000_000]);
    assert!(intervals.iter().all(|interval| interval.duration_ns == 1_000_000_000));
    assert!(intervals.iter().map(|interval| &interval.histogram).eq([&fast, &slow, &none]));
}

#[test]
fn a_tag_that_a_log_cannot_hold_is_refused() {
    let mut writer = HlogWriter::new(Vec::new(), START_NS).expect("written");
    let before = writer.get_mut().len();
    for tag in ["", "a b", "a,b", "a\nb", "a\tb", &"a".repeat(TAG_BYTES_MAX + 1)] {
        assert!(writer.write(tag, SECOND, SECOND, &values(&[1])).is_err(), "{tag:?}");
    }
    assert_eq!(writer.get_mut().len(), before, "nothing of them is written");
}

#[test]
fn timestamps_count_from_the_base_or_else_from_the_start_or_else_from_the_epoch() {
    let log = String::from_utf8(written(&[("a", 2_500, &values(&[1]))])).expect("text");
    let line = log.lines().last().expect("a line").trim_start_matches("Tag=a,");
    let start_of = |head: &str, line: &str| {
        let (intervals, errors, _) = read(format!("{head}{line}\r\n").as_bytes());
        assert_eq!(errors, [""; 0]);
        assert_eq!(intervals[0].tag, "");
        intervals[0].start_ns
    };
    let start = "#[StartTime: 1714564800.000 (seconds since epoch), Wed May 01 2024]\n";
    let base = "#[BaseTime: 1714564700.000 (seconds since epoch)]\n";
    assert_eq!(start_of(&format!("{start}{base}"), line), 1_714_564_702_500_000_000);
    assert_eq!(start_of(start, line), 1_714_564_802_500_000_000);
    assert_eq!(start_of(start, &line.replacen("2.500", "1714564802.500", 1)), 1_714_564_802_500_000_000);
    assert_eq!(start_of("", line), 2_500_000_000);
}

/// Returns a line with these bytes as its histogram.
fn line_of(histogram: &[u8]) -> Vec<u8> {
    format!("Tag=x,0.000,1.000,1.000,{}\n", BASE64.encode(histogram)).into_bytes()
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(plain).expect("to memory");
    let stream = packer.finish().expect("to memory");
    [&V2_COMPRESSED[..], &(stream.len() as u32).to_be_bytes(), &stream].concat()
}

/// Returns a histogram before compression.
fn plain(digits: u32, low: u64, high: u64, counts: &[u8]) -> Vec<u8> {
    let length = (counts.len() as u32).to_be_bytes();
    let (digits, low, high) = (digits.to_be_bytes(), low.to_be_bytes(), high.to_be_bytes());
    [&V2[..], &length, &[0; 4], &digits, &low, &high, &1f64.to_be_bytes(), counts].concat()
}

#[test]
fn a_hostile_line_costs_itself_and_is_named() {
    let zlib = compressed(&plain(3, 1, 60_000_000_000, &[2, 4]));
    let mut endless = plain(3, 1, 60_000_000_000, &[2, 4]);
    endless[4..8].fill(0xff);
    let cases: [(&str, Vec<u8>); 17] = [
        ("neither a comment nor", b"Tag=x,1.0\n".to_vec()),
        ("neither a comment nor", b"99999999999999999999.0,1.0,1.0,AAAA\n".to_vec()),
        ("beyond the year 2554", [b"9999999999999.0,1.0,1.0,", &line_of(&zlib)[24..]].concat()),
        ("a tag of more than", format!("Tag={},0.0,1.0,1.0,AAAA\n", "x".repeat(200)).into_bytes()),
        ("longer than 4194304 bytes", [b"x".repeat(3 * LINE_BYTES_MAX), b"\n".to_vec()].concat()),
        ("base64: ", b"Tag=x,0.0,1.0,1.0,HIST!\n".to_vec()),
        ("not of version 2", line_of(b"\x1c\x84\x93\x08\0\0\0\0")),
        ("shorter than it says", line_of(&[&V2_COMPRESSED[..], &[0xff; 4]].concat())),
        ("histogram: ", line_of(&[&V2_COMPRESSED[..], &9u32.to_be_bytes(), &zlib[8..17]].concat())),
        ("damaged", line_of(&[&V2_COMPRESSED[..], &4u32.to_be_bytes(), b"\xff\xff\xff\xff"].concat())),
        ("more than 16777216 bytes", line_of(&compressed(&vec![0; 17 << 20]))),
        ("histogram: shorter than it says", line_of(&compressed(&endless))),
        ("parameters were invalid", line_of(&compressed(&plain(6, 1, 60_000_000_000, &[2])))),
        ("beyond 2^63", line_of(&compressed(&plain(5, 1, u64::MAX, &[2])))),
        ("run of zeros without end", line_of(&compressed(&plain(3, 1, 60_000_000_000, &[0xff; 20])))),
        // -2^62 zeros, then a count.
        (
            "longer than it should be",
            line_of(&compressed(&plain(3, 1, 60_000_000_000, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x02"))),
        ),
        // Counts of almost 2^63.
        (
            "counts more than",
            line_of(&plain(3, 1, 9_000, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x02".repeat(8).as_slice())),
        ),
    ];
    for (why, line) in cases {
        let good = line_of(&zlib);
        let (intervals, errors, torn) = read(&[good.as_slice(), &line, &good].concat());
        assert_eq!((intervals.len(), errors.len(), torn), (2, 1, None), "{why}: {errors:?}");
        assert!(errors[0].starts_with("line 2: ") && errors[0].contains(why), "{why}: {errors:?}");
    }
}

#[test]
fn what_is_unpacked_is_bounded() {
    let mut reader = HlogReader::new(&[][..]);
    let text = BASE64.encode(compressed(&vec![0; 64 << 20]));
    reader.decoder.histogram(&text).expect_err("too long");
    // Buffers double as they grow.
    assert!(reader.decoder.plain.capacity() as u64 <= 2 * PLAIN_BYTES_MAX + 4096);
}

#[test]
fn the_widest_histogram_is_read() {
    for (digits, low, high) in [(5, 1, u64::MAX / 2), (0, 1, 2), (3, 1 << 52, u64::MAX / 2)] {
        let last = latency_index(digits, low, high);
        // A run of zeros, then a count of 1 in the very last bucket.
        let mut counts = varint((last << 1) - 1);
        counts.push(2);
        let (intervals, errors, _) = read(&line_of(&compressed(&plain(digits, low, high, &counts))));
        assert_eq!(errors, [""; 0]);
        let histogram = &intervals[0].histogram;
        assert_eq!(histogram.len(), 1, "{digits} {low} {high}");
        let mut sum = latency::histogram();
        sum.auto(true);
        sum.add(histogram).expect("it grows");
        assert!(sum.value_at_quantile(1.0) >= high / 2 && sum.mean() > 0.0, "{digits} {low} {high}");
    }
}

/// Returns the index of the last bucket of such a histogram.
fn latency_index(digits: u32, low: u64, high: u64) -> u64 {
    let histogram = Histogram::<u64>::new_with_bounds(low, high, digits as u8).expect("good bounds");
    histogram.distinct_values() as u64 - 1
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn a_torn_last_line_is_told_and_costs_nothing_else() {
    let log = written(&[("a", 0, &values(&[1, 2, 3])), ("b", 0, &values(&[900_000]))]);
    let whole = log.len() - 1;
    let last = log[..whole].iter().rposition(|byte| *byte == b'\n').expect("several lines") + 1;
    for cut in last + 1..whole {
        let (intervals, errors, torn) = read(&log[..cut]);
        assert_eq!((intervals.len(), errors.len(), torn), (1, 0, Some(7)), "cut after {cut} bytes");
    }
    // Only the line break is missing.
    let (intervals, errors, torn) = read(&log[..whole]);
    assert_eq!((intervals.len(), errors.len(), torn), (2, 0, None));
}

/// Uses a parsed histogram in all ways that the program does.
fn use_up(log: &[u8]) {
    let mut sum = latency::histogram();
    sum.auto(true);
    for interval in read(log).0 {
        let of = |quantile| interval.histogram.value_at_quantile(quantile);
        assert!(of(0.5) <= of(0.99) && of(0.99) <= interval.histogram.max());
        if sum.len() + interval.histogram.len() <= COUNT_MAX {
            sum.add(&interval.histogram).expect("it grows");
        }
    }
    assert!(sum.mean() >= 0.0 && sum.value_at_quantile(0.9999) <= sum.max());
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        use_up(&bytes);
        use_up(&line_of(&bytes));
        use_up(&line_of(&compressed(&bytes)));
    }

    #[test]
    fn a_changed_log_never_panics(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut log = written(&[("write", 0, &values(&[1, 70_000, 59_000_000_000])), ("total", 0, &values(&[]))]);
        for (at, byte) in changes {
            let at = at.index(log.len());
            log[at] = byte;
        }
        use_up(&log);
    }

    #[test]
    fn numbers_of_any_histogram_never_panic(
        digits in 0u32..7,
        low in prop_oneof![0u64..3, any::<u64>()],
        high in prop_oneof![Just(60_000_000_000), any::<u64>()],
        counts in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(2)], 0..60),
    ) {
        use_up(&line_of(&compressed(&plain(digits, low, high, &counts))));
    }
}

// ---- notes --------------------------------------------------------------------------------------------

fn account() -> Account {
    Account {
        from: NotedMoment(START_NS),
        to: NotedMoment(START_NS + 1_000_000_000),
        clients: NotedClients { at_start: 6, new: 2, at_end: 7 },
        slow: NotedClients { at_start: 0, new: 1, at_end: 1 },
        sent: 9,
        merged: 8,
        dropped: 7,
        lost: 6,
        gaps: [("slow_consumer".to_owned(), NotedGaps { told: 2, ticks: 7 })].into(),
        ended: [("closed".to_owned(), 1)].into(),
        flights: vec![FlightNote {
            file: "flight-2024-05-01T12-00-00.100000Z.ndjson".to_owned(),
            at: NotedMoment(START_NS),
            what: "a client was cut: slow_consumer (4000)".to_owned(),
            session: Some("c0ffee".to_owned()),
            peer: None,
        }],
        flights_left_out: 3,
    }
}

const INTERVAL: &str = concat!(
    r#"#tickfan {"type":"interval","from":"2024-05-01T12:00:00.100000Z","to":"2024-05-01T12:00:01.100000Z","#,
    r#""clients":{"at_start":6,"new":2,"at_end":7},"slow":{"at_start":0,"new":1,"at_end":1},"sent":9,"merged":8,"#,
    r#""dropped":7,"lost":6,"gaps":{"slow_consumer":{"told":2,"ticks":7}},"ended":{"closed":1},"flights":[{"#,
    r#""file":"flight-2024-05-01T12-00-00.100000Z.ndjson","at":"2024-05-01T12:00:00.100000Z","#,
    r#""what":"a client was cut: slow_consumer (4000)","session":"c0ffee","peer":null}],"flights_left_out":3}"#,
    "\n"
);

#[test]
fn notes_are_written_and_read_between_the_intervals() {
    let mut writer = HlogWriter::new(Vec::new(), START_NS).expect("written");
    writer.note(&Note::Interval(account())).expect("written");
    writer.write("a", SECOND, SECOND, &values(&[5])).expect("written");
    let log = writer.into_inner();
    assert!(log.windows(INTERVAL.len()).any(|part| part == INTERVAL.as_bytes()), "{}", log.escape_ascii());
    let mut reader = HlogReader::new(log.as_slice());
    let Ok(Some(HlogEntry::Note(note))) = reader.next_entry() else { panic!("a note") };
    assert_eq!(*note, Note::Interval(account()));
    assert!(matches!(reader.next_entry(), Ok(Some(HlogEntry::Interval(_)))));
    assert_eq!(read(&log).0.len(), 1, "who asks for intervals gets them");
    let mut long = account();
    long.flights = vec![long.flights[0].clone(); 100];
    let mut writer = HlogWriter::new(Vec::new(), START_NS).expect("written");
    assert!(writer.note(&Note::Interval(long)).is_err(), "a bound is kept");
}

#[test]
fn a_note_that_is_wrong_is_a_bad_line_and_other_comments_are_left_alone() {
    let with = |from: &str, to: &str| INTERVAL.replace(from, to);
    let long = with("c0ffee", &"c".repeat(note::NOTE_BYTES_MAX));
    for (line, why) in [
        (with("\"sent\":9,", ""), "line 1: a note that cannot be read: missing field `sent`"),
        (with("\"sent\":9", "\"sent\":-9"), "invalid value: integer `-9`, expected u64"),
        (
            with("12:00:01.100000Z", "12:00:01+00:00"),
            "the time \"2024-05-01T12:00:01+00:00\": not a time such as",
        ),
        (with("12:00:01", "11:00:01"), "it ends before it begins"),
        (with("\"closed\"", "\"Closed!\""), "\"Closed!\" is no cause"),
        (with("\"interval\"", "\"pause\""), "unknown variant `pause`, expected `log` or `interval`"),
        (with("{\"type\"", "{{\"type\""), "a note that cannot be read: "),
        (
            "#tickfan {\"type\":\"log\",\"version\":2}\n".to_owned(),
            "version 2 of the notes: this program knows 1",
        ),
        (long, "a note of more than 16384 bytes"),
    ] {
        let (intervals, errors, _) = read(line.as_bytes());
        assert_eq!((intervals.len(), errors.len()), (0, 1), "{line}");
        assert!(
            errors[0].starts_with("line 1: a note") || errors[0].starts_with("line 1: version"),
            "{errors:?}"
        );
        assert!(errors[0].contains(why), "{errors:?} should say {why}");
    }
    // A field added by a later version, and comments of other programs.
    let more = with("\"sent\"", "\"colour\":\"red\",\"sent\"");
    let (_, errors, torn) =
        read(format!("{more}#tickfan\n#tickfans {{}}\n# note\n{}", &INTERVAL[..50]).as_bytes());
    assert_eq!((errors, torn), (vec![], Some(5)), "the last was cut off");
}

proptest! {
    #[test]
    fn no_note_panics(text in "(#tickfan )?[{}\\[\\]:,\"a-z0-9_.-]{0,60}\\PC{0,20}\n") {
        let _ = Note::read(text.as_bytes());
    }
}
