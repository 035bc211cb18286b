//! Steps, silences, rounds, and the end.

use super::*;

#[test]
fn a_step_publishes_what_it_says() {
    // Trades of a venue that sends several in one message, and quotes.
    let gateway = replay(&[&["--speed", "2", "--loop"][..], &PATIENT].concat(), &SHIPPED);
    let ended = python("replaying.py", &["steps", &gateway.ws]).end();
    assert!(ended.status.success(), "{}", ended.stderr);
    gateway.stop();
}

#[test]
fn a_step_goes_on_in_the_next_round() {
    let capture = Capture::generate("coinbase", "BTC-USD", 30, 50);
    let (lines, _) = normalized(&[capture.path()]);
    let ticks = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut rx: Vec<u64> = ticks.map(|tick| tick["rx"].as_u64().expect("a time")).collect();
    let args = ["--loop", "--from", "+20s", "--to", "+21s", "--wait-subscribers", "1"];
    let gateway = replay(&args, &[capture.path()]);
    let from = shown(&gateway)["from"].as_u64().expect("a time");
    rx.retain(|at| (from..from + 1_000_000).contains(at));
    assert!(rx.len() > 10);
    told(&gateway, &json!({"do": "pause"}));
    let _client = RawSocket::open(&gateway, "?symbols=*");
    told(&gateway, &json!({"do": "step", "ticks": rx.len() + 5}));
    eventually("the fifth tick of the second round", || {
        let shown = shown(&gateway);
        shown["state"] == "paused" && shown["position"] == rx[4]
    });
    gateway.stop();
}

#[test]
fn it_begins_and_ends_where_it_is_told() {
    let capture = Capture::generate("coinbase", "BTC-USD", 60, 50);
    let (all, _) = normalized(&[capture.path()]);
    let ticks: Vec<Value> = all.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let rx = |tick: &Value| tick["rx"].as_u64().expect("a time");
    let gateway = replay(&["--speed", "1", "--wait-subscribers", "1"], &[capture.path()]);
    let start_us = shown(&gateway)["from"].as_u64().expect("a time");
    gateway.stop();
    let (from_us, to_us) = (start_us + 20_000_000, start_us + 30_000_000);
    let inside = ticks.iter().filter(|tick| (from_us..to_us).contains(&rx(tick))).count();
    assert!(inside > 10);
    // Three ways of saying it, F12 among them: the capture begins at 2024-05-01T12:00:00Z.
    let at_offset = |s: u64| format!("2024-05-01T13:00:{s:02}.{:06}+01:00", start_us % 1_000_000);
    for (from, to) in [
        ("+20s".to_owned(), "+30s".to_owned()),
        (from_us.to_string(), to_us.to_string()),
        (at_offset(20), at_offset(30)),
    ] {
        let args =
            ["replay", "--exit", "--speed", "100", "--from", &from, "--to", &to, "--wait-subscribers", "1"];
        let gateway = Gateway::start(&[&args[..], &[capture.path()]].concat());
        let shown = shown(&gateway);
        assert_eq!((&shown["from"], &shown["to"]), (&from_us.into(), &to_us.into()), "{shown}");
        let heard = python("subscribers.py", &[&gateway.ws, "1", "--mode", "every"]);
        let heard = heard.end().lines.pop().expect("a summary");
        let heard: Value = serde_json::from_str(&heard).expect("JSON");
        let told = heard["trades"].as_u64().zip(heard["quotes"].as_u64()).expect("counts");
        // What stands at the beginning comes as a snapshot.
        let snaps = heard["snaps"].as_u64().expect("a count");
        assert!(snaps > 0 && told.0 + told.1 >= inside as u64, "{heard}");
        let ended = gateway.process.end();
        let words = ["ticks", "of", "part"].map(|key| summary(&ended, key));
        assert_eq!(words, [inside.to_string(), inside.to_string(), String::new()], "{ended:?}");
    }
    let wrong = run(&["replay", "--from", "+30s", "--to", "+20s", capture.path()]);
    assert_eq!(wrong.code(), Some(2));
    assert!(wrong.stderr.contains("`to` is not behind `from`"), "{}", wrong.stderr);
    for (flag, value) in [("--from", "noon"), ("--max-idle", "5"), ("--speed", "0.001"), ("--speed", "1001")]
    {
        let wrong = run(&["replay", flag, value, capture.path()]);
        assert_eq!(wrong.code(), Some(2), "{flag} {value}");
        assert!(wrong.stderr.contains(flag), "{}", wrong.stderr);
    }
}

/// The body of a request in chunks of so many bytes.
fn chunks(body: &str, bytes: usize) -> String {
    let chunk =
        |part: &[u8]| format!("{:X}\r\n{}\r\n", part.len(), std::str::from_utf8(part).expect("ASCII"));
    body.as_bytes().chunks(bytes).map(chunk).collect()
}

