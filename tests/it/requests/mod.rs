//! What clients ask for, and what they are answered: the real gateway, with a market that moves only when a test says so.

mod messages;
mod wildcards;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{FIN, Gateway, PING, PONG, RawSocket, TOKEN, connect};

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

fn to_owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
