//! Long messages, long answers, and too many of them.

use super::*;

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
