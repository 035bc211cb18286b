//! Clients that come back: what they missed comes out of the ring, with no hole and no repeat.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Barrier;

use serde_json::{Value, json};

use crate::support::{Gateway, RawSocket, TOKEN, connect, eventually};

/// What the gateway keeps.
const HISTORY: u64 = 1_024;
const SYMBOL: &str = "demo:ABC";

/// A gateway and its only publisher, who stays connected: nothing but its ticks goes into the ring.
struct Sequencer {
    gateway: Gateway,
    publisher: TcpStream,
    published: u64,
}

impl Sequencer {
    /// With less room for a client than the history needs.
    fn open() -> Self {
        let history = format!("ring.capacity={HISTORY}");
        let settings = [&history, "session.outbox_bytes_max=16384", "limits.ops_per_s=1000000"];
        let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
        let mut publisher = connect(gateway.publish.expect("it listens"));
        writeln!(publisher, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
        Self { gateway, publisher, published: 0 }
    }

    /// Publishes trades, one at a time so that the shard is never lapped.
    fn trades(&mut self, symbol: &str, count: u64) {
        let line =
            format!("{{\"type\":\"trade\",\"symbol\":\"{symbol}\",\"price\":\"1.25\",\"size\":\"3\"}}\n");
        let before = self.gateway.metric_sum("tickfan_shard_ticks_total");
        for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
            self.publisher.write_all(line.repeat(chunk.len()).as_bytes()).expect("sent");
            let upto = before + chunk[0] + chunk.len() as u64;
            eventually("the shard has read them", || {
                self.gateway.metric_sum("tickfan_shard_ticks_total") >= upto
            });
        }
        self.published += count;
        assert_eq!(self.gateway.metric_sum("tickfan_shard_lapped_total"), 0);
    }
}

fn subscribe(client: &mut RawSocket, symbols: &[&str], mode: &str, epoch: &str, seq: &Value) -> Value {
    let request = json!({
        "op": "subscribe", "id": 1, "channel": "trade", "symbols": symbols, "mode": mode,
        "resume": {"epoch": epoch, "seq": seq},
    });
    client.text(&request.to_string());
    let ack = client.word();
    assert_eq!((&ack["type"], &ack["op"]), (&json!("ack"), &json!("subscribe")), "{ack}");
    ack
}

fn epoch(client: &RawSocket) -> String {
    client.hello["epoch"].as_str().expect("text").to_owned()
}

/// The numbers that a trade or a gap stands for, both included, and why they are missing.
fn numbers(message: &Value) -> (u64, u64, Option<&str>) {
    let number = |name: &str| message[name].as_u64().unwrap_or_else(|| panic!("{name} of {message}"));
    if message["type"] == "gap" {
        return (number("from"), number("to"), message["why"].as_str());
    }
    assert_eq!((&message["type"], &message["snap"]), (&json!("trade"), &Value::Null), "{message}");
    let n = message["n"].as_u64().unwrap_or(1);
    (number("seq") + 1 - n, number("seq"), None)
}

#[test]
fn what_was_missed_comes_whole_as_far_as_it_is_kept() {
    let mut sequencer = Sequencer::open();
    sequencer.trades(SYMBOL, 3 * HISTORY);
    for missed in [0, 1, 2, HISTORY - 1, HISTORY, HISTORY + 1, 2 * HISTORY] {
        let head = sequencer.published;
        let had = head - missed;
        let mut client = RawSocket::open(&sequencer.gateway, "");
        let epoch = epoch(&client);
        let ack = subscribe(&mut client, &[SYMBOL], "every", &epoch, &json!({SYMBOL: had}));
        let word = if missed <= HISTORY { "ok" } else { "gap" };
        assert_eq!(ack["ok"][0]["resumed"], word, "{missed} missed: {ack}");
        let mut told = had;
        if missed > HISTORY {
            let lost = missed - HISTORY;
            assert_eq!(numbers(&client.word()), (had + 1, had + lost, Some("resume")), "{missed} missed");
            told += lost;
        }
        while told < head {
            assert_eq!(numbers(&client.word()), (told + 1, told + 1, None), "{missed} missed");
            told += 1;
        }
        // The seam: the next that is published is the next that comes.
        sequencer.trades(SYMBOL, 1);
        assert_eq!(numbers(&client.word()), (head + 1, head + 1, None), "{missed} missed");
    }
    sequencer.gateway.stop();
}

#[test]
fn in_latest_the_newest_stands_for_all_that_was_missed() {
    let mut sequencer = Sequencer::open();
    sequencer.trades(SYMBOL, 2 * HISTORY);
    for missed in [0, 1, HISTORY - 1, HISTORY, HISTORY + 1] {
        let head = sequencer.published;
        let mut client = RawSocket::open(&sequencer.gateway, "");
        let epoch = epoch(&client);
        let ack = subscribe(&mut client, &[SYMBOL], "latest", &epoch, &json!({SYMBOL: head - missed}));
        assert_eq!(ack["ok"][0]["resumed"], "ok", "{ack}");
        if missed > 0 {
            assert_eq!(numbers(&client.word()), (head - missed + 1, head, None), "{missed} missed");
        }
        sequencer.trades(SYMBOL, 1);
        assert_eq!(numbers(&client.word()), (head + 1, head + 1, None), "{missed} missed");
    }
    sequencer.gateway.stop();
}

