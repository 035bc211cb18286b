//! What is fuzzed: each function that reads bytes from outside, with good inputs for it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;

use serde::de::IgnoredAny;
use tickfan::capture::{CaptureReader, CaptureWriter, Compression, SegmentIndex, SegmentWriter};
use tickfan::protocol;
use tickfan::venue::WireFormat;

use super::run::{Read, Target};
use crate::support::in_repository;
use crate::venues::{Feed, cases, frames};

/// The target of this name.
pub(super) fn target(name: &'static str) -> Target {
    let (mut seeds, read): (Vec<Vec<u8>>, Read) = match name {
        "request" => (samples("{\"op\":"), Box::new(request)),
        "query" => (queries(), Box::new(query)),
        "capture" => (captures(), Box::new(capture)),
        _ => {
            let wire = WireFormat::ALL.into_iter().find(|wire| wire.name() == name).expect("a target");
            let mut seeds: Vec<Vec<u8>> =
                frames(wire).into_iter().map(|frame| frame.trim().as_bytes().to_vec()).collect();
            seeds.extend(cases().into_iter().map(String::into_bytes));
            seeds.push(seeds.join(&b'\n'));
            if wire == WireFormat::Native {
                seeds.extend(samples("{\"type\":\"trade\""));
                seeds.extend(samples("{\"type\":\"quote\""));
            }
            (seeds, Box::new(move |input| venue(wire, input)))
        }
    };
    seeds.extend(corpus(name));
    Target { name, seeds, read }
}

/// The inputs of `fuzz/corpus/<name>`, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = in_repository("fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| fs::read(file).expect("an input")).collect()
}

/// The lines of the samples in `docs/PROTOCOL.md` that begin so.
fn samples(begin: &str) -> Vec<Vec<u8>> {
    let page = fs::read_to_string(in_repository("docs/PROTOCOL.md")).expect("the page");
    let found: Vec<_> =
        page.lines().filter(|line| line.starts_with(begin)).map(|line| line.as_bytes().to_vec()).collect();
    assert!(!found.is_empty(), "no sample begins with {begin}");
    found
}

/// A request of a client. What is accepted is a JSON object, and is read the same again.
fn request(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let result = protocol::parse(&text, 100);
    if result.is_ok() {
        // Any number is JSON where it is none of ours.
        serde_json::from_str::<IgnoredAny>(&text)
            .unwrap_or_else(|error| panic!("accepted, and is no JSON: {error}"));
        assert!(text.trim_start().starts_with('{'), "accepted, and is no object");
        assert_eq!(protocol::parse(&text, 100), result);
    }
    match result {
        Ok(request) => format!("{:?}", request.op),
        Err(fault) => format!("{} {}", fault.code, fault.msg),
    }
}

/// The queries that tests and documents name.
fn queries() -> Vec<Vec<u8>> {
    let parameters = [
        "symbols=coinbase:BTC-USD,kraken:*&channel=trade",
        "symbols=*&mode=latest&max_hz=10&on_slow=drop",
        "symbols=*&mode=every&snapshot=false&from=-10m",
        "symbols=*&from=2026-05-28T20:26:40Z",
        "replay=coinbase.zst,kraken.zst&room=a&from=%2B30s&to=%2B2m&speed=10&loop=true&max_idle=5s",
        "replay=coinbase.zst&symbols=*&speed=0",
    ];
    parameters.iter().map(|query| query.as_bytes().to_vec()).collect()
}

/// The query of a WebSocket's address.
fn query(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (key.to_owned(), value.replace("%2B", "+"))
    };
    match protocol::parse_query(text.split('&').map(pair).collect()) {
        Ok(asked) => format!("{asked:?}"),
        Err(why) => why,
    }
}

