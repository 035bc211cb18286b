//! Rooms: captures replayed beside the feed, for one client or for several that share a clock.

mod bounds;
mod names;
mod replayed;

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::support::answer::Answer;
use crate::support::client::Client;
use crate::support::{Ended, Gateway, POST, RawSocket, connect, eventually, in_repository, python, run};

/// What the feed replays, and what clients replay beside it.
const FEED: &str = "feeds/kraken.zst";
const CAPTURE: &str = "coinbase.zst";
/// What a slow client or machine costs is not what these tests are about.
const PATIENT: [&str; 3] = [
    "session.outbox_bytes_max=67108864",
    "session.shed_behind_ms=86400000",
    "replay.room_ring_capacity=131072",
];
const EVERYTHING: &str = "symbols=*&mode=every";

/// A gateway whose clients may replay what ships.
fn gateway(settings: &[&str]) -> Gateway {
    gateway_of("feeds", settings)
}

fn gateway_of(dir: &str, settings: &[&str]) -> Gateway {
    let dir = format!("replay.dir={dir}");
    let settings = [&[dir.as_str()], &PATIENT[..], settings].concat();
    Gateway::start(&[&["replay", "--loop", FEED][..], &Gateway::settings(&settings)].concat())
}

/// The rooms that the operator sees.
fn rooms(gateway: &Gateway) -> Vec<Value> {
    let (status, body) = Gateway::get(gateway.admin, "/api/rooms");
    assert_eq!(status, 200, "{body}");
    let mut body: Value = serde_json::from_str(&body).expect("JSON");
    match body["rooms"].take() {
        Value::Array(rooms) => rooms,
        other => panic!("{other}"),
    }
}

/// The room of this number; null once it has gone.
fn room(gateway: &Gateway, number: u64) -> Value {
    let found = rooms(gateway).into_iter().find(|room| room["number"] == number);
    found.unwrap_or_default()
}

fn until(gateway: &Gateway, number: u64, state: &str) -> Value {
    eventually(state, || room(gateway, number)["replay"]["state"] == state);
    room(gateway, number)
}

fn all_are_gone(gateway: &Gateway) {
    eventually("every room has gone", || gateway.metric_sum("tickfan_rooms") == 0);
    assert_eq!(rooms(gateway), Vec::<Value>::new());
}

/// What a handshake is answered with, and what a refusal says.
fn refused(gateway: &Gateway, query: &[u8]) -> (u16, String) {
    let mut stream = connect(gateway.http);
    let head = "HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let request = [b"GET /ws?", query, b" ", head.as_bytes()].concat();
    stream.write_all(&request).expect("sent");
    let answer = Answer::read(&mut stream);
    let said = if answer.body.is_empty() { String::new() } else { answer.error() };
    (answer.status, said)
}

#[track_caller]
fn assert_refused(gateway: &Gateway, query: &str, status: u16, word: &str) {
    let (found, said) = refused(gateway, query.as_bytes());
    assert!(found == status && said.contains(word), "{query}: {found} {said}, and not {status} {word}");
}

/// The answer to a request; what comes before it is left out.
fn ask(client: &mut RawSocket, request: &Value) -> Value {
    client.text(&request.to_string());
    loop {
        let message = client.word();
        if message["id"] == request["id"] {
            return message;
        }
    }
}

#[track_caller]
fn order(client: &mut RawSocket, what: &Value) {
    let mut request = json!({"op": "replay", "id": "order"});
    request.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
    assert_eq!(ask(client, &request), json!({"type": "ack", "id": "order", "op": "replay"}), "{what}");
}

fn subscribe(client: &mut RawSocket) {
    let channels = ["trade", "quote"];
    let request = json!({"op": "subscribe", "id": 1, "channel": channels, "symbols": ["*"], "mode": "every"});
    assert_eq!(ask(client, &request)["type"], "ack");
}

/// A trade or quote as it is the same in every replay.
fn timeless(mut tick: Value) -> Value {
    let fields = tick.as_object_mut().expect("an object");
    fields.remove("tx");
    fields.remove("rx");
    tick
}

fn is_tick(message: &Value) -> bool {
    message["type"] == "trade" || message["type"] == "quote"
}

/// The next so many trades and quotes.
fn ticks(client: &mut RawSocket, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    while found.len() < count {
        let message = client.word();
        assert_ne!(message["type"], "gap", "{message}");
        if is_tick(&message) {
            found.push(message);
        }
    }
    found
}

/// What `normalize` makes of the capture.
fn normalized(name: &str) -> Vec<Value> {
    let ended = run(&["normalize", &format!("feeds/{name}")]);
    ended.values().into_iter().filter(is_tick).collect()
}
