//! The public HTTP door, over raw sockets: every request gets its answer, whatever it
//! looks like, and a handshake loses no byte.

#[path = "support/answer.rs"]
mod answer;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use answer::Answer;
use serde_json::{Value, json};
use tickfan::feed::publish::Verdict;
use tickfan::http::{
    FeedHealth, Front, HandOverOnce, Health, Hooks, Hosts, Limits, Options, PublishRoute, Refused, RoomError,
    RoomRoute, Stats, Upgraded,
};
use tickfan::model::instrument::{InstrumentTable, Symbol};
use tickfan::model::tick::{Channel, State};
use tickfan::protocol::close::Close;
use tickfan::protocol::{RoomSpec, Selector, Since};

/// Longer than any answer takes; only a broken gateway makes a test wait for it.
const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[derive(Default)]
struct Switches {
    full: AtomicBool,
    many_captures: AtomicBool,
    stopped_feed: AtomicBool,
    refuse_after: AtomicBool,
}

struct Door {
    addr: SocketAddr,
    switches: Arc<Switches>,
    sessions: mpsc::Receiver<Upgraded>,
    stats: Arc<Stats>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: mpsc::Receiver<()>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// These instruments, of which the first is live.
fn table(names: impl IntoIterator<Item = String>) -> Arc<InstrumentTable> {
    let table = InstrumentTable::new(INSTRUMENTS_MAX);
    for name in names {
        table.intern(&Symbol::parse(&name).expect("good")).expect("room");
    }
    Arc::new(table)
}

/// As many as a gateway has as configured.
const INSTRUMENTS_MAX: usize = 65_536;

fn hooks(switches: &Arc<Switches>, sessions: mpsc::Sender<Upgraded>, publish: bool) -> Hooks {
    let [a, b, c, d] = std::array::from_fn(|_| Arc::clone(switches));
    let publishers = sessions.clone();
    Hooks {
        memory: Arc::default(),
        can_accept: Arc::new(move || !a.full.load(Ordering::SeqCst)),
        hand_over: Arc::new(move |upgraded| {
            if b.refuse_after.load(Ordering::SeqCst) {
                return Err(Refused { stream: upgraded.stream, why: Close::Shutdown });
            }
            sessions.send(upgraded).expect("the test listens");
            Ok(())
        }),
        publish: publish.then(|| PublishRoute {
            accepts: Arc::new(|token, _| if token == b"secret" { Verdict::Right } else { Verdict::Wrong }),
            hand_over: Arc::new(move |upgraded, _| {
                publishers.send(upgraded).expect("the test listens");
                Ok(())
            }),
        }),
        instruments: table(["coinbase:BTC-USD", "kraken:XBT/USD"].map(str::to_owned)),
        state: Arc::new(|id| if id.0 == 0 { State::Live } else { State::Waiting }),
        health: Health {
            feeds: Arc::new(move || {
                let flowing = !c.stopped_feed.load(Ordering::SeqCst);
                vec![FeedHealth { name: "a<b".into(), flowing, detail: "10 frames a second".into() }]
            }),
            alarms: Arc::new(|| vec!["no room".to_owned()]),
            pulses: Arc::default(),
        },
        replay_control: None,
        rooms: Some(RoomRoute {
            enter: Arc::new(|wish, _| Box::pin(enter(wish))),
            captures: Arc::new(move || {
                let many = d.many_captures.load(Ordering::SeqCst);
                let names = (0..if many { CAPTURES } else { 0 }).map(capture);
                let rows: Vec<Value> = names.map(|name| json!({"name": name, "bytes": 7})).collect();
                let listed =
                    if many { json!({"replays": rows, "more": true}) } else { json!({"replays": rows}) };
                Box::pin(async move { Ok(listed) })
            }),
        }),
    }
}

/// How many captures there may be to replay.
const CAPTURES: usize = 8_000;

fn capture(n: usize) -> String {
    format!("{n:0>200}.zst")
}

/// How long a room takes to open.
const OPENS_IN: Duration = Duration::from_millis(400);

/// Opens a room that takes whoever comes, unless its captures are called otherwise.
async fn enter(wish: RoomSpec) -> Result<HandOverOnce, RoomError> {
    tokio::time::sleep(OPENS_IN).await;
    if wish.captures != ["there"] {
        return Err(RoomError::Taken("another room".to_owned()));
    }
    Ok(Box::new(|upgraded| Err(Refused { stream: upgraded.stream, why: Close::RoomEnded })))
}

fn door(change: impl FnOnce(&mut Options), publish: bool) -> Door {
    door_on((Ipv4Addr::LOCALHOST, 0).into(), change, |hooks| {
        hooks.publish = hooks.publish.take().filter(|_| publish);
    })
}

/// A door that listens here, with what leads on from it changed.
fn door_on(listen: SocketAddr, change: impl FnOnce(&mut Options), lead: impl FnOnce(&mut Hooks)) -> Door {
    let mut options = Options::default();
    change(&mut options);
    let switches = Arc::new(Switches::default());
    let (sender, sessions) = mpsc::channel();
    let mut hooks = hooks(&switches, sender, true);
    lead(&mut hooks);
    let front = Front::new(&options, hooks).expect("good origins");
    let stats = front.stats();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind(listen)).expect("bind");
    let addr = listener.local_addr().expect("bound");
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (done, served) = mpsc::channel();
    runtime.spawn(async move {
        front.serve(listener, async move { drop(stopped.await) }).await;
        done.send(()).ok();
    });
    Door { addr, switches, sessions, stats, stop: Some(stop), served, runtime: Some(runtime) }
}

