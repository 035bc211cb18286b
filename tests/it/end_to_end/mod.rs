//! The real binary over real sockets, with clients that are not ours.

mod bad_captures;
mod hello_and_acks;
mod ledger;
mod mixed_clients;
mod shutdown;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    BINARY, CLOSE, CONTINUATION, Capture, FIN, Gateway, PING, PONG, Process, RawSocket, TEXT, TOKEN, connect,
    eventually, header, normalized, python, run, tickfan,
};

const SHIPPED: [&str; 3] = ["feeds/coinbase.zst", "feeds/binance-futures.zst", "feeds/kraken.zst"];

fn number(summary: &Value, field: &str) -> u64 {
    summary[field].as_u64().unwrap_or_else(|| panic!("{field} of {summary}"))
}

/// The sum of all gaps of a summary.
fn missing(summary: &Value) -> u64 {
    let gaps = summary["gaps"].as_object().expect("an object");
    gaps.values().map(|n| n.as_u64().expect("a count")).sum()
}

fn said_goodbye(summary: &Value) {
    assert_eq!(summary["bye"]["code"], 4001, "{summary}");
    assert_eq!(summary["bye"]["reconnect"], true, "{summary}");
    assert_eq!(summary["close_code"], 4001, "{summary}");
}

/// Python clients of everything, subscribed.
fn subscribers(gateway: &Gateway, count: usize, options: &[&str]) -> Process {
    let count = count.to_string();
    let mut process = python("subscribers.py", &[&[&gateway.ws, count.as_str()][..], options].concat());
    assert_eq!(process.line(), "subscribed");
    process
}

/// Nothing is written to the log but what is wrong; a replay says at the end what it has published.
fn stopped_quietly(gateway: Gateway) {
    let mut ended = gateway.stop();
    ended.lines.retain(|line| !line.starts_with("tickfan replayed ticks="));
    assert_eq!((ended.lines.as_slice(), ended.complaints().as_str()), (&[][..], ""));
}
