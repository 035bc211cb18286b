//! What clients ask for, and what they are answered: the real gateway, with a market that moves only when a test says so.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::support::{FIN, Gateway, PING, PONG, RawSocket, TOKEN, connect};
use serde_json::{Value, json};

/// A gateway without feeds, a publisher, and somebody who sees all that is published.
struct Sequencer {
    gateway: Gateway,
    publisher: TcpStream,
    watcher: Client,
}

impl Sequencer {
    fn open(settings: &[&str]) -> Self {
        Self::of(r#"["demo", "other"]"#, settings)
    }

    /// One for these venues.
    fn of(venues: &str, settings: &[&str]) -> Self {
        // One shard: what the watcher was told, everybody was.
        let settings = [&["shard.threads=1", "limits.ops_per_s=10000"], settings].concat();
        let gateway = Gateway::publishing(venues, &settings);
        let mut publisher = connect(gateway.publish.expect("an address"));
        writeln!(publisher, "{}", json!({"op": "auth", "token": TOKEN})).expect("sent");
        let mut answer = String::new();
        let mut reader = BufReader::new(publisher.try_clone().expect("a handle"));
        reader.read_line(&mut answer).expect("an answer");
        assert!(answer.contains("ack"), "{answer}");
        let mut watcher = Client::of(RawSocket::open(&gateway, ""));
        watcher.ask(
            &json!({"op": "subscribe", "channel": ["trade", "quote"], "symbols": ["*"], "mode": "every"}),
        );
        Self { gateway, publisher, watcher }
    }

    /// One trade of each of these symbols, or, where it begins with `quote `, a quote. Everybody has been told when it returns.
    fn moves(&mut self, symbols: &[&str]) {
        for symbol in symbols {
            let line = match symbol.strip_prefix("quote ") {
                Some(symbol) => json!({"type": "quote", "symbol": symbol, "bid": "1", "ask": "2"}),
                None => json!({"type": "trade", "symbol": symbol, "price": "1.25", "size": "3"}),
            };
            writeln!(self.publisher, "{line}").expect("sent");
        }
        for _ in symbols {
            while !is_tick(&self.watcher.socket.word()) {}
        }
    }

    fn client(&self, query: &str) -> Client {
        Client::of(RawSocket::open(&self.gateway, query))
    }
}

fn is_tick(message: &Value) -> bool {
    message["type"] == "trade" || message["type"] == "quote"
}

struct Client {
    socket: RawSocket,
    /// What came that is no answer.
    data: Vec<Value>,
    asked: u64,
}

impl Client {
    fn of(socket: RawSocket) -> Self {
        Self { socket, data: Vec::new(), asked: 0 }
    }

    /// The answer to a request. No message is longer than Python's `websockets` takes by itself.
    fn ask(&mut self, request: &Value) -> Value {
        self.asked += 1;
        let mut request = request.clone();
        request["id"] = self.asked.into();
        self.socket.text(&request.to_string());
        loop {
            let (opcode, payload) = self.socket.frame();
            if opcode == PING {
                self.socket.send(FIN | PONG, &payload);
                continue;
            }
            assert!(payload.len() < 1 << 20, "{} bytes", payload.len());
            let message: Value = serde_json::from_slice(&payload).expect("JSON");
            if message["id"] == self.asked {
                return message;
            }
            if message["type"] != "hb" {
                self.data.push(message);
            }
        }
    }

    /// The rows of all answers to a request: each begins behind the last row of the one before it.
    fn pages(&mut self, request: &Value, field: &str) -> (usize, Vec<String>) {
        let (mut pages, mut rows) = (0, Vec::new());
        let mut request = request.clone();
        loop {
            let answer = self.ask(&request);
            let page = answer[field].as_array().unwrap_or_else(|| panic!("{answer}"));
            pages += 1;
            rows.extend(page.iter().map(row));
            if answer["more"] != true {
                assert_eq!(answer["more"], Value::Null);
                return (pages, rows);
            }
            request["after"] = page.last().expect("it goes on")["symbol"].clone();
        }
    }

    /// The same for an `ack` that rejects nothing: the symbols and channels of its rows, or the symbols alone.
    #[track_caller]
    fn rows(&mut self, request: &Value) -> Vec<String> {
        let answer = self.ask(request);
        assert_eq!((&answer["type"], &answer["rejected"]), (&json!("ack"), &json!([])), "{answer}");
        answer["ok"].as_array().expect("rows").iter().map(row).collect()
    }

