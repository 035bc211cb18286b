//! What comes of faults around the gateway and in it: a wall clock that is set, a process that is stopped, a thread
//! that is held, a panic, no file left. The gateway is the binary as its users run it; faults in it are put there
//! on purpose, as only a debug build allows (`tickfan::system::faults`).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::Client;
use crate::support::{
    Capture, Gateway, PATIENCE, RawSocket, TOKEN, connect, eventually, in_repository, skipped, tickfan,
    undisturbed,
};

/// A gateway in which faults can be put, without feeds, that takes what is published for `demo`.
struct Faulty {
    gateway: Gateway,
    /// A held thread goes on when it exists.
    release: PathBuf,
    folder: tempfile::TempDir,
}

impl Faulty {
    /// `None`, visibly, where the build has no faults.
    fn start(settings: &[&str]) -> Option<Self> {
        if !cfg!(debug_assertions) {
            skipped::left_out("faults on purpose", "only a debug build has them");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (config, release) = (folder.path().join("publish.toml"), folder.path().join("release"));
        let text = format!("[publish]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\nvenues = [\"demo\"]\n");
        std::fs::write(&config, text).expect("written");
        let mut args = vec!["serve", "--config", config.to_str().expect("utf-8")];
        args.extend(Gateway::settings(settings));
        let mut command = tickfan(&args);
        command.env("FAULTS_ON_PURPOSE", &release);
        Some(Self { gateway: Gateway::run(command, "127.0.0.1:0"), release, folder })
    }

    fn release(&self) {
        std::fs::write(&self.release, "").expect("written");
    }

    /// What `/readyz` finds wrong.
    fn not_ready(&self) -> Option<String> {
        let (status, body) = Gateway::get(self.gateway.http, "/readyz");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        (status == 503).then(|| body["error"].as_str().expect("a reason").to_owned())
    }

    /// Waits until `/readyz` names this thread.
    fn is_named(&self, thread: &str) {
        let names = || {
            self.not_ready().is_some_and(|why| why.contains(&format!("the thread {thread} has not moved")))
        };
        eventually(thread, names);
        assert_eq!(Gateway::get(self.gateway.http, "/healthz").0, 200);
        let late = self.gateway.metric("tickfan_thread_late_seconds");
        let of_it = late.iter().find(|(labels, _)| labels.contains(&format!("\"{thread}\"")));
        assert!(of_it.is_some_and(|(_, seconds)| *seconds >= 1), "{late:?}");
    }

    /// Waits until it ends by itself; the code, and its output.
    fn end(self) -> (Option<i32>, String) {
        let ended = self.gateway.process.end();
        drop(self.folder);
        (ended.code(), ended.stderr)
    }
}

/// A publisher whose token is accepted.
fn publisher(gateway: &Gateway) -> TcpStream {
    let mut stream = connect(gateway.publish.expect("it takes publishers"));
    writeln!(stream, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
    let mut ack = String::new();
    BufReader::new(&stream).read_line(&mut ack).expect("an answer");
    assert!(ack.contains("\"ack\""), "{ack}");
    stream
}

const TRADE: &str = r#"{"type":"trade","symbol":"demo:A","price":"1.25","size":"3"}"#;

fn publish(to: &mut TcpStream, line: &str) {
    writeln!(to, "{line}").expect("sent");
}

/// The next message of this type.
fn next(socket: &mut RawSocket, kind: &str) -> Value {
    loop {
        let message = socket.message();
        assert_ne!(message["type"], "bye", "{message}");
        if message["type"] == kind {
            return message;
        }
    }
}

// ---- the wall clock -------------------------------------------------------------------------------------

/// A clock for one process that can be set: `libfaketime` of Debian's package `faketime`.
struct FakeClock {
    file: tempfile::NamedTempFile,
    library: PathBuf,
}

impl FakeClock {
    /// `None`, visibly, where there is no such library.
    fn new() -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let found =
            folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists());
        let Some(library) = found else {
            skipped::left_out_unless_ci(
                "a wall clock that is set",
                "no libfaketime: `make test` installs it",
            );
            return None;
        };
        let clock = Self { file: tempfile::NamedTempFile::new().expect("a file"), library };
        clock.set(0);
        Some(clock)
    }

