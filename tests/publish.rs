//! Publishers over real sockets: the token, the numbering of lines, the way back for faults, and what
//! happens when the ingest thread takes nothing. Here the test is the ingest thread.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tickfan::clock::Clock;
use tickfan::feed::publish::{CHUNKS_MAX, Chunk, Faults, Input, LineFault, Options, Publish};
use tickfan::front::{self, Front, Health, Hooks, PublishRoute, Refused};
use tickfan::protocol::close::Close;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client::client_with_config};

/// Longer than anything takes; only a broken gateway makes a test wait for it.
const PATIENCE: Duration = Duration::from_secs(20);
const AUTH: &str = "{\"op\":\"auth\",\"token\":\"secret\"}\n";
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
            accepts: Arc::new(move |token| asked.accepts(token)),
            hand_over: Arc::new(move |upgraded, authorized| {
                taken
                    .serve_ws(upgraded.stream, upgraded.read_buf, authorized)
                    .map_err(|stream| Refused { stream, why: Close::Limit })
            }),
        }),
        symbols: Arc::new(Vec::new),
        health: Health { feeds: Arc::new(Vec::new), alarms: Arc::new(Vec::new) },
        remote: None,
        rooms: None,
    }
}

fn door(options: Options, chunks_max: usize) -> Door {
    let (sender, input) = mpsc::channel(chunks_max);
    let wake = Arc::new(Notify::new());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let (rung, home) = (Arc::clone(&wake), runtime.handle().clone());
    let publish = Publish::new("secret", options, Clock::real(), sender, rung, home).expect("a token");
    let bind = || runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("bind");
    let (lines, web) = (bind(), bind());
    let (tcp, http) = (lines.local_addr().expect("bound"), web.local_addr().expect("bound"));
    runtime.spawn(Arc::clone(&publish).serve_tcp(lines));
    let front = Front::new(&front::Options::default(), hooks(&publish)).expect("good origins");
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
        "{\"op\":\"auth\",\"token\":\"Secret\"}\n",
        "{\"op\":\"auth\",\"token\":\"secret2\"}\n",
        "{\"op\":\"auth\",\"token\":\"\"}\n",
        "{\"op\":\"ping\",\"token\":\"secret\"}\n",
        "{\"type\":\"trade\"}\n",
        "GET / HTTP/1.1\r\n\r\n",
        &long,
    ] {
        let mut stream = door.tcp(first);
        let told = message(&line(&mut stream));
        assert_eq!((&told["type"], &told["code"]), (&json!("error"), &json!("auth")), "{first:.40}");
        assert!(!told.to_string().contains("secret"), "{told}");
        assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    }
    assert!(door.input.try_recv().is_err());
    assert_eq!(door.publish.stats().auth_refused.load(Ordering::SeqCst), 7);
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
    let mut socket = door.ws(Some("Bearer secret")).expect("upgraded");
    let (_, errors) = door.opened();
    socket.send(Message::text("a\nb")).expect("sent");
    socket.send(Message::text("")).expect("sent");
    socket.send(Message::text("c\n")).expect("sent");
    let big: String = (4..20_004).map(|n| format!("line {n}\n")).collect();
    socket.send(Message::text(big + &"x".repeat(70_000) + "\nlast")).expect("sent");
    let told = message(socket.read().expect("told").to_text().expect("text"));
    assert_eq!((&told["line"], &told["code"]), (&json!(20_004), &json!("bad_tick")));
    errors.tell(LineFault { line: 2, msg: "no".into() });
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["line"], 2);
    drop(errors);
    socket.close(None).expect("closing");
    let lines = door.lines_to_the_end();
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
    let mut socket = door.ws(Some("Bearer secret")).expect("upgraded");
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
    let mut socket = door.ws(Some("Bearer secret")).expect("upgraded");
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
    let mut socket = door.ws(Some("Bearer secret")).expect("upgraded");
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