    fn subscribe(&mut self, channel: &Value, symbols: &[&str], terms: &Value) -> Vec<String> {
        let mut request = json!({"op": "subscribe", "channel": channel, "symbols": symbols});
        for (key, value) in terms.as_object().into_iter().flatten() {
            request[key] = value.clone();
        }
        self.rows(&request)
    }

    fn unsubscribe(&mut self, symbols: &[&str]) -> Vec<String> {
        self.rows(&json!({"op": "unsubscribe", "symbols": symbols}))
    }

    /// What has come since it was last asked, without answers and states.
    fn ticks(&mut self) -> Vec<String> {
        self.ask(&json!({"op": "ping"}));
        let data = std::mem::take(&mut self.data);
        let ticks = data.iter().filter(|message| message["type"] != "status");
        let shown = |m: &Value| {
            let snap = if m["snap"] == true { " snap" } else { "" };
            format!("{} {} {}{snap}", word(&m["type"]), word(&m["symbol"]), m["seq"])
        };
        ticks.map(shown).collect()
    }

    /// What it is subscribed to, with its terms: `demo:A trade every`.
    fn list(&mut self) -> Vec<String> {
        let answer = self.ask(&json!({"op": "list"}));
        let rows = answer["subscriptions"].as_array().expect("rows").iter();
        rows.map(|row_of| {
            let rate = row_of["max_hz"].as_u64().map(|hz| format!(" {hz}")).unwrap_or_default();
            format!("{} {}{rate}", row(row_of), word(&row_of["mode"]))
        })
        .collect()
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn row(row: &Value) -> String {
    format!("{} {}", word(&row["symbol"]), word(&row["channel"])).trim_end().to_owned()
}

#[test]
fn a_name_stays_when_a_wildcard_goes() {
    // F24, in both orders.
    for wishes in [["demo:A", "*"], ["*", "demo:A"]] {
        let mut sequencer = Sequencer::open(&[]);
        sequencer.moves(&["demo:A", "demo:B", "other:A"]);
        let mut client = sequencer.client("");
        for symbol in wishes {
            assert_eq!(client.subscribe(&json!("trade"), &[symbol], &json!({})), [format!("{symbol} trade")]);
        }
        let mut snaps = client.ticks();
        snaps.sort();
        let expected = ["demo:A", "demo:B", "other:A"].map(|symbol| format!("trade {symbol} 1 snap"));
        assert_eq!(snaps, expected, "one snapshot each");
        sequencer.moves(&["demo:A", "demo:B", "other:A"]);
        assert_eq!(client.ticks().len(), 3);
        assert_eq!(client.unsubscribe(&["*"]), ["*"]);
        sequencer.moves(&["demo:B", "other:A", "demo:A"]);
        assert_eq!(client.ticks(), ["trade demo:A 3"], "no hole, no second snapshot");
        assert_eq!(client.list(), ["demo:A trade every"]);
        // What is listed from now on is nobody's.
        sequencer.moves(&["demo:NEW"]);
        assert_eq!(client.ticks(), [""; 0]);
        assert_eq!(client.unsubscribe(&["demo:A"]), ["demo:A"]);
        assert_eq!(client.list(), [""; 0]);
    }
}

#[test]
fn the_wildcard_of_a_venue_stays_when_the_one_of_all_goes() {
    for wishes in [["demo:*", "*", "demo:A"], ["*", "demo:A", "demo:*"]] {
        let mut sequencer = Sequencer::open(&[]);
        sequencer.moves(&["demo:A", "demo:B", "other:A"]);
        let mut client = sequencer.client("");
        for symbol in wishes {
            client.subscribe(&json!("trade"), &[symbol], &json!({"snapshot": false}));
        }
        client.unsubscribe(&["*"]);
        assert_eq!(client.list(), ["demo:* trade every", "demo:A trade every", "demo:B trade every"]);
        // Of what is listed later, it takes its own.
        sequencer.moves(&["demo:A", "other:A", "demo:B", "other:NEW", "demo:NEW"]);
        assert_eq!(client.ticks(), ["trade demo:A 2", "trade demo:B 2", "trade demo:NEW 1"]);
        client.unsubscribe(&["demo:*"]);
        assert_eq!(client.list(), ["demo:A trade every"]);
        sequencer.moves(&["demo:A", "demo:B"]);
        assert_eq!(client.ticks(), ["trade demo:A 3"]);
    }
}

#[test]
fn each_channel_counts_for_itself() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["demo:A", "quote demo:A", "quote demo:B"]);
    let mut client = sequencer.client("");
    client.subscribe(&json!("trade"), &["demo:A"], &json!({"snapshot": false}));
    client.subscribe(&json!(["trade", "quote"]), &["*"], &json!({"snapshot": false, "mode": "every"}));
    client.rows(&json!({"op": "unsubscribe", "channel": "trade", "symbols": ["*"]}));
    sequencer.moves(&["demo:A", "demo:B", "quote demo:A", "quote demo:B"]);
    assert_eq!(client.ticks(), ["trade demo:A 2", "quote demo:A 2", "quote demo:B 2"]);
    client.unsubscribe(&["*"]);
    sequencer.moves(&["demo:A", "quote demo:A", "quote demo:B"]);
    assert_eq!(client.ticks(), ["trade demo:A 3"]);
    assert_eq!(client.list(), ["demo:A trade every"]);
}

#[test]
fn unsubscribing_from_nothing_by_name_ends_everything() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["demo:A", "demo:B"]);
    let mut client = sequencer.client("");
    client.subscribe(&json!("trade"), &["demo:A", "demo:LATER", "demo:*", "*"], &json!({"snapshot": false}));
    let answer = client.ask(&json!({"op": "unsubscribe"}));
    assert_eq!(answer["ok"], json!([{"symbol": "*"}]), "{answer}");
    assert_eq!(answer["all"], true, "it can be told from `*`: {answer}");
    assert_eq!(client.list(), [""; 0]);
    sequencer.moves(&["demo:A", "demo:LATER", "demo:B"]);
    assert_eq!(client.ticks(), [""; 0]);
    client.subscribe(&json!("trade"), &["*"], &json!({"snapshot": false}));
    assert_eq!(client.ask(&json!({"op": "unsubscribe", "symbols": ["*"]}))["all"], Value::Null);
}

