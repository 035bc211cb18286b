//! A recording is never live: what is told of each symbol's state where something is replayed, over real sockets.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{
    Capture, Gateway, PATIENCE, POST, RawSocket, TOKEN, connect, eventually, in_repository,
};

const FEED: &str = "feeds/coinbase.zst";
const BTC: &str = "coinbase:BTC-USD";
/// What may slow a client down is not what these tests are about.
const PATIENT: [&str; 2] = ["--set", "session.outbox_bytes_max=16777216"];
/// Publishers may come.
const PUBLISHING: [&str; 6] = [
    "--set",
    "publish.token=token-of-the-tests",
    "--set",
    "publish.listen=127.0.0.1:0",
    "--set",
    "publish.venues=[\"demo\"]",
];

fn replay(options: &[&str], files: &[&str]) -> Gateway {
    Gateway::start(&[&["replay"][..], options, &PATIENT, files].concat())
}

/// A client that makes of the states what the protocol says, and nothing of anything else.
struct Client {
    socket: RawSocket,
    states: BTreeMap<String, String>,
    /// Each state that a `status` told, in order.
    told: Vec<(String, String)>,
    /// With each value, what its symbol's state was when it came.
    values: Vec<(String, String)>,
    /// How many values came, by venue.
    counts: BTreeMap<String, usize>,
}

impl Client {
    fn open(gateway: &Gateway, query: &str) -> Self {
        let socket = RawSocket::open(gateway, query);
        Self {
            socket,
            states: BTreeMap::new(),
            told: Vec::new(),
            values: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn feed(&self) -> &str {
        self.socket.hello["feed"].as_str().expect("a word")
    }

    fn take(&mut self, message: &Value) {
        let text = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
        let symbol = text(message, "symbol").unwrap_or_default();
        match message["type"].as_str().expect("a type") {
            "status" => {
                let state = text(message, "state").expect("a state");
                self.states.insert(symbol.clone(), state.clone());
                self.told.push((symbol, state));
            }
            "ack" => {
                for row in message["ok"].as_array().into_iter().flatten() {
                    if let (Some(symbol), Some(state)) = (text(row, "symbol"), text(row, "state")) {
                        self.states.insert(symbol, state);
                    }
                }
            }
            "trade" | "quote" => {
                // What a wildcard takes is live unless a status before its first value says otherwise.
                let state = self.states.entry(symbol.clone()).or_insert_with(|| "live".to_owned());
                let venue = symbol.split(':').next().expect("a venue").to_owned();
                *self.counts.entry(venue).or_default() += 1;
                self.values.push((symbol, state.clone()));
            }
            _ => {}
        }
    }

    /// The answer to a request; what comes before it is taken in.
    fn ask(&mut self, request: &Value) -> Value {
        let mut request = request.clone();
        request["id"] = "it".into();
        self.socket.text(&request.to_string());
        loop {
            let message = self.socket.word();
            self.take(&message);
            if message["id"] == "it" {
                assert_ne!(message["type"], "error", "{message}");
                return message;
            }
        }
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}: {:?}", self.states.iter().take(20));
            // A heartbeat is as good: it shows that nothing comes.
            let message = self.socket.message();
            self.take(&message);
        }
    }

    fn until_state(&mut self, symbol: &str, state: &str) {
        self.until(&format!("{symbol} is {state}"), |it| it.states.get(symbol).is_some_and(|is| is == state));
    }

    /// So many values more of a venue.
    fn until_values(&mut self, venue: &str, count: usize) {
        let of = |it: &Self| it.counts.get(venue).copied().unwrap_or(0);
        let wanted = of(self) + count;
        self.until("values come", |it| of(it) >= wanted);
    }

    /// The states of all symbols of a venue.
    fn states_of(&self, venue: &str) -> Vec<&str> {
        let all = self.states.iter().filter(|(symbol, _)| symbol.starts_with(venue));
        let mut states: Vec<&str> = all.map(|(_, state)| state.as_str()).collect();
        states.dedup();
        states
    }

    /// The states that a symbol was told to have, in order.
    fn told_of(&self, symbol: &str) -> Vec<&str> {
        self.told.iter().filter(|(of, _)| of == symbol).map(|(_, state)| state.as_str()).collect()
    }

    /// No value of a venue came while its symbol counted as live.
    #[track_caller]
    fn assert_never_live(&self, venue: &str) {
        let live = self.values.iter().find(|(symbol, state)| symbol.starts_with(venue) && state == "live");
        assert_eq!(live, None, "a recorded value counts as live");
        let live = self.told.iter().find(|(symbol, state)| symbol.starts_with(venue) && state == "live");
        assert_eq!(live, None, "a recording is told to be live");
    }
}

