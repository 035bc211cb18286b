//! Where the past meets the stream.

use super::*;

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