#[test]
fn an_order_may_come_in_chunks() {
    let gateway = replay(&["--loop", "--set", "limits.head_timeout_ms=1000"], &SHIPPED);
    let chunked = |method: &str, more: &str, body: &str| {
        let head = format!("{POST}\r\nTransfer-Encoding: {more}");
        let (status, answer) =
            Gateway::ask(gateway.http, &format!("{method} HTTP/1.1\r\n{head}\r\n\r\n{body}"));
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{status} {answer}"));
        (status, answer["op"].as_str().or(answer["error"].as_str()).expect("a word").to_owned())
    };
    let post = |body: &str| chunked("POST /api/replay", "chunked", body);
    let pause = r#"{"do":"pause"}"#;
    let padded = |bytes: usize| format!("{pause:<bytes$}");
    for (what, body) in [
        ("at once", chunks(pause, 100) + "0\r\n\r\n"),
        ("byte by byte", chunks(pause, 1) + "0\r\n\r\n"),
        ("with an extension", format!("e;name=\"value\"\r\n{pause}\r\n000\r\n\r\n")),
        ("with a trailer", chunks(pause, 5) + "0\r\nChecksum: 1\r\n\r\n"),
        ("as long as it may be", chunks(&padded(1_024), 100) + "0\r\n\r\n"),
    ] {
        assert_eq!(post(&body), (200, "replay".to_owned()), "{what}");
    }
    assert_eq!(chunked("POST /api/replay", "Chunked", &(chunks(pause, 9) + "0\r\n\r\n")).0, 200);
    for (what, status, words, body) in [
        ("nothing in it", 400, "not JSON", "0\r\n\r\n".to_owned()),
        ("no JSON", 400, "not JSON", chunks("pause", 2) + "0\r\n\r\n"),
        ("a byte too long", 413, "1024 bytes", chunks(&padded(1_025), 100) + "0\r\n\r\n"),
        ("much too long", 413, "1024 bytes", chunks(&padded(50_000), 999) + "0\r\n\r\n"),
        ("no end to it", 413, "1024 bytes", "ffffffff\r\n".to_owned() + &padded(2_000)),
        ("no chunk", 400, "body", "xyz\r\n{}\r\n0\r\n\r\n".to_owned()),
        ("longer than it says", 400, "body", "2\r\n{}{}\r\n0\r\n\r\n".to_owned()),
    ] {
        let (found, error) = post(&body);
        assert!(found == status && error.contains(words), "{what}: {found} {error}");
    }
    // Where no body is taken, the method is what is wrong.
    let body = chunks(pause, 5) + "0\r\n\r\n";
    assert_eq!(chunked("POST /healthz", "chunked", &body).0, 405);
    assert_eq!(chunked("POST /api/replay", "gzip", "").0, 400);
    // One that breaks off is told so, and one that does not come.
    let ask = |body: &str| {
        let mut stream = crate::support::connect(gateway.http);
        let head = "Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
        write!(stream, "POST /api/replay HTTP/1.1\r\n{head}\r\n\r\n{body}").expect("sent");
        stream
    };
    let mut answer = String::new();
    let mut stream = ask("5\r\n{\"d");
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("broke off"), "{answer}");
    answer.clear();
    ask("5\r\n{\"d").read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body"), "{answer}");
    // The connection is as good as it was: two orders, one behind the other.
    answer.clear();
    let mut stream = ask(&body);
    let next = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(next.as_bytes()).expect("sent");
    stream.read_to_string(&mut answer).expect("two answers");
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(shown(&gateway)["state"], "paused");
}

#[test]
fn long_silences_are_skipped() {
    let capture = Capture::generate("kraken", "XBT/USD", 2, 50);
    // The same again, a year later: nobody waits for it.
    let later = capture.later("kraken", "XBT/USD", (2, 50), 1_714_564_800 + 31_536_000);
    std::fs::write(&capture.path, capture.text() + &later).expect("written");
    let (lines, digest) = normalized(&[capture.path()]);
    let args = ["replay", "--exit", "--speed", "10", "--max-idle", "100ms"];
    let args = [&args[..], &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", capture.path()]].concat();
    let ended = run(&args);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!([summary(&ended, "ticks"), summary(&ended, "digest")], [lines.len().to_string(), digest]);
}

#[test]
fn rounds_can_be_ended_and_begun() {
    let capture = Capture::generate("kraken", "XBT/USD", 2, 50);
    let gateway = replay(&["--speed", "10", "--loop"], &[capture.path()]);
    assert_eq!(shown(&gateway)["loop"], true);
    let (_, (trades, quotes)) = ((), capture.normalized());
    eventually("a second round", || gateway.metric_sum("tickfan_published_total") > trades + quotes + 50);
    told(&gateway, &json!({"do": "loop", "on": false}));
    let ended = until(&gateway, "ended");
    assert_eq!((&ended["loop"], &ended["position"]), (&false.into(), &ended["to"]), "{ended}");
    assert_eq!(gateway.readyz(), 503);
    // From the beginning again.
    let before = gateway.metric_sum("tickfan_published_total");
    told(&gateway, &json!({"do": "loop", "on": true}));
    told(&gateway, &json!({"do": "resume"}));
    eventually("it goes on", || gateway.metric_sum("tickfan_published_total") > before + trades + quotes);
    assert_eq!(gateway.readyz(), 200);
    told(&gateway, &json!({"do": "stop"}));
    until(&gateway, "ended");
    gateway.stop();
}

#[test]
fn to_stop_is_to_end() {
    let gateway = replay(&["--speed", "1", "--exit"], &SHIPPED);
    let mut client = RawSocket::open(&gateway, "?symbols=coinbase:*");
    eventually("ticks", || gateway.metric_sum("tickfan_published_total") > 10);
    told(&gateway, &json!({"do": "stop"}));
    let mut ended = 0;
    loop {
        let message = client.word();
        match message["type"].as_str() {
            Some("bye") => break,
            Some("status") => ended += u64::from(message["state"] == "ended"),
            _ => {}
        }
    }
    assert!(ended > 0, "what was told does not hold any more");
    let ended = gateway.process.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!summary(&ended, "part").is_empty());
}
