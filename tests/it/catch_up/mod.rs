//! Clients that ask for the past: what was recorded comes first, then the stream, with no hole and no repeat.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::support::{CLOSE, FIN, Gateway, PING, PONG, POST, RawSocket, TEXT, TOKEN, connect, eventually};
use serde_json::{Value, json};

/// What a client was told, in order. It reads on a thread of its own, to the end.
struct Listener {
    heard: Arc<Mutex<Vec<Value>>>,
    thread: JoinHandle<()>,
}

impl Listener {
    fn listen(mut socket: RawSocket) -> Self {
        let heard = Arc::<Mutex<Vec<Value>>>::default();
        let told = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            loop {
                match socket.frame() {
                    (TEXT, text) => {
                        let message: Value = serde_json::from_slice(&text).expect("JSON");
                        told.lock().expect("no panic").push(message);
                    }
                    (PING, payload) => socket.send(FIN | PONG, &payload),
                    (CLOSE, _) => return,
                    other => panic!("{other:?}"),
                }
            }
        });
        Self { heard, thread }
    }

    /// A client of these symbols, from the past on.
    fn since(http: SocketAddr, from: &Value, channel: &Value, symbols: &[&str], snapshot: bool) -> Self {
        let mut socket = RawSocket::at(http, "");
        let request = json!({
            "op": "subscribe", "id": 1, "channel": channel, "symbols": symbols, "mode": "every", "from": from,
            "snapshot": snapshot,
        });
        socket.text(&request.to_string());
        Self::listen(socket)
    }

    fn so_far(&self) -> Vec<Value> {
        self.heard.lock().expect("no panic").clone()
    }

    fn has_joined(&self) -> bool {
        self.heard.lock().expect("no panic").iter().any(|message| message["type"] == "joined")
    }

    fn waits_to_join(&self) {
        eventually("it has caught up", || self.has_joined());
    }

    /// Everything; the gateway has to end.
    fn read_to_end(self) -> Vec<Value> {
        let Self { heard, thread } = self;
        thread.join().expect("it reads to the end");
        let heard = heard.lock().expect("no panic");
        heard.clone()
    }
}

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