#[test]
fn a_name_that_is_unsubscribed_from_ends_whatever_takes_it() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["demo:A", "demo:B", "other:A"]);
    let mut client = sequencer.client("");
    client.subscribe(&json!("trade"), &["demo:A", "*", "demo:*"], &json!({"snapshot": false}));
    // Twice is as good as once.
    for _ in 0..2 {
        assert_eq!(client.unsubscribe(&["demo:A"]), ["demo:A"]);
        sequencer.moves(&["demo:A", "demo:B"]);
        assert_eq!(client.ticks().len(), 1, "demo:B alone");
    }
    // The wildcard of a venue is to the one of all what a name is to it.
    client.unsubscribe(&["demo:*"]);
    sequencer.moves(&["demo:A", "demo:B", "other:A"]);
    assert_eq!(client.ticks(), ["trade other:A 2"]);
    // Who subscribes to a wildcard again has all of it.
    client.subscribe(&json!("trade"), &["*"], &json!({"snapshot": false}));
    sequencer.moves(&["demo:A", "demo:B", "other:A"]);
    assert_eq!(client.ticks().len(), 3);
}

#[test]
fn what_was_awaited_by_name_stays_too() {
    let mut sequencer = Sequencer::open(&[]);
    let mut client = sequencer.client("");
    client.subscribe(
        &json!("trade"),
        &["demo:LATER", "demo:NEVER"],
        &json!({"mode": "latest", "max_hz": 1000}),
    );
    client.subscribe(&json!("trade"), &["*"], &json!({}));
    let mut held = client.list();
    held.sort();
    let awaited = ["demo:LATER trade latest 1000", "demo:NEVER trade latest 1000"];
    assert_eq!(held, [&["* trade every"], &awaited[..]].concat());
    sequencer.moves(&["demo:LATER", "demo:OTHER"]);
    let mut held = client.list();
    held.sort();
    let all = ["* trade every", awaited[0], awaited[1], "demo:OTHER trade every"];
    assert_eq!(held, all, "with terms of its own");
    client.unsubscribe(&["*"]);
    let mut held = client.list();
    held.sort();
    assert_eq!(held, awaited);
}