/// What `/api/symbols` says of a symbol.
fn listed(gateway: &Gateway, symbol: &str) -> String {
    let (rows, _) = Gateway::list(gateway.http, "/api/symbols", "symbols");
    let row = rows.into_iter().find(|row| row["symbol"] == symbol);
    row.map_or_else(String::new, |row| row["state"].as_str().expect("a state").to_owned())
}

/// Tells the replay what to do.
fn order(gateway: &Gateway, body: &Value) {
    let body = body.to_string();
    let head = format!("{POST}\r\nContent-Length: {}", body.len());
    let (status, answer) =
        Gateway::ask(gateway.http, &format!("POST /api/replay HTTP/1.1\r\n{head}\r\n\r\n{body}"));
    assert_eq!(status, 200, "{answer}");
}

fn publisher(gateway: &Gateway) -> TcpStream {
    let mut publisher = connect(gateway.publish.expect("it listens"));
    writeln!(publisher, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
    let mut answer = String::new();
    BufReader::new(publisher.try_clone().expect("a handle")).read_line(&mut answer).expect("an answer");
    assert!(answer.contains("ack"), "{answer}");
    publisher
}

fn publish(publisher: &mut TcpStream, symbol: &str) {
    let trade = json!({"type": "trade", "symbol": symbol, "price": "1.5", "size": "1"});
    writeln!(publisher, "{trade}").expect("sent");
}

/// A capture of the gateway's own wire shape: so often a trade of each symbol, with so many milliseconds between them.
fn native(symbols: &[String], rounds: u64, ms: u64) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for round in 0..rounds {
        for symbol in symbols {
            let ns = 1_714_564_800_000_000_000 + round * ms * 1_000_000;
            let trade = json!({"type": "trade", "symbol": symbol, "price": "1", "size": "2"});
            writeln!(file, "{ns} {trade}").expect("written");
        }
    }
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("UTF-8")
}

// ---- beside what is live ------------------------------------------------------------------------------

#[test]
fn a_replay_is_not_live_where_publishing_is_on() {
    let gateway = replay(&[&PUBLISHING[..], &["--loop"]].concat(), &[FEED]);
    let mut publisher = publisher(&gateway);
    publish(&mut publisher, "demo:A");
    eventually("it is published", || listed(&gateway, "demo:A") == "live");

    let mut client = Client::open(&gateway, "?symbols=*&mode=every");
    assert_eq!(client.feed(), "mixed");
    client.until_values("coinbase", 50);
    publish(&mut publisher, "demo:A");
    client.until_values("demo", 1);
    client.until_state("demo:A", "live");
    assert_eq!(client.states_of("coinbase:"), ["replay"]);
    assert_eq!(listed(&gateway, BTC), "replay");

    // Every answer that names a state.
    let mut named = Client::open(&gateway, "");
    let subscribe =
        json!({"op": "subscribe", "channel": ["trade", "quote"], "symbols": [BTC, "demo:A", "BTC-USD"]});
    named.ask(&subscribe);
    assert_eq!((named.states_of(BTC), named.states_of("demo:A")), (vec!["replay"], vec!["live"]));
    let set = json!({"op": "set", "channel": "quote", "symbols": [BTC], "mode": "every"});
    assert_eq!(named.ask(&set)["ok"][0]["state"], "replay");
    for row in named.ask(&json!({"op": "list"}))["subscriptions"].as_array().expect("rows") {
        let state = if row["symbol"] == "demo:A" { "live" } else { "replay" };
        assert_eq!(row["state"], state, "{row}");
    }
    for row in named.ask(&json!({"op": "symbols"}))["symbols"].as_array().expect("rows") {
        let state = if row["symbol"] == "demo:A" { "live" } else { "replay" };
        assert_eq!(row["state"], state, "{row}");
    }
    named.until_values("coinbase", 10);

    // The replay stands still; the publisher does not.
    order(&gateway, &json!({"do": "pause"}));
    client.until_state(BTC, "paused");
    assert_eq!(listed(&gateway, BTC), "paused");
    publish(&mut publisher, "demo:A");
    client.until_values("demo", 1);
    assert_eq!((client.states_of("coinbase:"), client.states_of("demo:")), (vec!["paused"], vec!["live"]));
    order(&gateway, &json!({"do": "resume"}));
    client.until_state(BTC, "replay");

    // The publisher is gone; the replay is not.
    drop(publisher);
    client.until_state("demo:A", "down");
    assert_eq!(client.states_of("coinbase:"), ["replay"]);
    order(&gateway, &json!({"do": "stop"}));
    client.until_state(BTC, "ended");
    eventually("all have ended", || listed(&gateway, "coinbase:SOL-USD") == "ended");
    client.assert_never_live("coinbase:");
    named.assert_never_live("coinbase:");
    assert!(client.values.iter().all(|(symbol, state)| (symbol == "demo:A") == (state == "live")));
    gateway.stop();
}

