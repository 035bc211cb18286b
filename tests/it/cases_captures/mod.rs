//! Captures of others, and commands that fail: small inputs after what was met in this field, by the id of the case.

mod failing_commands;
mod forms;
mod truncated;
mod units;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tickfan::capture::{CaptureReader, SegmentWriter};
use tickfan::latency::hlog::HlogWriter;
use tickfan::venue::WireFormat;

use crate::support::recorded::recorded;
use crate::support::{Ended, Gateway, Process, eventually, run, tickfan};

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

/// A trade of Binance futures, with this number.
fn trade(id: u64) -> String {
    format!(
        r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1660228023036,"T":1660228023031,"s":"BTCUSDT","t":{id},"p":"24467.10","q":"0.010","X":"MARKET","m":true}}}}"#
    )
}

/// The holes of a capture as `inspect` tells them: as text, and as JSON.
fn holes(args: &[&str]) -> (Vec<String>, Vec<Value>) {
    let shown = run(&[&["inspect"][..], args].concat()).lines;
    assert!(!shown.join("\n").contains("1970"), "{shown:?}");
    let report = inspected(args);
    let told = shown.iter().filter(|line| line.starts_with("    ") && line.contains(" from "));
    (told.cloned().collect(), report["holes"].as_array().expect("holes").clone())
}

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

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("one").file_name().into_string().expect("UTF-8")).collect();
    names.sort_unstable();
    names
}