/// What is said of the past holds: it is marked until it is said to be over, once, and nothing is called live before.
/// The row of the first answer.
#[track_caller]
fn check_seam(heard: &[Value]) -> Value {
    let at = |kind: &str| heard.iter().position(|message| message["type"] == kind);
    let (ack, joined) = (at("ack").expect("an answer"), at("joined").expect("it has caught up"));
    assert_eq!(heard.iter().filter(|m| m["type"] == "joined").count(), 1);
    assert!(ack < joined);
    for (place, message) in heard.iter().enumerate() {
        let update = message["type"] == "trade" || message["type"] == "quote";
        let snap = message["snap"] == true;
        assert_eq!(
            message["past"] == true,
            update && place < joined && !snap,
            "{message}, joined at {joined}"
        );
        assert!(place > joined || message["state"] != "live", "{message}");
    }
    heard[ack]["ok"][0].clone()
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

// ---- replayed captures --------------------------------------------------------------------------------

/// Lets a replay that stands still publish some ticks.
fn step(gateway: &Gateway, ticks: u64) {
    let fed =
        || gateway.metric_sum("tickfan_feed_trades_total") + gateway.metric_sum("tickfan_feed_quotes_total");
    let before = fed();
    let body = json!({"do": "step", "ticks": ticks}).to_string();
    let head = format!("{POST}\r\nContent-Length: {}", body.len());
    let asked = format!("POST /api/replay HTTP/1.1\r\n{head}\r\n\r\n{body}");
    assert_eq!(Gateway::ask(gateway.http, &asked).0, 200);
    eventually("the step is done", || fed() >= before + ticks);
    taken(gateway);
}

#[test]
fn who_catches_up_sees_what_who_was_there_saw() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut args = vec!["replay", "--wait-subscribers", "1", "--record", dir.path().to_str().expect("UTF-8")];
    let ring = format!("ring.capacity={RING}");
    args.extend(PATIENT.iter().flat_map(|setting| ["--set", setting]));
    args.extend(["--set", &ring, "--set", "limits.stale_after_ms=3600000"]);
    args.extend(["feeds/coinbase.zst", "feeds/binance-futures.zst", "feeds/kraken.zst"]);
    let gateway = Gateway::start(&args);
    // Before there is anything to play.
    let body = r#"{"do":"pause"}"#;
    let head = format!("{POST}\r\nContent-Length: {}", body.len());
    Gateway::ask(gateway.http, &format!("POST /api/replay HTTP/1.1\r\n{head}\r\n\r\n{body}"));
    let early = Listener::listen(RawSocket::open(&gateway, "?symbols=*&mode=every"));
    for _ in 0..15 {
        step(&gateway, 400);
    }
    eventually("it is told", || ticks(&early.so_far()).len() >= 5_000);
    let seen = ticks(&early.so_far());
    // Two of these are long out of the ring.
    let times = [seen[10]["rx"].as_u64(), seen[3_000]["rx"].as_u64(), seen[4_990]["rx"].as_u64()];
    let times = times.map(|rx| rx.expect("a time"));
    let both = json!(["trade", "quote"]);
    let of_kraken = |tick: &Value| tick["symbol"].as_str().is_some_and(|s| s.starts_with("kraken:"));
    let of_btc = |tick: &Value| tick["symbol"] == "coinbase:BTC-USD" && tick["type"] == "trade";
    let mut late = Vec::new();
    for from_us in times {
        let from = json!(from_us);
        let everything = Listener::since(gateway.http, &from, &both, &["*"], false);
        let venue = Listener::since(gateway.http, &from, &both, &["kraken:*"], true);
        let one = Listener::since(gateway.http, &from, &json!("trade"), &["coinbase:BTC-USD"], true);
        late.push((from_us, everything, venue, one));
        // It goes on while they catch up.
        step(&gateway, 400);
    }
    for (_, everything, venue, one) in &late {
        [everything, venue, one].iter().for_each(|client| client.waits_to_join());
    }
    step(&gateway, 400);
    assert!(gateway.metric_sum("tickfan_history_reads_total") > 0, "it came from the disk");
    gateway.stop();
    let seen = ticks(&early.read_to_end());
    assert_eq!(check_numbers(&seen), seen.iter().filter(|tick| tick["why"] == "feed").count());
    for (from_us, everything, venue, one) in late {
        let (everything, venue, one) = (everything.read_to_end(), venue.read_to_end(), one.read_to_end());
        let whole = since(from_us, &seen, |_| true);
        assert!(whole.len() > 1_500, "{} ticks", whole.len());
        assert!(ticks(&everything) == whole, "everything since {from_us}");
        let without_snaps = |heard: &[Value]| {
            ticks(heard).into_iter().filter(|tick| tick["snap"] != true).collect::<Vec<_>>()
        };
        assert!(without_snaps(&venue) == since(from_us, &seen, of_kraken), "a venue since {from_us}");
        assert_eq!(without_snaps(&one), since(from_us, &seen, of_btc), "one symbol since {from_us}");
        for heard in [&everything, &venue, &one] {
            let row = check_seam(heard);
            assert_eq!(
                (&row["past"], &row["begins"], &row["state"]),
                (&json!("ok"), &Value::Null, &Value::Null)
            );
            check_numbers(&ticks(heard));
        }
    }
    assert_eq!(history_files(dir.path()), 0, "gone with the run");
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

// ---- published ----------------------------------------------------------------------------------------

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

#[test]
fn the_seam_holds_while_publishing_goes_on() {
    let mut sequencer = Sequencer::open(&[]);
    let symbols = ["demo:A", "demo:B", "demo:C"];
    let early = Listener::listen(RawSocket::open(&sequencer.gateway, "?symbols=demo:*&channel=trade"));
    eventually("it is subscribed", || sequencer.gateway.metric_sum("tickfan_sessions_subscribed") == 1);
    sequencer.trades(&symbols, 4 * RING);
    let stop = AtomicBool::new(false);
    let from = early_rx(&early, RING as usize);
    let late: Vec<Listener> = std::thread::scope(|scope| {
        let (http, sequencer, stop) = (sequencer.gateway.http, &mut sequencer, &stop);
        let publishing = scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                sequencer.trades(&symbols, RING / 8);
            }
        });
        let late = (0..6)
            .map(|n| {
                let (from, channel) = (json!(from), json!("trade"));
                let client = Listener::since(http, &from, &channel, &["demo:B", "demo:C"], n % 2 == 0);
                client.waits_to_join();
                client
            })
            .collect();
        stop.store(true, Ordering::Release);
        publishing.join().expect("it publishes");
        late
    });
    sequencer.trades(&symbols, 9);
    sequencer.gateway.stop();
    let seen = ticks(&early.read_to_end());
    let expected = since(from, &seen, |tick| tick["symbol"] != "demo:A");
    for client in late {
        let heard = client.read_to_end();
        check_seam(&heard);
        assert!(ticks(&heard) == expected, "{} of {}", ticks(&heard).len(), expected.len());
    }
}