#[test]
fn a_symbol_that_is_replayed_and_published_is_no_more_live_than_the_replay() {
    let capture = native(&["demo:A".to_owned()], 100, 20);
    let gateway = replay(&[&PUBLISHING[..], &["--loop"]].concat(), &[path(&capture)]);
    let mut publisher = publisher(&gateway);
    let mut client = Client::open(&gateway, "?symbols=demo:A&mode=every");
    client.until_state("demo:A", "replay");
    for _ in 0..20 {
        publish(&mut publisher, "demo:A");
        client.until_values("demo", 1);
    }
    client.assert_never_live("demo:");
    order(&gateway, &json!({"do": "stop"}));
    eventually("nothing is replayed any more", || {
        let (_, body) = Gateway::get(gateway.http, "/readyz");
        body.contains("the replay has ended")
    });
    publish(&mut publisher, "demo:A");
    client.until_state("demo:A", "live");
    gateway.stop();
}

#[test]
fn two_replays_each_with_its_own_states() {
    let short = Capture::generate("kraken", "XBT/USD", 3, 50);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("two.toml");
    let feed = |file: &str, more: &str| format!("[[feed]]\nkind = \"replay\"\nfiles = [{file:?}]\n{more}");
    let coinbase = in_repository(FEED);
    let feeds = feed(coinbase.to_str().expect("UTF-8"), "loop = true\n") + &feed(short.path(), "");
    std::fs::write(&config, feeds).expect("written");
    let gateway = Gateway::start(&["serve", "--config", config.to_str().expect("UTF-8")]);
    let mut client = Client::open(&gateway, "?symbols=*&mode=every");
    assert_eq!(client.feed(), "replay");
    client.until_state("kraken:XBT/USD", "replay");
    client.until_state(BTC, "replay");
    client.until_state("kraken:XBT/USD", "ended");
    client.until_values("coinbase", 50);
    assert_eq!(client.states_of("coinbase:"), ["replay"]);
    assert_eq!(client.told_of("kraken:XBT/USD"), ["replay", "ended"]);
    assert_eq!(
        (listed(&gateway, "kraken:XBT/USD").as_str(), listed(&gateway, BTC).as_str()),
        ("ended", "replay")
    );
    client.assert_never_live("");
    gateway.stop();
}

// ---- the remote control -------------------------------------------------------------------------------

#[test]
fn paused_stepped_sent_elsewhere_ended_and_begun_again() {
    const XBT: &str = "kraken:XBT/USD";
    let capture = Capture::generate("kraken", "XBT/USD,ETH/USD", 20, 50);
    let gateway = replay(&["--speed", "1", "--wait-subscribers", "1"], &[capture.path()]);
    order(&gateway, &json!({"do": "pause"}));
    let mut client = Client::open(&gateway, "?symbols=*&mode=every");
    // Each symbol is told to stand still before its first value.
    order(&gateway, &json!({"do": "step", "ticks": 60}));
    client.until_values("kraken", 60);
    assert!(client.values.iter().all(|(_, state)| state == "paused"), "{:?}", client.values);
    assert_eq!((client.told_of(XBT), client.told_of("kraken:ETH/USD")), (vec!["paused"], vec!["paused"]));
    order(&gateway, &json!({"do": "resume"}));
    client.until_state(XBT, "replay");
    client.until_values("kraken", 20);
    assert_eq!(client.states_of("kraken:"), ["replay"]);
    order(&gateway, &json!({"do": "pause"}));
    client.until_state(XBT, "paused");
    // Elsewhere it stands as well; in front of the first record there is nothing.
    order(&gateway, &json!({"do": "seek", "to": "+10s"}));
    client.until_values("kraken", 2);
    assert_eq!((client.states_of("kraken:"), listed(&gateway, XBT).as_str()), (vec!["paused"], "paused"));
    order(&gateway, &json!({"do": "seek", "to": "+0s"}));
    client.until_state(XBT, "waiting");
    order(&gateway, &json!({"do": "speed", "speed": 0}));
    order(&gateway, &json!({"do": "resume"}));
    client.until_state(XBT, "ended");
    // Where it has ended, to be sent elsewhere is to play.
    order(&gateway, &json!({"do": "seek", "to": "+15s"}));
    client.until_state(XBT, "replay");
    client.until_state(XBT, "ended");
    order(&gateway, &json!({"do": "speed", "speed": 1}));
    order(&gateway, &json!({"do": "resume"}));
    client.until_state(XBT, "replay");
    order(&gateway, &json!({"do": "stop"}));
    client.until_state(XBT, "ended");
    let told = [
        &["paused", "replay", "paused", "waiting", "replay", "ended"][..],
        &["replay", "ended"],
        &["waiting", "replay", "ended"],
    ];
    assert_eq!(client.told_of(XBT), told.concat());
    client.assert_never_live("");
    // Who comes now is told so, too.
    let mut late = Client::open(&gateway, "?symbols=*");
    late.ask(&json!({"op": "ping"}));
    late.until_state(XBT, "ended");
    assert!(late.values.iter().all(|(_, state)| state == "ended"), "{:?}", late.values);
    gateway.stop();
}

