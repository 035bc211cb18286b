//! The real binary over real sockets, with clients that are not ours.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{
    BINARY, CLOSE, CONTINUATION, Capture, FIN, Gateway, PING, PONG, Process, RawSocket, TEXT, TOKEN, connect,
    eventually, header, normalized, python, run, tickfan,
};
use serde_json::{Value, json};

const SHIPPED: [&str; 3] = ["feeds/coinbase.zst", "feeds/binance-futures.zst", "feeds/kraken.zst"];

fn number(summary: &Value, field: &str) -> u64 {
    summary[field].as_u64().unwrap_or_else(|| panic!("{field} of {summary}"))
}

/// The sum of all gaps of a summary.
fn missing(summary: &Value) -> u64 {
    let gaps = summary["gaps"].as_object().expect("an object");
    gaps.values().map(|n| n.as_u64().expect("a count")).sum()
}

fn said_goodbye(summary: &Value) {
    assert_eq!(summary["bye"]["code"], 4001, "{summary}");
    assert_eq!(summary["bye"]["reconnect"], true, "{summary}");
    assert_eq!(summary["close_code"], 4001, "{summary}");
}

/// Python clients of everything, subscribed.
fn subscribers(gateway: &Gateway, count: usize, options: &[&str]) -> Process {
    let count = count.to_string();
    let mut process = python("subscribers.py", &[&[&gateway.ws, count.as_str()][..], options].concat());
    assert_eq!(process.line(), "subscribed");
    process
}

/// Nothing is written to the log but what is wrong; a replay says at the end what it has published.
fn stopped_quietly(gateway: Gateway) {
    let mut ended = gateway.stop();
    ended.lines.retain(|line| !line.starts_with("tickfan replayed ticks="));
    assert_eq!((ended.lines.as_slice(), ended.stderr.as_str()), (&[][..], ""));
}

// ---- what is shipped ----------------------------------------------------------------------------------

#[test]
fn a_bare_websocket_hears_three_venues_of_the_shipped_configuration() {
    let gateway = Gateway::start(&["serve"]);
    let heard = python("shipped.py", &[&gateway.ws, "20"]).end().values();
    assert!(number(&heard[0], "snaps") + number(&heard[0], "trades") > 0, "{heard:?}");
    assert_eq!(missing(&heard[0]), 0, "{heard:?}");
    assert_eq!(gateway.readyz(), 200);
    stopped_quietly(gateway);
}

#[test]
fn twenty_times_as_fast_every_tick_is_accounted_for() {
    let args = [&["replay", "--speed", "20", "--loop"][..], &SHIPPED].concat();
    let gateway = Gateway::start(&args);
    // More than one round of the captures, each update held against the one before. What comes between two rounds, a
    // client that is behind is not told: `live` after `live` is no news.
    let round: u64 = SHIPPED.map(normalized).iter().map(|(trades, quotes)| trades + quotes).sum();
    let heard = python("shipped.py", &[&gateway.ws, &(round + 3_000).to_string()]).end().values();
    assert!(number(&heard[0], "trades") + number(&heard[0], "quotes") > round, "{heard:?}");
    stopped_quietly(gateway);
}

// ---- requests -----------------------------------------------------------------------------------------

#[test]
fn every_request_in_its_forms() {
    let settings = ["limits.ops_per_s=100000", "shard.threads=1"];
    let gateway = Gateway::publishing(r#"["demo", "other"]"#, &settings);
    let publish = gateway.publish.expect("it listens").to_string();
    let scenes = python("conversation.py", &[&gateway.ws, &publish]).end();
    assert!(scenes.status.success(), "after {:?}: {}", scenes.lines, scenes.stderr);
    assert_eq!(scenes.lines.len(), 8);
    stopped_quietly(gateway);
}

#[test]
fn limits_are_kept_and_said() {
    let settings = ["limits.ops_per_s=2", "limits.symbols_per_connection=3", "limits.connections_max=1"];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let limits = python("limits.py", &[&gateway.ws]).end();
    assert!(limits.status.success(), "{}", limits.stderr);
    stopped_quietly(gateway);
}

#[test]
fn a_client_whose_answers_pile_up_is_read_again_once_it_reads() {
    // A heartbeat would be an event, and hide that there is none.
    let settings = [
        "limits.ops_per_s=1000000",
        "session.outbox_bytes_max=4096",
        "session.control_bytes_max=4096",
        "session.heartbeat_ms=3600000",
        // Nor is it told how far behind it is, however slowly it reads.
        "session.warn_behind_ms=600000",
        "session.shed_behind_ms=600000",
    ];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let mut publisher = connect(gateway.publish.expect("it listens"));
    let mut lines = format!("{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}\n");
    for n in 0..1_000 {
        lines += &format!("{{\"type\":\"trade\",\"symbol\":\"demo:S{n}\",\"price\":\"1\",\"size\":\"1\"}}\n");
    }
    publisher.write_all(lines.as_bytes()).expect("sent");
    eventually("1,000 instruments", || gateway.metric_sum("tickfan_instruments") == 1_000);

    // Each answer names all of them and is far over what may wait for a client.
    const ASKED: u64 = 300;
    let mut client = RawSocket::open(&gateway, "");
    let mut asking = client.sender();
    let asker = std::thread::spawn(move || {
        for id in 0..ASKED {
            asking.text(&json!({"op": "symbols", "id": id}).to_string());
        }
    });
    for id in 0..ASKED {
        let answer = client.message();
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["symbols"].as_array().map(Vec::len), Some(1_000));
    }
    asker.join().expect("all was sent");
    stopped_quietly(gateway);
}

