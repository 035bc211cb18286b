//! Publishers over real sockets: the token, the numbering of lines, the way back for faults, and what
//! happens when the ingest thread takes nothing. Here the test is the ingest thread.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::{FIN, Gateway, PONG, RawSocket, TEXT, TOKEN, connect, header, run};
use serde_json::{Value, json};
use tickfan::feed::publish::{CHUNKS_MAX, Chunk, Faults, Input, LineFault, Newcomer, Options, Publish};
use tickfan::feed::{Ingest, IngestParts, IngestView, LineLimits, Sequencer};
use tickfan::http::{self, Front, Health, Hooks, PublishRoute, Refused, Upgraded};
use tickfan::latency::meter::Meter;
use tickfan::model::instrument::{InstrumentTable, Symbol};
use tickfan::model::tick::State;
use tickfan::ops::flight::IncidentReporter;
use tickfan::protocol::close::Close;
use tickfan::ring::tick_ring;
use tickfan::time::clock::Clock;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client::client_with_config};

/// Longer than anything takes; only a broken gateway makes a test wait for it.
const PATIENCE: Duration = Duration::from_secs(20);
const AUTH: &str = "{\"op\":\"auth\",\"token\":\"token-of-the-tests\"}\n";
const BEARER: &str = "Bearer token-of-the-tests";
const ACK: &str = r#"{"type":"ack","op":"auth"}"#;

struct Door {
    publish: Arc<Publish>,
    tcp: SocketAddr,
    http: SocketAddr,
    input: mpsc::Receiver<Input>,
    wake: Arc<Notify>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn hooks(publish: &Arc<Publish>) -> Hooks {
    let (asked, taken) = (Arc::clone(publish), Arc::clone(publish));
    Hooks {
        memory: Arc::default(),
        can_accept: Arc::new(|| true),
        hand_over: Arc::new(|upgraded| Err(Refused { stream: upgraded.stream, why: Close::Limit })),
        publish: Some(PublishRoute {
            accepts: Arc::new(move |token, address| asked.judge(token, address)),
            hand_over: Arc::new(move |upgraded, authorized| {
                let Upgraded { stream, read_buf, peer, seat, .. } = upgraded;
                let newcomer = Newcomer { stream, read_buf, address: peer.ip(), seat, authorized };
                taken.serve_ws(newcomer).map_err(|stream| Refused { stream, why: Close::Limit })
            }),
        }),
        instruments: Arc::new(InstrumentTable::new(1)),
        state: Arc::new(|_| State::Waiting),
        health: Health { feeds: Arc::new(Vec::new), alarms: Arc::new(Vec::new), pulses: Arc::default() },
        replay_control: None,
        rooms: None,
    }
}

fn door(options: Options, chunks_max: usize) -> Door {
    door_at(Clock::real(), options, chunks_max)
}

fn door_at(clock: Clock, options: Options, chunks_max: usize) -> Door {
    let (sender, input) = mpsc::channel(chunks_max);
    let wake = Arc::new(Notify::new());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let (rung, home) = (Arc::clone(&wake), runtime.handle().clone());
    let publish = Publish::new(TOKEN, options, clock, sender, rung, home).expect("a token");
    let bind = || runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("bind");
    let (lines, web) = (bind(), bind());
    let (tcp, http) = (lines.local_addr().expect("bound"), web.local_addr().expect("bound"));
    runtime.spawn(Arc::clone(&publish).serve_tcp(lines));
    let front = Front::new(&http::Options::default(), hooks(&publish)).expect("good origins");
    runtime.spawn(front.serve(web, std::future::pending()));
    Door { publish, tcp, http, input, wake, runtime: Some(runtime) }
}

fn usual() -> Door {
    door(Options::default(), CHUNKS_MAX)
}

impl Door {
    fn next(&mut self) -> Input {
        let runtime = self.runtime.as_ref().expect("running");
        let next = runtime.block_on(async { tokio::time::timeout(PATIENCE, self.input.recv()).await });
        next.expect("an input in time").expect("publishing runs")
    }

    fn opened(&mut self) -> (u32, Faults) {
        match self.next() {
            Input::Opened { publisher, errors } => (publisher, errors),
            other => panic!("not opened: {other:?}"),
        }
    }

    fn chunk(&mut self) -> Chunk {
        match self.next() {
            Input::Chunk(chunk) => chunk,
            other => panic!("no chunk: {other:?}"),
        }
    }

    /// Everything until the publisher is closed, with each line's number.
    fn lines_to_the_end(&mut self) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        loop {
            match self.next() {
                Input::Chunk(chunk) => {
                    let text = String::from_utf8(chunk.bytes).expect("utf-8");
                    assert!(text.ends_with('\n'));
                    lines.extend((chunk.first_line..).zip(text.lines().map(str::to_owned)));
                }
                Input::Closed { .. } => return lines,
                Input::Opened { .. } => panic!("opened twice"),
            }
        }
    }