fn plain() -> Door {
    door(|_| {}, false)
}

impl Door {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream
    }

    /// Sends these bytes on a fresh connection and reads one answer.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A peer that answers early may have closed already.
        drop(stream.write_all(bytes));
        Answer::read(&mut stream)
    }

    fn request(&self, line: &str, headers: &str) -> Answer {
        self.raw(format!("{line} HTTP/1.1\r\nHost: localhost:1\r\n{headers}\r\n").as_bytes())
    }
}

fn handshake() -> String {
    handshake_but("", "")
}

/// The headers of a good handshake with one line left out and others put in.
fn handshake_but(without: &str, with: &str) -> String {
    let lines = [
        "Connection: keep-alive, Upgrade".to_owned(),
        "Upgrade: websocket".to_owned(),
        "Sec-WebSocket-Version: 13".to_owned(),
        format!("Sec-WebSocket-Key: {KEY}"),
    ];
    let mut out = String::new();
    for line in lines.iter().filter(|line| without.is_empty() || !line.starts_with(without)) {
        out.push_str(line);
        out.push_str("\r\n");
    }
    out + with
}

#[test]
fn the_plain_routes_answer() {
    let door = plain();
    // Whether or not the trading page is built into this binary.
    let first = door.request("GET /", "");
    assert_eq!(first.status, 200);
    assert!(first.head.contains("content-security-policy: default-src 'none'"));
    assert!(
        !first.head.contains("unsafe") && !first.body.contains("<style") && !first.body.contains(" style=")
    );
    // The page has scripts only from files, and each of its files is there.
    let inline = first.body.split("<script").skip(1).filter(|script| !script.contains(" src=\"/"));
    assert_eq!(inline.count(), 0);
    let files = first.body.split(['"']).filter(|text| text.starts_with("/assets/") || text.ends_with(".svg"));
    for file in files {
        let answer = door.request(&format!("GET {file}"), "");
        assert_eq!(answer.status, 200, "{file}");
        assert!(answer.has("x-content-type-options: nosniff"), "{file}: {}", answer.head);
        // A worker is under the policy that it came with.
        assert!(
            answer.head.contains("content-security-policy: default-src 'none'"),
            "{file}: {}",
            answer.head
        );
    }
    assert_eq!(door.request("GET /assets/..%2Findex.html", "").status, 404);
    let page = door.request("GET /about", "");
    assert_eq!(page.status, 200);
    assert!(page.has("content-type: text/html; charset=utf-8"), "{}", page.head);
    assert!(page.head.contains("content-security-policy: default-src 'none'"));
    assert!(page.body.contains("new WebSocket(") && page.body.contains("Instruments: <b>2</b>"));
    assert!(page.body.contains("a&lt;b") && !page.body.contains("<script"));
    assert_eq!(door.request("GET /style.css", "").status, 200);
    assert_eq!(door.request("GET /healthz", "").status, 200);

    let all = door.request("GET /api/symbols", "");
    assert_eq!(
        all.body,
        r#"{"symbols":[{"symbol":"coinbase:BTC-USD","venue":"coinbase","state":"live"},{"symbol":"kraken:XBT/USD","venue":"kraken","state":"waiting"}]}"#
    );
    let one = door.request("GET /api/symbols?match=coinbase%3A*", "");
    assert!(one.body.contains("coinbase:BTC-USD") && !one.body.contains("kraken"));
    let bad = door.request("GET /api/symbols?match=BTC*", "");
    assert_eq!(bad.status, 400);
    assert!(bad.error().contains("`match`"));
}

