//! The beginning and the end, of the gateway and of feeds.

use super::*;

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
        assert_eq!((ended.code(), ended.complaints().as_str()), (Some(0), ""), "{signal}");
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