/// When the tick of this place was received.
fn early_rx(early: &Listener, at: usize) -> u64 {
    eventually("it is told", || ticks(&early.so_far()).len() > at);
    ticks(&early.so_far())[at]["rx"].as_u64().expect("a time")
}

#[test]
fn before_the_beginning_is_from_the_first_on_and_the_future_is_now() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.trades(&["demo:A"], 3 * RING);
    let mut clients = Vec::new();
    for (from, row, first) in [
        (json!("2001-01-01T00:00:00Z"), "gap", 1),
        (json!("-23h"), "gap", 1),
        (json!("2200-01-01T00:00:00Z"), "ok", 3 * RING),
        (json!("-0s"), "ok", 3 * RING),
    ] {
        let (mut socket, ack) = sequencer.ask(&request(&from));
        let shown = &ack["ok"][0];
        assert_eq!((&shown["past"], &shown["state"]), (&json!(row), &Value::Null), "{from}: {ack}");
        assert_eq!(shown["begins"].is_u64(), row == "gap", "{from}: {ack}");
        for seq in first..=3 * RING {
            let tick = socket.word();
            assert_eq!((&tick["type"], &tick["seq"]), (&json!("trade"), &json!(seq)), "{from}: {tick}");
            // Of what is not recorded since then there is the last value.
            assert_eq!((tick["snap"] == true, tick["past"] == true), (row == "ok", row == "gap"), "{tick}");
        }
        let joined = socket.word();
        assert_eq!(
            (&joined["type"], &joined["missed"]),
            (&json!("joined"), &Value::Null),
            "{from}: {joined}"
        );
        clients.push(socket);
    }
    // Symbols that nobody has seen yet have no past, and every one of their ticks comes.
    let wanted = json!({"op": "subscribe", "channel": "trade", "symbols": ["demo:LATER"], "from": "-1h"});
    let (mut later, ack) = sequencer.ask(&wanted);
    assert_eq!(ack["ok"][0]["state"], "waiting", "{ack}");
    assert_eq!(later.word()["type"], "joined");
    sequencer.trades(&["demo:A"], 1);
    for mut socket in clients {
        let tick = socket.word();
        assert_eq!((&tick["seq"], &tick["past"]), (&json!(3 * RING + 1), &Value::Null), "{tick}");
    }
    sequencer.trades(&["demo:LATER"], 1);
    let heard = [later.word(), later.word()];
    assert_eq!(heard.iter().find(|m| m["type"] == "trade").map(|m| &m["seq"]), Some(&json!(1)), "{heard:?}");
    sequencer.gateway.stop();
}

#[test]
fn a_state_that_is_not_live_is_told_at_the_seam() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.trades(&["demo:A"], 10);
    sequencer.publisher.shutdown(std::net::Shutdown::Both).expect("open until now");
    eventually("it is down", || {
        Gateway::get(sequencer.gateway.http, "/api/symbols").1.contains(r#""state":"down""#)
    });
    let (mut socket, _) = sequencer.ask(&request(&json!("-1h")));
    let heard: Vec<Value> = (0..12).map(|_| socket.word()).collect();
    let kinds: Vec<&str> = heard.iter().filter_map(|message| message["type"].as_str()).collect();
    assert_eq!(kinds, [&["trade"; 10][..], &["status", "joined"]].concat());
    assert_eq!(heard[10]["state"], "down");
    sequencer.gateway.stop();
}