#[test]
fn ready_only_while_the_feeds_flow() {
    let door = plain();
    let ready = door.request("GET /readyz", "");
    // An alarm is not a reason to send clients elsewhere.
    assert_eq!(ready.status, 200);
    assert!(ready.body.ends_with(r#","alarms":["no room"]}"#), "{}", ready.body);
    door.switches.stopped_feed.store(true, Ordering::SeqCst);
    let answer = door.request("GET /readyz", "");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains(r#""name":"a<b","flowing":false"#), "{}", answer.body);
}

#[test]
fn head_works_where_get_does() {
    let door = plain();
    for path in ["/", "/healthz", "/readyz", "/api/symbols", "/style.css"] {
        let mut stream = door.connect();
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let answer = Answer::read_of(&mut stream, true);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains("content-length: "), "{path}: {}", answer.head);
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0, "{path}: HEAD has no body");
    }
}

#[test]
fn wrong_methods_and_paths_are_named() {
    let door = plain();
    for path in ["/", "/ws", "/publish", "/api/symbols", "/healthz", "/readyz"] {
        let answer = door.request(&format!("POST {path}"), "");
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.head.contains("allow: get"), "{path}: {}", answer.head);
        assert!(answer.error().contains("GET"));
    }
    let answer = door.request("GET /nothing", "");
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("/nothing"));
    assert_eq!(door.request("OPTIONS *", "").status, 404);
    assert_eq!(door.request("CONNECT localhost:1", "").status, 404);
}

#[test]
fn only_get_opens_a_websocket_whichever_method_is_asked_with() {
    // F27: what one is told, all are.
    let door = door(|_| {}, true);
    for path in ["/ws", "/publish"] {
        for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            for headers in [handshake(), String::new()] {
                let mut stream = door.connect();
                let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
                stream.write_all(head.as_bytes()).expect("sent");
                let answer = Answer::read_of(&mut stream, method == "HEAD");
                assert_eq!(answer.status, 405, "{method} {path}");
                assert!(answer.has("allow: get"), "{method} {path}: {}", answer.head);
                assert!(method == "HEAD" || answer.error().contains("opens with GET"), "{}", answer.body);
            }
        }
    }
    // Where HEAD works, it is among those that do.
    for path in ["/", "/healthz", "/api/symbols", "/api/replay"] {
        let answer = door.request(&format!("DELETE {path}"), "");
        assert!(answer.status == 405 && answer.head.contains("allow: get,head"), "{path}: {}", answer.head);
    }
}

#[test]
fn a_handshake_carries_the_first_frame_along() {
    let door = plain();
    let mut stream = door.connect();
    let frame = b"\x81\x85abcd\x09\x07\x0f\x08\x0e";
    let path = "/ws?symbols=coinbase:BTC-USD,v:A%2BB&symbols=v:C+D&channel=trade";
    let offer =
        "Sec-WebSocket-Protocol: other, tickfan.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", handshake_but("", offer));
    stream.write_all(&[head.as_bytes(), frame].concat()).expect("sent");
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 101);
    assert!(answer.has("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{}", answer.head);
    assert!(answer.has("connection: upgrade") && answer.has("upgrade: websocket"));
    assert!(answer.has("sec-websocket-protocol: tickfan.v1"));
    assert!(!answer.head.contains("extensions"));

    let mut upgraded = door.sessions.recv_timeout(PATIENCE).expect("handed over");
    assert_eq!(upgraded.read_buf, frame);
    assert_eq!(upgraded.peer, stream.local_addr().expect("bound"));
    let subscribe = upgraded.subscribe.expect("a subscription");
    assert_eq!(subscribe.symbols, ["coinbase:BTC-USD", "v:A+B", "v:C D"].map(Selector::parse));
    assert_eq!(subscribe.channels, [Channel::Trade]);

    // The socket itself came too, and works both ways.
    upgraded.stream.set_nonblocking(false).expect("blocking");
    stream.write_all(b"more").expect("sent");
    let mut more = [0; 4];
    upgraded.stream.read_exact(&mut more).expect("received");
    upgraded.stream.write_all(&more).expect("sent");
    stream.read_exact(&mut more).expect("received");
    assert_eq!(&more, b"more");
}

#[test]
fn a_handshake_without_extras_is_answered_without_them() {
    let door = plain();
    let answer = door.request("GET /ws", &handshake());
    assert_eq!(answer.status, 101);
    assert!(!answer.head.contains("sec-websocket-protocol"));
    let upgraded = door.sessions.recv_timeout(PATIENCE).expect("handed over");
    assert_eq!((upgraded.read_buf.len(), upgraded.subscribe), (0, None));
}

#[test]
fn a_time_with_an_offset_may_stand_in_the_address_as_it_is() {
    // F12: as Python's `isoformat()` writes it, with its `+` escaped or not.
    let door = plain();
    for from in ["2026-05-28T20:26:40+00:00", "2026-05-28T20:26:40%2B00:00", "2026-05-28T13:26:40-07:00"] {
        let answer = door.request(&format!("GET /ws?symbols=*&mode=every&from={from}"), &handshake());
        assert_eq!(answer.status, 101, "{from}");
        let subscribe = door.sessions.recv_timeout(PATIENCE).expect("handed over").subscribe;
        let expected = Since::At(1_780_000_000_000_000_000);
        assert_eq!(subscribe.expect("a subscription").from, Some(expected), "{from}");
    }
    let answer = door.request("GET /ws?symbols=*&mode=every&from=2026-05-28T20:26:40+24:00", &handshake());
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("`from`: \"2026-05-28T20:26:40 24:00\": not a time"), "{}", answer.body);
}