/// Captures of each form, plain and packed, and a recording.
fn captures() -> Vec<Vec<u8>> {
    const AT: u64 = 1_714_564_800_000_000_000;
    let frame = br#"{"type":"trade","symbol":"demo:ABC","price":"1","size":"2"}"#;
    let mut written: Vec<Vec<u8>> = [Compression::Plain, Compression::Gzip, Compression::Zstd(1)]
        .into_iter()
        .map(|compression| {
            let mut writer = CaptureWriter::new(Vec::new(), compression).expect("started");
            writer.frame(AT, frame).expect("memory");
            writer.disconnected().expect("memory");
            writer.frame(AT + 1, frame).expect("memory");
            writer.finish().expect("memory")
        })
        .collect();
    let mut segment = SegmentWriter::new(Vec::new(), 3).expect("started");
    segment.note(AT, "segment run=5 number=2 venue=kraken").expect("memory");
    segment.frame(AT, frame);
    segment.note(AT + 2, "dropped frames=7 bytes=70 why=queue_full").expect("memory");
    segment.frame(AT + 3, frame);
    segment.disconnected(AT + 4);
    written.push(segment.finish().expect("memory"));
    written.push(
        b"wss://ws.kraken.com <-> 1618677816.5\nwss://x <- 1618677817.0: {}\n1618677817.431936: {}\n"
            .to_vec(),
    );
    written.push(b"1723161255030314667 {}\r\n1723161255030314668 {\"e\":\"trade\"}".to_vec());
    written
}

/// A capture, to its end: numbers of lines go up. A segment has an index, too.
fn capture(input: &[u8]) -> String {
    let mut outcome = String::new();
    let mut reader = match CaptureReader::from_read("input", Cursor::new(input.to_vec())) {
        Ok(reader) => reader,
        Err(error) => return format!("{error}"),
    };
    write!(outcome, "{:?} {:?} {:?}", reader.form(), reader.venue(), reader.unit()).expect("a string");
    let (mut line, mut records) = (0, 0);
    while let Some(item) = reader.next_record() {
        records += 1;
        match item {
            Ok(record) => {
                assert!(record.line >= line, "line {} behind line {line}", record.line);
                line = record.line;
                if records < 50 {
                    let kind = format!("{:?}", record.kind);
                    write!(outcome, " {}", kind.split(['(', ' ']).next().unwrap_or("")).expect("a string");
                }
            }
            Err(bad) => {
                let is_end = bad.is_end();
                write!(outcome, " {}", bad.fault).expect("a string");
                assert!(!is_end || reader.next_record().is_none(), "something comes after the end");
                if is_end {
                    break;
                }
            }
        }
    }
    if input.starts_with(&0x184D_2A57_u32.to_le_bytes()) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(input).expect("written");
        write!(outcome, " {}", index(file.path(), input.len() as u64)).expect("a string");
    }
    outcome
}

fn index(path: &Path, bytes: u64) -> String {
    let Some(index) = SegmentIndex::read(path).expect("a file that can be read") else {
        return "no segment".to_owned();
    };
    assert!(index.torn_bytes <= bytes);
    assert!(index.blocks.iter().all(|block| block.offset < bytes), "a block behind the end");
    format!("{} blocks, {}", index.blocks.len().min(9), index.torn_bytes > 0)
}

/// The frames of a venue, a line each: [`Feed`] holds that no number is left out, whatever they are.
fn venue(wire: WireFormat, input: &[u8]) -> String {
    let mut feed = Feed::with_room(&[wire], 4_096);
    let mut outcome = String::new();
    for frame in input.split(|byte| *byte == b'\n').take(16) {
        feed.prime(frame);
        let (ticks, result) = feed.try_take(0, frame);
        for tick in ticks.iter().take(8) {
            // `venue:SYMBOL trade 1 buy …`
            let mut words = tick.split(' ').skip(1);
            write!(outcome, "{} ", words.next().unwrap_or("")).expect("a string");
        }
        match result {
            Ok(()) => outcome.push_str("; "),
            // Where its grammar breaks leads no further.
            Err(error) if error.to_string().starts_with("not JSON") => outcome.push_str("not JSON; "),
            Err(error) => write!(outcome, "{error}; ").expect("a string"),
        }
    }
    outcome
}