#[test]
fn what_cannot_be_had_is_refused_with_its_reason() {
    let mut sequencer = Sequencer::open(&["record.catch_ups_max=0"]);
    sequencer.trades(&["demo:A"], 1);
    let refused = |sequencer: &Sequencer, more: &Value| {
        let mut request = request(&json!("-10s"));
        let fields = more.as_object().expect("an object").clone();
        request.as_object_mut().expect("an object").extend(fields);
        let (_, error) = sequencer.ask(&request);
        assert_eq!(error["type"], "error", "{error}");
        let msg = error["msg"].as_str().expect("a sentence").to_owned();
        (error["code"].as_str().expect("a word").to_owned(), error["retry"] == true, msg)
    };
    for (more, words) in [
        (json!({"channel": "quote"}), "`from` needs `mode` \"every\", and quote is \"latest\""),
        (json!({"mode": "latest"}), "trade is \"latest\""),
        (json!({"resume": {"epoch": "e", "seq": {}}}), "`from` and `resume`"),
        (json!({"from": "+5m"}), "`from`: \"+5m\": not a time"),
        (json!({"from": -1}), "microseconds"),
    ] {
        let (code, retry, msg) = refused(&sequencer, &more);
        assert_eq!((code.as_str(), retry), ("bad_request", false), "{more}: {msg}");
        assert!(msg.contains(words), "{more}: {msg}");
    }
    let (code, retry, msg) = refused(&sequencer, &json!({}));
    assert_eq!((code.as_str(), retry), ("rate_limited", true));
    assert!(msg.contains("catch_ups_max"), "{msg}");
    sequencer.gateway.stop();
    // Without a recording, or without its history.
    for settings in [&["record.enabled=false"][..], &["record.history_bytes_max=0"]] {
        let dir = tempfile::tempdir().expect("a folder");
        let record = format!("record.dir={}", dir.path().display());
        let gateway =
            Gateway::publishing(r#"["demo"]"#, &[&["record.enabled=true", &record], settings].concat());
        let mut socket = RawSocket::open(&gateway, "?symbols=demo:A&channel=trade&from=-10s");
        let error = socket.word();
        let no_history = (&json!("error"), &json!("no_history"), &json!(false));
        assert_eq!((&error["type"], &error["code"], &error["retry"]), no_history, "{error}");
        assert_eq!(history_files(dir.path()), 0);
        gateway.stop();
    }
}

#[test]
fn a_slow_reader_is_given_the_past_whole() {
    let mut sequencer = Sequencer::open(&["session.outbox_bytes_max=16384", "session.cut_after_ms=20000"]);
    sequencer.trades(&["demo:A"], 8 * RING);
    let mut socket = RawSocket::open_small(&sequencer.gateway, "");
    socket.text(&request(&json!("-1h")).to_string());
    assert_eq!(socket.word()["type"], "ack");
    // What it is given is bounded by its outbox and what the kernels hold, and the market goes on.
    socket.read_at_most(Some(200_000));
    for seq in 1..=500 {
        assert_eq!(trade(&mut socket)["seq"], seq);
    }
    sequencer.trades(&["demo:A"], RING);
    let rows = Gateway::get(sequencer.gateway.admin, "/api/clients").1;
    let rows: Value = serde_json::from_str(&rows).expect("JSON");
    let row = &rows["clients"][0];
    assert!(row["queued_bytes"].as_u64().expect("a count") <= 16_384, "{row}");
    assert_eq!(row["dropped"], 0, "{row}");
    socket.read_at_most(None);
    for seq in 501..=9 * RING {
        assert_eq!(trade(&mut socket)["seq"], seq);
    }
    while told(&mut socket)["type"] != "joined" {}
    sequencer.trades(&["demo:A"], 1);
    assert_eq!(trade(&mut socket)["seq"], 9 * RING + 1);
    sequencer.gateway.stop();
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

#[test]
fn what_the_bound_gave_up_is_told() {
    const BIG: u64 = 8_192;
    let settings = ["record.history_bytes_max=1048576", "session.outbox_bytes_max=16384"];
    let mut sequencer = Sequencer::with_ring(BIG, &settings);
    let filled = |sequencer: &mut Sequencer| {
        let begin = sequencer.published;
        while sequencer.published < begin + BIG
            || sequencer.gateway.metric_sum("tickfan_history_ticks") + 2 * BIG > sequencer.published
        {
            sequencer.trades(&["demo:A"], BIG);
        }
    };
    filled(&mut sequencer);
    // Who asks for more than is kept is told since when it is.
    let (mut socket, ack) = sequencer.ask(&request(&json!("-1h")));
    let row = &ack["ok"][0];
    assert_eq!(row["past"], "gap", "{ack}");
    let begins = row["begins"].as_u64().expect("since when");
    let first = trade(&mut socket);
    let seq = first["seq"].as_u64().expect("a number");
    assert!(seq > 1 && first["rx"].as_u64() >= Some(begins), "{first}, and it begins at {begins}");
    for next in seq + 1..=sequencer.published {
        assert_eq!(trade(&mut socket)["seq"], next);
    }
    assert_eq!(told(&mut socket)["type"], "joined");
    drop(socket);

    // Who is so slow that what it has not read yet is given up meanwhile, is told what is missing, and then the newest.
    let mut socket = RawSocket::open_small(&sequencer.gateway, "");
    socket.text(&request(&json!("-1h")).to_string());
    assert_eq!(socket.word()["type"], "ack");
    let begin = sequencer.published;
    while sequencer.gateway.metric_sum("tickfan_history_ticks") + begin > sequencer.published {
        sequencer.trades(&["demo:A"], BIG);
    }
    let (mut before, mut gaps, mut missed) = (None, Vec::new(), Value::Null);
    while missed.is_null() {
        let message = told(&mut socket);
        match message["type"].as_str() {
            Some("joined") => missed = message["missed"].clone(),
            Some("gap") => {
                assert_eq!(message["why"], "resume", "{message}");
                assert_eq!(message["from"].as_u64(), before.map(|seq: u64| seq + 1), "{message}");
                before = message["to"].as_u64();
                gaps.push(message);
            }
            _ => {
                let seq = message["seq"].as_u64().expect("a number");
                assert!(before.is_none_or(|before| seq == before + 1), "{message} behind {before:?}");
                before = Some(seq);
            }
        }
    }
    assert_eq!((gaps.len(), before), (1, Some(sequencer.published)), "{gaps:?}");
    assert!(missed.as_u64() > Some(0), "{missed}");
    sequencer.trades(&["demo:A"], 1);
    assert_eq!(trade(&mut socket)["seq"], sequencer.published);
    sequencer.gateway.stop();
}

#[test]
fn what_a_kill_leaves_behind_is_removed_by_the_next_run() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.trades(&["demo:A"], 2 * RING);
    let Sequencer { gateway, dir, .. } = sequencer;
    let history = dir.path().join(".history");
    let own = names(&history);
    let notes = history.join("history-1.1.ticks");
    std::fs::write(&notes, "something of somebody else's").expect("written");
    assert_eq!(history_files(dir.path()), 2);
    // Another run in the same folder leaves it alone as long as it lives.
    let record = format!("record.dir={}", dir.path().display());
    let beside = Gateway::publishing(r#"["demo"]"#, &["record.enabled=true", &record]);
    assert_eq!(history_files(dir.path()), 3);
    beside.stop();
    assert_eq!(history_files(dir.path()), 2);
    gateway.process.signal("KILL");
    gateway.process.end();
    assert_eq!(history_files(dir.path()), 2);
    // Such files once lay among the recordings, where a pattern took them for captures.
    let [own] = own.as_slice() else { panic!("{own:?}") };
    std::fs::copy(history.join(own), dir.path().join(own)).expect("copied");
    let next = Gateway::publishing(r#"["demo"]"#, &["record.enabled=true", &record]);
    assert_eq!(history_files(dir.path()), 2, "its own, and what is none");
    assert_eq!(names(dir.path()), [".history", "publish"]);
    next.stop();
    assert_eq!(history_files(dir.path()), 1);
    assert!(notes.exists());
}

#[test]
fn what_is_kept_for_the_past_is_no_capture_of_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let (record, catalog) =
        (format!("record.dir={}", dir.path().display()), format!("replay.dir={}", dir.path().display()));
    let settings = ["record.enabled=true", "record.flush_ms=1", &record, &catalog];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let mut publisher = connect(gateway.publish.expect("it listens"));
    writeln!(publisher, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
    writeln!(publisher, r#"{{"type":"trade","symbol":"demo:A","price":"1","size":"2"}}"#).expect("sent");
    // As long as it records, and what it leaves.
    let listed = || Gateway::list(gateway.http, "/api/replays", "replays").0;
    eventually("the recording is offered", || !listed().is_empty());
    let captures: Vec<Value> = listed().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(captures, ["publish"]);
    assert_eq!(
        (history_files(dir.path()), names(dir.path())),
        (1, vec![".history".into(), "publish".into()])
    );
    drop(publisher);
    gateway.stop();
    assert_eq!(names(dir.path()), ["publish"], "the folder of the history goes with it");
    let pattern = format!("exec \"$0\" inspect {}/*", dir.path().display());
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &pattern, env!("CARGO_BIN_EXE_tickfan")]);
    assert_eq!(crate::support::Process::start(&mut shell).end().code(), Some(0));
}

/// A client that asks for the past and reads nothing of it: its place.
fn stuck(mut socket: RawSocket) -> (RawSocket, Value) {
    socket.text(&request(&json!("-1h")).to_string());
    let answer = socket.word();
    (socket, answer)
}

/// Keeps a client that does not read.
const UNHURRIED: [&str; 4] = [
    "session.outbox_bytes_max=16384",
    "session.shed_behind_ms=3600000",
    "session.pong_timeout_ms=3600000",
    "session.cut_after_ms=3600000",
];

#[test]
fn clients_of_one_address_have_so_many_places_and_leave_the_others() {
    let settings = [&UNHURRIED[..], &["record.catch_ups_per_address=2", "shard.threads=2"]].concat();
    let mut sequencer = Sequencer::open(&settings);
    sequencer.trades(&["demo:A"], 8 * RING);
    let gateway = &sequencer.gateway;
    let from = |last: u8| stuck(RawSocket::open_from([127, 0, 0, last].into(), gateway, ""));
    let (one, other) = (from(1), from(1));
    assert_eq!([&one.1["type"], &other.1["type"]], ["ack", "ack"], "{} {}", one.1, other.1);
    // Whichever thread it comes to.
    for _ in 0..4 {
        let (_, refused) = from(1);
        assert_eq!(
            (&refused["code"], &refused["retry"]),
            (&json!("rate_limited"), &json!(true)),
            "{refused}"
        );
        let msg = refused["msg"].as_str().expect("a sentence");
        assert!(msg.contains("`[record] catch_ups_per_address`"), "{msg}");
    }
    let elsewhere = from(2);
    assert_eq!(elsewhere.1["type"], "ack", "{}", elsewhere.1);
    // One that has a place needs no other, and one whose symbols are all refused keeps none.
    let (mut one, _) = one;
    let wrong = json!({"op": "subscribe", "channel": "trade", "symbols": ["nowhere:A"], "from": "-1h"});
    one.text(&wrong.to_string());
    let mut third = RawSocket::open_from([127, 0, 0, 3].into(), gateway, "");
    third.text(&wrong.to_string());
    assert_eq!(third.word()["rejected"][0]["code"], "unknown_symbol");
    let threes = [from(3), from(3)];
    assert_eq!(threes.each_ref().map(|(_, answer)| &answer["type"]), ["ack", "ack"]);
    // With its client a place is free.
    drop(other);
    let mut held = Vec::new();
    eventually("there is a place again", || {
        let (socket, answer) = from(1);
        held.push(socket);
        answer["type"] == "ack"
    });
    assert_eq!(from(1).1["code"], "rate_limited");
    // So it is when one has caught up.
    for seq in 1..=8 * RING {
        assert_eq!(past_trade(&mut one)["seq"], seq);
    }
    eventually("there is a place again", || from(1).1["type"] == "ack");
    sequencer.gateway.stop();
}

/// The next trade; answers to other requests are left out.
#[track_caller]
fn past_trade(socket: &mut RawSocket) -> Value {
    loop {
        let message = told(socket);
        if message["type"] != "ack" {
            assert_eq!(message["type"], "trade", "{message}");
            return message;
        }
    }
}

#[test]
fn one_that_catches_up_more_slowly_than_ticks_come_goes_on_with_the_present() {
    let settings = [&UNHURRIED[..], &["record.catch_ups_max=1", "record.catch_up_patience_ms=2000"]].concat();
    let mut sequencer = Sequencer::open(&settings);
    sequencer.trades(&["demo:A"], 8 * RING);
    let (mut slow, ack) = stuck(RawSocket::open_small(&sequencer.gateway, ""));
    assert_eq!(ack["type"], "ack", "{ack}");
    let mut heard = Vec::new();
    let mut next = None;
    // Twenty ticks are read while a thousand come.
    while next.is_none() {
        sequencer.trades(&["demo:A"], RING);
        heard.extend((0..20).map(|_| told(&mut slow)));
        let (socket, answer) = stuck(RawSocket::open_small(&sequencer.gateway, ""));
        assert!(answer["type"] == "ack" || answer["code"] == "rate_limited", "{answer}");
        next = (answer["type"] == "ack").then_some(socket);
        assert!(heard.iter().all(|m| m["type"] == "trade" && m["past"] == true), "{:?}", heard.last());
    }
    // Its place is another's, and all that it misses is named.
    let published = sequencer.published;
    let figure =
        |message: &Value, name: &str| message[name].as_u64().unwrap_or_else(|| panic!("{name} of {message}"));
    let is_last = |message: &Value| message["seq"] == published || message["to"] == published;
    while !(heard.iter().any(is_last) && heard.iter().any(|message| message["type"] == "joined")) {
        heard.push(told(&mut slow));
    }
    check_numbers(&ticks(&heard));
    let at = |kind: &str| heard.iter().position(|message| message["type"] == kind).expect(kind);
    let (gap, joined) = (at("gap"), at("joined"));
    assert_eq!((&heard[0]["seq"], &heard[gap]["why"]), (&json!(1), &json!("resume")), "{}", heard[gap]);
    let is_past = |message: &Value| message["past"] == true;
    assert!(heard[..gap].iter().all(is_past) && !heard[gap..].iter().any(is_past));
    // Behind the gap comes what was newest then, in which it has caught up.
    assert_eq!(figure(&heard[gap + 1], "seq"), figure(&heard[gap], "to") + 1);
    assert_eq!(joined, gap + 2, "{:?}", &heard[gap..]);
    // Where it gave up, so many were missing; those that came before there was room for the gap are in it, too.
    let missing = figure(&heard[gap], "to") - figure(&heard[gap], "from") + 1;
    let missed = figure(&heard[joined], "missed");
    assert!((1..=missing + 2).contains(&missed), "{missed} missed, a gap of {missing}");
    // What it loses from there on, it loses as any client that reads slowly.
    assert!(heard[joined..].iter().all(|m| m["type"] != "gap" || m["why"] == "slow_consumer"));
    // Here is the present.
    sequencer.trades(&["demo:A"], 3);
    for seq in published + 1..=published + 3 {
        let tick = trade(&mut slow);
        assert_eq!((&tick["seq"], &tick["past"]), (&json!(seq), &Value::Null), "{tick}");
    }
    let rows = Gateway::list(sequencer.gateway.admin, "/api/clients", "clients").0;
    for row in &rows {
        let parts = ["sent", "merged", "dropped", "lost", "pending"].map(|part| figure(row, part));
        assert_eq!(figure(row, "offered"), parts.iter().sum::<u64>(), "{row}");
    }
    // It may ask again when there is a place.
    drop(next);
    let mut last = Value::Null;
    eventually("there is a place again", || {
        let (_, answer) = sequencer.ask(&request(&json!("-1h")));
        last = answer;
        last["type"] == "ack"
    });
    sequencer.gateway.stop();
}
