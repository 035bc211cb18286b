//! Inputs of kinds that other programs were found to tell wrongly: what `normalize` and `inspect` make of them. The inputs
//! lie in `tests/cases/`, and each test names the id of its case.

mod books;
mod clocks;
mod continuation;
mod trades;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Ended, Process, in_repository};

fn input(name: &str) -> PathBuf {
    in_repository("tests/cases").join(name)
}

/// A capture in the form of hftbacktest with these frames, a second apart.
fn capture(folder: &Path, name: &str, first_s: u64, frames: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let lines = (first_s..).zip(frames).map(|(second, frame)| format!("{second}000000000 {frame}\n"));
    std::fs::write(&path, lines.collect::<String>()).expect("a file");
    path
}

fn tickfan(arguments: &[&str], files: &[PathBuf]) -> Ended {
    Process::start(crate::support::tickfan(arguments).args(files)).end()
}

/// All that it has printed.
fn stdout(ended: &Ended) -> String {
    ended.lines.join("\n") + "\n"
}

/// What `normalize` prints, a short text for each line, and what it says on standard error.
fn normalize_with(arguments: &[&str], files: &[PathBuf]) -> (Vec<String>, String) {
    let output = tickfan(&[&["normalize"], arguments].concat(), files);
    (output.lines.iter().map(|line| short(line)).collect(), output.stderr)
}

fn normalize(files: &[PathBuf]) -> (Vec<String>, String) {
    normalize_with(&[], files)
}

fn told(name: &str) -> Vec<String> {
    normalize(&[input(name)]).0
}

/// `trade 100.1 x 1`, `quote 9.98 x 4 / 10.01 x 1`, `gap quote 2..2`.
fn short(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect("a JSON line");
    let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
    match line["type"].as_str() {
        Some("trade") => format!("trade {} x {}", text("price"), text("size")),
        Some("quote") => {
            format!("quote {} x {} / {} x {}", text("bid"), text("bid_size"), text("ask"), text("ask_size"))
        }
        Some("gap") => format!("gap {} {}..{}", text("channel"), line["from"], line["to"]),
        _ => panic!("{line}"),
    }
}

/// Spot: `U`–`u`, the bid it sets.
fn spot_change(first: u64, last: u64, bid: &str) -> String {
    format!(
        r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1787227200100,"s":"BTCUSDT","U":{first},"u":{last},"b":[["{bid}","1"]],"a":[]}}}}"#
    )
}

fn spot_snapshot(last: u64) -> String {
    format!(
        r#"{{"stream":"btcusdt@depthSnapshot","data":{{"lastUpdateId":{last},"bids":[["90","9"]],"asks":[["200","9"]]}}}}"#
    )
}

/// A capture with frames at these offsets, milliseconds.
fn at(folder: &Path, name: &str, frames: &[(u64, String)]) -> PathBuf {
    let path = folder.join(name);
    let line = |(offset_ms, frame): &(u64, String)| {
        format!("{} {frame}\n", (1_780_000_000_000 + offset_ms) * 1_000_000)
    };
    std::fs::write(&path, frames.iter().map(line).collect::<String>()).expect("a file");
    path
}