#[test]
fn what_is_subscribed_by_itself_keeps_terms_of_its_own() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["quote demo:A", "quote demo:B", "quote other:A"]);
    for order in [["demo:A", "demo:*", "*"], ["*", "demo:*", "demo:A"], ["demo:*", "demo:A", "*"]] {
        let mut client = sequencer.client("");
        let terms = |symbol: &str| match symbol {
            "*" => json!({"max_hz": 1}),
            "demo:*" => json!({"max_hz": 2}),
            _ => json!({"mode": "every"}),
        };
        for symbol in order {
            client.subscribe(&json!("quote"), &[symbol], &terms(symbol));
        }
        let held = |client: &mut Client| {
            let mut held = client.list();
            held.sort();
            held
        };
        let expected = [
            "* quote latest 1",
            "demo:* quote latest 2",
            "demo:A quote every",
            "demo:B quote latest 2",
            "other:A quote latest 1",
        ];
        assert_eq!(held(&mut client), expected, "{order:?}");
        // To change a wildcard is to change it, and what it alone brings.
        let set = |symbols: &[&str], hz: u64| json!({"op": "set", "symbols": symbols, "max_hz": hz});
        assert_eq!(client.rows(&set(&["*"], 5)), ["* quote"]);
        assert_eq!(client.rows(&set(&["demo:*"], 6)), ["demo:* quote"]);
        let expected = [
            "* quote latest 5",
            "demo:* quote latest 6",
            "demo:A quote every",
            "demo:B quote latest 6",
            "other:A quote latest 5",
        ];
        assert_eq!(held(&mut client), expected, "{order:?}");
        // So it is with one that is subscribed to again.
        client.subscribe(&json!("quote"), &["*"], &json!({"max_hz": 7}));
        assert_eq!(held(&mut client)[4], "other:A quote latest 7");
        assert_eq!(held(&mut client)[2..4], expected[2..4]);
        // A name may be set, whoever brings it; without symbols, all are.
        assert_eq!(client.rows(&set(&["demo:B"], 8)), ["demo:B quote"]);
        assert_eq!(held(&mut client)[3], "demo:B quote latest 8");
        client.rows(&json!({"op": "set", "mode": "latest", "max_hz": 9}));
        assert!(held(&mut client).iter().all(|row| row.ends_with("quote latest 9")), "{:?}", client.list());
        client.unsubscribe(&["demo:*", "*"]);
        assert_eq!(held(&mut client), ["demo:A quote latest 9"]);
        let answer = client.ask(&set(&["demo:*"], 3));
        assert_eq!(answer["rejected"][0]["code"], "not_subscribed", "{answer}");
        // What is gone left no terms behind.
        sequencer.moves(&["quote demo:B"]);
        client.subscribe(&json!("quote"), &["demo:B"], &json!({"snapshot": false}));
        assert_eq!(held(&mut client), ["demo:A quote latest 9", "demo:B quote latest"]);
    }
}

#[test]
fn names_count_under_a_wildcard_too() {
    let mut sequencer = Sequencer::open(&["limits.symbols_per_connection=2"]);
    sequencer.moves(&["demo:A", "demo:B", "demo:C", "demo:D"]);
    for wild_first in [true, false] {
        let mut client = sequencer.client("");
        if wild_first {
            client.subscribe(&json!("trade"), &["*"], &json!({}));
        }
        client.subscribe(&json!("trade"), &["demo:A", "demo:B"], &json!({}));
        if !wild_first {
            client.subscribe(&json!("trade"), &["*"], &json!({}));
        }
        let more = |client: &mut Client, symbol: &str| {
            client.ask(&json!({"op": "subscribe", "channel": "trade", "symbols": [symbol]}))["rejected"][0]["code"].clone()
        };
        assert_eq!(more(&mut client, "demo:C"), "limit");
        assert_eq!(more(&mut client, "demo:B"), Value::Null, "it has this one");
        // The other channel of a name is no other name.
        client.subscribe(&json!("quote"), &["demo:A"], &json!({}));
        client.unsubscribe(&["demo:B"]);
        assert_eq!(more(&mut client, "demo:C"), Value::Null);
        client.unsubscribe(&["*"]);
        assert_eq!(more(&mut client, "demo:D"), "limit");
        client.ask(&json!({"op": "unsubscribe"}));
        client.subscribe(&json!("trade"), &["demo:D", "demo:A"], &json!({}));
    }
}