#[test]
fn a_subprotocol_is_answered_only_as_it_was_offered() {
    let door = door(|_| {}, true);
    for (lines, is_answered) in [
        (&[][..], false),
        (&["tickfan.v1"], true),
        (&["other, tickfan.v1"], true),
        (&["tickfan.v1,other,third"], true),
        (&["other ,\t tickfan.v1 "], true),
        (&["other", "tickfan.v1"], true),
        (&["other, third", "fourth,tickfan.v1"], true),
        (&["Tickfan.V1, tickfan.v1"], true),
        (&["tickfan.v1, tickfan.v1"], true),
        // Whoever compares the answer with its offer, as browsers do, would give up.
        (&["TICKFAN.V1"], false),
        (&["Tickfan.v1"], false),
        (&["tickfan.v2"], false),
        (&["tickfan.v1.1", "atickfan.v1", "tickfan.v1 other"], false),
        (&["\"tickfan.v1\""], false),
        (&["", ","], false),
        (&["graphql-ws", "mqtt"], false),
        (&["\u{fc}"], false),
    ] {
        for path in ["/ws", "/publish"] {
            let lines: String =
                lines.iter().map(|line| format!("Sec-WebSocket-Protocol: {line}\r\n")).collect();
            let answer = door.request(&format!("GET {path}"), &handshake_but("", &lines));
            assert_eq!(answer.status, 101, "{path} {lines}");
            let answered: Vec<&str> =
                answer.head.lines().filter(|line| line.starts_with("sec-websocket-protocol")).collect();
            let expected: &[&str] = if is_answered { &["sec-websocket-protocol: tickfan.v1"] } else { &[] };
            assert_eq!(answered, expected, "{path} {lines}");
        }
    }
}

#[test]
fn parameters_that_make_no_sense_are_named() {
    let door = plain();
    for (path, name) in [
        ("/ws?symbols=*&mode=every&mode=latest", "`mode` is given twice"),
        ("/ws?symbols=*&mode=every&m%6Fde=every", "`mode` is given twice"),
        ("/ws?room=a&room=a", "`room` is given twice"),
        ("/ws?symbol=*", "\"symbol\" is no parameter"),
        ("/ws?symbols=*&depth=20", "\"depth\" is no parameter"),
        ("/ws?symbols=*&=", "\"\" is no parameter"),
        ("/ws?SYMBOLS=*", "\"SYMBOLS\" is no parameter"),
        ("/api/symbols?match=*&match=coinbase:*", "`match` is given twice"),
        ("/api/replays?after=a&after=b", "`after` is given twice"),
    ] {
        let answer = door.request(&format!("GET {path}"), &handshake());
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.error().contains(name), "{path}: {}", answer.body);
    }
    let answer = door.request("GET /ws?channel=quote&symbols=a:B&&channel=trade&symbols=c:D&", &handshake());
    assert_eq!(answer.status, 101, "{}", answer.body);
    let subscribe = door.sessions.recv_timeout(PATIENCE).expect("handed over").subscribe.expect("symbols");
    assert_eq!(
        (subscribe.symbols, subscribe.channels),
        (["a:B", "c:D"].map(Selector::parse).to_vec(), Channel::ALL.to_vec())
    );
    // Elsewhere a parameter more does no harm: it says nothing of what is asked for.
    assert_eq!(door.request("GET /api/symbols?_=1", "").status, 200);
}

#[test]
fn a_handshake_works_on_a_connection_that_asked_before() {
    let door = plain();
    let mut stream = door.connect();
    let first = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(first.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 200);
    let both = format!("{first}GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\nxyz", handshake());
    stream.write_all(both.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 200);
    assert_eq!(Answer::read(&mut stream).status, 101);
    assert_eq!(door.sessions.recv_timeout(PATIENCE).expect("handed over").read_buf, b"xyz");
}

#[test]
fn bad_handshakes_are_told_what_is_wrong() {
    let door = plain();
    for headers in [String::new(), handshake_but("Connection", ""), handshake_but("Upgrade", "")] {
        let answer = door.request("GET /ws", &headers);
        assert_eq!(answer.status, 426, "{headers}");
        assert!(answer.has("upgrade: websocket") && answer.has("connection: upgrade"), "{}", answer.head);
        assert!(answer.error().contains("Upgrade"));
    }
    for version in ["", "Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 8, 13\r\n"] {
        let answer = door.request("GET /ws", &handshake_but("Sec-WebSocket-Version", version));
        assert_eq!(answer.status, 426, "{version}");
        assert!(answer.has("sec-websocket-version: 13"));
    }
    let twice = format!("Sec-WebSocket-Key: {KEY}\r\n");
    for (without, with) in [
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: short\r\n"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: !GhlIHNhbXBsZSBub25jZQ==\r\n"),
        ("-", twice.as_str()),
    ] {
        let answer = door.request("GET /ws", &handshake_but(without, with));
        assert_eq!(answer.status, 400, "{with}");
        assert!(answer.error().contains("`Sec-WebSocket-Key`"));
    }
    let old = format!("GET /ws HTTP/1.0\r\nHost: localhost\r\n{}\r\n", handshake());
    assert_eq!(door.raw(old.as_bytes()).status, 426);
    let answer = door.request("GET /ws?channel=book", &handshake());
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("`channel`"));
    assert!(door.sessions.try_recv().is_err(), "nothing was handed over");
}

