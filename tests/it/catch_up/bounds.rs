//! Slow readers, and how much of the past may be asked for.

use super::*;

#[test]
fn a_slow_reader_is_given_the_past_whole() {
    let mut sequencer = Sequencer::open(&["session.outbox_bytes_max=16384", "session.cut_after_ms=20000"]);
    sequencer.trades(&["demo:A"], 8 * RING);
    let mut socket = RawSocket::open_small(&sequencer.gateway, "");
    socket.text(&request(&json!("-1h")).to_string());
    assert_eq!(socket.word()["type"], "ack");
    // What it is given is bounded by its outbox and what the kernels hold, and the market goes on.
    socket.read_at_most(Some(200_000));
    for seq in 1..=500 {
        assert_eq!(trade(&mut socket)["seq"], seq);
    }
    sequencer.trades(&["demo:A"], RING);
    let rows = Gateway::get(sequencer.gateway.admin, "/api/clients").1;
    let rows: Value = serde_json::from_str(&rows).expect("JSON");
    let row = &rows["clients"][0];
    assert!(row["queued_bytes"].as_u64().expect("a count") <= 16_384, "{row}");
    assert_eq!(row["dropped"], 0, "{row}");
    socket.read_at_most(None);
    for seq in 501..=9 * RING {
        assert_eq!(trade(&mut socket)["seq"], seq);
    }
    while told(&mut socket)["type"] != "joined" {}
    sequencer.trades(&["demo:A"], 1);
    assert_eq!(trade(&mut socket)["seq"], 9 * RING + 1);
    sequencer.gateway.stop();
}

#[test]
fn what_the_bound_gave_up_is_told() {
    const BIG: u64 = 8_192;
    let settings = ["record.history_bytes_max=1048576", "session.outbox_bytes_max=16384"];
    let mut sequencer = Sequencer::with_ring(BIG, &settings);
    let filled = |sequencer: &mut Sequencer| {
        let begin = sequencer.published;
        while sequencer.published < begin + BIG
            || sequencer.gateway.metric_sum("tickfan_history_ticks") + 2 * BIG > sequencer.published
        {
            sequencer.trades(&["demo:A"], BIG);
        }
    };
    filled(&mut sequencer);
    // Who asks for more than is kept is told since when it is.
    let (mut socket, ack) = sequencer.ask(&request(&json!("-1h")));
    let row = &ack["ok"][0];
    assert_eq!(row["past"], "gap", "{ack}");
    let begins = row["begins"].as_u64().expect("since when");
    let first = trade(&mut socket);
    let seq = first["seq"].as_u64().expect("a number");
    assert!(seq > 1 && first["rx"].as_u64() >= Some(begins), "{first}, and it begins at {begins}");
    for next in seq + 1..=sequencer.published {
        assert_eq!(trade(&mut socket)["seq"], next);
    }
    assert_eq!(told(&mut socket)["type"], "joined");
    drop(socket);

    // Who is so slow that what it has not read yet is given up meanwhile, is told what is missing, and then the newest.
    let mut socket = RawSocket::open_small(&sequencer.gateway, "");
    socket.text(&request(&json!("-1h")).to_string());
    assert_eq!(socket.word()["type"], "ack");
    let begin = sequencer.published;
    while sequencer.gateway.metric_sum("tickfan_history_ticks") + begin > sequencer.published {
        sequencer.trades(&["demo:A"], BIG);
    }
    let (mut before, mut gaps, mut missed) = (None, Vec::new(), Value::Null);
    while missed.is_null() {
        let message = told(&mut socket);
        match message["type"].as_str() {
            Some("joined") => missed = message["missed"].clone(),
            Some("gap") => {
                assert_eq!(message["why"], "resume", "{message}");
                assert_eq!(message["from"].as_u64(), before.map(|seq: u64| seq + 1), "{message}");
                before = message["to"].as_u64();
                gaps.push(message);
            }
            _ => {
                let seq = message["seq"].as_u64().expect("a number");
                assert!(before.is_none_or(|before| seq == before + 1), "{message} behind {before:?}");
                before = Some(seq);
            }
        }
    }
    assert_eq!((gaps.len(), before), (1, Some(sequencer.published)), "{gaps:?}");
    assert!(missed.as_u64() > Some(0), "{missed}");
    sequencer.trades(&["demo:A"], 1);
    assert_eq!(trade(&mut socket)["seq"], sequencer.published);
    sequencer.gateway.stop();
}

/// A client that asks for the past and reads nothing of it: its place.
fn stuck(mut socket: RawSocket) -> (RawSocket, Value) {
    socket.text(&request(&json!("-1h")).to_string());
    let answer = socket.word();
    (socket, answer)
}

/// Keeps a client that does not read.
const UNHURRIED: [&str; 4] = [
    "session.outbox_bytes_max=16384",
    "session.shed_behind_ms=3600000",
    "session.pong_timeout_ms=3600000",
    "session.cut_after_ms=3600000",
];