#[test]
fn a_ping_comes_back_letter_for_letter() {
    // F25
    let sequencer = Sequencer::open(&[]);
    let mut client = sequencer.client("");
    for t in ["18446744073709551616", "1e3", "-0", "1.10", "1e999", r#""\u0041\/""#, "null"] {
        client.socket.text(&format!(r#"{{"op":"ping","id":9,"t":{t}}}"#));
        let pong = loop {
            let (opcode, payload) = client.socket.frame();
            let text = String::from_utf8(payload).expect("UTF-8");
            if opcode == crate::support::TEXT && text.contains("\"pong\"") {
                break text;
            }
        };
        assert!(pong.starts_with(&format!(r#"{{"type":"pong","id":9,"t":{t},"in":"#)), "{pong}");
    }
    let answer = client.ask(&json!({"op": "ping", "t": "x".repeat(129)}));
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("bad_request")), "{answer}");
}

/// A venue and names as long as they may be.
fn long_names(count: usize) -> (String, Vec<String>) {
    let venue = "v".repeat(32);
    let names = (0..count).map(|n| format!("{venue}:{n:064}")).collect();
    (venue, names)
}

#[test]
fn as_many_symbols_as_one_may_have_fit_in_one_message() {
    // F26
    let (venue, names) = long_names(1_000);
    let sequencer = Sequencer::of(&format!("[{venue:?}]"), &[]);
    let mut client = sequencer.client("");
    assert_eq!(client.socket.hello["limits"]["symbols"], 1_000);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(client.subscribe(&json!(["trade", "quote"]), &all, &json!({})).len(), 2_000);
    assert_eq!(client.unsubscribe(&all).len(), 1_000);
    // With the number that an earlier connection had of each.
    let seq: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), u64::MAX.into())).collect();
    let resume = json!({"resume": {"epoch": "e", "seq": seq}});
    assert_eq!(client.subscribe(&json!("trade"), &all, &resume).len(), 1_000);
    // However they are escaped.
    let mut client = sequencer.client("");
    let odd = (0..1_000).map(|n| format!(r#""{venue}:{}{n:04}""#, r"\u00fc".repeat(30))).collect::<Vec<_>>();
    client
        .socket
        .text(&format!(r#"{{"op":"subscribe","id":1,"channel":"trade","symbols":[{}]}}"#, odd.join(", ")));
    let answer = client.socket.word();
    assert_eq!(answer["ok"].as_array().map(Vec::len), Some(1_000), "{}", answer["type"]);
    assert_eq!(answer["ok"][7]["symbol"], format!("{venue}:{}0007", "ü".repeat(30)));
}

#[test]
fn the_longest_message_is_told_and_one_that_is_longer_names_the_limit() {
    for (settings, limit) in [
        (&[][..], 257_024),
        (&["limits.symbols_per_connection=3"][..], 65_536),
        (&["limits.symbols_per_connection=2000"][..], 513_024),
        (&["limits.symbols_per_connection=1000000000"][..], 16_777_216),
        (&["limits.frame_bytes_max=1000"][..], 1_000),
    ] {
        let sequencer = Sequencer::open(settings);
        let mut client = sequencer.client("");
        assert_eq!(client.socket.hello["limits"]["frame_bytes"], limit, "{settings:?}");
        let list = r#"{"op":"list","id":"long"}"#;
        client.socket.text(&(list.to_owned() + &" ".repeat(limit - list.len())));
        assert_eq!(client.socket.word()["id"], "long");
        // Its length is enough.
        client.socket.bytes(&crate::support::header(FIN | crate::support::TEXT, limit + 1, true));
        client.socket.bytes(&[0; 4]);
        let bye = client.socket.word();
        assert_eq!((&bye["code"], &bye["why"]), (&json!(1009), &json!("message_too_big")), "{bye}");
        let (opcode, payload) = client.socket.frame();
        assert_eq!((opcode, &payload[..2]), (crate::support::CLOSE, &1009_u16.to_be_bytes()[..]));
        let reason = String::from_utf8(payload[2..].to_vec()).expect("UTF-8");
        assert_eq!(reason, format!("message_too_big: limits.frame_bytes is {limit}"));
    }
}

#[test]
fn answers_are_as_long_as_common_clients_take_and_the_rest_can_be_had() {
    const COUNT: usize = 12_000;
    const NAMED: usize = 5_989;
    let (venue, names) = long_names(COUNT);
    let settings = [
        "limits.symbols_per_connection=6000",
        "session.outbox_bytes_max=67108864",
        "publish.instruments_per_publisher_max=16384",
    ];
    let mut sequencer = Sequencer::of(&format!("[{venue:?}, \"demo\"]"), &settings);
    sequencer.moves(&["demo:FIRST"]);
    for names in names.chunks(500) {
        sequencer.moves(&names.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut client = sequencer.client("");
    // What there is, in the order of listing.
    let (pages, rows) = client.pages(&json!({"op": "symbols"}), "symbols");
    assert!(
        pages > 1 && rows[0] == "demo:FIRST" && rows[1..] == names[..],
        "{pages} pages, {} rows",
        rows.len()
    );
    let (pages, rows) = client.pages(&json!({"op": "symbols", "match": format!("{venue}:*")}), "symbols");
    assert!(pages > 1 && rows == names);
    let last = json!({"op": "symbols", "after": names[COUNT - 1]});
    assert_eq!(client.pages(&last, "symbols"), (1, vec![]));
    for bad in [json!("demo:NEVER"), json!("FIRST"), json!("*"), json!(""), json!(7), json!("x".repeat(129))]
    {
        let answer = client.ask(&json!({"op": "symbols", "after": bad}));
        assert_eq!(
            (&answer["code"], word(&answer["msg"]).contains("`after`")),
            (&json!("bad_request"), true),
            "{answer}"
        );
    }
    // The same over HTTP.
    let (rows, pages) =
        Gateway::list(sequencer.gateway.http, &format!("/api/symbols?match={venue}:*"), "symbols");
    assert_eq!(pages, COUNT.div_ceil(1_000));
    let found: Vec<String> = rows.iter().map(row).collect();
    assert_eq!(found, names);
    let (status, body) = Gateway::get(sequencer.gateway.http, "/api/symbols?after=demo:NEVER");
    assert!(status == 400 && body.contains("`after`"), "{status} {body}");

    // As many as it may name, on both channels, and some more: those that were rejected are all told.
    let symbols = [&names[..NAMED], &["nowhere:X".to_owned()][..]].concat();
    let awaited = (0..10).map(|n| format!("demo:W{n}"));
    let symbols: Vec<String> = symbols.into_iter().chain(awaited).collect();
    let answer = client.ask(
        &json!({"op": "subscribe", "channel": ["trade", "quote"], "symbols": symbols, "snapshot": false}),
    );
    assert_eq!((&answer["more"], answer["rejected"].as_array().map(Vec::len)), (&json!(true), Some(1)));
    assert!(answer["ok"].as_array().is_some_and(|rows| rows.len() > 2_000 && rows.len() < 12_000));
    // What it has: wildcards, what is listed, what is awaited; each symbol whole.
    client.subscribe(&json!(["trade", "quote"]), &["demo:*"], &json!({"snapshot": false}));
    client.subscribe(&json!("trade"), &["*"], &json!({"snapshot": false}));
    let (pages, rows) = client.pages(&json!({"op": "list"}), "subscriptions");
    let wildcards = ["* trade", "demo:* trade", "demo:* quote"].map(str::to_owned);
    let first = ["demo:FIRST trade", "demo:FIRST quote"].map(str::to_owned);
    let named = names[..NAMED].iter().flat_map(|name| [format!("{name} trade"), format!("{name} quote")]);
    let brought = names[NAMED..].iter().map(|name| format!("{name} trade"));
    let awaited = (0..10).flat_map(|n| [format!("demo:W{n} trade"), format!("demo:W{n} quote")]);
    let all: Vec<String> =
        wildcards.into_iter().chain(first).chain(named).chain(brought).chain(awaited).collect();
    assert!(pages > 2);
    assert_eq!(rows.len(), all.len());
    assert!(rows == all, "{:?}", rows.iter().zip(&all).find(|(a, b)| a != b));
    for (after, from) in [("*", 1), ("demo:*", 3), ("demo:W3", all.len() - 12), ("demo:W35", all.len() - 12)]
    {
        let (_, rows) = client.pages(&json!({"op": "list", "after": after}), "subscriptions");
        assert!(rows == all[from..], "{after}: {} rows", rows.len());
    }
    let answer = client.ask(&json!({"op": "list", "after": "W3"}));
    assert_eq!(answer["code"], "bad_request", "{answer}");
    let answer = client.ask(&json!({"op": "unsubscribe", "symbols": names[..NAMED]}));
    assert_eq!(answer["ok"].as_array().map(Vec::len), Some(NAMED), "there is room for the short rows");
    let refused: Vec<String> = (0..6_000).map(|n| format!("nowhere:{n:0>120}")).collect();
    let answer = client.ask(&json!({"op": "subscribe", "channel": "trade", "symbols": refused}));
    assert!(answer["more"] == true && answer["rejected"].as_array().is_some_and(|rows| rows.len() > 4_000));
}

#[test]
fn a_number_that_has_not_come_is_refused_within_a_wildcard_too() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["demo:A", "demo:A", "demo:B", "other:A"]);
    let epoch = sequencer.watcher.socket.hello["epoch"].clone();
    let asked = |client: &mut Client, symbols: &[&str], seq: Value| {
        let resume = json!({"epoch": epoch, "seq": seq});
        let request = json!({"op": "subscribe", "channel": "trade", "symbols": symbols, "resume": resume});
        let answer = client.ask(&request);
        let rows = |field: &str, of: &str| -> Vec<String> {
            let rows = answer[field].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
            rows.map(|row| format!("{} {}", word(&row["symbol"]), word(&row[of])).trim_end().to_owned())
                .collect()
        };
        (rows("ok", "resumed"), rows("rejected", "code"), answer["rejected"][0]["msg"].clone())
    };
    for (symbols, seq, ok, rejected) in [
        (&["*"][..], json!({"demo:A": 3}), &[][..], &["* bad_resume"][..]),
        (&["demo:*"], json!({"demo:B": 1, "demo:A": u64::MAX}), &[], &["demo:* bad_resume"]),
        (&["*"], json!({"demo:A": 2, "demo:B": 0, "other:A": 1}), &["* ok"], &[]),
        // Of a symbol that nobody has listed yet, no number has come.
        (&["*"], json!({"demo:NEVER": 1}), &[], &["* bad_resume"]),
        (&["demo:*"], json!({"demo:NEVER": 0}), &["demo:*"], &[]),
        (&["demo:NEVER"], json!({"demo:NEVER": 1}), &[], &["demo:NEVER bad_resume"]),
        (&["demo:NEVER"], json!({"demo:NEVER": 0}), &["demo:NEVER"], &[]),
        // What a wildcard does not take says nothing of it.
        (&["other:*"], json!({"demo:A": 3, "other:A": 1}), &["other:* ok"], &[]),
        (&["other:*"], json!({"demo:NEVER": 3, "nonsense": 4}), &["other:*"], &[]),
        // One that is refused undoes no other.
        (
            &["other:A", "*", "demo:A", "demo:B"],
            json!({"other:A": 1, "demo:A": 9, "demo:B": 1}),
            &["other:A ok", "demo:B ok"],
            &["* bad_resume", "demo:A bad_resume"],
        ),
    ] {
        let mut client = sequencer.client("");
        let (found, refused, msg) = asked(&mut client, symbols, seq.clone());
        assert_eq!(
            (found.as_slice(), refused.as_slice()),
            (&to_owned(ok)[..], &to_owned(rejected)[..]),
            "{symbols:?} {seq}"
        );
        let names_it = word(&msg).contains("demo:A") || word(&msg).contains("demo:NEVER");
        assert!(rejected.is_empty() || names_it && word(&msg).contains("`resume.seq`"), "{msg}");
        let held: Vec<String> =
            client.list().iter().filter(|row| !ok.iter().any(|ok| covers(ok, row))).cloned().collect();
        assert_eq!(held, [""; 0], "what was refused brings nothing");
    }
    // What it has already goes on as it is, whatever the client says of it.
    let mut client = sequencer.client("");
    client.subscribe(&json!("trade"), &["demo:A"], &json!({}));
    assert_eq!(asked(&mut client, &["*"], json!({"demo:A": 7})).0, ["*"]);
    // Numbers of another run are none of this one.
    let resume = json!({"resume": {"epoch": "another", "seq": {"demo:A": 7, "demo:NEVER": 7}}});
    let mut client = sequencer.client("");
    assert_eq!(client.subscribe(&json!("trade"), &["*"], &resume), ["* trade"]);
    assert_eq!(client.ticks().len(), 3);
}

fn to_owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Whether a row of a list is of what a row of an answer accepts.
fn covers(ok: &str, row: &str) -> bool {
    let ok = ok.split(' ').next().unwrap_or_default();
    ok.strip_suffix('*').map_or(row.starts_with(ok), |prefix| row.starts_with(prefix))
}

#[test]
fn who_sends_far_more_than_it_may_is_refused_and_then_closed() {
    let sequencer = Sequencer::open(&["limits.ops_per_s=2"]);
    let mut client = sequencer.client("");
    let ping = |n: u64| {
        let text = format!(r#"{{"op":"ping","id":{n}}}"#);
        [crate::support::header(FIN | crate::support::TEXT, text.len(), true), vec![0; 4], text.into_bytes()]
            .concat()
    };
    client.socket.bytes(&(0..600).flat_map(ping).collect::<Vec<u8>>());
    let (mut pongs, mut refused) = (0_u64, 0_u64);
    loop {
        let (opcode, payload) = client.socket.frame();
        if opcode == crate::support::CLOSE {
            assert_eq!(payload[..2], 4502_u16.to_be_bytes());
            break;
        }
        if opcode == PING {
            continue;
        }
        let message: Value = serde_json::from_slice(&payload).expect("JSON");
        match word(&message["type"]) {
            "pong" => pongs += 1,
            "error" => {
                assert_eq!((&message["code"], &message["retry"]), (&json!("rate_limited"), &json!(true)));
                assert_eq!(message["id"], pongs + refused, "each is answered, in order");
                refused += 1;
            }
            "bye" => assert_eq!((&message["code"], &message["why"]), (&json!(4502), &json!("limit"))),
            _ => {}
        }
    }
    assert!(pongs >= 2 && (256..600).contains(&refused), "{pongs} {refused}");
}

#[test]
fn turns_are_timed_and_their_steps_counted() {
    let mut sequencer = Sequencer::open(&["shard.steps_per_turn_max=64"]);
    let names: Vec<String> = (0..300).map(|n| format!("demo:S{n}")).collect();
    sequencer.moves(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut client = sequencer.client("");
    client.subscribe(&json!("trade"), &["*"], &json!({}));
    assert_eq!(client.ticks().len(), 300);
    let scrape = || Gateway::get(sequencer.gateway.admin, "/metrics").1;
    let figure = |text: &str, name: &str| -> f64 {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    };
    let text = scrape();
    assert!(figure(&text, "tickfan_shard_steps_total{shard=\"0\"}") > 600.0);
    for thread in ["ingest", "shard-0"] {
        let of = |name: &str| figure(&text, &format!("tickfan_turn_seconds_{name}{{thread=\"{thread}\""));
        assert!(of("count") > 0.0 && of("sum") > 0.0, "{text}");
    }
}

#[test]
fn each_of_many_long_answers_comes_whole() {
    // More than a shard writes at the same time.
    const CLIENTS: usize = 40;
    const NAMES: usize = 400;
    let sequencer = Sequencer::open(&["limits.ops_per_s=1000000"]);
    let names: Vec<String> = (0..NAMES).map(|n| format!("demo:{}{n:03}", "X".repeat(40))).collect();
    let wanted =
        json!({"op": "subscribe", "id": 1, "channel": ["trade", "quote"], "symbols": names}).to_string();
    let set = json!({"op": "set", "id": 2, "symbols": names, "mode": "latest"}).to_string();
    let mut clients: Vec<RawSocket> = (0..CLIENTS).map(|_| RawSocket::open(&sequencer.gateway, "")).collect();
    for client in &mut clients {
        client.text(&wanted);
    }
    // Some go while they are answered.
    let mut kept = clients.split_off(CLIENTS / 4);
    clients.into_iter().for_each(RawSocket::vanish);
    let all = [&wanted, &set, r#"{"op":"list","id":3}"#, r#"{"op":"unsubscribe","id":4}"#];
    for (request, field) in all.into_iter().zip(["ok", "ok", "subscriptions", "ok"]) {
        for client in &mut kept {
            if *request != wanted {
                client.text(request);
            }
        }
        for client in &mut kept {
            let answer = client.answer();
            let rows = answer[field].as_array().map_or(0, Vec::len);
            let expected = if field == "ok" && answer["op"] == "unsubscribe" { 1 } else { 2 * NAMES };
            assert_eq!(rows, expected, "{}", answer["op"]);
        }
    }
}
