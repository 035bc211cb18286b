//! Clients that ask for the past: what was recorded comes first, then the stream, with no hole and no repeat.

mod bounds;
mod files;
mod seam;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::support::{CLOSE, FIN, Gateway, PING, PONG, POST, RawSocket, TEXT, TOKEN, connect, eventually};

/// What differs from client to client taken out of the ticks; gaps and snapshots as they are.
fn ticks(messages: &[Value]) -> Vec<Value> {
    let is_tick = |m: &&Value| ["trade", "quote", "gap"].iter().any(|kind| m["type"] == *kind);
    let plain = |m: &Value| {
        let mut tick = m.clone();
        for own in ["tx", "past"] {
            tick.as_object_mut().expect("an object").remove(own);
        }
        tick
    };
    messages.iter().filter(is_tick).map(plain).collect()
}

fn key(tick: &Value) -> (String, String) {
    let channel = if tick["type"] == "gap" { &tick["channel"] } else { &tick["type"] };
    (tick["symbol"].to_string(), channel.to_string())
}

/// Of what somebody saw who was there: each stream from its first tick on that was received at `from_us` or later.
fn since(from_us: u64, seen: &[Value], wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut begun: BTreeMap<(String, String), bool> = BTreeMap::new();
    let seen = seen.iter().filter(|tick| wanted(tick));
    seen.filter(|tick| {
        let begun = begun.entry(key(tick)).or_default();
        *begun |= tick["rx"].as_u64().is_some_and(|rx| rx >= from_us);
        *begun
    })
    .cloned()
    .collect()
}

/// The numbers of each stream follow each other, or a gap covers the difference. How many gaps.
fn check_numbers(ticks: &[Value]) -> usize {
    let mut told: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut gaps = 0;
    for tick in ticks {
        let number = |name: &str| tick[name].as_u64().unwrap_or_else(|| panic!("{name} of {tick}"));
        let gap = tick["type"] == "gap";
        let (first, last) = if gap { (number("from"), number("to")) } else { (number("seq"), number("seq")) };
        if let Some(before) = told.insert(key(tick), last) {
            assert_eq!(first, before + 1, "{tick}");
        }
        gaps += usize::from(gap);
    }
    gaps
}

/// So many ticks stand in the ring.
const RING: u64 = 1_024;
/// Room for a client that reads.
const PATIENT: [&str; 3] =
    ["session.outbox_bytes_max=4194304", "session.shed_behind_ms=60000", "limits.ops_per_s=100000"];

/// Everything that was published has been read by the shard and by the history: no ring has come round.
fn taken(gateway: &Gateway) {
    let published = gateway.metric_sum("tickfan_published_total");
    eventually("the shard has read them", || gateway.metric_sum("tickfan_shard_ticks_total") >= published);
    eventually("they are kept", || gateway.metric_sum("tickfan_history_taken_total") >= published);
    for lost in ["tickfan_shard_lapped_total", "tickfan_history_missed_total"] {
        assert_eq!(gateway.metric_sum(lost), 0, "{lost}");
    }
}

/// The files of histories among these recordings.
fn history_files(recordings: &Path) -> usize {
    names(&recordings.join(".history")).iter().filter(|name| name.ends_with(".ticks")).count()
}

/// What is in a folder; nothing if there is none.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// A gateway that records, and its only publisher.
struct Sequencer {
    gateway: Gateway,
    publisher: TcpStream,
    published: u64,
    dir: tempfile::TempDir,
    ring: u64,
}

impl Sequencer {
    fn open(settings: &[&str]) -> Self {
        Self::with_ring(RING, settings)
    }

    fn with_ring(ring: u64, settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let record = format!("record.dir={}", dir.path().display());
        let capacity = format!("ring.capacity={ring}");
        let own = [record.as_str(), "record.enabled=true", &capacity];
        let gateway = Gateway::publishing(r#"["demo"]"#, &[&own[..], &PATIENT, settings].concat());
        let mut publisher = connect(gateway.publish.expect("it listens"));
        writeln!(publisher, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
        Self { gateway, publisher, published: 0, dir, ring }
    }

    /// Publishes trades of some symbols, a part of the ring at a time so that nobody is lapped.
    fn trades(&mut self, symbols: &[&str], count: u64) {
        let mut left = count;
        while left > 0 {
            let chunk = left.min(self.ring / 4);
            let mut lines = String::new();
            for n in self.published..self.published + chunk {
                let symbol = symbols[n as usize % symbols.len()];
                // Digits that do not pack.
                let odd = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let id = format!("{:016x}{:016x}", odd, odd.wrapping_mul(0xD6E8_FEB8_6659_FD93));
                writeln!(
                    lines,
                    r#"{{"type":"trade","symbol":"{symbol}","price":"{n}.25","size":"{}","trade_id":"{id}"}}"#,
                    odd % 1_000_000_007 + 1
                )
                .expect("text");
            }
            self.publisher.write_all(lines.as_bytes()).expect("sent");
            self.published += chunk;
            left -= chunk;
            eventually("they came in", || {
                self.gateway.metric_sum("tickfan_feed_trades_total") >= self.published
            });
            taken(&self.gateway);
        }
    }

    fn ask(&self, request: &Value) -> (RawSocket, Value) {
        let mut socket = RawSocket::open(&self.gateway, "");
        socket.text(&request.to_string());
        let answer = socket.word();
        (socket, answer)
    }
}

fn request(from: &Value) -> Value {
    json!({"op": "subscribe", "id": 1, "channel": "trade", "symbols": ["demo:A"], "from": from})
}

/// The next message but heartbeats and what is said of slowness.
fn told(socket: &mut RawSocket) -> Value {
    loop {
        let message = socket.word();
        if message["type"] != "lag" {
            return message;
        }
    }
}

#[track_caller]
fn trade(socket: &mut RawSocket) -> Value {
    let message = told(socket);
    assert_eq!(message["type"], "trade", "{message}");
    message
}
