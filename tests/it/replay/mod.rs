//! A replay and its remote control: the clock, jumps, who may, and what is published in the end.

mod clock;
mod digest;
mod jumps;
mod permission;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::recorded::recorded;
use crate::support::{Capture, Ended, Gateway, POST, RawSocket, eventually, in_repository, python, run};

const SHIPPED: [&str; 3] = ["feeds/coinbase.zst", "feeds/binance-futures.zst", "feeds/kraken.zst"];
/// What may slow a client down is not what these tests are about.
const PATIENT: [&str; 2] = ["--set", "session.outbox_bytes_max=16777216"];

fn replay<'a>(options: &[&'a str], files: &[&'a str]) -> Gateway {
    Gateway::start(&[&["replay"][..], options, files].concat())
}

/// Gives an order over HTTP.
fn order(gateway: &Gateway, body: &Value) -> (u16, Value) {
    post(gateway.http, &body.to_string(), None)
}

fn post(address: SocketAddr, body: &str, token: Option<&str>) -> (u16, Value) {
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!("{POST}\r\n{token}Content-Length: {}", body.len());
    let (status, answer) =
        Gateway::ask(address, &format!("POST /api/replay HTTP/1.1\r\n{head}\r\n\r\n{body}"));
    (status, serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{status} {answer}")))
}

#[track_caller]
fn told(gateway: &Gateway, body: &Value) {
    let ack = json!({"type": "ack", "op": "replay"});
    assert_eq!(order(gateway, body), (200, ack), "{body}");
}

/// Where it is.
fn shown(gateway: &Gateway) -> Value {
    let (status, body) = Gateway::get(gateway.http, "/api/replay");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn until(gateway: &Gateway, state: &str) -> Value {
    eventually(state, || shown(gateway)["state"] == state);
    shown(gateway)
}

/// The word behind `key=` in the last thing that a replay says.
fn summary(ended: &Ended, key: &str) -> String {
    let line = ended.lines.iter().find_map(|line| line.strip_prefix("tickfan replayed "));
    let line = line.unwrap_or_else(|| panic!("no summary: {ended:?}"));
    let word = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    word.map(str::to_owned).unwrap_or_default()
}

/// What `normalize` says of captures: its lines, and the digest.
fn normalized(files: &[&str]) -> (Vec<String>, String) {
    let ended = run(&[&["normalize"][..], files].concat());
    assert!(ended.status.success(), "{ended:?}");
    let digest = ended.stderr.lines().find_map(|line| line.strip_prefix("digest "));
    (ended.lines, digest.expect("a digest").to_owned())
}

/// The parts of shipped captures, a file every few seconds.
fn parts(folder: &Path, names: &[&str], count: usize) -> Vec<String> {
    let mut parts = Vec::new();
    for name in names {
        let packed = std::fs::read(name).expect("a shipped capture");
        let text = zstd::decode_all(&packed[..]).expect("zstd");
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let stem = Path::new(name).file_stem().expect("a name").to_string_lossy().into_owned();
        for part in 0..count {
            let path = folder.join(format!("{stem}.{part}"));
            let lines = &lines[part * lines.len() / count..(part + 1) * lines.len() / count];
            std::fs::write(&path, lines.concat()).expect("a part");
            parts.push(path.to_str().expect("UTF-8").to_owned());
        }
    }
    parts
}

/// The answer to a request over the WebSocket.
fn ask(client: &mut RawSocket, request: &Value) -> Value {
    client.text(&request.to_string());
    loop {
        let message = client.word();
        if matches!(message["type"].as_str(), Some("ack" | "error" | "bye")) {
            return message;
        }
    }
}