#[test]
fn clients_of_one_address_have_so_many_places_and_leave_the_others() {
    let settings = [&UNHURRIED[..], &["record.catch_ups_per_address=2", "shard.threads=2"]].concat();
    let mut sequencer = Sequencer::open(&settings);
    sequencer.trades(&["demo:A"], 8 * RING);
    let gateway = &sequencer.gateway;
    let from = |last: u8| stuck(RawSocket::open_from([127, 0, 0, last].into(), gateway, ""));
    let (one, other) = (from(1), from(1));
    assert_eq!([&one.1["type"], &other.1["type"]], ["ack", "ack"], "{} {}", one.1, other.1);
    // Whichever thread it comes to.
    for _ in 0..4 {
        let (_, refused) = from(1);
        assert_eq!(
            (&refused["code"], &refused["retry"]),
            (&json!("rate_limited"), &json!(true)),
            "{refused}"
        );
        let msg = refused["msg"].as_str().expect("a sentence");
        assert!(msg.contains("`[record] catch_ups_per_address`"), "{msg}");
    }
    let elsewhere = from(2);
    assert_eq!(elsewhere.1["type"], "ack", "{}", elsewhere.1);
    // One that has a place needs no other, and one whose symbols are all refused keeps none.
    let (mut one, _) = one;
    let wrong = json!({"op": "subscribe", "channel": "trade", "symbols": ["nowhere:A"], "from": "-1h"});
    one.text(&wrong.to_string());
    let mut third = RawSocket::open_from([127, 0, 0, 3].into(), gateway, "");
    third.text(&wrong.to_string());
    assert_eq!(third.word()["rejected"][0]["code"], "unknown_symbol");
    let threes = [from(3), from(3)];
    assert_eq!(threes.each_ref().map(|(_, answer)| &answer["type"]), ["ack", "ack"]);
    // With its client a place is free.
    drop(other);
    let mut held = Vec::new();
    eventually("there is a place again", || {
        let (socket, answer) = from(1);
        held.push(socket);
        answer["type"] == "ack"
    });
    assert_eq!(from(1).1["code"], "rate_limited");
    // So it is when one has caught up.
    for seq in 1..=8 * RING {
        assert_eq!(past_trade(&mut one)["seq"], seq);
    }
    eventually("there is a place again", || from(1).1["type"] == "ack");
    sequencer.gateway.stop();
}

/// The next trade; answers to other requests are left out.
#[track_caller]
fn past_trade(socket: &mut RawSocket) -> Value {
    loop {
        let message = told(socket);
        if message["type"] != "ack" {
            assert_eq!(message["type"], "trade", "{message}");
            return message;
        }
    }
}

#[test]
fn one_that_catches_up_more_slowly_than_ticks_come_goes_on_with_the_present() {
    let settings = [&UNHURRIED[..], &["record.catch_ups_max=1", "record.catch_up_patience_ms=2000"]].concat();
    let mut sequencer = Sequencer::open(&settings);
    sequencer.trades(&["demo:A"], 8 * RING);
    let (mut slow, ack) = stuck(RawSocket::open_small(&sequencer.gateway, ""));
    assert_eq!(ack["type"], "ack", "{ack}");
    let mut heard = Vec::new();
    let mut next = None;
    // Twenty ticks are read while a thousand come.
    while next.is_none() {
        sequencer.trades(&["demo:A"], RING);
        heard.extend((0..20).map(|_| told(&mut slow)));
        let (socket, answer) = stuck(RawSocket::open_small(&sequencer.gateway, ""));
        assert!(answer["type"] == "ack" || answer["code"] == "rate_limited", "{answer}");
        next = (answer["type"] == "ack").then_some(socket);
        assert!(heard.iter().all(|m| m["type"] == "trade" && m["past"] == true), "{:?}", heard.last());
    }
    // Its place is another's, and all that it misses is named.
    let published = sequencer.published;
    let figure =
        |message: &Value, name: &str| message[name].as_u64().unwrap_or_else(|| panic!("{name} of {message}"));
    let is_last = |message: &Value| message["seq"] == published || message["to"] == published;
    while !(heard.iter().any(is_last) && heard.iter().any(|message| message["type"] == "joined")) {
        heard.push(told(&mut slow));
    }
    check_numbers(&ticks(&heard));
    let at = |kind: &str| heard.iter().position(|message| message["type"] == kind).expect(kind);
    let (gap, joined) = (at("gap"), at("joined"));
    assert_eq!((&heard[0]["seq"], &heard[gap]["why"]), (&json!(1), &json!("resume")), "{}", heard[gap]);
    let is_past = |message: &Value| message["past"] == true;
    assert!(heard[..gap].iter().all(is_past) && !heard[gap..].iter().any(is_past));
    // Behind the gap comes what was newest then, in which it has caught up.
    assert_eq!(figure(&heard[gap + 1], "seq"), figure(&heard[gap], "to") + 1);
    assert_eq!(joined, gap + 2, "{:?}", &heard[gap..]);
    // Where it gave up, so many were missing; those that came before there was room for the gap are in it, too.
    let missing = figure(&heard[gap], "to") - figure(&heard[gap], "from") + 1;
    let missed = figure(&heard[joined], "missed");
    assert!((1..=missing + 2).contains(&missed), "{missed} missed, a gap of {missing}");
    // What it loses from there on, it loses as any client that reads slowly.
    assert!(heard[joined..].iter().all(|m| m["type"] != "gap" || m["why"] == "slow_consumer"));
    // Here is the present.
    sequencer.trades(&["demo:A"], 3);
    for seq in published + 1..=published + 3 {
        let tick = trade(&mut slow);
        assert_eq!((&tick["seq"], &tick["past"]), (&json!(seq), &Value::Null), "{tick}");
    }
    let rows = Gateway::list(sequencer.gateway.admin, "/api/clients", "clients").0;
    for row in &rows {
        let parts = ["sent", "merged", "dropped", "lost", "pending"].map(|part| figure(row, part));
        assert_eq!(figure(row, "offered"), parts.iter().sum::<u64>(), "{row}");
    }
    // It may ask again when there is a place.
    drop(next);
    let mut last = Value::Null;
    eventually("there is a place again", || {
        let (_, answer) = sequencer.ask(&request(&json!("-1h")));
        last = answer;
        last["type"] == "ack"
    });
    sequencer.gateway.stop();
}