// ---- whole streams ------------------------------------------------------------------------------------

#[test]
fn each_of_three_subscribers_gets_every_tick_of_a_replay() {
    for threads in ["shard.threads=1", "shard.threads=2"] {
        let capture = Capture::generate("binance-futures", "BTCUSDT,ETHUSDT,SOLUSDT", 100, 200);
        let (trades, quotes) = capture.normalized();
        assert!(trades > 1_000 && quotes > 5_000, "{trades} trades, {quotes} quotes");
        // However slow the machine and its clients are, nobody is called slow.
        let [room, patience] = ["session.outbox_bytes_max=67108864", "session.shed_behind_ms=600000"];
        let settings = ["--set", threads, "--set", room, "--set", patience];
        let replay = ["replay", "--speed", "50", "--wait-subscribers", "3", "--exit"];
        let gateway = Gateway::start(&[&replay[..], &settings, &[capture.path()]].concat());
        let clients = subscribers(&gateway, 3, &["--mode", "every"]);
        let summaries = clients.end().values();
        assert_eq!(summaries.len(), 3);
        for summary in summaries {
            assert_eq!((number(&summary, "trades"), number(&summary, "quotes")), (trades, quotes));
            assert_eq!((missing(&summary), number(&summary, "merged")), (0, 0), "{summary}");
            said_goodbye(&summary);
        }
        assert_eq!(gateway.process.end().code(), Some(0));
    }
}

#[test]
fn flat_out_over_a_small_ring_each_tick_comes_or_is_named() {
    let capture = Capture::generate("binance-futures", "BTCUSDT,ETHUSDT,SOLUSDT", 100, 200);
    let (trades, quotes) = capture.normalized();
    for capacity in [64, 4] {
        let setting = format!("ring.capacity={capacity}");
        let replay = ["replay", "--speed", "0", "--wait-subscribers", "3", "--exit", "--set", &setting];
        let gateway = Gateway::start(&[&replay[..], &[capture.path()]].concat());
        let clients = subscribers(&gateway, 3, &["--mode", "every"]);
        for summary in clients.end().values() {
            let told = number(&summary, "stands_for") + missing(&summary);
            assert_eq!(told, trades + quotes, "{summary}");
            assert_eq!(number(&summary, "merged"), 0, "{summary}");
            assert_eq!(summary["gaps"]["feed"], Value::Null, "{summary}");
            // So small a ring comes round within one turn of the feed.
            assert!(capacity > 4 || number(&summary["gaps"], "overrun") > 0, "{summary}");
            said_goodbye(&summary);
        }
        assert_eq!(gateway.process.end().code(), Some(0));
    }
}

#[test]
fn a_slow_client_loses_nothing_in_silence() {
    // More than the sockets' own buffers hold.
    let capture = Capture::generate("binance-futures", "BTCUSDT,ETHUSDT,SOLUSDT", 100, 1_500);
    let (trades, quotes) = capture.normalized();
    for mode in ["every", "latest"] {
        let replay = ["replay", "--speed", "0", "--wait-subscribers", "3"];
        let settings = ["--set", "session.outbox_bytes_max=16384"];
        let gateway = Gateway::start(&[&replay[..], &settings, &[capture.path()]].concat());
        let mut slow = subscribers(&gateway, 2, &["--mode", mode, "--slow"]);
        let quick = subscribers(&gateway, 1, &["--mode", mode]);
        gateway.replay_has_ended();
        slow.tell("read on");
        let gone = gateway.process;
        gone.signal("TERM");
        for summary in slow.end().values() {
            let told = number(&summary, "stands_for") + missing(&summary);
            assert_eq!(told, trades + quotes, "{mode}: {summary}");
            let whys = ["slow_consumer", "overrun"].map(|why| summary["gaps"][why].as_u64().unwrap_or(0));
            let (merged, dropped) = (number(&summary, "merged"), whys.iter().sum::<u64>());
            match mode {
                "every" => assert!(merged == 0 && dropped > 0, "{summary}"),
                _ => assert!(merged > 0 && dropped == 0, "{summary}"),
            }
            assert_eq!(dropped, missing(&summary), "{summary}");
            said_goodbye(&summary);
        }
        let summaries = quick.end().values();
        let told = number(&summaries[0], "stands_for") + missing(&summaries[0]);
        assert_eq!(told, trades + quotes, "{mode}: {summaries:?}");
        said_goodbye(&summaries[0]);
        assert_eq!(gone.end().code(), Some(0));
    }
}