    fn tcp(&self, first: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.tcp).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.write_all(first.as_bytes()).expect("sent");
        BufReader::new(stream)
    }

    fn ws(&self, authorization: Option<&str>) -> Result<WebSocket<TcpStream>, Error> {
        let stream = TcpStream::connect(self.http).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut request = format!("ws://{}/publish", self.http).into_client_request()?;
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", value.parse().expect("a header"));
        }
        let config = WebSocketConfig::default();
        match client_with_config(request, stream, Some(config)) {
            Ok((socket, _)) => Ok(socket),
            Err(tokio_tungstenite::tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line in time");
    line.trim_end().to_owned()
}

fn message(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

fn numbered(lines: &[(u64, String)]) -> Vec<(u64, &str)> {
    lines.iter().map(|(n, text)| (*n, text.as_str())).collect()
}

#[test]
fn lines_over_tcp_come_in_chunks_with_their_numbers() {
    let mut door = usual();
    // The first tick comes in the packet of the token, and the last has no end.
    let mut stream = door.tcp(&format!("{AUTH}a\nb"));
    assert_eq!(line(&mut stream), ACK);
    let (publisher, errors) = door.opened();
    let chunk = door.chunk();
    assert_eq!((chunk.publisher, chunk.first_line, &chunk.bytes[..]), (publisher, 2, &b"a\n"[..]));
    assert!(chunk.rx_ns > 1_700_000_000_000_000_000);
    let woken = async { tokio::time::timeout(PATIENCE, door.wake.notified()).await };
    door.runtime.as_ref().expect("running").block_on(woken).expect("the ingest thread is woken");
    stream.get_mut().write_all(b"c\n\nd").expect("sent");
    stream.get_ref().shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(numbered(&door.lines_to_the_end()), [(3, "bc"), (4, ""), (5, "d")]);

    // Faults found after the end are still told.
    errors.tell(LineFault { line: 5, msg: "`type` is missing".into() });
    drop(errors);
    let told = message(&line(&mut stream));
    assert_eq!(told, json!({"type": "error", "line": 5, "code": "bad_tick", "msg": "`type` is missing"}));
    assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    let stats = door.publish.stats();
    assert_eq!(stats.lines.load(Ordering::SeqCst), 4);
    assert_eq!(stats.bytes.load(Ordering::SeqCst), 8);
    assert_eq!(stats.faults.load(Ordering::SeqCst), 1);
}

#[test]
fn without_the_token_nothing_is_taken() {
    let mut door = usual();
    let long = format!("{}\n", "x".repeat(10_000));
    for first in [
        "{\"op\":\"auth\",\"token\":\"Token-of-the-tests\"}\n",
        "{\"op\":\"auth\",\"token\":\"token-of-the-tests2\"}\n",
        "{\"op\":\"auth\",\"token\":\"\"}\n",
        "{\"op\":\"ping\",\"token\":\"token-of-the-tests\"}\n",
        "{\"type\":\"trade\"}\n",
        "GET / HTTP/1.1\r\n\r\n",
        &long,
    ] {
        let mut stream = door.tcp(first);
        let told = message(&line(&mut stream));
        assert_eq!((&told["type"], &told["code"]), (&json!("error"), &json!("auth")), "{first:.40}");
        assert!(!told.to_string().contains(TOKEN), "{told}");
        assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    }
    assert!(door.input.try_recv().is_err());
    let stats = door.publish.stats();
    assert_eq!(stats.auth_refused.load(Ordering::SeqCst), 7);
    assert_eq!(stats.wrong_tokens.load(Ordering::SeqCst), 3);
}

#[test]
fn the_token_must_come_in_time() {
    let door = door(Options { auth_timeout_ms: 200, ..Options::default() }, CHUNKS_MAX);
    let mut stream = door.tcp(&AUTH[..10]);
    let told = message(&line(&mut stream));
    assert_eq!(told["code"], "auth");
    assert!(told["msg"].as_str().is_some_and(|msg| msg.contains("200 ms")), "{told}");
    let mut socket = door.ws(None).expect("upgraded");
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["code"], "auth");
    let close = socket.read().expect("closed");
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 4500), "{close:?}");
}

#[test]
fn an_empty_token_is_refused() {
    let (sender, _input) = mpsc::channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let (wake, home) = (Arc::default(), runtime.handle().clone());
    assert!(Publish::new("", Options::default(), Clock::real(), sender, wake, home).is_err());
}

#[test]
fn a_line_too_long_is_named_and_skipped() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let text = format!("a\n{}\nb\n{}\n", "x".repeat(300_000), "y".repeat(65_536));
    stream.get_mut().write_all(text.as_bytes()).expect("sent");
    let told = message(&line(&mut stream));
    assert_eq!((&told["line"], &told["code"]), (&json!(3), &json!("bad_tick")));
    stream.get_ref().shutdown(Shutdown::Write).expect("half closed");
    let (_, errors) = door.opened();
    drop(errors);
    let lines = door.lines_to_the_end();
    assert_eq!(numbered(&lines[..2]), [(2, "a"), (4, "b")]);
    assert_eq!((lines.len(), lines[2].0, lines[2].1.len()), (3, 5, 65_536));
}