#[test]
fn no_room_for_a_session_is_said_before_or_after_the_101() {
    let door = plain();
    door.switches.refuse_after.store(true, Ordering::SeqCst);
    let mut stream = door.connect();
    let head = format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\n", handshake());
    stream.write_all(head.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 101);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("closed");
    assert_eq!(rest, b"\x88\x0a\x0f\xa1shutdown");

    door.switches.full.store(true, Ordering::SeqCst);
    let answer = door.request("GET /ws", &handshake());
    assert_eq!(answer.status, 503);
    assert!(answer.has("retry-after: 1"));
}

#[test]
fn foreign_web_pages_are_kept_out() {
    let door = door(|_| {}, true);
    for path in ["/ws", "/publish", "/api/symbols"] {
        let ask = |origin: &str| {
            door.request(&format!("GET {path}"), &handshake_but("", &format!("Origin: {origin}\r\n"))).status
        };
        assert_eq!(ask("https://evil.example"), 403, "{path}");
        assert_eq!(ask("null"), 403, "{path}");
        let good = if path == "/api/symbols" { 200 } else { 101 };
        assert_eq!(ask("http://localhost:1"), good, "{path}: its own page");
        assert_eq!(ask("http://localhost:5173"), good, "{path}: a page of this machine");
    }
    let answer = door.request("GET /api/symbols", "Origin: http://localhost:5173\r\n");
    assert!(answer.has("access-control-allow-origin: http://localhost:5173"));
}

/// The status of a handshake whose request names this host and comes from a page of this origin.
fn opened(door: &Door, host: &str, origin: &str) -> u16 {
    let headers = handshake_but("", &format!("Origin: {origin}\r\n"));
    door.raw(format!("GET /ws HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").as_bytes()).status
}

#[test]
fn a_page_is_the_gateways_own_only_under_a_name_that_is_the_gateways() {
    let only_self = |hosts: &[&str]| {
        let hosts = Hosts::new(&hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>());
        let hosts = hosts.expect("good hosts");
        door(|options| (options.allowed_origins, options.hosts) = (vec!["self".to_owned()], hosts), false)
    };
    let (plain, named) = (only_self(&[]), only_self(&["desk.example", "ops.example:8443"]));
    for (host, origin, without, with) in [
        ("localhost:8080", "http://localhost:8080", 101, 101),
        ("127.9.0.1:8080", "https://127.9.0.1:8080", 101, 101),
        ("[::1]:8080", "http://[::1]:8080", 101, 101),
        ("localhost:8080", "http://localhost:8081", 403, 403),
        ("localhost:8080", "http://127.0.0.1:8080", 403, 403),
        ("localhost:8080", "x://localhost:8080", 403, 403),
        ("localhost:8080", "ftp://localhost:8080", 403, 403),
        ("localhost:8080", "null", 403, 403),
        ("desk.example", "https://desk.example", 421, 101),
        ("Desk.Example:8080", "http://desk.example:8080", 421, 101),
        ("desk.example", "x://desk.example", 421, 403),
        ("desk.example", "https://ops.example:8443", 421, 403),
        ("ops.example:8443", "https://ops.example:8443", 421, 101),
        ("ops.example", "https://ops.example", 421, 421),
        ("evil.example:8080", "http://evil.example:8080", 421, 421),
    ] {
        assert_eq!(opened(&plain, host, origin), without, "{host} {origin}");
        assert_eq!(opened(&named, host, origin), with, "{host} {origin}, with names");
    }
}