// ---- publishing ---------------------------------------------------------------------------------------

#[test]
fn what_one_publishes_three_get() {
    for threads in ["shard.threads=1", "shard.threads=2"] {
        let gateway = Gateway::publishing(r#"["demo"]"#, &[threads]);
        let publish = gateway.publish.expect("it listens").to_string();
        let heard = python("publishing.py", &[&gateway.ws, &publish]).end();
        assert!(heard.status.success(), "{threads}: {}", heard.stderr);
        stopped_quietly(gateway);
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a rate that nothing is asserted about")]
fn two_hundred_thousand_lines_of_one_connection_all_arrive() {
    const LINES: u64 = 200_000;
    // Room for all of them, so that each comes by itself however slow the reader is.
    let settings = [
        "ring.capacity=262144",
        "session.outbox_bytes_max=100000000",
        "session.warn_behind_ms=600000",
        "session.shed_behind_ms=600000",
    ];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let mut client = RawSocket::open(&gateway, "?symbols=demo:ABC&channel=trade");
    assert_eq!(client.message()["ok"][0]["state"], "waiting");
    let mut publisher = connect(gateway.publish.expect("it listens"));
    writeln!(publisher, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
    let mut answers = BufReader::new(publisher.try_clone().expect("a handle"));
    let mut answer = String::new();
    answers.read_line(&mut answer).expect("an answer");
    assert!(answer.contains("\"ack\""), "{answer}");

    let start = Instant::now();
    let sender = std::thread::spawn(move || {
        let mut block = String::new();
        for n in 1..=LINES {
            block += &format!(
                "{{\"type\":\"trade\",\"symbol\":\"demo:ABC\",\"price\":\"1.{n}\",\"size\":\"{n}\"}}\n"
            );
            if block.len() > 60_000 || n == LINES {
                publisher.write_all(block.as_bytes()).expect("sent");
                block.clear();
            }
        }
        publisher.shutdown(Shutdown::Write).expect("half closed");
        start.elapsed()
    });
    let mut seq = 0;
    while seq < LINES {
        let message = client.word();
        if message["type"] == "trade" {
            seq += 1;
            assert_eq!((&message["seq"], &message["size"]), (&json!(seq), &json!(seq.to_string())));
        } else {
            // The warning is of half an outbox, however slow the reader is.
            assert!(matches!(message["type"].as_str(), Some("status" | "lag")), "{message}");
        }
    }
    let heard = start.elapsed();
    let sent = sender.join().expect("all was sent");
    eprintln!("{LINES} lines sent in {sent:.1?}, all heard after {heard:.1?}");
    let mut rest = String::new();
    answers.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "", "no line was refused");
    assert_eq!(gateway.metric_sum("tickfan_publish_lines_total"), LINES);
    stopped_quietly(gateway);
}

// ---- bad input ----------------------------------------------------------------------------------------

/// A message that is too deep for anybody, and as long as is allowed.
fn nested(field: &str) -> String {
    format!("{{\"op\":\"list\",\"{field}\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000))
}

/// The longest message that a client was told it may send.
fn frame_bytes(client: &RawSocket) -> usize {
    client.hello["limits"]["frame_bytes"].as_u64().expect("a limit") as usize
}

/// What bad clients do, one by one.
const MISDEEDS: [fn(&Gateway); 11] = [
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        for (text, code) in
            [(nested("after").as_str(), "bad_request"), (r#"{"op":"fly","id":1}"#, "unknown_op")]
        {
            client.text(text);
            let error = client.message();
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)));
        }
        // What is unknown is left alone, however deep.
        client.text(&nested("x"));
        assert_eq!(client.message()["type"], "ack");
        // The longest message that is allowed is answered, and so is all that follows.
        let long = r#"{"op":"list","id":7}"#.to_owned();
        client.text(&(long.clone() + &" ".repeat(frame_bytes(&client) - long.len())));
        assert_eq!(client.message()["id"], 7);
        client.send(FIN | CLOSE, &1000u16.to_be_bytes());
        assert_eq!(client.close_frame(), 1000);
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        client.send(FIN | BINARY, br#"{"op":"list"}"#);
        assert_eq!(client.goodbye(), (1003, 1003));
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        client.send(FIN | TEXT, b"{\"op\":\"\xff\xfe\"}");
        assert_eq!(client.goodbye(), (1007, 1007));
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        let longest = frame_bytes(&client);
        client.text(&"x".repeat(longest + 1));
        assert_eq!(client.goodbye(), (1009, 1009));
        // In pieces it is just as long.
        let mut client = RawSocket::open(gateway, "");
        client.send(TEXT, &vec![b'x'; longest / 2]);
        client.send(FIN | CONTINUATION, &vec![b'x'; longest / 2 + 1]);
        assert_eq!(client.goodbye(), (1009, 1009));
        // Nobody waits for what a length promises.
        let mut client = RawSocket::open(gateway, "");
        client.bytes(&header(FIN | TEXT, 1 << 40, true));
        client.bytes(&[0; 4]);
        assert_eq!(client.goodbye(), (1009, 1009));
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        client.bytes(&header(FIN | TEXT, 2, false));
        client.bytes(b"{}");
        assert_eq!(client.goodbye(), (1002, 1002));
    },
    |gateway| {
        // A reserved opcode, a reserved bit, a control frame in pieces, a continuation of nothing.
        for first in [FIN | 3, FIN | TEXT | 0x40, PING, FIN | CONTINUATION] {
            let mut client = RawSocket::open(gateway, "");
            client.send(first, b"{}");
            assert_eq!(client.goodbye(), (1002, 1002), "{first:#x}");
        }
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        client.send(TEXT, br#"{"op":"#);
        client.send(FIN | PING, b"between the pieces");
        assert_eq!(client.frame(), (PONG, b"between the pieces".to_vec()));
        client.send(CONTINUATION, br#""ping","#);
        client.send(CONTINUATION, b"");
        client.send(FIN | CONTINUATION, br#""t":5}"#);
        let pong = client.message();
        assert_eq!((&pong["type"], &pong["t"]), (&json!("pong"), &json!(5)));
        for payload in [&b""[..], &[0, 255, 10], &[7; 125]] {
            client.send(FIN | PING, payload);
            assert_eq!(client.frame(), (PONG, payload.to_vec()));
        }
        // Nobody asked for it, and nobody minds.
        client.send(FIN | PONG, b"unasked");
        client.text(r#"{"op":"list"}"#);
        assert_eq!(client.message()["op"], "list");
    },
    |gateway| {
        // One byte at a time.
        let mut client = RawSocket::open(gateway, "");
        let mut frame = header(FIN | TEXT, 13, true);
        frame.extend([0; 4]);
        frame.extend(br#"{"op":"list"}"#);
        frame.chunks(1).for_each(|byte| client.bytes(byte));
        assert_eq!(client.message()["op"], "list");
    },
    |gateway| {
        let sessions = gateway.metric_sum("tickfan_sessions");
        let mut client = RawSocket::open(gateway, "?symbols=*");
        assert_eq!(client.message()["type"], "ack");
        // In the middle of a frame.
        client.bytes(&header(FIN | TEXT, 100, true));
        client.vanish();
        eventually("the session is gone", || gateway.metric_sum("tickfan_sessions") == sessions);
    },
    |gateway| {
        // It asks for everything and then reads nothing, until it is gone.
        let sessions = gateway.metric_sum("tickfan_sessions");
        let mut client = RawSocket::open(gateway, "?symbols=*&mode=every");
        for id in 0..2_000 {
            client.text(&format!("{{\"op\":\"symbols\",\"id\":{id}}}"));
        }
        client.vanish();
        eventually("the session is gone", || gateway.metric_sum("tickfan_sessions") == sessions);
    },
    |gateway| {
        // Closed from the other side, with a code and without.
        for (payload, code) in [(&4321u16.to_be_bytes()[..], 4321), (&[], 1005)] {
            let mut client = RawSocket::open(gateway, "?symbols=nowhere:X");
            assert_eq!(client.message()["rejected"][0]["code"], "unknown_symbol");
            client.send(FIN | CLOSE, payload);
            let (opcode, echo) = client.frame();
            assert_eq!((opcode, echo.as_slice()), (CLOSE, payload), "{code}");
        }
    },
];

#[test]
fn a_bystander_notices_nothing_of_bad_clients() {
    for threads in ["shard.threads=1", "shard.threads=2"] {
        let args = [&["replay", "--speed", "5", "--loop", "--set", threads][..], &SHIPPED].concat();
        let gateway = Gateway::start(&args);
        let mut bystander = python("bystander.py", &[&gateway.ws]);
        assert_eq!(bystander.line(), "subscribed");
        for misdeed in MISDEEDS {
            misdeed(&gateway);
            bystander.tell("and now?");
            assert_eq!(bystander.line(), "flows");
        }
        let summary = &bystander.end().values()[0];
        assert!(number(summary, "trades") + number(summary, "quotes") > 100, "{summary}");
        assert_eq!((missing(summary), number(summary, "merged")), (0, 0), "{summary}");
        stopped_quietly(gateway);
    }
}

/// Puts lines into a capture that cannot be read, and gives their numbers.
fn spoil(capture: &Capture) -> [usize; 3] {
    capture.edit(|lines| {
        let time = lines[10].split(' ').next().expect("a time").to_owned();
        lines.insert(20, "not a line of a capture".to_owned());
        lines.insert(30, format!("{time} {{\"e\":\"trade\","));
        lines.insert(40, format!("{time} {{\"e\":\"trade\",\"s\":\"BTCUSDT\",\"p\":\"one\",\"q\":\"1\",\"t\":1,\"T\":1,\"m\":true}}"));
    });
    [21, 31, 41]
}

#[test]
fn bad_lines_of_a_capture_are_counted_and_told_and_cost_only_themselves() {
    let capture = Capture::generate("binance-futures", "BTCUSDT", 10, 100);
    let whole = capture.normalized();
    let bad = spoil(&capture);
    assert_eq!(capture.normalized(), whole);
    let gateway = Gateway::start(&["replay", "--speed", "0", "--wait-subscribers", "1", capture.path()]);
    let client = subscribers(&gateway, 1, &["--mode", "every"]);
    gateway.replay_has_ended();
    let counted = gateway.metric("tickfan_feed_bad_lines_total");
    assert_eq!((counted.len(), counted[0].1), (1, 3), "{counted:?}");
    let ended = gateway.stop();
    for line in bad {
        let place = format!("{}:{line}: ", capture.path());
        assert_eq!(ended.stderr.matches(&place).count(), 1, "{place} in {}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), bad.len(), "{}", ended.stderr);
    let summary = &client.end().values()[0];
    assert_eq!((number(summary, "trades"), number(summary, "quotes")), whole);
    said_goodbye(summary);
}

#[test]
fn a_strict_replay_ends_at_the_first_bad_line() {
    let capture = Capture::generate("binance-futures", "BTCUSDT", 10, 100);
    let [first, second, _] = spoil(&capture);
    let gateway =
        Gateway::start(&["replay", "--speed", "0", "--strict", "--wait-subscribers", "1", capture.path()]);
    let client = subscribers(&gateway, 1, &[]);
    let ended = gateway.process.end();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("{}:{first}: ", capture.path())), "{}", ended.stderr);
    assert!(!ended.stderr.contains(&format!(":{second}: ")), "{}", ended.stderr);
    said_goodbye(&client.end().values()[0]);
    let normalize = run(&["normalize", "--strict", capture.path()]);
    assert!(!normalize.status.success(), "{normalize:?}");
    assert!(normalize.stderr.contains(&format!("{}:{first}: ", capture.path())), "{normalize:?}");
}

#[test]
fn what_cannot_begin_says_why_and_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("odd.toml");
    let config = config.to_str().expect("utf-8");
    std::fs::write(config, "[limits]\n\nops_per_second = 5\n").expect("written");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let free = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let feed = SHIPPED[2];
    let lost = folder.path().join("lost.zst");
    let lost = lost.to_str().expect("utf-8");
    for (args, words) in [
        (vec!["serve", "--config", config], vec![config, "line 3", "column 1", "ops_per_second"]),
        (vec!["serve", "--config", "no/such.toml"], vec!["no/such.toml"]),
        (vec!["replay", lost], vec![lost, "cannot open"]),
        (vec!["replay", "Cargo.toml"], vec!["Cargo.toml", "no capture"]),
        (vec!["replay", feed, "--set", "limits.ops=5"], vec!["limits.ops=...", "unknown field"]),
        (vec!["replay", feed, "--set", "ring.capacity=1000"], vec!["ring.capacity=1000", "power of two"]),
        (vec!["replay", feed, "--speed=-1"], vec!["--speed"]),
        (vec!["replay", feed, "--listen", &taken], vec!["server.listen", &taken, "in use"]),
        (vec!["replay", feed, "--admin", &taken], vec!["admin.listen", &taken, "in use"]),
        (vec!["normalize", lost], vec![lost, "cannot open"]),
    ] {
        // A later address wins over these only where the case names one.
        let serves = matches!(args[0], "serve" | "replay");
        let doors = free.chunks(2).filter(|door| serves && !args.contains(&door[0])).flatten();
        let ended = run(&args.iter().chain(doors).copied().collect::<Vec<_>>());
        assert_eq!(ended.code(), Some(2), "{args:?}: {ended:?}");
        assert!(ended.lines.is_empty(), "{args:?}: {ended:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{args:?}: no {word:?} in {}", ended.stderr);
        }
    }
}

// ---- beginning and end --------------------------------------------------------------------------------

#[test]
fn a_signal_ends_everything_in_order() {
    for (signal, threads) in [("TERM", "1"), ("INT", "1"), ("TERM", "2"), ("INT", "2")] {
        let threads = format!("shard.threads={threads}");
        let args = [&["replay", "--speed", "5", "--loop", "--set", &threads][..], &SHIPPED].concat();
        let gateway = Gateway::start(&args);
        let clients = subscribers(&gateway, 4, &[]);
        eventually("ticks flow", || gateway.readyz() == 200);
        let start = Instant::now();
        gateway.process.signal(signal);
        for summary in clients.end().values() {
            assert_eq!(missing(&summary), 0, "{summary}");
            said_goodbye(&summary);
        }
        let ended = gateway.process.end();
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{signal}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}

#[test]
fn a_signal_right_after_the_ready_line_is_heard() {
    for signal in ["TERM", "INT"].repeat(10) {
        let gateway = Gateway::publishing(r#"["demo"]"#, &[]);
        gateway.process.signal(signal);
        let ended = gateway.process.end();
        assert_eq!(ended.code(), Some(0), "{signal}: {ended:?}");
    }
}

#[test]
fn a_client_that_does_not_answer_does_not_hold_up_the_end() {
    let args = [&["replay", "--speed", "5", "--loop"][..], &SHIPPED].concat();
    let gateway = Gateway::start(&args);
    let mut silent = RawSocket::open(&gateway, "?symbols=*");
    assert_eq!(silent.message()["type"], "ack");
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.end().code(), Some(0));
    // What was sent is there to be read all the same.
    let last = loop {
        let (opcode, payload) = silent.frame();
        if opcode == CLOSE {
            break payload;
        }
    };
    assert_eq!(last[..2], 4001u16.to_be_bytes());
}

#[test]
fn readiness_and_metrics_follow_the_feed() {
    let capture = Capture::generate("coinbase", "BTC-USD", 2, 50);
    let gateway = Gateway::start(&["replay", "--speed", "1", "--wait-subscribers", "1", capture.path()]);
    assert_eq!(gateway.readyz(), 503);
    let client = subscribers(&gateway, 1, &["--mode", "every"]);
    eventually("it flows", || gateway.readyz() == 200);
    gateway.replay_has_ended();
    assert_eq!(gateway.readyz(), 503);
    assert_eq!(Gateway::get(gateway.http, "/healthz").0, 200);

    let (status, text) = Gateway::get(gateway.admin, "/metrics");
    assert_eq!(status, 200);
    assert!(text.ends_with('\n'), "{text}");
    let mut named = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let known = ["HELP ", "TYPE "].iter().any(|word| rest.starts_with(word));
            assert!(known, "{line}");
            named.extend(rest.strip_prefix("TYPE ").and_then(|rest| rest.split(' ').next()));
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect(line);
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = name.split('{').next().expect("a name");
        assert!(named.iter().any(|family| name.starts_with(family)), "{line} belongs to nothing");
    }
    assert_eq!(gateway.metric_sum("tickfan_sessions"), 1);
    let (trades, quotes) = capture.normalized();
    assert_eq!(gateway.metric_sum("tickfan_feed_trades_total"), trades);
    assert_eq!(gateway.metric_sum("tickfan_feed_quotes_total"), quotes);
    assert_eq!(gateway.metric_sum("tickfan_sent_total"), trades + quotes);
    stopped_quietly(gateway);
    said_goodbye(&client.end().values()[0]);
}

// ---- watch --------------------------------------------------------------------------------------------

#[test]
fn watch_succeeds_on_a_whole_stream_and_fails_without_one() {
    let capture = Capture::generate("kraken", "XBT/USD,ETH/USD", 20, 100);
    let replay = ["replay", "--speed", "10", "--wait-subscribers", "1", "--exit", capture.path()];
    let gateway = Gateway::start(&replay);
    let ended = run(&["watch", "--url", &gateway.ws, "*"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(gateway.process.end().code(), Some(0));

    let gateway = Gateway::start(&[&["replay", "--speed", "5", "--loop"][..], &SHIPPED].concat());
    let ended = run(&["watch", "--url", &gateway.ws, "--json", "--for", "500ms", "kraken:*"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.values().iter().all(|m| m["symbol"].as_str().is_some_and(|s| s.starts_with("kraken:"))));
    let refused = run(&["watch", "--url", &gateway.ws, "--for", "10s", "nowhere:X"]);
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    stopped_quietly(gateway);

    // Of a venue that is served, but nobody speaks of it.
    let gateway = Gateway::publishing(r#"["demo"]"#, &[]);
    let ended = run(&["watch", "--url", &gateway.ws, "--for", "200ms", "demo:XYZ"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    for says in ["waiting for demo:XYZ: the gateway has seen nothing of it yet\n", "never came: demo:XYZ\n"] {
        assert!(ended.stderr.contains(says), "{says}: {ended:?}");
    }
    let ended = run(&["watch", "--url", &gateway.ws, "--for", "200ms", "demo:*"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.ends_with("never came: demo:* (no symbol under it)\n"), "{ended:?}");
    let ended = run(&["watch", "--url", &gateway.ws, "--for", "200ms", "demo:*", "nosuch:X"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.ends_with(", nosuch:X (rejected for trade, quote)\n"), "{ended:?}");
    // The gateway goes before the time is over.
    let mut watch = Process::start(&mut tickfan(&["watch", "--url", &gateway.ws, "--for", "10m", "demo:*"]));
    watch.line();
    stopped_quietly(gateway);
    let ended = watch.end();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("tickfan watch: the connection ended after "), "{ended:?}");
    assert!(last.contains(" of 600.0 s: closed with 4001: shutdown (the gateway stops"), "{ended:?}");

    // Bound but not listening: nobody else can take it, and it refuses.
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    deaf.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    let address = deaf.local_addr().expect("bound").as_socket().expect("ip");
    let ended = run(&["watch", "--url", &format!("ws://{address}/ws"), "--for", "10s", "*"]);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
}

// ---- breaks of the feed -------------------------------------------------------------------------------

/// Replays a capture to one client that started with it, and gives what it heard.
fn heard_of(capture: &Capture, venue: &str) -> Value {
    let replay = ["replay", "--venue", venue, "--speed", "20", "--wait-subscribers", "1", "--exit"];
    let gateway = Gateway::start(&[&replay[..], &[capture.path()]].concat());
    let client = subscribers(&gateway, 1, &["--mode", "every"]);
    let summary = client.end().values().remove(0);
    said_goodbye(&summary);
    assert_eq!(gateway.process.end().code(), Some(0));
    summary
}

fn position(lines: &[String], from: usize, part: &str) -> usize {
    let found = lines.iter().skip(from).position(|line| line.contains(part));
    from + found.unwrap_or_else(|| panic!("no {part}"))
}

#[test]
fn a_wrong_checksum_is_a_gap_and_stale_until_the_next_snapshot() {
    let capture = Capture::generate("kraken", "XBT/USD", 10, 50);
    // The book comes anew when the second half begins.
    let rebuilt = capture.later("kraken", "XBT/USD", (10, 50), 1_714_564_800 + 11);
    capture.edit(|lines| {
        let at = position(lines, 100, r#""c":""#);
        let digit = lines[at].find(r#""c":""#).expect("found") + 5;
        let old = lines[at].as_bytes()[digit];
        let new = if old == b'1' { "2" } else { "1" };
        lines[at].replace_range(digit..=digit, new);
        lines.extend(rebuilt.lines().map(str::to_owned));
    });
    let heard = heard_of(&capture, "kraken");
    assert_eq!(heard["gaps"], json!({"feed": 1}), "{heard}");
    let states = heard["states"].as_array().expect("a list").iter().map(|state| &state[1]);
    assert_eq!(states.collect::<Vec<_>>(), ["replay", "stale", "replay", "ended"]);
    let (trades, quotes) = capture.normalized();
    assert_eq!((number(&heard, "trades"), number(&heard, "quotes")), (trades, quotes));
    assert_eq!(number(&heard["told"], "kraken:XBT/USD quote"), quotes + 1);
}

#[test]
fn a_missing_depth_update_is_a_gap() {
    for venue in ["binance", "binance-futures"] {
        let capture = Capture::generate(venue, "BTCUSDT", 10, 50);
        capture.edit(|lines| {
            let at = position(lines, 100, "depthUpdate");
            lines.remove(at);
        });
        let heard = heard_of(&capture, venue);
        assert_eq!(heard["gaps"], json!({"feed": 1}), "{venue}: {heard}");
        // Its quotes do not come from the book, and stay good.
        let states = heard["states"].as_array().expect("a list").iter().map(|state| &state[1]);
        assert_eq!(states.collect::<Vec<_>>(), ["replay", "ended"]);
        let (trades, quotes) = capture.normalized();
        assert_eq!((number(&heard, "trades"), number(&heard, "quotes")), (trades, quotes));
    }
}

#[test]
fn a_missing_trade_is_a_gap_of_one() {
    let capture = Capture::generate("coinbase", "BTC-USD", 10, 50);
    capture.edit(|lines| {
        let at = position(lines, 100, r#""type":"match""#);
        lines.remove(at);
    });
    let heard = heard_of(&capture, "coinbase");
    assert_eq!(number(&heard["gaps"], "feed"), 1, "{heard}");
    let (trades, _) = capture.normalized();
    assert_eq!(number(&heard, "trades"), trades);
    assert_eq!(number(&heard["told"], "coinbase:BTC-USD trade"), trades + 1);
}

// ---- feeds that end badly -----------------------------------------------------------------------------

/// Asks `/readyz` until its body has all these words.
fn readiness_says(gateway: &Gateway, words: &[&str]) {
    eventually("readiness", || {
        let (_, body) = Gateway::get(gateway.http, "/readyz");
        words.iter().all(|word| body.contains(word))
    });
}

#[test]
fn a_strict_feed_that_stops_ends_its_prices_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = Capture::generate("coinbase", "BTC-USD", 5, 50);
    let bad = folder.path().join("bad");
    let line = r#"1714564800000000000 {"type":"trade","symbol":"demo:A","price":"1","size":"2"}"#;
    std::fs::write(&bad, format!("{line}\nnothing that can be read\n")).expect("written");
    let config = folder.path().join("config.toml");
    let feeds = format!(
        "[[feed]]\nkind = \"replay\"\nfiles = [{bad:?}]\nstrict = true\n[[feed]]\nkind = \"replay\"\nfiles = [{:?}]\nloop = true\n",
        good.path()
    );
    std::fs::write(&config, feeds).expect("written");
    let gateway = Gateway::start(&["serve", "--config", config.to_str().expect("UTF-8")]);
    readiness_says(&gateway, &["\"ready\":false", "met what it cannot read", "replays 1 captures"]);
    eventually("one has ended, the other plays", || {
        let (_, body) = Gateway::get(gateway.http, "/api/symbols");
        body.contains(r#""symbol":"demo:A","venue":"demo","state":"ended""#)
            && body.contains(r#""symbol":"coinbase:BTC-USD","venue":"coinbase","state":"replay""#)
    });
}

#[test]
fn a_loop_whose_capture_is_taken_away_ends_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("one");
    let line = r#"1714564800000000000 {"type":"trade","symbol":"demo:A","price":"1","size":"2"}"#;
    std::fs::write(&capture, format!("{line}\n")).expect("written");
    let gateway = Gateway::start(&["replay", "--loop", capture.to_str().expect("UTF-8")]);
    readiness_says(&gateway, &["\"ready\":true"]);
    std::fs::remove_file(&capture).expect("removed");
    readiness_says(&gateway, &["\"ready\":false", "met what it cannot read"]);
}

// ---- what is shown of files and their number -----------------------------------------------------------

/// A name that would begin a line of its own, colour what follows and turn its direction.
const FORGER: &str = "a\ntickfan: all is well\r\u{1b}[31m\u{202e}b";

#[cfg(unix)]
#[test]
fn the_name_of_a_file_forges_no_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |suffix: &str| folder.path().join(format!("{FORGER}{suffix}")).display().to_string();
    let (capture, log, page, tables) = (path(".txt"), path(".hlog"), path(".html"), path("-csv"));
    let generate = ["generate", "--venue", "coinbase", "--symbols", "A-B", "--seconds", "1", "--rate", "50"];
    assert_eq!(run(&[&generate[..], &["--out", &capture]].concat()).code(), Some(0));
    let mut file = std::fs::OpenOptions::new().append(true).open(&capture).expect("it was written");
    file.write_all(b"this is no record\n").expect("written");
    let logged = format!("latency.log={log}");
    let replay = ["replay", "--exit", "--speed", "0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let commands: [(&str, Vec<&str>); 9] = [
        ("inspect", vec![&capture]),
        ("inspect", vec![&capture, "/no/such/\u{1b}[31m\nfile"]),
        ("normalize", vec![&capture]),
        ("convert", vec!["--to", "csv", "--out", &tables, &capture]),
        ("check", vec![&capture]),
        ("replay", [&replay[1..], &["--set", &logged, &capture]].concat()),
        ("report", vec![&log, "--html", &page]),
        ("report", vec![&capture]),
        ("serve", vec!["--config", &tables]),
    ];
    for (command, args) in &commands {
        let ended = run(&[&[*command][..], args].concat());
        let shown = ended.lines.join("\n") + "\n" + &ended.stderr;
        let hidden = shown.chars().find(|c| *c != '\n' && tickfan::text::printable::is_hidden(*c));
        assert_eq!(hidden, None, "{command} {args:?}: {shown}");
        assert!(!shown.lines().any(|line| line.starts_with("tickfan: all is well")), "{command}: {shown}");
        let escaped = r"a\ntickfan: all is well\r\u{1b}[31m\u{202e}b";
        assert!(shown.contains(escaped), "{command} {args:?} does not name it: {shown}");
    }
    let page = std::fs::read_to_string(&page).expect("a page");
    assert!(page.contains(r"a\ntickfan: all is well"), "it is not named");
    assert!(!page.chars().any(|c| c != '\n' && tickfan::text::printable::is_hidden(c)));
}

#[cfg(target_os = "linux")]
#[test]
fn clients_that_do_not_fit_in_the_files_of_the_process_are_refused() {
    let script = format!("ulimit -Sn 100; ulimit -Hn 600; exec {} \"$@\"", env!("CARGO_BIN_EXE_tickfan"));
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", "replay", "--loop", "--set", "shard.threads=1", SHIPPED[0]]);
    let gateway = Gateway::run(command, "127.0.0.1:0");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.process.id()));
    let limits = limits.expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a row");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["600", "600"], "it was raised");
    assert_eq!(gateway.metric_sum("tickfan_open_files_max"), 600);
    let most = gateway.metric_sum("tickfan_connections_max");
    assert!((100..600).contains(&most), "{most}");
    let clients: Vec<_> = (0..most).map(|_| RawSocket::open(&gateway, "")).collect();
    // Another is refused, and the page and health still have room.
    assert_eq!(RawSocket::status_of_handshake(&gateway), 503);
    assert_eq!(gateway.readyz(), 200);
    assert_eq!(gateway.metric_sum("tickfan_http_accept_errors_total"), 0);
    drop(clients);
    let ended = gateway.stop();
    let told: Vec<_> = ended.stderr.lines().filter(|line| line.contains("limits.connections_max")).collect();
    assert!(
        matches!(told[..], [line] if line.contains(" 600 ") && line.contains(&format!(": {most} are"))),
        "{told:?}"
    );
}