#[test]
fn faults_nobody_reads_are_counted_and_told_as_a_number() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let (_, errors) = door.opened();
    const FAULTS: u64 = 200_000;
    for n in 1..=FAULTS {
        errors.tell(LineFault { line: n, msg: "x".repeat(200) });
    }
    let mut told = 0;
    while told < FAULTS {
        let error = message(&line(&mut stream));
        told += match error["line"].as_u64() {
            Some(_) => 1,
            None => {
                let msg = error["msg"].as_str().expect("text");
                msg.strip_suffix(" more lines").expect(msg).parse::<u64>().expect("a number")
            }
        };
    }
    assert_eq!(told, FAULTS, "every fault is told or counted, once");
    let stats = door.publish.stats();
    assert_eq!(stats.faults.load(Ordering::SeqCst), FAULTS);
    assert!(stats.faults_untold.load(Ordering::SeqCst) > 0);
}

#[test]
fn faults_are_told_to_a_publisher_that_only_listens() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let (_, errors) = door.opened();
    // Each is more than may wait for a publisher at once.
    for n in 1..=5 {
        errors.tell(LineFault { line: n, msg: "x".repeat(20_000) });
    }
    for n in 1..=5 {
        assert_eq!(message(&line(&mut stream))["line"], n);
    }
}

#[test]
fn a_stalled_ingest_thread_stops_the_publisher_and_loses_nothing() {
    let mut door = door(Options::default(), 2);
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let socket = stream.get_mut();
    socket.set_write_timeout(Some(Duration::from_millis(200))).expect("timeout");
    // Nobody takes a chunk, so that the socket must fill up, however much the kernel buffers.
    let mut sent = Vec::new();
    let mut next = 0u64;
    let rest = 'full: loop {
        let block: String = (next..next + 1000).map(|n| format!("tick {n}\n")).collect();
        next += 1000;
        assert!(sent.len() < 1 << 30, "the publisher is not held back");
        let mut block = block.as_bytes();
        sent.extend_from_slice(block);
        while !block.is_empty() {
            match socket.write(block) {
                Ok(n) => block = &block[n..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break 'full block.to_vec();
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut socket = socket.try_clone().expect("a handle");
    let writer = std::thread::spawn(move || {
        socket.set_write_timeout(Some(PATIENCE)).expect("timeout");
        socket.write_all(&rest).expect("sent");
        socket.shutdown(Shutdown::Write).expect("half closed");
    });
    let (_, errors) = door.opened();
    drop(errors);
    let lines = door.lines_to_the_end();
    writer.join().expect("the writer ends");
    assert_eq!(lines.len() as u64, next);
    for (at, (number, text)) in lines.iter().enumerate() {
        assert_eq!((*number, text.as_str()), (at as u64 + 2, format!("tick {at}").as_str()));
    }
}

#[test]
fn a_websocket_publishes_with_the_token_in_its_head() {
    let mut door = usual();
    let mut socket = door.ws(Some(BEARER)).expect("upgraded");
    let (_, errors) = door.opened();
    socket.send(Message::text("a\nb")).expect("sent");
    socket.send(Message::text("")).expect("sent");
    socket.send(Message::text("c\n")).expect("sent");
    let big: String = (4..20_004).map(|n| format!("line {n}\n")).collect();
    socket.send(Message::text(big + &"x".repeat(70_000) + "\nlast")).expect("sent");
    // It is not read beyond what is on its way.
    let mut lines = Vec::new();
    while lines.len() < 20_003 {
        let chunk = door.chunk();
        let text = String::from_utf8(chunk.bytes).expect("utf-8");
        lines.extend((chunk.first_line..).zip(text.lines().map(str::to_owned)));
    }
    let told = message(socket.read().expect("told").to_text().expect("text"));
    assert_eq!((&told["line"], &told["code"]), (&json!(20_004), &json!("bad_tick")));
    errors.tell(LineFault { line: 2, msg: "no".into() });
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["line"], 2);
    drop(errors);
    socket.close(None).expect("closing");
    lines.extend(door.lines_to_the_end());
    assert_eq!(numbered(&lines[..3]), [(1, "a"), (2, "b"), (3, "c")]);
    assert_eq!(numbered(&lines[3..4]), [(4, "line 4")]);
    assert_eq!(numbered(&lines[20_002..]), [(20_003, "line 20003"), (20_005, "last")]);
    // The gateway answers the close.
    while socket.read().is_ok() {}
}

#[test]
fn a_websocket_publishes_with_the_token_as_its_first_message() {
    let mut door = usual();
    let mut socket = door.ws(None).expect("upgraded");
    socket.send(Message::text(AUTH.trim_end())).expect("sent");
    socket.send(Message::text("tick")).expect("sent");
    assert_eq!(socket.read().expect("an answer").to_text().expect("text"), ACK);
    let (publisher, _errors) = door.opened();
    let chunk = door.chunk();
    assert_eq!((chunk.publisher, chunk.first_line, &chunk.bytes[..]), (publisher, 2, &b"tick\n"[..]));

    let mut wrong = door.ws(None).expect("upgraded");
    wrong.send(Message::text(r#"{"op":"auth","token":"x"}"#)).expect("sent");
    assert_eq!(message(wrong.read().expect("told").to_text().expect("text"))["code"], "auth");
    assert!(matches!(wrong.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 4500));
    assert!(matches!(door.ws(Some("Bearer x")), Err(Error::Http(answer)) if answer.status() == 401));
}

#[test]
fn a_binary_message_ends_a_websocket_but_keeps_what_came_before() {
    let mut door = usual();
    let mut socket = door.ws(Some(BEARER)).expect("upgraded");
    socket.write(Message::text("a")).expect("queued");
    socket.write(Message::binary(vec![1])).expect("queued");
    socket.flush().expect("sent");
    drop(door.opened());
    assert_eq!(numbered(&door.lines_to_the_end()), [(1, "a")]);
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["code"], "text_only");
    assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1003));
}

#[test]
fn publishers_are_bounded() {
    let mut door = door(Options { publishers_max: 1, ..Options::default() }, CHUNKS_MAX);
    let mut first = door.tcp(AUTH);
    assert_eq!(line(&mut first), ACK);
    let (_, errors) = door.opened();
    let mut second = door.tcp(AUTH);
    assert_eq!(message(&line(&mut second))["code"], "limit");
    let mut socket = door.ws(Some(BEARER)).expect("upgraded");
    assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 4502));
    assert_eq!(door.publish.stats().limit_refused.load(Ordering::SeqCst), 2);

    // The first one goes, and leaves its place to another.
    drop(errors);
    drop(first);
    assert_eq!(door.lines_to_the_end(), []);
    let admitted = (0..10_000).any(|_| line(&mut door.tcp(AUTH)) == ACK);
    assert!(admitted, "there is room again");
}