#[test]
fn what_is_asked_of_another_host_is_misdirected_whatever_it_is() {
    let door = door(|options| options.allowed_origins = vec!["*".to_owned()], true);
    for path in
        ["/", "/about", "/ws", "/publish", "/api/symbols", "/api/replay", "/api/replays", "/healthz", "/none"]
    {
        for method in ["GET", "POST", "OPTIONS", "DELETE"] {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: evil.example:8080\r\n{}\r\n", handshake());
            let answer = door.raw(head.as_bytes());
            assert_eq!(answer.status, 421, "{method} {path}");
            assert!(answer.has("content-type: application/json"), "{}", answer.head);
            assert!(
                answer.error().contains("\"evil.example:8080\"") && answer.error().contains("[server] hosts")
            );
            assert!(!answer.head.contains("access-control"), "{}", answer.head);
        }
    }
    for (what, head, status) in [
        ("a target of another host", "GET http://evil.example/ws HTTP/1.1\r\nHost: localhost", 421),
        ("a header of another host", "GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example", 421),
        ("both are its own", "GET http://localhost/healthz HTTP/1.1\r\nHost: localhost", 200),
        ("none, in HTTP/1.1", "GET /healthz HTTP/1.1\r\nX: y", 400),
        ("none, in HTTP/1.0", "GET /healthz HTTP/1.0\r\nX: y", 421),
        ("one, in HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: localhost", 200),
        ("two, in HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: localhost\r\nHost: localhost", 400),
        ("nothing", "GET /healthz HTTP/1.1\r\nHost:", 421),
        ("with a user", "GET /healthz HTTP/1.1\r\nHost: me@localhost", 421),
        ("not of ASCII", "GET /healthz HTTP/1.1\r\nHost: \u{217}ocalhost", 421),
        ("long", &format!("GET /healthz HTTP/1.1\r\nHost: {}", "x".repeat(9_000)), 421),
    ] {
        let answer = door.raw(format!("{head}\r\n\r\n").as_bytes());
        assert_eq!(answer.status, status, "{what}");
        assert!(
            status == 200 || (!answer.error().is_empty() && answer.body.len() < 300),
            "{what}: {}",
            answer.body
        );
    }
    // The connection is as good as it was.
    let mut stream = door.connect();
    for (host, status) in [("evil.example", 421), ("localhost", 200)] {
        stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).expect("sent");
        assert_eq!(Answer::read(&mut stream).status, status);
    }
}

#[test]
fn a_listener_of_all_addresses_is_called_by_the_one_that_is_reached() {
    let door = door_on((Ipv4Addr::UNSPECIFIED, 0).into(), |_| {}, |_| {});
    let port = door.addr.port();
    let ask = |at: [u8; 4], host: &str| {
        let mut stream = TcpStream::connect((Ipv4Addr::from(at), port)).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).expect("sent");
        Answer::read(&mut stream).status
    };
    for (host, status) in [
        ("127.0.0.1", 200),
        ("0.0.0.0:8080", 200),
        ("localhost:1", 200),
        ("192.0.2.1", 421),
        ("[::]", 421),
        ("evil.example", 421),
    ] {
        assert_eq!(ask([127, 0, 0, 1], host), status, "{host}");
    }
}

#[test]
fn a_page_that_may_ask_may_send_json_and_others_hear_nothing() {
    let door = plain();
    let preflight = |origin: &str| {
        let headers = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n"
        );
        door.request("OPTIONS /api/replay", &headers)
    };
    let answer = preflight("http://localhost:5173");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    for line in [
        "access-control-allow-origin: http://localhost:5173",
        "access-control-allow-methods: get, post",
        "access-control-allow-headers: authorization, content-type",
    ] {
        assert!(answer.has(line), "{line}: {}", answer.head);
    }
    for foreign in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let answer = preflight(foreign);
        assert!(
            answer.status == 403 && !answer.head.contains("access-control"),
            "{foreign}: {}",
            answer.head
        );
    }
    // Where there is no replay, too: what is wrong with the request comes first.
    for (headers, status) in [
        ("Content-Length: 0\r\n", 415),
        ("Content-Length: 2\r\nContent-Type: text/plain\r\n", 415),
        ("Content-Length: 2\r\nContent-Type: application/json\r\n", 404),
        ("Content-Length: 2\r\nContent-Type: text/plain\r\nOrigin: https://evil.example\r\n", 403),
    ] {
        let answer =
            door.raw(format!("POST /api/replay HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{{}}").as_bytes());
        assert_eq!(answer.status, status, "{headers}: {}", answer.body);
    }
}