#[test]
fn several_symbols_resume_at_once_and_others_begin_with_a_snapshot() {
    let mut sequencer = Sequencer::open();
    let names = ["demo:A", "demo:B", "demo:C"];
    for _ in 0..50 {
        names.iter().for_each(|name| sequencer.trades(name, 2));
    }
    let mut client = RawSocket::open(&sequencer.gateway, "");
    let epoch = epoch(&client);
    let ack = subscribe(&mut client, &["demo:*"], "every", &epoch, &json!({"demo:A": 70, "demo:B": 100}));
    assert_eq!(ack["ok"][0]["resumed"], "ok", "{ack}");
    let (mut told, mut snap) = (70, None);
    while told < 100 || snap.is_none() {
        let message = client.word();
        if message["symbol"] == "demo:C" {
            assert_eq!((&message["snap"], &message["seq"]), (&json!(true), &json!(100)), "{message}");
            snap = Some(message);
        } else if message["type"] != "status" {
            assert_eq!(message["symbol"], "demo:A", "{message}");
            assert_eq!(numbers(&message), (told + 1, told + 1, None));
            told += 1;
        }
    }
    sequencer.trades("demo:B", 1);
    let next = client.word();
    assert_eq!((&next["symbol"], numbers(&next)), (&json!("demo:B"), (101, 101, None)));
    sequencer.gateway.stop();
}

#[test]
fn numbers_that_are_not_of_this_run_are_told_apart() {
    let mut sequencer = Sequencer::open();
    sequencer.trades(SYMBOL, 10);
    let mut client = RawSocket::open(&sequencer.gateway, "");
    let old = epoch(&client);
    let ack = subscribe(&mut client, &[SYMBOL], "every", &old, &json!({SYMBOL: 11}));
    assert_eq!(ack["rejected"][0]["code"], "bad_resume", "{ack}");
    sequencer.gateway.stop();

    // Another run: everything begins anew, whatever the client has.
    let mut sequencer = Sequencer::open();
    sequencer.trades(SYMBOL, 5);
    let mut client = RawSocket::open(&sequencer.gateway, "");
    assert_ne!(epoch(&client), old);
    let ack = subscribe(&mut client, &[SYMBOL, "demo:LATER"], "every", &old, &json!({SYMBOL: 8}));
    assert_eq!(ack["ok"][0]["resumed"], "new_epoch", "{ack}");
    assert_eq!(ack["ok"][1]["resumed"], "new_epoch", "{ack}");
    let snap = client.word();
    assert_eq!((&snap["snap"], &snap["seq"]), (&json!(true), &json!(5)), "{snap}");
    sequencer.gateway.stop();
}

#[test]
fn hundreds_that_come_back_at_once_are_each_whole() {
    const CLIENTS: u64 = 300;
    let mut sequencer = Sequencer::open();
    sequencer.trades(SYMBOL, 100);
    let mut stayed = RawSocket::open(&sequencer.gateway, "");
    let epoch = epoch(&stayed);
    stayed.text(
        &json!({"op": "subscribe", "channel": "trade", "symbols": [SYMBOL], "mode": "every"}).to_string(),
    );
    assert_eq!(stayed.word()["type"], "ack");
    assert_eq!(stayed.word()["seq"], 100);
    // They miss some while none of them is there, and more while they come.
    sequencer.trades(SYMBOL, 200);
    let (head, http) = (350, sequencer.gateway.http);
    let begin = Barrier::new(CLIENTS as usize + 1);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (epoch, begin) = (&epoch, &begin);
            scope.spawn(move || {
                begin.wait();
                let mut socket = RawSocket::at(http, "");
                let mut told = 100 - client % 50;
                let ack = subscribe(&mut socket, &[SYMBOL], "every", epoch, &json!({SYMBOL: told}));
                assert_eq!(ack["ok"][0]["resumed"], "ok", "{ack}");
                while told < head {
                    assert_eq!(numbers(&socket.word()), (told + 1, told + 1, None), "client {client}");
                    told += 1;
                }
            });
        }
        begin.wait();
        sequencer.trades(SYMBOL, 50);
        for number in 101..=head {
            assert_eq!(numbers(&stayed.word()), (number, number, None));
        }
    });
    // None was refused, or lost anything.
    for lost in ["tickfan_dropped_total", "tickfan_merged_total", "tickfan_lost_total"] {
        assert_eq!(sequencer.gateway.metric_sum(lost), 0, "{lost}");
    }
    assert!(sequencer.gateway.metric_sum("tickfan_shard_reread_total") >= CLIENTS * 200);
    sequencer.gateway.stop();
}