#[test]
fn stopping_sends_publishers_away() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let mut socket = door.ws(Some(BEARER)).expect("upgraded");
    let _errors = (door.opened(), door.opened());
    door.publish.stop();
    assert_eq!(message(&line(&mut stream))["code"], "shutdown");
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["code"], "shutdown");
    assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 4001));
    for _ in 0..2 {
        assert!(matches!(door.next(), Input::Closed { .. }));
    }
}

#[test]
fn a_broken_connection_is_counted() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    // The answer is there and stays unread, so that closing resets the connection.
    assert_eq!(stream.get_ref().peek(&mut [0]).expect("the answer"), 1);
    stream.get_mut().write_all(b"cut of").expect("sent");
    drop(door.opened());
    drop(stream);
    assert_eq!(door.lines_to_the_end(), [], "a line that was cut off is no line");
    assert_eq!(door.publish.stats().resets.load(Ordering::SeqCst), 1);
}

/// The message and the code that a WebSocket is closed with; what it was sent before.
fn closed(socket: &mut WebSocket<TcpStream>) -> (String, u16) {
    let told = socket.read().expect("told why");
    let told = message(told.to_text().expect("text"));
    match socket.read().expect("closed") {
        Message::Close(Some(frame)) => (told["code"].as_str().expect("a word").to_owned(), frame.code.into()),
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn strangers_keep_no_publisher_out() {
    const PUBLISHERS: u64 = 60;
    let mut door = door(Options { publishers_max: 100, ..Options::default() }, CHUNKS_MAX);
    // More than have places, on both listeners, and they stay as long as they may.
    let silent: Vec<_> = (0..70).map(|_| door.tcp("")).collect();
    let mute: Vec<_> = (0..70).map(|_| door.ws(None).expect("upgraded")).collect();
    let mut lines: Vec<_> = (0..PUBLISHERS / 3).map(|_| door.tcp(AUTH)).collect();
    for stream in &mut lines {
        assert_eq!(line(stream), ACK);
    }
    let mut sockets = Vec::new();
    for n in 0..PUBLISHERS * 2 / 3 {
        let in_head = n % 2 == 0;
        let mut socket = door.ws(in_head.then_some(BEARER)).expect("upgraded");
        if !in_head {
            socket.send(Message::text(AUTH.trim_end())).expect("sent");
            assert_eq!(socket.read().expect("an answer").to_text().expect("text"), ACK);
        }
        sockets.push(socket);
    }
    let admitted: Vec<_> = (0..PUBLISHERS).map(|_| door.opened()).collect();
    assert_eq!(admitted.len() as u64, PUBLISHERS);
    let stats = door.publish.stats();
    assert_eq!(stats.opened.load(Ordering::SeqCst), PUBLISHERS);
    assert_eq!(stats.limit_refused.load(Ordering::SeqCst), 0);
    crate::support::eventually("6 of each listener are evicted by others without a token", || {
        stats.evicted.load(Ordering::SeqCst) >= 12
    });
    drop((silent, mute));
}

#[test]
fn each_listener_has_places_of_its_own_for_strangers() {
    let options = Options {
        strangers_max: 3,
        strangers_per_address: 2,
        auth_timeout_ms: 600_000,
        ..Options::default()
    };
    let mut door = door(options, CHUNKS_MAX);
    // Each is there before the next comes.
    let waiting = |door: &Door, count| {
        let stats = door.publish.stats();
        crate::support::eventually("it waits", || stats.waiting.load(Ordering::SeqCst) == count);
    };
    let mut lines = [door.tcp(&AUTH[..9]), door.tcp(&AUTH[..9])];
    waiting(&door, 2);
    let mut first = door.ws(None).expect("upgraded");
    waiting(&door, 3);
    let _second = door.ws(None).expect("upgraded");
    waiting(&door, 4);
    let _third = door.ws(None).expect("upgraded");
    assert_eq!(closed(&mut first), ("limit".to_owned(), 4502), "the longest waiting is evicted");
    // Those of the other listener are still there.
    for stream in &mut lines {
        stream.get_mut().write_all(&AUTH.as_bytes()[9..]).expect("sent");
        assert_eq!(line(stream), ACK);
        drop(door.opened());
    }
    waiting(&door, 2);
    let mut longest = door.tcp("");
    waiting(&door, 3);
    let _second = door.tcp("");
    waiting(&door, 4);
    let _third = door.tcp("");
    assert_eq!(message(&line(&mut longest))["code"], "limit");
    assert_eq!(door.publish.stats().evicted.load(Ordering::SeqCst), 2);
}

/// Frames whose mask is 0, many times over.
fn frames(first: u8, len: usize, times: usize) -> Vec<u8> {
    let frame = [header(first, len, true), vec![0; 4], vec![b' '; len]].concat();
    frame.repeat(times)
}

#[test]
fn what_a_websocket_sends_is_bounded_with_the_token_and_without() {
    let mut door = usual();
    // A message of many parts; its first.
    let parts = [frames(TEXT, 1, 1), frames(0, 1, 200)].concat();
    let pings = frames(FIN | 9, 0, 200);
    let pongs = frames(FIN | PONG, 0, 8_000);
    for (bytes, word, code) in [
        (&pongs, "limit", 4502),
        (&pings, "limit", 4502),
        (&parts, "limit", 4502),
        (&frames(FIN | TEXT, 1_025, 1), "message_too_big", 1009),
        (&frames(TEXT, 600, 2), "protocol_error", 1002),
        (&[frames(TEXT, 600, 1), frames(0, 600, 1)].concat(), "message_too_big", 1009),
        (&frames(FIN | 2, 1, 1), "text_only", 1003),
        (&frames(FIN | TEXT, 0, 1), "auth", 4500),
        // Unmasked.
        (&vec![FIN | TEXT, 1, b'x'], "protocol_error", 1002),
    ] {
        let mut socket = door.ws(None).expect("upgraded");
        socket.get_mut().write_all(bytes).expect("sent");
        assert_eq!(closed(&mut socket), (word.to_owned(), code), "{:?}", &bytes[..20.min(bytes.len())]);
    }
    assert!(door.input.try_recv().is_err(), "nothing of it comes to the ingest thread");
    assert_eq!(door.publish.stats().auth_refused.load(Ordering::SeqCst), 9);

    for (bytes, word, code) in [
        (&pongs, "limit", 4502),
        (&parts, "limit", 4502),
        // The head of a message that is a byte too long.
        (&header(FIN | TEXT, 1_048_577, true), "message_too_big", 1009),
    ] {
        for in_head in [true, false] {
            let mut socket = door.ws(in_head.then_some(BEARER)).expect("upgraded");
            if !in_head {
                socket.send(Message::text(AUTH.trim_end())).expect("sent");
                assert_eq!(socket.read().expect("an answer").to_text().expect("text"), ACK);
            }
            let _errors = door.opened();
            socket.get_mut().write_all(&frames(FIN | TEXT, 60_000, 2)).expect("sent");
            assert_eq!(door.chunk().bytes.len(), 60_001, "as long as a publisher may");
            assert_eq!(door.chunk().bytes.len(), 60_001);
            // Behind the head comes the mask that it announces.
            socket.get_mut().write_all(&[&bytes[..], &[0; 4]].concat()).expect("sent");
            assert_eq!(closed(&mut socket), (word.to_owned(), code));
            assert!(matches!(door.next(), Input::Closed { .. }));
        }
    }
}

#[test]
fn pings_of_publishers_are_answered_and_a_close_is_too() {
    let mut door = usual();
    for in_head in [true, false] {
        let mut socket = door.ws(in_head.then_some(BEARER)).expect("upgraded");
        socket.send(Message::Ping(vec![7; 9].into())).expect("sent");
        assert_eq!(socket.read().expect("answered"), Message::Pong(vec![7; 9].into()));
        if !in_head {
            socket.send(Message::text(AUTH.trim_end())).expect("sent");
            assert_eq!(socket.read().expect("an answer").to_text().expect("text"), ACK);
        }
        drop(door.opened());
        socket.close(None).expect("closing");
        assert!(matches!(socket.read(), Ok(Message::Close(None))), "the close is answered, and nothing else");
        assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
        assert_eq!(door.lines_to_the_end(), []);
    }
}

#[test]
fn guesses_are_slowed_by_address() {
    let clock = Clock::manual();
    let options = Options { wrong_tokens_per_minute: 3, auth_timeout_ms: 600_000, ..Options::default() };
    let mut door = door_at(clock.clone(), options, CHUNKS_MAX);
    let mut before = door.tcp(AUTH);
    assert_eq!(line(&mut before), ACK);
    let _errors = door.opened();
    let wrong = "{\"op\":\"auth\",\"token\":\"another-of-16-letters\"}\n";
    let code = |first: &str| message(&line(&mut door.tcp(first)))["code"].as_str().map(str::to_owned);
    assert_eq!(code(wrong).as_deref(), Some("auth"));
    assert!(matches!(door.ws(Some("Bearer wrong")), Err(Error::Http(answer)) if answer.status() == 401));
    assert_eq!(code(wrong).as_deref(), Some("auth"));
    // The right one could be a guess as well.
    assert_eq!(code(AUTH).as_deref(), Some("try_again_later"));
    assert_eq!(code(wrong).as_deref(), Some("try_again_later"));
    let Err(Error::Http(answer)) = door.ws(Some(BEARER)) else { panic!("it is not compared") };
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (429, &"20".parse().expect("a value"))
    );
    let mut socket = door.ws(None).expect("upgraded");
    socket.send(Message::text(AUTH.trim_end())).expect("sent");
    assert_eq!(closed(&mut socket), ("try_again_later".to_owned(), 1013));
    let stats = door.publish.stats();
    assert_eq!(stats.wrong_tokens.load(Ordering::SeqCst), 3);
    assert_eq!(stats.tokens_unread.load(Ordering::SeqCst), 4);

    // Publishers that are connected are not affected, and wrong tokens are forgotten.
    before.get_mut().write_all(b"tick\n").expect("sent");
    assert_eq!(door.chunk().bytes, b"tick\n");
    clock.advance(Duration::from_secs(20));
    assert_eq!(line(&mut door.tcp(AUTH)), ACK);
}

#[test]
fn a_short_token_is_refused_at_the_start() {
    let setting = "publish.token=fifteen-letters";
    for args in [&["serve", "--set", setting][..], &["check", "--set", setting]] {
        let ended = run(args);
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        assert!(
            ended.stderr.contains("publish.token: a token has at least 16 characters: this has 15"),
            "{ended:?}"
        );
    }
}

/// A publisher of the real gateway.
fn publisher(gateway: &Gateway) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(connect(gateway.publish.expect("it listens")));
    stream.get_mut().write_all(AUTH.as_bytes()).expect("sent");
    assert_eq!(line(&mut stream), ACK);
    stream
}