#[test]
fn a_long_list_of_symbols_comes_in_pages_each_as_long_as_it_may_be() {
    // As long as they may be, one in three of another venue.
    let name = |n: usize| {
        let venue = if n.is_multiple_of(3) { "b".repeat(32) } else { "a".repeat(32) };
        format!("{venue}:{n:0>64}")
    };
    let names: Vec<String> = (0..INSTRUMENTS_MAX).map(name).collect();
    let table = table(names.iter().cloned());
    let door = door_on((Ipv4Addr::LOCALHOST, 0).into(), |_| {}, |hooks| hooks.instruments = table);
    let page = |query: &str| {
        let answer = door.request(&format!("GET /api/symbols{query}"), "");
        assert!(answer.status == 200 && answer.body.len() < 300_000, "{query}: {}", answer.body.len());
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        let rows = body["symbols"].as_array().expect("rows");
        let rows: Vec<String> =
            rows.iter().map(|row| row["symbol"].as_str().expect("a name").to_owned()).collect();
        let next = body["next"].as_str().map(str::to_owned);
        assert_eq!(
            (body["more"] == true, answer.head.contains("rel=\"next\"")),
            (next.is_some(), next.is_some())
        );
        (rows, next)
    };
    let all = |query: &str, most: usize| {
        let and = if query.is_empty() { '?' } else { '&' };
        let (mut found, mut next, mut pages) = (Vec::new(), Some(String::new()), 0);
        while let Some(after) = next {
            let (rows, behind) = page(&format!("{query}{after}"));
            assert!(rows.len() == most || behind.is_none(), "{query}{after}: {} rows", rows.len());
            found.extend(rows);
            next = behind.map(|last| format!("{and}after={last}"));
            pages += 1;
        }
        (found, pages)
    };
    assert_eq!(all("", 1_000), (names.clone(), 66));
    let of_b: Vec<String> = names.iter().filter(|name| name.starts_with('b')).cloned().collect();
    let pages = of_b.len().div_ceil(999);
    assert_eq!(all(&format!("?limit=999&match={}:*", "b".repeat(32)), 999), (of_b, pages));
    let last = names.last().expect("some");
    assert_eq!(page(&format!("?match={last}")), (vec![last.clone()], None));
    assert_eq!(page(&format!("?match={last}&after={last}")), (vec![], None));
    assert_eq!(
        page(&format!("?limit=1&after={}", names[7])),
        (vec![names[8].clone()], Some(names[8].clone()))
    );
    for (query, word) in [
        ("?limit=0", "`limit`"),
        ("?limit=1001", "1000"),
        ("?limit=x", "`limit`"),
        ("?after=a:NONE", "`after`"),
        ("?after=x", "`after`"),
    ] {
        let answer = door.request(&format!("GET /api/symbols{query}"), "");
        assert!(answer.status == 400 && answer.error().contains(word), "{query}: {}", answer.body);
    }
}

#[test]
fn origins_are_checked_when_configured() {
    let (sender, _sessions) = mpsc::channel();
    let options = Options { allowed_origins: vec!["desk".into()], ..Options::default() };
    let error = Front::new(&options, hooks(&Arc::default(), sender, false)).expect_err("no origin");
    assert!(error.to_string().contains("\"desk\""));
}

#[test]
fn publishing_needs_its_token() {
    let off = plain().request("GET /publish", &handshake());
    assert_eq!(off.status, 404);
    assert!(off.error().contains("publishing is off"));

    let door = door(|_| {}, true);
    let with = |header: &str| door.request("GET /publish", &handshake_but("", header));
    for wrong in ["Bearer wrong", "Bearer", "Basic secret", "secret"] {
        let answer = with(&format!("Authorization: {wrong}\r\n"));
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(answer.has("www-authenticate: bearer"));
    }
    assert_eq!(with("Authorization: bearer secret\r\n").status, 101);
    assert_eq!(with("").status, 101, "the token may come as the first message");
}

#[test]
fn malformed_heads_get_an_answer() {
    let door = plain();
    let long = "x".repeat(20_000);
    let many: String = (0..101).map(|n| format!("h{n}: x\r\n")).collect();
    for (what, bytes, status) in [
        ("garbage", "\u{1}\u{2}\u{3} garbage\r\n\r\n".to_owned(), 400),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}".to_owned(), 400),
        ("bad version", "GET / HTTP/3.7\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("bad header", "GET / HTTP/1.1\r\nHost h\r\n\r\n".to_owned(), 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("long target", format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 431),
        ("long header", format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {long}\r\n\r\n"), 431),
        ("endless header", format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {}", "x".repeat(200_000)), 431),
        ("many headers", format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), 431),
    ] {
        let answer = door.raw(bytes.as_bytes());
        assert_eq!(answer.status, status, "{what}");
        assert!(answer.has("content-type: application/json"), "{what}: {}", answer.head);
        let words: &[&str] = if status == 431 { &["16384 bytes", "100 lines"] } else { &[""] };
        assert!(words.iter().all(|word| answer.error().contains(word)), "{what}: {}", answer.body);
    }
    // F26: more symbols than an address has room for.
    let symbols: Vec<String> = (0..1_000).map(|n| format!("demo:{n:064}")).collect();
    let answer = door.request(&format!("GET /ws?symbols={}", symbols.join(",")), &handshake());
    assert_eq!(answer.status, 431);
    assert!(answer.error().contains("16384 bytes") && answer.error().contains("messages"), "{}", answer.body);
    // On a connection that was good before, too.
    let mut stream = door.connect();
    let asked = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 200);
    let answer = Answer::read(&mut stream);
    assert!(answer.status == 431 && answer.error().contains("16384 bytes"), "{}", answer.body);
    assert_eq!(stream.read(&mut [0]).expect("closed"), 0, "nothing comes behind it");
    let good: String = (0..98).map(|n| format!("h{n}: x\r\n")).collect();
    assert_eq!(door.request("GET /healthz", &good).status, 200, "a hundred headers are fine");
}

#[test]
fn a_head_that_breaks_off_gets_an_answer() {
    let door = plain();
    let mut stream = door.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHo").expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(Answer::read(&mut stream).status, 400);
}