#[test]
fn between_two_rounds_nothing_ends() {
    const XBT: &str = "kraken:XBT/USD";
    let capture = Capture::generate("kraken", "XBT/USD", 2, 50);
    for more in [&[][..], &["--from", "+1s"]] {
        let gateway = replay(&[&["--loop", "--speed", "20"], more].concat(), &[capture.path()]);
        let mut client = Client::open(&gateway, "?symbols=*&mode=every");
        client.until("three rounds", |it| it.told_of(XBT).len() > 6);
        let told = client.told_of(XBT);
        let (first, second) = if told[0] == "replay" { ("replay", "down") } else { ("down", "replay") };
        let alternate: Vec<&str> = [first, second].into_iter().cycle().take(told.len()).collect();
        assert_eq!(told, alternate, "{more:?}");
        client.assert_never_live("");
        gateway.stop();
    }
}

#[test]
fn a_room_is_a_replay_whatever_its_gateway_is() {
    let dir = format!("replay.dir={}", in_repository("feeds").display());
    let gateway = Gateway::publishing(r#"["demo"]"#, &[&dir]);
    let mut publisher = publisher(&gateway);
    publish(&mut publisher, "demo:A");
    let mut beside = Client::open(&gateway, "?symbols=*&mode=every");
    assert_eq!(beside.feed(), "live");
    let mut room = Client::open(&gateway, "?replay=coinbase.zst&symbols=*&mode=every");
    assert_eq!(room.feed(), "replay");
    room.until_values("coinbase", 20);
    room.ask(&json!({"op": "replay", "do": "pause"}));
    room.until_state(BTC, "paused");
    room.ask(&json!({"op": "replay", "do": "seek", "to": "+20s"}));
    room.until_values("coinbase", 6);
    assert_eq!(room.states_of("coinbase:"), ["paused"]);
    room.ask(&json!({"op": "replay", "do": "speed", "speed": 0}));
    room.ask(&json!({"op": "replay", "do": "resume"}));
    room.until_state(BTC, "ended");
    room.assert_never_live("");
    beside.until_values("demo", 1);
    assert_eq!((beside.states_of("demo:"), beside.states_of("coinbase:")), (vec!["live"], vec![]));
    gateway.stop();
}

// ---- many ---------------------------------------------------------------------------------------------

#[test]
fn a_wildcard_is_told_the_states_of_thousands_before_their_first_values() {
    const MANY: usize = 5_000;
    let symbols: Vec<String> = (0..MANY).map(|n| format!("demo:S{n}")).collect();
    let capture = native(&symbols, 20, 500);
    // As configured: more states than an outbox holds.
    let gateway = Gateway::start(&["replay", "--loop", "--speed", "1", path(&capture)]);
    eventually("all are there", || Gateway::list(gateway.http, "/api/symbols", "symbols").0.len() == MANY);
    for query in ["?symbols=*", "?symbols=*&mode=every&snapshot=false", "?symbols=*&mode=latest&max_hz=5"] {
        let mut client = Client::open(&gateway, query);
        client.until_values("demo", 2 * MANY);
        client.until("all are told", |it| it.states.len() == MANY);
        let known = client.states.values().filter(|state| matches!(state.as_str(), "replay" | "down"));
        assert_eq!(known.count(), MANY, "{query}");
        client.assert_never_live("");
    }
    gateway.stop();
}