    /// Sets it so many seconds from what the machine's shows.
    fn set(&self, by_s: i64) {
        std::fs::write(self.file.path(), format!("{by_s:+}s\n")).expect("written");
    }

    fn gateway(&self, args: &[&str]) -> Gateway {
        let mut command = tickfan(args);
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", self.file.path());
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
        Gateway::run(command, "127.0.0.1:0")
    }
}

#[test]
fn a_wall_clock_that_is_set_moves_rx_once_and_makes_nothing_stale() {
    let Some(clock) = FakeClock::new() else { return };
    let gateway =
        clock.gateway(&["replay", "feeds/kraken.zst", "--loop", "--set", "limits.stale_after_ms=20000"]);
    let mut socket = RawSocket::open(&gateway, "?symbols=*");
    let rx_s = |socket: &mut RawSocket| next(socket, "trade")["rx"].as_i64().expect("a time") / 1_000_000;
    let mut shown_s = rx_s(&mut socket);
    for (to_s, by_s) in [(3_600, 3_600), (-3_600, -7_200)] {
        clock.set(to_s);
        let mut told = Vec::new();
        // All that comes until `rx` has moved, and the step was sent.
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing follows the clock: {told:?}");
            let message = socket.message();
            match message["type"].as_str().expect("a type") {
                "status" => panic!("nothing has happened to a feed: {message}"),
                "clock_step" => told.push(message["by"].as_i64().expect("microseconds")),
                "trade" => {
                    let now_s = message["rx"].as_i64().expect("a time") / 1_000_000;
                    let moved_s = now_s - shown_s;
                    if moved_s.abs_diff(by_s) < 300 && !told.is_empty() {
                        shown_s = now_s;
                        break;
                    }
                }
                _ => {}
            }
        }
        assert!(told.len() == 1 && (told[0] / 1_000_000).abs_diff(by_s) < 60, "{told:?}");
    }
    let steps = gateway.metric("tickfan_clock_steps_total");
    assert_eq!(steps, [(r#"{direction="forward"}"#.to_owned(), 1), (r#"{direction="back"}"#.to_owned(), 1)]);
    assert_eq!(gateway.metric_sum("tickfan_process_stood_total"), 0);
    // An hour would have been counted as the longest there is.
    assert_eq!(gateway.metric_sum("tickfan_latency_clamped_total"), 0);
    let ended = gateway.stop();
    assert_eq!(ended.stderr.matches("clock_step").count(), 2, "{}", ended.stderr);
}

#[test]
fn a_wall_clock_that_is_set_back_keeps_no_dead_price_alive() {
    let Some(clock) = FakeClock::new() else { return };
    let capture = Capture::generate("kraken", "XBT/USD", 2, 50);
    // Half an hour after the last record there is another one.
    let first_s = 1_714_564_800;
    let later = capture.later("kraken", "XBT/USD", (1, 20), first_s + 1_800);
    std::fs::write(&capture.path, capture.text() + &later).expect("written");
    let gateway = clock.gateway(&["replay", capture.path(), "--set", "limits.stale_after_ms=3000"]);
    let mut socket = RawSocket::open(&gateway, "?symbols=*");
    next(&mut socket, "trade");
    clock.set(-3_600);
    next(&mut socket, "clock_step");
    // By the wall clock it would be an hour.
    let status = next(&mut socket, "status");
    assert_eq!(status["state"], "stale", "{status}");
    gateway.stop();
}

// ---- a process that does not run ------------------------------------------------------------------------

/// Seconds that the gateway is stopped: `TICKFAN_PAUSE_SECONDS` for longer, with every deadline at its default then.
fn pause() -> (u64, Vec<&'static str>) {
    let short = vec![
        "session.heartbeat_ms=1000",
        "session.pong_timeout_ms=5000",
        "session.cut_after_ms=5000",
        "session.dead_peer_ms=5000",
    ];
    match std::env::var("TICKFAN_PAUSE_SECONDS") {
        Ok(seconds) => (seconds.parse().expect("whole seconds"), Vec::new()),
        Err(_) => (8, short),
    }
}

#[test]
fn a_process_that_was_stopped_cuts_nobody_for_that() {
    let _undisturbed = undisturbed();
    const CLIENTS: usize = 50;
    const TICKS: u64 = 20_000;
    let (seconds, mut settings) = pause();
    let deadline_s = if settings.is_empty() { 20 } else { 5 };
    assert!(seconds > deadline_s, "a pause that ends before any deadline shows nothing");
    // What gathers meanwhile is more than the ring holds.
    settings.push("ring.capacity=1024");
    let gateway = Gateway::publishing("[\"demo\"]", &settings);
    let mut to = publisher(&gateway);
    publish(&mut to, TRADE);
    let heard: Vec<AtomicU64> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client::open(&gateway, "?symbols=demo:A&channel=trade")).collect();
    let told = |client: &Client| client.told.values().copied().max().unwrap_or(0);
    std::thread::scope(|scope| {
        let read = |(mut client, heard): (Client, &'_ AtomicU64)| {
            while client.step() {
                heard.store(told(&client), Ordering::Relaxed);
            }
            client
        };
        let readers: Vec<_> =
            clients.into_iter().zip(&heard).map(|both| scope.spawn(move || read(both))).collect();
        let all_heard = |seq: u64| heard.iter().all(|heard| heard.load(Ordering::Relaxed) >= seq);
        eventually("everybody has the first", || all_heard(1));
        gateway.process.signal("STOP");
        let sender = scope.spawn(move || {
            for _ in 1..TICKS {
                publish(&mut to, TRADE);
            }
            to
        });
        std::thread::sleep(Duration::from_secs(seconds));
        gateway.process.signal("CONT");
        let _to = sender.join().expect("it publishes");
        eventually("everybody has the last", || all_heard(TICKS));
        // Any client to be cut is so now.
        let beats = gateway.metric_sum("tickfan_shard_turns_total");
        eventually("time goes on", || gateway.metric_sum("tickfan_shard_turns_total") > beats + 20);
        std::thread::sleep(Duration::from_secs(deadline_s / 4));
        assert_eq!(gateway.sessions(), CLIENTS as u64);
        assert_eq!(gateway.readyz(), 200);
        assert!(gateway.metric_sum("tickfan_process_stood_seconds_total") >= seconds - 1);
        gateway.stop();
        for reader in readers {
            let client = reader.join().expect("it reads");
            assert_eq!(client.codes(), (Some(4001), Some(4001)), "{:?}", client.steps);
            assert!(client.ledger.held(), "{:?}", client.ledger.breaks());
            assert_eq!(client.missing("slow_consumer"), 0);
            assert!(client.missing("overrun") > 0, "the ring came round");
        }
    });
}

// ---- a thread that is held ------------------------------------------------------------------------------

#[test]
fn what_a_held_ingest_thread_fed_is_stale_until_it_goes_on() {
    let Some(faulty) = Faulty::start(&["server.hang_after_ms=0"]) else { return };
    let gateway = &faulty.gateway;
    let mut to = publisher(gateway);
    publish(&mut to, TRADE);
    eventually("it is published", || gateway.metric_sum("tickfan_published_total") > 0);
    let mut client = RawSocket::open(gateway, "?symbols=demo:A");
    assert_eq!(client.answer()["ok"][0]["state"], "live");
    assert_eq!(next(&mut client, "trade")["seq"], 1);
    assert_eq!(gateway.readyz(), 200);
    publish(&mut to, r#"{"fault":"fault=hold"}"#);
    // What comes behind it waits.
    publish(&mut to, TRADE);
    let status = next(&mut client, "status");
    assert_eq!((&status["symbol"], &status["state"]), (&"demo:A".into(), &"stale".into()));
    faulty.is_named("ingest");
    // A new client gets the same, by name and by wildcard, and by HTTP.
    let mut named = RawSocket::open(gateway, "?symbols=demo:A");
    assert_eq!(named.answer()["ok"][0]["state"], "stale");
    let mut wild = RawSocket::open(gateway, "?symbols=*");
    assert_eq!(next(&mut wild, "status")["state"], "stale");
    wild.text(r#"{"op":"symbols","id":1}"#);
    let listed = std::iter::repeat_with(|| wild.answer()).find(|answer| answer["op"] == "symbols");
    assert_eq!(listed.expect("an answer")["symbols"][0]["state"], "stale");
    assert!(Gateway::get(gateway.http, "/api/symbols").1.contains("\"stale\""));
    faulty.release();
    for socket in [&mut client, &mut named, &mut wild] {
        let mut seen = (false, false);
        // Either may come first.
        while seen != (true, true) {
            let message = socket.message();
            seen.0 |= message["type"] == "status" && message["state"] == "live";
            seen.1 |= message["type"] == "trade" && message["seq"] == 2;
        }
    }
    eventually("it is ready again", || faulty.not_ready().is_none());
    faulty.gateway.stop();
}

#[test]
fn a_held_shard_is_named_and_its_clients_stay() {
    let _undisturbed = undisturbed();
    const SECONDS: u64 = 6;
    let settings = [
        "server.hang_after_ms=0",
        "shard.threads=2",
        "session.heartbeat_ms=1000",
        "session.pong_timeout_ms=5000",
    ];
    let Some(faulty) = Faulty::start(&settings) else { return };
    let gateway = &faulty.gateway;
    let mut to = publisher(gateway);
    publish(&mut to, TRADE);
    let mut clients = [0; 2].map(|_| RawSocket::open(gateway, "?symbols=demo:A"));
    clients.iter_mut().for_each(|client| assert_eq!(next(client, "trade")["seq"], 1));
    let sessions = gateway.metric("tickfan_sessions");
    assert!(sessions.iter().all(|(_, clients)| *clients == 1), "{sessions:?}");
    let [held, free] = &mut clients;
    held.text(r#"{"op":"list","fault":"fault=hold"}"#);
    let is_late = || faulty.not_ready().is_some_and(|why| why.contains("the thread shard-"));
    let mut seq = 1;
    // The other shard goes on, for longer than the deadline of the client whose shard is held.
    let (begun, mut late) = (Instant::now(), false);
    while !late || begun.elapsed() < Duration::from_secs(SECONDS) {
        assert!(begun.elapsed() < PATIENCE, "its thread is not named");
        publish(&mut to, TRADE);
        seq += 1;
        assert_eq!(next(free, "trade")["seq"], seq);
        late = is_late();
        if late {
            // A new client is given to a shard that moves.
            assert_eq!(RawSocket::open(gateway, "").hello["type"], "hello");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // The operator sees the others.
    let rows: Value = serde_json::from_str(&Gateway::get(gateway.admin, "/api/clients").1).expect("JSON");
    assert!(!rows["clients"].as_array().expect("rows").is_empty(), "{rows}");
    faulty.release();
    assert_eq!(next(held, "ack")["op"], "list");
    while next(held, "trade")["seq"] != seq {}
    eventually("it is ready again", || faulty.not_ready().is_none());
    eventually("its clients are there, and no others", || faulty.gateway.sessions() == 2);
    faulty.gateway.stop();
}

#[test]
fn a_process_whose_thread_hangs_ends_by_itself() {
    let Some(faulty) = Faulty::start(&["server.hang_after_ms=2000"]) else { return };
    let mut held = RawSocket::open(&faulty.gateway, "");
    held.text(r#"{"op":"list","fault":"fault=hold"}"#);
    let (code, said) = faulty.end();
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("the thread shard-") && said.contains("hangs"), "{said}");
}

#[test]
fn a_gateway_that_is_told_to_stop_does_not_wait_for_a_thread_that_hangs() {
    let Some(faulty) = Faulty::start(&["server.hang_after_ms=4000"]) else { return };
    let mut to = publisher(&faulty.gateway);
    publish(&mut to, r#"{"fault":"fault=hold"}"#);
    faulty.is_named("ingest");
    faulty.gateway.process.signal("TERM");
    let (code, said) = faulty.end();
    assert_eq!(code, Some(75), "{said}");
}

// ---- a panic --------------------------------------------------------------------------------------------

#[test]
fn a_panic_ends_the_process_and_names_the_thread() {
    // The connection stays open: a reset would take back what was sent.
    type Fault = fn(&Gateway) -> Box<dyn std::any::Any>;
    let faults: [(&str, Fault); 3] = [
        ("shard-", |gateway| {
            let mut client = RawSocket::open(gateway, "");
            client.text(r#"{"op":"list","fault":"fault=panic"}"#);
            Box::new(client)
        }),
        ("ingest", |gateway| {
            let mut to = publisher(gateway);
            publish(&mut to, r#"{"fault":"fault=panic"}"#);
            Box::new(to)
        }),
        ("main", |gateway| {
            let mut stream = connect(gateway.http);
            let request = b"GET /readyz?fault=panic HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request).expect("sent");
            Box::new(stream)
        }),
    ];
    for (thread, fault) in faults {
        let Some(faulty) = Faulty::start(&[]) else { return };
        let client = Client::open(&faulty.gateway, "?symbols=demo:A");
        let kept = fault(&faulty.gateway);
        let (code, said) = faulty.end();
        drop(kept);
        assert_eq!(code, Some(70), "{thread}: {said}");
        assert!(said.contains(&format!("the thread {thread}")) && said.contains("has panicked"), "{said}");
        drop(client);
    }
}

#[test]
fn a_panic_in_a_room_ends_the_room_alone() {
    let feeds = format!("replay.dir={}", in_repository("feeds").display());
    let Some(faulty) = Faulty::start(&[&feeds]) else { return };
    let gateway = &faulty.gateway;
    let mut outside = RawSocket::open(gateway, "?symbols=demo:A");
    let mut inside = RawSocket::open(gateway, "?replay=kraken.zst&symbols=*");
    next(&mut inside, "trade");
    inside.text(r#"{"op":"list","fault":"fault=panic"}"#);
    eventually("the room is gone", || {
        let rooms: Value = serde_json::from_str(&Gateway::get(gateway.admin, "/api/rooms").1).expect("JSON");
        rooms["rooms"].as_array().expect("rooms").is_empty()
    });
    let mut to = publisher(gateway);
    publish(&mut to, TRADE);
    assert_eq!(next(&mut outside, "trade")["seq"], 1);
    assert_eq!(gateway.readyz(), 200);
    let stopped = Instant::now();
    faulty.gateway.stop();
    // Far less than any deadline of a stopping gateway whose client does not leave.
    assert!(stopped.elapsed() < Duration::from_secs(25), "{:?}", stopped.elapsed());
}

// ---- no file left ---------------------------------------------------------------------------------------

/// Whether a handshake is carried out. Where no file is left the connection is closed before it is sent.
fn is_let_in(http: SocketAddr) -> bool {
    let mut stream = connect(http);
    let head = "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let mut line = String::new();
    write!(stream, "GET /ws HTTP/1.1\r\n{head}\r\n{key}\r\n\r\n").is_ok()
        && BufReader::new(&stream).read_line(&mut line).is_ok()
        && line.starts_with("HTTP/1.1 101 ")
}

#[test]
fn connections_that_find_no_file_left_are_told_so_and_others_go_on() {
    const FILES: usize = 10;
    let gateway = Gateway::run(tickfan(&["replay", "feeds/kraken.zst", "--loop"]), "127.0.0.1:0");
    let failed = || gateway.metric_sum("tickfan_http_accept_errors_total");
    let mut healthy = Client::open(&gateway, "?symbols=*");
    // Its clients do not use them up, since no more are accepted than fit: somebody else has to take them.
    gateway.leave_files(FILES);
    let others: Vec<_> = (0..3 * FILES).map(|_| connect(gateway.http)).collect();
    // Again and again.
    for _ in 0..10 {
        let mut answer = String::new();
        connect(gateway.http).read_to_string(&mut answer).expect("an answer, and the end");
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("lets the gateway open no more"),
            "{answer}"
        );
    }
    let before = healthy.told.values().sum::<u64>();
    while healthy.told.values().sum::<u64>() < before + 100 {
        assert!(healthy.step(), "it goes on");
    }
    drop(others);
    eventually("there are files again", || is_let_in(gateway.http));
    assert!(failed() > 0);
    while healthy.told.values().sum::<u64>() < before + 200 {
        assert!(healthy.step(), "it goes on");
    }
    assert!(healthy.ledger.held(), "{:?}", healthy.ledger.breaks());
    gateway.stop();
}

#[test]
fn faults_on_purpose_need_the_environment() {
    let gateway = Gateway::publishing("[\"demo\"]", &[]);
    let mut client = RawSocket::open(&gateway, "");
    client.text(r#"{"op":"list","fault":"fault=panic"}"#);
    assert_eq!(client.answer()["op"], "list");
    gateway.stop();
}
