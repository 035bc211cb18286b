//! Whole streams: every tick comes or is named.

use super::*;

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