fn trade(symbol: &str) -> String {
    json!({"type": "trade", "symbol": symbol, "price": "1.25", "size": "3"}).to_string() + "\n"
}

/// What is wrong with which lines; the publisher sends no more.
fn faults(stream: &mut BufReader<TcpStream>) -> Vec<(u64, String)> {
    stream.get_ref().shutdown(Shutdown::Write).expect("half closed");
    let lines = stream.by_ref().lines().map(|line| message(&line.expect("a line")));
    lines
        .map(|fault| {
            assert_eq!(fault["code"], "bad_tick", "{fault}");
            (fault["line"].as_u64().expect("a number"), fault["msg"].as_str().expect("text").to_owned())
        })
        .collect()
}

fn refused(gateway: &Gateway, what: &str) -> u64 {
    let label = format!("what=\"{what}\"");
    let rows = gateway.metric("tickfan_feed_refused_total");
    rows.iter().filter(|(labels, _)| labels.contains(&label)).map(|(_, count)| count).sum()
}

#[test]
fn a_publisher_names_as_many_instruments_as_are_its_share() {
    let gateway = Gateway::publishing(r#"["demo"]"#, &["publish.instruments_per_publisher_max=3"]);
    let mut stream = publisher(&gateway);
    let named = ["demo:A", "demo:B", "demo:C", "demo:D", "demo:A", "demo:E", "demo:C"];
    stream.get_mut().write_all(named.map(trade).concat().as_bytes()).expect("sent");
    let told = faults(&mut stream);
    let msg = |symbol| {
        format!(
            "field `symbol`: {symbol:?}: no room for another instrument of this publisher: it has named 3"
        )
    };
    assert_eq!(told, [(5, msg("demo:D")), (7, msg("demo:E"))], "it goes on with those it has");
    // Another one has a share of its own.
    let mut other = publisher(&gateway);
    other.get_mut().write_all([trade("demo:D"), trade("demo:A")].concat().as_bytes()).expect("sent");
    assert_eq!(faults(&mut other), []);
    crate::support::eventually("it is counted", || refused(&gateway, "instruments") == 2);
    let (status, rows) = Gateway::get(gateway.http, "/api/symbols");
    assert_eq!(status, 200);
    assert!(rows.contains("demo:D") && !rows.contains("demo:E"), "{rows}");
}

#[test]
fn publishers_leave_room_for_what_feeds_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("feed");
    // The first lines are read before the replay begins: the last symbols are met only when it plays.
    let symbols = std::iter::repeat_n("F0", 300).chain(["F1", "F2", "F3"]);
    let lines = (1_780_000_000u64..).zip(symbols).map(|(second, name)| {
        let tick = json!({"type": "trade", "symbol": format!("feed:{name}"), "price": "1", "size": "1"});
        format!("{second}000000000 {tick}\n")
    });
    std::fs::write(&capture, lines.collect::<String>()).expect("written");
    let settings = Gateway::settings(&[
        "publish.listen=127.0.0.1:0",
        "publish.token=token-of-the-tests",
        "limits.instruments_max=8",
        "publish.instruments_percent_max=50",
    ]);
    let capture = capture.to_str().expect("UTF-8");
    let args = ["replay", "--speed", "0", "--wait-subscribers", "1", capture];
    let gateway = Gateway::start(&[&args[..], &settings].concat());
    let mut stream = publisher(&gateway);
    let names: String = (0..20).map(|n| trade(&format!("demo:P{n:02}"))).collect();
    stream.get_mut().write_all((names + &trade("demo:P00")).as_bytes()).expect("sent");
    let told = faults(&mut stream);
    assert_eq!(told.len(), 17, "feed:F0 and three of demo are half of the table: {told:?}");
    assert!(told.iter().all(|(_, msg)| msg.contains("4 are listed, the rest is kept for feeds")), "{told:?}");

    let mut client = RawSocket::open(&gateway, "?symbols=feed:*&channel=trade");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 4 {
        let message = client.message();
        if message["type"] == "trade" {
            seen.insert(message["symbol"].as_str().expect("a name").to_owned());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["feed:F0", "feed:F1", "feed:F2", "feed:F3"]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name_and_counted() {
    let gateway = Gateway::publishing(r#"["demo","kraken"]"#, &[]);
    let mut stream = publisher(&gateway);
    let now_us = Clock::real().wall_ns() / 1_000;
    let at = |ts: u64| {
        json!({"type": "trade", "symbol": "demo:A", "price": "1", "size": "1", "ts": ts}).to_string()
    };
    let trade_at = |symbol: &str, price: &str| {
        json!({"type": "trade", "symbol": symbol, "price": price, "size": "1"}).to_string()
    };
    let bid =
        |symbol: &str| json!({"type": "quote", "symbol": symbol, "bid": "-1", "bid_size": "1"}).to_string();
    let lines = [
        (trade_at("demo:A\u{202e}B", "1"), "has no character that is not seen or turns others round: U+202E"),
        (trade_at("demo:A\u{200b}", "1"), "U+200B"),
        (trade_at("demo:A\u{a0}B", "1"), "without spaces"),
        (trade_at("other:A", "1"), "venue \"other\" may not be published"),
        (trade_at("kraken:XBT/USD", "-1"), "field `price`: -1: a price is not negative on this venue"),
        (trade_at("kraken:XBT/USD", "0"), "field `price`: 0: a trade has a price above 0 on this venue"),
        (bid("kraken:XBT/USD"), "field `bid`: -1: a price is not negative on this venue"),
        (at(1_000_000), "field `ts`: 1000000 microseconds since 1970 are not between 2000 and 2199"),
        (at(now_us + 90_000_000_000), "microseconds since 1970 are more than a day ahead"),
        (trade_at("demo:A", "-1"), ""),
        (bid("demo:A"), ""),
        (at(now_us + 80_000_000_000), ""),
        (at(now_us - 80_000_000_000_000), ""),
        (trade_at("kraken:币安/USD", "1"), ""),
    ];
    for (text, _) in &lines {
        writeln!(stream.get_mut(), "{text}").expect("sent");
    }
    let told = faults(&mut stream);
    let expected: Vec<(u64, &str)> =
        (2..).zip(lines.iter().map(|(_, msg)| *msg)).filter(|l| !l.1.is_empty()).collect();
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((number, msg), (line, word)) in told.iter().zip(expected) {
        assert_eq!(*number, line, "{msg}");
        assert!(msg.contains(word), "{msg}: {word}");
        assert!(!msg.contains(['\u{202e}', '\u{200b}', '\u{a0}']), "{msg:?}");
    }
    crate::support::eventually("all is counted", || {
        ["symbols", "numbers", "times"].map(|what| refused(&gateway, what)) == [4, 3, 2]
    });
}

#[test]
fn who_lists_thousands_waits_for_the_wildcards_of_others_and_loses_nothing() {
    const NAMES: usize = 4_000;
    const TICKS: u64 = 200;
    let gateway = Gateway::publishing(r#"["demo"]"#, &["session.outbox_bytes_max=67108864"]);
    // Each takes every instrument that is listed, and is sent nothing for a long time.
    let wild: Vec<_> = (0..50)
        .map(|_| RawSocket::open(&gateway, "?symbols=*&mode=latest&max_hz=0.01&snapshot=false"))
        .collect();
    let all = 2 * NAMES as u64 + TICKS;
    let mut client = Client::open(&gateway, "?symbols=*&channel=trade");
    let reader = std::thread::spawn(move || {
        while client.told.values().sum::<u64>() < all {
            assert!(client.step(), "it is not closed");
        }
        client
    });
    let mut many = publisher(&gateway);
    let names: String = (0..NAMES).map(|n| trade(&format!("demo:N{n:04}"))).collect();
    let writer = std::thread::spawn(move || {
        many.get_mut().write_all((names.clone() + "no tick\n" + &names).as_bytes()).expect("sent");
        // It is gone before most of it was taken.
        faults(&mut many)
    });
    let mut other = publisher(&gateway);
    for _ in 0..TICKS {
        other.get_mut().write_all(trade("demo:OTHER").as_bytes()).expect("sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    let told = writer.join().expect("it is told its faults");
    assert_eq!(told.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [NAMES as u64 + 2], "{told:?}");
    let client = reader.join().expect("it is told everything");
    assert!(client.ledger.held(), "{:?}", client.ledger.breaks());
    assert_eq!(client.told.len(), NAMES + 1);
    assert_eq!(client.told[&("demo:OTHER".to_owned(), "trade")], TICKS);
    assert_eq!((client.missing("feed"), client.missing("slow_consumer")), (0, 0));
    drop(wild);
    gateway.stop();
}

/// An ingest thread that takes what comes through a door, turned by hand.
struct Rig {
    door: Door,
    ingest: Ingest,
    table: Arc<InstrumentTable>,
    /// Instruments that subscriptions have taken.
    registered: Arc<AtomicUsize>,
    view: Arc<IngestView>,
    _notices: mpsc::Receiver<String>,
}

impl Rig {
    fn new() -> Self {
        let mut door = usual();
        let table = Arc::new(InstrumentTable::new(1_024));
        let (writer, _) = tick_ring(1_024, 1_024).expect("a good capacity");
        let (notices, log) = mpsc::channel(8);
        let registered = Arc::new(AtomicUsize::new(0));
        let (taken, listed) = (Arc::clone(&registered), Arc::clone(&table));
        let (_, nothing) = mpsc::channel(1);
        let view = Arc::new(IngestView::new(0));
        let ingest = Ingest::new(IngestParts {
            sequencer: Sequencer::new(Arc::clone(&table)),
            writer,
            bells: Vec::new(),
            rest: Duration::ZERO,
            replays: Vec::new(),
            replay_control: None,
            publishers: Some(std::mem::replace(&mut door.input, nothing)),
            publish_limits: LineLimits { venues: Some(vec!["demo".to_owned()]), ..LineLimits::default() },
            publish_tap: None,
            clock: Clock::real(),
            stale_after_ns: u64::MAX,
            // As with 7 wildcards.
            listing_backlog: Box::new(move || 8 * (listed.len() - taken.load(Ordering::Relaxed))),
            may_start: Box::new(|| true),
            view: Arc::clone(&view),
            notices,
            meter: Meter::off(),
            reporter: IncidentReporter::off(),
        });
        Self { door, ingest, table, registered, view, _notices: log }
    }

    /// Turns until so many instruments are listed.
    fn turn_until(&mut self, listed: usize) {
        crate::support::eventually("they are listed", || {
            self.ingest.turn(Clock::real().now());
            self.table.len() >= listed
        });
    }

    /// Turns for a while, in which nothing more is listed.
    fn turn_in_vain(&mut self) {
        let listed = self.table.len();
        for _ in 0..100 {
            self.ingest.turn(Clock::real().now());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.table.len(), listed);
    }

    /// Subscriptions take all that is listed.
    fn register(&self) {
        self.registered.store(self.table.len(), Ordering::Relaxed);
    }

    fn held(&self) -> u64 {
        self.view.publishers_held.get()
    }
}

#[test]
fn a_publisher_waits_until_what_it_listed_is_subscribed_to_and_others_go_on() {
    let mut rig = Rig::new();
    let mut many = rig.door.tcp(AUTH);
    let mut other = rig.door.tcp(AUTH);
    rig.turn_until(0);
    assert_eq!((line(&mut many), line(&mut other)), (ACK.to_owned(), ACK.to_owned()));
    let names: String = (0..40).map(|n| trade(&format!("demo:N{n:02}"))).collect();
    many.get_mut().write_all((names.clone() + "no tick\n").as_bytes()).expect("sent");
    // 16 may wait to be subscribed to when it lists another one.
    rig.turn_until(17);
    rig.turn_in_vain();
    assert_eq!(rig.held(), 1);
    let published = rig.view.published.get();
    // Of itself nothing is taken meanwhile, however often it sends; another's ticks are.
    for _ in 0..200 {
        many.get_mut().write_all(trade("demo:N00").as_bytes()).expect("sent");
        std::thread::sleep(Duration::from_micros(100));
    }
    let reader = std::thread::spawn(move || faults(&mut many));
    rig.turn_in_vain();
    assert_eq!(rig.view.published.get(), published);
    other.get_mut().write_all(trade("demo:OTHER").as_bytes()).expect("sent");
    rig.turn_until(18);
    rig.turn_in_vain();
    assert_eq!(rig.held(), 2, "it has listed one, too");
    while rig.table.len() < 41 {
        let listed = rig.table.len();
        rig.register();
        rig.turn_until(listed + 1);
        rig.turn_in_vain();
    }
    crate::support::eventually("it is told all, and has gone", || {
        rig.ingest.turn(Clock::real().now());
        rig.register();
        reader.is_finished()
    });
    let told = reader.join().expect("told");
    assert_eq!(told.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [42], "{told:?}");
    crate::support::eventually("nobody is held", || {
        rig.ingest.turn(Clock::real().now());
        rig.held() == 0
    });
    // Each trade, and the state of each instrument.
    assert!(rig.view.published.get() >= 40 + 200 + 1 + 41);
    let named = |name: &str| rig.table.find(&Symbol::parse(name).expect("a name")).is_some();
    assert!(named("demo:N39") && named("demo:OTHER"));
}