#[test]
fn bodies_are_bounded() {
    let door = plain();
    let short = door.request("GET /healthz", "Content-Length: 0\r\n");
    assert_eq!(short.status, 200);
    for header in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut stream = door.connect();
        let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        stream.write_all(&[head.as_bytes(), &[b'x'; 50_000]].concat()).expect("sent");
        let answer = Answer::read(&mut stream);
        assert_eq!(answer.status, 413, "{header}");
        assert!(answer.has("connection: close"));
    }
}

#[test]
fn a_room_that_opens_slowly_is_no_slow_head() {
    let limits = Limits { head_timeout_ms: OPENS_IN.as_millis() as u64 / 4, ..Limits::default() };
    let door = door(|options| options.limits = limits, false);
    let mut stream = door.connect();
    let ask =
        |name: &str| format!("GET /ws?replay={name} HTTP/1.1\r\nHost: localhost:1\r\n{}\r\n", handshake());
    stream.write_all(ask("gone").as_bytes()).expect("sent");
    let answer = Answer::read(&mut stream);
    assert_eq!((answer.status, answer.error().as_str()), (409, "another room"));
    // The same connection may try again.
    stream.write_all(ask("there").as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 101);
    let mut close = Vec::new();
    stream.read_to_end(&mut close).expect("closed");
    assert_eq!(close.get(2..4), Some(&4503_u16.to_be_bytes()[..]), "{close:?}");
    assert_eq!(door.stats.timeouts.load(Ordering::SeqCst), 0);
    let listed = door.request("GET /api/replays", "");
    assert_eq!((listed.status, listed.body.as_str()), (200, r#"{"replays":[]}"#));
    assert_eq!(door.request("GET /api/replays", "Origin: https://evil.example\r\n").status, 403);
}

#[test]
fn a_long_list_of_captures_comes_in_parts() {
    let door = plain();
    door.switches.many_captures.store(true, Ordering::SeqCst);
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let answer = door.request(&format!("GET /api/replays{after}"), "");
        assert!(answer.status == 200 && answer.body.len() < 300_000, "{} bytes", answer.body.len());
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(body["more"], true, "the folder itself has more");
        let page = body["replays"].as_array().expect("rows");
        assert!(page.len() <= 1_000, "{} rows", page.len());
        found.extend(page.iter().map(|row| row["name"].as_str().expect("a name").to_owned()));
        let Some(next) = body["next"].as_str() else { break };
        assert_eq!(found.last().map(String::as_str), Some(next));
        after = format!("?after={next}");
    }
    assert!(found.iter().eq((0..CAPTURES).map(capture).collect::<Vec<_>>().iter()), "{}", found.len());
}

#[test]
fn a_half_sent_head_gets_408_and_silence_gets_silence() {
    let limits = Limits { head_timeout_ms: 200, idle_timeout_ms: 600, ..Limits::default() };
    let door = door(|options| options.limits = limits, false);
    let mut stream = door.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHo").expect("sent");
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 408);
    assert!(answer.error().contains("too long"));
    assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    assert_eq!(door.stats.timeouts.load(Ordering::SeqCst), 1);

    // Also for the second request, which begins in the packet of the first.
    let mut stream = door.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he").expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 200);
    assert_eq!(Answer::read(&mut stream).status, 408);

    for before in ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut stream = door.connect();
        stream.write_all(before.as_bytes()).expect("sent");
        if !before.is_empty() {
            assert_eq!(Answer::read(&mut stream).status, 200);
        }
        assert_eq!(stream.read(&mut [0]).expect("closed"), 0, "idle connections end without a word");
    }
}

#[test]
fn connections_over_the_limit_get_503() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let door = door(|options| options.limits = limits, false);
    let mut first = door.connect();
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    assert_eq!(Answer::read(&mut first).status, 200);
    let answer = door.request("GET /healthz", "");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("too many"));
    // A session does not count: its socket has left.
    let head = format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\n", handshake());
    first.write_all(head.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut first).status, 101);
    door.sessions.recv_timeout(PATIENCE).expect("handed over");
    let admitted = (0..10_000).any(|_| door.request("GET /healthz", "").status == 200);
    assert!(admitted, "there is room again");
    assert!(door.stats.refused_full.load(Ordering::SeqCst) >= 1);
}

#[test]
fn shutdown_ends_idle_connections_and_the_listener() {
    let mut door = plain();
    let mut idle = door.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut fresh = door.connect();
    door.stop.take().expect("once").send(()).expect("serving");
    assert_eq!(idle.read(&mut [0]).expect("closed"), 0);
    // Accepted and closed, or never accepted and reset: ended in any case.
    assert!(matches!(fresh.read(&mut [0]), Ok(0) | Err(_)));
    door.served.recv_timeout(PATIENCE).expect("serve returns");
    assert!(TcpStream::connect(door.addr).is_err());
}
